"""SIGKILL under load, at random and at every named point. The clients' delivery reports are the truth to hold."""

import collections
import hashlib
import os
import random
import signal
import threading
import time

import confluent_kafka
import pytest

import harness

ROUNDS = int(os.environ.get("SLUICE_KILLS", "50"))
POINTS = ["wal.group.written", "storage.object.put", "storage.commit", "wal.recovery", "partition.snapshot.queued"]
TOPIC, PARTITIONS, PRODUCERS = "kept", 4, 3


class Load:
    """Idempotent producers that write numbered values and keep every delivery report."""

    def __init__(self, bootstrap, producers=PRODUCERS, pause=0.002, value_bytes=300):
        self.bootstrap, self.pause, self.value_bytes = bootstrap, pause, value_bytes
        self.reports = [[] for _ in range(producers)]
        self.errors, self.stopping = [], threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(producers)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def run(self, name):
        producer = confluent_kafka.Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 2,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20,
            "socket.timeout.ms": 10_000, "log_level": 0,
        })

        def delivered(error, message):
            if error is not None:
                self.errors.append(f"producer {name}: {error}")
            else:
                self.reports[name].append(
                    (message.partition(), message.offset(), hashlib.md5(message.value()).digest(), message.value()[:20])
                )

        number = 0
        while not self.stopping.is_set():
            value = b"%04d-%010d-" % (name, number) + os.urandom(self.value_bytes)
            try:
                producer.produce(TOPIC, value, partition=number % PARTITIONS, on_delivery=delivered)
                number += 1
            except BufferError:
                pass
            producer.poll(self.pause)
        if producer.flush(120) != 0:
            self.errors.append(f"producer {name}: undelivered")
        self.sent = number

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(150)
        assert not self.errors, self.errors[:5]

    def delivered(self):
        return sum(map(len, self.reports))


def read_back(bootstrap):
    """{(partition, offset): value} of everything in the topic."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": bootstrap, "group.id": "check", "enable.partition.eof": True,
        "auto.offset.reset": "earliest", "fetch.message.max.bytes": 4 << 20,
    })
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, n, 0) for n in range(PARTITIONS)])
    values, ended = {}, set()
    while len(ended) < PARTITIONS:
        for message in consumer.consume(5000, 30):
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
                continue
            place = (message.partition(), message.offset())
            assert place not in values, f"read twice: {place}"
            values[place] = message.value()
    consumer.close()
    return values


def check(load, bootstrap):
    """Each reported offset holds exactly that value, no value stands twice, each producer's numbers rise."""
    values = read_back(bootstrap)
    for reports in load.reports:
        for partition, offset, digest, head in reports:
            held = values.get((partition, offset))
            assert held is not None, f"lost: {head} at {partition}/{offset}"
            assert hashlib.md5(held).digest() == digest, f"another value at {partition}/{offset}"
    counts = collections.Counter(hashlib.md5(value).digest() for value in values.values())
    assert max(counts.values(), default=0) <= 1, "a value stands twice"
    last = {}
    for (partition, offset), value in sorted(values.items()):
        producer, number = int(value[:4]), int(value[5:15])
        assert number > last.get((partition, producer), -1), f"order broken at {partition}/{offset}"
        last[partition, producer] = number
    return len(values)


def test_fifty_kills_under_load_lose_nothing(place):
    broker = harness.Broker(place, settings=["upload.age.max=300ms", "upload.size.max=1MiB"])
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    load = Load(broker.bootstrap).start()
    chance, met = random.Random(50), collections.Counter()
    try:
        for round_number in range(ROUNDS):
            point = POINTS[(round_number // 2) % len(POINTS)] if round_number % 2 else None
            before = load.delivered()
            if point is None:
                time.sleep(chance.uniform(0.05, 1.0))
                broker.kill()
                broker.start()
            else:
                met[point] += at_point(broker, point, chance, load)
            harness.wait_until(lambda: load.delivered() > before or load.errors, 60, f"progress after {point}")
        load.stop()
        total = check(load, broker.bootstrap)
        assert load.delivered() <= total
        broker.fsck()
        assert all(met[point] for point in POINTS), met
        print(f"{ROUNDS} kills, {load.delivered()} reports, {total} records, points met: {dict(met)}")
    finally:
        load.stopping.set()
        if broker.running():
            broker.kill()


def stop_behind_records(broker, spec, load):
    """A partition that was written to takes a snapshot when it is closed."""
    before = load.delivered()
    broker.start(spec.replace("=2:", "=1:").replace("=3:", "=1:"))
    harness.wait_until(lambda: load.delivered() > before + 10 or load.errors, 60, "load before the stop")
    broker.process.send_signal(signal.SIGTERM)


def at_point(broker, point, chance, load):
    """Makes the broker die at `point` and starts it again; returns how often the point was met."""
    spec = f"{point}={chance.randint(1, 3) if not point.endswith('recovery') else 1}:kill"
    broker.kill()
    # A log that has no segment ready at the moment of a stop takes no snapshot: the stop is tried again.
    for _ in range(3 if point == "partition.snapshot.queued" else 1):
        if point == "partition.snapshot.queued":
            stop_behind_records(broker, spec, load)
        else:
            # It may be met before the broker is ready.
            broker.spawn(spec)
        code = broker.wait_exit(30)
        if code == -signal.SIGKILL:
            break
    assert code == -signal.SIGKILL, f"{point}: exit {code}\n{broker.tail()}"
    assert f"fail point {point}" in broker.tail(400), point
    broker.start()
    return 1


def test_an_error_in_one_writer_ends_the_process(place):
    """EIO for one of the log's writer threads: nothing of the others is acknowledged after it."""
    import subprocess

    broker = harness.Broker(place, settings=["upload.age.max=1s"])
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    load = Load(broker.bootstrap).start()
    harness.wait_until(lambda: load.delivered() > 2000, 60, "load")
    tasks = f"/proc/{broker.process.pid}/task"
    writers = sorted(
        int(task) for task in os.listdir(tasks)
        if open(f"{tasks}/{task}/comm").read().startswith("wal-writer")
    )
    assert len(writers) > 1, "several writers"
    tracer = subprocess.Popen(
        ["strace", "-q", "-p", str(writers[1]), "-e", "trace=pwrite64,pwritev,pwritev2,fdatasync",
         "-e", "inject=pwrite64,pwritev,pwritev2:error=EIO:when=20"],
        stderr=open(place / "strace.log", "wb"), start_new_session=True,
    )
    try:
        code = broker.wait_exit(60)
    finally:
        tracer.kill()
        tracer.wait()
    assert code == 70, f"exit {code}\n{broker.tail()}"
    assert "Input/output error" in broker.tail() or "os error 5" in broker.tail(), broker.tail()
    broker.start()
    load.stop()
    print(check(load, broker.bootstrap), "records after EIO in one writer")
    broker.kill()

"""Apache Kafka and Sluice on this machine in one run, alternating, with Kafka's own load generator.

    make bench            three rounds
    make bench QUICK=1    one round

Prints medians and ratios. Both brokers run on loopback with their own defaults, Kafka with a 1 GiB heap. CPU seconds per GiB are
the steadiest figure; rates and latencies on two cores are mostly the Java client's.
"""

import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import harness  # noqa: E402
import wire  # noqa: E402

ROUNDS = 1 if os.environ.get("QUICK") else 3
RECORDS, RECORD_BYTES = 1_000_000, 1024
GIB = RECORDS * RECORD_BYTES / (1 << 30)


class Kafka:
    """One KRaft node with its own defaults."""

    name = "kafka"

    def __init__(self, place):
        self.place = pathlib.Path(place)
        self.port, controller = harness.free_port(), harness.free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.place.mkdir(parents=True)
        properties = self.place / "server.properties"
        properties.write_text(
            f"process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners=PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller}\n"
            f"advertised.listeners=PLAINTEXT://{self.bootstrap}\ncontroller.listener.names=CONTROLLER\n"
            f"log.dirs={self.place}/log\noffsets.topic.replication.factor=1\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
        )
        environment = {**os.environ, "KAFKA_HEAP_OPTS": "-Xms1g -Xmx1g"}
        self.log = open(self.place / "kafka.log", "ab")
        subprocess.run(
            [harness.TOOLS / "kafka-storage", "format", "-c", properties, "-t", "bench-kafka-cluster-00"],
            check=True, stdout=self.log, stderr=self.log,
        )
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [harness.TOOLS / "kafka-server", properties], stdout=self.log, stderr=self.log, env=environment,
            start_new_session=True,
        )

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


class Sluice:
    """One broker with its own defaults."""

    name = "sluice"

    def __init__(self, place):
        self.broker = harness.Broker(place)
        self.bootstrap = self.broker.bootstrap
        self.began = time.monotonic()
        self.broker.spawn()
        self.process = self.broker.process

    def stop(self):
        self.broker.stop()


def first_record(broker):
    """Seconds from the start of the process to the first acknowledged record."""
    while True:
        assert broker.process.poll() is None, "the broker ended"
        try:
            connection = wire.Connection(broker.bootstrap, seconds=5)
            create = wire.struct.pack(">i", 1) + wire.string("first") + wire.struct.pack(">ihiiib", 1, 1, 0, 0, 5000, 0)
            connection.ask(19, 2, create)
            if connection.produce("first", {0: wire.batch([b"x"])})[0][0] == 0:
                return time.monotonic() - broker.began
        except (OSError, AssertionError):
            pass
        time.sleep(0.002)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid, field="VmRSS"):
    return int(re.search(rf"{field}:\s+(\d+)", open(f"/proc/{pid}/status").read()).group(1)) / 1024


def produce(broker, topic, throughput):
    """(MB/s, p50 ms, p99 ms, p99.9 ms, broker CPU seconds per GiB)."""
    records = RECORDS if throughput < 0 else throughput * 15
    before = cpu_seconds(broker.process.pid)
    done = subprocess.run(
        [harness.TOOLS / "kafka-producer-perf-test", "--topic", topic, "--num-records", str(records),
         "--record-size", str(RECORD_BYTES), "--throughput", str(throughput), "--producer-props",
         f"bootstrap.servers={broker.bootstrap}", "acks=all"],
        capture_output=True, text=True, check=True,
    )
    spent = cpu_seconds(broker.process.pid) - before
    last = done.stdout.strip().splitlines()[-1]
    rate = float(re.search(r"\(([\d.]+) MB/sec\)", last).group(1))
    p50, p99, p999 = (float(re.search(rf"(\d+) ms {name}", last).group(1)) for name in ("50th", "99th", r"99\.9th"))
    return rate, p50, p99, p999, spent / (records * RECORD_BYTES / (1 << 30))


def consume(broker, topic):
    """(MB/s, broker CPU seconds per GiB)."""
    before = cpu_seconds(broker.process.pid)
    done = subprocess.run(
        [harness.TOOLS / "kafka-consumer-perf-test", "--bootstrap-server", broker.bootstrap, "--topic", topic,
         "--messages", str(RECORDS), "--timeout", "60000"],
        capture_output=True, text=True, check=True,
    )
    spent = cpu_seconds(broker.process.pid) - before
    return float(done.stdout.strip().splitlines()[-1].split(",")[3]), spent / GIB


def measure(broker):
    row = {"start to first acknowledged record, s": first_record(broker)}
    time.sleep(3)
    row["idle RSS, MiB"] = memory_mib(broker.process.pid)
    subprocess.run(
        [harness.TOOLS / "kafka-topics", "--bootstrap-server", broker.bootstrap, "--create", "--topic", "load",
         "--partitions", "16"], check=True, capture_output=True,
    )
    produce(broker, "load", 20_000)  # warm
    rate, _, p99, _, cpu = produce(broker, "load", -1)
    row |= {"produce, MB/s": rate, "produce at full speed, p99 ms": p99, "produce, broker CPU s/GiB": cpu}
    _, p50, p99, p999, _ = produce(broker, "load", 20_000)
    row |= {"20,000 records/s, p50 ms": p50, "20,000 records/s, p99 ms": p99, "20,000 records/s, p99.9 ms": p999}
    rate, cpu = consume(broker, "load")
    row |= {"consume, MB/s": rate, "consume, broker CPU s/GiB": cpu}
    row["peak RSS, MiB"] = memory_mib(broker.process.pid, "VmHWM")
    return row


def sink_speed(place):
    """MB/s of JSON into Parquet, wall and per CPU second, from a topic that already lies in objects."""
    broker = harness.Broker(place, settings=["upload.age.max=1s"])
    broker.start()
    broker.cli("topic", "create", "json", "--partitions", 4)
    import confluent_kafka

    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 20})
    total = 0
    for number in range(1_000_000):
        value = json.dumps({"n": number, "name": f"name {number % 1000}", "x": number / 7, "ok": number % 2 == 0,
                            "tags": ["a", "b"], "at": {"lat": 1.5, "lon": number % 360}}).encode()
        total += len(value)
        while True:
            try:
                producer.produce("json", value)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush()
    time.sleep(3)
    spent, began = cpu_seconds(broker.process.pid), time.monotonic()
    broker.cli("sink", "create", "json", "--topic", "json", "--set", "file.size.bytes=67108864", "--set", "idle.ms=1000")

    def lag():
        partitions = broker.sink_state("json")["partitions"]
        return len(partitions) == 4 and sum(one["lag"] or 0 for one in partitions) == 0 and all(
            one["boundary"] for one in partitions)

    harness.wait_until(lag, 300, "all landed")
    wall, cpu = time.monotonic() - began, cpu_seconds(broker.process.pid) - spent
    code, _ = broker.verify("json")
    assert code == 0
    broker.stop()
    return {"MB/s": total / 1e6 / wall, "MB per CPU second": total / 1e6 / cpu, "MB": total / 1e6}


def main():
    load = os.getloadavg()[0]
    if load > 1.0 and not os.environ.get("BENCH_ANYWAY"):
        sys.exit(f"load is {load:.1f}: something else is running; wait, or set BENCH_ANYWAY=1 and say so beside the figures")
    place = pathlib.Path(tempfile.mkdtemp(prefix="sluice-bench-"))
    rows = {"kafka": [], "sluice": []}
    try:
        for number in range(ROUNDS):
            for maker in (Kafka, Sluice) if number % 2 == 0 else (Sluice, Kafka):
                broker = maker(place / f"{maker.name}-{number}")
                rows[maker.name].append(measure(broker))
                broker.stop()
                shutil.rmtree(place / f"{maker.name}-{number}", ignore_errors=True)
        sink = sink_speed(place / "sink")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, load before {load:.1f}, {ROUNDS} round(s), medians")
    print(f"{'':46}{'kafka':>10}{'sluice':>10}{'ratio':>8}")
    for name in rows["kafka"][0]:
        ours, theirs = (statistics.median(row[name] for row in rows[who]) for who in ("sluice", "kafka"))
        print(f"{name:46}{theirs:>10.2f}{ours:>10.2f}{ours / theirs if theirs else 0:>8.2f}")
    print("sink: " + ", ".join(f"{value:.0f} {name}" for name, value in sink.items()))
    print(f"bench used {resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} CPU s in children")


if __name__ == "__main__":
    main()

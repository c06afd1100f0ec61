"""What survives the loss of the data directory, of the log, of a process in the middle of a delete or a snapshot."""

import json
import signal
import shutil
import time

import confluent_kafka
import pytest

import harness

TOPIC, PARTITIONS, LOST = "events", 2, 1 << 32
FAST = [
    "upload.age.max=300ms", "meta.snapshot.interval=1s", "object.delete.delay=1s", "group.initial.rebalance.delay.ms=0",
]


def produce(broker, numbers):
    """{number: (partition, offset)} of what was acknowledged."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    places = {}

    def delivered(number):
        def report(error, message):
            assert error is None, error
            places[number] = (message.partition(), message.offset())
        return report

    for number in numbers:
        value = json.dumps({"n": number, "text": "x" * 100})
        producer.produce(TOPIC, value, partition=number % PARTITIONS, on_delivery=delivered(number))
    assert producer.flush(60) == 0
    return places


def read(broker):
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "reader", "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    })
    consumer.assign([confluent_kafka.TopicPartition(TOPIC, one, 0) for one in range(PARTITIONS)])
    found, ended = {}, set()
    while len(ended) < PARTITIONS:
        messages = consumer.consume(1000, 5)
        if not messages:
            # The position waits inside a lost range: its end is told by the first record behind it.
            break
        for message in messages:
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
                continue
            number = json.loads(message.value())["n"]
            assert number not in found, f"twice: {number}"
            found[number] = (message.partition(), message.offset())
    consumer.close()
    return found


def in_objects(broker, places):
    """True once everything in `places` lies in committed objects."""
    ends = {}
    for partition, offset in places.values():
        ends[partition] = max(ends.get(partition, -1), offset)
    return all(located(broker, partition, offset)["in"] == "object" for partition, offset in ends.items())


def located(broker, partition, offset):
    return json.loads(broker.cli("object", "locate", TOPIC, partition, offset, "-o", "json").stdout)


def snapshots(store):
    return sorted(store.glob("*/meta/*.head"))


def sink_landed(broker, end):
    partitions = broker.sink_state(TOPIC)["partitions"]
    return len(partitions) == PARTITIONS and all((one["boundary"] or 0) >= end for one in partitions)


@pytest.fixture
def bucket(place):
    store = place / "bucket"
    store.mkdir()
    return store


def test_a_cluster_is_rebuilt_from_its_bucket(place, bucket):
    broker = harness.Broker(place, settings=FAST, store=f"file://{bucket}")
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    broker.cli("sink", "create", TOPIC, "--topic", TOPIC, "--set", "flush.size=100", "--set", "idle.ms=1000")
    kept = produce(broker, range(1000))
    group = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "workers"})
    committed = [confluent_kafka.TopicPartition(TOPIC, one, 123 + one) for one in range(PARTITIONS)]
    group.commit(offsets=committed, asynchronous=False)
    group.close()
    harness.wait_until(lambda: in_objects(broker, kept), 30, "uploaded")
    before = len(snapshots(bucket)) and snapshots(bucket)[-1].name
    harness.wait_until(lambda: snapshots(bucket)[-1].name != before, 30, "a snapshot")
    # Newer than the snapshot, in objects all the same.
    kept.update(produce(broker, range(1000, 1400)))
    harness.wait_until(lambda: in_objects(broker, kept), 30, "uploaded")
    # Acknowledged, and perhaps only in the log.
    perhaps = produce(broker, range(1400, 1450))
    broker.kill()
    old = place / "old"
    broker.data.rename(old)

    done = broker.cli("meta", "rebuild", "--object-store", broker.store, "--data-dir", broker.data, "-o", "json")
    report = json.loads(done.stdout)
    assert report["incarnation"] == 2 and report["left"] == [], report
    # Sinks, offsets and this topic: three streams of each partition.
    assert len(report["lost"]) % 3 == 0 and len(report["lost"]) >= 3 * PARTITIONS
    broker.start()
    found = read(broker)
    for number, where in kept.items():
        assert found.get(number) == where, f"record {number} of {where} is lost"
    assert all(found[number] == perhaps[number] for number in found.keys() - kept.keys())
    group = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "workers"})
    offsets = [one.offset for one in group.committed(committed, timeout=30)]
    group.close()
    assert offsets == [123, 124]

    new = produce(broker, range(5000, 5300))
    assert min(offset for _, offset in new.values()) >= LOST, "an offset is given twice"
    total = read(broker)
    assert set(new) <= set(total) and total.keys() - new.keys() == found.keys()
    ends = max(offset for _, offset in new.values()) + 1
    harness.wait_until(lambda: sink_landed(broker, ends), 60, f"landed\n{broker.tail()}")
    code, proof = broker.verify(TOPIC)
    assert code == 0, proof
    assert sum(one["rows"] for one in proof["partitions"]) == len(total)
    assert located(broker, 0, LOST - 5)["in"] == "lost"
    broker.fsck()
    assert broker.stop() == 0
    broker.fsck(offline=True)

    # The former life is over.
    former = harness.Broker(place / "former", settings=FAST, store=broker.store)
    former.data = old
    former.spawn()
    assert former.wait_exit(30) == 1
    assert "incarnation 2" in former.tail(3), former.tail()


def test_a_broker_whose_cluster_was_rebuilt_ends_itself(place, bucket):
    broker = harness.Broker(place, settings=FAST, store=f"file://{bucket}")
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    kept = produce(broker, range(100))
    harness.wait_until(lambda: in_objects(broker, kept) and snapshots(bucket), 30, "uploaded")
    broker.cli("meta", "rebuild", "--object-store", broker.store, "--data-dir", place / "next")
    again = broker.cli("meta", "rebuild", "--object-store", broker.store, "--data-dir", place / "next", check=False)
    assert again.returncode == 1 and "not empty" in again.stderr
    # Any change makes the next snapshot due.
    broker.cli("topic", "create", "another", check=False)
    assert broker.wait_exit(30) == 71
    assert "incarnation 2" in broker.tail(3), broker.tail()


def test_a_damaged_snapshot_costs_nothing(place, bucket):
    broker = harness.Broker(place, settings=FAST, store=f"file://{bucket}")
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    for part in range(3):
        count = len(snapshots(bucket))
        kept = produce(broker, range(100 * part, 100 * part + 100))
        harness.wait_until(lambda: in_objects(broker, kept), 30, "uploaded")
        harness.wait_until(lambda: len(snapshots(bucket)) > count or count >= 3, 30, "a snapshot")
    broker.kill()
    newest = snapshots(bucket)[-1]
    part = newest.with_suffix("") / "000000"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = broker.cli("meta", "rebuild", "--object-store", broker.store, "--data-dir", place / "next", "-o", "json")
    report = json.loads(done.stdout)
    assert len(report["skipped"]) == 1 and newest.stem in report["skipped"][0], report
    broker.data = place / "next"
    broker.start()
    assert len(read(broker)) == 300
    broker.fsck()
    broker.kill()


def test_a_log_that_is_gone_is_declared_lost(place):
    broker = harness.Broker(place, settings=FAST)
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    kept = produce(broker, range(200))
    harness.wait_until(lambda: in_objects(broker, kept), 30, "uploaded")
    wal = json.loads(broker.get("/v1/wal"))["logs"][0]["wal"]
    broker.kill()
    saved = place / "saved-wal"
    shutil.copytree(broker.data / "wal", saved)
    shutil.rmtree(broker.data / "wal")
    for disk in ("missing", "empty"):
        broker.spawn()
        assert broker.wait_exit(30) == 1
        assert "sluice broker wal-lost" in broker.tail(3), f"{disk}: {broker.tail()}"
        (broker.data / "wal").mkdir(exist_ok=True)
    shown = broker.cli("broker", "wal-lost", "--data-dir", broker.data, "-o", "json")
    rows = [row for row in json.loads(shown.stdout) if row["topic"] == TOPIC]
    assert [row["lost_from"] for row in rows] == [100, 100], shown.stdout
    broker.spawn()
    assert broker.wait_exit(30) == 1, "showing changes nothing"
    broker.cli("broker", "wal-lost", wal, "--data-dir", broker.data, "--yes")
    broker.start()
    assert read(broker) == kept
    new = produce(broker, range(1000, 1010))
    assert all(offset >= 100 + LOST for _, offset in new.values())
    assert len(read(broker)) == 210
    assert json.loads(broker.get("/v1/wal"))["logs"][0]["closed"]
    broker.fsck()
    broker.kill()
    # The old directory comes back.
    shutil.rmtree(broker.data / "wal")
    shutil.copytree(saved, broker.data / "wal")
    broker.spawn()
    assert broker.wait_exit(30) == 1
    assert "wal-lost" in broker.tail(3), broker.tail()


def objects(broker):
    return [one for one in (broker.data / "objects").glob("*/data/*/*") if "#" not in one.name]


@pytest.mark.parametrize("point", ["storage.sweep.deleted", "meta.snapshot.put"])
def test_a_deleted_topics_bytes_go_whatever_interrupts(place, point):
    broker = harness.Broker(place, settings=FAST)
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    for part in range(3):
        kept = produce(broker, range(100 * part, 100 * part + 100))
        harness.wait_until(lambda: in_objects(broker, kept), 30, "uploaded")
    broker.kill()
    broker.spawn(f"{point}=2:kill" if point.startswith("meta") else f"{point}=1:kill")
    broker.wait_ready()
    broker.cli("topic", "delete", TOPIC, check=False)
    deadline = time.monotonic() + 60
    while broker.running() and time.monotonic() < deadline:
        # Changes, so that snapshots are taken until none names the topic any more.
        broker.cli("topic", "create", f"t{time.monotonic_ns()}", check=False)
        time.sleep(0.3)
    assert broker.wait_exit(5) == -signal.SIGKILL, broker.tail()
    staged = next((broker.data / "objects").glob("*/data/*")) / "0000000000000001#1"
    staged.write_bytes(b"half a put")
    broker.start()
    count = 0
    while objects(broker) and count < 100:
        broker.cli("topic", "create", f"u{count}", check=False)
        time.sleep(0.3)
        count += 1
    assert not staged.exists()
    report = broker.fsck(grace="1s")
    assert report["objects"] == 0 and report["pending"] == 0, report
    assert broker.stop() == 0
    broker.fsck(offline=True)

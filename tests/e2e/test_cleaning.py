"""Retention, DeleteRecords and topic compaction against a real broker, with stock clients and by hand."""

import os
import struct
import time

import confluent_kafka
from confluent_kafka.admin import AdminClient, NewTopic
import pytest

import harness
import wire

UPDATES = int(os.environ.get("SLUICE_COMPACT_UPDATES", "300000"))
KEYS = int(os.environ.get("SLUICE_COMPACT_KEYS", "20000"))
QUICK = ["log.retention.check.interval.ms=200", "upload.age.max=100ms"]
OUT_OF_RANGE, UNKNOWN, POLICY, TIMED_OUT, INVALID_TOPIC = 1, 3, 44, 7, 17


@pytest.fixture
def broker(tmp_path):
    broker = harness.Broker(tmp_path, settings=QUICK).start()
    yield broker
    if broker.running():
        broker.kill()


def admin(broker):
    return AdminClient({"bootstrap.servers": broker.bootstrap})


def create(broker, name, partitions=1, **config):
    config = {key.replace("_", "."): str(value) for key, value in config.items()}
    client = admin(broker)
    client.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)


def produce(broker, topic, records, **more):
    """`records`: (key, value) pairs."""
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, **more})
    failed = []
    for key, value in records:
        while True:
            try:
                producer.produce(
                    topic, value, key=key, partition=0,
                    on_delivery=lambda error, _: failed.append(error) if error else None,
                )
                break
            except BufferError:
                producer.poll(0.05)
        producer.poll(0)
    assert producer.flush(120) == 0 and not failed, failed[:3]


def consume(broker, topic, offset=0):
    """[(offset, key, value)] to the end, as a stock consumer sees it."""
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "reader", "enable.partition.eof": True,
        "enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.message.max.bytes": 4 << 20,
    })
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, offset)])
    seen, deadline = [], time.monotonic() + 120
    while time.monotonic() < deadline:
        for message in consumer.consume(1000, 1.0):
            if message.error():
                assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
                consumer.close()
                return seen
            seen.append((message.offset(), message.key(), message.value()))
    raise AssertionError("the end of the partition was not reached")


def bounds(broker, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "bounds"})
    found = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=30)
    consumer.close()
    return found


def start_of(broker, topic):
    return bounds(broker, topic)[0]


def delete_records(broker, topic, offset, partition=0, timeout_ms=10_000):
    """(low watermark, error) of DeleteRecords version 0."""
    connection = wire.Connection(broker.bootstrap)
    body = struct.pack(">i", 1) + wire.string(topic) + struct.pack(">iiqi", 1, partition, offset, timeout_ms)
    answer = connection.ask(21, 0, body)
    connection.close()
    at = 8 + 2 + len(topic) + 4
    index, low, error = struct.unpack_from(">iqh", answer, at)
    assert index == partition
    return low, error


def fetch_error(broker, topic, offset):
    connection = wire.Connection(broker.bootstrap)
    error, _, _ = wire.fetched(connection.ask(1, 4, wire.fetch(topic, 0, offset)))
    connection.close()
    return error


def numbered(count, start=0):
    return [(b"k%d" % n, b"%d" % n) for n in range(start, start + count)]


def test_records_go_by_age_and_the_start_holds_over_a_kill(broker):
    create(broker, "aged", retention_ms=1000)
    create(broker, "kept")
    for topic in ["aged", "kept"]:
        produce(broker, topic, numbered(500))
    harness.wait_until(lambda: start_of(broker, "aged") == 500, 30, "all old records are gone")
    assert bounds(broker, "kept") == (0, 500)
    assert fetch_error(broker, "aged", 499) == OUT_OF_RANGE
    assert fetch_error(broker, "aged", 500) == 0
    broker.kill()
    broker.start()
    assert bounds(broker, "aged") == (500, 500)
    produce(broker, "aged", numbered(3, 500))
    assert [offset for offset, _, _ in consume(broker, "aged", 500)] in ([500, 501, 502], [])


def test_records_go_by_size_and_by_the_defaults_of_broker_and_cluster(broker):
    create(broker, "sized", retention_bytes=3000)
    for round_ in range(6):
        produce(broker, "sized", [(None, os.urandom(1000))] * 2)
        time.sleep(0.3)
    harness.wait_until(lambda: start_of(broker, "sized") > 0, 30, "the oldest are gone")
    low, high = bounds(broker, "sized")
    assert high == 12 and 12 - low >= 2, (low, high)
    create(broker, "by-default")
    produce(broker, "by-default", numbered(10))
    broker.tool("kafka-configs", "--bootstrap-server", broker.bootstrap, "--alter", "--entity-type", "brokers",
                "--entity-default", "--add-config", "log.retention.ms=500")
    harness.wait_until(lambda: start_of(broker, "by-default") == 10, 30, "the cluster's default counts")
    described = broker.tool("kafka-configs", "--bootstrap-server", broker.bootstrap, "--describe", "--all",
                            "--entity-type", "topics", "--entity-name", "by-default").stdout
    assert "retention.ms=500" in described


def test_delete_records_as_kafka_answers(broker, tmp_path):
    create(broker, "emptied", partitions=2)
    create(broker, "compacted", cleanup_policy="compact")
    produce(broker, "emptied", numbered(100))
    produce(broker, "compacted", numbered(10))
    assert delete_records(broker, "emptied", 40) == (40, 0)
    assert delete_records(broker, "emptied", 10) == (40, 0)
    assert delete_records(broker, "emptied", 101) == (-1, OUT_OF_RANGE)
    assert delete_records(broker, "emptied", -2) == (-1, OUT_OF_RANGE)
    assert delete_records(broker, "emptied", 0, partition=7) == (-1, UNKNOWN)
    assert delete_records(broker, "nowhere", 0) == (-1, UNKNOWN)
    assert delete_records(broker, "compacted", 5) == (-1, POLICY)
    assert bounds(broker, "emptied") == (40, 100)
    assert fetch_error(broker, "emptied", 39) == OUT_OF_RANGE
    assert consume(broker, "emptied", 40)[0][2] == b"40"
    plan = tmp_path / "plan.json"
    plan.write_text('{"version": 1, "partitions": [{"topic": "emptied", "partition": 0, "offset": 60}]}')
    told = broker.tool("kafka-delete-records", "--bootstrap-server", broker.bootstrap, "--offset-json-file", plan)
    assert "low_watermark: 60" in told.stdout, told.stdout
    broker.kill()
    broker.start()
    assert bounds(broker, "emptied") == (60, 100)
    assert delete_records(broker, "emptied", -1) == (100, 0)
    assert bounds(broker, "emptied") == (100, 100)
    produce(broker, "emptied", numbered(1, 100))
    assert consume(broker, "emptied", 100) == [(100, b"k100", b"100")]


def test_a_kill_behind_the_commit_keeps_the_new_start(broker):
    create(broker, "emptied")
    produce(broker, "emptied", numbered(100))
    broker.kill()
    broker.start(failpoints="partition.start.moved=1:kill")
    with pytest.raises((AssertionError, OSError)):
        delete_records(broker, "emptied", 40)
    broker.wait_exit(30)
    broker.start()
    assert bounds(broker, "emptied") == (40, 100)


def latest(records):
    return {key: value for _, key, value in records}


def settle(broker, topic, keys):
    """Waits until `topic` holds about one record a key; each look is at the objects, from a broker just started."""
    for _ in range(30):
        time.sleep(1)
        assert broker.stop() == 0
        broker.start()
        seen = consume(broker, topic)
        if len(seen) <= keys * 1.05:
            return seen
    raise AssertionError(f"{len(seen)} records of {keys} keys")


def updates(count, keys, start=0):
    for n in range(start, start + count):
        yield b"key-%06d" % (n * 7919 % keys), b"%012d" % n


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_updates_settle_to_about_one_record_a_key(broker, codec):
    count = UPDATES if codec == "none" else UPDATES // 5
    create(broker, "table", cleanup_policy="compact", min_cleanable_dirty_ratio=0.01)
    produce(broker, "table", updates(count, KEYS), **{"compression.type": codec})
    seen = settle(broker, "table", KEYS)
    expected = {}
    for key, value in updates(count, KEYS):
        expected[key] = value
    assert latest(seen) == expected
    assert [offset for offset, _, _ in seen] == sorted(offset for offset, _, _ in seen)
    assert all(value == b"%012d" % offset for offset, _, value in seen), "offsets never change"
    assert bounds(broker, "table")[1] == count
    assert broker.metrics()["sluice_partition_compact_errors_total"] == 0


def test_tombstones_go_and_compact_delete_does_both(broker):
    create(broker, "table", cleanup_policy="compact", min_cleanable_dirty_ratio=0, delete_retention_ms=1000)
    create(broker, "both", cleanup_policy="compact,delete", min_cleanable_dirty_ratio=0, retention_ms=1500)
    for topic in ["table", "both"]:
        produce(broker, topic, updates(200, 20))
    produce(broker, "table", [(b"key-%06d" % n, None) for n in range(10)])
    # Tombstones in the last batch stay until more comes.
    produce(broker, "table", [(b"key-000015", b"x")])
    settle(broker, "table", 10)
    assert all(value is not None for _, _, value in consume(broker, "table"))
    harness.wait_until(lambda: start_of(broker, "both") == 200, 30, "old records of both are gone")


@pytest.mark.parametrize("point", ["mapped", "rewritten", "noted"])
def test_a_kill_during_compaction_loses_nothing(broker, point):
    broker.kill()
    broker.start(failpoints=f"partition.compact.{point}=1:kill")
    create(broker, "table", cleanup_policy="compact", min_cleanable_dirty_ratio=0.01)
    try:
        produce(broker, "table", updates(5000, 100), **{"message.timeout.ms": 3000})
        done = 5000
    except AssertionError:
        done = None
    broker.wait_exit(60)
    broker.start()
    if done is None:
        produce(broker, "table", updates(5000, 100))
    seen = settle(broker, "table", 100)
    expected = {}
    for key, value in updates(5000, 100):
        expected[key] = value
    assert latest(seen) == expected


def test_committed_offsets_stay_small(broker):
    produce(broker, "read", numbered(10))
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "busy", "enable.auto.commit": False,
    })
    position = [confluent_kafka.TopicPartition("read", 0, 5)]
    for _ in range(2000):
        consumer.commit(offsets=position, asynchronous=False)
    consumer.close()

    def dropped():
        return broker.metrics()["sluice_partition_compact_records_dropped_total"] > 1500
    harness.wait_until(dropped, 60, "old offsets are gone")
    broker.kill()
    broker.start()
    again = confluent_kafka.Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "busy"})
    assert again.committed(position, timeout=30)[0].offset == 5
    again.close()

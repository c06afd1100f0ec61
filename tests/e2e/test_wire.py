"""Order, bad input and refusals, frame by frame. After each the broker still serves."""

import os
import random
import struct

import pytest

import harness
import wire

CORRUPT, TOO_LARGE, INVALID_TOPIC, INVALID_RECORD = 2, 10, 17, 87
UNSUPPORTED_VERSION = 35


def still_serves(broker):
    broker.cli("topic", "create", "alive", check=False)
    connection = wire.Connection(broker.bootstrap)
    assert connection.produce("alive", {0: wire.batch([b"x"])})[0][0] == 0
    connection.close()


def read_all(broker, topic):
    import confluent_kafka

    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "none", "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    })
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    values = []
    while True:
        message = consumer.poll(30)
        assert message is not None, "no answer"
        if message.error():
            assert message.error().code() == confluent_kafka.KafkaError._PARTITION_EOF, message.error()
            break
        values.append(message.value())
    consumer.close()
    return values


def test_order_holds_with_five_requests_in_flight(broker):
    broker.cli("topic", "create", "order")
    connection = wire.Connection(broker.bootstrap)
    noise = random.Random(5)
    sent, waiting = [], []

    def one_answer():
        correlation, body = connection.receive()
        assert correlation == waiting.pop(0)
        ((error, base),) = wire.produced(body).values()
        assert error == 0
        return base

    bases = []
    for number in range(100):
        if number % 2 == 0:
            # About 1 MiB once compressed: random bytes do not shrink.
            value = b"%06d" % number + noise.randbytes(1_000_000)
            data = wire.batch([value], codec="zstd")
        else:
            value = b"%06d" % number + b"." * 94
            data = wire.batch([value])
        sent.append(value)
        waiting.append(connection.send(0, 7, wire.produce("order", {0: data})))
        if len(waiting) == 5:
            bases.append(one_answer())
    while waiting:
        bases.append(one_answer())
    assert bases == list(range(100))
    assert [value[:6] for value in read_all(broker, "order")] == [value[:6] for value in sent]


@pytest.mark.parametrize("name, data, error", [
    ("wrong checksum", wire.batch([b"x"], crc=1), CORRUPT),
    ("wrong count", wire.batch([b"x", b"y"], count=3), INVALID_RECORD),
    ("no records", wire.batch([b"x"], count=0), INVALID_RECORD),
    ("control bit", wire.batch([b"x"], attributes=0x20), INVALID_RECORD),
    ("too large", wire.batch([b"x" * 1_100_000]), TOO_LARGE),
    ("two batches", wire.batch([b"x"]) * 2, INVALID_RECORD),
    ("hostile count", wire.batch([b"x"], count=0x7FFFFFFF), INVALID_RECORD),
], ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "")
def test_bad_batches_are_refused_with_the_error_of_kafka(broker, name, data, error):
    broker.cli("topic", "create", "bad")
    connection = wire.Connection(broker.bootstrap)
    assert connection.produce("bad", {0: data})[0][0] == error, name
    assert connection.produce("bad", {0: wire.batch([b"good"])})[0] == (0, 0)
    still_serves(broker)


def test_old_message_formats_are_refused(broker):
    broker.cli("topic", "create", "old")
    connection = wire.Connection(broker.bootstrap)
    for magic in (0, 1):
        error = connection.produce("old", {0: wire.batch([b"x"], magic=magic)})[0][0]
        assert error in (CORRUPT, INVALID_RECORD), (magic, error)
    still_serves(broker)


@pytest.mark.parametrize("name, frame", [
    ("huge length", struct.pack(">i", 0x7FFFFFFF)),
    ("negative length", struct.pack(">i", -5)),
    ("unknown api", struct.pack(">ihhi", 10, 999, 0, 1) + wire.string(None)),
    ("unknown version", struct.pack(">ihhi", 10, 3, 99, 1) + wire.string(None)),
    ("hostile array", struct.pack(">ihhi", 14, 3, 0, 1) + wire.string(None) + struct.pack(">i", 0x7FFFFFF0)),
    ("hostile produce", struct.pack(">ihhi", 22, 0, 3, 1) + wire.string(None) + wire.string(None)
     + struct.pack(">hii", -1, 0, 0x7FFFFFFF)),
    ("cut header", struct.pack(">ih", 2, 3)),
    ("random", struct.pack(">i", 64) + os.urandom(64)),
], ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "")
def test_bad_frames_end_their_connection_only(broker, name, frame):
    connection = wire.Connection(broker.bootstrap, seconds=10)
    connection.send_raw(frame)
    answer = connection.receive()
    assert answer is None or name == "unknown version", (name, answer)
    still_serves(broker)


def test_a_newer_api_versions_is_answered_in_version_zero(broker):
    connection = wire.Connection(broker.bootstrap)
    # Version 99 with a flexible header, as a client of the future would open.
    body = b"\x00" + b"\x02a\x02b\x00"
    answer = connection.ask(18, 99, body)
    error, keys = struct.unpack_from(">hi", answer)
    assert error == UNSUPPORTED_VERSION and keys >= 1
    listed = {struct.unpack_from(">hhh", answer, 6 + 6 * n)[0]: struct.unpack_from(">hh", answer, 8 + 6 * n)
              for n in range(keys)}
    assert listed[18][0] == 0
    again = connection.ask(18, 0, b"")
    error, keys = struct.unpack_from(">hi", again)
    assert error == 0
    listed = {struct.unpack_from(">hhh", again, 6 + 6 * n)[0]: struct.unpack_from(">hh", again, 8 + 6 * n)
              for n in range(keys)}
    assert listed[0] == (0, 13)
    assert 71 not in listed and 72 not in listed


def test_refusals_at_start_name_the_remedy(place):
    first = harness.Broker(place / "one")
    first.start()
    try:
        same_directory = harness.Broker(place / "one", name="second")
        same_directory.spawn()
        assert same_directory.wait_exit(10) == 1
        assert "running" in same_directory.tail(), same_directory.tail()

        same_port = harness.Broker(place / "two")
        same_port.kafka_port = first.kafka_port
        same_port.spawn()
        assert same_port.wait_exit(10) == 1
        assert str(first.kafka_port) in same_port.tail() and "use" in same_port.tail(), same_port.tail()

        unknown = harness.Broker(place / "three", settings=["upload.age.mx=1s"])
        unknown.spawn()
        assert unknown.wait_exit(10) == 2
        assert "upload.age.max" in unknown.tail(), unknown.tail()
    finally:
        first.kill()

    (first.data / "cluster.id").write_text("someone-elses-cluster-x\n")
    first.spawn()
    assert first.wait_exit(10) == 1
    assert "cluster" in first.tail(5), first.tail()


def test_a_missing_log_directory_is_refused(place):
    broker = harness.Broker(place)
    broker.start()
    still_serves(broker)
    broker.kill()
    (broker.data / "wal").rename(place / "aside")
    broker.spawn()
    assert broker.wait_exit(10) == 1
    assert "log" in broker.tail(5), broker.tail()
    (broker.data / "wal").exists() and (broker.data / "wal").rmdir()
    (place / "aside").rename(broker.data / "wal")
    broker.start()
    still_serves(broker)
    broker.kill()


def test_a_stalled_large_frame_keeps_nobody_out(broker):
    """A client announces more than there is room for, sends the beginning and stalls."""
    stalled = [wire.Connection(broker.bootstrap) for _ in range(3)]
    for connection in stalled:
        connection.send_raw(struct.pack(">i", 40 << 20) + struct.pack(">hhi", 0, 7, 1) + bytes(100_000))
    still_serves(broker)
    broker.cli("topic", "create", "large")
    connection = wire.Connection(broker.bootstrap, seconds=60)
    assert connection.produce("large", {0: wire.batch([b"x" * 500_000])})[0] == (0, 0)


def test_clients_that_do_not_read_their_answers_take_bounded_memory(broker):
    broker.cli("topic", "create", "unread")
    connection = wire.Connection(broker.bootstrap)
    for number in range(60):
        assert connection.produce("unread", {0: wire.batch([os.urandom(1000)] * 900)})[0][0] == 0
    unread = [wire.Connection(broker.bootstrap) for _ in range(40)]
    for one in unread:
        one.send(1, 4, wire.fetch("unread", 0, 0, max_bytes=50 << 20))
    still_serves(broker)
    harness.wait_until(lambda: broker.metrics()["sluice_broker_answers_bytes"] > 0, 20, "answers held")
    held = broker.metrics()["sluice_broker_answers_bytes"]
    # A quarter of memory.max, and past it one batch for each client.
    assert held <= (32 << 20) + 41 * 1_000_000, held
    assert connection.ask(1, 4, wire.fetch("unread", 0, 0))

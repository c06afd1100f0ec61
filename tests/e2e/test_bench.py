"""`sluice bench` against a broker: what it counts is what lies in the topic."""

import json

import pytest

import harness


@pytest.fixture
def broker(tmp_path):
    broker = harness.Broker(tmp_path / "broker").start()
    yield broker
    broker.stop()


def bench(broker, *arguments, code=0):
    done = broker.cli("bench", *arguments, "-o", "json", check=False)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return json.loads(done.stdout) if done.stdout.strip() else done.stderr


def end(broker, topic):
    described = json.loads(broker.cli("topic", "describe", topic, "-o", "json").stdout)
    return sum(one["end"] for one in described["partitions"])


def test_every_record_that_is_counted_lies_in_the_topic(broker):
    shape = ["--record-bytes", 100, "--batch-bytes", "4KiB"]
    closed = bench(broker, "produce", "load", "--create", "--partitions", 7, "--bytes", "4MiB", *shape)
    assert closed["errors"] == {} and closed["bytes"] >= 4 << 20
    assert end(broker, "load") == closed["records"]

    several = bench(broker, "produce", "load", "--bytes", "1MiB", "--partitions-per-request", 3, "--acks", 1,
                    "--compression", "zstd", "--threads", 2, *shape)
    total = closed["records"] + several["records"]
    assert end(broker, "load") == total

    fetched = bench(broker, "fetch", "load", "--check-crc", "--max-bytes", "64KiB")
    assert (fetched["records"], fetched["errors"]) == (total, {})
    assert bench(broker, "fetch", "load", "--threads", 2, "--partitions", 7)["records"] == total


def test_open_loop_sends_what_was_meant(broker):
    wanted = 500
    opened = bench(broker, "produce", "load", "--create", "--rate", 250, "--seconds", 2, "--batch-records", 1)
    assert opened["requests"] == wanted and end(broker, "load") == wanted
    tail = bench(broker, "latency", "load", "--rate", 250, "--seconds", 2, "--warmup", 0, "--batch-records", 2)
    assert (tail["requests"], tail["records"], tail["produce_requests"]) == (wanted, 2 * wanted, wanted)
    assert tail["p50_ms"] >= tail["produce_p50_ms"] / 10 > 0
    assert end(broker, "load") == 3 * wanted


def test_refusals_are_counted_and_end_with_their_code(broker):
    broker.cli("topic", "create", "small", "--config", "max.message.bytes=2000")
    refused = bench(broker, "produce", "small", "--bytes", "1MiB", "--batch-bytes", "16KiB", code=1)
    assert refused["errors"].keys() == {"MESSAGE_TOO_LARGE"} and refused["records"] == 0
    assert "UNKNOWN_TOPIC_OR_PARTITION" in bench(broker, "produce", "nosuch", code=1)
    assert "--compression" in bench(broker, "produce", "small", "--compression", "brotli", code=2)
    assert "--repeat" in bench(broker, "fetch", "small", "--repeat", code=2)
    assert "--sizes" in bench(broker, "machine", "--sizes", "1000", code=2)


def test_the_machine_is_measured(broker, tmp_path):
    limits = bench(broker, "machine", "--dir", tmp_path, "--seconds", 0.1, "--sizes", "4KiB,1MiB")
    assert len(limits["synced_writes"]) == 4
    for write in limits["synced_writes"]:
        assert write["megabytes_per_second"] > 0 and write["p99_ms"] >= write["p50_ms"] > 0
    assert limits["paced_write"]["p99_ms"] >= limits["paced_write"]["p50_ms"] > 0
    assert limits["loopback_megabytes_per_second"] > 0 and limits["memory_copy_megabytes_per_second"] > 0
    assert not list(tmp_path.glob(".sluice-bench-*"))

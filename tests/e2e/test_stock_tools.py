"""Kafka's own command line tools and kcat, as they come."""

import json
import os
import subprocess
import time

import pytest

import harness


def kcat(broker, *arguments, given=None, seconds=60):
    done = subprocess.run(
        ["kcat", "-b", broker.bootstrap, *arguments], input=given, capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_kcat_lists_produces_and_reads(broker):
    assert "1 brokers" in kcat(broker, "-L")
    lines = [f"line {number}" for number in range(1000)]
    kcat(broker, "-P", "-t", "lines", "-X", "acks=all", given="\n".join(lines) + "\n")
    assert kcat(broker, "-C", "-t", "lines", "-e", "-q").splitlines() == lines
    for codec in ("gzip", "snappy", "lz4", "zstd"):
        kcat(broker, "-P", "-t", codec, "-z", codec, given="\n".join(lines) + "\n")
        assert kcat(broker, "-C", "-t", codec, "-e", "-q").splitlines() == lines, codec


def test_console_producer_and_consumer(broker):
    at = ["--bootstrap-server", broker.bootstrap]
    broker.tool("kafka-topics", *at, "--create", "--topic", "words", "--partitions", 3, "--replication-factor", 3)
    words = [f"w{number}" for number in range(500)]
    broker.tool("kafka-console-producer", *at, "--topic", "words", input="\n".join(words) + "\n")
    read = broker.tool(
        "kafka-console-consumer", *at, "--topic", "words", "--from-beginning", "--max-messages", 500,
        "--group", "console",
    )
    assert sorted(read.stdout.split()) == sorted(words)
    groups = broker.tool("kafka-consumer-groups", *at, "--list").stdout.split()
    assert "console" in groups
    lag = broker.tool("kafka-consumer-groups", *at, "--describe", "--group", "console").stdout
    rows = [line.split() for line in lag.splitlines() if line.startswith("console")]
    assert len(rows) == 3 and sum(int(row[4]) for row in rows) == 500 and all(row[5] == "0" for row in rows), lag
    moved = broker.tool(
        "kafka-consumer-groups", *at, "--group", "console", "--topic", "words", "--reset-offsets", "--to-earliest",
        "--execute",
    ).stdout
    assert moved.count("words") == 3, moved
    broker.tool("kafka-consumer-groups", *at, "--delete", "--group", "console")
    assert "console" not in broker.tool("kafka-consumer-groups", *at, "--list").stdout.split()


def test_topics_and_configs(broker):
    at = ["--bootstrap-server", broker.bootstrap]
    broker.tool(
        "kafka-topics", *at, "--create", "--topic", "t", "--partitions", 2, "--config", "retention.ms=1000",
        "--config", "min.insync.replicas=2",
    )
    described = broker.tool("kafka-topics", *at, "--describe", "--topic", "t").stdout
    assert "PartitionCount: 2" in described and "retention.ms=1000" in described, described
    broker.tool("kafka-topics", *at, "--alter", "--topic", "t", "--partitions", 5)
    assert "PartitionCount: 5" in broker.tool("kafka-topics", *at, "--describe", "--topic", "t").stdout
    entity = ["--entity-type", "topics", "--entity-name", "t"]
    broker.tool("kafka-configs", *at, *entity, "--alter", "--add-config", "max.message.bytes=2000")
    shown = broker.tool("kafka-configs", *at, *entity, "--describe").stdout
    assert "max.message.bytes=2000" in shown and "min.insync.replicas=2" in shown, shown
    broker.tool("kafka-configs", *at, *entity, "--alter", "--delete-config", "retention.ms")
    assert "retention.ms" not in broker.tool("kafka-configs", *at, *entity, "--describe").stdout
    refused = broker.tool("kafka-topics", *at, "--create", "--topic", "t", check=False)
    assert refused.returncode != 0 and "already exists" in refused.stdout + refused.stderr
    for bad in ("a/b", "x" * 250):
        refused = broker.tool("kafka-topics", *at, "--create", "--topic", bad, check=False)
        assert refused.returncode != 0, bad
    broker.tool("kafka-topics", *at, "--delete", "--topic", "t")
    assert "t" not in broker.tool("kafka-topics", *at, "--list").stdout.split()
    broker.tool("kafka-topics", *at, "--create", "--topic", "t")
    assert "t" in broker.tool("kafka-broker-api-versions", *at).stdout


def test_perf_tool_writes_and_reads_a_gigabyte(broker):
    broker.cli("topic", "create", "perf", "--partitions", 4)
    count = 1_000_000
    done = broker.tool(
        "kafka-producer-perf-test", "--topic", "perf", "--num-records", count, "--record-size", 1024,
        "--throughput", -1, "--producer-props", f"bootstrap.servers={broker.bootstrap}", "acks=all",
        seconds=600,
    )
    print(done.stdout.splitlines()[-1])
    assert f"{count} records sent" in done.stdout, done.stdout
    ends = broker.tool("kafka-get-offsets", "--bootstrap-server", broker.bootstrap, "--topic", "perf").stdout
    assert sum(int(line.rsplit(":", 1)[1]) for line in ends.splitlines()) == count
    read = broker.tool(
        "kafka-consumer-perf-test", "--bootstrap-server", broker.bootstrap, "--topic", "perf",
        "--messages", count, "--timeout", 60_000, seconds=600,
    )
    assert f", {count}," in read.stdout.splitlines()[-1].replace(" ", " ") or str(count) in read.stdout, read.stdout


@pytest.fixture
def other_machine():
    """A network namespace with an address of its own, as a second machine would have."""
    tag = f"sl{os.getpid() % 10000}"
    run = lambda *command: subprocess.run(command, check=True, capture_output=True)  # noqa: E731
    run("ip", "netns", "add", tag)
    try:
        run("ip", "link", "add", f"{tag}a", "type", "veth", "peer", "name", f"{tag}b", "netns", tag)
        run("ip", "addr", "add", "10.203.7.1/24", "dev", f"{tag}a")
        run("ip", "link", "set", f"{tag}a", "up")
        for command in (
            ("addr", "add", "10.203.7.2/24", "dev", f"{tag}b"), ("link", "set", f"{tag}b", "up"), ("link", "set", "lo", "up"),
        ):
            run("ip", "-n", tag, *command)
        yield tag
    finally:
        subprocess.run(["ip", "netns", "del", tag], check=False, capture_output=True)


def test_a_client_on_another_machine_reaches_the_advertised_address(place, other_machine):
    broker = harness.Broker(place)
    port = broker.kafka_port
    command = broker.command()
    broker.command = lambda: [
        *(word.replace(broker.bootstrap, f"0.0.0.0:{port}") for word in command), "--advertise", f"10.203.7.1:{port}",
    ]
    broker.start()
    try:
        inside = ["ip", "netns", "exec", other_machine, "kcat", "-b", f"10.203.7.1:{port}"]
        subprocess.run([*inside, "-P", "-t", "far"], input="a\nb\n", text=True, check=True, timeout=60)
        read = subprocess.run(
            [*inside, "-C", "-t", "far", "-e", "-q"], capture_output=True, text=True, check=True, timeout=60
        )
        assert read.stdout.split() == ["a", "b"]
        listed = json.loads(subprocess.run([*inside, "-L", "-J"], capture_output=True, check=True, timeout=60).stdout)
        assert listed["brokers"][0]["name"] == f"10.203.7.1:{port}"
        assert "without encryption" in broker.tail(100)
    finally:
        broker.kill()


def test_start_is_quick_and_stop_drains(place):
    broker = harness.Broker(place)
    began = time.monotonic()
    broker.start()
    print(f"ready after {time.monotonic() - began:.3f} s")
    kcat(broker, "-P", "-t", "kept", given="x\n")
    assert broker.stop() == 0, broker.tail()
    broker.start()
    assert kcat(broker, "-C", "-t", "kept", "-e", "-q") == "x\n"
    broker.kill()

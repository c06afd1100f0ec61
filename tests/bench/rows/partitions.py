"""10,000 partitions on one broker."""

import time

import confluent_kafka.admin

import harness
import loads
from part import Part, Row, below

TOPICS, EACH = 5, 2_000
CREATE = "10,000 partitions: creation, s"
MEMORY = "10,000 partitions: memory per idle partition, KiB"
RESTART = "10,000 partitions: restart to first record, s"
P50, P99 = "10,000 partitions, 2,000 written in turn: p50 ms", "10,000 partitions, 2,000 written in turn: p99 ms"


def led(admin, topic):
    found = admin.list_topics(topic, timeout=60).topics[topic]
    return len(found.partitions) == EACH and all(one.leader >= 0 for one in found.partitions.values())


def many(context):
    server = context.start()
    time.sleep(2)
    before = server.rss()
    yield lambda: {CREATE: create(server)}
    # Every partition is asked for its end, which opens it where that happens on use.
    wait_led(server, range(TOPICS))
    time.sleep(3)
    yield lambda: {MEMORY: (server.rss() - before) * 1024 / (TOPICS * EACH)}
    server.stop()
    server.start()
    yield lambda: {RESTART: server.wait_first_record("many0")}
    wait_led(server, [0])
    yield lambda: in_turn(server)


def wait_led(server, numbers):
    for number in numbers:
        harness.wait_until(lambda: loads.led(server, f"many{number}"), 300, f"leaders of many{number}")


def create(server):
    """Seconds until every partition has a leader."""
    admin = confluent_kafka.admin.AdminClient({"bootstrap.servers": server.bootstrap, "log_level": 0})
    began = time.monotonic()
    with server.measure("creation of 10,000 partitions"):
        for number in range(TOPICS):
            topic = f"many{number}"
            future = admin.create_topics(
                [confluent_kafka.admin.NewTopic(topic, EACH, 1)], operation_timeout=120, request_timeout=120
            )[topic]
            future.result(180)
            harness.wait_until(lambda: led(admin, topic), 180, f"leaders of {topic}")
    return time.monotonic() - began


def in_turn(server):
    load = ["many0", "--partitions", EACH, "--rate", 1000, "--batch-records", 1]
    loads.bench(server, "produce", *load, "--seconds", 4)
    with server.measure("2,000 of 10,000 partitions written in turn"):
        done = loads.bench(server, "produce", *load, "--seconds", 8)
    return {P50: done["p50_ms"], P99: done["p99_ms"]}


PARTS = (
    Part("partitions", many, (Row(CREATE), Row(MEMORY, below(8, " KiB")), Row(RESTART), Row(P50), Row(P99)), 60),
)

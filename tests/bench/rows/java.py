"""Kafka's own load generators and librdkafka. On few cores the client decides the rate; CPU and latency are the broker's."""

import loads
from part import Part, Row, at_least, at_most

RECORDS, QUICK_RECORDS = 1_000_000, 250_000
FIXED = 20_000
FULL16, FULL1 = "Java, 16 partitions, full speed", "Java, 1 partition, full speed"
HALF16, HALF1 = "Java, 16 partitions, half of Kafka's rate", "Java, 1 partition, half of Kafka's rate"
STEADY = "Java, 16 partitions, 20,000 records/s"
HUNDRED = "Java, 100-byte records"
CODECS = ("lz4", "zstd")
LINGERS = (0, 5)
PRODUCERS = (1, 4, 16)
RDKAFKA = "librdkafka, 16 partitions"
CONSUME = "Java consumer, hot"


def rows(load, rate_goal=None, p99_goal=None, rate=True):
    first = [Row(f"{load}: MB/s", rate_goal)] if rate else []
    return [
        *first, Row(f"{load}: CPU s/GiB", at_most(0.4)), Row(f"{load}: p50 ms"), Row(f"{load}: p99 ms", p99_goal),
        Row(f"{load}: p99.9 ms"),
    ]


def produce(server, load, topic, records, rate=True, **more):
    with server.measure(load) as spent:
        done = loads.java_produce(server, topic, records, **more)
    out = {
        f"{load}: CPU s/GiB": spent.per_gib(done["bytes"]), f"{load}: p50 ms": done["p50_ms"],
        f"{load}: p99 ms": done["p99_ms"], f"{load}: p99.9 ms": done["p99_9_ms"],
    }
    return (out | {f"{load}: MB/s": done["megabytes_per_second"]} if rate else out), done["records_per_second"]


def full_speed(context, server, load, topic, records):
    """At full speed. What Kafka reached is kept: it runs first in the first round."""
    out, rate = produce(server, load, topic, records)
    if context.side == "kafka":
        context.shared[topic] = max(rate, context.shared.get(topic, 0))
    return out


def at_half(context, server, load, topic):
    if topic not in context.shared:
        raise loads.Failed("Kafka's rate is not known: its row at full speed failed or was left out")
    half = context.shared[topic] / 2
    return produce(server, load, topic, int(half * 6), rate=False, throughput=half)[0]


def warmed(context, *topics):
    server = context.start()
    for topic, partitions in topics:
        loads.create_topic(server, topic, partitions)
    loads.java_produce(server, topics[-1][0], context.pick(200_000, 60_000), throughput=FIXED * 2)
    return server


def basic(context):
    server = warmed(context, ("load", 16))
    records = context.pick(RECORDS, QUICK_RECORDS)
    yield lambda: full_speed(context, server, FULL16, "load", records)
    yield lambda: produce(server, STEADY, "load", FIXED * context.pick(8, 4), rate=False, throughput=FIXED)[0]
    yield lambda: consume(server, records)


def consume(server, records):
    with server.measure(CONSUME) as spent:
        done = loads.java_consume(server, "load", records)
    return {f"{CONSUME}: MB/s": done["megabytes_per_second"], f"{CONSUME}: CPU s/GiB": spent.per_gib(done["bytes"])}


def halves(context):
    server = warmed(context, ("one", 1), ("load", 16))
    yield lambda: full_speed(context, server, FULL1, "one", RECORDS // 2)
    yield lambda: at_half(context, server, HALF1, "one")
    yield lambda: at_half(context, server, HALF16, "load")


def shapes(context):
    server = warmed(context, ("load", 16))
    yield lambda: produce(server, HUNDRED, "load", 2_500_000, record_bytes=100)[0]
    for name, key in SHAPES[1:]:
        yield lambda name=name, key=key: produce(server, name, "load", RECORDS * 2 // 5, properties=[key])[0]


def producers(context):
    server = warmed(context, ("load", 16))
    for count in PRODUCERS:
        yield lambda count=count: several(server, count)


def several(server, count):
    load = f"Java, {count} producers"
    with server.measure(load) as spent:
        done = loads.java_producers(server, "load", RECORDS // 2, count)
    return {
        f"{load}: MB/s": done["megabytes_per_second"], f"{load}: CPU s/GiB": spent.per_gib(done["bytes"]),
        f"{load}: p99 ms": done["p99_ms"],
    }


def librdkafka(context):
    server = context.start()
    loads.create_topic(server, "load", 16)
    loads.librdkafka_produce(server, "load", 50_000)
    yield lambda: delivered(server)


def delivered(server):
    with server.measure(RDKAFKA) as spent:
        done = loads.librdkafka_produce(server, "load", 600_000)
    return {
        f"{RDKAFKA}: MB/s": done["megabytes_per_second"], f"{RDKAFKA}: CPU s/GiB": spent.per_gib(done["bytes"]),
        f"{RDKAFKA}: p50 ms": done["p50_ms"], f"{RDKAFKA}: p99 ms": done["p99_ms"],
    }


SHAPES = (
    (HUNDRED, None), *((f"Java, {codec}", f"compression.type={codec}") for codec in CODECS),
    *((f"Java, linger {linger} ms", f"linger.ms={linger}") for linger in LINGERS),
)
PARTS = (
    Part("java", basic, (
        *rows(FULL16, at_least(1.1)), *rows(STEADY, p99_goal=at_most(0.5), rate=False),
        Row(f"{CONSUME}: MB/s"), Row(f"{CONSUME}: CPU s/GiB", at_most(1)),
    ), 32, 18),
    Part("java-halves", halves, (
        *rows(FULL1, at_least(1.1)), *rows(HALF1, rate=False), *rows(HALF16, rate=False),
    ), 30),
    Part("java-shapes", shapes, tuple(row for load, _ in SHAPES for row in rows(load, at_least(1.1))), 34),
    Part("java-producers", producers, tuple(
        row for count in PRODUCERS for row in (
            Row(f"Java, {count} producers: MB/s"), Row(f"Java, {count} producers: CPU s/GiB", at_most(0.4)),
            Row(f"Java, {count} producers: p99 ms"),
        )
    ), 55),
    Part("librdkafka", librdkafka, (
        Row(f"{RDKAFKA}: MB/s"), Row(f"{RDKAFKA}: CPU s/GiB", at_most(0.4)), Row(f"{RDKAFKA}: p50 ms"),
        Row(f"{RDKAFKA}: p99 ms"),
    ), 13),
)

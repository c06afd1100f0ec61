"""Pre-encoded batches replayed by `sluice bench`: the client costs next to nothing, the broker decides."""

import loads
from part import Part, Row, at_least, at_most, within

COPIES = "two synced copies"
LOOPBACK = "loopback TCP"
MEGABYTE, SMALL = "1000000", "16KiB"


def rate_rows(load):
    return [
        Row(f"{load}: MB/s", at_least(2, COPIES), COPIES),
        Row(f"{load}: CPU s/GiB", at_most(0.4)),
        Row(f"{load}: p50 ms"), Row(f"{load}: p99 ms"), Row(f"{load}: p99.9 ms"),
    ]


def latency_rows(load):
    return [
        Row(f"{load}: p50 ms", within("synced write p50 ms", 0.3), "synced write p50 ms"),
        Row(f"{load}: p99 ms", within("synced write p99 ms", 0.3), "synced write p99 ms"),
        Row(f"{load}: p99.9 ms", at_most(0.3)),
        Row(f"{load}: CPU s/GiB", at_most(0.4)),
    ]


def figures(load, done, spent):
    return {
        f"{load}: MB/s": done["megabytes_per_second"], f"{load}: CPU s/GiB": spent.per_gib(done["bytes"]),
        f"{load}: p50 ms": done["p50_ms"], f"{load}: p99 ms": done["p99_ms"], f"{load}: p99.9 ms": done["p99_9_ms"],
    }


def closed(context, server, load, topic, partitions, *arguments, warm=2, seconds=5):
    """A closed loop, warmed up, then measured."""
    arguments = [topic, "--create", "--partitions", partitions, *arguments]
    loads.bench(server, "produce", *arguments, "--seconds", context.pick(warm, 1))
    with server.measure(load) as spent:
        done = loads.bench(server, "produce", *arguments, "--seconds", context.pick(seconds, 2))
    return figures(load, done, spent)


L16 = "16 partitions, 1 MB batches of 1 KiB"
L1 = "1 partition, 1 MB batches, 1 connection"
L4 = "1 partition, 1 MB batches, 4 connections"
S16 = "16 partitions, 16 KB batches of 1 KiB"
S1 = "1 partition, 16 KB batches, 1 connection"
H16 = "16 partitions, 16 KB batches of 100 bytes"
HOT = "fetch, hot, 16 partitions"
O1 = "1,000 requests/s of 1 x 1 KiB"
O20 = "1,000 requests/s of 20 x 1 KiB"


def large(context):
    server = context.start()
    yield lambda: closed(context, server, L16, "large", 16, "--batch-bytes", MEGABYTE)
    yield lambda: hot(context, server)


def hot(context, server):
    if context.side == "sluice":
        server.wait_uploaded()
    loads.bench(server, "fetch", "large", "--bytes", "64MiB")
    with server.measure(HOT) as spent:
        done = loads.bench(server, "fetch", "large")
    return {f"{HOT}: MB/s": done["megabytes_per_second"], f"{HOT}: CPU s/GiB": spent.per_gib(done["bytes"])}


def single(context):
    server = context.start()
    one = ["one", 1, "--batch-bytes", MEGABYTE]
    yield lambda: closed(context, server, L1, *one, "--connections", 1, seconds=4)
    yield lambda: closed(context, server, L4, *one, warm=1, seconds=4)


def small(context):
    server = context.start()
    size = ["--batch-bytes", SMALL]
    yield lambda: closed(context, server, S16, "small", 16, *size)
    yield lambda: closed(context, server, S1, "one", 1, "--connections", 1, *size, warm=1)
    yield lambda: closed(context, server, H16, "hundred", 16, *size, "--record-bytes", 100, warm=1)


def opened(context):
    server = context.start()
    yield lambda: at_rate(context, server, O1, 1)
    yield lambda: at_rate(context, server, O20, 20)


def at_rate(context, server, load, records):
    arguments = ["open", "--create", "--partitions", 16, "--rate", 1000, "--batch-records", records]
    loads.bench(server, "produce", *arguments, "--seconds", context.pick(3, 1.5))
    with server.measure(load) as spent:
        done = loads.bench(server, "produce", *arguments, "--seconds", context.pick(8, 3))
    rows = figures(load, done, spent)
    rows.pop(f"{load}: MB/s")
    return rows


PARTS = (
    Part("generator-large", large, (
        *rate_rows(L16), Row(f"{HOT}: MB/s", None, LOOPBACK), Row(f"{HOT}: CPU s/GiB", at_most(1)),
    ), 13, 8),
    Part("generator-single", single, (*rate_rows(L1), *rate_rows(L4)), 15, 9),
    Part("generator-small", small, (*rate_rows(S16), *rate_rows(S1), *rate_rows(H16)), 22, 12),
    Part("generator-open", opened, (*latency_rows(O1), *latency_rows(O20)), 26, 12),
)

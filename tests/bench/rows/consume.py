"""Reading: the tail at a fixed rate, cold from disk and from an object store, and beside producers."""

import contextlib
import threading
import time

import harness
import loads
import process
from part import Part, Row, at_most, own

LOOPBACK = "loopback TCP"
E2E = "end to end, 1,000 requests/s of 1 KiB"
TAIL = "tail fetch at 46 MB/s"
COLD = "cold fetch, 1 MB batches, local disk"
MINIO = "cold fetch, 1 MB batches, MinIO"
THIN = "cold fetch, 100-byte batches of 100 partitions"
ALONE = "1,000 requests/s, no reader"
BESIDE = "1,000 requests/s beside a cold reader"


def tail(context):
    server = context.start()
    loads.bench(server, "produce", "tail", "--create", "--partitions", 16, "--seconds", 2)
    yield lambda: end_to_end(context, server)
    yield lambda: beside_writers(context, server)


def end_to_end(context, server):
    with server.measure(E2E):
        done = loads.bench(
            server, "latency", "tail", "--rate", 1000, "--batch-records", 1, "--warmup", context.pick(3, 1),
            "--seconds", context.pick(8, 3),
        )
    return {f"{E2E}: p50 ms": done["p50_ms"], f"{E2E}: p99 ms": done["p99_ms"], f"{E2E}: p99.9 ms": done["p99_9_ms"]}


def beside_writers(context, server):
    """What a reader of the tail adds to the CPU of a broker that is written to."""
    seconds = context.pick(5, 3)
    produce = ["tail", "--rate", 3000, "--seconds", seconds]
    with server.measure(f"{TAIL}, without") as without:
        loads.bench(server, "produce", *produce)
    with server.measure(TAIL) as spent:
        reader = loads.bench_in_background(server, "fetch", "tail", "--from", "latest", "--seconds", seconds + 1)
        try:
            loads.bench(server, "produce", *produce)
        finally:
            read = loads.finish(reader)
    spent.cpu = max(0.0, spent.cpu - without.cpu)
    return {f"{TAIL}: CPU s/GiB": spent.per_gib(read["bytes"])}


def restart_cold(server):
    """Stops the broker, which lets it finish its work, empties the page cache, and starts it again."""
    server.stop()
    process.drop_caches()
    server.start()
    server.wait_first_record("cold")
    harness.wait_until(lambda: loads.led(server, "cold"), 120, "every partition is led again")


def fetched(server, load, expected):
    with server.measure(load) as spent:
        done = loads.bench(server, "fetch", "cold", "--connections", 4)
    if done["bytes"] < expected:
        raise loads.Failed(f"{done['bytes']} bytes came back of {expected}")
    return {f"{load}: MB/s": done["megabytes_per_second"], f"{load}: CPU s/GiB": spent.per_gib(done["bytes"])}, done


def cold(context):
    server = context.start()
    written = fill(context, server)
    restart_cold(server)
    yield lambda: fetched(server, COLD, written)[0]


def fill(context, server, size=None):
    done = loads.bench(
        server, "produce", "cold", "--create", "--partitions", 16, "--batch-bytes", 1_000_000, "--bytes",
        size or context.pick("2GiB", "512MiB"),
    )
    return done["bytes"]


def cold_minio(context):
    context.need_minio()
    minio = context.minio()
    server = context.start(store=minio.store, environment=minio.environment)
    written = fill(context, server)
    restart_cold(server)
    yield lambda: fetched(server, MINIO, written)[0]


def thin(context):
    server = context.start()
    requests = context.pick(8_000, 1_500)
    done = loads.bench(
        server, "produce", "cold", "--create", "--partitions", 100, "--partitions-per-request", 100,
        "--connections", 1, "--batch-records", 1, "--record-bytes", 100, "--bytes", requests * 100 * 100,
    )
    restart_cold(server)
    figures, read = fetched(server, THIN, done["bytes"])
    yield lambda: figures | {f"{THIN}: batches/s": read["batches"] / read["seconds"]}


@contextlib.contextmanager
def cold_again(seconds=1.0):
    """Empties the page cache every second, so that a reader that comes round again reads from the disk."""
    over = threading.Event()

    def drop():
        while not over.wait(seconds):
            process.drop_caches()

    thread = threading.Thread(target=drop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def beside(context):
    server = context.start()
    fill(context, server)
    restart_cold(server)
    seconds = context.pick(8, 3)
    load = ["tail", "--create", "--partitions", 16, "--rate", 1000, "--batch-records", 1, "--seconds"]
    loads.bench(server, "produce", *load, context.pick(4, 1.5))
    yield lambda: alone(server, [*load, seconds])
    yield lambda: with_reader(server, [*load, seconds], seconds)


def alone(server, load):
    with cold_again(), server.measure(ALONE):
        done = loads.bench(server, "produce", *load)
    return {f"{ALONE}: p50 ms": done["p50_ms"], f"{ALONE}: p99 ms": done["p99_ms"]}


def with_reader(server, load, seconds):
    with cold_again(), server.measure(BESIDE):
        reader = loads.bench_in_background(
            server, "fetch", "cold", "--connections", 1, "--repeat", "--seconds", seconds + 1
        )
        try:
            time.sleep(0.5)
            done = loads.bench(server, "produce", *load)
        finally:
            read = loads.finish(reader)
    return {
        f"{BESIDE}: p50 ms": done["p50_ms"], f"{BESIDE}: p99 ms": done["p99_ms"],
        f"{BESIDE}: cold MB/s": read["megabytes_per_second"],
    }


def cold_rows(load):
    return [Row(f"{load}: MB/s", None, LOOPBACK), Row(f"{load}: CPU s/GiB", at_most(1))]


PARTS = (
    Part("tail", tail, (
        Row(f"{E2E}: p50 ms"), Row(f"{E2E}: p99 ms"), Row(f"{E2E}: p99.9 ms"), Row(f"{TAIL}: CPU s/GiB", at_most(1)),
    ), 28, 17),
    Part("cold", cold, tuple(cold_rows(COLD)), 18, 11),
    Part("cold-minio", cold_minio, tuple(cold_rows(MINIO)), 25, sides=("sluice",)),
    Part("cold-thin", thin, (*cold_rows(THIN), Row(f"{THIN}: batches/s")), 16),
    Part("cold-beside", beside, (
        Row(f"{ALONE}: p50 ms"), Row(f"{ALONE}: p99 ms"), Row(f"{BESIDE}: p50 ms"),
        Row(f"{BESIDE}: p99 ms", own(f"{ALONE}: p99 ms", 1.2)), Row(f"{BESIDE}: cold MB/s"),
    ), 38),
)

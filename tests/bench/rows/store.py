"""What reaches the object store per byte written: requests, bytes, money. Sluice only; counted by its own metrics."""

import time

import loads
import prices
from part import Part, Row, below

# Operations of `sluice_storage_store_requests_total` by the word that a bill uses.
KINDS = {
    "PUT": ("put", "part", "multipart", "copy"), "GET": ("get", "head"), "LIST": ("list",), "DELETE": ("delete",),
}
QUIET_SECONDS, QUIET_SECONDS_MAX = 3, 30
SMALL, LARGE = "default memory", "memory.max 1 GiB"


def requests(metrics):
    """Requests by kind. A broker without the counts of its store wrapper tells objects put and ranges got only."""
    name = "sluice_storage_store_requests_total"
    if any(key.startswith(name) for key in metrics):
        count = lambda operation: metrics.get(f'{name}{{operation="{operation}"}}', 0)  # noqa: E731
        return {kind: sum(map(count, operations)) for kind, operations in KINDS.items()}
    return {"PUT": metrics["sluice_storage_objects_put_total"], "GET": metrics["sluice_storage_object_gets_total"]}


def put_bytes(metrics):
    name = "sluice_storage_store_bytes_total"
    if any(key.startswith(name) for key in metrics):
        return sum(metrics.get(f'{name}{{operation="{operation}"}}', 0) for operation in ("put", "part"))
    return metrics["sluice_storage_objects_put_bytes_total"]


def settled(server):
    """Metrics once everything is uploaded and no request has been sent for a while."""
    server.wait_uploaded()
    deadline, since, last = time.monotonic() + QUIET_SECONDS_MAX, time.monotonic(), None
    while time.monotonic() < deadline and time.monotonic() - since < QUIET_SECONDS:
        now = requests(server.metrics())
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.2)
    return server.metrics()


def written(context, memory_mib, label):
    context.need_minio()
    minio = context.minio()
    server = context.start(store=minio.store, environment=minio.environment, memory_mib=memory_mib)
    before = server.metrics()
    with server.measure(f"upload, {label}"):
        done = loads.bench(
            server, "produce", "load", "--create", "--partitions", 16, "--connections", 4, "--rate", 6000,
            "--in-flight", 64, "--seconds", context.pick(10, 5),
        )
    after = settled(server)
    counts = {kind: count - requests(before).get(kind, 0) for kind, count in requests(after).items()}
    return done["bytes"], counts, before, after


def small(context):
    yield lambda: bill(context)


def bill(context):
    value_bytes, counts, before, after = written(context, 128, SMALL)
    gigabytes = value_bytes / 1e9
    delta = lambda name: after[name] - before.get(name, 0)  # noqa: E731
    wal, padding = delta("sluice_wal_written_bytes_total"), delta("sluice_wal_padding_bytes_total")
    stored = put_bytes(after) - put_bytes(before)
    out = {f"{kind} per GB written, {SMALL}": count / gigabytes for kind, count in counts.items()}
    out |= {
        "bytes put per byte written": stored / value_bytes,
        "write amplification, WAL and objects": (wal + stored) / value_bytes,
        "WAL padding, share": padding / wal,
    }
    for price in prices.read():
        out[prices.row(price)] = prices.per_terabyte(price, counts, value_bytes)
    return out


def large(context):
    yield lambda: with_memory(context)


def with_memory(context):
    value_bytes, counts, _, _ = written(context, 1024, LARGE)
    return {f"{kind} per GB written, {LARGE}": counts[kind] * 1e9 / value_bytes for kind in ("PUT", "GET")}


PARTS = (
    Part("store", small, (
        Row(f"PUT per GB written, {SMALL}", below(50)), Row(f"GET per GB written, {SMALL}", below(20)),
        Row(f"LIST per GB written, {SMALL}"), Row(f"DELETE per GB written, {SMALL}"),
        Row("bytes put per byte written"), Row("write amplification, WAL and objects"), Row("WAL padding, share"),
        *(Row(prices.row(price)) for price in prices.read()),
    ), 25, 18, sides=("sluice",)),
    Part("store-large", large, (
        Row(f"PUT per GB written, {LARGE}", below(10)), Row(f"GET per GB written, {LARGE}", below(5)),
    ), 25, sides=("sluice",)),
)

"""The machine's own limits, measured in the same run."""

import json
import statistics
import subprocess

import harness

BLOCK, GROUP = 4096, 1 << 20


def measure(place, seconds):
    done = subprocess.run(
        [str(harness.BINARY), "bench", "machine", "--dir", str(place), "--seconds", str(seconds),
         "--sizes", f"{BLOCK},{GROUP}", "-o", "json"],
        capture_output=True, text=True, timeout=300, check=True,
    )
    return json.loads(done.stdout)


def limits(measured):
    """Medians by the names that rows use."""
    if not measured:
        return {}

    def median(read):
        return statistics.median(read(one) for one in measured)

    def write(size, in_flight, figure):
        return median(lambda one: next(
            row[figure] for row in one["synced_writes"] if row["size"] == size and row["in_flight"] == in_flight
        ))

    out = {
        "synced write, 1 MiB, 4 in flight, MB/s": write(GROUP, 4, "megabytes_per_second"),
        "synced write, 1 MiB, 1 in flight, MB/s": write(GROUP, 1, "megabytes_per_second"),
        "synced write, 4 KiB, 4 in flight, 1/s": write(BLOCK, 4, "writes_per_second"),
    }
    out["two synced copies"] = out["synced write, 1 MiB, 4 in flight, MB/s"] / 2
    for figure, name in (("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("p99_9_ms", "p99.9 ms")):
        out[f"synced write {name}"] = median(lambda one, figure=figure: one["paced_write"][figure])
    out["loopback TCP"] = median(lambda one: one["loopback_megabytes_per_second"])
    out["loopback round trip p50 ms"] = median(lambda one: one["round_trip_p50_ms"])
    out["memory copy"] = median(lambda one: one["memory_copy_megabytes_per_second"])
    out["CRC-32C"] = median(lambda one: one["crc32c_megabytes_per_second"])
    return out


NOTES = {
    "two synced copies": "MB/s; half of the above: the log and the object",
    "synced write p50 ms": "4 KiB, 1,000 a second, at most 4 in flight",
    "synced write p99 ms": "the same",
    "synced write p99.9 ms": "the same",
    "loopback TCP": "MB/s through one connection",
    "memory copy": "MB/s, one core, past the caches",
    "CRC-32C": "MB/s, one core",
}

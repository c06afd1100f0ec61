"""The load generators: ours for what theirs cannot do, Kafka's Java tools, librdkafka."""

import json
import pathlib
import re
import subprocess
import sys

import harness

MIB = 1 << 20
MINUTES_MAX = 600
HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """A load that did not do what it was told."""


def sluice(server, *arguments, seconds=MINUTES_MAX):
    """Runs a command of the binary against a broker, either one."""
    command = [str(harness.BINARY), *map(str, arguments)]
    if arguments[0] != "bench" or arguments[1] != "machine":
        command += ["--bootstrap-server", server.bootstrap]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise Failed(f"{' '.join(map(str, arguments[:3]))}: {why(done)}")
    return done.stdout


def why(done):
    """What a load says went wrong: its errors by name, or its last words."""
    try:
        return str(json.loads(done.stdout)["errors"])
    except (ValueError, KeyError, TypeError):
        return (done.stderr or done.stdout or "no output").strip()[-300:]


def bench(server, what, *arguments):
    """Figures of `sluice bench`."""
    return json.loads(sluice(server, "bench", what, *arguments, "-o", "json"))


def bench_in_background(server, what, *arguments):
    command = [str(harness.BINARY), "bench", what, *map(str, arguments), "-o", "json"]
    command += ["--bootstrap-server", server.bootstrap]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(background, seconds=MINUTES_MAX):
    """Figures of a load in the background, once it has ended."""
    try:
        out, error = background.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        background.kill()
        background.communicate()
        raise Failed("a load in the background did not end") from None
    if background.returncode:
        raise Failed(error.strip()[-300:])
    return json.loads(out)


def create_topic(server, name, partitions):
    sluice(server, "topic", "create", name, "--partitions", partitions)


def led(server, topic):
    """True when every partition's leader answers for it."""
    try:
        sluice(server, "topic", "describe", topic)
        return True
    except Failed:
        return False


def _perf_command(server, topic, records, record_bytes, throughput, properties):
    return [
        str(harness.TOOLS / "kafka-producer-perf-test"), "--topic", topic, "--num-records", str(records),
        "--record-size", str(record_bytes), "--throughput", str(throughput), "--producer-props",
        f"bootstrap.servers={server.bootstrap}", "acks=all", *properties,
    ]


def _perf_figures(out, records, record_bytes):
    last = out.strip().splitlines()[-1]
    rate = float(re.search(r"([\d.]+) records/sec", last).group(1))
    p50, p99, p999 = (float(re.search(rf"(\d+) ms {name}", last).group(1)) for name in ("50th", "99th", r"99\.9th"))
    return {
        "records_per_second": rate, "megabytes_per_second": rate * record_bytes / 1e6,
        "p50_ms": p50, "p99_ms": p99, "p99_9_ms": p999, "bytes": records * record_bytes,
    }


def java_produce(server, topic, records, record_bytes=1024, throughput=-1, properties=()):
    """kafka-producer-perf-test."""
    command = _perf_command(server, topic, records, record_bytes, int(throughput), properties)
    done = subprocess.run(command, capture_output=True, text=True, timeout=MINUTES_MAX)
    if done.returncode:
        raise Failed(f"kafka-producer-perf-test: {(done.stderr or done.stdout).strip()[-300:]}")
    return _perf_figures(done.stdout, records, record_bytes)


def java_producers(server, topic, records, producers, record_bytes=1024):
    """Several at once, `records` in all: the sum of their rates, the worst of their latencies."""
    own = records // producers
    running = [
        subprocess.Popen(
            _perf_command(server, topic, own, record_bytes, -1, []), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(producers)
    ]
    figures = []
    try:
        for one in running:
            out, error = one.communicate(timeout=MINUTES_MAX)
            if one.returncode:
                raise Failed(f"kafka-producer-perf-test: {error.strip()[-300:]}")
            figures.append(_perf_figures(out, own, record_bytes))
    finally:
        for one in running:
            if one.poll() is None:
                one.kill()
                one.wait()
    total = {name: sum(one[name] for one in figures) for name in ("megabytes_per_second", "bytes")}
    return total | {"p99_ms": max(one["p99_ms"] for one in figures)}


def java_consume(server, topic, records):
    """MB/s of kafka-consumer-perf-test, start of the group not counted."""
    done = subprocess.run(
        [str(harness.TOOLS / "kafka-consumer-perf-test"), "--bootstrap-server", server.bootstrap, "--topic", topic,
         "--messages", str(records), "--timeout", "60000"],
        capture_output=True, text=True, timeout=MINUTES_MAX,
    )
    if done.returncode:
        raise Failed(f"kafka-consumer-perf-test: {(done.stderr or done.stdout).strip()[-300:]}")
    lines = [line for line in done.stdout.strip().splitlines() if line.count(",") >= 9]
    fields = [field.strip() for field in lines[-1].split(",")]
    # start, end, MB, MB/s, records, records/s, rebalance ms, fetch ms, fetch MB/s, fetch records/s
    return {"bytes": float(fields[2]) * MIB, "megabytes_per_second": float(fields[8]) * MIB / 1e6}


def librdkafka_produce(server, topic, records, record_bytes=1024):
    """librdkafka as Python ships it."""
    done = subprocess.run(
        [sys.executable, str(HERE / "rdkafka_load.py"), server.bootstrap, topic, str(records), str(record_bytes)],
        capture_output=True, text=True, timeout=MINUTES_MAX,
    )
    if done.returncode:
        raise Failed(f"librdkafka: {done.stderr.strip()[-300:]}")
    return json.loads(done.stdout)

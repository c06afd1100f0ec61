"""From the start of the process to the first acknowledged record; memory of a broker that does nothing."""

import time

import loads
from part import Part, Row, at_most, below

EMPTY = "start to first record, empty, s"
IDLE = "idle RSS, MiB"
FULL = "start to first record, 1,000 partitions and 5 GiB, s"
KILLED = "start to first record, after kill -9 under load, s"


def empty(context):
    server = context.start(wait=False)
    yield lambda: {EMPTY: server.wait_first_record()}
    time.sleep(context.pick(5, 3))
    yield lambda: {IDLE: server.rss()}


def full(context):
    server = context.start()
    loads.bench(
        server, "produce", "many", "--create", "--partitions", 1000, "--batch-bytes", 1_000_000, "--bytes", "5GiB"
    )
    server.stop()
    server.start()
    yield lambda: {FULL: server.wait_first_record("many")}


def killed(context):
    server = context.start()
    load = ["load", "--create", "--partitions", 16, "--batch-bytes", 1_000_000]
    loads.bench(server, "produce", *load, "--seconds", 1)
    seconds = context.pick(6, 3)
    running = loads.bench_in_background(server, "produce", *load, "--seconds", seconds + 30)
    try:
        time.sleep(seconds)
        assert running.poll() is None, f"the load ended early: {running.communicate()[1][-300:]}"
        server.kill()
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()
    server.start()
    yield lambda: {KILLED: server.wait_first_record("load")}


PARTS = (
    Part("start", empty, (Row(EMPTY, below(0.2, " s")), Row(IDLE, below(32, " MiB"))), 8, 7),
    Part("start-killed", killed, (Row(KILLED, at_most(0.1)),), 17, 13),
    Part("start-full", full, (Row(FULL, at_most(0.1)),), 27),
)

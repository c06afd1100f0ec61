"""JSON into Parquet by the built-in sink, from a topic that already lies in objects."""

import json
import time

import confluent_kafka

import harness
import loads
from part import Part, Row, above

WALL, CPU = "JSON to Parquet, MB/s", "JSON to Parquet, MB per CPU second"
PARTITIONS = 4


def value(number):
    return json.dumps({
        "n": number, "name": f"name {number % 1000}", "x": number / 7, "ok": number % 2 == 0, "tags": ["a", "b"],
        "at": {"lat": 1.5, "lon": number % 360},
    }).encode()


def fill(server, records):
    producer = confluent_kafka.Producer({"bootstrap.servers": server.bootstrap, "linger.ms": 20})
    total = 0
    for number in range(records):
        one = value(number)
        total += len(one)
        while True:
            try:
                producer.produce("json", one)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise loads.Failed("records were not delivered")
    return total


def run(context):
    yield lambda: land(context)


def land(context):
    server = context.start(settings=["upload.age.max=1s"])
    loads.create_topic(server, "json", PARTITIONS)
    total = fill(server, context.pick(1_000_000, 200_000))
    server.wait_uploaded()
    began = time.monotonic()
    with server.measure("sink") as spent:
        server.broker.cli(
            "sink", "create", "json", "--topic", "json", "--set", "file.size.bytes=67108864", "--set", "idle.ms=1000"
        )

        def landed():
            partitions = server.broker.sink_state("json")["partitions"]
            return len(partitions) == PARTITIONS and all(
                one["boundary"] and (one["lag"] or 0) == 0 for one in partitions)

        harness.wait_until(landed, 300, "all landed")
        wall = time.monotonic() - began
    code, proof = server.broker.verify("json")
    if code:
        raise loads.Failed(f"the files do not hold the topic: {proof}")
    return {WALL: total / 1e6 / wall, CPU: total / 1e6 / spent.cpu}


PARTS = (Part("sink", run, (Row(WALL), Row(CPU, above(50))), 25, 15, sides=("sluice",)),)

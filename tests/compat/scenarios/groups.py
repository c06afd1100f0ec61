"""Groups: the classic protocol, the consumer protocol, offsets, administration."""

import struct
import time

from scenarios import create, over_versions, scenario

PROTOCOLS = [{"Name": "range", "Metadata": b"\x00\x01"}, {"Name": "roundrobin", "Metadata": b"\x02"}]


def join(s, group, version=5, member="", instance=None, protocols=PROTOCOLS, kind="consumer", session=10_000, ask=True, on="main", note=None, rebalance=10_000):
    fields = {"GroupId": group, "SessionTimeoutMs": session, "MemberId": member, "ProtocolType": kind, "Protocols": protocols}
    if version >= 1:
        fields["RebalanceTimeoutMs"] = rebalance
    if version >= 5:
        fields["GroupInstanceId"] = instance
    return s.ask("JoinGroup", version, on=on, note=note, **fields) if ask else s.quiet("JoinGroup", version, on=on, **fields)


def sync(s, group, member, generation, version=3, assignments=(), ask=True, on="main", note=None, **more):
    fields = {"GroupId": group, "GenerationId": generation, "MemberId": member, "Assignments": list(assignments), **more}
    return s.ask("SyncGroup", version, on=on, note=note, **fields) if ask else s.quiet("SyncGroup", version, on=on, **fields)


def settled(s, group, version=5, instance=None):
    """A stable group of one member; returns (member, generation)."""
    first = join(s, group, version, instance=instance, ask=False)
    member = first["MemberId"]
    if first["ErrorCode"] == 79:
        first = join(s, group, version, member, instance, ask=False)
    sync(s, group, member, first["GenerationId"], 3, [{"MemberId": member, "Assignment": b"\x09"}], ask=False)
    return member, first["GenerationId"]


@scenario
def classic_join_versions(s, versions):
    for version in over_versions("JoinGroup", versions):
        group = s.topic(f"-{version}")
        answer = join(s, group, version, note="first")
        if answer["ErrorCode"] == 79:
            answer = join(s, group, version, answer["MemberId"], note="with the id")
        join(s, group, version, "nobody", note="unknown member")
        join(s, "", version, note="no group id")
        join(s, s.topic("-x"), version, session=1, note="session too short")
        join(s, s.topic("-x"), version, session=100_000_000, note="session too long")
        join(s, s.topic("-x"), version, protocols=[], note="no protocols")
        join(s, s.topic("-x"), version, kind="", note="no protocol type")
        if answer["ErrorCode"] == 0:
            join(s, group, version, answer["MemberId"], kind="other", note="another type")
            join(s, group, version, answer["MemberId"], protocols=[{"Name": "odd", "Metadata": b""}], note="another protocol")


@scenario
def classic_sync_versions(s, versions):
    for version in over_versions("SyncGroup", versions):
        group = s.topic(f"-{version}")
        first = join(s, group, 5, ask=False)
        member = first["MemberId"]
        first = join(s, group, 5, member, ask=False) if first["ErrorCode"] == 79 else first
        generation = first["GenerationId"]
        kinds = {"ProtocolType": "consumer", "ProtocolName": "range"} if version >= 5 else {}
        mine = [{"MemberId": member, "Assignment": b"\x01\x02"}]
        sync(s, group, member, generation + 5, version, mine, note="generation", **kinds)
        sync(s, group, "nobody", generation, version, mine, note="unknown member", **kinds)
        sync(s, s.topic("-none"), member, generation, version, mine, note="unknown group", **kinds)
        sync(s, "", member, generation, version, mine, note="no group id", **kinds)
        if version >= 5:
            sync(s, group, member, generation, version, mine, note="another type", ProtocolType="odd", ProtocolName="range")
            sync(s, group, member, generation, version, mine, note="another name", ProtocolType="consumer", ProtocolName="odd")
            sync(s, group, member, generation, version, mine, note="no type")
        sync(s, group, member, generation, version, mine, **kinds)
        sync(s, group, member, generation, version, [], note="again", **kinds)


@scenario
def classic_heartbeat_and_leave_versions(s, versions):
    for version in over_versions("Heartbeat", versions):
        group = s.topic(f"-h{version}")
        member, generation = settled(s, group)
        for who, number, name, note in ((member, generation, group, None), (member, generation + 1, group, "generation"), ("nobody", generation, group, "member"),
                                        (member, generation, s.topic("-none"), "group"), (member, generation, "", "no group id"), ("", generation, group, "no member"), (member, -1, group, "generation -1")):
            s.ask("Heartbeat", version, GroupId=name, GenerationId=number, MemberId=who, note=note)
    for version in over_versions("LeaveGroup", versions):
        group = s.topic(f"-l{version}")
        member, _ = settled(s, group)

        def leave(who, name=group, note=None, instance=None):
            fields = {"MemberId": who} if version < 3 else {"Members": [{"MemberId": who, "GroupInstanceId": instance}]}
            s.ask("LeaveGroup", version, GroupId=name, note=note, **fields)
        leave("nobody", note="unknown member")
        leave(member, s.topic("-none"), note="unknown group")
        leave(member, "", note="no group id")
        leave(member)
        leave(member, note="again")
        if version >= 3:
            leave("", note="unknown instance", instance="nobody")
            s.ask("LeaveGroup", version, GroupId=group, Members=[], note="none")


@scenario
def classic_static_members(s, versions):
    group = s.topic()
    member, generation = settled(s, group, instance="i1")
    s.ask("Heartbeat", 3, GroupId=group, GenerationId=generation, MemberId=member, GroupInstanceId="i1")
    s.ask("Heartbeat", 3, GroupId=group, GenerationId=generation, MemberId=member, GroupInstanceId="i2", note="another instance")
    s.ask("Heartbeat", 3, GroupId=group, GenerationId=generation, MemberId="other", GroupInstanceId="i1", note="another member")
    again = join(s, group, 5, instance="i1", note="rejoins without a member id")
    s.ask("Heartbeat", 3, GroupId=group, GenerationId=generation, MemberId=member, GroupInstanceId="i1", note="the fenced one")
    join(s, group, 5, member, instance="i1", note="the fenced one joins")
    s.ask("OffsetCommit", 7, GroupId=group, GenerationIdOrMemberEpoch=generation, MemberId=member, GroupInstanceId="i1", Topics=[], note="the fenced one commits")
    sync(s, group, member, generation, 3, note="the fenced one syncs", GroupInstanceId="i1")
    sync(s, group, again["MemberId"], again["GenerationId"], 3, note="the new one syncs", GroupInstanceId="i1")
    s.ask("DescribeGroups", 4, Groups=[group])
    s.ask("LeaveGroup", 3, GroupId=group, Members=[{"MemberId": "", "GroupInstanceId": "i1"}], note="an admin removes it")
    s.ask("LeaveGroup", 4, GroupId=group, Members=[{"MemberId": "", "GroupInstanceId": "i1"}], note="again")


def described(s, group, first, note):
    """Writes the group down with the member `first` first."""
    answer = s.quiet("DescribeGroups", 4, Groups=[group])
    answer["Groups"][0]["Members"].sort(key=lambda one: one["MemberId"] != first)
    s.write("DescribeGroups", 4, answer, note)


@scenario
def classic_two_members(s, versions):
    group = s.topic()
    member, generation = settled(s, group)
    other = join(s, group, 5, ask=False, on="two")["MemberId"]
    import messages
    s.send("JoinGroup", 5, messages.api("JoinGroup")[0].encode(5, {"GroupId": group, "SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000, "MemberId": other,
                                                                  "ProtocolType": "consumer", "Protocols": PROTOCOLS[1:]}), on="two")
    time.sleep(0.3)
    s.ask("Heartbeat", 3, GroupId=group, GenerationId=generation, MemberId=member, note="a rebalance is on")
    described(s, group, member, "preparing")
    mine = join(s, group, 5, member, ask=False)
    mine["Members"].sort(key=lambda one: one["MemberId"] != member)
    s.write("JoinGroup", 5, mine, "the leader rejoins")
    theirs = s.receive("JoinGroup", 5, "two")
    s.write("JoinGroup", 5, theirs, "the other")
    s.send("SyncGroup", 3, messages.api("SyncGroup")[0].encode(3, {"GroupId": group, "GenerationId": theirs["GenerationId"], "MemberId": other, "Assignments": []}), on="two")
    time.sleep(0.1)
    sync(s, group, member, mine["GenerationId"], 3, [{"MemberId": member, "Assignment": b"a"}, {"MemberId": other, "Assignment": b"b"}], note="the leader assigns")
    s.write("SyncGroup", 3, s.receive("SyncGroup", 3, "two"), "the other is given its part")
    described(s, group, member, "stable")
    s.ask("LeaveGroup", 2, GroupId=group, MemberId=other, note="the other leaves")
    s.ask("Heartbeat", 3, GroupId=group, GenerationId=mine["GenerationId"], MemberId=member, note="after it")


@scenario
def offsets_versions(s, versions):
    topic = s.topic()
    number = create(s, topic, 2)
    for version in over_versions("OffsetCommit", versions):
        group = s.topic(f"-{version}")
        name = {"Name": topic} if version < 10 else {"TopicId": number}

        def commit(offset, partition=0, metadata="m", group=group, name=name, note=None, generation=-1, member=""):
            s.ask("OffsetCommit", version, GroupId=group, GenerationIdOrMemberEpoch=generation, MemberId=member, Topics=[
                {**name, "Partitions": [{"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": metadata}]}], note=note)
        commit(5)
        commit(7, 1, None, note="no metadata")
        commit(-1, note="offset -1")
        commit(5, 9, note="no such partition")
        commit(5, metadata="x" * 4096, note="longest metadata")
        commit(5, metadata="x" * 4097, note="metadata too long")
        commit(5, name={"Name": s.topic("-none")} if version < 10 else {"TopicId": "44444444-4444-4444-4444-444444444444"}, note="no such topic")
        commit(5, group="", note="no group id")
        commit(5, generation=3, member="nobody", note="unknown member")
        commit(5, generation=3, note="a generation without a member")
        s.ask("OffsetCommit", version, GroupId=group, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[], note="nothing")
        live = s.topic(f"-live{version}")
        member, generation = settled(s, live)
        commit(3, group=live, member=member, generation=generation, note="a member")
        commit(3, group=live, member=member, generation=generation + 1, note="a member's wrong generation")
        commit(3, group=live, note="from outside a live group")
    for version in over_versions("OffsetFetch", versions):
        group = s.topic("-3")
        if version < 8:
            topics = [{"Name": topic, "PartitionIndexes": [0, 1, 5]}]
            s.ask("OffsetFetch", version, GroupId=group, Topics=topics)
            s.ask("OffsetFetch", version, GroupId=s.topic("-none"), Topics=topics, note="no group")
            s.ask("OffsetFetch", version, GroupId="", Topics=topics, note="no group id")
            s.ask("OffsetFetch", version, GroupId=group, Topics=[{"Name": s.topic("-none"), "PartitionIndexes": [0]}], note="no topic")
            if version >= 2:
                s.ask("OffsetFetch", version, GroupId=group, Topics=None, note="all")
            s.ask("OffsetFetch", version, GroupId=group, Topics=[], note="nothing")
            if version >= 7:
                s.ask("OffsetFetch", version, GroupId=group, Topics=topics, RequireStable=True, note="stable")
        else:
            name = {"Name": topic} if version < 10 else {"TopicId": number}
            wanted = {"GroupId": group, "Topics": [{**name, "PartitionIndexes": [0, 1, 5]}]}
            s.ask("OffsetFetch", version, Groups=[wanted])
            s.ask("OffsetFetch", version, Groups=[wanted, {**wanted, "GroupId": s.topic("-none")}, {**wanted, "GroupId": ""}], note="three groups")
            s.ask("OffsetFetch", version, Groups=[{"GroupId": group, "Topics": None}], note="all")
            s.ask("OffsetFetch", version, Groups=[], note="no groups")
            if version >= 9:
                s.ask("OffsetFetch", version, Groups=[{**wanted, "MemberId": "nobody", "MemberEpoch": 4}], note="unknown member")


@scenario
def offset_delete(s, versions):
    topic, group = s.topic(), s.topic("-g")
    create(s, topic, 2)
    s.quiet("OffsetCommit", 7, GroupId=group, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[{"Name": topic, "Partitions": [
        {"PartitionIndex": n, "CommittedOffset": 1, "CommittedMetadata": ""} for n in (0, 1)]}])
    for _ in over_versions("OffsetDelete", versions):
        for name, where, partitions in ((group, topic, [0, 7]), (group, s.topic("-none"), [0]), (s.topic("-none"), topic, [0]), ("", topic, [0])):
            s.ask("OffsetDelete", 0, GroupId=name, Topics=[{"Name": where, "Partitions": [{"PartitionIndex": n} for n in partitions]}])
        s.ask("OffsetFetch", 5, GroupId=group, Topics=None, note="what is left")
        member = struct.pack(">hi", 0, 1) + struct.pack(">h", len(topic)) + topic.encode() + struct.pack(">i", -1)
        live = s.topic("-live")
        first = join(s, live, 4, protocols=[{"Name": "range", "Metadata": member}], ask=False)
        who = first["MemberId"]
        first = join(s, live, 4, who, protocols=[{"Name": "range", "Metadata": member}], ask=False)
        sync(s, live, who, first["GenerationId"], 3, [{"MemberId": who, "Assignment": b""}], ask=False)
        s.ask("OffsetDelete", 0, GroupId=live, Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0}]}], note="subscribed")
        s.ask("DeleteGroups", 2, GroupsNames=[live], note="not empty")


@scenario
def groups_admin_versions(s, versions):
    group = s.topic()
    settled(s, group)
    empty = s.topic("-empty")
    topic = s.topic("-t")
    create(s, topic)
    s.quiet("OffsetCommit", 7, GroupId=empty, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}]}])
    for version in over_versions("DescribeGroups", versions):
        s.ask("DescribeGroups", version, Groups=[group])
        s.ask("DescribeGroups", version, Groups=[empty, s.topic("-none"), ""])
        s.ask("DescribeGroups", version, Groups=[], note="none")
        if version >= 3:
            s.ask("DescribeGroups", version, Groups=[group, empty], IncludeAuthorizedOperations=True)
    for version in over_versions("ListGroups", versions):
        def listed(note, **filters):
            answer = s.quiet("ListGroups", version, **filters)
            if answer != "closed":
                answer["Groups"] = sorted((one for one in answer["Groups"] if one["GroupId"] in (group, empty)), key=lambda one: one["GroupId"])
            s.write("ListGroups", version, answer, note)
        listed("all")
        if version >= 4:
            listed("stable", StatesFilter=["Stable"])
            listed("lower case", StatesFilter=["empty"])
            listed("no such state", StatesFilter=["Happy"])
        if version >= 5:
            listed("classic", TypesFilter=["classic"])
            listed("consumer", TypesFilter=["consumer"])
            listed("no such type", TypesFilter=["odd"])
    for version in over_versions("FindCoordinator", versions):
        if version < 4:
            s.ask("FindCoordinator", version, Key=group)
            s.ask("FindCoordinator", version, Key="", note="no key")
            if version >= 1:
                s.ask("FindCoordinator", version, Key="t", KeyType=1, note="transaction")
                s.ask("FindCoordinator", version, Key="t", KeyType=9, note="no such type")
        else:
            s.ask("FindCoordinator", version, KeyType=0, CoordinatorKeys=[group, "", "other"])
            s.ask("FindCoordinator", version, KeyType=1, CoordinatorKeys=["t"], note="transaction")
            s.ask("FindCoordinator", version, KeyType=2, CoordinatorKeys=["t"], note="share")
            s.ask("FindCoordinator", version, KeyType=9, CoordinatorKeys=["t"], note="no such type")
            s.ask("FindCoordinator", version, KeyType=0, CoordinatorKeys=[], note="no keys")
    for version in over_versions("DeleteGroups", versions):
        victim = s.topic(f"-victim{version}")
        s.quiet("OffsetCommit", 7, GroupId=victim, GenerationIdOrMemberEpoch=-1, MemberId="", Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}]}])
        s.ask("DeleteGroups", version, GroupsNames=[victim])
        s.ask("DeleteGroups", version, GroupsNames=[victim], note="again")
        s.ask("DeleteGroups", version, GroupsNames=[group], note="not empty")
        s.ask("DeleteGroups", version, GroupsNames=[""], note="no id")
        s.ask("DeleteGroups", version, GroupsNames=[], note="none")
        s.ask("OffsetFetch", 5, GroupId=victim, Topics=None, note="gone")


def beat(s, group, version, member="", epoch=0, note=None, ask=True, on="main", **more):
    fields = {"GroupId": group, "MemberId": member, "MemberEpoch": epoch, "RebalanceTimeoutMs": 10_000 if epoch == 0 else -1, **more}
    return s.ask("ConsumerGroupHeartbeat", version, on=on, note=note, **fields) if ask else s.quiet("ConsumerGroupHeartbeat", version, on=on, **fields)


MEMBER = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
OTHER = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"


@scenario
def consumer_group_versions(s, versions):
    topic = s.topic()
    create(s, topic, 2)
    for version in over_versions("ConsumerGroupHeartbeat", versions):
        group = s.topic(f"-{version}")
        more = {"SubscribedTopicNames": [topic], "TopicPartitions": []}
        beat(s, group, version, MEMBER, 0, note="joins", **more)
        time.sleep(0.2)
        answer = beat(s, group, version, MEMBER, 1, note="beats")
        beat(s, group, version, MEMBER, 1, note="owns", TopicPartitions=[])
        beat(s, group, version, MEMBER, 9, note="a later epoch")
        beat(s, group, version, OTHER, 3, note="unknown member")
        beat(s, s.topic("-none"), version, MEMBER, 3, note="unknown group")
        beat(s, "", version, MEMBER, 0, note="no group id", **more)
        beat(s, group, version, OTHER, 0, note="joins without topics")
        beat(s, group, version, OTHER, 0, note="rebalance time-out", **{**more, "RebalanceTimeoutMs": -1})
        beat(s, group, version, OTHER, 0, note="owns while joining", **{**more, "TopicPartitions": [{"TopicId": "55555555-5555-5555-5555-555555555555", "Partitions": [0]}]})
        beat(s, group, version, OTHER, 0, note="no such assignor", ServerAssignor="odd", **more)
        beat(s, group, version, OTHER, 0, note="range", ServerAssignor="range", **more)
        beat(s, group, version, OTHER, -5, note="epoch -5", **more)
        if version >= 1:
            beat(s, group, version, "", 0, note="no member id", **more)
            beat(s, s.topic("-re"), version, MEMBER, 0, note="regex", SubscribedTopicRegex=topic + ".*", TopicPartitions=[])
            beat(s, s.topic("-re2"), version, MEMBER, 0, note="bad regex", SubscribedTopicRegex="(", TopicPartitions=[])
        beat(s, group, version, OTHER, -1, note="leaves")
        beat(s, group, version, OTHER, -1, note="leaves again")
        for described in over_versions("ConsumerGroupDescribe", versions):
            found = s.quiet("ConsumerGroupDescribe", described, GroupIds=[group], IncludeAuthorizedOperations=True)
            s.write("ConsumerGroupDescribe", described, found)
            s.ask("ConsumerGroupDescribe", described, GroupIds=[s.topic("-none"), ""], note="unknown")
        s.ask("DescribeGroups", 5, Groups=[group], note="a consumer group, the classic way")
        s.ask("DescribeGroups", 6, Groups=[group], note="a consumer group, the classic way")
        join(s, group, 5, note="a classic member joins")
        s.ask("DeleteGroups", 2, GroupsNames=[group], note="not empty")
        s.ask("OffsetCommit", 9, GroupId=group, GenerationIdOrMemberEpoch=1, MemberId=MEMBER, Topics=[{"Name": topic, "Partitions": [{"PartitionIndex": 0, "CommittedOffset": 1, "CommittedMetadata": ""}]}], note="stale or not")
        beat(s, group, version, MEMBER, -1, note="the first leaves")
        s.ask("DeleteGroups", 2, GroupsNames=[group], note="empty")

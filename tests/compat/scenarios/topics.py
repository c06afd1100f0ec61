"""Topics, partitions, configs, metadata, cluster."""

from scenarios import create, over_versions, scenario


@scenario
def api_versions_versions(s, versions):
    for version in range(0, 7):
        fields = {"ClientSoftwareName": "compat", "ClientSoftwareVersion": "1"} if version in (3, 4) else {}
        answer = s.quiet("ApiVersions", min(version, 4), on=f"v{version}", **fields) if version < 5 else s.exchange(
            "ApiVersions", version, b"", f"v{version}")
        found = answer if isinstance(answer, str) else {
            "ErrorCode": answer["ErrorCode"], "features": sorted(one["Name"] for one in answer.get("SupportedFeatures", [])),
            "finalized": sorted((one["Name"], one["MaxVersionLevel"]) for one in answer.get("FinalizedFeatures", []))}
        s.write("ApiVersions", version, found)
    for name, number in (("", "1"), ("a b", "1"), ("ok", "")):
        answer = s.quiet("ApiVersions", 3, on="bad", ClientSoftwareName=name, ClientSoftwareVersion=number)
        s.write("ApiVersions", 3, answer if isinstance(answer, str) else {"ErrorCode": answer["ErrorCode"]}, f"software {name!r} {number!r}")
        s.close("bad")


@scenario
def metadata_versions(s, versions):
    topic = s.topic()
    number = create(s, topic, 2)
    for version in over_versions("Metadata", versions):
        more = {"AllowAutoTopicCreation": False} if version >= 4 else {}
        if version >= 1:
            s.ask("Metadata", version, Topics=[{"Name": topic}], **more)
            if version >= 4:
                s.ask("Metadata", version, Topics=[{"Name": s.topic("-none")}, {"Name": "bad/name"}, {"Name": topic}], **more)
            s.ask("Metadata", version, Topics=[], **more, note="no topics")
        if version >= 10:
            s.ask("Metadata", version, Topics=[{"Name": None, "TopicId": number}], **more, note="by id")
            s.ask("Metadata", version, Topics=[{"Name": None, "TopicId": "33333333-3333-3333-3333-333333333333"}], **more, note="unknown id")
        if version >= 8:
            s.ask("Metadata", version, Topics=[{"Name": topic}], IncludeTopicAuthorizedOperations=True, **more, note="operations")
        if 8 <= version <= 10:
            s.ask("Metadata", version, Topics=[], IncludeClusterAuthorizedOperations=True, **more, note="cluster operations")
    s.ask("Metadata", 12, Topics=[{"Name": "", "TopicId": "00000000-0000-0000-0000-000000000000"}], AllowAutoTopicCreation=False, note="empty name")


@scenario
def auto_creation(s, versions):
    for version in (0, 1, 3, 4, 12):
        topic = s.topic(f"-{version}")
        s.ask("Metadata", version, Topics=[{"Name": topic}], note="asked first")
        import time
        time.sleep(0.5)
        s.ask("Metadata", version, Topics=[{"Name": topic}], note="asked again")
    s.ask("Metadata", 4, Topics=[{"Name": s.topic("-off")}], AllowAutoTopicCreation=False, note="not allowed")
    s.ask("Metadata", 4, Topics=[{"Name": "bad/name"}, {"Name": "x" * 250}, {"Name": ".."}], AllowAutoTopicCreation=True, note="bad names")


@scenario
def create_topics_versions(s, versions):
    for version in over_versions("CreateTopics", versions):
        def ask(name, note=None, check=False, **topic):
            topic = {"Name": s.topic(f"-{version}{name}"), "NumPartitions": 1, "ReplicationFactor": 1, **topic}
            s.ask("CreateTopics", version, Topics=[topic], timeoutMs=5000, validateOnly=check, note=note or name)
        ask("-ok")
        ask("-ok", "exists")
        ask("-check", check=True)
        ask("-zero", NumPartitions=0)
        ask("-negative", NumPartitions=-5)
        ask("-default", NumPartitions=-1, ReplicationFactor=-1)
        ask("-rf0", ReplicationFactor=0)
        ask("-config", Configs=[{"Name": "retention.ms", "Value": "1000"}])
        ask("-unknown-config", Configs=[{"Name": "no.such.config", "Value": "1"}])
        ask("-bad-value", Configs=[{"Name": "retention.ms", "Value": "soon"}])
        ask("-null-value", Configs=[{"Name": "retention.ms", "Value": None}])
        ask("-bad-policy", Configs=[{"Name": "cleanup.policy", "Value": "burn"}])
        ask("-assigned", NumPartitions=-1, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 0, "BrokerIds": [1]}, {"PartitionIndex": 1, "BrokerIds": [1]}])
        ask("-assigned-and-count", NumPartitions=2, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 0, "BrokerIds": [1]}])
        ask("-gap", NumPartitions=-1, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 1, "BrokerIds": [1]}])
        ask("-no-brokers", NumPartitions=-1, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 0, "BrokerIds": []}])
        ask("-twice-broker", NumPartitions=-1, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 0, "BrokerIds": [1, 1]}])
        ask("-unknown-broker", NumPartitions=-1, ReplicationFactor=-1, Assignments=[{"PartitionIndex": 0, "BrokerIds": [77]}])
        for name in ("", ".", "..", "a/b", "x" * 250, "sp ace", "x" * 249 if version == 7 else "n\u00e4me"):
            s.ask("CreateTopics", version, Topics=[{"Name": name, "NumPartitions": 1, "ReplicationFactor": 1}], timeoutMs=5000, validateOnly=True, note=name[:20])
        twice = {"Name": s.topic(f"-{version}-twice"), "NumPartitions": 1, "ReplicationFactor": 1}
        s.ask("CreateTopics", version, Topics=[twice, twice], timeoutMs=5000, note="twice in one request")
        s.ask("CreateTopics", version, Topics=[], timeoutMs=5000, note="none")
        s.ask("CreateTopics", version, Topics=[{"Name": "__consumer_offsets", "NumPartitions": 1, "ReplicationFactor": 1}], timeoutMs=5000)
        s.ask("CreateTopics", version, Topics=[{"Name": f"{s.name}_{version}-ok", "NumPartitions": 1, "ReplicationFactor": 1},
                                               {"Name": f"{s.name}.{version}-ok", "NumPartitions": 1, "ReplicationFactor": 1}], timeoutMs=5000, note="colliding names")


@scenario
def delete_topics_versions(s, versions):
    for version in over_versions("DeleteTopics", versions):
        topic = s.topic(f"-{version}")
        number = create(s, topic)
        if version < 6:
            s.ask("DeleteTopics", version, TopicNames=[topic], TimeoutMs=5000)
            s.ask("DeleteTopics", version, TopicNames=[topic], TimeoutMs=5000, note="again")
            s.ask("DeleteTopics", version, TopicNames=["bad/name", "bad/name"], TimeoutMs=5000, note="twice")
            s.ask("DeleteTopics", version, TopicNames=[], TimeoutMs=5000, note="none")
        else:
            none = "00000000-0000-0000-0000-000000000000"
            s.ask("DeleteTopics", version, Topics=[{"Name": None, "TopicId": number}], TimeoutMs=5000, note="by id")
            s.ask("DeleteTopics", version, Topics=[{"Name": None, "TopicId": number}], TimeoutMs=5000, note="by id again")
            s.ask("DeleteTopics", version, Topics=[{"Name": topic, "TopicId": none}], TimeoutMs=5000, note="by name again")
            s.ask("DeleteTopics", version, Topics=[{"Name": topic, "TopicId": number}], TimeoutMs=5000, note="both")
            s.ask("DeleteTopics", version, Topics=[{"Name": None, "TopicId": none}], TimeoutMs=5000, note="neither")
        create(s, topic)
        s.ask("Metadata", 8, Topics=[{"Name": topic}], AllowAutoTopicCreation=False, note="made again")


@scenario
def create_partitions_versions(s, versions):
    for version in over_versions("CreatePartitions", versions):
        topic = s.topic(f"-{version}")
        create(s, topic)

        def ask(count, assignments=None, name=topic, check=False, note=None):
            s.ask("CreatePartitions", version, Topics=[{"Name": name, "Count": count, "Assignments": assignments}], TimeoutMs=5000, ValidateOnly=check, note=note)
        ask(3, check=True, note="check")
        ask(3)
        ask(3, note="same")
        ask(2, note="less")
        ask(0, note="zero")
        ask(-1, note="negative")
        ask(4, [{"BrokerIds": [1]}], note="assigned")
        ask(6, [{"BrokerIds": [1]}], note="too few assignments")
        ask(5, [{"BrokerIds": [99]}], note="unknown broker")
        ask(5, [{"BrokerIds": []}], note="no brokers")
        ask(2, name=s.topic("-none"), note="no topic")
        s.ask("CreatePartitions", version, Topics=[], TimeoutMs=5000, note="none")
        s.ask("CreatePartitions", version, Topics=[{"Name": topic, "Count": 9}, {"Name": topic, "Count": 9}], TimeoutMs=5000, note="twice")


@scenario
def describe_configs_versions(s, versions):
    topic = s.topic()
    create(s, topic, configs=[("retention.ms", "12345"), ("cleanup.policy", "compact")])
    for version in over_versions("DescribeConfigs", versions):
        more = {"IncludeDocumentation": False} if version >= 3 else {}

        def ask(kind, name, keys, note=None, synonyms=True):
            s.ask("DescribeConfigs", version, Resources=[{"ResourceType": kind, "ResourceName": name, "ConfigurationKeys": keys}],
                  IncludeSynonyms=synonyms, **more, note=note)
        ask(2, topic, ["retention.ms", "cleanup.policy", "max.message.bytes", "no.such"])
        ask(2, topic, ["retention.ms"], synonyms=False)
        ask(2, topic, [], note="no keys")
        ask(2, s.topic("-none"), None, note="no topic")
        ask(2, "", None, note="no name")
        ask(2, "bad/name", None, note="bad name")
        ask(4, "1", ["message.max.bytes", "log.retention.ms", "num.partitions"], note="broker")
        ask(4, "", ["message.max.bytes"], note="cluster default")
        ask(4, "77", None, note="another broker")
        ask(4, "abc", None, note="no broker")
        ask(8, "1", [], note="loggers, none")
        ask(16, "client", None, note="client metrics")
        ask(32, s.topic("-group"), None, note="group")
        ask(3, "x", None, note="unknown type")
    s.ask("DescribeConfigs", 4, Resources=[{"ResourceType": 2, "ResourceName": topic, "ConfigurationKeys": None}], IncludeSynonyms=True, note="all")


@scenario
def alter_configs_versions(s, versions):
    for version in over_versions("AlterConfigs", versions):
        topic = s.topic(f"-{version}")
        create(s, topic, configs=[("retention.ms", "5000")])

        def ask(kind, name, configs, check=False, note=None):
            s.ask("AlterConfigs", version, Resources=[{"ResourceType": kind, "ResourceName": name, "Configs": [
                {"Name": key, "Value": value} for key, value in configs]}], ValidateOnly=check, note=note)
        ask(2, topic, [("max.message.bytes", "1000")], check=True, note="check")
        ask(2, topic, [("max.message.bytes", "1000")])
        s.ask("DescribeConfigs", 2, Resources=[{"ResourceType": 2, "ResourceName": topic, "ConfigurationKeys": ["retention.ms", "max.message.bytes"]}], note="replaced")
        ask(2, topic, [("no.such", "1")], note="unknown key")
        ask(2, topic, [("retention.ms", "x")], note="bad value")
        ask(2, topic, [("retention.ms", None)], note="null value")
        ask(2, topic, [("retention.ms", "1"), ("retention.ms", "2")], note="key twice")
        ask(2, s.topic("-none"), [("retention.ms", "1")], note="no topic")
        ask(4, "77", [("message.max.bytes", "1000000")], note="another broker")
        ask(4, "1", [("num.partitions", "3")], note="not dynamic")
        ask(3, "x", [], note="unknown type")
        s.ask("AlterConfigs", version, Resources=[], note="none")


@scenario
def incremental_alter_configs_versions(s, versions):
    for version in over_versions("IncrementalAlterConfigs", versions):
        topic = s.topic(f"-{version}")
        create(s, topic)

        def ask(kind, name, configs, check=False, note=None):
            s.ask("IncrementalAlterConfigs", version, Resources=[{"ResourceType": kind, "ResourceName": name, "Configs": [
                {"Name": key, "ConfigOperation": op, "Value": value} for key, op, value in configs]}], ValidateOnly=check, note=note)

        def look(note, *keys):
            s.ask("DescribeConfigs", 2, Resources=[{"ResourceType": 2, "ResourceName": topic, "ConfigurationKeys": list(keys)}], IncludeSynonyms=True, note=note)
        ask(2, topic, [("retention.ms", 0, "777")], check=True, note="check")
        look("unchanged", "retention.ms")
        ask(2, topic, [("retention.ms", 0, "777")], note="set")
        look("set", "retention.ms")
        ask(2, topic, [("retention.ms", 1, None)], note="delete")
        look("deleted", "retention.ms")
        ask(2, topic, [("retention.ms", 1, None)], note="delete again")
        ask(2, topic, [("cleanup.policy", 2, "compact")], note="append")
        look("appended", "cleanup.policy")
        ask(2, topic, [("cleanup.policy", 3, "delete")], note="subtract")
        look("subtracted", "cleanup.policy")
        ask(2, topic, [("cleanup.policy", 3, "compact")], note="subtract the last")
        look("after the last", "cleanup.policy")
        ask(2, topic, [("retention.ms", 2, "5")], note="append to no list")
        ask(2, topic, [("retention.ms", 9, "5")], note="no such operation")
        ask(2, topic, [("retention.ms", 0, None)], note="set null")
        ask(2, topic, [("no.such", 0, "5")], note="unknown key")
        ask(2, topic, [("retention.ms", 0, "-5")], note="out of range")
        ask(2, topic, [("retention.ms", 0, "1"), ("retention.ms", 0, "2")], note="key twice")
        ask(2, topic, [], note="no configs")
        ask(2, s.topic("-none"), [("retention.ms", 0, "1")], note="no topic")
        ask(4, "77", [("message.max.bytes", 0, "1000000")], note="another broker")
        ask(4, "1", [("num.partitions", 0, "3")], note="not dynamic")
        ask(4, "abc", [("message.max.bytes", 0, "1000000")], note="no broker")
        ask(3, "x", [], note="unknown type")
        s.ask("IncrementalAlterConfigs", version, Resources=[], note="none")


@scenario
def every_topic_config(s, versions):
    """Each topic config set to each of its edges; what is refused and what is shown afterwards."""
    topic = s.topic()
    create(s, topic)
    edges = {
        "cleanup.policy": ("delete", "compact", "compact,delete", "", "none"),
        "compression.type": ("producer", "uncompressed", "none", "gzip", "zip"),
        "compression.gzip.level": ("-1", "1", "9", "10", "0"),
        "compression.lz4.level": ("1", "17", "18", "0"),
        "compression.zstd.level": ("-131072", "22", "23"),
        "delete.retention.ms": ("0", "-1", "86400000"),
        "file.delete.delay.ms": ("0", "-1"),
        "flush.messages": ("0", "1"),
        "flush.ms": ("0", "-1"),
        "index.interval.bytes": ("0", "-1"),
        "max.compaction.lag.ms": ("0", "1", "9223372036854775807"),
        "max.message.bytes": ("0", "-1", "1000000"),
        "message.timestamp.type": ("CreateTime", "LogAppendTime", "Never"),
        "message.timestamp.before.max.ms": ("0", "-1"),
        "message.timestamp.after.max.ms": ("0", "-1"),
        "min.cleanable.dirty.ratio": ("0", "1", "0.5", "1.1", "-0.1", "x"),
        "min.compaction.lag.ms": ("0", "-1"),
        "min.insync.replicas": ("1", "0", "2"),
        "preallocate": ("true", "false", "maybe"),
        "retention.bytes": ("-1", "0", "-2"),
        "retention.ms": ("-1", "0", "-2"),
        "segment.bytes": ("1048576", "14", "1", "0"),
        "segment.index.bytes": ("4", "3"),
        "segment.jitter.ms": ("0", "-1"),
        "segment.ms": ("1", "0"),
        "unclean.leader.election.enable": ("true", "x"),
        "leader.replication.throttled.replicas": ("*", "0:1,1:1", "none", "x"),
        "follower.replication.throttled.replicas": ("*", "0:1"),
        "remote.storage.enable": ("false", "true"),
        "local.retention.ms": ("-2", "0", "-3"),
        "local.retention.bytes": ("-2", "0", "-3"),
        "remote.log.copy.disable": ("false",),
        "remote.log.delete.on.disable": ("false",),
        "message.downconversion.enable": ("true",),
        "message.format.version": ("3.0",),
    }
    for key, values in edges.items():
        for value in values:
            s.ask("IncrementalAlterConfigs", 1, Resources=[{"ResourceType": 2, "ResourceName": topic, "Configs": [
                {"Name": key, "ConfigOperation": 0, "Value": value}]}], note=f"{key}={value}")
        s.ask("DescribeConfigs", 4, Resources=[{"ResourceType": 2, "ResourceName": topic, "ConfigurationKeys": [key]}], IncludeSynonyms=True, note=key)
        s.quiet("IncrementalAlterConfigs", 1, Resources=[{"ResourceType": 2, "ResourceName": topic, "Configs": [{"Name": key, "ConfigOperation": 1, "Value": None}]}])


@scenario
def describe_topic_partitions(s, versions):
    one, two = s.topic("-a"), s.topic("-b")
    create(s, one, 3)
    create(s, two, 2)
    for limit, cursor, names in ((100, None, [one, two]), (2, None, [one, two]), (2, {"TopicName": one, "PartitionIndex": 2}, [one, two]),
                                 (100, None, [s.topic("-none")]), (1, {"TopicName": two, "PartitionIndex": 9}, [one, two]),
                                 (0, None, [one]), (-1, None, [one]), (5, None, ["bad/name"]), (5, {"TopicName": one, "PartitionIndex": -1}, [one])):
        for _ in over_versions("DescribeTopicPartitions", versions):
            s.ask("DescribeTopicPartitions", 0, Topics=[{"Name": name} for name in names], ResponsePartitionLimit=limit, Cursor=cursor, note=f"{limit} {cursor}")


@scenario
def cluster_versions(s, versions):
    for version in over_versions("DescribeCluster", versions):
        s.ask("DescribeCluster", version)
        s.ask("DescribeCluster", version, IncludeClusterAuthorizedOperations=True)
        if version >= 1:
            s.ask("DescribeCluster", version, EndpointType=2, note="controllers")
            s.ask("DescribeCluster", version, EndpointType=9, note="no such type")
    for version in over_versions("ListConfigResources", versions):
        s.ask("ListConfigResources", version)
    for version in over_versions("DescribeQuorum", versions):
        answer = s.quiet("DescribeQuorum", version, Topics=[{"TopicName": "__cluster_metadata", "Partitions": [{"PartitionIndex": 0}]}])
        s.write("DescribeQuorum", version, {"ErrorCode": answer["ErrorCode"], "partition": answer["Topics"][0]["Partitions"][0]["ErrorCode"]} if answer != "closed" else answer)
        s.ask("DescribeQuorum", version, Topics=[{"TopicName": "x", "Partitions": [{"PartitionIndex": 0}]}])

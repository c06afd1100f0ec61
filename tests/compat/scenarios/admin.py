"""The rest of administration: ACLs, credentials, tokens, quotas, log directories, elections, moves, features."""

from scenarios import create, over_versions, scenario


@scenario
def acls_versions(s, versions):
    binding = {"ResourceType": 2, "ResourceName": "x", "ResourcePatternType": 3, "Principal": "User:a", "Host": "*", "Operation": 3, "PermissionType": 3}
    matching = {"ResourceTypeFilter": 2, "ResourceNameFilter": "x", "PatternTypeFilter": 3, "PrincipalFilter": None, "HostFilter": None, "Operation": 1, "PermissionType": 1}
    for version in over_versions("DescribeAcls", versions):
        s.ask("DescribeAcls", version, **matching)
    for version in over_versions("CreateAcls", versions):
        s.ask("CreateAcls", version, Creations=[binding])
        s.ask("CreateAcls", version, Creations=[], note="none")
    for version in over_versions("DeleteAcls", versions):
        s.ask("DeleteAcls", version, Filters=[matching])
        s.ask("DeleteAcls", version, Filters=[], note="none")


@scenario
def sasl_versions(s, versions):
    for version in over_versions("SaslHandshake", versions):
        s.ask("SaslHandshake", version, on=f"h{version}", Mechanism="PLAIN")
        s.ask("SaslHandshake", version, on=f"h{version}", Mechanism="", note="no mechanism")
    for version in over_versions("SaslAuthenticate", versions):
        s.ask("SaslAuthenticate", version, on=f"a{version}", AuthBytes=b"x")


@scenario
def tokens_and_scram_versions(s, versions):
    for version in over_versions("CreateDelegationToken", versions):
        s.ask("CreateDelegationToken", version, Renewers=[], MaxLifetimeMs=1000)
    for version in over_versions("RenewDelegationToken", versions):
        s.ask("RenewDelegationToken", version, Hmac=b"x", RenewPeriodMs=1000)
    for version in over_versions("ExpireDelegationToken", versions):
        s.ask("ExpireDelegationToken", version, Hmac=b"x", ExpiryTimePeriodMs=1000)
    for version in over_versions("DescribeDelegationToken", versions):
        s.ask("DescribeDelegationToken", version, Owners=None)
    for version in over_versions("DescribeUserScramCredentials", versions):
        s.ask("DescribeUserScramCredentials", version, Users=None)
        s.ask("DescribeUserScramCredentials", version, Users=[{"Name": "nobody"}])
        s.ask("DescribeUserScramCredentials", version, Users=[{"Name": "a"}, {"Name": "a"}], note="twice")
        s.ask("DescribeUserScramCredentials", version, Users=[{"Name": ""}], note="no name")
    for version in over_versions("AlterUserScramCredentials", versions):
        good = {"Name": "u", "Mechanism": 1, "Iterations": 4096, "Salt": b"salt", "SaltedPassword": b"p" * 32}
        s.ask("AlterUserScramCredentials", version, Deletions=[{"Name": "nobody", "Mechanism": 1}], Upsertions=[])
        s.ask("AlterUserScramCredentials", version, Deletions=[], Upsertions=[good])
        s.ask("DescribeUserScramCredentials", 0, Users=[{"Name": "u"}], note="after it")
        for change in ({"Mechanism": 9}, {"Iterations": 5}, {"Iterations": 100_000}, {"Name": ""}):
            s.ask("AlterUserScramCredentials", version, Deletions=[], Upsertions=[{**good, **change}], note=str(change))
        s.ask("AlterUserScramCredentials", version, Deletions=[{"Name": "u", "Mechanism": 1}], Upsertions=[])


@scenario
def quotas_versions(s, versions):
    entity = [{"EntityType": "client-id", "EntityName": s.name}]
    for version in over_versions("AlterClientQuotas", versions):
        def alter(ops, entity=entity, check=False, note=None):
            s.ask("AlterClientQuotas", version, Entries=[{"Entity": entity, "Ops": [{"Key": k, "Value": v, "Remove": r} for k, v, r in ops]}], ValidateOnly=check, note=note)
        alter([("producer_byte_rate", 1e9, False)])
        alter([("producer_byte_rate", -1.0, False)], note="negative")
        alter([("odd", 1.0, False)], note="unknown key")
        alter([("producer_byte_rate", 1e9, False)], [], note="no entity")
        alter([("producer_byte_rate", 1e9, False)], [{"EntityType": "odd", "EntityName": "x"}], note="unknown entity")
        for described in over_versions("DescribeClientQuotas", versions):
            s.ask("DescribeClientQuotas", described, Components=[{"EntityType": "client-id", "MatchType": 0, "Match": s.name}], Strict=False)
            s.ask("DescribeClientQuotas", described, Components=[{"EntityType": "odd", "MatchType": 0, "Match": "x"}], Strict=False, note="unknown entity")
            s.ask("DescribeClientQuotas", described, Components=[{"EntityType": "client-id", "MatchType": 9, "Match": "x"}], Strict=False, note="unknown match")
        alter([("producer_byte_rate", 0.0, True)], note="removed")


@scenario
def log_dirs_versions(s, versions):
    topic = s.topic()
    create(s, topic, 2)
    for version in over_versions("DescribeLogDirs", versions):
        def plain(answer):
            if answer == "closed":
                return answer
            for one in answer["Results"]:
                one["LogDir"] = "directory"
                for name in ("TotalBytes", "UsableBytes"):
                    if name in one:
                        one[name] = one[name] > 0
                for found in one["Topics"]:
                    found["Partitions"] = sorted(({**part, "PartitionSize": part["PartitionSize"] >= 0} for part in found["Partitions"]), key=lambda part: part["PartitionIndex"])
            return answer
        s.write("DescribeLogDirs", version, plain(s.quiet("DescribeLogDirs", version, Topics=[{"Topic": topic, "Partitions": [0, 1]}])))
        s.write("DescribeLogDirs", version, plain(s.quiet("DescribeLogDirs", version, Topics=[{"Topic": s.topic("-none"), "Partitions": [0]}])), "no topic")
        s.write("DescribeLogDirs", version, plain(s.quiet("DescribeLogDirs", version, Topics=[])), "nothing")
    for version in over_versions("AlterReplicaLogDirs", versions):
        s.ask("AlterReplicaLogDirs", version, Dirs=[{"Path": "/none", "Topics": [{"Name": topic, "Partitions": [0]}]}], note="no such directory")
        s.ask("AlterReplicaLogDirs", version, Dirs=[], note="none")


@scenario
def elections_versions(s, versions):
    topic = s.topic()
    create(s, topic)
    for version in over_versions("ElectLeaders", versions):
        kind = {"ElectionType": 0} if version >= 1 else {}
        s.ask("ElectLeaders", version, TopicPartitions=[{"Topic": topic, "Partitions": [0]}], TimeoutMs=5000, **kind)
        s.ask("ElectLeaders", version, TopicPartitions=[{"Topic": topic, "Partitions": [9]}], TimeoutMs=5000, **kind, note="no partition")
        s.ask("ElectLeaders", version, TopicPartitions=[{"Topic": s.topic("-none"), "Partitions": [0]}], TimeoutMs=5000, **kind, note="no topic")
        if version >= 1:
            s.ask("ElectLeaders", version, TopicPartitions=[{"Topic": topic, "Partitions": [0]}], TimeoutMs=5000, ElectionType=1, note="unclean")
            s.ask("ElectLeaders", version, TopicPartitions=[{"Topic": topic, "Partitions": [0]}], TimeoutMs=5000, ElectionType=9, note="no such type")
    for version in over_versions("AlterPartitionReassignments", versions):
        for replicas, partition, name, note in (([1], 0, topic, "the same"), ([77], 0, topic, "no such broker"), ([], 0, topic, "empty"), ([1, 1], 0, topic, "twice"),
                                                (None, 0, topic, "cancel, none on"), ([1], 9, topic, "no partition"), ([1], 0, s.topic("-none"), "no topic")):
            s.ask("AlterPartitionReassignments", version, TimeoutMs=5000, Topics=[{"Name": name, "Partitions": [{"PartitionIndex": partition, "Replicas": replicas}]}], note=note)
    for version in over_versions("ListPartitionReassignments", versions):
        s.ask("ListPartitionReassignments", version, TimeoutMs=5000, Topics=None)
        s.ask("ListPartitionReassignments", version, TimeoutMs=5000, Topics=[{"Name": topic, "PartitionIndexes": [0]}])
        s.ask("ListPartitionReassignments", version, TimeoutMs=5000, Topics=[{"Name": s.topic("-none"), "PartitionIndexes": [0]}], note="no topic")


@scenario
def features_and_brokers(s, versions):
    for version in over_versions("UpdateFeatures", versions):
        more = {"ValidateOnly": True} if version >= 1 else {}
        s.ask("UpdateFeatures", version, timeoutMs=5000, FeatureUpdates=[{"Feature": "odd", "MaxVersionLevel": 1}], **more, note="unknown feature")
        s.ask("UpdateFeatures", version, timeoutMs=5000, FeatureUpdates=[], **more, note="none")
    for version in over_versions("UnregisterBroker", versions):
        s.ask("UnregisterBroker", version, BrokerId=77)

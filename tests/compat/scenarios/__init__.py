"""The scripted conversations, one file an area. A scenario is a function over a `Session`; its name is its topic prefix."""

import importlib
import pkgutil

import messages

ALL = {}


def scenario(function):
    """Registers a conversation under its function's name."""
    assert function.__name__ not in ALL, function.__name__
    ALL[function.__name__] = function
    return function


def over_versions(api, versions):
    """The versions of an API from `versions` (what the compared brokers share), lowest first."""
    key = messages.api(api)[0].key
    if key not in versions:
        return []
    first, last = versions[key]
    return range(max(first, messages.api(api)[0].valid[0]), min(last, messages.api(api)[0].valid[1]) + 1)


def create(session, topic, partitions=1, configs=(), quiet=True):
    """Creates a topic and returns its id."""
    ask = session.quiet if quiet else session.ask
    answer = ask("CreateTopics", 7, Topics=[{
        "Name": topic, "NumPartitions": partitions, "ReplicationFactor": 1,
        "Configs": [{"Name": name, "Value": value} for name, value in configs],
    }], timeoutMs=10_000)
    assert answer["Topics"][0]["ErrorCode"] == 0, answer
    settle(session, topic, partitions)
    return answer["Topics"][0]["TopicId"]


def settle(session, topic, partitions=1):
    """Waits until the broker leads every partition of a new topic; Kafka answers before it does."""
    import time
    for _ in range(200):
        found = session.quiet("Metadata", 12, Topics=[{"Name": topic}])["Topics"][0]
        if found["ErrorCode"] == 0 and len(found["Partitions"]) == partitions and all(
                one["LeaderId"] >= 0 for one in found["Partitions"]):
            probe = session.quiet("ListOffsets", 7, ReplicaId=-1, Topics=[{"Name": topic, "Partitions": [
                {"PartitionIndex": number, "Timestamp": -1} for number in range(partitions)]}])
            if all(one["ErrorCode"] == 0 for one in probe["Topics"][0]["Partitions"]):
                return
        time.sleep(0.02)
    raise AssertionError(f"{topic} has no leaders")


def load():
    """Imports every file of this package; returns {name: function} in the order of the files."""
    for module in sorted(one.name for one in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return ALL

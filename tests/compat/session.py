"""A scripted conversation with a broker whose answers are written down, so that two brokers can be compared.

What differs by nature between two runs of the very same broker (ids, times, ports, random member names) is replaced by names in
the order of first sight: `id1`, `member2`, `pid1`. What is left has to be equal.
"""

import re
import struct
import time
import uuid

import batches
import messages
import wire

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
BASE64_UUID = re.compile(r"^[A-Za-z0-9_-]{22}$")
# Kafka fills these with its own wording; what is compared is whether there is one.
TEXTS = {"ErrorMessage", "BatchIndexErrorMessage"}
EPOCHS = {"LeaderEpoch", "OffsetEpoch", "CommittedLeaderEpoch"}
CLOSED, SILENT = "closed", "silent"


# What identifies an element of a list whose order is that of a hash map in Kafka.
IDENTITY = ("Name", "Topic", "TopicName", "TopicId", "PartitionIndex", "Partition", "Index", "GroupId", "ResourceName", "ApiKey")


def ordered(values):
    """Lists of topics, partitions, groups and the like by their identity; others as they are."""
    if not values or not all(isinstance(one, dict) for one in values):
        return values
    keys = [name for name in IDENTITY if all(name in one for one in values)]
    return sorted(values, key=lambda one: [(one[name] is None, str(type(one[name])), one[name] if one[name] is not None else 0) for name in keys])


class Names:
    """Names of one kind in the order of first sight."""

    def __init__(self):
        self.known = {}

    def of(self, kind, value):
        same = [name for (other, _), name in self.known.items() if other == kind]
        return self.known.setdefault((kind, value), f"{kind}{len(same) + 1}")


class Session:
    """One scenario against one broker. `ask` sends and writes down; `quiet` sends only.

    `pause`: seconds after each change of metadata; Kafka answers before its broker side has learned of the change.
    """

    def __init__(self, bootstrap, name, pause=0.0):
        self.bootstrap, self.name, self.pause = bootstrap, name, pause
        self.host, port = bootstrap.rsplit(":", 1)
        self.port = int(port)
        self.steps, self.names = [], Names()
        self.connections = {}
        self.began = time.time() * 1000

    def topic(self, suffix=""):
        """A topic name of the scenario's own."""
        return f"{self.name}{suffix}"

    def connection(self, which):
        if which not in self.connections:
            self.connections[which] = wire.Connection(self.bootstrap, seconds=20)
        return self.connections[which]

    def close(self, which=None):
        for name in [which] if which else list(self.connections):
            connection = self.connections.pop(name, None)
            if connection:
                connection.close()

    def quiet(self, api, version, on="main", client="compat", **fields):
        """Sends and returns the answer as a dictionary, or `closed`, without writing it down."""
        answer = self.exchange(api, version, messages.api(api)[0].encode(version, fields), on, client)
        if "Alter" in api or api in ("CreateTopics", "DeleteTopics", "CreatePartitions"):
            time.sleep(self.pause)
        return answer

    def ask(self, api, version, on="main", client="compat", note=None, **fields):
        """Sends, writes the answer down and returns it."""
        answer = self.quiet(api, version, on, client, **fields)
        self.write(api, version, answer, note)
        return answer

    def ask_bytes(self, api, version, body, on="main", note=None):
        """As `ask`, with a body that was encoded, or spoiled, by hand."""
        answer = self.exchange(api, version, body, on)
        self.write(api, version, answer, note)
        return answer

    def write(self, api, version, answer, note=None):
        step = {"api": api, "version": version, "answer": self.plain(answer)}
        if note:
            step["note"] = note
        self.steps.append(step)

    def exchange(self, api, version, body, on, client="compat"):
        self.send(api, version, body, on, client)
        return self.receive(api, version, on)

    def send(self, api, version, body, on="main", client="compat"):
        connection = self.connection(on)
        connection.correlation += 1
        try:
            connection.send_raw(messages.request_frame(api, version, connection.correlation, body, client))
        except OSError:
            pass  # seen as closed by the receive

    def receive(self, api, version, on="main"):
        connection = self.connection(on)
        try:
            head = connection._exactly(4)
            data = head and connection._exactly(struct.unpack(">i", head)[0])
        except TimeoutError:
            self.close(on)
            return SILENT
        if not data:
            self.close(on)
            return CLOSED
        try:
            _, values, left = messages.answer(api, version, data)
            if left:
                raise AssertionError("left over")
        except (AssertionError, UnicodeDecodeError, struct.error):
            # ApiVersions answers a version it does not know in form 0.
            _, values, left = messages.answer(api, 0, data)
            assert not left, f"{api} {version}: an answer of no known form"
        return values

    def plain(self, value, field=""):
        """The value with what differs by nature replaced by names."""
        if isinstance(value, dict):
            return {name: self.plain(one, name) for name, one in value.items() if name != "ThrottleTimeMs"}
        if isinstance(value, list):
            plain = [self.plain(one, field) for one in value]
            return plain if field == "Synonyms" else ordered(plain)
        if isinstance(value, uuid.UUID):
            return "id0" if value.int == 0 else self.names.of("id", value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            return batches.plain(bytes(value), self) if field == "Records" else bytes(value).hex()
        if isinstance(value, str):
            return self.plain_text(value, field)
        if isinstance(value, bool) or value is None:
            return value
        return self.plain_number(value, field)

    def plain_text(self, value, field):
        if field in TEXTS:
            return "text" if value else value
        if field == "Host" and value == self.host:
            return "host"
        if field == "ClusterId" and BASE64_UUID.match(value):
            return "cluster"
        if field == "MemberId" and BASE64_UUID.match(value):
            return self.names.of("member", value)
        return UUID.sub(lambda found: self.names.of("member", found.group()), value)

    def plain_number(self, value, field):
        if field == "Port" and value == self.port:
            return "port"
        if field in ("ProducerId", "CurrentProducerId") and value >= 0:
            return self.names.of("pid", value)
        if field in EPOCHS and value >= 0:
            return "epoch"
        if isinstance(value, int) and abs(value - time.time() * 1000) < 3_600_000:
            return "now"
        return value

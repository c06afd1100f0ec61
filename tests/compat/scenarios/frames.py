"""Requests that are none: unknown APIs and versions, cut and padded bodies, counts that lie."""

import struct

import messages
from scenarios import over_versions, scenario


@scenario
def unknown_apis(s, versions):
    for key in (-1, 4, 5, 6, 7, 52, 200, 32767):
        connection = s.connection("x")
        connection.send_raw(struct.pack(">i", 14) + struct.pack(">hhi", key, 0, 1) + struct.pack(">h", 4) + b"name")
        answer = connection.receive()
        s.steps.append({"api": str(key), "version": 0, "answer": "closed" if answer is None else "answered"})
        s.close("x")


@scenario
def unknown_versions(s, versions):
    for key, (first, last) in sorted(versions.items()):
        name = messages.names().get(key)
        if name is None or name == "ApiVersions":
            continue
        for version in (-1, first - 1, messages.api(name)[0].valid[1] + 1):
            if version == -1 and first == 0 or version < -1:
                continue
            connection = s.connection("x")
            connection.send_raw(struct.pack(">i", 24) + struct.pack(">hhi", key, version, 1) + struct.pack(">h", 4) + b"name" + bytes(10))
            answer = connection.receive()
            s.steps.append({"api": name, "version": version, "note": "version", "answer": "closed" if answer is None else "answered"})
            s.close("x")


@scenario
def cut_bodies(s, versions):
    """An empty body and a body of one byte too few at every version: the connection ends."""
    for key, (first, last) in sorted(versions.items()):
        name = messages.names().get(key)
        if name is None or name in ("ApiVersions", "SaslHandshake", "SaslAuthenticate"):
            continue
        for version in over_versions(name, versions):
            body = messages.api(name)[0].encode(version, {})
            if len(body) > 1:
                s.ask_bytes(name, version, body[:-1], on="x", note="cut")
                s.close("x")


@scenario
def lying_counts(s, versions):
    for name, version, body in (
            ("Metadata", 1, struct.pack(">i", 1 << 30)), ("Metadata", 1, struct.pack(">i", -2)), ("Metadata", 9, b"\xff\xff\xff\xff\x07"),
            ("Metadata", 1, struct.pack(">ih", 1, -1)), ("Metadata", 1, struct.pack(">ih", 1, 30_000)), ("DeleteTopics", 1, struct.pack(">i", 1 << 29)),
            ("Metadata", 9, b"\xff" * 12), ("OffsetFetch", 2, struct.pack(">h", -1)), ("JoinGroup", 0, struct.pack(">h", -1)),
            ("CreateTopics", 2, struct.pack(">i", 1) + struct.pack(">h", 2) + b"ab" + struct.pack(">ih", 1, 1) + struct.pack(">i", 1 << 28))):
        s.ask_bytes(name, version, body, on="x", note=body.hex()[:24])
        s.close("x")


@scenario
def frame_lengths(s, versions):
    for length in (-1, -2147483648, 0, 1, 3, 7):
        connection = s.connection("x")
        connection.send_raw(struct.pack(">i", length) + bytes(max(length, 0)))
        if length >= 0:
            connection.socket.shutdown(1)
        answer = connection.receive()
        s.steps.append({"api": "frame", "version": 0, "note": str(length), "answer": "closed" if answer is None else "answered"})
        s.close("x")


@scenario
def no_client_id(s, versions):
    s.ask("Metadata", 1, client=None, Topics=[], note="null client id")
    s.ask("Metadata", 9, client="", Topics=[], AllowAutoTopicCreation=False, note="empty client id")

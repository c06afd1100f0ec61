"""Kafka frames by hand, for what no client would send: many requests in flight, bad input, exact bytes."""

import socket
import struct

import pyarrow

_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(delta, value, key=None):
    body = b"\x00" + varint(0) + varint(delta)
    body += varint(-1) if key is None else varint(len(key)) + key
    body += varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(values, codec=None, magic=2, count=None, crc=None, attributes=0, timestamp=1_700_000_000_000):
    """A record batch of version 2; `count`, `crc`, `magic`, `attributes` can be made wrong."""
    records = b"".join(record(delta, value) for delta, value in enumerate(values))
    if codec == "zstd":
        attributes |= 4
        records = pyarrow.Codec("zstd").compress(records, asbytes=True)
    tail = struct.pack(
        ">hiqqqhii", attributes, len(values) - 1, timestamp, timestamp, -1, -1, -1,
        len(values) if count is None else count,
    ) + records
    head = struct.pack(">ibI", -1, magic, crc32c(tail) if crc is None else crc)
    return struct.pack(">qi", 0, len(head) + len(tail)) + head + tail


def string(text):
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text.encode()


def produce(topic, partitions, acks=-1, timeout_ms=30_000):
    """Body of Produce version 7. `partitions`: {partition: records}."""
    body = string(None) + struct.pack(">hii", acks, timeout_ms, 1) + string(topic) + struct.pack(">i", len(partitions))
    for partition, records in partitions.items():
        body += struct.pack(">ii", partition, len(records)) + records
    return body


def produced(body):
    """{partition: (error, base offset)} of an answer of version 7."""
    at, out = 0, {}
    (topics,) = struct.unpack_from(">i", body, at)
    at += 4
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", body, at)
        at += 2 + length
        (partitions,) = struct.unpack_from(">i", body, at)
        at += 4
        for _ in range(partitions):
            partition, error, base, _, _ = struct.unpack_from(">ihqqq", body, at)
            at += 30
            out[partition] = (error, base)
    return out


def fetch(topic, partition, offset, max_bytes=1 << 20, wait_ms=500):
    """Body of Fetch version 4."""
    return (
        struct.pack(">iiiib", -1, wait_ms, 1, max_bytes, 0) + struct.pack(">i", 1) + string(topic)
        + struct.pack(">iiqi", 1, partition, offset, max_bytes)
    )


def fetched(body):
    """(error, high watermark, record bytes) of the one partition in an answer of version 4."""
    at = 8
    (length,) = struct.unpack_from(">h", body, at)
    at += 2 + length + 4
    _, error, high_watermark, _, aborted = struct.unpack_from(">ihqqi", body, at)
    at += 26 + 16 * max(aborted, 0)
    (size,) = struct.unpack_from(">i", body, at)
    return error, high_watermark, body[at + 4:at + 4 + max(size, 0)]


class Connection:
    def __init__(self, address, seconds=30):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=seconds)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = 0

    def send(self, key, version, body):
        self.correlation += 1
        frame = struct.pack(">hhi", key, version, self.correlation) + string("wire") + body
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)
        return self.correlation

    def send_raw(self, data):
        self.socket.sendall(data)

    def receive(self):
        """(correlation id, body), or None when the broker has closed the connection."""
        head = self._exactly(4)
        if head is None:
            return None
        frame = self._exactly(struct.unpack(">i", head)[0])
        return struct.unpack_from(">i", frame)[0], frame[4:]

    def ask(self, key, version, body):
        wanted = self.send(key, version, body)
        answer = self.receive()
        assert answer is not None, "the broker closed the connection"
        assert answer[0] == wanted
        return answer[1]

    def produce(self, topic, partitions, **more):
        return produced(self.ask(0, 7, produce(topic, partitions, **more)))

    def _exactly(self, count):
        out = b""
        while len(out) < count:
            try:
                part = self.socket.recv(count - len(out))
            except ConnectionResetError:
                return None
            if not part:
                return None
            out += part
        return out

    def close(self):
        self.socket.close()

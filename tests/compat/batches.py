"""Record batches: made for requests, right or wrong in one named way, and taken apart for comparison."""

import gzip
import struct

import pyarrow

import wire

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HEAD = struct.Struct(">qiibIhiqqqhii")


def compress(codec, data):
    if codec == "gzip":
        return gzip.compress(data)
    if codec == "snappy":  # the Xerial frame that Java writes
        packed = pyarrow.Codec("snappy").compress(data, asbytes=True)
        return b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, len(packed)) + packed
    if codec == "lz4":
        return pyarrow.Codec("lz4").compress(data, asbytes=True)
    if codec == "zstd":
        return pyarrow.Codec("zstd").compress(data, asbytes=True)
    return data


def decompress(codec, data):
    if codec == "gzip":
        return gzip.decompress(data)
    if codec in ("lz4", "zstd"):
        import io
        return pyarrow.CompressedInputStream(pyarrow.BufferReader(data), codec).read()
    return None if codec == "snappy" else data


def record(delta, value, key=None, timestamp=0, headers=(), attributes=0):
    body = bytes([attributes]) + wire.varint(timestamp) + wire.varint(delta)
    body += wire.varint(-1) if key is None else wire.varint(len(key)) + key
    body += wire.varint(-1) if value is None else wire.varint(len(value)) + value
    body += wire.varint(len(headers))
    for name, content in headers:
        body += wire.varint(len(name)) + name
        body += wire.varint(-1) if content is None else wire.varint(len(content)) + content
    return wire.varint(len(body)) + body


def make(values=(b"one", b"two"), codec="none", *, keys=None, deltas=None, magic=2, count=None, last=None, crc=None,
         attributes=0, timestamp=None, max_timestamp=None, pid=-1, epoch=-1, sequence=-1, base=0, length=None,
         inside=None, timestamps=None, tail=b"", headers=()):
    """A batch of version 2. Each keyword makes one thing other than it should be."""
    import time
    now = int(time.time() * 1000) if timestamp is None else timestamp
    keys = keys or [None] * len(values)
    deltas = deltas or range(len(values))
    times = timestamps or [0] * len(values)
    body = b"".join(record(delta, value, key, when, headers) for delta, value, key, when in zip(deltas, values, keys, times))
    body = compress(codec, body if inside is None else inside) + tail
    newest = now + max(times, default=0) if max_timestamp is None else max_timestamp
    rest = struct.pack(
        ">hiqqqhii", attributes | CODECS[codec], len(values) - 1 if last is None else last, now, newest, pid, epoch, sequence,
        len(values) if count is None else count,
    ) + body
    head = struct.pack(">ibI", 0, magic, wire.crc32c(rest) if crc is None else crc)
    return struct.pack(">qi", base, len(head) + len(rest) if length is None else length) + head + rest


def plain(data, session):
    """Batches as a list of dictionaries; a cut one at the end is named as such."""
    out, at = [], 0
    while at < len(data):
        if len(data) - at < HEAD.size:
            out.append("cut")
            break
        (base, length, _, magic, _, attributes, last, first_time, max_time, pid, epoch, sequence, count) = HEAD.unpack_from(data, at)
        end = at + 12 + length
        if end > len(data):
            out.append("cut")
            break
        codec = next(name for name, code in CODECS.items() if code == attributes & 7)
        inside = decompress(codec, data[at + HEAD.size:end])
        out.append({
            "base": base, "magic": magic, "attributes": attributes, "last": last, "count": count, "sequence": sequence,
            "ProducerEpoch": epoch, "pid": session.plain(pid, "ProducerId"), "times": session.plain([first_time, max_time]),
            "inside": None if inside is None else inside.hex(),
        })
        at = end
    return out

"""Kafka messages by their definitions: any API, any version, as plain dictionaries.

The definitions are the JSON files inside the installed `kafka-clients` jar, the ones Kafka generates its own code from. A
message is a dictionary by the definition's field names; a field that is left out has its default. Decoding gives every field of
the version, so two answers can be compared field by field.
"""

import dataclasses
import functools
import json
import pathlib
import re
import struct
import uuid
import zipfile

import harness

NUMBERS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d"}
NO_VERSION = (1, 0)


def versions(text):
    """(first, last) of "none", "3", "2-5" or "4+", both inclusive; an empty range is (1, 0)."""
    if text is None or text == "none":
        return NO_VERSION
    if text.endswith("+"):
        return int(text[:-1]), 1 << 15
    first, _, last = text.partition("-")
    return int(first), int(last or first)


def within(pair, version):
    return pair[0] <= version <= pair[1]


@dataclasses.dataclass
class Field:
    name: str
    kind: str
    versions: tuple
    nullable: tuple
    tagged: tuple
    tag: int
    flexible: tuple  # overrides the message's, or None
    default: object
    fields: list

    @property
    def element(self):
        return self.kind.removeprefix("[]")


@dataclasses.dataclass
class Message:
    name: str
    key: int
    valid: tuple
    flexible: tuple
    fields: list

    def encode(self, version, values):
        return encode_fields(self.fields, version, within(self.flexible, version), values, self.name)

    def decode(self, version, data):
        """(dictionary, bytes left over)."""
        reader = Reader(data)
        values = decode_fields(self.fields, version, within(self.flexible, version), reader)
        return values, data[reader.at:]


def parse_field(raw, structs):
    kind = raw["type"]
    fields = raw.get("fields")
    if fields is None and kind.removeprefix("[]") in structs:
        fields = structs[kind.removeprefix("[]")]
    return Field(
        raw["name"], kind, versions(raw.get("versions", "0+")), versions(raw.get("nullableVersions")),
        versions(raw.get("taggedVersions")), raw.get("tag", -1),
        versions(raw["flexibleVersions"]) if "flexibleVersions" in raw else None, raw.get("default"),
        [parse_field(one, structs) for one in fields] if fields else [],
    )


def parse(text):
    raw = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.M))
    structs = {one["name"]: one["fields"] for one in raw.get("commonStructs", [])}
    return Message(
        raw["name"], raw.get("apiKey", -1), versions(raw["validVersions"]), versions(raw.get("flexibleVersions")),
        [parse_field(one, structs) for one in raw.get("fields", [])],
    )


@functools.cache
def definitions():
    """{message name: Message} of the installed Kafka."""
    jar = next((pathlib.Path(harness.CACHE) / "peers" / "kafka" / "libs").glob("kafka-clients-*.jar"))
    found = {}
    with zipfile.ZipFile(jar) as files:
        for name in files.namelist():
            if name.startswith("common/message/") and name.endswith(".json"):
                message = parse(files.read(name).decode())
                found[message.name] = message
    return found


@functools.cache
def api(name):
    """(request, response) of an API by name."""
    return definitions()[f"{name}Request"], definitions()[f"{name}Response"]


@functools.cache
def names():
    """{API number: API name}."""
    return {one.key: one.name.removesuffix("Request") for one in definitions().values() if one.name.endswith("Request")}


def uvarint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def length(value, flexible, short):
    """Length prefix of a string (`short`), bytes or array; None is null."""
    if flexible:
        return uvarint(0 if value is None else value + 1)
    return struct.pack(">h" if short else ">i", -1 if value is None else value)


def default_of(field, version):
    if field.kind.startswith("[]"):
        return None if field.default == "null" else []
    if field.fields:
        return None if field.default == "null" else {}
    if field.kind == "string":
        return None if field.default == "null" else field.default or ""
    if field.kind in ("bytes", "records"):
        return None if field.default == "null" or within(field.nullable, version) and field.kind == "records" else b""
    if field.kind == "bool":
        return str(field.default).lower() == "true"
    if field.kind == "uuid":
        return uuid.UUID(int=0)
    if field.kind == "float64":
        return float(field.default or 0)
    return int(str(field.default or "0"), 0)


def encode_value(kind, field, version, flexible, value):
    if kind in NUMBERS:
        return struct.pack(NUMBERS[kind], value)
    if kind == "bool":
        return b"\x01" if value else b"\x00"
    if kind == "uuid":
        return (value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))).bytes
    if kind == "string":
        data = value.encode() if isinstance(value, str) else value
        return length(None if data is None else len(data), flexible, True) + (data or b"")
    if kind in ("bytes", "records"):
        return length(None if value is None else len(value), flexible, False) + (value or b"")
    if value is None:
        return b"\xff"
    head = b"\x01" if within(field.nullable, version) and not field.kind.startswith("[]") else b""
    return head + encode_fields(field.fields, version, flexible, value, field.name)


def encode_field(field, version, flexible, value):
    if field.flexible is not None:
        flexible = within(field.flexible, version)
    if field.kind.startswith("[]"):
        head = length(None if value is None else len(value), flexible, False)
        return head + b"".join(encode_value(field.element, field, version, flexible, one) for one in value or [])
    return encode_value(field.kind, field, version, flexible, value)


def encode_fields(fields, version, flexible, values, where):
    unknown = set(values) - {field.name for field in fields} - {"_tags"}
    assert not unknown, f"{where} has no field {sorted(unknown)}"
    out, tagged = b"", {}
    for field in fields:
        if not within(field.versions, version):
            continue
        value = values.get(field.name, default_of(field, version))
        if within(field.tagged, version):
            if field.name in values:
                tagged[field.tag] = encode_field(field, version, flexible, value)
        else:
            out += encode_field(field, version, flexible, value)
    if flexible:
        tagged |= values.get("_tags", {})
        out += uvarint(len(tagged))
        for tag in sorted(tagged):
            out += uvarint(tag) + uvarint(len(tagged[tag])) + tagged[tag]
    return out


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert count >= 0 and self.at + count <= len(self.data), "an answer ends inside a field"
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, code):
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def uvarint(self):
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def length(self, flexible, short):
        count = self.uvarint() - 1 if flexible else self.number(">h" if short else ">i")
        return None if count < 0 else count


def decode_value(kind, field, version, flexible, reader):
    if kind in NUMBERS:
        return reader.number(NUMBERS[kind])
    if kind == "bool":
        return reader.take(1) != b"\x00"
    if kind == "uuid":
        return uuid.UUID(bytes=bytes(reader.take(16)))
    if kind == "string":
        count = reader.length(flexible, True)
        return None if count is None else reader.take(count).decode()
    if kind in ("bytes", "records"):
        count = reader.length(flexible, False)
        return None if count is None else reader.take(count)
    if within(field.nullable, version) and not field.kind.startswith("[]") and reader.number(">b") < 0:
        return None
    return decode_fields(field.fields, version, flexible, reader)


def decode_field(field, version, flexible, reader):
    if field.flexible is not None:
        flexible = within(field.flexible, version)
    if field.kind.startswith("[]"):
        count = reader.length(flexible, False)
        return None if count is None else [
            decode_value(field.element, field, version, flexible, reader) for _ in range(count)]
    return decode_value(field.kind, field, version, flexible, reader)


def decode_fields(fields, version, flexible, reader):
    values, tagged = {}, {}
    for field in fields:
        if not within(field.versions, version):
            continue
        if within(field.tagged, version):
            tagged[field.tag] = field
            values[field.name] = default_of(field, version)
        else:
            values[field.name] = decode_field(field, version, flexible, reader)
    if flexible:
        for _ in range(reader.uvarint()):
            tag, size = reader.uvarint(), reader.uvarint()
            body = Reader(reader.take(size))
            if tag in tagged:
                values[tagged[tag].name] = decode_field(tagged[tag], version, True, body)
            else:
                values.setdefault("_tags", {})[tag] = body.data
    return values


def request_frame(name, version, correlation, body, client="compat"):
    """A whole request, length prefix included."""
    request, _ = api(name)
    client = client.encode() if client is not None else None
    head = struct.pack(">hhi", request.key, version, correlation) + length(
        None if client is None else len(client), False, True) + (client or b"")
    if within(request.flexible, version):
        head += b"\x00"
    frame = head + body
    return struct.pack(">i", len(frame)) + frame


def answer(name, version, data):
    """(correlation, dictionary, bytes left over) of a response frame without its length prefix."""
    request, response = api(name)
    (correlation,) = struct.unpack_from(">i", data)
    at = 4
    if name != "ApiVersions" and within(request.flexible, version):
        reader = Reader(data)
        reader.at = 4
        for _ in range(reader.uvarint()):
            reader.uvarint()
            reader.take(reader.uvarint())
        at = reader.at
    values, left = response.decode(version, data[at:])
    return correlation, values, left

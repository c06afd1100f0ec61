//! The layout of keys. One byte of tag, then fixed-width big-endian numbers or a name, so that the byte order of keys is
//! the order of what they name. `docs/formats/meta.md` draws the table.

use common::{NodeId, ObjectId, PartitionId, StreamId, WalId};

/// First byte of a key of the state.
pub(crate) mod tag {
    pub const APPLIED: u8 = 0x00;
    pub const CLUSTER: u8 = 0x01;
    pub const TIME: u8 = 0x02;
    pub const COUNTER: u8 = 0x03;
    pub const BROKER: u8 = 0x10;
    pub const WAL: u8 = 0x11;
    pub const TOPIC_NAME: u8 = 0x20;
    pub const TOPIC: u8 = 0x21;
    pub const PARTITION: u8 = 0x22;
    pub const TOPIC_ID: u8 = 0x23;
    pub const CONFIG: u8 = 0x24;
    pub const SINK: u8 = 0x30;
    pub const SINK_NAME: u8 = 0x31;
    pub const SINK_FLOOR: u8 = 0x32;
    pub const STREAM: u8 = 0x40;
    pub const RANGE: u8 = 0x41;
    pub const OBJECT: u8 = 0x50;
    pub const LIVE: u8 = 0x51;
    pub const EXPIRY: u8 = 0x52;
    pub const DELETION: u8 = 0x53;
    pub const RELEASE: u8 = 0x54;
    pub const RETENTION: u8 = 0x60;
    pub const CLEANING: u8 = 0x61;
    /// The highest of all.
    pub const LAST: u8 = CLEANING;
}

/// A counter that issues ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Counter {
    NodeEpoch = 1,
    Wal = 2,
    WalEpoch = 3,
    Topic = 4,
    Object = 5,
    Producer = 6,
    Sink = 7,
}

impl Counter {
    pub const ALL: [Self; 7] = [
        Self::NodeEpoch,
        Self::Wal,
        Self::WalEpoch,
        Self::Topic,
        Self::Object,
        Self::Producer,
        Self::Sink,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::NodeEpoch => "node epoch",
            Self::Wal => "write-ahead log",
            Self::WalEpoch => "write-ahead log epoch",
            Self::Topic => "topic",
            Self::Object => "object",
            Self::Producer => "producer",
            Self::Sink => "sink",
        }
    }
}

pub(crate) fn applied() -> Vec<u8> {
    vec![tag::APPLIED]
}

pub(crate) fn cluster() -> Vec<u8> {
    vec![tag::CLUSTER]
}

pub(crate) fn time() -> Vec<u8> {
    vec![tag::TIME]
}

pub(crate) fn counter(counter: Counter) -> Vec<u8> {
    vec![tag::COUNTER, counter as u8]
}

pub(crate) fn broker(node: NodeId) -> Vec<u8> {
    key(tag::BROKER, &[&node.0.to_be_bytes()])
}

pub(crate) fn wal(wal: WalId) -> Vec<u8> {
    key(tag::WAL, &[&wal.0.to_be_bytes()])
}

/// Names that differ only in `.` and `_` share a key, which makes them collide.
pub(crate) fn topic_name(name: &str) -> Vec<u8> {
    key(tag::TOPIC_NAME, &[name.replace('.', "_").as_bytes()])
}

pub(crate) fn topic(number: u64) -> Vec<u8> {
    key(tag::TOPIC, &[&number.to_be_bytes()])
}

pub(crate) fn topic_id(id: &[u8]) -> Vec<u8> {
    key(tag::TOPIC_ID, &[id])
}

pub(crate) fn partition(id: PartitionId) -> Vec<u8> {
    key(tag::PARTITION, &[&id.topic.to_be_bytes(), &id.index.to_be_bytes()])
}

pub(crate) fn partitions_of(topic: u64) -> Vec<u8> {
    key(tag::PARTITION, &[&topic.to_be_bytes()])
}

pub(crate) fn retention(node: NodeId) -> Vec<u8> {
    key(tag::RETENTION, &[&node.0.to_be_bytes()])
}

pub(crate) fn cleaning(id: PartitionId) -> Vec<u8> {
    key(tag::CLEANING, &[&id.topic.to_be_bytes(), &id.index.to_be_bytes()])
}

pub(crate) fn cleaning_of(topic: u64) -> Vec<u8> {
    key(tag::CLEANING, &[&topic.to_be_bytes()])
}

pub(crate) fn config(kind: u8, name: &[u8]) -> Vec<u8> {
    key(tag::CONFIG, &[&[kind], name])
}

pub(crate) fn sink(id: u64) -> Vec<u8> {
    key(tag::SINK, &[&id.to_be_bytes()])
}

pub(crate) fn sink_name(name: &str) -> Vec<u8> {
    key(tag::SINK_NAME, &[name.as_bytes()])
}

pub(crate) fn sink_floor(id: u64, partition: u32) -> Vec<u8> {
    key(tag::SINK_FLOOR, &[&id.to_be_bytes(), &partition.to_be_bytes()])
}

pub(crate) fn sink_floors_of(id: u64) -> Vec<u8> {
    key(tag::SINK_FLOOR, &[&id.to_be_bytes()])
}

pub(crate) fn stream(id: StreamId) -> Vec<u8> {
    key(tag::STREAM, &[&stream_bytes(id)])
}

pub(crate) fn streams_of(topic: u64) -> Vec<u8> {
    key(tag::STREAM, &[&topic.to_be_bytes()])
}

/// The range of a stream that begins at `start`, which is never negative.
pub(crate) fn range(id: StreamId, start: i64) -> Vec<u8> {
    key(tag::RANGE, &[&stream_bytes(id), &start.to_be_bytes()])
}

pub(crate) fn ranges_of(id: StreamId) -> Vec<u8> {
    key(tag::RANGE, &[&stream_bytes(id)])
}

pub(crate) fn ranges_of_topic(topic: u64) -> Vec<u8> {
    key(tag::RANGE, &[&topic.to_be_bytes()])
}

pub(crate) fn object(id: ObjectId) -> Vec<u8> {
    key(tag::OBJECT, &[&id.0.to_be_bytes()])
}

/// Marks that `object` holds the live range of `stream` that begins at `start`.
pub(crate) fn live(object: ObjectId, stream: StreamId, start: i64) -> Vec<u8> {
    key(tag::LIVE, &[&object.0.to_be_bytes(), &stream_bytes(stream), &start.to_be_bytes()])
}

pub(crate) fn live_of(object: ObjectId) -> Vec<u8> {
    key(tag::LIVE, &[&object.0.to_be_bytes()])
}

pub(crate) fn expiry(at_ms: i64, object: ObjectId) -> Vec<u8> {
    key(tag::EXPIRY, &[&at_ms.max(0).to_be_bytes(), &object.0.to_be_bytes()])
}

pub(crate) fn deletion(due_ms: i64, object: ObjectId) -> Vec<u8> {
    key(tag::DELETION, &[&due_ms.max(0).to_be_bytes(), &object.0.to_be_bytes()])
}

pub(crate) fn release(topic: u64) -> Vec<u8> {
    key(tag::RELEASE, &[&topic.to_be_bytes()])
}

/// The range of keys that begin with `prefix`: `[prefix, end)`.
pub(crate) fn under(prefix: Vec<u8>) -> (Vec<u8>, Vec<u8>) {
    let end = after(&prefix);
    (prefix, end)
}

/// The first key behind all that begin with `prefix`, whose first byte is below 0xff.
pub(crate) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX]
}

/// The smallest key above `key`.
pub(crate) fn next(key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    next.push(0);
    next
}

pub(crate) const STREAM_BYTES: usize = 13;

pub(crate) fn stream_bytes(id: StreamId) -> [u8; STREAM_BYTES] {
    let mut out = [0; STREAM_BYTES];
    out[..8].copy_from_slice(&id.partition.topic.to_be_bytes());
    out[8..12].copy_from_slice(&id.partition.index.to_be_bytes());
    out[12] = id.kind as u8;
    out
}

/// Reads [`stream_bytes`] and what follows.
pub(crate) fn split_stream(bytes: &[u8]) -> Option<(StreamId, &[u8])> {
    let (topic, rest) = split_u64(bytes)?;
    let (index, rest) = split_u32(rest)?;
    let (kind, rest) = rest.split_first()?;
    let kind = common::StreamKind::from_byte(*kind)?;
    Some((PartitionId { topic, index }.stream(kind), rest))
}

pub(crate) fn split_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

pub(crate) fn split_i64(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((i64::from_be_bytes(*number), rest))
}

pub(crate) fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

fn key(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.push(tag);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

#[cfg(test)]
mod tests {
    use common::StreamKind;

    use super::*;

    #[test]
    fn a_prefix_ends_before_the_next_one() {
        assert_eq!(after(&[1, 2]), vec![1, 3]);
        assert_eq!(after(&[1, 0xff]), vec![2]);
        assert!(next(&[1, 2]) > vec![1, 2] && next(&[1, 2]) < after(&[1, 2]));
    }

    #[test]
    fn keys_sort_as_what_they_name() {
        let stream = PartitionId { topic: 7, index: 1 }.stream(StreamKind::Data);
        assert!(range(stream, 255) < range(stream, 256));
        assert!(
            range(stream, 1 << 40)
                < ranges_of(PartitionId { topic: 7, index: 1 }.stream(StreamKind::State))
        );
        let (_, end) = under(ranges_of(stream));
        assert!(range(stream, i64::MAX) < end);
        let key = range(stream, 9);
        let (read, rest) = split_stream(&key[1..]).expect("a stream");
        assert_eq!((read, split_i64(rest).expect("an offset").0), (stream, 9));
    }
}

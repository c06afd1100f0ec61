//! Ids, epochs and positions. Each is its own type, so that an LSN is never added to an object id.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A broker, as Kafka clients see it. 0 or more.
    NodeId(i32)
}
number! {
    /// One life of a broker process, issued by metadata at each start; never issued twice.
    NodeEpoch(u64)
}
number! {
    /// One write-ahead log. Issued by metadata; a log declared lost closes its id for ever.
    WalId(u64)
}
number! {
    /// One opening of a write-ahead log. Issued by metadata together with the first LSN it may write.
    WalEpoch(u64)
}
number! {
    /// Epoch of a stream, equal to Kafka's leader epoch of its partition. 0 or more.
    StreamEpoch(i32)
}
number! {
    /// One engine object in the store. Issued by metadata, never reused.
    ObjectId(u64)
}
number! {
    /// Position in a write-ahead log: a logical byte offset since the log's first group, in bytes, padding included.
    /// A position is durable when the log's durable LSN is *above* it.
    Lsn(u64)
}

impl Lsn {
    /// The position `bytes` further on.
    ///
    /// # Panics
    /// When the sum passes 2^64, which no log reaches.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Lsn {
        Lsn(self.0.checked_add(bytes).expect("a log shorter than 2^64 bytes"))
    }
}

/// Ids that carry the cluster's incarnation: 15 bits of incarnation above 48 bits of counter, so that a cluster rebuilt
/// from its bucket never issues an id of its former life.
///
/// ```text
///  63 62            48 47                                             0
/// +--+----------------+------------------------------------------------+
/// | 0|  incarnation   |                    counter                     |
/// +--+----------------+------------------------------------------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdSpace {
    incarnation: u16,
}

impl IdSpace {
    /// Highest incarnation: 32,767.
    pub const INCARNATION_MAX: u16 = 0x7fff;
    /// Highest counter: 2^48 - 1.
    pub const COUNTER_MAX: u64 = (1 << 48) - 1;

    /// The id space of `incarnation`, or `None` above [`Self::INCARNATION_MAX`].
    #[must_use]
    pub fn new(incarnation: u16) -> Option<Self> {
        (incarnation <= Self::INCARNATION_MAX).then_some(Self { incarnation })
    }

    /// The id for `counter`, or `None` when the counter has run out.
    #[must_use]
    pub fn id(self, counter: u64) -> Option<u64> {
        (counter <= Self::COUNTER_MAX).then(|| (u64::from(self.incarnation) << 48) | counter)
    }

    /// The incarnation that issued `id`.
    #[must_use]
    pub fn incarnation_of(id: u64) -> u64 {
        id >> 48
    }
}

/// One partition: the topic's number (issued by metadata; a recreated topic has another) and the partition's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId {
    /// Number of the topic, from metadata.
    pub topic: u64,
    /// Index of the partition in its topic, from 0.
    pub index: u32,
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{}", self.topic, self.index)
    }
}

impl PartitionId {
    /// The stream of this partition that holds `kind`.
    #[must_use]
    pub fn stream(self, kind: StreamKind) -> StreamId {
        StreamId { partition: self, kind }
    }
}

/// What a stream of a partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum StreamKind {
    /// The record batches.
    Data = 0,
    /// Typed snapshots; the last of each kind wins.
    State = 1,
    /// Append-only facts found by offset: aborted ranges, leader epochs, cuts.
    Index = 2,
}

impl StreamKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [StreamKind; 3] = [StreamKind::Data, StreamKind::State, StreamKind::Index];

    /// The kind numbered `byte`, or `None`.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// An append-only sequence of entries with 64-bit offsets and one owner at a time.
///
/// On disk 16 bytes, little-endian:
/// ```text
/// 0        8          12     13       16
/// +--------+----------+------+--------+
/// | topic  |  index   | kind | zero*3 |
/// +--------+----------+------+--------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamId {
    /// The partition that owns the stream.
    pub partition: PartitionId,
    /// What it holds.
    pub kind: StreamKind,
}

impl StreamId {
    /// Encoded size in bytes.
    pub const SIZE: usize = 16;

    /// The 16 bytes of the on-disk form.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let mut out = [0; Self::SIZE];
        out[..8].copy_from_slice(&self.partition.topic.to_le_bytes());
        out[8..12].copy_from_slice(&self.partition.index.to_le_bytes());
        out[12] = self.kind as u8;
        out
    }

    /// Reads the on-disk form; `None` for an unknown kind or non-zero padding.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let (topic, rest) = bytes.split_first_chunk::<8>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        if rest[1..] != [0, 0, 0] {
            return None;
        }
        let partition =
            PartitionId { topic: u64::from_le_bytes(*topic), index: u32::from_le_bytes(*index) };
        Some(partition.stream(StreamKind::from_byte(rest[0])?))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            StreamKind::Data => "data",
            StreamKind::State => "state",
            StreamKind::Index => "index",
        };
        write!(f, "{}/{kind}", self.partition)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stream_ids_survive_their_bytes(topic: u64, index: u32, kind in 0u8..3) {
            let id = PartitionId { topic, index }.stream(StreamKind::from_byte(kind).expect("in range"));
            prop_assert_eq!(StreamId::from_bytes(&id.to_bytes()), Some(id));
        }
    }

    #[test]
    fn damaged_stream_ids_are_refused() {
        let good = PartitionId { topic: 7, index: 1 }.stream(StreamKind::Index).to_bytes();
        for position in 12..StreamId::SIZE {
            let mut bad = good;
            bad[position] = 9;
            assert_eq!(StreamId::from_bytes(&bad), None, "byte {position}");
        }
    }

    #[test]
    fn an_id_space_ends_instead_of_wrapping() {
        let space = IdSpace::new(3).expect("in range");
        assert_eq!(space.id(5), Some((3 << 48) | 5));
        assert_eq!(space.id(IdSpace::COUNTER_MAX + 1), None);
        assert_eq!(IdSpace::new(0x8000), None);
        assert_eq!(IdSpace::incarnation_of((3 << 48) | 5), 3);
    }
}

//! The command that replaces parts of streams by compacted ones.

use common::{PartitionId, StreamId, StreamKind};

use super::ObjectFacts;

/// Replaces live ranges of streams by ranges of new objects that cover exactly the same offsets. All or nothing;
/// idempotent by the ids of the new objects. Proposed by the owner of the partitions under its epochs.
///
/// ```text
/// before   |-- input --|- input -|--- input ---|      the live cover of [start, end), in this order
/// after    |-------- output --------|- output -|      tiles the same [start, end)
/// ```
#[derive(Clone, PartialEq, prost::Message)]
pub struct SwapRanges {
    /// The proposer's log.
    #[prost(uint64, tag = "1")]
    pub wal: u64,
    /// The log's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The new objects, registered by this log; each is used by an output.
    #[prost(message, repeated, tag = "3")]
    pub objects: Vec<NewObject>,
    /// Ids of the objects whose ranges are replaced, each once: what [`SwapStream::inputs`] points into.
    #[prost(uint64, repeated, tag = "4")]
    pub inputs: Vec<u64>,
    /// The parts of streams.
    #[prost(message, repeated, tag = "5")]
    pub streams: Vec<SwapStream>,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "6")]
    pub now_ms: i64,
}

/// An object that takes the place of others.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct NewObject {
    /// The registered object.
    #[prost(uint64, tag = "1")]
    pub object: u64,
    /// What a reader has to know.
    #[prost(message, optional, tag = "2")]
    pub facts: Option<ObjectFacts>,
    /// Lowest LSN of what it replaces, which keeps its place in the order of the log.
    #[prost(uint64, tag = "3")]
    pub first: u64,
    /// Highest end LSN of what it replaces.
    #[prost(uint64, tag = "4")]
    pub end: u64,
}

/// One part `[start, end)` of one stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SwapStream {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// A [`StreamKind`] as its number.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// The partition's stream epoch.
    #[prost(int32, tag = "4")]
    pub epoch: i32,
    /// First offset of the part; where a live range begins, at or above the log start.
    #[prost(int64, tag = "5")]
    pub start: i64,
    /// The objects of the live ranges that cover the part, in order, as positions in [`SwapRanges::inputs`].
    #[prost(uint32, repeated, tag = "6")]
    pub inputs: Vec<u32>,
    /// What replaces them, in order; the end of the last one is the end of the part.
    #[prost(message, repeated, tag = "7")]
    pub outputs: Vec<SwapOutput>,
}

impl SwapStream {
    /// A part of `stream` without inputs and outputs yet.
    #[must_use]
    pub fn of(stream: StreamId, epoch: i32, start: i64) -> Self {
        let PartitionId { topic, index } = stream.partition;
        let kind = u32::from(stream.kind as u8);
        Self { topic, index, kind, epoch, start, ..Self::default() }
    }

    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        PartitionId { topic: self.topic, index: self.index }
    }

    /// The stream, or `None` for a kind this build does not know.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        let kind = StreamKind::from_byte(u8::try_from(self.kind).ok()?)?;
        Some(self.partition().stream(kind))
    }
}

/// One new range; it begins where the one before it ends.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SwapOutput {
    /// Its object, as a position in [`SwapRanges::objects`].
    #[prost(uint32, tag = "1")]
    pub object: u32,
    /// Offset after the last one covered.
    #[prost(int64, tag = "2")]
    pub end: i64,
    /// Bytes of the entries.
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    /// Records in the entries.
    #[prost(uint64, tag = "4")]
    pub records: u64,
    /// Highest record timestamp, milliseconds since 1970; -1 without entries.
    #[prost(int64, tag = "5")]
    pub max_timestamp: i64,
    /// Highest stream epoch of what the range covers, dropped entries included.
    #[prost(int32, tag = "6")]
    pub epoch: i32,
}

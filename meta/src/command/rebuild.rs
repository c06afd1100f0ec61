//! Commands of a rebuild from the bucket: they go to a restored snapshot that no broker serves yet.

use super::{ObjectFacts, StreamRange};

/// Begins the next life of a restored cluster: raises the incarnation, so that every counter starts anew above all ids of
/// former lives. No broker may start until [`FinishRebuild`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct BeginRebuild {
    /// The incarnation claimed in the bucket, above the snapshot's.
    #[prost(uint32, tag = "1")]
    pub incarnation: u32,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub now_ms: i64,
}

/// Takes over the object of an upload round that the snapshot does not know, as it describes itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdoptObject {
    /// The object.
    #[prost(uint64, tag = "1")]
    pub object: u64,
    /// The log of the round.
    #[prost(uint64, tag = "2")]
    pub wal: u64,
    /// The log's epoch.
    #[prost(uint64, tag = "3")]
    pub epoch: u64,
    /// First LSN of the round; the log's committed LSN.
    #[prost(uint64, tag = "4")]
    pub first: u64,
    /// LSN after the round.
    #[prost(uint64, tag = "5")]
    pub end: u64,
    /// What a reader has to know.
    #[prost(message, optional, tag = "6")]
    pub facts: Option<ObjectFacts>,
    /// The streams, each once.
    #[prost(message, repeated, tag = "7")]
    pub ranges: Vec<StreamRange>,
    /// Refuse unless every partition that exists goes on where it ended; else such partitions are left out.
    #[prost(bool, tag = "8")]
    pub whole: bool,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "9")]
    pub now_ms: i64,
}

/// The highest epoch of a partition that was found in an object.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct PartitionEpoch {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// The epoch.
    #[prost(int32, tag = "3")]
    pub epoch: i32,
}

/// Ends a rebuild: every log of the former life is closed, every partition goes on behind a named lost range under an
/// epoch that its former life never reached, and ids that were registered but not adopted are forgotten.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FinishRebuild {
    /// Epochs found in objects, also in those that were left alone.
    #[prost(message, repeated, tag = "1")]
    pub epochs: Vec<PartitionEpoch>,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub now_ms: i64,
}

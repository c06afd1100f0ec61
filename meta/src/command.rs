//! Commands: everything that can change metadata. Each is a prost message, so that a log written by one build is read by
//! the next. Numbers are raw here and typed in replies; ids, times and random values are put in by the proposer, because
//! `apply` may use nothing but the command and the state.

use std::collections::BTreeMap;

use common::{PartitionId, StreamId, StreamKind};

use crate::frame::{self, DecodeError};

mod ownership;
mod rebuild;
mod swap;

pub use ownership::{FenceWal, HandOutWal, MovePartition};
pub use rebuild::{AdoptObject, BeginRebuild, FinishRebuild, PartitionEpoch};
pub use swap::{NewObject, SwapOutput, SwapRanges, SwapStream};

macro_rules! commands {
    ($($tag:literal $name:ident),* $(,)?) => {
        /// A change of metadata. Proposed through [`crate::Handle::propose`].
        #[derive(Clone, PartialEq, prost::Oneof)]
        pub enum Command {
            $(
                #[doc = concat!("See [`", stringify!($name), "`].")]
                #[prost(message, tag = $tag)]
                $name($name),
            )*
        }

        impl Command {
            /// The name of the command, for logs and metrics.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }
        }

        $(impl From<$name> for Command {
            fn from(body: $name) -> Self {
                Self::$name(body)
            }
        })*
    };
}

commands! {
    "1" Bootstrap, "2" StartNode, "3" CreateWal, "4" OpenWal, "5" CreateTopic, "6" DeleteTopic,
    "7" CreatePartitions, "8" AlterConfigs, "9" RegisterObject, "10" CommitUpload,
    "11" ExpireObjects, "12" ObjectsDeleted, "13" AllocateProducerIds, "14" CreateSink,
    "15" AlterSink, "16" DeleteSink, "17" AdvanceFloor, "18" SetLogStart, "19" DeclareWalLost,
    "20" RaiseFeatureLevel, "21" SwapRanges, "22" MovePartition, "23" FenceWal, "24" HandOutWal,
    "25" BeginRebuild, "26" AdoptObject, "27" FinishRebuild,
    "29" AdvanceRetention, "30" SetCleaning,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(
        oneof = "Command",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 29, 30"
    )]
    command: Option<Command>,
}

impl Command {
    /// The bytes of a log entry.
    #[must_use]
    pub fn into_frame(self) -> Vec<u8> {
        frame::encode(&Envelope { command: Some(self) })
    }

    /// Reads a log entry; `None` for a command this build does not know.
    ///
    /// # Errors
    /// When the bytes are not a frame.
    pub fn from_frame(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        Ok(frame::decode::<Envelope>(bytes)?.command)
    }
}

/// Begins the life of a cluster. The create-only object in the bucket that claims the incarnation is put before.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Bootstrap {
    /// The cluster's id as clients see it: 22 characters of base64url over a random UUID.
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    /// The incarnation claimed in the bucket, at most 32,767.
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    /// The first feature level.
    #[prost(uint32, tag = "3")]
    pub feature_level: u32,
}

/// A broker process starts. Raises the node epoch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StartNode {
    /// The broker, 0 or more.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// The host that clients are told.
    #[prost(string, tag = "2")]
    pub host: String,
    /// The port that clients are told.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// The broker's rack.
    #[prost(string, optional, tag = "4")]
    pub rack: Option<String>,
    /// The highest feature level this process can do.
    #[prost(uint32, tag = "5")]
    pub feature_level_max: u32,
}

/// Issues the id of a new, empty write-ahead log for a node that has none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateWal {
    /// The broker that owns it.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// The random start value of its group checksums.
    #[prost(uint64, tag = "2")]
    pub salt: u64,
    /// Another broker can attach its medium when the node is gone: its un-uploaded bytes survive the node.
    #[prost(bool, tag = "3")]
    pub survives: bool,
}

/// Opens a log for writing after recovery: issues its next epoch and records the epoch's first LSN, which cuts off what
/// recovery did not accept. Raises the stream epoch of each partition assigned to the log, and takes over partitions
/// that no log holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenWal {
    /// The log.
    #[prost(uint64, tag = "1")]
    pub wal: u64,
    /// The broker that opens it.
    #[prost(int32, tag = "2")]
    pub node: i32,
    /// The first LSN of the new epoch: the end of what recovery accepted, block aligned.
    #[prost(uint64, tag = "3")]
    pub recovered_end: u64,
    /// True when recovery cut an unacknowledged tail; for the record only.
    #[prost(bool, tag = "4")]
    pub cut: bool,
}

/// Owners chosen by the client, most preferred first.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Assignment {
    /// Index of the partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// Brokers; the first known one becomes the owner.
    #[prost(int32, repeated, tag = "2")]
    pub replicas: Vec<i32>,
}

/// Creates a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateTopic {
    /// Its name, already checked against the rules of the protocol.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its 16-byte id, random, from the proposer.
    #[prost(bytes = "vec", tag = "2")]
    pub id: Vec<u8>,
    /// Number of partitions, at least 1; ignored with `assignments`.
    #[prost(uint32, tag = "3")]
    pub partitions: u32,
    /// The replication factor as requested, at least 1; ignored with `assignments`.
    #[prost(int32, tag = "4")]
    pub replication_factor: i32,
    /// Dynamic configuration, already checked.
    #[prost(btree_map = "string, string", tag = "5")]
    pub configs: BTreeMap<String, String>,
    /// True for a topic of the broker itself.
    #[prost(bool, tag = "6")]
    pub internal: bool,
    /// Manual assignment, partitions 0..n each once; empty for ours.
    #[prost(message, repeated, tag = "7")]
    pub assignments: Vec<Assignment>,
    /// Only check: nothing changes.
    #[prost(bool, tag = "8")]
    pub validate_only: bool,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "9")]
    pub now_ms: i64,
}

/// Deletes a topic. Its name is free at once; its ranges in objects are released.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteTopic {
    /// The topic's 16-byte id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub now_ms: i64,
}

/// Adds partitions to a topic.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreatePartitions {
    /// The topic's 16-byte id.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Number of partitions afterwards.
    #[prost(uint32, tag = "2")]
    pub total: u32,
    /// Manual assignment of the new partitions only, or empty.
    #[prost(message, repeated, tag = "3")]
    pub assignments: Vec<Assignment>,
    /// Only check: nothing changes.
    #[prost(bool, tag = "4")]
    pub validate_only: bool,
}

/// What a configuration belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ResourceKind {
    /// Not set.
    Unknown = 0,
    /// A topic, by name.
    Topic = 1,
    /// A broker, by its number in decimal; the empty name is the default of the cluster.
    Broker = 2,
    /// A consumer group, by name.
    Group = 3,
}

/// What an operation does to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfigOpKind {
    /// Sets the value.
    Set = 0,
    /// Removes the value, so that the default counts.
    Delete = 1,
    /// Adds items to a comma-separated list.
    Append = 2,
    /// Removes items from a comma-separated list.
    Subtract = 3,
}

/// One operation on one key.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfigOp {
    /// The key, already checked.
    #[prost(string, tag = "1")]
    pub key: String,
    /// A [`ConfigOpKind`].
    #[prost(enumeration = "ConfigOpKind", tag = "2")]
    pub op: i32,
    /// The value or the items; absent for a delete.
    #[prost(string, optional, tag = "3")]
    pub value: Option<String>,
    /// The list that `Append` and `Subtract` start from when the key is not set: the default.
    #[prost(string, optional, tag = "4")]
    pub base: Option<String>,
}

/// Changes the configuration of one resource, all operations or none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlterConfigs {
    /// A [`ResourceKind`].
    #[prost(enumeration = "ResourceKind", tag = "1")]
    pub kind: i32,
    /// The resource.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Operations; each key once.
    #[prost(message, repeated, tag = "3")]
    pub ops: Vec<ConfigOp>,
    /// Replace the whole configuration: keys without an operation are removed.
    #[prost(bool, tag = "4")]
    pub replace: bool,
    /// Only check: nothing changes.
    #[prost(bool, tag = "5")]
    pub validate_only: bool,
}

/// Issues an object id, before the object is put. Without a commit it expires.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RegisterObject {
    /// The log whose upload round this is.
    #[prost(uint64, tag = "1")]
    pub wal: u64,
    /// The log's epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Time to live in milliseconds.
    #[prost(uint64, tag = "3")]
    pub ttl_ms: u64,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "4")]
    pub now_ms: i64,
}

/// What a reader has to know to open an object.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ObjectFacts {
    /// Size in bytes.
    #[prost(uint64, tag = "1")]
    pub bytes: u64,
    /// Format version.
    #[prost(uint32, tag = "2")]
    pub format: u32,
    /// Where the block index begins, in bytes, so that it and the footer are one read.
    #[prost(uint64, tag = "3")]
    pub index_at: u64,
    /// Which configured store holds it.
    #[prost(uint32, tag = "4")]
    pub store: u32,
    /// CRC-32C of the footer.
    #[prost(uint32, tag = "5")]
    pub footer_crc: u32,
}

/// What one upload round adds to one stream: it covers the offsets `[start, end)`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StreamRange {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// A [`StreamKind`] as its number.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// First offset covered; the stream's committed end.
    #[prost(int64, tag = "4")]
    pub start: i64,
    /// Offset after the last one covered.
    #[prost(int64, tag = "5")]
    pub end: i64,
    /// Highest stream epoch among the entries.
    #[prost(int32, tag = "6")]
    pub epoch: i32,
    /// Bytes of the entries.
    #[prost(uint64, tag = "7")]
    pub bytes: u64,
    /// Records in the entries.
    #[prost(uint64, tag = "8")]
    pub records: u64,
    /// Highest record timestamp, milliseconds since 1970.
    #[prost(int64, tag = "9")]
    pub max_timestamp: i64,
}

impl StreamRange {
    /// A range of `stream` without counts.
    #[must_use]
    pub fn of(stream: StreamId, start: i64, end: i64, epoch: i32) -> Self {
        let PartitionId { topic, index } = stream.partition;
        let kind = u32::from(stream.kind as u8);
        Self { topic, index, kind, start, end, epoch, ..Self::default() }
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

/// How far the files of one sink are complete in one partition.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SinkFloor {
    /// The sink's id.
    #[prost(uint64, tag = "1")]
    pub sink: u64,
    /// Index of the partition in the sink's topic.
    #[prost(uint32, tag = "2")]
    pub partition: u32,
    /// Every offset below is in the files or a named hole.
    #[prost(int64, tag = "3")]
    pub floor: i64,
}

/// Ends an upload round: what the object holds becomes the committed part of its streams.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommitUpload {
    /// The registered object.
    #[prost(uint64, tag = "1")]
    pub object: u64,
    /// The log.
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
    /// Floors of sinks that travel with the round.
    #[prost(message, repeated, tag = "8")]
    pub floors: Vec<SinkFloor>,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "9")]
    pub now_ms: i64,
    /// Partitions of the round's part of the log that are left out because their topic has been deleted. The round is
    /// refused when one of them still exists or never did.
    #[prost(message, repeated, tag = "10")]
    pub left_out: Vec<LeftOut>,
}

/// A partition that a round leaves out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LeftOut {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
}

/// Housekeeping: registered objects whose time is over become tombstones, and a part of the backlog of released ranges
/// is worked off.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ExpireObjects {
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "1")]
    pub now_ms: i64,
    /// At most so many objects.
    #[prost(uint32, tag = "2")]
    pub objects_max: u32,
}

/// These objects were deleted in the store. Tombstones of expired ids stay for a day and come up again.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectsDeleted {
    /// Object ids.
    #[prost(uint64, repeated, tag = "1")]
    pub objects: Vec<u64>,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub now_ms: i64,
}

/// Issues a block of producer ids.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AllocateProducerIds {
    /// The broker that asks.
    #[prost(int32, tag = "1")]
    pub node: i32,
}

/// A partition and an offset.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PartitionOffset {
    /// Index of the partition.
    #[prost(uint32, tag = "1")]
    pub partition: u32,
    /// The offset.
    #[prost(int64, tag = "2")]
    pub offset: i64,
}

/// Creates a sink.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CreateSink {
    /// Its unique name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The topic's 16-byte id.
    #[prost(bytes = "vec", tag = "2")]
    pub topic: Vec<u8>,
    /// Its configuration, already checked.
    #[prost(btree_map = "string, string", tag = "3")]
    pub config: BTreeMap<String, String>,
    /// Where it begins in each partition; a partition that is not named begins at its log start.
    #[prost(message, repeated, tag = "4")]
    pub starts: Vec<PartitionOffset>,
    /// The place of its files: store and prefix, `/` between parts. Equal and nested ones are refused.
    #[prost(string, tag = "5")]
    pub root: String,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "6")]
    pub now_ms: i64,
}

/// Whether a sink works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum SinkState {
    /// It cuts and writes.
    Running = 0,
    /// It waits for its operator.
    Paused = 1,
}

/// Changes a sink's configuration or state.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AlterSink {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Keys to set.
    #[prost(btree_map = "string, string", tag = "2")]
    pub set: BTreeMap<String, String>,
    /// Keys to remove.
    #[prost(string, repeated, tag = "3")]
    pub unset: Vec<String>,
    /// The new [`SinkState`], when it changes.
    #[prost(enumeration = "SinkState", optional, tag = "4")]
    pub state: Option<i32>,
}

/// Removes a sink. Its files stay.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteSink {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
}

/// Moves floors of sinks forward outside an upload round. A floor never goes back.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdvanceFloor {
    /// The floors.
    #[prost(message, repeated, tag = "1")]
    pub floors: Vec<SinkFloor>,
}

/// Moves the start of a stream forward; ranges that lie below are released. Proposed by the owner under its epoch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetLogStart {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// A [`StreamKind`] as its number.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// The first offset that stays.
    #[prost(int64, tag = "4")]
    pub start: i64,
    /// The partition's stream epoch.
    #[prost(int32, tag = "5")]
    pub epoch: i32,
    /// Wall time of the proposer, milliseconds since 1970.
    #[prost(int64, tag = "6")]
    pub now_ms: i64,
}

/// An operator declares that a log and what only it held is gone. Closes the log's id for ever.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeclareWalLost {
    /// The log.
    #[prost(uint64, tag = "1")]
    pub wal: u64,
}

/// Raises the feature level, once every broker can do it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RaiseFeatureLevel {
    /// The new level.
    #[prost(uint32, tag = "1")]
    pub level: u32,
}

/// Moves the time that a broker's retention goes by: forward by no more than the monotonic time that passed there since
/// the last such command, and never past the proposer's wall clock. So a wall clock that jumps deletes nothing.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AdvanceRetention {
    /// The broker.
    #[prost(int32, tag = "1")]
    pub node: i32,
    /// Its wall time, milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub now_ms: i64,
    /// Monotonic time since its last such command, in milliseconds.
    #[prost(uint64, tag = "3")]
    pub elapsed_ms: u64,
    /// The first one of this process: how long it was down is not known, at most a day of it counts.
    #[prost(bool, tag = "4")]
    pub started: bool,
}

/// Notes how far a partition's cleaning has come. Proposed by the owner under its epoch; an absent field stays, offsets
/// only rise.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetCleaning {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// The partition's stream epoch.
    #[prost(int32, tag = "3")]
    pub epoch: i32,
    /// Everything below holds one record a key.
    #[prost(int64, optional, tag = "4")]
    pub clean_end: Option<i64>,
    /// When the first tombstone below may go, in retention time; 0 for none.
    #[prost(int64, optional, tag = "5")]
    pub horizon_ms: Option<i64>,
    /// Clients see nothing below, although the log start may still lie lower: a sink's open cut needs the bytes.
    #[prost(int64, optional, tag = "6")]
    pub hidden_below: Option<i64>,
}

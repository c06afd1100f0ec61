//! The values behind the keys of the state.

use std::collections::BTreeMap;

use crate::command::ObjectFacts;

/// How far the state has been applied.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Applied {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Cluster {
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    #[prost(uint32, tag = "2")]
    pub incarnation: u32,
    #[prost(uint32, tag = "3")]
    pub feature_level: u32,
    /// A rebuild is not finished: no broker may start.
    #[prost(bool, tag = "4")]
    pub rebuilding: bool,
}

/// A counter, or metadata time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Number {
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Broker {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(uint32, tag = "2")]
    pub port: u32,
    #[prost(string, optional, tag = "3")]
    pub rack: Option<String>,
    #[prost(uint64, tag = "4")]
    pub epoch: u64,
    #[prost(uint64, optional, tag = "5")]
    pub wal: Option<u64>,
    #[prost(uint32, tag = "6")]
    pub feature_level_max: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Wal {
    #[prost(int32, tag = "1")]
    pub node: i32,
    #[prost(uint64, tag = "2")]
    pub salt: u64,
    #[prost(uint64, tag = "3")]
    pub committed: u64,
    #[prost(bool, tag = "4")]
    pub closed: bool,
    /// Epochs that may still have frames above `committed`, ascending; the last one is open.
    #[prost(message, repeated, tag = "5")]
    pub epochs: Vec<WalEpoch>,
    /// Its medium can be attached by another broker.
    #[prost(bool, tag = "6")]
    pub survives: bool,
    /// Out of the hands of its broker, until that opens it again. Stays when the log is handed out.
    #[prost(message, optional, tag = "7")]
    pub fence: Option<Fence>,
}

/// The end of a broker's hold on its log.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Fence {
    /// Under which alone objects are registered and committed.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The broker that takes the log over; nobody when its medium stays with its node.
    #[prost(int32, optional, tag = "2")]
    pub by: Option<i32>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct WalEpoch {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub first: u64,
}

impl Wal {
    /// The epoch under which objects are registered and committed.
    pub fn epoch(&self) -> u64 {
        let opened = self.epochs.last().map_or(0, |last| last.epoch);
        self.fence.map_or(opened, |fence| fence.epoch)
    }

    /// The epoch of the takeover that is or was made.
    pub fn taken_by_epoch(&self) -> Option<u64> {
        self.fence.filter(|fence| fence.by.is_some()).map(|fence| fence.epoch)
    }

    /// Refuses a recovered end that lies below what is known of the log.
    pub fn check_recovered(&self, end: u64) -> Result<(), crate::reply::Reject> {
        let known = self.epochs.last().map_or(0, |last| last.first).max(self.committed);
        if end < known {
            let (recovered, known) = (common::Lsn(end), common::Lsn(known));
            return Err(crate::reply::Reject::RecoveredShort { recovered, known });
        }
        Ok(())
    }

    /// Open for writing under some epoch.
    pub fn is_open(&self) -> bool {
        !self.closed && !self.epochs.is_empty() && self.fence.is_none()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TopicName {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(string, tag = "2")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Topic {
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(uint32, tag = "3")]
    pub partitions: u32,
    #[prost(int32, tag = "4")]
    pub replication_factor: i32,
    #[prost(bool, tag = "5")]
    pub internal: bool,
    #[prost(int64, tag = "6")]
    pub created_ms: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Partition {
    /// The owner; absent while nobody owns it.
    #[prost(int32, optional, tag = "1")]
    pub leader: Option<i32>,
    #[prost(int32, tag = "2")]
    pub epoch: i32,
    /// The log that may hold its un-uploaded bytes; absent while none does.
    #[prost(uint64, optional, tag = "3")]
    pub wal: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Config {
    #[prost(btree_map = "string, string", tag = "1")]
    pub values: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Sink {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub topic: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub topic_id: Vec<u8>,
    #[prost(btree_map = "string, string", tag = "4")]
    pub config: BTreeMap<String, String>,
    #[prost(btree_map = "uint32, int64", tag = "5")]
    pub starts: BTreeMap<u32, i64>,
    #[prost(string, tag = "6")]
    pub root: String,
    #[prost(uint64, tag = "7")]
    pub generation: u64,
    #[prost(int32, tag = "8")]
    pub state: i32,
    #[prost(int64, tag = "9")]
    pub created_ms: i64,
    #[prost(string, tag = "10")]
    pub topic_name: String,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Floor {
    #[prost(int64, tag = "1")]
    pub offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stream {
    /// First offset that counts. May lie above the committed end.
    #[prost(int64, tag = "1")]
    pub start: i64,
    /// Below it the stream lies in objects, apart from lost ranges.
    #[prost(int64, tag = "2")]
    pub committed_end: i64,
    /// Stream epoch of the last committed range.
    #[prost(int32, tag = "3")]
    pub epoch: i32,
    /// Raised by every change of the stream's ranges.
    #[prost(uint64, tag = "4")]
    pub version: u64,
    /// Bytes and records in live ranges.
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
    #[prost(uint64, tag = "6")]
    pub records: u64,
    #[prost(message, repeated, tag = "7")]
    pub lost: Vec<Lost>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Lost {
    #[prost(int64, tag = "1")]
    pub start: i64,
    #[prost(int64, tag = "2")]
    pub end: i64,
}

/// One range of a stream in one object; its start is in the key.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Range {
    #[prost(uint64, tag = "1")]
    pub object: u64,
    #[prost(int64, tag = "2")]
    pub end: i64,
    #[prost(uint64, tag = "3")]
    pub bytes: u64,
    #[prost(uint64, tag = "4")]
    pub records: u64,
    #[prost(int64, tag = "5")]
    pub max_timestamp: i64,
    #[prost(int32, tag = "6")]
    pub epoch: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum ObjectState {
    /// An id was issued; the object may or may not be in the store.
    Registered = 0,
    /// Part of the log.
    Committed = 1,
    /// No live range is left; to be deleted in the store.
    Released = 2,
    /// A tombstone: never committed, late commits are refused.
    Expired = 3,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Object {
    #[prost(enumeration = "ObjectState", tag = "1")]
    pub state: i32,
    #[prost(uint64, tag = "2")]
    pub wal: u64,
    #[prost(uint64, tag = "3")]
    pub wal_epoch: u64,
    /// When the present state began; for `Registered`, when it ends.
    #[prost(int64, tag = "4")]
    pub at_ms: i64,
    #[prost(uint64, tag = "5")]
    pub first: u64,
    #[prost(uint64, tag = "6")]
    pub end: u64,
    #[prost(message, optional, tag = "7")]
    pub facts: Option<ObjectFacts>,
    #[prost(uint32, tag = "8")]
    pub live: u32,
    /// Partitions passed over because they had been deleted.
    #[prost(message, repeated, tag = "9")]
    pub refused: Vec<PartitionName>,
    /// When its entry in the deletion queue is due.
    #[prost(int64, tag = "10")]
    pub due_ms: i64,
    /// Made by compaction, not by an upload round.
    #[prost(bool, tag = "11")]
    pub swapped: bool,
    /// Payload bytes in live ranges.
    #[prost(uint64, tag = "12")]
    pub live_bytes: u64,
    /// Payload bytes of all ranges that were live when it was committed.
    #[prost(uint64, tag = "13")]
    pub payload_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub(crate) struct PartitionName {
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    #[prost(uint32, tag = "2")]
    pub index: u32,
}

/// How far a partition is cleaned.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Cleaning {
    #[prost(int64, tag = "1")]
    pub clean_end: i64,
    #[prost(int64, tag = "2")]
    pub horizon_ms: i64,
    #[prost(int64, tag = "3")]
    pub hidden_below: i64,
}

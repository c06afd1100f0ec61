//! Commands that move ownership: a partition to another broker, a log out of the hands of a broker that is gone.

use common::PartitionId;

/// Hands a partition over to another broker. Proposed by its owner once it has sealed the partition (it appends nothing
/// to it any more, whatever the answer) and all of it lies in objects.
#[derive(Clone, PartialEq, prost::Message)]
pub struct MovePartition {
    /// Number of the topic.
    #[prost(uint64, tag = "1")]
    pub topic: u64,
    /// Index of the partition.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    /// The partition's stream epoch.
    #[prost(int32, tag = "3")]
    pub epoch: i32,
    /// The owner's log.
    #[prost(uint64, tag = "4")]
    pub wal: u64,
    /// The log's epoch.
    #[prost(uint64, tag = "5")]
    pub wal_epoch: u64,
    /// The broker that owns it from then on.
    #[prost(int32, tag = "6")]
    pub to: i32,
    /// Ends of the sealed streams, by kind: data, state, index. Each has to be the committed end.
    #[prost(int64, repeated, tag = "7")]
    pub ends: Vec<i64>,
}

impl MovePartition {
    /// The partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        PartitionId { topic: self.topic, index: self.index }
    }
}

/// Takes a log out of the hands of its broker, whose lease has ended: uploads under its epoch are refused from now on
/// and nobody leads its partitions. It ends by `HandOutWal`, or by the log's own broker when that opens it again.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FenceWal {
    /// The log.
    #[prost(uint64, tag = "1")]
    pub wal: u64,
    /// The broker that uploads what the log still holds; the log has to survive its node then. None: its partitions
    /// wait for the node, or for a declared loss.
    #[prost(int32, optional, tag = "2")]
    pub by: Option<i32>,
}

/// Ends the takeover of a log: all that it held lies in objects. Closes the log for ever and spreads its partitions over
/// the brokers with an open log.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HandOutWal {
    /// The log.
    #[prost(uint64, tag = "1")]
    pub wal: u64,
    /// The epoch that `FenceWal` has given.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// Where recovery found the log's end. Between the committed LSN and it lies nothing that needs an upload.
    #[prost(uint64, tag = "3")]
    pub end: u64,
}

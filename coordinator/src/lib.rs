//! Consumer groups as a pure state machine: Kafka's classic group protocol and committed offsets.
//!
//! [`Shard`] holds all groups of one `__consumer_offsets` partition. It reads no clock, does no I/O and starts no task:
//! requests, time and the outcome of writes go in, [`Effect`]s come out, and a shell executes them.
//!
//! The contract in four lines:
//! - Durable state ([`Committed`]) changes only in [`Shard::replay`] and, through the same function, in
//!   [`Shard::written`]: once a write has passed the gate, never before.
//! - A response that depends on records is an effect of `written`, not of `handle`.
//! - A read of offsets waits for the newest write of its group that was under way when it came.
//! - Who is joining and who is awaited is volatile, as in Kafka; a generation's assignment is durable before any member
//!   learns it.

mod committed;
mod context;
mod delete;
mod dispatch;
mod effect;
mod expire;
mod group;
mod hash;
mod inspect;
mod join;
mod leave;
mod member;
mod offsets;
mod rebalance;
pub mod records;
mod request;
mod response;
mod settings;
mod shard;
mod subscription;
mod sync;
mod timers;

#[cfg(test)]
mod tests;

pub use committed::{Committed, CommittedGroup, Replayed};
pub use effect::{Effect, Record, Time, Token, WriteError, WriteId};
pub use group::State;
pub use hash::{PARTITIONS_DEFAULT, TOPIC, partition_for};
pub use member::Protocol;
pub use request::{
    Assignment, CommitRequest, CommittedPartition, DeleteOffsetsRequest, FetchRequest,
    HeartbeatRequest, JoinRequest, LeaveRequest, LeavingMember, ListRequest, Request, SyncRequest,
    TopicCommits, TopicPartitions,
};
pub use response::{
    DescribeResponse, DescribedMember, FetchResponse, FetchedOffset, JoinResponse, JoinedMember,
    LeaveResponse, LeftMember, ListedGroup, PartitionErrors, Response, SyncResponse, TopicOffsets,
};
pub use settings::Settings;
pub use shard::Shard;

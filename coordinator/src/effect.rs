//! What goes out of a shard, and the small types that tie it to what comes back.

use bytes::Bytes;
use protocol::ErrorCode;

use crate::response::Response;

/// Two clocks, because they answer different questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Milliseconds since 1970; stands in records and decides the expiry of offsets. May jump.
    pub wall_ms: i64,
    /// Monotonic milliseconds since any fixed start; decides every time-out.
    pub uptime_ms: i64,
}

/// The caller's name for a request, given back with its response. The shard keeps it and reads nothing from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// One append of a shard. Rises by one with each; the outcomes are reported in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// One record of `__consumer_offsets`, in Kafka's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key; never null.
    pub key: Bytes,
    /// The value, or `None` for a tombstone.
    pub value: Option<Bytes>,
}

/// What the shell has to do. Effects are executed in their order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append `records` as one batch and report to [`crate::Shard::written`] once they have passed the gate.
    Append {
        /// Name of this write.
        write: WriteId,
        /// At least one.
        records: Vec<Record>,
    },
    /// Answer a request. Each token is answered exactly once.
    Respond {
        /// The request.
        token: Token,
        /// Its answer.
        response: Response,
    },
}

/// A write that is certainly not in the log and never will be. When that is not certain, drop the shard
/// ([`crate::Shard::close`]) and load a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the group records were not written: {0:?}")]
pub struct WriteError(pub ErrorCode);

impl WriteError {
    /// The code a group client understands (Kafka's GroupMetadataManager maps them the same way).
    #[must_use]
    pub fn for_client(self) -> ErrorCode {
        match self.0 {
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotEnoughReplicasAfterAppend
            | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
            ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => {
                ErrorCode::NotCoordinator
            }
            ErrorCode::MessageTooLarge
            | ErrorCode::RecordListTooLarge
            | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
            other => other,
        }
    }
}

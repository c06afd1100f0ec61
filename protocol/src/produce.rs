//! Produce, versions 3 to 13: request decoding without a copy, response encoding. Records stay slices of the frame.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::ErrorCode;

mod request;
mod response;
#[cfg(test)]
mod tests;

pub(crate) use response::{put_endpoints, put_leader};

/// First version that names topics by id.
pub const TOPIC_ID_SINCE: i16 = 13;

/// A Produce request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The transaction the batches belong to, if any.
    pub transactional_id: Option<StrBytes>,
    /// 0: no response; 1: written by the leader; -1: by all replicas. Other values are the client's mistake.
    pub acks: i16,
    /// How long to wait for the replicas, in milliseconds.
    pub timeout_ms: i32,
    /// Batches by topic.
    pub topics: Vec<TopicData>,
}

/// Batches for one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicData {
    /// The name; empty from version 13 on.
    pub name: StrBytes,
    /// The id; nil below version 13.
    pub id: Uuid,
    /// Batches by partition.
    pub partitions: Vec<PartitionData>,
}

/// A batch for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionData {
    /// The partition's index.
    pub index: i32,
    /// The batch as it came, a slice of the frame.
    pub records: Option<Bytes>,
}

/// A Produce response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Outcomes by topic.
    pub topics: Vec<TopicOutcome>,
    /// How long the client is held back, in milliseconds.
    pub throttle_time_ms: i32,
    /// Where the leaders named in the outcomes are. Written from version 10 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// What became of the batches for one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicOutcome {
    /// The name, as the request has it.
    pub name: StrBytes,
    /// The id, as the request has it.
    pub id: Uuid,
    /// Outcomes by partition.
    pub partitions: Vec<PartitionOutcome>,
}

/// What became of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionOutcome {
    /// The partition's index.
    pub index: i32,
    /// [`ErrorCode::None`] when the batch is durable.
    pub error: ErrorCode,
    /// Offset of the first record, -1 after an error.
    pub base_offset: i64,
    /// The time of the append when the topic uses it, else -1.
    pub log_append_time_ms: i64,
    /// First offset of the partition, -1 when it is not known. Written from version 5 on.
    pub log_start_offset: i64,
    /// The records at fault. Written from version 8 on.
    pub record_errors: Vec<RecordFault>,
    /// One sentence about the error. Written from version 8 on, clipped to 1,000 bytes.
    pub error_message: Option<String>,
    /// The leader, when the client asked the wrong broker. Written from version 10 on.
    pub current_leader: Option<LeaderIdAndEpoch>,
}

/// A record that caused its batch to be refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// Its index in the batch.
    pub batch_index: i32,
    /// One sentence; clipped to 1,000 bytes.
    pub message: Option<String>,
}

/// A leader and its epoch, -1 when not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// Node id of the leader.
    pub leader_id: i32,
    /// Its epoch.
    pub leader_epoch: i32,
}

/// Where a broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker.
    pub node_id: i32,
    /// Its host name.
    pub host: StrBytes,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<StrBytes>,
}

impl PartitionOutcome {
    /// A batch that was appended at `base_offset`.
    #[must_use]
    pub fn appended(
        index: i32,
        base_offset: i64,
        log_append_time_ms: i64,
        log_start_offset: i64,
    ) -> Self {
        Self {
            base_offset,
            log_append_time_ms,
            log_start_offset,
            ..Self::refused(index, ErrorCode::None)
        }
    }

    /// A batch that was refused.
    #[must_use]
    pub fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            error_message: None,
            current_leader: None,
        }
    }
}

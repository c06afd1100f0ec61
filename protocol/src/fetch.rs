//! Fetch, versions 4 to 18: request decoding, and response encoding as a list of slices for vectored writes, so that
//! records are never copied. Sessions are declined: the response carries session id 0 and clients go on sending full
//! requests.

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::ErrorCode;
pub use crate::produce::{LeaderIdAndEpoch, NodeEndpoint};

mod request;
mod response;
#[cfg(test)]
mod tests;

/// First version that names topics by id.
pub const TOPIC_ID_SINCE: i16 = 13;
/// Replica id of a consumer.
pub const CONSUMER_REPLICA_ID: i32 = -1;
/// Records shorter than this are copied between the fields around them: one more slice would cost more.
pub const JOINED_BYTES_MAX: usize = 4096;

/// A Fetch request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// -1 for a consumer; brokers are not served.
    pub replica_id: i32,
    /// How long to wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// Bytes to wait for.
    pub min_bytes: i32,
    /// Most bytes of the response; the first batch comes whole all the same.
    pub max_bytes: i32,
    /// 0 reads uncommitted, 1 committed.
    pub isolation_level: i8,
    /// The session, 0 for none.
    pub session_id: i32,
    /// Epoch in the session; 0 asks for a new one, -1 for none.
    pub session_epoch: i32,
    /// What to read, by topic.
    pub topics: Vec<FetchTopic>,
    /// The consumer's rack.
    pub rack_id: StrBytes,
}

/// What to read of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    /// The name; empty from version 13 on.
    pub name: StrBytes,
    /// The id; nil below version 13.
    pub id: Uuid,
    /// What to read, by partition.
    pub partitions: Vec<FetchPartition>,
}

/// What to read of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's index.
    pub index: i32,
    /// Leader epoch the client knows, -1 when none.
    pub current_leader_epoch: i32,
    /// First offset wanted.
    pub fetch_offset: i64,
    /// Epoch of the last record the client has, -1 when not given.
    pub last_fetched_epoch: i32,
    /// Most bytes of this partition.
    pub partition_max_bytes: i32,
}

/// A Fetch response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// How long the client is held back, in milliseconds.
    pub throttle_time_ms: i32,
    /// An error of the whole request. Written from version 7 on.
    pub error: ErrorCode,
    /// What was read, by topic.
    pub topics: Vec<TopicData>,
    /// Where the leaders named below are. Written from version 16 on.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// What was read of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicData {
    /// The name, as the request has it.
    pub name: StrBytes,
    /// The id, as the request has it.
    pub id: Uuid,
    /// What was read, by partition.
    pub partitions: Vec<PartitionData>,
}

/// What was read of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionData {
    /// The partition's index.
    pub index: i32,
    /// [`ErrorCode::None`] when it was read.
    pub error: ErrorCode,
    /// End of what may be read; -1 after an error.
    pub high_watermark: i64,
    /// End of what may be read committed; -1 after an error.
    pub last_stable_offset: i64,
    /// First offset of the partition; -1 after an error. Written from version 5 on.
    pub log_start_offset: i64,
    /// Aborted transactions in the range read; `None` unless the request reads committed.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// The batches, back to back.
    pub records: Vec<Bytes>,
    /// Where the client's log ends that the leader's does not have. Written from version 12 on.
    pub diverging_epoch: Option<EpochEnd>,
    /// The leader, when the client asked the wrong broker. Written from version 12 on.
    pub current_leader: Option<LeaderIdAndEpoch>,
}

/// A transaction whose records a reader of committed data drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
}

/// The end of a leader epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: i32,
    /// The offset after its last record.
    pub end_offset: i64,
}

impl PartitionData {
    /// A partition that could not be read.
    #[must_use]
    pub fn refused(index: i32, error: ErrorCode) -> Self {
        Self {
            index,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            aborted: None,
            records: Vec::new(),
            diverging_epoch: None,
            current_leader: None,
        }
    }

    /// Bytes of the records.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.records.iter().map(Bytes::len).sum()
    }
}

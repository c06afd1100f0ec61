//! Answers, free of wire versions.

use bytes::Bytes;
use protocol::ErrorCode;

/// The answer to the request of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// JoinGroup.
    Join(JoinResponse),
    /// SyncGroup.
    Sync(SyncResponse),
    /// Heartbeat.
    Heartbeat(ErrorCode),
    /// LeaveGroup.
    Leave(LeaveResponse),
    /// OffsetCommit.
    Commit(PartitionErrors),
    /// OffsetFetch.
    Fetch(FetchResponse),
    /// ListGroups.
    List(Vec<ListedGroup>),
    /// DescribeGroups.
    Describe(DescribeResponse),
    /// DeleteGroups.
    Delete(ErrorCode),
    /// OffsetDelete.
    DeleteOffsets(PartitionErrors),
    /// The request was refused as a whole before it reached a group: the shard is overloaded or closed.
    Refused(ErrorCode),
}

/// JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// `None` when the member is in.
    pub error: ErrorCode,
    /// -1 with an error.
    pub generation: i32,
    /// Protocol type of the group.
    pub protocol_type: Option<String>,
    /// The protocol chosen for this generation.
    pub protocol_name: Option<String>,
    /// Member id of the leader; empty with an error.
    pub leader: String,
    /// The leader need not compute an assignment.
    pub skip_assignment: bool,
    /// Id of the member that is answered.
    pub member: String,
    /// All members, for the leader alone.
    pub members: Vec<JoinedMember>,
}

impl JoinResponse {
    /// An answer that is only an error.
    #[must_use]
    pub fn error(member: &str, error: ErrorCode) -> Self {
        Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member: member.to_owned(),
            members: Vec::new(),
        }
    }
}

/// One member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// Id.
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// Subscription under the chosen protocol.
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    /// `None` when the assignment counts.
    pub error: ErrorCode,
    /// Protocol type of the group.
    pub protocol_type: Option<String>,
    /// Protocol of the generation.
    pub protocol_name: Option<String>,
    /// Opaque to the coordinator.
    pub assignment: Bytes,
}

impl SyncResponse {
    /// An answer that is only an error.
    #[must_use]
    pub fn error(error: ErrorCode) -> Self {
        Self { error, protocol_type: None, protocol_name: None, assignment: Bytes::new() }
    }
}

/// LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveResponse {
    /// Of the request as a whole.
    pub error: ErrorCode,
    /// One for each member asked for, in order.
    pub members: Vec<LeftMember>,
}

/// One member that was asked to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// As requested.
    pub member: String,
    /// As requested.
    pub instance: Option<String>,
    /// `None` when it has left.
    pub error: ErrorCode,
}

/// Error codes by topic and partition, in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionErrors {
    /// Of the request as a whole; then `topics` repeats it for each partition.
    pub error: ErrorCode,
    /// Topic, then (partition, error).
    pub topics: Vec<(String, Vec<(i32, ErrorCode)>)>,
}

/// OffsetFetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    /// Of the group as a whole.
    pub error: ErrorCode,
    /// Offsets by topic.
    pub topics: Vec<TopicOffsets>,
}

/// Committed offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOffsets {
    /// Name.
    pub topic: String,
    /// By partition.
    pub partitions: Vec<FetchedOffset>,
}

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedOffset {
    /// Index.
    pub partition: i32,
    /// -1 when nothing is committed.
    pub offset: i64,
    /// -1 when not known.
    pub leader_epoch: i32,
    /// As committed.
    pub metadata: String,
}

/// One group of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// Id.
    pub group: String,
    /// Empty for a group without members so far.
    pub protocol_type: String,
    /// Name of the state.
    pub state: &'static str,
    /// Name of the group type.
    pub kind: &'static str,
}

/// DescribeGroups of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeResponse {
    /// GROUP_ID_NOT_FOUND for an unknown group (versions below 6 show it as state `Dead` without an error).
    pub error: ErrorCode,
    /// Id.
    pub group: String,
    /// Name of the state.
    pub state: &'static str,
    /// Empty for a group without members so far.
    pub protocol_type: String,
    /// The protocol of a stable group, else empty.
    pub protocol: String,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// One member of a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// Id.
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// Client id.
    pub client_id: String,
    /// Address.
    pub client_host: String,
    /// Subscription; empty unless the group is stable.
    pub metadata: Bytes,
    /// The durable assignment.
    pub assignment: Bytes,
}

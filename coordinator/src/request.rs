//! Requests of one group, free of wire versions: what a version implies stands in a field.

use bytes::Bytes;

use crate::member::Protocol;

/// Everything a shard answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// JoinGroup.
    Join(JoinRequest),
    /// SyncGroup.
    Sync(SyncRequest),
    /// Heartbeat.
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup.
    Leave(LeaveRequest),
    /// OffsetCommit.
    Commit(CommitRequest),
    /// OffsetFetch of one group.
    Fetch(FetchRequest),
    /// ListGroups, this shard's part.
    List(ListRequest),
    /// DescribeGroups of one group.
    Describe {
        /// The group.
        group: String,
    },
    /// DeleteGroups of one group.
    Delete {
        /// The group.
        group: String,
    },
    /// OffsetDelete.
    DeleteOffsets(DeleteOffsetsRequest),
}

impl Request {
    /// The group this request is about; `None` when it concerns all.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Join(r) => Some(&r.group),
            Self::Sync(r) => Some(&r.group),
            Self::Heartbeat(r) => Some(&r.group),
            Self::Leave(r) => Some(&r.group),
            Self::Commit(r) => Some(&r.group),
            Self::Fetch(r) => Some(&r.group),
            Self::Describe { group } | Self::Delete { group } => Some(group),
            Self::DeleteOffsets(r) => Some(&r.group),
            Self::List(_) => None,
        }
    }

    /// True when a text is too long for the 16-bit length it gets in a record.
    pub(crate) fn oversized(&self) -> bool {
        let long = |text: &str| text.len() > TEXT_BYTES_MAX;
        let long_option = |text: &Option<String>| text.as_deref().is_some_and(long);
        let own = match self {
            Self::Join(r) => {
                [&r.client_id, &r.client_host, &r.protocol_type].into_iter().any(|text| long(text))
                    || long(&r.member)
                    || long_option(&r.instance)
                    || r.protocols.iter().any(|protocol| long(&protocol.name))
            }
            Self::Commit(r) => r.topics.iter().any(|topic| long(&topic.topic)),
            Self::Sync(_) | Self::Heartbeat(_) | Self::Leave(_) | Self::Fetch(_) => false,
            Self::List(_) | Self::Describe { .. } | Self::Delete { .. } => false,
            Self::DeleteOffsets(_) => false,
        };
        own || self.group().is_some_and(long)
    }
}

/// Longest id or name in bytes: leaves room for what a generated member id adds.
const TEXT_BYTES_MAX: usize = 32_000;

/// JoinGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinRequest {
    /// The group.
    pub group: String,
    /// Empty on the first join.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Client id from the request header.
    pub client_id: String,
    /// Address of the client, as `/10.0.0.1`.
    pub client_host: String,
    /// Milliseconds.
    pub session_timeout_ms: i32,
    /// Milliseconds; version 0 repeats the session timeout here.
    pub rebalance_timeout_ms: i32,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// In order of preference.
    pub protocols: Vec<Protocol>,
    /// Version 4 and up: a first join is answered with MEMBER_ID_REQUIRED.
    pub requires_member_id: bool,
    /// Version 9 and up: a replaced static leader may be told to skip the assignment.
    pub may_skip_assignment: bool,
}

/// SyncGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Generation the member believes in.
    pub generation: i32,
    /// Version 5 and up.
    pub protocol_type: Option<String>,
    /// Version 5 and up.
    pub protocol_name: Option<String>,
    /// From the leader.
    pub assignments: Vec<Assignment>,
}

/// What the leader gives one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The member.
    pub member: String,
    /// Opaque to the coordinator.
    pub bytes: Bytes,
}

/// Heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group: String,
    /// The member.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Generation the member believes in.
    pub generation: i32,
}

/// LeaveGroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group: String,
    /// One below version 3.
    pub members: Vec<LeavingMember>,
}

/// One member that leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeavingMember {
    /// Empty when the static member is named by its instance alone.
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
}

/// OffsetCommit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitRequest {
    /// The group.
    pub group: String,
    /// Empty for a client that assigns partitions by itself.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// -1 for a client that assigns partitions by itself.
    pub generation: i32,
    /// Versions 2 to 4: an explicit retention, or -1.
    pub retention_ms: i64,
    /// Version 9 and up: an unknown group is GROUP_ID_NOT_FOUND, below it is ILLEGAL_GENERATION.
    pub names_missing_group: bool,
    /// What to commit. Topics that do not exist have been taken out by the caller.
    pub topics: Vec<TopicCommits>,
}

/// Offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicCommits {
    /// Name.
    pub topic: String,
    /// One for each partition.
    pub partitions: Vec<CommittedPartition>,
}

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedPartition {
    /// Index.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// -1 when not known.
    pub leader_epoch: i32,
    /// Null is kept as empty, as Kafka does.
    pub metadata: String,
}

/// OffsetFetch of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// The group.
    pub group: String,
    /// `None` for all topics with a committed offset.
    pub topics: Option<Vec<TopicPartitions>>,
}

/// Partitions of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitions {
    /// Name.
    pub topic: String,
    /// Indexes.
    pub partitions: Vec<i32>,
}

/// ListGroups. Empty filters let all pass; case does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Names of states.
    pub states: Vec<String>,
    /// Names of group types.
    pub types: Vec<String>,
}

/// OffsetDelete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOffsetsRequest {
    /// The group.
    pub group: String,
    /// What to forget.
    pub topics: Vec<TopicPartitions>,
}

//! Requests of consumer groups.

use super::schema::{BOOL, Field, INT8, INT32, INT32S, INT64, Kind, STRINGS, field};

pub(super) const OFFSET_COMMIT: &[Field] = &[
    field("GroupId", Kind::String),
    field("GenerationIdOrMemberEpoch", INT32),
    field("MemberId", Kind::String),
    field("GroupInstanceId", Kind::String).since(7).nullable(),
    field("RetentionTimeMs", INT64).until(4),
    field("Topics", Kind::Array(&Kind::Struct(COMMIT_TOPIC))),
];
const COMMIT_TOPIC: &[Field] = &[
    field("Name", Kind::String),
    field("Partitions", Kind::Array(&Kind::Struct(COMMIT_PARTITION))),
];
const COMMIT_PARTITION: &[Field] = &[
    field("PartitionIndex", INT32),
    field("CommittedOffset", INT64),
    field("CommittedLeaderEpoch", INT32).since(6),
    field("CommittedMetadata", Kind::String).nullable(),
];

pub(super) const OFFSET_FETCH: &[Field] = &[
    field("GroupId", Kind::String).until(7),
    field("Topics", Kind::Array(&Kind::Struct(OFFSET_TOPIC))).until(7).nullable_since(2),
    field("Groups", Kind::Array(&Kind::Struct(OFFSET_GROUP))).since(8),
    field("RequireStable", BOOL).since(7),
];
const OFFSET_TOPIC: &[Field] = &[field("Name", Kind::String), field("PartitionIndexes", INT32S)];
const OFFSET_GROUP: &[Field] = &[
    field("GroupId", Kind::String),
    field("MemberId", Kind::String).since(9).nullable(),
    field("MemberEpoch", INT32).since(9),
    field("Topics", Kind::Array(&Kind::Struct(OFFSET_TOPIC))).nullable(),
];

pub(super) const FIND_COORDINATOR: &[Field] = &[
    field("Key", Kind::String).until(3),
    field("KeyType", INT8).since(1),
    field("CoordinatorKeys", STRINGS).since(4),
];

pub(super) const JOIN_GROUP: &[Field] = &[
    field("GroupId", Kind::String),
    field("SessionTimeoutMs", INT32),
    field("RebalanceTimeoutMs", INT32).since(1),
    field("MemberId", Kind::String),
    field("GroupInstanceId", Kind::String).since(5).nullable(),
    field("ProtocolType", Kind::String),
    field("Protocols", Kind::Array(&Kind::Struct(JOIN_PROTOCOL))),
    field("Reason", Kind::String).since(8).nullable(),
];
const JOIN_PROTOCOL: &[Field] = &[field("Name", Kind::String), field("Metadata", Kind::Bytes)];

pub(super) const HEARTBEAT: &[Field] = &[
    field("GroupId", Kind::String),
    field("GenerationId", INT32),
    field("MemberId", Kind::String),
    field("GroupInstanceId", Kind::String).since(3).nullable(),
];

pub(super) const LEAVE_GROUP: &[Field] = &[
    field("GroupId", Kind::String),
    field("MemberId", Kind::String).until(2),
    field("Members", Kind::Array(&Kind::Struct(LEAVE_MEMBER))).since(3),
];
const LEAVE_MEMBER: &[Field] = &[
    field("MemberId", Kind::String),
    field("GroupInstanceId", Kind::String).nullable(),
    field("Reason", Kind::String).since(5).nullable(),
];

pub(super) const SYNC_GROUP: &[Field] = &[
    field("GroupId", Kind::String),
    field("GenerationId", INT32),
    field("MemberId", Kind::String),
    field("GroupInstanceId", Kind::String).since(3).nullable(),
    field("ProtocolType", Kind::String).since(5).nullable(),
    field("ProtocolName", Kind::String).since(5).nullable(),
    field("Assignments", Kind::Array(&Kind::Struct(SYNC_ASSIGNMENT))),
];
const SYNC_ASSIGNMENT: &[Field] =
    &[field("MemberId", Kind::String), field("Assignment", Kind::Bytes)];

pub(super) const DESCRIBE_GROUPS: &[Field] =
    &[field("Groups", STRINGS), field("IncludeAuthorizedOperations", BOOL).since(3)];

pub(super) const LIST_GROUPS: &[Field] =
    &[field("StatesFilter", STRINGS).since(4), field("TypesFilter", STRINGS).since(5)];

pub(super) const DELETE_GROUPS: &[Field] = &[field("GroupsNames", STRINGS)];

//! Requests about records and where they lie.

use super::schema::{BOOL, Field, INT8, INT16, INT32, INT32S, INT64, Kind, UUID, field};

pub(super) const PRODUCE: &[Field] = &[
    field("TransactionalId", Kind::String).nullable(),
    field("Acks", INT16),
    field("TimeoutMs", INT32),
    field("TopicData", Kind::Array(&Kind::Struct(PRODUCE_TOPIC))),
];
const PRODUCE_TOPIC: &[Field] = &[
    field("Name", Kind::String).until(12),
    field("TopicId", UUID).since(13),
    field("PartitionData", Kind::Array(&Kind::Struct(PRODUCE_PARTITION))),
];
const PRODUCE_PARTITION: &[Field] =
    &[field("Index", INT32), field("Records", Kind::Bytes).nullable()];

pub(super) const FETCH: &[Field] = &[
    field("ReplicaId", INT32).until(14),
    field("MaxWaitMs", INT32),
    field("MinBytes", INT32),
    field("MaxBytes", INT32),
    field("IsolationLevel", INT8),
    field("SessionId", INT32).since(7),
    field("SessionEpoch", INT32).since(7),
    field("Topics", Kind::Array(&Kind::Struct(FETCH_TOPIC))),
    field("ForgottenTopicsData", Kind::Array(&Kind::Struct(FETCH_FORGOTTEN))).since(7),
    field("RackId", Kind::String).since(11),
    field("ClusterId", Kind::String).since(12).nullable().tag(0),
    field("ReplicaState", Kind::Struct(FETCH_REPLICA)).since(15).tag(1),
];
const FETCH_TOPIC: &[Field] = &[
    field("Topic", Kind::String).until(12),
    field("TopicId", UUID).since(13),
    field("Partitions", Kind::Array(&Kind::Struct(FETCH_PARTITION))),
];
const FETCH_PARTITION: &[Field] = &[
    field("Partition", INT32),
    field("CurrentLeaderEpoch", INT32).since(9),
    field("FetchOffset", INT64),
    field("LastFetchedEpoch", INT32).since(12),
    field("LogStartOffset", INT64).since(5),
    field("PartitionMaxBytes", INT32),
    field("ReplicaDirectoryId", UUID).since(17).tag(0),
    field("HighWatermark", INT64).since(18).tag(1),
];
const FETCH_FORGOTTEN: &[Field] = &[
    field("Topic", Kind::String).since(7).until(12),
    field("TopicId", UUID).since(13),
    field("Partitions", INT32S).since(7),
];
const FETCH_REPLICA: &[Field] = &[field("ReplicaId", INT32), field("ReplicaEpoch", INT64)];

pub(super) const LIST_OFFSETS: &[Field] = &[
    field("ReplicaId", INT32),
    field("IsolationLevel", INT8).since(2),
    field("Topics", Kind::Array(&Kind::Struct(LIST_OFFSETS_TOPIC))),
    field("TimeoutMs", INT32).since(10),
];
const LIST_OFFSETS_TOPIC: &[Field] = &[
    field("Name", Kind::String),
    field("Partitions", Kind::Array(&Kind::Struct(LIST_OFFSETS_PARTITION))),
];
const LIST_OFFSETS_PARTITION: &[Field] = &[
    field("PartitionIndex", INT32),
    field("CurrentLeaderEpoch", INT32).since(4),
    field("Timestamp", INT64),
];

pub(super) const METADATA: &[Field] = &[
    field("Topics", Kind::Array(&Kind::Struct(METADATA_TOPIC))).nullable_since(1),
    field("AllowAutoTopicCreation", BOOL).since(4),
    field("IncludeClusterAuthorizedOperations", BOOL).since(8).until(10),
    field("IncludeTopicAuthorizedOperations", BOOL).since(8),
];
const METADATA_TOPIC: &[Field] =
    &[field("TopicId", UUID).since(10), field("Name", Kind::String).nullable_since(10)];

pub(super) const INIT_PRODUCER_ID: &[Field] = &[
    field("TransactionalId", Kind::String).nullable(),
    field("TransactionTimeoutMs", INT32),
    field("ProducerId", INT64).since(3),
    field("ProducerEpoch", INT16).since(3),
];

pub(super) const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    field("ReplicaId", INT32).since(3),
    field("Topics", Kind::Array(&Kind::Struct(LEADER_EPOCH_TOPIC))),
];
const LEADER_EPOCH_TOPIC: &[Field] = &[
    field("Topic", Kind::String),
    field("Partitions", Kind::Array(&Kind::Struct(LEADER_EPOCH_PARTITION))),
];
const LEADER_EPOCH_PARTITION: &[Field] =
    &[field("Partition", INT32), field("CurrentLeaderEpoch", INT32), field("LeaderEpoch", INT32)];

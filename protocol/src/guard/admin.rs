//! Requests about the cluster, its topics and settings.

use super::schema::{BOOL, Field, INT8, INT16, INT32, INT32S, INT64, Kind, STRINGS, UUID, field};

pub(super) const API_VERSIONS: &[Field] = &[
    field("ClientSoftwareName", Kind::String).since(3),
    field("ClientSoftwareVersion", Kind::String).since(3),
];

pub(super) const CREATE_TOPICS: &[Field] = &[
    field("Topics", Kind::Array(&Kind::Struct(CREATABLE_TOPIC))),
    field("TimeoutMs", INT32),
    field("ValidateOnly", BOOL),
];
const CREATABLE_TOPIC: &[Field] = &[
    field("Name", Kind::String),
    field("NumPartitions", INT32),
    field("ReplicationFactor", INT16),
    field("Assignments", Kind::Array(&Kind::Struct(CREATABLE_ASSIGNMENT))),
    field("Configs", Kind::Array(&Kind::Struct(CREATABLE_CONFIG))),
];
const CREATABLE_ASSIGNMENT: &[Field] =
    &[field("PartitionIndex", INT32), field("BrokerIds", INT32S)];
const CREATABLE_CONFIG: &[Field] =
    &[field("Name", Kind::String), field("Value", Kind::String).nullable()];

pub(super) const DELETE_TOPICS: &[Field] = &[
    field("Topics", Kind::Array(&Kind::Struct(DELETABLE_TOPIC))).since(6),
    field("TopicNames", STRINGS).until(5),
    field("TimeoutMs", INT32),
];
const DELETABLE_TOPIC: &[Field] = &[field("Name", Kind::String).nullable(), field("TopicId", UUID)];

pub(super) const DELETE_RECORDS: &[Field] =
    &[field("Topics", Kind::Array(&Kind::Struct(EMPTIED_TOPIC))), field("TimeoutMs", INT32)];
const EMPTIED_TOPIC: &[Field] = &[
    field("Name", Kind::String),
    field("Partitions", Kind::Array(&Kind::Struct(EMPTIED_PARTITION))),
];
const EMPTIED_PARTITION: &[Field] = &[field("PartitionIndex", INT32), field("Offset", INT64)];

pub(super) const DESCRIBE_CONFIGS: &[Field] = &[
    field("Resources", Kind::Array(&Kind::Struct(DESCRIBED_RESOURCE))),
    field("IncludeSynonyms", BOOL),
    field("IncludeDocumentation", BOOL).since(3),
];
const DESCRIBED_RESOURCE: &[Field] = &[
    field("ResourceType", INT8),
    field("ResourceName", Kind::String),
    field("ConfigurationKeys", STRINGS).nullable(),
];

pub(super) const CREATE_PARTITIONS: &[Field] = &[
    field("Topics", Kind::Array(&Kind::Struct(GROWN_TOPIC))),
    field("TimeoutMs", INT32),
    field("ValidateOnly", BOOL),
];
const GROWN_TOPIC: &[Field] = &[
    field("Name", Kind::String),
    field("Count", INT32),
    field("Assignments", Kind::Array(&Kind::Struct(GROWN_ASSIGNMENT))).nullable(),
];
const GROWN_ASSIGNMENT: &[Field] = &[field("BrokerIds", INT32S)];

pub(super) const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    field("Resources", Kind::Array(&Kind::Struct(ALTERED_RESOURCE))),
    field("ValidateOnly", BOOL),
];
const ALTERED_RESOURCE: &[Field] = &[
    field("ResourceType", INT8),
    field("ResourceName", Kind::String),
    field("Configs", Kind::Array(&Kind::Struct(ALTERED_CONFIG))),
];
const ALTERED_CONFIG: &[Field] = &[
    field("Name", Kind::String),
    field("ConfigOperation", INT8),
    field("Value", Kind::String).nullable(),
];

pub(super) const DESCRIBE_CLUSTER: &[Field] = &[
    field("IncludeClusterAuthorizedOperations", BOOL),
    field("EndpointType", INT8).since(1),
    field("IncludeFencedBrokers", BOOL).since(2),
];

pub(super) const DESCRIBE_TOPIC_PARTITIONS: &[Field] = &[
    field("Topics", Kind::Array(&Kind::Struct(DESCRIBED_TOPIC))),
    field("ResponsePartitionLimit", INT32),
    field("Cursor", Kind::Struct(CURSOR)).nullable(),
];
const DESCRIBED_TOPIC: &[Field] = &[field("Name", Kind::String)];
const CURSOR: &[Field] = &[field("TopicName", Kind::String), field("PartitionIndex", INT32)];

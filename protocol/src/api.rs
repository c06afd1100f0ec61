//! The served APIs and their versions: the one table that switches an API on.
//!
//! An API is served at the intersection of what Kafka 4.x serves and what the codec can code. To add one: a variant of
//! [`ApiKey`], a row of [`SERVED`], a schema in `guard`, a handler in the broker.

use std::fmt;

/// A served API, by Kafka's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
#[expect(missing_docs, reason = "the names are Kafka's")]
pub enum ApiKey {
    Produce = 0,
    Fetch = 1,
    ListOffsets = 2,
    Metadata = 3,
    OffsetCommit = 8,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    LeaveGroup = 13,
    SyncGroup = 14,
    DescribeGroups = 15,
    ListGroups = 16,
    ApiVersions = 18,
    CreateTopics = 19,
    DeleteTopics = 20,
    DeleteRecords = 21,
    InitProducerId = 22,
    OffsetForLeaderEpoch = 23,
    DescribeConfigs = 32,
    CreatePartitions = 37,
    DeleteGroups = 42,
    IncrementalAlterConfigs = 44,
    DescribeCluster = 60,
    DescribeTopicPartitions = 75,
}

/// The versions of one API, both ends inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiVersions {
    /// The API.
    pub key: ApiKey,
    /// Kafka's name of it.
    pub name: &'static str,
    /// Lowest version that is served.
    pub min: i16,
    /// Highest version that is served.
    pub max: i16,
    /// Lowest version that the ApiVersions response names. Below `min` only for Produce, since librdkafka takes a
    /// higher minimum for "no Produce at all".
    pub advertised_min: i16,
    /// First version in the flexible encoding (compact lengths, tagged fields).
    pub flexible_since: i16,
}

const fn row(key: ApiKey, name: &'static str, min: i16, max: i16, flexible: i16) -> ApiVersions {
    ApiVersions { key, name, min, max, advertised_min: min, flexible_since: flexible }
}

/// All served APIs, ascending by key.
pub const SERVED: &[ApiVersions] = &[
    ApiVersions {
        key: ApiKey::Produce,
        name: "Produce",
        min: 3,
        max: 13,
        advertised_min: 0,
        flexible_since: 9,
    },
    row(ApiKey::Fetch, "Fetch", 4, 18, 12),
    row(ApiKey::ListOffsets, "ListOffsets", 1, 10, 6),
    row(ApiKey::Metadata, "Metadata", 0, 13, 9),
    row(ApiKey::OffsetCommit, "OffsetCommit", 2, 9, 8),
    row(ApiKey::OffsetFetch, "OffsetFetch", 1, 9, 6),
    row(ApiKey::FindCoordinator, "FindCoordinator", 0, 6, 3),
    row(ApiKey::JoinGroup, "JoinGroup", 0, 9, 6),
    row(ApiKey::Heartbeat, "Heartbeat", 0, 4, 4),
    row(ApiKey::LeaveGroup, "LeaveGroup", 0, 5, 4),
    row(ApiKey::SyncGroup, "SyncGroup", 0, 5, 4),
    row(ApiKey::DescribeGroups, "DescribeGroups", 0, 6, 5),
    row(ApiKey::ListGroups, "ListGroups", 0, 5, 3),
    row(ApiKey::ApiVersions, "ApiVersions", 0, 4, 3),
    row(ApiKey::CreateTopics, "CreateTopics", 2, 7, 5),
    row(ApiKey::DeleteTopics, "DeleteTopics", 1, 6, 4),
    row(ApiKey::DeleteRecords, "DeleteRecords", 0, 2, 2),
    row(ApiKey::InitProducerId, "InitProducerId", 0, 5, 2),
    row(ApiKey::OffsetForLeaderEpoch, "OffsetForLeaderEpoch", 2, 4, 4),
    row(ApiKey::DescribeConfigs, "DescribeConfigs", 1, 4, 4),
    row(ApiKey::CreatePartitions, "CreatePartitions", 0, 3, 2),
    row(ApiKey::DeleteGroups, "DeleteGroups", 0, 2, 2),
    row(ApiKey::IncrementalAlterConfigs, "IncrementalAlterConfigs", 0, 1, 1),
    row(ApiKey::DescribeCluster, "DescribeCluster", 0, 2, 0),
    row(ApiKey::DescribeTopicPartitions, "DescribeTopicPartitions", 0, 0, 0),
];

impl ApiKey {
    /// The API numbered `code`, or `None` when it is not served.
    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        let at = SERVED.binary_search_by_key(&code, |row| row.key.code()).ok()?;
        Some(SERVED[at].key)
    }

    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The row of [`SERVED`].
    #[must_use]
    pub fn versions(self) -> &'static ApiVersions {
        SERVED.iter().find(|row| row.key == self).expect("every key has a row, a test says so")
    }

    /// Kafka's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.versions().name
    }

    /// True when `version` is served.
    #[must_use]
    pub fn serves(self, version: i16) -> bool {
        let row = self.versions();
        (row.min..=row.max).contains(&version)
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// True when `version` of `key` uses compact lengths and tagged fields.
#[must_use]
pub fn flexible(key: ApiKey, version: i16) -> bool {
    version >= key.versions().flexible_since
}

/// Version of the request header: 2 for flexible versions, else 1.
#[must_use]
pub fn request_header_version(key: ApiKey, version: i16) -> i16 {
    if flexible(key, version) { 2 } else { 1 }
}

/// Version of the response header: 1 for flexible versions, else 0; always 0 for ApiVersions, whose reader does not
/// know yet what the broker speaks.
#[must_use]
pub fn response_header_version(key: ApiKey, version: i16) -> i16 {
    if key != ApiKey::ApiVersions && flexible(key, version) { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages as kafka;
    use kafka_protocol::protocol::{HeaderVersion, Message, Request};

    use super::*;

    fn agrees<T: Request>() {
        let key = ApiKey::from_code(T::KEY).expect("served");
        let row = key.versions();
        assert_eq!((row.min, row.max), (T::VERSIONS.min, T::VERSIONS.max), "{key}");
        assert_eq!(T::Response::VERSIONS.min, row.min, "{key}");
        assert!(T::Response::VERSIONS.max >= row.max, "{key}");
        for version in row.min..=row.max {
            assert_eq!(request_header_version(key, version), T::header_version(version), "{key}");
            assert_eq!(
                response_header_version(key, version),
                T::Response::header_version(version),
                "{key} {version}"
            );
        }
    }

    #[test]
    fn the_table_is_what_the_codec_can_code() {
        agrees::<kafka::ProduceRequest>();
        agrees::<kafka::FetchRequest>();
        agrees::<kafka::ListOffsetsRequest>();
        agrees::<kafka::MetadataRequest>();
        agrees::<kafka::OffsetCommitRequest>();
        agrees::<kafka::OffsetFetchRequest>();
        agrees::<kafka::FindCoordinatorRequest>();
        agrees::<kafka::JoinGroupRequest>();
        agrees::<kafka::HeartbeatRequest>();
        agrees::<kafka::LeaveGroupRequest>();
        agrees::<kafka::SyncGroupRequest>();
        agrees::<kafka::DescribeGroupsRequest>();
        agrees::<kafka::ListGroupsRequest>();
        agrees::<kafka::ApiVersionsRequest>();
        agrees::<kafka::CreateTopicsRequest>();
        agrees::<kafka::DeleteTopicsRequest>();
        agrees::<kafka::DeleteRecordsRequest>();
        agrees::<kafka::InitProducerIdRequest>();
        agrees::<kafka::OffsetForLeaderEpochRequest>();
        agrees::<kafka::DescribeConfigsRequest>();
        agrees::<kafka::CreatePartitionsRequest>();
        agrees::<kafka::DeleteGroupsRequest>();
        agrees::<kafka::IncrementalAlterConfigsRequest>();
        agrees::<kafka::DescribeClusterRequest>();
        agrees::<kafka::DescribeTopicPartitionsRequest>();
        assert_eq!(SERVED.len(), 25, "a new API needs its line above");
    }

    #[test]
    fn keys_ascend_and_find_their_row() {
        assert!(SERVED.is_sorted_by_key(|row| row.key.code()));
        for row in SERVED {
            assert_eq!(ApiKey::from_code(row.key.code()), Some(row.key));
            assert_eq!(row.key.versions(), row);
        }
        for unknown in [-1, 4, 17, 71, 72, 88, i16::MAX] {
            assert_eq!(ApiKey::from_code(unknown), None);
        }
        assert!(!ApiKey::Produce.serves(2) && ApiKey::Produce.serves(3));
        assert_eq!(ApiKey::Produce.versions().advertised_min, 0);
    }
}

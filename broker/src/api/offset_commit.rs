//! OffsetCommit. The answer leaves when the offsets are durable.

use std::collections::BTreeMap;

use coordinator::{CommitRequest, CommittedPartition, TopicCommits};
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use meta::Image;
use protocol::{ApiKey, ErrorCode};

use super::{Request, Response};
use crate::Context;

/// First version in which a missing group is GROUP_ID_NOT_FOUND.
const MISSING_GROUP_NAMED_SINCE: i16 = 9;
/// Versions that carry a retention time.
const RETENTION_UNTIL: i16 = 4;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: OffsetCommitRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let commit = from_wire(request.header.version, &body, &ctx.meta.image());
    let errors = if commit.topics.is_empty() {
        Errors::default()
    } else {
        match ctx.groups.commit(commit).await {
            Ok(answer) => Errors::each(answer.topics),
            Err(error) => Errors { all: Some(error), each: BTreeMap::new() },
        }
    };
    let response = to_wire(&body.topics, &errors);
    for topic in &response.topics {
        for partition in &topic.partitions {
            let error = ErrorCode::from_code(partition.error_code).unwrap_or(ErrorCode::None);
            ctx.metrics.failed(ApiKey::OffsetCommit, error);
        }
    }
    request.answer(&response)
}

/// Answers of the coordinator. What it was not asked about does not exist.
#[derive(Default)]
struct Errors {
    all: Option<ErrorCode>,
    each: BTreeMap<(String, i32), ErrorCode>,
}

impl Errors {
    fn each(topics: Vec<(String, Vec<(i32, ErrorCode)>)>) -> Self {
        let each = topics.into_iter().flat_map(|(topic, partitions)| {
            partitions.into_iter().map(move |(index, error)| ((topic.clone(), index), error))
        });
        Self { all: None, each: each.collect() }
    }
}

/// What of the request exists, for the coordinator.
fn from_wire(version: i16, body: &OffsetCommitRequest, image: &Image) -> CommitRequest {
    let topics = body.topics.iter().filter_map(|topic| {
        let count = image.topic(topic.name.as_str())?.partitions.len();
        let exists = |index: i32| usize::try_from(index).is_ok_and(|index| index < count);
        let partitions: Vec<CommittedPartition> = topic
            .partitions
            .iter()
            .filter(|partition| exists(partition.partition_index))
            .map(|partition| CommittedPartition {
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
            })
            .collect();
        let topic = topic.name.to_string();
        (!partitions.is_empty()).then_some(TopicCommits { topic, partitions })
    });
    CommitRequest {
        group: body.group_id.to_string(),
        member: body.member_id.to_string(),
        instance: body.group_instance_id.as_ref().map(|id| id.to_string()),
        generation: body.generation_id_or_member_epoch,
        retention_ms: if version <= RETENTION_UNTIL { body.retention_time_ms } else { -1 },
        names_missing_group: version >= MISSING_GROUP_NAMED_SINCE,
        topics: topics.collect(),
    }
}

fn to_wire(topics: &[OffsetCommitRequestTopic], errors: &Errors) -> OffsetCommitResponse {
    let topics = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let key = (topic.name.to_string(), partition.partition_index);
            let own = errors.all.or_else(|| errors.each.get(&key).copied());
            let error = own.unwrap_or(ErrorCode::UnknownTopicOrPartition);
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

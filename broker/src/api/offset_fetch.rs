//! OffsetFetch: one group below version 8, any number from there on. Only durable offsets are answered, so
//! `require_stable` changes nothing while there are no transactions.

use coordinator::{FetchRequest, FetchResponse, FetchedOffset, TopicOffsets, TopicPartitions};
use futures::future::join_all;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::{Request, Response};
use crate::Context;

/// First version that asks for several groups (KIP-709).
const GROUPS_SINCE: i16 = 8;
/// First version with an error code for the group, and with null for all topics.
const GROUP_ERROR_SINCE: i16 = 2;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: OffsetFetchRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let response = if request.header.version >= GROUPS_SINCE {
        many(ctx, body).await
    } else {
        one(ctx, request.header.version, body).await
    };
    request.answer(&response)
}

async fn many(ctx: &Context, body: OffsetFetchRequest) -> OffsetFetchResponse {
    let groups = body.groups.into_iter().map(|group| async move {
        let topics = group.topics.map(|topics| {
            let topics = topics.into_iter().map(|topic| TopicPartitions {
                topic: topic.name.to_string(),
                partitions: topic.partition_indexes,
            });
            topics.collect()
        });
        let fetch = FetchRequest { group: group.group_id.to_string(), topics };
        let found = ctx.groups.fetch(fetch).await;
        ctx.metrics.failed(ApiKey::OffsetFetch, found.error);
        group_to_wire(group.group_id, found)
    });
    OffsetFetchResponse::default().with_groups(join_all(groups).await)
}

fn group_to_wire(id: GroupId, found: FetchResponse) -> OffsetFetchResponseGroup {
    let topics = found.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartitions::default()
                .with_partition_index(partition.partition)
                .with_committed_offset(partition.offset)
                .with_committed_leader_epoch(partition.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(partition.metadata)))
        });
        OffsetFetchResponseTopics::default()
            .with_name(TopicName(StrBytes::from_string(topic.topic)))
            .with_partitions(partitions.collect())
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(id)
        .with_error_code(found.error.code())
        .with_topics(topics.collect())
}

async fn one(ctx: &Context, version: i16, body: OffsetFetchRequest) -> OffsetFetchResponse {
    let topics: Option<Vec<TopicPartitions>> = body.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| TopicPartitions {
            topic: topic.name.to_string(),
            partitions: topic.partition_indexes,
        });
        topics.collect()
    });
    let fetch = FetchRequest { group: body.group_id.to_string(), topics: topics.clone() };
    let found = ctx.groups.fetch(fetch).await;
    ctx.metrics.failed(ApiKey::OffsetFetch, found.error);
    one_to_wire(version, topics.unwrap_or_default(), found)
}

fn one_to_wire(
    version: i16,
    asked: Vec<TopicPartitions>,
    mut found: FetchResponse,
) -> OffsetFetchResponse {
    if found.error != ErrorCode::None && version < GROUP_ERROR_SINCE {
        found.topics = asked.into_iter().map(nothing_known).collect();
    }
    // Before the group had an error code of its own, each partition carried it.
    let error = if version < GROUP_ERROR_SINCE { found.error } else { ErrorCode::None };
    let topics = found.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition)
                .with_committed_offset(partition.offset)
                .with_committed_leader_epoch(partition.leader_epoch)
                .with_metadata(Some(StrBytes::from_string(partition.metadata)))
                .with_error_code(error.code())
        });
        OffsetFetchResponseTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.topic)))
            .with_partitions(partitions.collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if version < GROUP_ERROR_SINCE {
        response
    } else {
        response.with_error_code(found.error.code())
    }
}

fn nothing_known(asked: TopicPartitions) -> TopicOffsets {
    let partitions = asked.partitions.into_iter().map(|partition| FetchedOffset {
        partition,
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
    });
    TopicOffsets { topic: asked.topic, partitions: partitions.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_repeats_the_error_for_each_partition() {
        let asked = vec![TopicPartitions { topic: "t".into(), partitions: vec![0, 1] }];
        let failed = FetchResponse { error: ErrorCode::NotCoordinator, topics: Vec::new() };
        let old = one_to_wire(1, asked.clone(), failed.clone());
        assert_eq!(old.error_code, 0);
        let codes: Vec<i16> = old.topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [16, 16]);
        let new = one_to_wire(2, asked, failed);
        assert_eq!((new.error_code, new.topics.len()), (16, 0));
    }
}

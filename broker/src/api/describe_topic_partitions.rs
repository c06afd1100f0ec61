//! DescribeTopicPartitions: topics page by page, in the order of their names.

use std::collections::BTreeSet;

use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use meta::{Image, Topic};
use protocol::{ErrorCode, StrBytes};

use super::metadata::TOPIC_OPERATIONS;
use super::{Request, Response};
use crate::{Context, topics};

/// Most partitions in one answer, whatever the client asks for.
const PARTITIONS_MAX: usize = 2000;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DescribeTopicPartitionsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let image = ctx.meta.image();
    let all = body.topics.is_empty();
    let mut names: BTreeSet<String> = if all {
        image.by_name.keys().cloned().collect()
    } else {
        body.topics.iter().map(|topic| topic.name.as_str().to_owned()).collect()
    };
    let mut from = 0;
    if let Some(cursor) = &body.cursor {
        let name = cursor.topic_name.as_str();
        names.retain(|other| other.as_str() >= name);
        if names.first().is_some_and(|first| first == name) {
            from = usize::try_from(cursor.partition_index).unwrap_or(0);
        }
    }
    let limit =
        usize::try_from(body.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    let mut left = limit;
    for name in names {
        if left == 0 {
            response.next_cursor = Some(cursor(&name, 0));
            break;
        }
        let Some(topic) = image.topic(&name) else {
            ctx.metrics.failed(request.header.key, ErrorCode::UnknownTopicOrPartition);
            response.topics.push(missing(name));
            continue;
        };
        let (answer, next) = page(&image, topic, from, left);
        left -= answer.partitions.len();
        from = 0;
        response.topics.push(answer);
        if let Some(next) = next {
            response.next_cursor = Some(cursor(&name, next));
            break;
        }
    }
    request.answer(&response)
}

fn cursor(name: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(StrBytes::from_string(name.to_owned())))
        .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX))
}

fn missing(name: String) -> DescribeTopicPartitionsResponseTopic {
    let code = match protocol::check_topic_name(&name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(code.code())
        .with_is_internal(topics::is_internal(&name))
        .with_name(Some(TopicName(StrBytes::from_string(name))))
}

fn page(
    image: &Image,
    topic: &Topic,
    from: usize,
    left: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<usize>) {
    let partitions = topic.partitions.iter().enumerate().skip(from).take(left);
    let partitions: Vec<_> = partitions
        .map(|(index, partition)| {
            let leader = topics::leader(image, partition);
            let code = leader.map_or(ErrorCode::LeaderNotAvailable, |_| ErrorCode::None);
            let replicas = topics::replicas(partition);
            DescribeTopicPartitionsResponsePartition::default()
                .with_error_code(code.code())
                .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
                .with_leader_id(BrokerId(leader.map_or(-1, |node| node.0)))
                .with_leader_epoch(partition.epoch.0)
                .with_isr_nodes(replicas.clone())
                .with_replica_nodes(replicas)
                .with_eligible_leader_replicas(Some(Vec::new()))
                .with_last_known_elr(Some(Vec::new()))
        })
        .collect();
    let next = from + partitions.len();
    let answer = DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.clone()))))
        .with_topic_id(topic.id)
        .with_is_internal(topic.internal)
        .with_partitions(partitions)
        .with_topic_authorized_operations(TOPIC_OPERATIONS);
    (answer, (next < topic.partitions.len()).then_some(next))
}

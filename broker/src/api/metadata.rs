//! Metadata: brokers, topics, partitions and their leaders. Creates a missing topic by Kafka's rules.

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use meta::{Image, PartitionMeta, Topic};
use protocol::{ApiKey, ErrorCode, StrBytes};
use uuid::Uuid;

use super::{Request, Response};
use crate::{Context, topics};

/// Every operation on a topic, as bits: there is no authorizer yet.
pub(crate) const TOPIC_OPERATIONS: i32 = 3576;
/// Every operation on the cluster, as bits.
pub(crate) const CLUSTER_OPERATIONS: i32 = 8096;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: MetadataRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let version = request.header.version;
    if version < 12
        && let Some(wanted) = &body.topics
        && wanted.iter().any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
    {
        return request.answer(&too_early_for_ids(wanted));
    }
    let mut answers = Vec::new();
    match &body.topics {
        Some(wanted) if version > 0 || !wanted.is_empty() => {
            for topic in wanted {
                let by_id = topic.name.is_none();
                let answer = if by_id {
                    by_topic_id(&ctx.meta.image(), topic.topic_id)
                } else {
                    let name = topic.name.as_ref().map_or("", |name| name.as_str());
                    by_name(ctx, name, version < 4 || body.allow_auto_topic_creation).await
                };
                answers.push(answer);
            }
        }
        _ => {
            let image = ctx.meta.image();
            answers.extend(image.by_name.values().filter_map(|number| {
                image.topics.get(number).map(|topic| described(&image, topic))
            }));
        }
    }
    for answer in &mut answers {
        if let Some(code) = ErrorCode::from_code(answer.error_code) {
            ctx.metrics.failed(ApiKey::Metadata, code);
        }
        if body.include_topic_authorized_operations && answer.error_code == 0 {
            answer.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let image = ctx.meta.image();
    let mut response = MetadataResponse::default();
    response.brokers = brokers(&image);
    response.cluster_id =
        image.cluster.as_ref().map(|cluster| StrBytes::from_string(cluster.id.clone()));
    response.controller_id = BrokerId(ctx.node.0);
    response.topics = answers;
    if body.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    request.answer(&response)
}

/// Versions 10 and 11 have room for topic ids, but only 12 serves them. Kafka: `MetadataRequest`.
fn too_early_for_ids(wanted: &[MetadataRequestTopic]) -> MetadataResponse {
    let refused = |topic: &MetadataRequestTopic| {
        MetadataResponseTopic::default()
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
            .with_error_code(ErrorCode::InvalidRequest.code())
    };
    let mut response = MetadataResponse::default();
    response.controller_id = BrokerId(-1);
    response.topics = wanted.iter().map(refused).collect();
    response
}

fn brokers(image: &Image) -> Vec<MetadataResponseBroker> {
    let broker = |broker: &meta::BrokerMeta| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.node.0))
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string))
    };
    image.brokers.values().map(broker).collect()
}

async fn by_name(ctx: &Context, name: &str, may_create: bool) -> MetadataResponseTopic {
    let image = ctx.meta.image();
    if let Some(topic) = image.topic(name) {
        return described(&image, topic);
    }
    let missing = |code: ErrorCode| {
        let mut answer = MetadataResponseTopic::default();
        answer.error_code = code.code();
        answer.name = Some(TopicName(StrBytes::from_string(name.to_owned())));
        answer.is_internal = topics::is_internal(name);
        answer
    };
    if protocol::check_topic_name(name).is_err() {
        return missing(ErrorCode::InvalidTopicException);
    }
    if !may_create || !ctx.settings.topics.auto_create {
        return missing(ErrorCode::UnknownTopicOrPartition);
    }
    match topics::auto_create(ctx, name).await {
        Ok(topic) => described(&ctx.meta.image(), &topic),
        Err(failure) => missing(failure.code),
    }
}

fn by_topic_id(image: &Image, id: Uuid) -> MetadataResponseTopic {
    if let Some(topic) = image.topic_by_id(id) {
        return described(image, topic);
    }
    let mut answer = MetadataResponseTopic::default();
    answer.error_code = ErrorCode::UnknownTopicId.code();
    answer.topic_id = id;
    answer.name = None;
    answer
}

fn described(image: &Image, topic: &Topic) -> MetadataResponseTopic {
    let partition = |(index, partition): (usize, &PartitionMeta)| {
        let leader = topics::leader(image, partition);
        let replicas = topics::replicas(partition);
        MetadataResponsePartition::default()
            .with_error_code(
                leader.map_or(ErrorCode::LeaderNotAvailable, |_| ErrorCode::None).code(),
            )
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(BrokerId(leader.map_or(-1, |node| node.0)))
            .with_leader_epoch(partition.epoch.0)
            .with_isr_nodes(replicas.clone())
            .with_replica_nodes(replicas)
    };
    let mut answer = MetadataResponseTopic::default();
    answer.name = Some(TopicName(StrBytes::from_string(topic.name.clone())));
    answer.topic_id = topic.id;
    answer.is_internal = topic.internal;
    answer.partitions = topic.partitions.iter().enumerate().map(partition).collect();
    answer
}

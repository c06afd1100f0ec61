//! CreateTopics: any replication factor from 1 up, manual assignments, checked configuration, check only.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use protocol::{ApiKey, ErrorCode, StrBytes, TopicNameError};

use super::errors::Failure;
use super::{Request, Response, repeated};
use crate::Context;
use crate::dynamic::{self, Layers};
use crate::topics::{self, CreatedTopic, NewTopic};

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: CreateTopicsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let twice = repeated(body.topics.iter().map(|topic| topic.name.as_str()));
    let mut results = Vec::new();
    let mut answered = BTreeSet::new();
    for topic in &body.topics {
        if twice.contains(topic.name.as_str()) {
            if answered.insert(topic.name.as_str()) {
                let why = "Duplicate topic name.";
                results.push(failed(ctx, topic, Failure::new(ErrorCode::InvalidRequest, why)));
            }
            continue;
        }
        let result = match prepare(ctx, topic, body.validate_only) {
            Ok(new) => {
                let configs = new.configs.clone();
                match topics::create(ctx, new).await {
                    Ok(made) => created(ctx, topic, &configs, made, body.validate_only),
                    Err(failure) => failed(ctx, topic, kafka_words(topic, failure)),
                }
            }
            Err(failure) => failed(ctx, topic, failure),
        };
        results.push(result);
    }
    let mut response = CreateTopicsResponse::default();
    response.topics = results;
    request.answer(&response)
}

fn prepare(
    ctx: &Context,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<NewTopic, Failure> {
    let name = topic.name.as_str();
    protocol::check_topic_name(name).map_err(|error: TopicNameError| {
        Failure::new(ErrorCode::InvalidTopicException, error.to_string())
    })?;
    if ctx.meta.image().topic(name).is_some() {
        let why = format!("Topic '{name}' already exists.");
        return Err(Failure::new(ErrorCode::TopicAlreadyExists, why));
    }
    let settings = &ctx.settings.topics;
    let (partitions, replication_factor) = if topic.assignments.is_empty() {
        let partitions = match topic.num_partitions {
            -1 => settings.partitions,
            count => count,
        };
        let factor = match topic.replication_factor {
            -1 => settings.replication_factor,
            factor => factor,
        };
        let partitions =
            u32::try_from(partitions).ok().filter(|count| *count > 0).ok_or_else(|| {
                let why = "Number of partitions was set to an invalid non-positive value.";
                Failure::new(ErrorCode::InvalidPartitions, why)
            })?;
        if factor < 1 {
            let why = "Replication factor was set to an invalid non-positive value.";
            return Err(Failure::new(ErrorCode::InvalidReplicationFactor, why));
        }
        (partitions, factor)
    } else {
        manual(topic)?
    };
    let assignments = topic.assignments.iter().map(assignment).collect::<Result<_, _>>()?;
    let configs = configs(topic)?;
    Ok(NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor,
        configs,
        assignments,
        validate_only,
    })
}

fn manual(topic: &CreatableTopic) -> Result<(u32, i16), Failure> {
    let invalid = |why: &str| Err(Failure::new(ErrorCode::InvalidRequest, why));
    if topic.replication_factor != -1 {
        return invalid(
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        );
    }
    if topic.num_partitions != -1 {
        return invalid(
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        );
    }
    let replicas = topic.assignments.first().map_or(0, |first| first.broker_ids.len());
    let even = topic.assignments.iter().all(|other| other.broker_ids.len() == replicas);
    let factor = i16::try_from(replicas).unwrap_or(0);
    if factor < 1 || !even {
        let why = "The manual partition assignment gives partitions different or no replicas.";
        return Err(Failure::new(ErrorCode::InvalidReplicaAssignment, why));
    }
    Ok((u32::try_from(topic.assignments.len()).unwrap_or(u32::MAX), factor))
}

fn assignment(
    given: &kafka_protocol::messages::create_topics_request::CreatableReplicaAssignment,
) -> Result<meta::command::Assignment, Failure> {
    let partition = u32::try_from(given.partition_index).map_err(|_| {
        let why = format!("Invalid partition index {}.", given.partition_index);
        Failure::new(ErrorCode::InvalidReplicaAssignment, why)
    })?;
    Ok(meta::command::Assignment {
        partition,
        replicas: given.broker_ids.iter().map(|id| id.0).collect(),
    })
}

fn configs(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Failure> {
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let invalid = |why: String| Failure::new(ErrorCode::InvalidConfig, why);
        let key = dynamic::topic_key(&config.name).map_err(invalid)?;
        let Some(value) = &config.value else {
            let why = format!("Null value not supported for topic configs: {}", config.name);
            return Err(invalid(why));
        };
        dynamic::check(key, value).map_err(invalid)?;
        configs.insert(key.name.to_owned(), value.to_string());
    }
    Ok(configs)
}

/// The refusals that tools look at, in Kafka's words.
fn kafka_words(topic: &CreatableTopic, failure: Failure) -> Failure {
    if failure.code == ErrorCode::TopicAlreadyExists {
        let why = format!("Topic '{}' already exists.", topic.name.as_str());
        return Failure::new(failure.code, why);
    }
    failure
}

fn failed(ctx: &Context, topic: &CreatableTopic, failure: Failure) -> CreatableTopicResult {
    ctx.metrics.failed(ApiKey::CreateTopics, failure.code);
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(failure.code.code())
        .with_error_message(Some(StrBytes::from_string(failure.message)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

fn created(
    ctx: &Context,
    topic: &CreatableTopic,
    configs: &BTreeMap<String, String>,
    made: CreatedTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let image = ctx.meta.image();
    let layers = Layers::of(&image, ctx.node, &ctx.settings, Some(configs));
    let shown = dynamic::TOPIC_KEYS.iter().filter_map(|key| {
        let value = layers.topic_values(key).into_iter().next()?;
        Some(
            CreatableTopicConfigs::default()
                .with_name(StrBytes::from_static_str(key.name))
                .with_value(Some(StrBytes::from_string(value.value)))
                .with_config_source(value.source as i8),
        )
    });
    let id = if validate_only { uuid::Uuid::nil() } else { made.id };
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_topic_id(id)
        .with_error_message(None)
        .with_num_partitions(i32::try_from(made.partitions).unwrap_or(i32::MAX))
        .with_replication_factor(made.replication_factor)
        .with_configs(Some(shown.collect()))
}

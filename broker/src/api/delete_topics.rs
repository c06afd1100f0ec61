//! DeleteTopics, by name or id. The name is free when the answer leaves.

use std::collections::BTreeSet;

use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use meta::Reply;
use protocol::{ApiKey, ErrorCode, StrBytes};
use uuid::Uuid;

use super::errors::{Failure, unexpected};
use super::{Request, Response, repeated};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DeleteTopicsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut wanted: Vec<(Option<TopicName>, Uuid)> =
        body.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect();
    wanted.extend(body.topics.into_iter().map(|topic| (topic.name, topic.topic_id)));
    let twice = repeated(wanted.iter().cloned());
    let mut told = BTreeSet::new();
    let mut responses = Vec::with_capacity(wanted.len());
    for (name, id) in wanted {
        if twice.contains(&(name.clone(), id)) && !told.insert((name.clone(), id)) {
            continue;
        }
        let mut result = DeletableTopicResult::default().with_name(name.clone()).with_topic_id(id);
        let outcome = if twice.contains(&(name.clone(), id)) {
            let why = if name.is_some() { "Duplicate topic name." } else { "Duplicate topic id." };
            Err(Failure::new(ErrorCode::InvalidRequest, why))
        } else {
            delete(ctx, name.as_ref().map(|name| name.as_str()), id).await
        };
        match outcome {
            Ok((name, id)) => {
                result.name = Some(TopicName(StrBytes::from_string(name)));
                result.topic_id = id;
            }
            Err(failure) => {
                ctx.metrics.failed(ApiKey::DeleteTopics, failure.code);
                result.error_code = failure.code.code();
                result.error_message = Some(StrBytes::from_string(failure.message));
            }
        }
        responses.push(result);
    }
    let mut response = DeleteTopicsResponse::default();
    response.responses = responses;
    request.answer(&response)
}

async fn delete(ctx: &Context, name: Option<&str>, id: Uuid) -> Result<(String, Uuid), Failure> {
    let image = ctx.meta.image();
    let topic = match name {
        Some(_) if !id.is_nil() => {
            let why = "You may not specify both topic name and topic id.";
            return Err(Failure::new(ErrorCode::InvalidRequest, why));
        }
        Some(name) => image.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        None if id.is_nil() => {
            let why = "Neither topic name nor id were specified.";
            return Err(Failure::new(ErrorCode::InvalidRequest, why));
        }
        None => image.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId),
    };
    let missing = |code| Failure::new(code, "This server does not host this topic-partition.");
    let topic = topic.map_err(missing)?;
    let command =
        meta::command::DeleteTopic { id: topic.id.as_bytes().to_vec(), now_ms: ctx.clock.now_ms() };
    match ctx.meta.propose(command).await? {
        Reply::TopicDeleted { name, .. } => Ok((name, topic.id)),
        Reply::Rejected(reject) => Err(reject.into()),
        other => Err(unexpected(&other)),
    }
}

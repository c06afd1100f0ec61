//! CreatePartitions: a topic only ever gets more.

use std::collections::BTreeSet;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use meta::Reply;
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::errors::{Failure, unexpected};
use super::{Request, Response, repeated};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: CreatePartitionsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let twice = repeated(body.topics.iter().map(|topic| topic.name.as_str()));
    let mut told = BTreeSet::new();
    let mut results = Vec::with_capacity(body.topics.len());
    for topic in &body.topics {
        let name = topic.name.as_str();
        let outcome = if !twice.contains(name) {
            grow(ctx, topic, body.validate_only).await
        } else if told.insert(name) {
            Err(Failure::new(ErrorCode::InvalidRequest, "Duplicate topic name."))
        } else {
            continue;
        };
        let mut result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
        if let Err(failure) = outcome {
            ctx.metrics.failed(ApiKey::CreatePartitions, failure.code);
            result.error_code = failure.code.code();
            result.error_message = Some(StrBytes::from_string(failure.message));
        }
        results.push(result);
    }
    let mut response = CreatePartitionsResponse::default();
    response.results = results;
    request.answer(&response)
}

async fn grow(
    ctx: &Context,
    wanted: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Failure> {
    let image = ctx.meta.image();
    let topic = image.topic(wanted.name.as_str()).ok_or_else(|| {
        let why = "This server does not host this topic-partition.";
        Failure::new(ErrorCode::UnknownTopicOrPartition, why)
    })?;
    let have = topic.partitions.len();
    let total = usize::try_from(wanted.count).unwrap_or(0);
    let invalid = |why| Err(Failure::new(ErrorCode::InvalidPartitions, why));
    if total == have {
        return invalid(format!("Topic already has {have} partition(s)."));
    }
    if total < have {
        return invalid(format!(
            "The topic {} currently has {have} partition(s); {} would not be an increase.",
            topic.name, wanted.count
        ));
    }
    let mut assignments = Vec::new();
    if let Some(given) = &wanted.assignments {
        if given.len() != total - have {
            let why = format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                total - have,
                given.len()
            );
            return Err(Failure::new(ErrorCode::InvalidReplicaAssignment, why));
        }
        for (partition, one) in (have..).zip(given) {
            let partition = u32::try_from(partition).unwrap_or(u32::MAX);
            let replicas = one.broker_ids.iter().map(|id| id.0).collect();
            assignments.push(meta::command::Assignment { partition, replicas });
        }
    }
    let command = meta::command::CreatePartitions {
        id: topic.id.as_bytes().to_vec(),
        total: u32::try_from(total).unwrap_or(u32::MAX),
        assignments,
        validate_only,
    };
    match ctx.meta.propose(command).await? {
        Reply::PartitionsCreated { .. } => Ok(()),
        Reply::Rejected(reject) => Err(reject.into()),
        other => Err(unexpected(&other)),
    }
}

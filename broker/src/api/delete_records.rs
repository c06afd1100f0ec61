//! DeleteRecords: the log start moves forward, durable and for every reader, before the answer leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use protocol::{ApiKey, ErrorCode};

use super::{Request, Response};
use crate::{Context, topics};

/// Partitions worked on at a time.
const CONCURRENT_MAX: usize = 16;
/// Longest wait for metadata, whatever the client gives.
const TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// The low watermark of a partition that was refused.
const NO_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DeleteRecordsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let patience = Duration::from_millis(u64::try_from(body.timeout_ms).unwrap_or(0));
    let patience = patience.min(TIMEOUT_MAX);
    let mut response = DeleteRecordsResponse::default();
    for topic in &body.topics {
        let mut seen = BTreeSet::new();
        // Kafka keeps the last of several offsets for one partition.
        let mut wanted: Vec<Wanted> = topic.partitions.iter().rev().map(Wanted::from).collect();
        wanted.retain(|one| seen.insert(one.partition));
        wanted.reverse();
        let name = topic.name.as_str();
        let each = wanted.into_iter().map(|one| partition(ctx, name, one, patience));
        let partitions = stream::iter(each).buffered(CONCURRENT_MAX).collect().await;
        let result = DeleteRecordsTopicResult::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions);
        response.topics.push(result);
    }
    request.answer(&response)
}

#[derive(Clone, Copy)]
struct Wanted {
    partition: i32,
    offset: i64,
}

impl From<&DeleteRecordsPartition> for Wanted {
    fn from(one: &DeleteRecordsPartition) -> Self {
        Self { partition: one.partition_index, offset: one.offset }
    }
}

async fn partition(
    ctx: &Context,
    topic: &str,
    wanted: Wanted,
    patience: Duration,
) -> DeleteRecordsPartitionResult {
    // The command goes on behind an answer that came too late: the start may move all the same, as in Kafka.
    let deleted = match tokio::time::timeout(patience, delete(ctx, topic, wanted)).await {
        Ok(deleted) => deleted,
        Err(_) => Err(ErrorCode::RequestTimedOut),
    };
    let (low_watermark, code) = match deleted {
        Ok(low_watermark) => (low_watermark, ErrorCode::None),
        Err(code) => {
            ctx.metrics.failed(ApiKey::DeleteRecords, code);
            (NO_LOW_WATERMARK, code)
        }
    };
    DeleteRecordsPartitionResult::default()
        .with_partition_index(wanted.partition)
        .with_low_watermark(low_watermark)
        .with_error_code(code.code())
}

async fn delete(ctx: &Context, topic: &str, wanted: Wanted) -> Result<i64, ErrorCode> {
    let image = ctx.meta.image();
    let known = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if topics::is_internal(topic) {
        return Err(ErrorCode::InvalidTopicException);
    }
    let (id, _) =
        topics::partition_of(known, wanted.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = ctx.partitions.get(id).await.map_err(|error| error.code())?;
    partition.delete_records(wanted.offset).await.map_err(|error| error.code())
}

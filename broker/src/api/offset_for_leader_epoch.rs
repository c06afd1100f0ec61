//! OffsetForLeaderEpoch: where a leader epoch ends, so that a client can tell whether its log was cut.

use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use partition::{EpochCheck, EpochEnd};
use protocol::ErrorCode;

use super::{Request, Response};
use crate::{Context, topics};

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: OffsetForLeaderEpochRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut response = OffsetForLeaderEpochResponse::default();
    for topic in &body.topics {
        let mut result = OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone());
        for wanted in &topic.partitions {
            let mut end = EpochEndOffset::default()
                .with_partition(wanted.partition)
                .with_leader_epoch(-1)
                .with_end_offset(-1);
            match end_of(ctx, topic.topic.as_str(), wanted).await {
                Ok(found) => {
                    end.leader_epoch = found.epoch;
                    end.end_offset = found.end_offset;
                }
                Err(code) => {
                    ctx.metrics.failed(request.header.key, code);
                    end.error_code = code.code();
                }
            }
            result.partitions.push(end);
        }
        response.topics.push(result);
    }
    request.answer(&response)
}

async fn end_of(
    ctx: &Context,
    topic: &str,
    wanted: &OffsetForLeaderPartition,
) -> Result<EpochEnd, ErrorCode> {
    let image = ctx.meta.image();
    let topic = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let (id, _) =
        topics::partition_of(topic, wanted.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = ctx.partitions.get(id).await.map_err(|error| error.code())?;
    match partition.check_epoch(wanted.current_leader_epoch) {
        EpochCheck::Current => {}
        EpochCheck::Fenced => return Err(ErrorCode::FencedLeaderEpoch),
        EpochCheck::Unknown => return Err(ErrorCode::UnknownLeaderEpoch),
    }
    let end = partition.end_of_epoch(wanted.leader_epoch);
    partition.gate().map_err(partition::Gone::code)?;
    Ok(end)
}

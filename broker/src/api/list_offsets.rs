//! ListOffsets: earliest, latest, by timestamp, by the highest timestamp.

use std::collections::BTreeSet;

use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use partition::{EpochCheck, Isolation, Listed};
use protocol::ErrorCode;

use super::{Request, Response, repeated};
use crate::{Context, topics};

/// First version whose answer carries the leader epoch.
const LEADER_EPOCH_SINCE: i16 = 4;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: ListOffsetsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let isolation = if body.isolation_level == 1 {
        Isolation::ReadCommitted
    } else {
        Isolation::ReadUncommitted
    };
    let mut response = ListOffsetsResponse::default();
    let version = request.header.version;
    for topic in &body.topics {
        let twice = repeated(topic.partitions.iter().map(|one| one.partition_index));
        let mut told = BTreeSet::new();
        let mut answer = ListOffsetsTopicResponse::default().with_name(topic.name.clone());
        for wanted in &topic.partitions {
            let listed = if twice.contains(&wanted.partition_index) {
                if !told.insert(wanted.partition_index) {
                    continue;
                }
                Err(ErrorCode::InvalidRequest)
            } else if !understood(wanted.timestamp, version) {
                Err(ErrorCode::UnsupportedVersion)
            } else {
                list(ctx, topic.name.as_str(), wanted, isolation).await
            };
            let mut one = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index)
                .with_timestamp(-1)
                .with_offset(-1)
                .with_leader_epoch(-1);
            match listed {
                Ok(listed) => {
                    one.timestamp = listed.timestamp;
                    one.offset = listed.offset;
                    if version >= LEADER_EPOCH_SINCE {
                        one.leader_epoch = listed.leader_epoch;
                    }
                }
                Err(code) => {
                    ctx.metrics.failed(request.header.key, code);
                    one.error_code = code.code();
                }
            }
            answer.partitions.push(one);
        }
        response.topics.push(answer);
    }
    request.answer(&response)
}

/// True for a time, and for a name of an offset that `version` has. Kafka: `KafkaApis.handleListOffsetRequest`.
fn understood(timestamp: i64, version: i16) -> bool {
    let since = match timestamp {
        -2.. => 0,
        -3 => 7,
        -4 => 8,
        -5 => 9,
        _ => i16::MAX,
    };
    version >= since
}

async fn list(
    ctx: &Context,
    topic: &str,
    wanted: &ListOffsetsPartition,
    isolation: Isolation,
) -> Result<Listed, ErrorCode> {
    let image = ctx.meta.image();
    let topic = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let (id, _) = topics::partition_of(topic, wanted.partition_index)
        .ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = ctx.partitions.get(id).await.map_err(|error| error.code())?;
    match partition.check_epoch(wanted.current_leader_epoch) {
        EpochCheck::Current => {}
        EpochCheck::Fenced => return Err(ErrorCode::FencedLeaderEpoch),
        EpochCheck::Unknown => return Err(ErrorCode::UnknownLeaderEpoch),
    }
    partition.list_offset(wanted.timestamp, isolation).await.map_err(|error| error.code())
}

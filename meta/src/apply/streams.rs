//! The start of streams.

use common::{PartitionId, StreamEpoch, StreamKind};

use super::objects::{RELEASE_MAX, release_range};
use super::{Outcome, metadata_time};
use crate::command::SetLogStart;
use crate::keys;
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay, View, bad_key, read};

pub(super) fn set_log_start(state: &mut Overlay<'_>, command: &SetLogStart) -> Outcome {
    let partition = PartitionId { topic: command.topic, index: command.index };
    let kind = u8::try_from(command.kind).ok().and_then(StreamKind::from_byte);
    let stream = partition.stream(kind.ok_or(Reject::Malformed("stream kind"))?);
    if command.start < 0 {
        return Err(Reject::Malformed("negative log start").into());
    }
    let owner: record::Partition =
        state.load(&keys::partition(partition))?.ok_or(Reject::UnknownPartition(partition))?;
    if owner.epoch != command.epoch {
        return Err(Reject::StaleStreamEpoch { current: StreamEpoch(owner.epoch) }.into());
    }
    let now_ms = metadata_time(state, command.now_ms)?;
    let mut record: record::Stream = state.load(&keys::stream(stream))?.unwrap_or_default();
    let start = record.start.max(command.start);
    let (first, end) = keys::under(keys::ranges_of(stream));
    let page = state.scan(&first, &end, RELEASE_MAX)?;
    let (mut released, seen) = (0, page.len());
    for (key, value) in page {
        let range: record::Range = read(&key, &value)?;
        if range.end > start {
            break;
        }
        let (_, rest) = keys::split_stream(&key[1..]).ok_or_else(|| bad_key(&key))?;
        let (at, _) = keys::split_i64(rest).ok_or_else(|| bad_key(&key))?;
        release_range(state, stream, at, &range, now_ms)?;
        record.bytes = record.bytes.saturating_sub(range.bytes);
        record.records = record.records.saturating_sub(range.records);
        released += 1;
    }
    if start != record.start || released > 0 {
        record.start = start;
        record.lost.retain(|lost| lost.end > start);
        record.version += 1;
        state.put(keys::stream(stream), &record);
    }
    Ok(Reply::LogStartSet { start, more: released == RELEASE_MAX && released == seen })
}

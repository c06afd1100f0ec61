//! The commit of an upload round: the one act that makes an object part of the log.
//!
//! Refused whole unless the log is open under the round's epoch, the round begins at the log's committed LSN, and every
//! partition in it is assigned to this log with each range starting at its stream's committed end. The one thing that is
//! passed over is a partition that has been deleted since, with all its streams. So a partition's streams are taken
//! together or not at all, and the LSN never passes bytes that somebody may still want.

use std::collections::{BTreeMap, BTreeSet};

use common::{Lsn, ObjectId, PartitionId, StreamEpoch, WalId};

use super::objects::{self, RELEASE_BY_THE_WAY};
use super::wals::forget_epochs;
use super::{LOST_SPAN, Outcome, metadata_time, sinks, wal_under, was_issued};
use crate::command::{CommitUpload, StreamRange};
use crate::keys::{self, Counter};
use crate::record::{self, ObjectState};
use crate::reply::{Broken, Reject, Reply};
use crate::view::{Load, Overlay};

pub(super) fn commit_upload(state: &mut Overlay<'_>, command: &CommitUpload) -> Outcome {
    let mut wal = wal_under(state, WalId(command.wal), command.epoch)?;
    let id = ObjectId(command.object);
    let object = objects::known(state, id)?;
    if object.wal != command.wal {
        return Err(Broken::ObjectOfOther(id).into());
    }
    match object.state() {
        ObjectState::Registered => {}
        ObjectState::Committed | ObjectState::Released => return again(&wal, &object, command),
        ObjectState::Expired => return Err(Reject::ObjectExpired(id).into()),
    }
    check_round(&wal, command)?;
    check_left_out(state, command)?;
    let facts = command.facts.ok_or(Reject::Malformed("object facts"))?;
    let (accepted, refused) = check_partitions(state, command)?;
    let now_ms = metadata_time(state, command.now_ms)?;
    let (mut live, mut live_bytes) = (0, 0_u64);
    for range in &accepted {
        if take(state, id, range)? {
            live += 1;
            live_bytes = live_bytes.saturating_add(range.bytes);
        }
    }
    wal.committed = command.end;
    forget_epochs(&mut wal);
    state.put(keys::wal(WalId(command.wal)), &wal);
    state.remove(keys::expiry(object.at_ms, id));
    let committed = record::Object {
        state: ObjectState::Committed.into(),
        first: command.first,
        end: command.end,
        facts: Some(facts),
        live,
        live_bytes,
        payload_bytes: live_bytes,
        refused: refused.iter().map(|id| name(*id)).collect(),
        at_ms: now_ms,
        ..object
    };
    objects::settle_live(state, id, committed, now_ms);
    sinks::advance(state, &command.floors)?;
    objects::work_off(state, RELEASE_BY_THE_WAY, now_ms)?;
    Ok(Reply::UploadCommitted { committed: Lsn(command.end), refused, again: false })
}

fn name(id: PartitionId) -> record::PartitionName {
    record::PartitionName { topic: id.topic, index: id.index }
}

/// The reply to a repeated commit.
fn again(wal: &record::Wal, object: &record::Object, command: &CommitUpload) -> Outcome {
    if object.swapped || (object.first, object.end) != (command.first, command.end) {
        return Err(Broken::ObjectOfOther(ObjectId(command.object)).into());
    }
    let refused = object.refused.iter();
    let refused = refused.map(|one| PartitionId { topic: one.topic, index: one.index }).collect();
    Ok(Reply::UploadCommitted { committed: Lsn(wal.committed), refused, again: true })
}

fn check_round(wal: &record::Wal, command: &CommitUpload) -> Outcome<()> {
    let (first, end) = (Lsn(command.first), Lsn(command.end));
    if command.first != wal.committed {
        return Err(Broken::RoundStart { committed: Lsn(wal.committed), first }.into());
    }
    if command.end <= command.first {
        return Err(Broken::RoundEmpty { first, end }.into());
    }
    Ok(())
}

/// What a round leaves out is gone from the log for ever: only what has been deleted may be.
fn check_left_out(state: &Overlay<'_>, command: &CommitUpload) -> Outcome<()> {
    for one in &command.left_out {
        let id = PartitionId { topic: one.topic, index: one.index };
        if state.load::<record::Topic>(&keys::topic(id.topic))?.is_some() {
            return Err(Broken::StillThere(id).into());
        }
        if !was_issued(state, Counter::Topic, id.topic)? {
            return Err(Broken::NeverCreated(id).into());
        }
    }
    Ok(())
}

/// Sorts the round's partitions into those to take and those that have been deleted; anything else is refused.
fn check_partitions<'c>(
    state: &Overlay<'_>,
    command: &'c CommitUpload,
) -> Outcome<(Vec<&'c StreamRange>, Vec<PartitionId>)> {
    let mut streams = BTreeSet::new();
    let mut partitions: BTreeMap<PartitionId, Vec<&StreamRange>> = BTreeMap::new();
    for range in &command.ranges {
        let stream = range.stream().ok_or(Broken::StreamKind(range.kind))?;
        if !streams.insert(stream) {
            return Err(Broken::StreamTwice(stream).into());
        }
        partitions.entry(stream.partition).or_default().push(range);
    }
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for (id, ranges) in partitions {
        let Some(partition) = state.load::<record::Partition>(&keys::partition(id))? else {
            let there = state.load::<record::Topic>(&keys::topic(id.topic))?.is_some();
            if there || !was_issued(state, Counter::Topic, id.topic)? {
                return Err(Broken::NeverCreated(id).into());
            }
            refused.push(id);
            continue;
        };
        if partition.wal != Some(command.wal) {
            return Err(Broken::NotAssigned(id).into());
        }
        for range in ranges {
            check_range(state, range, &partition)?;
            accepted.push(range);
        }
    }
    Ok((accepted, refused))
}

fn check_range(
    state: &Overlay<'_>,
    range: &StreamRange,
    partition: &record::Partition,
) -> Outcome<()> {
    let stream = range.stream().ok_or(Broken::StreamKind(range.kind))?;
    let record: record::Stream = state.load(&keys::stream(stream))?.unwrap_or_default();
    let (start, end, committed) = (range.start, range.end, record.committed_end);
    if start != committed {
        return Err(Broken::RangeStart { stream, committed, start, end }.into());
    }
    let reach = end.checked_sub(start).filter(|reach| (1..=LOST_SPAN).contains(reach));
    if reach.is_none() {
        return Err(Broken::RangeLength { stream, start, end }.into());
    }
    if range.epoch < record.epoch || range.epoch > partition.epoch {
        return Err(Broken::RangeEpoch {
            stream,
            got: StreamEpoch(range.epoch),
            committed: StreamEpoch(record.epoch),
            issued: StreamEpoch(partition.epoch),
        }
        .into());
    }
    Ok(())
}

/// Adds one checked range to its stream. True when the object now holds a live range of it: one that lies below the log
/// start is passed over.
pub(super) fn take(
    state: &mut Overlay<'_>,
    object: ObjectId,
    range: &StreamRange,
) -> Outcome<bool> {
    let stream = range.stream().ok_or(Broken::StreamKind(range.kind))?;
    let key = keys::stream(stream);
    let mut record: record::Stream = state.load(&key)?.unwrap_or_default();
    record.committed_end = range.end;
    record.epoch = range.epoch;
    record.version += 1;
    let live = range.end > record.start;
    if live {
        record.bytes = record.bytes.saturating_add(range.bytes);
        record.records = record.records.saturating_add(range.records);
        let entry = record::Range {
            object: object.0,
            end: range.end,
            bytes: range.bytes,
            records: range.records,
            max_timestamp: range.max_timestamp,
            epoch: range.epoch,
        };
        state.put(keys::range(stream, range.start), &entry);
        state.put(keys::live(object, stream, range.start), &record::Floor { offset: range.end });
    }
    state.put(key, &record);
    Ok(live)
}

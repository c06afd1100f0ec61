//! The swap: what compaction has rewritten takes the place of what it was made from.
//!
//! Refused whole unless, for every part, the named inputs are still the live cover of exactly the same offsets, the part
//! lies at or above the log start, and the proposer owns the partition under its epochs. A lost race is an ordinary
//! refusal that says which: the loser's object expires. An object holds at most one live range of a stream, so ids in
//! cover order name the ranges.

use common::{ObjectId, StreamEpoch, StreamId, WalId};

use super::objects::{self, release_range, settle_live};
use super::{Outcome, metadata_time, wal_under};
use crate::command::{NewObject, SwapOutput, SwapRanges, SwapStream};
use crate::keys;
use crate::record::{self, ObjectState};
use crate::reply::{Broken, Reject, Reply};
use crate::view::{Load, Overlay, View, bad_key, read};

/// New objects of one swap, at most.
pub const SWAP_OBJECTS_MAX: usize = 64;
/// Ranges that one swap takes and gives, at most, each.
pub const SWAP_RANGES_MAX: usize = 32_768;

pub(super) fn swap_ranges(state: &mut Overlay<'_>, command: &SwapRanges) -> Outcome {
    wal_under(state, WalId(command.wal), command.epoch)?;
    check_size(command)?;
    let Some(mut objects) = new_objects(state, command)? else {
        return Ok(Reply::RangesSwapped { again: true });
    };
    let now_ms = metadata_time(state, command.now_ms)?;
    for part in &command.streams {
        let stream = part.stream().ok_or(Reject::Malformed("stream kind"))?;
        check_owner(state, command.wal, part)?;
        let mut record: record::Stream = state.load(&keys::stream(stream))?.unwrap_or_default();
        if part.start < record.start {
            let (start, log_start) = (part.start, record.start);
            return Err(Reject::BelowLogStart { stream, start, log_start }.into());
        }
        for (start, range) in cover(state, command, part, stream)? {
            release_range(state, stream, start, &range, now_ms)?;
            record.bytes = record.bytes.saturating_sub(range.bytes);
            record.records = record.records.saturating_sub(range.records);
        }
        put_outputs(state, command, part, stream, &mut objects, &mut record)?;
        record.version += 1;
        state.put(keys::stream(stream), &record);
    }
    for (new, object) in command.objects.iter().zip(objects) {
        if object.live == 0 {
            return Err(Reject::Malformed("an object without a range").into());
        }
        state.remove(keys::expiry(object.at_ms, ObjectId(new.object)));
        let payload_bytes = object.live_bytes;
        settle_live(
            state,
            ObjectId(new.object),
            record::Object { at_ms: now_ms, payload_bytes, ..object },
            now_ms,
        );
    }
    Ok(Reply::RangesSwapped { again: false })
}

fn check_size(command: &SwapRanges) -> Outcome<()> {
    let taken = command.streams.iter().map(|part| part.inputs.len()).sum::<usize>();
    let given = command.streams.iter().map(|part| part.outputs.len()).sum::<usize>();
    let fits = (1..=SWAP_OBJECTS_MAX).contains(&command.objects.len())
        && (1..=SWAP_RANGES_MAX).contains(&taken)
        && (1..=SWAP_RANGES_MAX).contains(&given)
        && command.inputs.len() <= SWAP_RANGES_MAX;
    if fits { Ok(()) } else { Err(Reject::Malformed("size of a swap").into()) }
}

/// The records of the new objects as they are to be, without live ranges yet; `None` when the swap was done before.
fn new_objects(state: &Overlay<'_>, command: &SwapRanges) -> Outcome<Option<Vec<record::Object>>> {
    let (mut fresh, mut again) = (Vec::new(), 0);
    for new in &command.objects {
        let id = ObjectId(new.object);
        let object = objects::known(state, id)?;
        if object.wal != command.wal {
            return Err(Broken::ObjectOfOther(id).into());
        }
        match object.state() {
            ObjectState::Expired => return Err(Reject::ObjectExpired(id).into()),
            ObjectState::Registered => fresh.push(committed(new, object)?),
            ObjectState::Committed | ObjectState::Released if object.swapped => again += 1,
            ObjectState::Committed | ObjectState::Released => {
                return Err(Broken::ObjectOfOther(id).into());
            }
        }
    }
    match (fresh.len(), again) {
        (_, 0) => Ok(Some(fresh)),
        (0, _) => Ok(None),
        _ => Err(Reject::Malformed("objects of another swap").into()),
    }
}

fn committed(new: &NewObject, object: record::Object) -> Outcome<record::Object> {
    Ok(record::Object {
        state: ObjectState::Committed.into(),
        first: new.first,
        end: new.end,
        facts: Some(new.facts.ok_or(Reject::Malformed("object facts"))?),
        live: 0,
        swapped: true,
        ..object
    })
}

fn check_owner(state: &Overlay<'_>, wal: u64, part: &SwapStream) -> Outcome<()> {
    let id = part.partition();
    let partition: record::Partition =
        state.load(&keys::partition(id))?.ok_or(Reject::UnknownPartition(id))?;
    if partition.wal != Some(wal) || partition.epoch != part.epoch {
        return Err(Reject::StaleStreamEpoch { current: StreamEpoch(partition.epoch) }.into());
    }
    Ok(())
}

/// The live ranges that the part names, when they are the whole cover of it.
fn cover(
    state: &Overlay<'_>,
    command: &SwapRanges,
    part: &SwapStream,
    stream: StreamId,
) -> Outcome<Vec<(i64, record::Range)>> {
    let end = part.outputs.last().ok_or(Reject::Malformed("a part without outputs"))?.end;
    let changed = || Reject::CoverChanged { stream, start: part.start, end };
    if part.start < 0 || end <= part.start {
        return Err(Reject::Malformed("offsets of a part").into());
    }
    let (from, until) = (keys::range(stream, part.start), keys::range(stream, end));
    let page = state.scan(&from, &until, part.inputs.len().saturating_add(1))?;
    if page.len() != part.inputs.len() {
        return Err(changed().into());
    }
    let (mut at, mut found) = (part.start, Vec::with_capacity(page.len()));
    for ((key, value), input) in page.iter().zip(&part.inputs) {
        let (_, rest) = keys::split_stream(&key[1..]).ok_or_else(|| bad_key(key))?;
        let (start, _) = keys::split_i64(rest).ok_or_else(|| bad_key(key))?;
        let range: record::Range = read(key, value)?;
        let input = usize::try_from(*input).ok().and_then(|input| command.inputs.get(input));
        let input = input.ok_or(Reject::Malformed("input of a part"))?;
        if start != at || range.object != *input {
            return Err(changed().into());
        }
        at = range.end;
        found.push((start, range));
    }
    if at == end { Ok(found) } else { Err(changed().into()) }
}

fn put_outputs(
    state: &mut Overlay<'_>,
    command: &SwapRanges,
    part: &SwapStream,
    stream: StreamId,
    objects: &mut [record::Object],
    record: &mut record::Stream,
) -> Outcome<()> {
    let mut start = part.start;
    for SwapOutput { object, end, bytes, records, max_timestamp, epoch } in
        part.outputs.iter().copied()
    {
        let place = usize::try_from(object).ok().filter(|place| *place < objects.len());
        let place = place.ok_or(Reject::Malformed("object of an output"))?;
        if end <= start {
            return Err(Reject::Malformed("offsets of an output").into());
        }
        let id = ObjectId(command.objects[place].object);
        let live = keys::live(id, stream, start);
        state.put(live, &record::Floor { offset: end });
        let range = record::Range { object: id.0, end, bytes, records, max_timestamp, epoch };
        state.put(keys::range(stream, start), &range);
        objects[place].live += 1;
        objects[place].live_bytes = objects[place].live_bytes.saturating_add(bytes);
        record.bytes = record.bytes.saturating_add(bytes);
        record.records = record.records.saturating_add(records);
        start = end;
    }
    Ok(())
}

//! The rebuild of a cluster from its bucket: a restored snapshot becomes the next incarnation.
//!
//! ```text
//! snapshot -> BeginRebuild -> AdoptObject, for each newer object that continues -> FinishRebuild -> brokers may start
//! ```
//! In between the state takes no other command, so that nobody serves a half-done rebuild.

use std::collections::BTreeMap;

use common::{IdSpace, Lsn, ObjectId, PartitionId, StreamKind, WalId};

use super::commit::take;
use super::objects::settle_live;
use super::wals::lose;
use super::{LOST_SPAN, Outcome, metadata_time, partitions_where};
use crate::command::{AdoptObject, BeginRebuild, Command, FinishRebuild, StreamRange};
use crate::keys::{self, Counter};
use crate::record::{self, ObjectState};
use crate::reply::{Broken, Reject, Reply};
use crate::view::{Load, Overlay, bad_key, read};

/// What a rebuilt partition's epoch lies above the highest that was found. A snapshot is put at least every 30,000 epochs.
const EPOCH_LEAP: i32 = 65_536;

pub(super) fn dispatch(
    state: &mut Overlay<'_>,
    cluster: record::Cluster,
    command: &Command,
) -> Outcome {
    match command {
        Command::AdoptObject(command) => adopt(state, command),
        Command::FinishRebuild(command) => finish(state, cluster, command),
        _ => Err(Reject::Rebuilding.into()),
    }
}

pub(super) fn begin(
    state: &mut Overlay<'_>,
    mut cluster: record::Cluster,
    command: &BeginRebuild,
) -> Outcome {
    let asked = command.incarnation;
    let incarnation = u16::try_from(asked).ok().filter(|it| *it <= IdSpace::INCARNATION_MAX);
    let incarnation = incarnation.ok_or(Reject::Malformed("incarnation above 32767"))?;
    if asked <= cluster.incarnation {
        return Err(Reject::StaleIncarnation { asked, current: cluster.incarnation }.into());
    }
    metadata_time(state, command.now_ms)?;
    cluster.incarnation = asked;
    cluster.rebuilding = true;
    state.put(keys::cluster(), &cluster);
    // Ids are incarnation above counter: from the start again, and above everything that was ever issued.
    Counter::ALL.into_iter().for_each(|counter| state.remove(keys::counter(counter)));
    Ok(Reply::RebuildBegun { incarnation })
}

fn adopt(state: &mut Overlay<'_>, command: &AdoptObject) -> Outcome {
    let id = ObjectId(command.object);
    let key = keys::wal(WalId(command.wal));
    // A log that was created after the snapshot begins with the first of its objects.
    let unknown = record::Wal { node: -1, committed: command.first, ..record::Wal::default() };
    let mut wal: record::Wal = state.load(&key)?.unwrap_or(unknown);
    let known: Option<record::Object> = state.load(&keys::object(id))?;
    if let Some(object) = &known {
        match object.state() {
            ObjectState::Registered => {}
            ObjectState::Expired => return Err(Reject::ObjectExpired(id).into()),
            ObjectState::Committed | ObjectState::Released => {
                return Ok(Reply::ObjectAdopted { taken: object.live, left_out: Vec::new() });
            }
        }
    }
    let (first, end) = (Lsn(command.first), Lsn(command.end));
    if command.first != wal.committed {
        return Err(Broken::RoundStart { committed: Lsn(wal.committed), first }.into());
    }
    if command.end <= command.first {
        return Err(Broken::RoundEmpty { first, end }.into());
    }
    let facts = command.facts.ok_or(Reject::Malformed("object facts"))?;
    let (accepted, left_out) = sort(state, command)?;
    let now_ms = metadata_time(state, command.now_ms)?;
    let mut live = 0;
    for range in &accepted {
        live += u32::from(take(state, id, range)?);
        raise_epoch(state, range.partition(), range.epoch)?;
    }
    wal.committed = command.end;
    state.put(key, &wal);
    // An object of which nothing was taken stays unknown: what is known and holds nothing would be deleted.
    if !accepted.is_empty() {
        if let Some(object) = &known {
            state.remove(keys::expiry(object.at_ms, id));
        }
        let object = record::Object {
            state: ObjectState::Committed.into(),
            wal: command.wal,
            wal_epoch: command.epoch,
            at_ms: now_ms,
            first: command.first,
            end: command.end,
            facts: Some(facts),
            live,
            ..record::Object::default()
        };
        settle_live(state, id, object, now_ms);
    }
    let taken = u32::try_from(accepted.len()).unwrap_or(u32::MAX);
    Ok(Reply::ObjectAdopted { taken, left_out })
}

/// Sorts the object's partitions into those that go on where they ended, with all their streams, and the rest.
fn sort<'c>(
    state: &Overlay<'_>,
    command: &'c AdoptObject,
) -> Outcome<(Vec<&'c StreamRange>, Vec<PartitionId>)> {
    let mut partitions: BTreeMap<PartitionId, Vec<&StreamRange>> = BTreeMap::new();
    for range in &command.ranges {
        range.stream().ok_or(Broken::StreamKind(range.kind))?;
        partitions.entry(range.partition()).or_default().push(range);
    }
    let (mut accepted, mut left_out) = (Vec::new(), Vec::new());
    for (id, mut ranges) in partitions {
        let there = state.load::<record::Partition>(&keys::partition(id))?.is_some();
        let mut continues = there;
        for range in &ranges {
            continues = continues && goes_on(state, range)?;
        }
        if continues {
            accepted.append(&mut ranges);
        } else if there && command.whole {
            return Err(Reject::NotContinuing(ObjectId(command.object)).into());
        } else {
            left_out.push(id);
        }
    }
    Ok((accepted, left_out))
}

fn goes_on(state: &Overlay<'_>, range: &StreamRange) -> Outcome<bool> {
    let stream = range.stream().ok_or(Broken::StreamKind(range.kind))?;
    let record: record::Stream = state.load(&keys::stream(stream))?.unwrap_or_default();
    let reach = range.end.checked_sub(range.start);
    Ok(range.start == record.committed_end
        && reach.is_some_and(|reach| (1..=LOST_SPAN).contains(&reach))
        && range.epoch >= record.epoch)
}

fn raise_epoch(state: &mut Overlay<'_>, id: PartitionId, epoch: i32) -> Outcome<()> {
    if let Some(mut partition) = state.load::<record::Partition>(&keys::partition(id))?
        && partition.epoch < epoch
    {
        partition.epoch = epoch;
        state.put(keys::partition(id), &partition);
    }
    Ok(())
}

fn finish(
    state: &mut Overlay<'_>,
    mut cluster: record::Cluster,
    command: &FinishRebuild,
) -> Outcome {
    metadata_time(state, command.now_ms)?;
    forget_registrations(state)?;
    close_logs(state)?;
    for found in &command.epochs {
        raise_epoch(state, PartitionId { topic: found.topic, index: found.index }, found.epoch)?;
    }
    let mut lost = Vec::new();
    for (id, mut partition) in partitions_where(state, |_| true)? {
        let epoch = partition.epoch.checked_add(EPOCH_LEAP);
        partition.epoch = epoch.ok_or(Broken::NumbersExhausted(id))?;
        (partition.leader, partition.wal) = (None, None);
        state.put(keys::partition(id), &partition);
        for kind in StreamKind::ALL {
            lost.push(lose(state, id, kind)?);
        }
    }
    cluster.rebuilding = false;
    state.put(keys::cluster(), &cluster);
    Ok(Reply::Rebuilt { lost })
}

/// What was registered and not adopted is left alone: forgotten here, so that nobody deletes it.
fn forget_registrations(state: &mut Overlay<'_>) -> Outcome<()> {
    let mut gone = Vec::new();
    state.each(vec![keys::tag::EXPIRY], |key, _| {
        let id = key.get(9..).and_then(keys::split_u64).ok_or_else(|| bad_key(key))?.0;
        gone.push((key.to_vec(), keys::object(ObjectId(id))));
        Ok(())
    })?;
    for (expiry, object) in gone {
        state.remove(expiry);
        state.remove(object);
    }
    Ok(())
}

fn close_logs(state: &mut Overlay<'_>) -> Outcome<()> {
    let mut changed = Vec::new();
    state.each(vec![keys::tag::WAL], |key, value| {
        let wal = record::Wal { closed: true, ..read(key, value)? };
        changed.push((key.to_vec(), wal));
        Ok(())
    })?;
    changed.into_iter().for_each(|(key, wal)| state.put(key, &wal));
    let mut brokers = Vec::new();
    state.each(vec![keys::tag::BROKER], |key, value| {
        let broker = record::Broker { wal: None, ..read(key, value)? };
        brokers.push((key.to_vec(), broker));
        Ok(())
    })?;
    brokers.into_iter().for_each(|(key, broker)| state.put(key, &broker));
    Ok(())
}

//! Ownership: a partition moves to another broker; a log is fenced, taken over and handed out.
//!
//! What always holds afterwards: a partition with a leader is assigned to that broker's own, open, unfenced log; and the
//! assignment leaves a log only when nothing of the partition is left in it, or when its loss has been declared.

use common::{NodeId, PartitionId, StreamEpoch, StreamKind, WalEpoch, WalId, failpoint};

use super::wals::{close, next_epoch};
use super::{Outcome, Owner, owners, partitions_where, take_ids, wal_under};
use crate::command::{FenceWal, HandOutWal, MovePartition};
use crate::keys::{self, Counter};
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay};

pub(super) fn move_partition(state: &mut Overlay<'_>, command: &MovePartition) -> Outcome {
    wal_under(state, WalId(command.wal), command.wal_epoch)?;
    let id = command.partition();
    let mut partition: record::Partition =
        state.load(&keys::partition(id))?.ok_or(Reject::UnknownPartition(id))?;
    if partition.epoch != command.epoch || partition.wal != Some(command.wal) {
        return Err(Reject::StaleStreamEpoch { current: StreamEpoch(partition.epoch) }.into());
    }
    let ends: [i64; 3] =
        command.ends.as_slice().try_into().map_err(|_| Reject::Malformed("ends of streams"))?;
    for (kind, end) in StreamKind::ALL.into_iter().zip(ends) {
        check_uploaded(state, id, kind, end)?;
    }
    let heir = owner(state, NodeId(command.to))?;
    if heir.wal.0 == command.wal {
        return Err(Reject::Malformed("a partition moves to another broker").into());
    }
    assign(state, id, &mut partition, Some(heir))?;
    Ok(Reply::PartitionMoved { epoch: StreamEpoch(partition.epoch) })
}

fn check_uploaded(state: &Overlay<'_>, id: PartitionId, kind: StreamKind, end: i64) -> Outcome<()> {
    let stream = id.stream(kind);
    let record: record::Stream = state.load(&keys::stream(stream))?.unwrap_or_default();
    let committed = record.committed_end;
    // A test plants this to see a partition move away from bytes that are not in objects.
    if committed != end && !failpoint::planted("skip-seal") {
        return Err(Reject::NotUploaded { stream, committed, end }.into());
    }
    Ok(())
}

/// The broker as an owner of partitions.
fn owner(state: &Overlay<'_>, node: NodeId) -> Outcome<Owner> {
    let broker: record::Broker =
        state.load(&keys::broker(node))?.ok_or(Reject::UnknownNode(node))?;
    let wal = broker.wal.map(WalId).ok_or(Reject::CannotOwn(node))?;
    let record: Option<record::Wal> = state.load(&keys::wal(wal))?;
    if record.is_some_and(|record| record.is_open()) {
        Ok(Owner { node, wal })
    } else {
        Err(Reject::CannotOwn(node).into())
    }
}

/// Gives a partition to `heir` under its next epoch.
pub(super) fn assign(
    state: &mut Overlay<'_>,
    id: PartitionId,
    partition: &mut record::Partition,
    heir: Option<Owner>,
) -> Outcome<()> {
    partition.epoch = next_epoch(id, partition.epoch)?;
    partition.leader = heir.map(|heir| heir.node.0);
    partition.wal = heir.map(|heir| heir.wal.0);
    state.put(keys::partition(id), partition);
    Ok(())
}

pub(super) fn fence_wal(state: &mut Overlay<'_>, command: &FenceWal) -> Outcome {
    let id = WalId(command.wal);
    let mut wal: record::Wal = state.load(&keys::wal(id))?.ok_or(Reject::UnknownWal(id))?;
    if wal.closed {
        return Err(Reject::WalClosed(id).into());
    }
    if let Some(by) = command.by {
        if !wal.survives {
            return Err(Reject::WalStays { wal: id, node: NodeId(wal.node) }.into());
        }
        if by == wal.node {
            return Err(Reject::Malformed("a broker opens its own log").into());
        }
        owner(state, NodeId(by))?;
    }
    let epoch = take_ids(state, Counter::WalEpoch, 1)?;
    wal.fence = Some(record::Fence { epoch, by: command.by });
    state.put(keys::wal(id), &wal);
    for (partition, mut record) in partitions_where(state, |one| one.wal == Some(command.wal))? {
        if record.leader.take().is_some() {
            state.put(keys::partition(partition), &record);
        }
    }
    Ok(Reply::WalFenced { epoch: WalEpoch(epoch) })
}

pub(super) fn hand_out(state: &mut Overlay<'_>, command: &HandOutWal) -> Outcome {
    let id = WalId(command.wal);
    let known: Option<record::Wal> = state.load(&keys::wal(id))?;
    let done = |wal: &record::Wal| wal.closed && wal.taken_by_epoch() == Some(command.epoch);
    if known.as_ref().is_some_and(done) {
        return Ok(Reply::WalHandedOut { partitions: 0, again: true });
    }
    let mut wal = wal_under(state, id, command.epoch)?;
    if wal.taken_by_epoch().is_none() {
        return Err(Reject::Malformed("the log has not been taken over").into());
    }
    wal.check_recovered(command.end)?;
    wal.committed = command.end;
    super::wals::forget_epochs(&mut wal);
    close(state, id, &mut wal)?;
    let heirs = owners(state)?;
    if heirs.is_empty() {
        return Err(Reject::NoBroker.into());
    }
    let held = partitions_where(state, |one| one.wal == Some(command.wal))?;
    let partitions = u32::try_from(held.len()).unwrap_or(u32::MAX);
    for (position, (partition, mut record)) in held.into_iter().enumerate() {
        assign(state, partition, &mut record, Some(heirs[position % heirs.len()]))?;
    }
    Ok(Reply::WalHandedOut { partitions, again: false })
}

//! Write-ahead logs: created, opened under a next epoch, declared lost.

use common::{Lsn, NodeId, PartitionId, StreamKind, WalEpoch, WalId};

use super::{LOST_SPAN, Outcome, owners, partitions_where, take_ids};
use crate::command::{CreateWal, DeclareWalLost, OpenWal};
use crate::keys::{self, Counter};
use crate::record;
use crate::reply::{Broken, LostRange, Reject, Reply};
use crate::view::{Load, Overlay};

pub(super) fn create(state: &mut Overlay<'_>, command: &CreateWal) -> Outcome {
    let node = NodeId(command.node);
    let mut broker: record::Broker =
        state.load(&keys::broker(node))?.ok_or(Reject::UnknownNode(node))?;
    if let Some(wal) = broker.wal {
        return Err(Reject::WalExists { node, wal: WalId(wal) }.into());
    }
    let id = take_ids(state, Counter::Wal, 1)?;
    broker.wal = Some(id);
    state.put(keys::broker(node), &broker);
    let wal = record::Wal { node: command.node, salt: command.salt, ..record::Wal::default() };
    state.put(keys::wal(WalId(id)), &wal);
    Ok(Reply::WalCreated { wal: WalId(id) })
}

pub(super) fn open(state: &mut Overlay<'_>, command: &OpenWal) -> Outcome {
    let id = WalId(command.wal);
    let mut wal: record::Wal = state.load(&keys::wal(id))?.ok_or(Reject::UnknownWal(id))?;
    if wal.closed {
        return Err(Reject::WalClosed(id).into());
    }
    if wal.node != command.node {
        return Err(Reject::WalOfOther { wal: id, node: NodeId(wal.node) }.into());
    }
    let known = wal.epochs.last().map_or(0, |last| last.first).max(wal.committed);
    if command.recovered_end < known {
        let recovered = Lsn(command.recovered_end);
        return Err(Reject::RecoveredShort { recovered, known: Lsn(known) }.into());
    }
    let epoch = take_ids(state, Counter::WalEpoch, 1)?;
    let first = command.recovered_end;
    wal.epochs.push(record::WalEpoch { epoch, first });
    forget_epochs(&mut wal);
    state.put(keys::wal(id), &wal);
    let ours = partitions_where(state, |one| one.wal.is_none_or(|wal| wal == command.wal))?;
    for (partition, mut record) in ours {
        record.epoch = next_epoch(partition, record.epoch)?;
        record.leader = Some(command.node);
        record.wal = Some(command.wal);
        state.put(keys::partition(partition), &record);
    }
    Ok(Reply::WalOpened { epoch: WalEpoch(epoch), first: Lsn(first) })
}

/// Drops epochs that have no frame above the committed LSN any more.
pub(super) fn forget_epochs(wal: &mut record::Wal) {
    let over = wal.epochs.iter().skip(1).take_while(|next| next.first <= wal.committed).count();
    wal.epochs.drain(..over);
}

fn next_epoch(partition: PartitionId, epoch: i32) -> Outcome<i32> {
    Ok(epoch.checked_add(1).ok_or(Broken::NumbersExhausted(partition))?)
}

pub(super) fn declare_lost(state: &mut Overlay<'_>, command: &DeclareWalLost) -> Outcome {
    let id = WalId(command.wal);
    let mut wal: record::Wal = state.load(&keys::wal(id))?.ok_or(Reject::UnknownWal(id))?;
    if wal.closed {
        return Err(Reject::WalClosed(id).into());
    }
    wal.closed = true;
    state.put(keys::wal(id), &wal);
    let node = NodeId(wal.node);
    if let Some(mut broker) = state.load::<record::Broker>(&keys::broker(node))?
        && broker.wal == Some(command.wal)
    {
        broker.wal = None;
        state.put(keys::broker(node), &broker);
    }
    let heirs = owners(state)?;
    let touched = partitions_where(state, |one| one.wal == Some(command.wal))?;
    let mut lost = Vec::new();
    for (position, (partition, mut record)) in touched.into_iter().enumerate() {
        for kind in StreamKind::ALL {
            lost.push(lose(state, partition, kind)?);
        }
        let heir = heirs.get(position % heirs.len().max(1));
        record.epoch = next_epoch(partition, record.epoch)?;
        record.leader = heir.map(|heir| heir.node.0);
        record.wal = heir.map(|heir| heir.wal.0);
        state.put(keys::partition(partition), &record);
    }
    Ok(Reply::WalLost { lost })
}

/// Names the lost range of one stream and moves its committed end behind it.
fn lose(state: &mut Overlay<'_>, partition: PartitionId, kind: StreamKind) -> Outcome<LostRange> {
    let stream = partition.stream(kind);
    let key = keys::stream(stream);
    let mut record: record::Stream = state.load(&key)?.unwrap_or_default();
    let start = record.committed_end;
    let end = start.checked_add(LOST_SPAN).ok_or(Broken::NumbersExhausted(partition))?;
    record.lost.push(record::Lost { start, end });
    record.committed_end = end;
    record.version += 1;
    state.put(key, &record);
    Ok(LostRange { stream, start, end })
}

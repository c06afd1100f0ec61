//! Write-ahead logs: created, opened under a next epoch, declared lost.

use common::{Lsn, NodeId, PartitionId, StreamKind, WalEpoch, WalId, failpoint};

use super::ownership::assign;
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
    let CreateWal { node, salt, survives } = *command;
    let wal = record::Wal { node, salt, survives, ..record::Wal::default() };
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
    wal.check_recovered(command.recovered_end)?;
    let epoch = take_ids(state, Counter::WalEpoch, 1)?;
    let first = command.recovered_end;
    wal.epochs.push(record::WalEpoch { epoch, first });
    // Whoever was taking it over is fenced by this epoch in turn.
    wal.fence = None;
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

pub(super) fn next_epoch(partition: PartitionId, epoch: i32) -> Outcome<i32> {
    Ok(epoch.checked_add(1).ok_or(Broken::NumbersExhausted(partition))?)
}

pub(super) fn declare_lost(state: &mut Overlay<'_>, command: &DeclareWalLost) -> Outcome {
    let id = WalId(command.wal);
    let mut wal: record::Wal = state.load(&keys::wal(id))?.ok_or(Reject::UnknownWal(id))?;
    if wal.closed {
        return Err(Reject::WalClosed(id).into());
    }
    wal.fence = None;
    close(state, id, &mut wal)?;
    let heirs = owners(state)?;
    let touched = partitions_where(state, |one| one.wal == Some(command.wal))?;
    let mut lost = Vec::new();
    for (position, (partition, mut record)) in touched.into_iter().enumerate() {
        for kind in StreamKind::ALL {
            lost.push(lose(state, partition, kind)?);
        }
        let heir = heirs.get(position % heirs.len().max(1));
        assign(state, partition, &mut record, heir.copied())?;
    }
    Ok(Reply::WalLost { lost })
}

/// Closes a log for ever: its broker has none any more.
pub(super) fn close(state: &mut Overlay<'_>, id: WalId, wal: &mut record::Wal) -> Outcome<()> {
    wal.closed = true;
    state.put(keys::wal(id), wal);
    let node = keys::broker(NodeId(wal.node));
    if let Some(mut broker) = state.load::<record::Broker>(&node)?
        && broker.wal == Some(id.0)
    {
        broker.wal = None;
        state.put(node, &broker);
    }
    Ok(())
}

/// Names the lost range of one stream and moves its committed end behind it.
pub(super) fn lose(
    state: &mut Overlay<'_>,
    partition: PartitionId,
    kind: StreamKind,
) -> Outcome<LostRange> {
    let stream = partition.stream(kind);
    let key = keys::stream(stream);
    let mut record: record::Stream = state.load(&key)?.unwrap_or_default();
    let start = record.committed_end;
    // A test plants this to see offsets given a second time.
    let span = if failpoint::planted("reused-offset") { 0 } else { LOST_SPAN };
    let end = start.checked_add(span).ok_or(Broken::NumbersExhausted(partition))?;
    record.lost.push(record::Lost { start, end });
    record.committed_end = end;
    record.version += 1;
    state.put(key, &record);
    Ok(LostRange { stream, start, end })
}

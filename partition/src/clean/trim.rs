//! Trimming of the streams beside the data: `state` below the newest snapshots, `index` below what nobody asks for.

use std::sync::Arc;

use common::StreamKind;

use super::floors;
use super::start::{self, StartError};
use crate::index::IndexKind;
use crate::partition::Partition;
use crate::state::StateKind;

/// Index records looked at in one step.
const INDEX_SCAN_BYTES: u64 = 1 << 20;

/// Releases snapshots that newer ones in objects have replaced.
pub(crate) async fn state(partition: &Arc<Partition>) -> Result<(), StartError> {
    let stream = partition.stream(StreamKind::State);
    let Some(bounds) = partition.shared.storage.bounds(stream) else { return Ok(()) };
    let Some(start) = partition.state_start(bounds.committed_end) else { return Ok(()) };
    if start > bounds.start {
        let shared = &partition.shared;
        let start = start::move_in_meta(shared, stream, partition.epoch, start).await?;
        shared.storage.set_start(stream, start);
    }
    Ok(())
}

/// Releases index records that a snapshot of the epochs contains. A topic with sinks keeps its index: it is their
/// ledger.
pub(crate) async fn index(partition: &Arc<Partition>) -> Result<(), StartError> {
    let shared = &partition.shared;
    let stream = partition.stream(StreamKind::Index);
    let Some(bounds) = shared.storage.bounds(stream) else { return Ok(()) };
    let image = shared.meta.image();
    if !floors::of(&image, partition.id, 0).is_empty() {
        return Ok(());
    }
    let Some(covered) = partition.epochs_covered(bounds.committed_end) else { return Ok(()) };
    let until = covered.min(bounds.committed_end);
    if until <= bounds.start {
        return Ok(());
    }
    // Aborted transactions explain data above the log start: none is dropped.
    let page = partition.read_index(IndexKind::ABORTED, bounds.start, INDEX_SCAN_BYTES).await;
    let page = page.map_err(|error| StartError::Unavailable(error.to_string()))?;
    let first = page.records.first().map_or(page.next, |record| record.offset);
    let start = until.min(first);
    if start > bounds.start {
        let start = start::move_in_meta(shared, stream, partition.epoch, start).await?;
        shared.storage.set_start(stream, start);
    }
    Ok(())
}

impl Partition {
    /// Where the state stream may begin: at the oldest of the newest snapshots of each kind that lie in objects. `None`
    /// while a kind is not known, so that nothing is dropped by guess.
    fn state_start(&self, committed_end: i64) -> Option<i64> {
        let mut state = self.state.lock();
        let mut start = i64::MAX;
        let coordinated = self.is_coordinated;
        for kind in
            StateKind::OF_PARTITIONS.into_iter().chain(coordinated.then_some(StateKind::GROUPS))
        {
            let marks = state.marks.get_mut(&kind)?;
            let newest = marks.iter().rposition(|mark| mark.end <= committed_end)?;
            marks.drain(..newest);
            start = start.min(marks[0].first);
        }
        Some(start)
    }

    /// Index offset up to which a snapshot of the epochs in objects tells everything.
    fn epochs_covered(&self, _index_committed: i64) -> Option<i64> {
        let stream = self.stream(StreamKind::State);
        let committed_end = self.shared.storage.bounds(stream)?.committed_end;
        let state = self.state.lock();
        let marks = state.marks.get(&StateKind::EPOCHS)?;
        marks.iter().rev().find(|mark| mark.end <= committed_end).map(|mark| mark.valid_for)
    }
}

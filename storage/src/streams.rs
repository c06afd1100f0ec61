//! The state of the streams of this broker: bounds, and which groups of the log hold what lies above the objects.

#[expect(clippy::disallowed_types, reason = "looked up on each append, never iterated")]
use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use common::{Lsn, PartitionId, StreamEpoch, StreamId, StreamKind};
use parking_lot::{Mutex, RwLock};

use crate::error::OpenPartitionError;
use crate::types::{Bounds, DurableListener};

/// Entries of one stream in one group of the log. `first` and `count` point into the group's frames sorted by stream.
///
/// ```text
/// offsets    start                 end
///            |-- entry --|-- entry --|
/// order      first                 first + count
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub start: i64,
    pub end: i64,
    pub group: Lsn,
    pub first: u32,
    pub count: u32,
    pub bytes: u64,
}

/// One stream. Durable runs only; they tile `[runs[0].start, durable_end)`.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub bounds: Bounds,
    pub runs: VecDeque<Run>,
}

impl Stream {
    /// Adds durable entries.
    pub fn push(&mut self, run: Run) {
        self.bounds.durable_end = self.bounds.durable_end.max(run.end);
        self.bounds.end = self.bounds.end.max(run.end);
        self.runs.push_back(run);
    }

    /// Forgets runs whose groups lie below `horizon`: they are in objects and out of the cache.
    pub fn prune(&mut self, horizon: Lsn) {
        while self.runs.front().is_some_and(|run| run.group < horizon) {
            self.runs.pop_front();
        }
        if self.runs.is_empty() && self.runs.capacity() > 64 {
            self.runs.shrink_to_fit();
        }
    }

    /// The index of the run that holds `offset`, if any does.
    pub fn run_at(&self, offset: i64) -> Option<usize> {
        let index = self.runs.partition_point(|run| run.end <= offset);
        self.runs.get(index).filter(|run| run.start <= offset).map(|_| index)
    }
}

/// The three streams of one partition.
#[derive(Default)]
pub(crate) struct Slot {
    // Held for a few instructions, never over an await or a call to the log; a plain mutex is enough.
    pub state: Mutex<SlotState>,
}

#[derive(Default)]
pub(crate) struct SlotState {
    pub listener: Option<Arc<dyn DurableListener>>,
    pub opened: bool,
    /// Ends where it ends, under `epoch`: on its way to another broker, or there.
    pub sealed: bool,
    pub epoch: StreamEpoch,
    pub streams: [Stream; 3],
}

impl SlotState {
    pub fn stream(&mut self, kind: StreamKind) -> &mut Stream {
        &mut self.streams[kind as usize]
    }

    fn is_idle(&self) -> bool {
        !self.opened && !self.sealed && self.streams.iter().all(|stream| stream.runs.is_empty())
    }

    /// Takes in what metadata says. Nothing goes backwards: a commit may have been faster than the question.
    pub fn load(
        &mut self,
        stream: StreamId,
        start: i64,
        committed: i64,
    ) -> Result<(), OpenPartitionError> {
        let state = self.stream(stream.kind);
        state.bounds.start = state.bounds.start.max(start);
        state.bounds.committed_end = state.bounds.committed_end.max(committed);
        let committed = state.bounds.committed_end;
        let unseen = state.runs.iter().find(|run| run.end > committed);
        if let Some(found) = unseen.map(|run| run.start).filter(|start| *start > committed) {
            return Err(OpenPartitionError::Gap { stream, committed, found });
        }
        if state.bounds.durable_end < committed {
            // Another broker has written in between, or a loss was declared: what is in memory does not reach there.
            state.runs.clear();
        }
        state.bounds.durable_end = state.bounds.durable_end.max(committed);
        state.bounds.end = state.bounds.end.max(state.bounds.durable_end);
        Ok(())
    }
}

/// All partitions with something open or not yet in objects.
#[derive(Default)]
pub(crate) struct Table {
    #[expect(clippy::disallowed_types, reason = "looked up on each append, never iterated")]
    slots: RwLock<HashMap<PartitionId, Arc<Slot>>>,
}

impl Table {
    pub fn get(&self, id: PartitionId) -> Option<Arc<Slot>> {
        self.slots.read().get(&id).cloned()
    }

    /// Calls `body` with the state of the partition, made if need be. It cannot be forgotten meanwhile.
    pub fn update<T>(&self, id: PartitionId, body: impl FnOnce(&mut SlotState) -> T) -> T {
        if let Some(slot) = self.slots.read().get(&id) {
            return body(&mut slot.state.lock());
        }
        let mut slots = self.slots.write();
        let slot = slots.entry(id).or_default();
        body(&mut slot.state.lock())
    }

    /// Forgets the partition when it is closed and nothing of it is in the log any more.
    pub fn forget_if_idle(&self, id: PartitionId) {
        let mut slots = self.slots.write();
        if slots.get(&id).is_some_and(|slot| slot.state.lock().is_idle()) {
            slots.remove(&id);
        }
    }

    /// Calls `body` with the stream, if the partition is in the table.
    pub fn with<T>(&self, stream: StreamId, body: impl FnOnce(&mut Stream) -> T) -> Option<T> {
        let slot = self.get(stream.partition)?;
        let mut state = slot.state.lock();
        Some(body(state.stream(stream.kind)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: i64, end: i64, group: u64) -> Run {
        Run { start, end, group: Lsn(group), first: 0, count: 1, bytes: 10 }
    }

    #[test]
    fn runs_are_found_by_offset_and_forgotten_from_the_front() {
        let mut stream = Stream::default();
        for (start, end, group) in [(10, 12, 0), (12, 20, 4096), (20, 21, 8192)] {
            stream.push(run(start, end, group));
        }
        let found: Vec<_> = [9, 10, 11, 12, 19, 20, 21].map(|at| stream.run_at(at)).into();
        let expected = [None, Some(0), Some(0), Some(1), Some(1), Some(2), None];
        assert_eq!(found, expected);
        stream.prune(Lsn(8192));
        assert_eq!(stream.run_at(20), Some(0));
        assert_eq!(stream.run_at(12), None);
        assert_eq!(stream.bounds.durable_end, 21);
    }

    #[test]
    fn a_gap_between_objects_and_log_is_refused() {
        let id = PartitionId { topic: 1, index: 0 }.stream(StreamKind::Data);
        let mut state = SlotState::default();
        state.stream(StreamKind::Data).push(run(10, 12, 0));
        assert_eq!(
            state.load(id, 0, 9),
            Err(OpenPartitionError::Gap { stream: id, committed: 9, found: 10 })
        );
        assert_eq!(state.load(id, 0, 10), Ok(()));
        let expected = Bounds { start: 0, committed_end: 10, durable_end: 12, end: 12 };
        assert_eq!(state.stream(StreamKind::Data).bounds, expected);
    }
}

//! The tail cache: sealed groups of the log, refcounted and evicted whole, and the list of groups that wait for upload.
//!
//! ```text
//!  LSN   committed            evict_from                      durable
//!         |                     |                                |
//!   ------+---- in the log only +---- in the log and in memory --+
//! ```
//! Groups below `committed` may stay as well: they are in objects, but hot. Eviction goes from the oldest on, so after an
//! eviction everything below `evict_from` is out of memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Budget, Lsn, Reservation, StreamId};
use parking_lot::Mutex;

use crate::object::EntryMeta;
use crate::streams::Run;

/// Accounted for each frame beside the group buffer.
const FRAME_OVERHEAD_BYTES: u64 = 96;

/// Accounted for each group from its durability until it is in objects and out of memory, and for each stream in it: so
/// much its slot and its runs take, the slack of their maps included.
const SLOT_BYTES: u64 = 120;
const RUN_BYTES: u64 = 52;

/// A group in memory with its frames sorted by stream.
pub(crate) struct TailGroup {
    group: Arc<wal::Group>,
    order: Box<[u32]>,
    bytes_held: u64,
    _held: Reservation,
}

impl TailGroup {
    pub fn new(group: Arc<wal::Group>, budget: &Budget) -> Self {
        let frames = group.frames();
        let count = u32::try_from(frames.len()).expect("a group holds fewer frames than bytes");
        let mut order: Vec<u32> = (0..count).collect();
        // Stable: offsets of one stream stay in order.
        order.sort_by_key(|index| frames[index_of(*index)].header.stream);
        let buffer = group.bytes_held() as u64;
        let overhead = u64::from(count) * FRAME_OVERHEAD_BYTES;
        let counted = if group.is_counted() { 0 } else { buffer };
        let held = budget.force(counted + overhead);
        Self { order: order.into(), bytes_held: buffer + overhead, _held: held, group }
    }

    pub fn bytes_held(&self) -> u64 {
        self.bytes_held
    }

    pub fn first(&self) -> Lsn {
        self.group.first()
    }

    /// Number of frames.
    pub fn len(&self) -> u32 {
        u32::try_from(self.order.len()).expect("counted in `new`")
    }

    pub fn stream(&self, position: u32) -> StreamId {
        self.frame(position).header.stream
    }

    fn frame(&self, position: u32) -> &wal::FrameMeta {
        &self.group.frames()[index_of(self.order[index_of(position)])]
    }

    /// The entry at `position` of the sorted order.
    pub fn meta(&self, position: u32) -> EntryMeta {
        let frame = self.frame(position);
        let header = &frame.header;
        EntryMeta {
            base_offset: header.base_offset,
            span: header.span,
            count: header.count,
            max_timestamp: header.max_timestamp,
            epoch: header.epoch,
            length: frame.range.end - frame.range.start,
            crc: frame.crc,
            kind: header.kind,
            flags: header.flags,
        }
    }

    /// The payload of the entry at `position` of the sorted order.
    pub fn payload(&self, position: u32) -> Bytes {
        self.group.payload(index_of(self.order[index_of(position)]))
    }

    /// One run for each stream in the group, and the bytes of all payloads.
    pub fn runs(&self) -> Vec<(StreamId, Run)> {
        let mut runs: Vec<(StreamId, Run)> = Vec::new();
        for position in 0..self.len() {
            let (stream, meta) = (self.stream(position), self.meta(position));
            let bytes = u64::from(meta.length);
            match runs.last_mut().filter(|(last, _)| *last == stream) {
                Some((_, run)) => {
                    run.end = meta.end_offset();
                    run.count += 1;
                    run.bytes += bytes;
                }
                None => {
                    let (start, end) = (meta.base_offset, meta.end_offset());
                    let group = self.first();
                    runs.push((
                        stream,
                        Run { start, end, group, first: position, count: 1, bytes },
                    ));
                }
            }
        }
        runs
    }
}

fn index_of(index: u32) -> usize {
    usize::try_from(index).expect("32 bits fit a usize")
}

/// A group as the uploader sees it.
#[derive(Clone)]
pub(crate) struct Slot {
    pub end: Lsn,
    pub payload_bytes: u64,
    pub frames: u32,
    /// Streams with entries in it.
    pub streams: u32,
    pub at: Duration,
    pub cached: Option<Arc<TailGroup>>,
}

impl Slot {
    fn index_bytes(&self) -> u64 {
        SLOT_BYTES + u64::from(self.streams) * RUN_BYTES
    }
}

struct State {
    slots: BTreeMap<Lsn, Slot>,
    // What slots and runs take.
    index: Reservation,
    // Bytes of cached groups, and of payloads that wait for upload.
    cached_bytes: u64,
    pending_bytes: u64,
    pending_frames: u64,
    committed: Lsn,
    durable: Lsn,
    evict_from: Lsn,
}

impl State {
    fn insert(&mut self, first: Lsn, slot: Slot) {
        self.index.resize(self.index.bytes() + slot.index_bytes());
        self.slots.insert(first, slot);
    }

    fn remove(&mut self, first: Lsn) {
        if let Some(slot) = self.slots.remove(&first) {
            self.index.resize(self.index.bytes() - slot.index_bytes());
        }
    }
}

/// What a caller has to do after a group was added or evicted.
#[derive(Default)]
pub(crate) struct Evicted {
    /// Payload bytes that waited for upload before and after.
    pub pending_bytes: Range<u64>,
    /// Bytes that stay.
    pub cached_bytes: u64,
    /// True when the group holds the first entries that wait for upload.
    pub first_pending: bool,
    /// Evicted groups that were in objects already: their runs can be forgotten.
    pub groups: Vec<Arc<TailGroup>>,
    /// Number of groups evicted.
    pub count: u64,
}

/// What waits for upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    pub bytes: u64,
    pub frames: u64,
    /// When the oldest entry that waits became durable.
    pub oldest: Option<Duration>,
    pub committed: Lsn,
    pub durable: Lsn,
}

pub(crate) struct Tail {
    // Held for a few map operations, never over an await, the disk or the store.
    state: Mutex<State>,
    budget: Budget,
    bytes_max: u64,
}

impl Tail {
    pub fn new(budget: Budget, bytes_max: u64, committed: Lsn) -> Self {
        let state = State {
            slots: BTreeMap::new(),
            index: budget.force(0),
            cached_bytes: 0,
            pending_bytes: 0,
            pending_frames: 0,
            committed,
            durable: committed,
            evict_from: Lsn::default(),
        };
        Self { state: Mutex::new(state), budget, bytes_max }
    }

    /// Adds a durable group at the end.
    pub fn push(&self, first: Lsn, slot: Slot) -> Evicted {
        let mut state = self.state.lock();
        let before = state.pending_bytes;
        let first_pending = state.pending_frames == 0 && slot.frames > 0;
        state.durable = state.durable.max(slot.end);
        state.cached_bytes += slot.cached.as_ref().map_or(0, |group| group.bytes_held());
        state.pending_bytes += slot.payload_bytes;
        state.pending_frames += u64::from(slot.frames);
        let pending_bytes = before..state.pending_bytes;
        state.insert(first, slot);
        let evicted = self.evict_to(&mut state, self.bytes_max);
        Evicted { pending_bytes, first_pending, cached_bytes: state.cached_bytes, ..evicted }
    }

    /// Evicts until at most `bytes_max` stay and the budget is not overdrawn.
    fn evict_to(&self, state: &mut State, bytes_max: u64) -> Evicted {
        let mut evicted = Evicted::default();
        let mut target = bytes_max;
        let used = self.budget.used();
        if used > self.budget.bytes_max() {
            target = target.min(state.cached_bytes.saturating_sub(used - self.budget.bytes_max()));
        }
        while state.cached_bytes > target {
            let from = state.evict_from;
            let Some((&first, slot)) = state.slots.range_mut(from..).next() else { break };
            let end = slot.end;
            if let Some(group) = slot.cached.take() {
                state.cached_bytes -= group.bytes_held();
                evicted.count += 1;
                if first < state.committed {
                    evicted.groups.push(group);
                }
            }
            if first < state.committed {
                state.remove(first);
            }
            state.evict_from = end;
        }
        evicted
    }

    /// Gives back at least `bytes`, as far as there are groups to evict.
    pub fn evict(&self, bytes: u64) -> Evicted {
        let mut state = self.state.lock();
        let target = state.cached_bytes.saturating_sub(bytes);
        self.evict_to(&mut state, target)
    }

    pub fn get(&self, first: Lsn) -> Option<Arc<TailGroup>> {
        self.state.lock().slots.get(&first)?.cached.clone()
    }

    /// Drops the buffer of one group, so that the next use reads the log again.
    pub fn drop_buffer(&self, first: Lsn) {
        let mut state = self.state.lock();
        if let Some(group) = state.slots.get_mut(&first).and_then(|slot| slot.cached.take()) {
            state.cached_bytes -= group.bytes_held();
        }
    }

    /// Everything below the result is in objects and out of memory: runs of such groups can be forgotten.
    pub fn horizon(&self) -> Lsn {
        let state = self.state.lock();
        state.committed.min(state.evict_from)
    }

    /// The committed LSN: groups below it lie in objects.
    pub fn pending_from(&self) -> Lsn {
        self.state.lock().committed
    }

    /// Takes note of a commit. Groups in memory stay.
    pub fn commit(&self, committed: Lsn) {
        let mut state = self.state.lock();
        if committed <= state.committed {
            return;
        }
        let done: Vec<_> =
            state.slots.range(state.committed..committed).map(|(first, _)| *first).collect();
        for first in done {
            let slot = state.slots.get(&first).expect("listed under the same lock");
            let (bytes, frames) = (slot.payload_bytes, u64::from(slot.frames));
            let gone = slot.cached.is_none();
            state.pending_bytes -= bytes;
            state.pending_frames -= frames;
            if gone {
                state.remove(first);
            }
        }
        state.committed = committed;
    }

    pub fn pending(&self) -> Pending {
        let state = self.state.lock();
        let waiting = state.slots.range(state.committed..);
        let oldest = if state.pending_frames == 0 {
            None
        } else {
            waiting.map(|(_, slot)| slot).find(|slot| slot.frames > 0).map(|slot| slot.at)
        };
        Pending {
            bytes: state.pending_bytes,
            frames: state.pending_frames,
            oldest,
            committed: state.committed,
            durable: state.durable,
        }
    }

    /// Bytes of payload that wait for upload.
    pub fn pending_bytes(&self) -> u64 {
        self.state.lock().pending_bytes
    }

    pub fn cached_bytes(&self) -> u64 {
        self.state.lock().cached_bytes
    }

    /// Bytes that the index of what is in the log or in memory takes.
    pub fn index_bytes(&self) -> u64 {
        self.state.lock().index.bytes()
    }

    /// The groups of the next round: from the committed LSN on, at least one, at most `bytes_max` of payload and
    /// `ranges_max` streams, each group's counted apart.
    pub fn round(&self, bytes_max: u64, ranges_max: u64) -> Vec<(Lsn, Slot)> {
        let state = self.state.lock();
        let (mut bytes, mut ranges) = (0_u64, 0_u64);
        let mut round = Vec::new();
        for (first, slot) in state.slots.range(state.committed..) {
            bytes = bytes.saturating_add(slot.payload_bytes);
            ranges += u64::from(slot.streams);
            if !round.is_empty() && (bytes > bytes_max || ranges > ranges_max) {
                break;
            }
            round.push((*first, slot.clone()));
        }
        round
    }

    /// True when no entry at or below `lsn` waits for upload. `lsn` must be durable.
    pub fn is_covered(&self, lsn: Lsn) -> bool {
        let state = self.state.lock();
        state.committed > lsn
            || state.slots.range(state.committed..=lsn).all(|(_, slot)| slot.frames == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(end: u64, streams: u32) -> Slot {
        let at = Duration::ZERO;
        Slot { end: Lsn(end), payload_bytes: 100, frames: streams, streams, at, cached: None }
    }

    #[test]
    fn a_round_is_bounded_by_bytes_and_ranges_and_the_index_is_counted_until_the_commit() {
        let budget = Budget::new(u64::MAX);
        let tail = Tail::new(budget.clone(), 1 << 20, Lsn(0));
        for first in 0..10_u64 {
            tail.push(Lsn(first * 4096), slot((first + 1) * 4096, 3));
        }
        assert_eq!(tail.index_bytes(), 10 * (SLOT_BYTES + 3 * RUN_BYTES));
        assert_eq!(budget.used(), tail.index_bytes());
        assert_eq!(tail.round(u64::MAX, u64::MAX).len(), 10);
        assert_eq!(tail.round(450, u64::MAX).len(), 4);
        assert_eq!(tail.round(u64::MAX, 8).len(), 2);
        assert_eq!(tail.round(1, 1).len(), 1, "at least one");
        tail.commit(Lsn(7 * 4096));
        assert_eq!(budget.used(), 3 * (SLOT_BYTES + 3 * RUN_BYTES));
    }
}

//! The memory of groups: chunks of one size, mapped, counted in the budget, reused.
//!
//! ```text
//! staging  | one chunk: the open group |
//! pieces   | group | group | group | rest |       small groups, copied back to back into a chunk
//! ```
//! A chunk comes back when the last slice of its last group is dropped. The tail cache lets go of groups in the order
//! they were made, so chunks empty one after the other. Free chunks are kept up to a bound, few when the budget is
//! overdrawn, one when the log falls quiet.

use std::sync::{Arc, Weak};

use common::{Budget, Reservation};
use parking_lot::Mutex;

use crate::disk::{AlignedBuf, Block, Home};
use crate::metrics::{Metrics, level};

/// Free chunks kept although the budget is overdrawn: a log under load needs them again at once.
const KEPT_MIN: usize = 2;

pub(crate) struct Pool {
    // Held for a push or a pop; no buffer is dropped under it.
    state: Mutex<State>,
    chunk_bytes: usize,
    chunks_max: usize,
    budget: Budget,
    metrics: Metrics,
    own: Weak<Self>,
}

#[derive(Default)]
struct State {
    free: Vec<Counted>,
    /// What is left of the chunk that pieces come from.
    rest: Option<AlignedBuf>,
}

/// A chunk with its share of the budget.
struct Counted {
    block: Block,
    memory: Reservation,
}

/// Brings a chunk back to its pool, if that still lives.
struct Way {
    pool: Weak<Pool>,
    // Taken by the chunk's only way back.
    memory: Mutex<Option<Reservation>>,
}

impl Home for Way {
    fn take_back(&self, block: Block) {
        let memory = self.memory.lock().take();
        if let (Some(pool), Some(memory)) = (self.pool.upgrade(), memory) {
            pool.give(Counted { block, memory });
        }
    }
}

impl Pool {
    /// A pool of chunks of `chunk_bytes`, of which `chunks_max` may be free.
    pub fn new(
        chunk_bytes: usize,
        chunks_max: usize,
        budget: Budget,
        metrics: Metrics,
    ) -> Arc<Self> {
        Arc::new_cyclic(|own| Self {
            state: Mutex::default(),
            chunk_bytes,
            chunks_max,
            budget,
            metrics,
            own: own.clone(),
        })
    }

    /// A whole chunk with any content.
    pub fn chunk(&self) -> AlignedBuf {
        let free = self.state.lock().free.pop();
        let Counted { block, memory } = match free {
            Some(free) => {
                self.metrics.buffer_idle_bytes.dec_by(level(memory_bytes(&free)));
                free
            }
            None => {
                let memory = self.budget.force(self.chunk_bytes as u64);
                self.metrics.buffer_bytes.inc_by(level(memory.bytes()));
                Counted { block: Block::zeroed(self.chunk_bytes), memory }
            }
        };
        let way = Way { pool: self.own.clone(), memory: Mutex::new(Some(memory)) };
        block.into_buffer(Some(Arc::new(way)))
    }

    /// `len` bytes, whole blocks, with any content; `None` when they are no small part of a chunk.
    pub fn piece(&self, len: usize) -> Option<AlignedBuf> {
        if len > self.chunk_bytes / 2 {
            return None;
        }
        let cut = |rest: &mut AlignedBuf| (rest.len() >= len).then(|| rest.split_to(len));
        let piece = self.state.lock().rest.as_mut().and_then(cut);
        if piece.is_some() {
            return piece;
        }
        let mut rest = self.chunk();
        let piece = rest.split_to(len);
        self.offer(rest);
        Some(piece)
    }

    /// Takes what a group did not use of its chunk, for pieces.
    pub fn offer(&self, rest: AlignedBuf) {
        let spare = {
            let mut state = self.state.lock();
            let larger = state.rest.as_ref().is_none_or(|old| old.len() < rest.len());
            if larger { state.rest.replace(rest) } else { Some(rest) }
        };
        drop(spare);
    }

    fn give(&self, chunk: Counted) {
        let bytes = level(memory_bytes(&chunk));
        let overdrawn = self.budget.used() > self.budget.bytes_max();
        let max = if overdrawn { KEPT_MIN.min(self.chunks_max) } else { self.chunks_max };
        let spare = {
            let mut state = self.state.lock();
            if state.free.len() < max {
                state.free.push(chunk);
                None
            } else {
                Some(chunk)
            }
        };
        match spare {
            None => drop(self.metrics.buffer_idle_bytes.inc_by(bytes)),
            Some(_) => drop(self.metrics.buffer_bytes.dec_by(bytes)),
        }
    }

    /// Gives free chunks but one back to the system.
    pub fn trim(&self) {
        let spare = {
            let mut state = self.state.lock();
            let kept = state.free.len().min(1);
            state.free.split_off(kept)
        };
        for chunk in spare {
            let bytes = level(memory_bytes(&chunk));
            self.metrics.buffer_idle_bytes.dec_by(bytes);
            self.metrics.buffer_bytes.dec_by(bytes);
        }
    }
}

fn memory_bytes(chunk: &Counted) -> u64 {
    chunk.memory.bytes()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn pool(budget: &Budget, chunks_max: usize) -> Arc<Pool> {
        Pool::new(1 << 20, chunks_max, budget.clone(), Metrics::default())
    }

    #[test]
    fn a_chunk_comes_back_with_its_last_slice_and_the_pool_is_bounded() {
        let budget = Budget::new(u64::MAX);
        let pool = pool(&budget, 1);
        let (first, second) = (Bytes::from_owner(pool.chunk()), Bytes::from_owner(pool.chunk()));
        assert_eq!(budget.used(), 2 << 20);
        let slice = first.slice(10..20);
        drop(first);
        assert_eq!(pool.state.lock().free.len(), 0);
        drop(slice);
        assert_eq!(pool.state.lock().free.len(), 1);
        drop(second);
        assert_eq!((pool.state.lock().free.len(), budget.used()), (1, 1 << 20));
        assert_eq!(pool.metrics.buffer_bytes.get(), 1 << 20);
        assert_eq!(pool.metrics.buffer_idle_bytes.get(), 1 << 20);
    }

    #[test]
    fn pieces_share_a_chunk_and_free_it_together() {
        let budget = Budget::new(u64::MAX);
        let pool = pool(&budget, 4);
        let pieces: Vec<_> = (0..300).map(|_| pool.piece(4096).expect("a small part")).collect();
        // 256 of them fill a chunk.
        assert_eq!(budget.used(), 2 << 20);
        assert!(pool.piece((1 << 20) / 2 + 4096).is_none());
        drop(pieces);
        // The second chunk still serves pieces.
        assert_eq!(pool.state.lock().free.len(), 1);
    }

    #[test]
    fn an_overdrawn_budget_and_a_quiet_log_keep_few() {
        let budget = Budget::new(3 << 20);
        let pool = pool(&budget, 8);
        let chunks: Vec<_> = (0..6).map(|_| pool.chunk()).collect();
        assert_eq!(budget.used(), 6 << 20);
        drop(chunks);
        assert_eq!(budget.used(), 3 << 20);
        pool.trim();
        assert_eq!(budget.used(), 1 << 20);
    }
}

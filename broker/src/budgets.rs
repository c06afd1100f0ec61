//! How `memory.max` is shared out.

use common::Budget;

use crate::server::Buffers;

/// The bounds of one process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// All of it: caches, partition state, buffers.
    pub memory: Budget,
    /// Requests above [`SMALL_BYTES`] that are being read or handled: 3/16 of the memory. A larger one comes alone.
    pub requests: Budget,
    /// Smaller requests: 1/16 of the memory, so that no large one keeps them out.
    pub small_requests: Budget,
    /// Answers that are being written: a quarter of the memory. At the bound a fetch gets its first batch and no more.
    pub answers: Budget,
    /// Produce requests that wait for room in a full log: half of each bound for requests. At the bound a request is
    /// refused at once, so that those that need no room in the log are still read.
    waiting: [Budget; 2],
    /// Buffers of large requests that wait for reuse: at most an eighth of the memory.
    pub(crate) buffers: Buffers,
}

/// A request up to this size is a small one, in bytes.
pub(crate) const SMALL_BYTES: usize = 64 << 10;

impl Budgets {
    /// Shares out `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let memory = Budget::new(bytes_max);
        Self {
            buffers: Buffers::new(memory.clone(), bytes_max / 8),
            memory,
            waiting: [Budget::new(bytes_max / 32 * 3), Budget::new(bytes_max / 32)],
            requests: Budget::new(bytes_max / 16 * 3),
            small_requests: Budget::new(bytes_max / 16),
            answers: Budget::new(bytes_max / 4),
        }
    }

    /// The bound for a request of `length` bytes.
    #[must_use]
    pub(crate) fn for_request(&self, length: usize) -> &Budget {
        if length <= SMALL_BYTES { &self.small_requests } else { &self.requests }
    }

    /// The bound for produce requests of `length` bytes that wait for room in the log.
    #[must_use]
    pub(crate) fn for_waiting(&self, length: usize) -> &Budget {
        let [large, small] = &self.waiting;
        if length <= SMALL_BYTES { small } else { large }
    }

    /// Bytes a fetch may take now: half of what answers have left.
    #[must_use]
    pub(crate) fn fetch_bytes_max(&self) -> u64 {
        self.answers.bytes_max().saturating_sub(self.answers.used()) / 2
    }
}

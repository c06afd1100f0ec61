//! Limits of the log.

use std::time::Duration;

use common::Budget;

use crate::disk::Space;

/// Groups from the oldest that is not durable on, at most, so also writes in flight. Recovery relies on it: a hole has at
/// most this many minus one valid groups behind it.
pub const WINDOW_GROUPS_MAX: usize = 4;

/// Payload of one frame at most, 32 MiB and one block: `max.message.bytes` above 32 MiB is refused by the broker.
pub const FRAME_BYTES_MAX: u64 = (32 << 20) + 4096;

/// Settings of a log. Byte values are rounded down to blocks.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes of all segments together; 0 chooses 2 GiB or a tenth of the disk, the smaller.
    pub capacity_max: u64,
    /// Bytes of a segment. At most a quarter of the capacity is used for one.
    pub segment_bytes: u64,
    /// Bytes of the first segment of a new log.
    pub first_segment_bytes: u64,
    /// A group closes here.
    pub group_bytes_max: u64,
    /// Bytes of the groups from the oldest that is not durable on, at most; a larger group goes alone.
    pub window_bytes_max: u64,
    /// Bytes of closed groups that wait for the window; past it an append is told that the log is full.
    pub queue_bytes_max: u64,
    /// Segments kept ready ahead of the writer.
    pub ready_segments_max: usize,
    /// Group buffers kept for reuse.
    pub pool_buffers_max: usize,
    /// Where the memory of group buffers is counted. Never refuses: whoever holds groups evicts some when it is overdrawn.
    pub budget: Budget,
    /// Payload bytes that an open group gathers while another is being written, before it is written beside it.
    pub gather_bytes_max: u64,
    /// A medium whose fastest recent write took longer gets small groups side by side at once.
    pub gather_sync_max: Duration,
    /// Payload bytes of recovered groups kept in memory; the newest are.
    pub recovered_bytes_max: u64,
    /// Reads of the log at a time.
    pub reads_max: usize,
    /// Quiet after which an empty group publishes the durable position.
    pub quiet: Duration,
    /// Pause before a segment that could not be prepared for lack of space is tried again.
    pub prepare_backoff: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            capacity_max: 0,
            segment_bytes: 64 << 20,
            first_segment_bytes: 8 << 20,
            group_bytes_max: 1 << 20,
            window_bytes_max: 8 << 20,
            queue_bytes_max: 8 << 20,
            ready_segments_max: 2,
            pool_buffers_max: 8,
            budget: Budget::new(u64::MAX),
            gather_bytes_max: 128 << 10,
            gather_sync_max: Duration::from_millis(1),
            recovered_bytes_max: 32 << 20,
            reads_max: 16,
            quiet: Duration::from_millis(10),
            prepare_backoff: Duration::from_secs(1),
        }
    }
}

/// The sizes in effect for one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub capacity: u64,
    pub segment: u64,
    pub first: u64,
    pub group_max: u64,
}

impl Options {
    pub(crate) fn geometry(&self, space: Space) -> Geometry {
        let blocks = |bytes: u64| (bytes & !(crate::BLOCK - 1)).max(crate::BLOCK);
        let default = (2 << 30).min(space.total / 10).max(4 << 20);
        let capacity = blocks(if self.capacity_max == 0 { default } else { self.capacity_max });
        let segment = blocks(self.segment_bytes.min(capacity / 4));
        let first = blocks(self.first_segment_bytes.min(segment));
        Geometry { capacity, segment, first, group_max: blocks(self.group_bytes_max) }
    }
}

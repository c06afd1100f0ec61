//! What one round takes, decided once, so that every attempt of it puts the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{Lsn, PartitionId, StreamId};

use crate::options::Options;
use crate::tail::Tail;

pub(super) struct Plan {
    /// First LSN of the round: the committed LSN.
    pub first: Lsn,
    /// LSN after the round.
    pub end: Lsn,
    /// Groups by window. Blocks are sorted by stream within a window; the buffers of a window are held together.
    pub windows: Vec<Vec<Lsn>>,
    /// True when every group was in memory.
    pub resident: bool,
    /// Bytes of all payloads.
    pub payload_bytes: u64,
    /// Ranges of streams, each group's counted apart.
    pub ranges: u64,
    /// Log starts as they were first seen: bytes below are left out.
    pub starts: BTreeMap<StreamId, i64>,
    /// All partitions of the round, left-out ones included.
    pub touched: BTreeSet<PartitionId>,
    image: Arc<meta::Image>,
}

impl Plan {
    pub fn new(tail: &Tail, image: Arc<meta::Image>, options: &Options, ranges_max: u64) -> Self {
        let groups = tail.round(options.upload_bytes_max, ranges_max);
        let first = tail.pending_from();
        let end = groups.last().map_or(first, |(_, slot)| slot.end);
        let with_entries = || groups.iter().filter(|(_, slot)| slot.frames > 0);
        let resident = with_entries().all(|(_, slot)| slot.cached.is_some());
        let ranges = groups.iter().map(|(_, slot)| u64::from(slot.streams)).sum();
        let payload_bytes = groups.iter().map(|(_, slot)| slot.payload_bytes).sum();
        // All in memory: one window. Otherwise as many bytes at once as may be read back.
        let bytes_max = if resident { u64::MAX } else { options.upload_window_bytes_max };
        let mut windows: Vec<Vec<Lsn>> = Vec::new();
        let mut bytes = u64::MAX;
        for (first, slot) in with_entries() {
            bytes = bytes.saturating_add(slot.payload_bytes);
            if bytes > bytes_max || windows.is_empty() {
                windows.push(Vec::new());
                bytes = slot.payload_bytes;
            }
            windows.last_mut().expect("pushed above").push(*first);
        }
        let (starts, touched) = (BTreeMap::new(), BTreeSet::new());
        Self { first, end, windows, resident, payload_bytes, ranges, starts, touched, image }
    }

    /// False when the plan counted on groups in memory that have been evicted since.
    pub fn still_holds(&self, tail: &Tail) -> bool {
        !self.resident || self.windows.iter().flatten().all(|first| tail.get(*first).is_some())
    }

    /// The partitions whose entries are passed over, for metadata to agree to.
    pub fn left_out(&self) -> Vec<meta::command::LeftOut> {
        let gone = self.touched.iter().filter(|partition| self.is_deleted(**partition));
        let left_out =
            |id: &PartitionId| meta::command::LeftOut { topic: id.topic, index: id.index };
        gone.map(left_out).collect()
    }

    /// True when metadata does not know the partition's topic. Whether that means "deleted" is metadata's to say.
    pub fn is_deleted(&self, partition: PartitionId) -> bool {
        !self.image.topics.contains_key(&partition.topic)
    }
}

//! Floors of sinks on their way to metadata: they travel with upload commits.

use std::collections::BTreeMap;

use meta::command::SinkFloor;
use parking_lot::Mutex;

/// The newest floor of each (sink, partition) that no commit has carried yet. Bounded by the number of sinks' partitions.
#[derive(Default)]
pub(crate) struct Floors {
    waiting: Mutex<BTreeMap<(u64, u32), i64>>,
}

impl Floors {
    pub fn note(&self, sink: u64, partition: u32, floor: i64) {
        let mut waiting = self.waiting.lock();
        let at = waiting.entry((sink, partition)).or_insert(floor);
        *at = (*at).max(floor);
    }

    /// What waits; stays until [`Self::committed`].
    pub fn pending(&self) -> Vec<SinkFloor> {
        let floor = |(&(sink, partition), &floor): (&(u64, u32), &i64)| SinkFloor {
            sink,
            partition,
            floor,
        };
        self.waiting.lock().iter().map(floor).collect()
    }

    /// Forgets floors that a commit has carried.
    pub fn committed(&self, floors: &[SinkFloor]) {
        let mut waiting = self.waiting.lock();
        for carried in floors {
            let key = (carried.sink, carried.partition);
            if waiting.get(&key).is_some_and(|floor| *floor <= carried.floor) {
                waiting.remove(&key);
            }
        }
    }
}

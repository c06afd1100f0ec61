//! A metadata store for the simulation: ordered maps rebuilt from a journal of batches that a power cut tears.
//!
//! ```text
//! journal:  [length u32][crc-32c u32][batch] [length][crc][batch] ...
//!           <------- synced -------><--- written, may be lost, torn or damaged --->
//! ```
//!
//! A cut keeps what was synced and a random part of the rest; opening reads up to the first batch that is not whole. So a
//! loss is a suffix of the unsynced writes, as the trait demands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Rng, crc32c};
use futures::future::BoxFuture;
use meta::{Batch, Change, Frozen, MetaStore, Pair, Space, StoreError, View};
use parking_lot::Mutex;

use crate::trigger::{self, Trigger};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The medium: what survives a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MetaDisk {
    rng: Rng,
    medium: Arc<Mutex<Medium>>,
    trigger: Trigger,
}

#[derive(Debug, Default)]
struct Medium {
    journal: Vec<u8>,
    synced: usize,
    /// Raised by a cut; a store opened before it can no longer write.
    life: u64,
    writes_left: Option<u64>,
    cuts_torn: u64,
    /// One sync in so many takes half a second; 0 is never.
    stall_one_in: u64,
}

impl MetaDisk {
    /// An empty medium.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        Self { rng, medium: Arc::default(), trigger: Trigger::default() }
    }

    /// Passes the moments of `trigger`.
    #[must_use]
    pub fn with_trigger(self, trigger: Trigger) -> Self {
        Self { trigger, ..self }
    }

    /// Cuts the power: unsynced writes survive in part, the last survivor perhaps torn or damaged.
    pub fn power_cut(&self) {
        let mut medium = self.medium.lock();
        medium.life += 1;
        let unsynced = medium.journal.len() - medium.synced;
        let kept = medium.synced + below(&self.rng, unsynced + 1);
        let torn = kept > medium.synced && kept < medium.journal.len();
        medium.cuts_torn += u64::from(torn);
        medium.journal.truncate(kept);
        if kept > medium.synced && self.rng.one_in(4) {
            let at = medium.synced + below(&self.rng, kept - medium.synced);
            medium.journal[at] ^= 1 << self.rng.below(8);
        }
    }

    /// Ends the process only: every write survives, and a store opened before can no longer write.
    pub fn kill(&self) {
        self.medium.lock().life += 1;
    }

    /// After `writes` more writes the medium fails.
    pub fn fail_after(&self, writes: u64) {
        self.medium.lock().writes_left = Some(writes);
    }

    /// One sync in so many takes half a second from now on; 0 is never.
    pub fn stall_one_in(&self, n: u64) {
        self.medium.lock().stall_one_in = n;
    }

    /// The medium works again.
    pub fn repair(&self) {
        self.medium.lock().writes_left = None;
    }

    /// How often a cut has torn a write: an edge that a run should meet.
    #[must_use]
    pub fn cuts_torn(&self) -> u64 {
        self.medium.lock().cuts_torn
    }

    /// Opens the store: reads the journal up to the first batch that is not whole, and drops what lies behind.
    #[must_use]
    pub fn open(&self) -> SimMetaStore {
        let mut medium = self.medium.lock();
        let mut maps = Maps::default();
        let mut read = 0;
        while let Some((batch, length)) = next_batch(&medium.journal[read..]) {
            maps.write(batch);
            read += length;
        }
        medium.journal.truncate(read);
        medium.synced = read;
        SimMetaStore { disk: self.clone(), life: medium.life, maps }
    }
}

fn below(rng: &Rng, bound: usize) -> usize {
    let bound = u64::try_from(bound).expect("a usize fits 64 bits");
    usize::try_from(rng.below(bound)).expect("below a usize")
}

#[derive(Debug, Default)]
struct Maps {
    log: Map,
    state: Map,
}

impl Maps {
    fn map(&self, space: Space) -> &Map {
        match space {
            Space::Log => &self.log,
            Space::State => &self.state,
        }
    }

    fn write(&mut self, batch: Batch) {
        for change in batch.into_changes() {
            let space = match &change {
                Change::Put(space, ..) | Change::Delete(space, _) => *space,
                Change::DeleteRange(space, ..) => *space,
            };
            let map = match space {
                Space::Log => &mut self.log,
                Space::State => &mut self.state,
            };
            match change {
                Change::Put(_, key, value) => drop(map.insert(key, value)),
                Change::Delete(_, key) => drop(map.remove(&key)),
                Change::DeleteRange(_, start, end) => {
                    map.retain(|key, _| *key < start || *key >= end);
                }
            }
        }
    }
}

/// A store over a [`MetaDisk`]. Writes take simulated time.
#[derive(Debug)]
pub struct SimMetaStore {
    disk: MetaDisk,
    life: u64,
    maps: Maps,
}

impl SimMetaStore {
    fn append(&mut self, batch: Batch) -> Result<usize, StoreError> {
        let failed = |why: &str| Err(StoreError::new("write", why));
        let mut medium = self.disk.medium.lock();
        if medium.life != self.life {
            return failed("this process has ended");
        }
        match &mut medium.writes_left {
            Some(0) => return failed("input/output error"),
            Some(left) => *left -= 1,
            None => {}
        }
        let body = encode(&batch);
        let length =
            u32::try_from(body.len()).map_err(|_| StoreError::new("write", "too large"))?;
        medium.journal.extend_from_slice(&length.to_le_bytes());
        medium.journal.extend_from_slice(&crc32c(&body).to_le_bytes());
        medium.journal.extend_from_slice(&body);
        self.maps.write(batch);
        Ok(medium.journal.len())
    }

    async fn sync(&self, through: usize) -> Result<(), StoreError> {
        let stall_one_in = self.disk.medium.lock().stall_one_in;
        let stalls = self.disk.rng.one_in(stall_one_in);
        let micros = if stalls { 500_000 } else { 200 + self.disk.rng.below(2000) };
        tokio::time::sleep(Duration::from_micros(micros)).await;
        let mut medium = self.disk.medium.lock();
        if medium.life != self.life {
            return Err(StoreError::new("write", "this process has ended"));
        }
        medium.synced = medium.synced.max(through);
        Ok(())
    }
}

impl MetaStore for SimMetaStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.maps.map(space).get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let found = View::scan(self.maps.map(space), start, end, limit);
        found.map_err(|error| StoreError::new("read", error))
    }

    fn scan_back(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let found = View::scan_back(self.maps.map(space), start, end, limit);
        found.map_err(|error| StoreError::new("read", error))
    }

    fn freeze(&self) -> Result<Box<dyn Frozen>, StoreError> {
        Ok(Box::new(self.maps.state.clone()))
    }

    fn write(&mut self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let through = self.append(batch)?;
            self.disk.trigger.hit(trigger::META_WRITTEN);
            if !sync {
                return Ok(());
            }
            self.sync(through).await?;
            self.disk.trigger.hit(trigger::META_SYNCED);
            Ok(())
        })
    }
}

fn encode(batch: &Batch) -> Vec<u8> {
    let mut out = Vec::new();
    for change in batch.changes() {
        let (tag, space, first, second): (u8, _, &[u8], &[u8]) = match change {
            Change::Put(space, key, value) => (0, space, key, value),
            Change::Delete(space, key) => (1, space, key, &[]),
            Change::DeleteRange(space, start, end) => (2, space, start, end),
        };
        out.push(tag);
        out.push(u8::from(*space == Space::State));
        for part in [first, second] {
            let length = u32::try_from(part.len()).expect("a simulated value is small");
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(part);
        }
    }
    out
}

fn next_batch(journal: &[u8]) -> Option<(Batch, usize)> {
    let (length, rest) = take_u32(journal)?;
    let (crc, rest) = take_u32(rest)?;
    let length = usize::try_from(length).ok()?;
    let body = rest.get(..length)?;
    (crc32c(body) == crc).then(|| decode(body)).flatten().map(|batch| (batch, 8 + length))
}

fn decode(mut body: &[u8]) -> Option<Batch> {
    let mut batch = Batch::default();
    while let Some(([tag, space], rest)) = body.split_first_chunk::<2>() {
        let space = if *space == 0 { Space::Log } else { Space::State };
        let (first, rest) = take_bytes(rest)?;
        let (second, rest) = take_bytes(rest)?;
        match tag {
            0 => batch.put(space, first, second),
            1 => batch.delete(space, first),
            _ => batch.delete_range(space, first, second),
        }
        body = rest;
    }
    Some(batch)
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

fn take_bytes(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (length, rest) = take_u32(bytes)?;
    let length = usize::try_from(length).ok()?;
    Some((rest.get(..length)?.to_vec(), &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same suite as the real store's, with cuts that tear and damage.
    #[tokio::test(start_paused = true)]
    async fn holds_what_a_metadata_store_must() {
        let mut torn = 0;
        for seed in 0..50 {
            let disk = MetaDisk::new(Rng::seeded(seed));
            let mut reopen = |cut: bool| -> Box<dyn MetaStore> {
                if cut {
                    disk.power_cut();
                }
                Box::new(disk.open())
            };
            meta::conformance::run(&mut reopen).await;
            torn += disk.cuts_torn();
        }
        assert!(torn > 100, "cuts hardly ever tore a write: {torn}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_has_ended_writes_nothing() {
        let disk = MetaDisk::new(Rng::seeded(1));
        let mut store = disk.open();
        disk.kill();
        let mut batch = Batch::default();
        batch.put(Space::Log, vec![1], vec![1]);
        assert!(store.write(batch, true).await.is_err());
        assert_eq!(disk.open().get(Space::Log, &[1]).expect("read"), None);
    }
}

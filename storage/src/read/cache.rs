//! The block cache: blocks and indexes of objects, and groups read back from the log. Bounded by bytes; each entry is
//! also counted in the process's budget for as long as anybody holds it.
//!
//! ```text
//!            hot: half of the bytes            scans: a share for each class, first in, first out
//! index ---> [ least useful goes first ] <---- [ catch-up: 1/4 ][ sink: 1/8 ][ compaction: 1/8 ] <--- block, group
//!                                        read again after it was passed
//! ```
//! A scan reads each block once, perhaps in several bites: its blocks stay in the share of its class and push out only
//! older blocks of the same class. What a second reader wants after the first has passed it is hot.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use common::{Lsn, ObjectId, Reservation};
use parking_lot::Mutex;
use quick_cache::OptionsBuilder;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::object::{Block, ObjectIndex};
use crate::tail::TailGroup;
use crate::types::Class;

/// Counted for each entry beside its value: key, handles and links of the maps.
const ENTRY_OVERHEAD_BYTES: u64 = 192;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    /// The block at a position of an object.
    Block(ObjectId, u64),
    /// Footer and block index of an object.
    Index(ObjectId),
    /// A group of the log.
    Group(Lsn),
}

/// A value and the memory it takes.
pub(super) struct Held<T> {
    pub value: T,
    pub held: Reservation,
}

#[derive(Clone)]
pub(super) enum Cached {
    Block(Arc<Held<Block>>),
    Index(Arc<Held<ObjectIndex>>),
    Group(Arc<TailGroup>),
    #[cfg(test)]
    Bytes(u64),
}

impl Cached {
    fn bytes(&self) -> u64 {
        let value = match self {
            Self::Block(block) => block.held.bytes(),
            Self::Index(index) => index.held.bytes(),
            Self::Group(group) => group.bytes_held(),
            #[cfg(test)]
            Self::Bytes(bytes) => *bytes,
        };
        value + ENTRY_OVERHEAD_BYTES
    }
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Key, Cached> for Weight {
    fn weight(&self, _key: &Key, value: &Cached) -> u64 {
        value.bytes()
    }
}

// A hasher without a random seed: what is evicted must repeat under a seed of the simulation.
type Hasher = BuildHasherDefault<DefaultHasher>;

/// What one class has read lately, oldest first.
#[derive(Default)]
struct Scan {
    entries: BTreeMap<Key, (Cached, bool)>,
    order: VecDeque<Key>,
    bytes: u64,
    // On their way from the store.
    expected: u64,
    bytes_max: u64,
}

impl Scan {
    fn evict_to(&mut self, bytes_max: u64) {
        while self.bytes + self.expected > bytes_max {
            let Some(key) = self.order.pop_front() else { return };
            self.forget(&key);
        }
    }

    fn insert(&mut self, key: Key, value: Cached) {
        self.remove(&key);
        self.bytes += value.bytes();
        self.entries.insert(key, (value, false));
        self.order.push_back(key);
        self.evict_to(self.bytes_max);
    }

    fn forget(&mut self, key: &Key) -> Option<Cached> {
        let (value, _) = self.entries.remove(key)?;
        self.bytes -= value.bytes();
        Some(value)
    }

    fn remove(&mut self, key: &Key) -> Option<Cached> {
        let value = self.forget(key)?;
        self.order.retain(|other| other != key);
        Some(value)
    }
}

pub(crate) struct BlockCache {
    hot: Cache<Key, Cached, Weight, Hasher>,
    hot_bytes_max: u64,
    // By class. Held for a few map operations.
    scans: Mutex<[Scan; 4]>,
}

/// Bytes on their way, which count in their class's share until this is dropped.
pub(super) struct Expected<'a> {
    cache: &'a BlockCache,
    class: Class,
    bytes: u64,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.cache.scans.lock()[self.class as usize].expected -= self.bytes;
    }
}

impl BlockCache {
    pub fn new(bytes_max: u64) -> Self {
        let hot_bytes_max = bytes_max / 2;
        let estimated = usize::try_from(hot_bytes_max / (256 << 10)).unwrap_or(usize::MAX).max(16);
        // One shard: an entry can be as large as a shard's share, not larger.
        let options = OptionsBuilder::new()
            .shards(1)
            .estimated_items_capacity(estimated)
            .weight_capacity(hot_bytes_max)
            .build()
            .expect("all that is needed is set");
        let hot =
            Cache::with_options(options, Weight, Hasher::default(), DefaultLifecycle::default());
        let cache = Self { hot, hot_bytes_max, scans: Mutex::default() };
        for (class, scan) in Class::ALL.into_iter().zip(cache.scans.lock().iter_mut()) {
            scan.bytes_max = share(bytes_max, class);
        }
        cache
    }

    pub(super) fn get(&self, key: &Key) -> Option<Cached> {
        if let Some(found) = self.hot.get(key) {
            return Some(found);
        }
        let mut scans = self.scans.lock();
        let scan = scans.iter_mut().find(|scan| scan.entries.contains_key(key))?;
        let (value, passed) = scan.entries.get(key)?;
        if !*passed {
            return Some(value.clone());
        }
        let value = scan.remove(key)?;
        drop(scans);
        self.hot.insert(*key, value.clone());
        Some(value)
    }

    /// Keeps what `class` has read. Indexes, and what opens a partition, are hot at once.
    pub(super) fn insert(&self, key: Key, value: Cached, class: Class) {
        if class == Class::Tail || matches!(key, Key::Index(_)) {
            self.hot.insert(key, value);
        } else {
            self.scans.lock()[class as usize].insert(key, value);
        }
    }

    /// A reader went past the end of the entry.
    pub(super) fn passed(&self, key: &Key) {
        for scan in self.scans.lock().iter_mut() {
            if let Some((_, passed)) = scan.entries.get_mut(key) {
                *passed = true;
            }
        }
    }

    pub(super) fn remove(&self, key: &Key) {
        self.hot.remove(key);
        for scan in self.scans.lock().iter_mut() {
            scan.remove(key);
        }
    }

    /// Makes room in the share of `class` for bytes on their way.
    pub(super) fn expect(&self, class: Class, bytes: u64) -> Expected<'_> {
        let mut scans = self.scans.lock();
        let scan = &mut scans[class as usize];
        scan.expected += bytes;
        scan.evict_to(scan.bytes_max);
        Expected { cache: self, class, bytes }
    }

    /// Bytes that `class` may read ahead, all its readers together.
    pub(super) fn share(&self, class: Class) -> u64 {
        self.scans.lock()[class as usize].bytes_max
    }

    pub fn bytes(&self) -> u64 {
        self.hot.weight() + self.scans.lock().iter().map(|scan| scan.bytes).sum::<u64>()
    }

    /// Gives back about `bytes`: what was scanned first, then what is coldest. The bound rises again with
    /// [`Self::grow`].
    pub fn shrink(&self, bytes: u64) {
        let mut left = bytes;
        for scan in self.scans.lock().iter_mut().rev() {
            let before = scan.bytes;
            scan.evict_to((before + scan.expected).saturating_sub(left));
            left = left.saturating_sub(before - scan.bytes);
        }
        if left > 0 {
            let target = self.hot.weight().saturating_sub(left).max(self.hot_bytes_max / 16);
            self.hot.set_capacity(target);
        }
    }

    /// Back to the full bound.
    pub fn grow(&self) {
        if self.hot.capacity() < self.hot_bytes_max {
            self.hot.set_capacity(self.hot_bytes_max);
        }
    }
}

/// The part of `bytes_max` that holds what `class` has scanned; the rest is hot.
fn share(bytes_max: u64, class: Class) -> u64 {
    match class {
        Class::Tail => 0,
        Class::CatchUp => bytes_max / 4,
        Class::Sink | Class::Compaction => bytes_max / 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 1 << 20;

    fn key(object: u64, block: u64) -> Key {
        Key::Block(ObjectId(object), block)
    }

    fn read(cache: &BlockCache, key: Key, class: Class) -> bool {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.insert(key, Cached::Bytes(BLOCK), class);
        }
        // Several bites of one block are no second reader.
        for _ in 0..3 {
            assert!(cache.get(&key).is_some());
        }
        cache.passed(&key);
        hit
    }

    #[test]
    fn a_scan_of_ten_times_the_cache_leaves_what_is_hot() {
        let cache = BlockCache::new(32 << 20);
        for round in 0..3 {
            for block in 0..7 {
                assert_eq!(
                    read(&cache, key(1, block), Class::CatchUp),
                    round > 0,
                    "{round} {block}"
                );
            }
        }
        for block in 0..320 {
            assert!(!read(&cache, key(2, block), Class::CatchUp));
            assert!(!read(&cache, key(3, block), Class::Sink));
            assert!(cache.bytes() <= 32 << 20);
        }
        let kept = (0..7).filter(|block| cache.get(&key(1, *block)).is_some()).count();
        assert_eq!(kept, 7, "hot blocks outlive a scan");
        assert!(cache.get(&key(2, 319)).is_some(), "a scan keeps its newest blocks");
        assert!(cache.get(&key(2, 0)).is_none());
    }

    #[test]
    fn classes_push_out_their_own_blocks_only_and_bytes_on_their_way_count() {
        let cache = BlockCache::new(32 << 20);
        for block in 0..3 {
            cache.insert(key(1, block), Cached::Bytes(BLOCK), Class::Sink);
        }
        for block in 0..100 {
            cache.insert(key(2, block), Cached::Bytes(BLOCK), Class::CatchUp);
        }
        assert!((0..3).all(|block| cache.get(&key(1, block)).is_some()));
        let before = cache.bytes();
        let coming = cache.expect(Class::CatchUp, 4 << 20);
        assert!(cache.bytes() + (4 << 20) <= before + BLOCK);
        drop(coming);
        cache.shrink(u64::MAX);
        assert_eq!(cache.bytes(), 0);
    }
}

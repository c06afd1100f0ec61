//! The block cache: blocks and indexes of objects, and groups read back from the log. Bounded by bytes; each entry is
//! also counted in the process's budget for as long as anybody holds it.

use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use common::{Lsn, ObjectId, Reservation};
use quick_cache::OptionsBuilder;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::object::{Block, ObjectIndex};
use crate::tail::TailGroup;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
}

impl Cached {
    fn bytes(&self) -> u64 {
        match self {
            Self::Block(block) => block.held.bytes(),
            Self::Index(index) => index.held.bytes(),
            Self::Group(group) => group.bytes_held(),
        }
    }
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Key, Cached> for Weight {
    fn weight(&self, _key: &Key, value: &Cached) -> u64 {
        value.bytes().max(1)
    }
}

// A hasher without a random seed: what is evicted must repeat under a seed of the simulation.
type Hasher = BuildHasherDefault<DefaultHasher>;

pub(crate) struct BlockCache {
    cache: Cache<Key, Cached, Weight, Hasher>,
    bytes_max: u64,
}

impl BlockCache {
    pub fn new(bytes_max: u64) -> Self {
        let estimated = usize::try_from(bytes_max / (256 << 10)).unwrap_or(usize::MAX).max(16);
        // Few shards: an entry can be as large as a shard's share, not larger.
        let options = OptionsBuilder::new()
            .shards(2)
            .estimated_items_capacity(estimated)
            .weight_capacity(bytes_max)
            .build()
            .expect("all that is needed is set");
        let cache =
            Cache::with_options(options, Weight, Hasher::default(), DefaultLifecycle::default());
        Self { cache, bytes_max }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Cached> {
        self.cache.get(key)
    }

    pub(super) fn insert(&self, key: Key, value: Cached) {
        self.cache.insert(key, value);
    }

    pub(super) fn remove(&self, key: &Key) {
        self.cache.remove(key);
    }

    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }

    /// Gives back about `bytes` by evicting what is coldest; the bound rises again with [`Self::grow`].
    pub fn shrink(&self, bytes: u64) {
        let target = self.cache.weight().saturating_sub(bytes).max(self.bytes_max / 16);
        self.cache.set_capacity(target);
    }

    /// Back to the full bound.
    pub fn grow(&self) {
        if self.cache.capacity() < self.bytes_max {
            self.cache.set_capacity(self.bytes_max);
        }
    }
}

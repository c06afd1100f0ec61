//! Buffers of large requests, reused: fresh memory costs the kernel as much as the copy of the request itself.
//!
//! A buffer belongs to one frame and comes back when the last slice of it is dropped. Free buffers count in the memory
//! budget; those that nobody used for a while are given back to the system.

use std::sync::Arc;

use bytes::Bytes;
use common::{Budget, Reservation};
use parking_lot::Mutex;

/// Capacities: a power of two and a little, so that a batch of a round size and its request head fit.
const CLASSES: [usize; 5] = [128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20];
const SLACK: usize = 64 << 10;

/// A bounded pool. Cheap to clone; all clones are one pool.
#[derive(Clone, Debug)]
pub(crate) struct Buffers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Held for a push or a pop.
    free: Mutex<Free>,
    memory: Budget,
    idle_bytes_max: u64,
}

#[derive(Debug, Default)]
struct Free {
    classes: [Class; CLASSES.len()],
    bytes: u64,
}

#[derive(Debug, Default)]
struct Class {
    buffers: Vec<(Vec<u8>, Reservation)>,
    /// Fewest buffers since the last trim: so many were not needed.
    unused: usize,
}

/// A buffer on its way back.
struct Lent {
    bytes: Vec<u8>,
    pool: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.bytes));
    }
}

impl Buffers {
    /// A pool that keeps `idle_bytes_max` free bytes at most.
    pub fn new(memory: Budget, idle_bytes_max: u64) -> Self {
        Self(Arc::new(Inner { free: Mutex::default(), memory, idle_bytes_max }))
    }

    /// An empty buffer for `length` bytes.
    pub fn take(&self, length: usize) -> Vec<u8> {
        let Some(class) = class_of(length) else { return Vec::with_capacity(length) };
        let found = {
            let mut free = self.0.free.lock();
            let found = free.classes[class].buffers.pop();
            let left = free.classes[class].buffers.len();
            free.classes[class].unused = free.classes[class].unused.min(left);
            free.bytes -= found.as_ref().map_or(0, |(_, held)| held.bytes());
            found
        };
        found.map_or_else(|| Vec::with_capacity(CLASSES[class] + SLACK), |(bytes, _)| bytes)
    }

    /// The whole buffer as shared bytes; it comes back here in the end.
    pub fn share(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, pool: self.clone() })
    }

    /// Takes a buffer back.
    pub fn give(&self, mut bytes: Vec<u8>) {
        let class = CLASSES.iter().position(|size| size + SLACK == bytes.capacity());
        let overdrawn = self.0.memory.used() > self.0.memory.bytes_max();
        let Some(class) = class.filter(|_| !overdrawn) else { return };
        bytes.clear();
        let size = (CLASSES[class] + SLACK) as u64;
        let mut free = self.0.free.lock();
        if free.bytes + size <= self.0.idle_bytes_max {
            free.bytes += size;
            free.classes[class].buffers.push((bytes, self.0.memory.force(size)));
        }
    }

    /// Gives back what was not used since the last call.
    pub fn trim(&self) {
        let mut spare = Vec::new();
        {
            let mut free = self.0.free.lock();
            for class in 0..CLASSES.len() {
                let kept = free.classes[class].buffers.len() - free.classes[class].unused;
                spare.extend(free.classes[class].buffers.drain(kept..));
                free.classes[class].unused = kept;
            }
            free.bytes -= spare.iter().map(|(_, held)| held.bytes()).sum::<u64>();
        }
        drop(spare);
    }

    /// Bytes of free buffers.
    pub fn idle_bytes(&self) -> u64 {
        self.0.free.lock().bytes
    }
}

fn class_of(length: usize) -> Option<usize> {
    CLASSES.iter().position(|size| length <= size + SLACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice_within_the_bound() {
        let memory = Budget::new(u64::MAX);
        let size = (1 << 20) + (64 << 10);
        let pool = Buffers::new(memory.clone(), size + 1);
        let mut first = pool.take(1_000_100);
        first.extend_from_slice(&[7; 100]);
        let at = first.as_ptr();
        let second = pool.share(pool.take(1_000_100));
        let slice = pool.share(first).slice(50..60);
        assert_eq!((pool.idle_bytes(), slice[0]), (0, 7));
        drop(slice);
        assert_eq!((pool.idle_bytes(), memory.used()), (size, size));
        drop(second);
        assert_eq!(pool.idle_bytes(), size, "one more is above the bound");
        let again = pool.take(600_000);
        assert_eq!((again.as_ptr(), again.len(), memory.used()), (at, 0, 0));
        // A class of its own, and none at all.
        assert!(pool.take(200_000).capacity() < 600_000);
        assert_eq!(pool.take(50 << 20).capacity(), 50 << 20);
    }

    #[test]
    fn what_nobody_used_is_given_back_and_an_overdrawn_budget_keeps_nothing() {
        let memory = Budget::new(4 << 20);
        let pool = Buffers::new(memory.clone(), 16 << 20);
        let (first, second) = (pool.take(100_000), pool.take(100_000));
        pool.give(first);
        pool.give(second);
        let both = pool.idle_bytes();
        pool.trim();
        assert_eq!(pool.idle_bytes(), both, "used since the last trim");
        let one = pool.take(100_000);
        pool.give(one);
        pool.trim();
        assert_eq!(pool.idle_bytes(), both / 2);
        let past = memory.force(5 << 20);
        let one = pool.take(100_000);
        pool.give(one);
        assert_eq!(pool.idle_bytes(), 0);
        drop(past);
    }
}

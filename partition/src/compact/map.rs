//! The last offset of each key, in bounded memory.

use bytes::Bytes;

use super::hash::KeyHash;
use super::transactions::{AbortedTransaction, Transactions};
use super::{Error, unreadable};
use crate::records::BatchReader;

/// The first size of the table, in slots.
const SLOTS_MIN: usize = 1 << 10;
/// A slot without a key.
const EMPTY: i64 = -1;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

/// Keys by hash, and the last offset of each. An open table of 24-byte slots that doubles at three quarters.
#[derive(Debug)]
pub struct OffsetMap {
    hash: KeyHash,
    slots: Vec<Slot>,
    len: usize,
}

impl OffsetMap {
    /// An empty map.
    #[must_use]
    pub fn new(hash: KeyHash) -> Self {
        let slots = vec![Slot { hash: [0; 2], offset: EMPTY }; SLOTS_MIN];
        Self { hash, slots, len: 0 }
    }

    /// Keys in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.slots.len() * std::mem::size_of::<Slot>()) as u64
    }

    /// The last offset of `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = &self.slots[self.find(self.hash.of(key))];
        (slot.offset != EMPTY).then_some(slot.offset)
    }

    /// Notes that `key` stands at `offset`, which lies behind every offset noted for it before.
    pub fn put(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash.of(key);
        let at = self.find(hash);
        if self.slots[at].offset == EMPTY {
            self.len += 1;
        }
        self.slots[at] = Slot { hash, offset };
        if self.len * 4 > self.slots.len() * 3 {
            self.grow();
        }
    }

    /// The slot of `hash`: its own or the empty one where it would go.
    fn find(&self, hash: [u64; 2]) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = usize::try_from(hash[0] & mask as u64).expect("masked to a length");
        while self.slots[at].offset != EMPTY && self.slots[at].hash != hash {
            at = (at + 1) & mask;
        }
        at
    }

    fn grow(&mut self) {
        let empty = Slot { hash: [0; 2], offset: EMPTY };
        let double = vec![empty; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, double) {
            if slot.offset != EMPTY {
                let at = self.find(slot.hash);
                self.slots[at] = slot;
            }
        }
    }
}

/// Whether a map takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grown {
    /// It takes the next batch.
    More,
    /// The batch was not taken: the pass ends before it.
    Full,
}

/// Builds a map from the batches of the dirty part.
#[derive(Debug)]
pub struct Builder {
    map: OffsetMap,
    transactions: Transactions,
    keys_max: usize,
    until: i64,
    end: i64,
}

impl Builder {
    /// A map of `[from, until)`, of about `keys_max` keys at most. `aborted` are the transactions with records in there.
    #[must_use]
    pub fn new(
        hash: KeyHash,
        aborted: &[AbortedTransaction],
        keys_max: usize,
        from: i64,
        until: i64,
    ) -> Self {
        let transactions = Transactions::new(aborted);
        Self { map: OffsetMap::new(hash), transactions, keys_max, until, end: from }
    }

    /// Takes the next batch. One that holds more keys than are left is not taken, unless it is the first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn batch(&mut self, offset: i64, bytes: &Bytes) -> Result<Grown, Error> {
        let reader = BatchReader::open(bytes).map_err(|error| unreadable(offset, &error))?;
        let header = reader.header();
        if header.last_offset() >= self.until {
            return Ok(Grown::Full);
        }
        let count = usize::try_from(header.record_count).unwrap_or(0);
        if !self.map.is_empty() && self.map.len() + count > self.keys_max {
            return Ok(Grown::Full);
        }
        let decided = if header.attributes.control() {
            self.transactions.marker(&reader)?;
            true
        } else {
            self.transactions.is_aborted(header)
        };
        if !decided {
            for record in reader.records() {
                let record = record.map_err(|error| unreadable(offset, &error))?;
                if let Some(key) = record.key {
                    self.map.put(key, record.offset);
                }
            }
        }
        self.end = self.end.max(header.last_offset().saturating_add(1));
        Ok(Grown::More)
    }

    /// Notes that nothing lies below `next`: a hole was crossed.
    pub fn cross(&mut self, next: i64) {
        self.end = self.end.max(next.min(self.until));
    }

    /// The map, and the offset below which it knows every key.
    #[must_use]
    pub fn finish(self) -> (OffsetMap, i64) {
        (self.map, self.end)
    }

    /// Bytes that the map takes by now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.map.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use common::Rng;

    use super::*;

    #[test]
    fn it_is_a_map_of_last_offsets() {
        let rng = Rng::seeded(4);
        let mut map = OffsetMap::new(KeyHash::random(&rng));
        let mut model = BTreeMap::new();
        for offset in 0..20_000 {
            let key = rng.below(6000).to_be_bytes();
            map.put(&key, offset);
            model.insert(key, offset);
        }
        assert_eq!(map.len(), model.len());
        assert!(model.iter().all(|(key, offset)| map.get(key) == Some(*offset)));
        assert_eq!(map.get(b"another"), None);
        assert!(map.bytes() <= 24 * 16_384);
    }
}

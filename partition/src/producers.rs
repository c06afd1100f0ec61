//! What a partition remembers of its idempotent producers: the last five batches of each.
//!
//! The rules are those of Kafka's `ProducerStateManager` and `ProducerAppendInfo`. Batches enter when they are queued
//! on the log, so the newest may not be durable yet; whoever shows this state compares offsets with the high watermark.

use std::collections::{BTreeMap, VecDeque};

/// Batches remembered of a producer: as many as an idempotent client keeps in flight.
pub const BATCHES_MAX: usize = 5;

/// A batch of an idempotent producer, as its header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequenced {
    /// Id of the producer, 0 or more.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record.
    pub first_sequence: i32,
    /// Offset of the last record relative to the first.
    pub last_offset_delta: i32,
}

impl Sequenced {
    /// Sequence of the last record; after 2^31 - 1 comes 0.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        add_sequence(self.first_sequence, self.last_offset_delta)
    }
}

/// A remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchMemory {
    /// Epoch it was written with.
    pub epoch: i16,
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
    /// Append time answered for it, or -1 under create time.
    pub log_append_time: i64,
}

/// One producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producer {
    /// Newest epoch.
    pub epoch: i16,
    /// Wall time of its last append, milliseconds since 1970.
    pub last_append_ms: i64,
    /// Its last batches, oldest first, at most [`BATCHES_MAX`].
    pub batches: VecDeque<BatchMemory>,
    used: u64,
}

impl Producer {
    /// A producer as a snapshot tells it.
    #[must_use]
    pub fn remembered(epoch: i16, last_append_ms: i64, batches: VecDeque<BatchMemory>) -> Self {
        Self { epoch, last_append_ms, batches, used: 0 }
    }

    /// The newest batch that lies below `high_watermark`.
    #[must_use]
    pub fn newest_below(&self, high_watermark: i64) -> Option<&BatchMemory> {
        self.batches.iter().rev().find(|batch| batch.last_offset < high_watermark)
    }
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Append it.
    Append,
    /// It is a repeat of this one: append nothing, answer with the old offset once that is durable.
    Duplicate(BatchMemory),
    /// The producer has a newer epoch.
    Fenced {
        /// That epoch.
        current: i16,
    },
    /// It does not follow the last one.
    OutOfOrder {
        /// The sequence that would.
        expected: i32,
    },
}

/// All producers of one partition, at most `producers_max`; the one that appended longest ago is forgotten first.
#[derive(Debug)]
pub struct Producers {
    producers: BTreeMap<i64, Producer>,
    // (use, producer id): the first is the one used longest ago.
    by_use: BTreeMap<u64, i64>,
    uses: u64,
    producers_max: usize,
}

impl Producers {
    /// None yet.
    #[must_use]
    pub fn new(producers_max: usize) -> Self {
        let producers_max = producers_max.max(1);
        Self { producers: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, producers_max }
    }

    /// How many are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True when none is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }

    /// The producers by ascending id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.producers.iter().map(|(id, producer)| (*id, producer))
    }

    /// The producers, the one that appended longest ago first: the order a snapshot keeps.
    pub fn iter_by_use(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.by_use.values().map(|id| {
            (*id, self.producers.get(id).expect("every use belongs to a remembered producer"))
        })
    }

    /// Judges `batch`. Changes nothing.
    #[must_use]
    pub fn check(&self, batch: &Sequenced) -> Verdict {
        // The state of a producer that is not known may have expired: any sequence is a beginning.
        let Some(producer) = self.producers.get(&batch.producer_id) else {
            return Verdict::Append;
        };
        if batch.epoch < producer.epoch {
            return Verdict::Fenced { current: producer.epoch };
        }
        if batch.epoch > producer.epoch {
            return match batch.first_sequence {
                0 => Verdict::Append,
                _ => Verdict::OutOfOrder { expected: 0 },
            };
        }
        let last_sequence = batch.last_sequence();
        let original = producer.batches.iter().find(|old| {
            old.epoch == batch.epoch
                && old.first_sequence == batch.first_sequence
                && old.last_sequence == last_sequence
        });
        if let Some(original) = original {
            return Verdict::Duplicate(*original);
        }
        let newest = producer.batches.back().filter(|newest| newest.epoch == batch.epoch);
        let expected = newest.map_or(0, |newest| add_sequence(newest.last_sequence, 1));
        if batch.first_sequence == expected {
            Verdict::Append
        } else {
            Verdict::OutOfOrder { expected }
        }
    }

    /// Notes a batch that was queued at `base_offset`. Returns how many producers were forgotten for it.
    pub fn note(
        &mut self,
        batch: &Sequenced,
        base_offset: i64,
        log_append_time: i64,
        now_ms: i64,
    ) -> usize {
        let memory = BatchMemory {
            epoch: batch.epoch,
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence(),
            base_offset,
            last_offset: base_offset + i64::from(batch.last_offset_delta),
            log_append_time,
        };
        let producer = self.producers.entry(batch.producer_id).or_default();
        producer.epoch = batch.epoch;
        producer.last_append_ms = now_ms;
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(memory);
        self.touch(batch.producer_id);
        self.trim()
    }

    /// Puts back a producer from a snapshot; the order of the calls is the order of use.
    pub fn restore(&mut self, producer_id: i64, producer: Producer) {
        if let Some(old) = self.producers.insert(producer_id, producer) {
            self.by_use.remove(&old.used);
        }
        self.touch(producer_id);
        self.trim();
    }

    /// Forgets producers whose last append lies before `before_ms` and whose batches are durable (last offset below
    /// `high_watermark`). Returns how many.
    pub fn expire(&mut self, before_ms: i64, high_watermark: i64) -> usize {
        let gone: Vec<i64> = self
            .producers
            .iter()
            .filter(|(_, p)| p.last_append_ms < before_ms && durable(p, high_watermark))
            .map(|(id, _)| *id)
            .collect();
        for id in &gone {
            self.forget(*id);
        }
        gone.len()
    }

    /// Forgets the producer that appended longest ago, but never the newest one.
    pub fn forget_oldest(&mut self) -> bool {
        if self.producers.len() < 2 {
            return false;
        }
        let Some(id) = self.by_use.values().next().copied() else { return false };
        self.forget(id);
        true
    }

    fn forget(&mut self, id: i64) {
        if let Some(producer) = self.producers.remove(&id) {
            self.by_use.remove(&producer.used);
        }
    }

    fn touch(&mut self, id: i64) {
        let producer = self.producers.get_mut(&id).expect("touched after it was inserted");
        self.by_use.remove(&producer.used);
        self.uses += 1;
        producer.used = self.uses;
        self.by_use.insert(self.uses, id);
    }

    fn trim(&mut self) -> usize {
        let mut forgotten = 0;
        while self.producers.len() > self.producers_max && self.forget_oldest() {
            forgotten += 1;
        }
        forgotten
    }
}

fn durable(producer: &Producer, high_watermark: i64) -> bool {
    producer.batches.back().is_none_or(|newest| newest.last_offset < high_watermark)
}

/// `sequence` plus `delta` where 2^31 - 1 is followed by 0.
fn add_sequence(sequence: i32, delta: i32) -> i32 {
    sequence.checked_add(delta).unwrap_or_else(|| delta - (i32::MAX - sequence) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_id: i64, epoch: i16, first_sequence: i32, records: i32) -> Sequenced {
        Sequenced { producer_id, epoch, first_sequence, last_offset_delta: records - 1 }
    }

    fn noted(producers: &mut Producers, batch: Sequenced, base_offset: i64) {
        assert_eq!(producers.check(&batch), Verdict::Append);
        producers.note(&batch, base_offset, -1, base_offset);
    }

    #[test]
    fn only_the_last_five_batches_are_known_as_duplicates() {
        let mut producers = Producers::new(10);
        for n in 0..7 {
            noted(&mut producers, batch(1, 0, n * 2, 2), i64::from(n) * 2);
        }
        for n in 2..7 {
            let Verdict::Duplicate(old) = producers.check(&batch(1, 0, n * 2, 2)) else {
                panic!("batch {n} is forgotten");
            };
            assert_eq!(
                (old.base_offset, old.last_offset),
                (i64::from(n) * 2, i64::from(n) * 2 + 1)
            );
        }
        assert_eq!(producers.check(&batch(1, 0, 2, 2)), Verdict::OutOfOrder { expected: 14 });
        // The same first sequence with another length is no repeat.
        assert_eq!(producers.check(&batch(1, 0, 12, 1)), Verdict::OutOfOrder { expected: 14 });
        assert_eq!(producers.check(&batch(1, 0, 15, 1)), Verdict::OutOfOrder { expected: 14 });
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::new(10);
        noted(&mut producers, batch(1, 3, i32::MAX - 1, 1), 0);
        let wrapping = batch(1, 3, i32::MAX, 3);
        assert_eq!(wrapping.last_sequence(), 1);
        noted(&mut producers, wrapping, 1);
        assert!(matches!(producers.check(&wrapping), Verdict::Duplicate(_)));
        noted(&mut producers, batch(1, 3, 2, 1), 4);
        let mut edge = Producers::new(10);
        noted(&mut edge, batch(1, 0, i32::MAX, 1), 0);
        noted(&mut edge, batch(1, 0, 0, 1), 1);
    }

    #[test]
    fn epochs_fence_and_begin_at_zero() {
        let mut producers = Producers::new(10);
        noted(&mut producers, batch(1, 5, 40, 1), 0);
        assert_eq!(producers.check(&batch(1, 4, 41, 1)), Verdict::Fenced { current: 5 });
        assert_eq!(producers.check(&batch(1, 6, 41, 1)), Verdict::OutOfOrder { expected: 0 });
        noted(&mut producers, batch(1, 6, 0, 1), 1);
        assert_eq!(producers.check(&batch(1, 5, 40, 1)), Verdict::Fenced { current: 6 });
        assert!(matches!(producers.check(&batch(1, 6, 0, 1)), Verdict::Duplicate(_)));
    }

    #[test]
    fn at_the_cap_the_producer_that_wrote_longest_ago_is_forgotten() {
        let mut producers = Producers::new(2);
        noted(&mut producers, batch(1, 0, 0, 1), 0);
        noted(&mut producers, batch(2, 0, 0, 1), 1);
        noted(&mut producers, batch(1, 0, 1, 1), 2);
        assert_eq!(producers.note(&batch(3, 0, 0, 1), 3, -1, 3), 1);
        let ids: Vec<i64> = producers.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [1, 3]);
        let by_use: Vec<i64> = producers.iter_by_use().map(|(id, _)| id).collect();
        assert_eq!(by_use, [1, 3]);
        // A forgotten producer begins anywhere.
        assert_eq!(producers.check(&batch(2, 0, 77, 1)), Verdict::Append);
    }

    #[test]
    fn only_idle_and_durable_producers_expire() {
        let mut producers = Producers::new(10);
        noted(&mut producers, batch(1, 0, 0, 1), 100);
        noted(&mut producers, batch(2, 0, 0, 1), 101);
        noted(&mut producers, batch(3, 0, 0, 1), 200);
        assert_eq!(producers.expire(150, 101), 1);
        let ids: Vec<i64> = producers.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [2, 3]);
        assert!(producers.iter().all(|(_, p)| p.newest_below(101).is_none()));
        assert_eq!(producers.len(), producers.iter_by_use().count());
    }
}

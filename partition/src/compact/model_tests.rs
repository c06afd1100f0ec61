//! Random logs, compacted again and again, against what a consumer must see.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use common::Rng;
use protocol::batch::{ControlType, EndTransactionMarker, Header};
use protocol::compression::Codec;

use super::*;
use crate::records::BatchReader;

type Key = Vec<u8>;
type Value = Option<Vec<u8>>;

const DELETE_RETENTION_MS: i64 = 1000;
const TRANSACTIONAL: i64 = 10;

/// A log and what was done to it.
struct World {
    rng: Rng,
    now_ms: i64,
    log: BTreeMap<i64, Bytes>,
    end: i64,
    /// Undone transactions: producer, first offset, offset of the marker.
    aborted: Vec<(i64, i64, i64)>,
    /// First offset of the open transaction of a producer.
    open: BTreeMap<i64, i64>,
    sequences: BTreeMap<i64, i32>,
    last: BTreeMap<i64, LastOfProducer>,
    clean_end: i64,
    /// When a tombstone was first compacted, by offset.
    tombstones: BTreeMap<i64, i64>,
}

/// A committed record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    key: Key,
    value: Value,
    timestamp: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: Rng::seeded(seed),
            now_ms: 1_000_000,
            log: BTreeMap::new(),
            end: 0,
            aborted: Vec::new(),
            open: BTreeMap::new(),
            sequences: BTreeMap::new(),
            last: BTreeMap::new(),
            clean_end: 0,
            tombstones: BTreeMap::new(),
        }
    }

    fn below(&self, bound: i64) -> i64 {
        i64::try_from(self.rng.below(bound.unsigned_abs())).expect("small")
    }

    fn produce(&mut self) {
        let producer = self.below(14) - 2;
        let codec = Codec::ALL[usize::try_from(self.rng.below(5)).expect("small")];
        let mut builder = protocol::batch::Builder::new().codec(codec).base_offset(self.end);
        let count = 1 + self.below(5);
        if producer >= 0 {
            let sequence = self.sequences.entry(producer).or_insert(0);
            builder = builder.producer(producer, 0, *sequence);
            *sequence += i32::try_from(count).expect("small");
        }
        if producer >= TRANSACTIONAL {
            builder = builder.transactional();
            self.open.entry(producer).or_insert(self.end);
        }
        for at in 0..count {
            let key = [u8::try_from(self.rng.below(8)).expect("small")];
            let value = (self.end + at).to_be_bytes();
            let value = (!self.rng.one_in(4)).then_some(&value[..]);
            builder.push(self.now_ms, Some(&key), value, &[(b"h", Some(b"1")), (b"h", None)]);
        }
        if producer >= 0 {
            let last_offset = Some(self.end + count - 1);
            self.last.insert(producer, LastOfProducer { last_offset, epoch: 0 });
        }
        self.log.insert(self.end, builder.build().expect("small"));
        self.end += count;
    }

    fn end_transaction(&mut self) {
        let Some((producer, first)) = self.open.pop_first() else { return };
        let kind = if self.rng.one_in(2) { ControlType::Abort } else { ControlType::Commit };
        if kind == ControlType::Abort {
            self.aborted.push((producer, first, self.end));
        }
        let marker = EndTransactionMarker { kind, coordinator_epoch: 0 };
        let batch = marker.batch(self.end, 0, self.now_ms, producer, 0).expect("small");
        self.log.insert(self.end, batch);
        self.end += 1;
    }

    fn last_stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end)
    }

    /// What a `read_committed` consumer sees below the last stable offset, by offset.
    fn committed(&self) -> BTreeMap<i64, Seen> {
        let mut undone: Vec<_> = self.aborted.iter().map(|(id, first, _)| (*first, *id)).collect();
        undone.sort_unstable();
        let mut undone = undone.into_iter().peekable();
        let mut skipped = BTreeSet::new();
        let mut out = BTreeMap::new();
        for (base, bytes) in self.log.range(..self.last_stable()) {
            let reader = BatchReader::open(bytes).expect("intact");
            let header = *reader.header();
            assert_eq!(header.base_offset, *base);
            while let Some((_, id)) = undone.next_if(|(first, _)| *first <= header.last_offset()) {
                skipped.insert(id);
            }
            if header.attributes.control() {
                if self.aborted.iter().any(|(_, _, marker)| marker == base) {
                    skipped.remove(&header.producer_id);
                }
                continue;
            }
            if header.attributes.transactional() && skipped.contains(&header.producer_id) {
                continue;
            }
            for record in reader.records() {
                let record = record.expect("intact");
                assert_eq!(record.headers.len(), 2);
                let seen = Seen {
                    key: record.key.expect("all have keys").to_vec(),
                    value: record.value.map(<[u8]>::to_vec),
                    timestamp: record.timestamp,
                };
                assert!(out.insert(record.offset, seen).is_none());
            }
        }
        out
    }

    fn compact(&mut self) {
        let bound = self.last_stable().min(self.end - self.below(6));
        let until = bound.max(self.clean_end);
        let undone = |from: i64| -> Vec<AbortedTransaction> {
            let overlapping = self.aborted.iter().filter(|(_, _, marker)| *marker >= from);
            overlapping
                .map(|(producer_id, first_offset, _)| AbortedTransaction {
                    producer_id: *producer_id,
                    first_offset: *first_offset,
                })
                .collect()
        };
        let aborted = undone(0);
        let keys_max = if self.rng.one_in(3) { 3 } else { 100 };
        let hash = KeyHash::random(&self.rng);
        let mut builder =
            Builder::new(hash, &undone(self.clean_end), keys_max, self.clean_end, until);
        let mut crossed = true;
        for (base, bytes) in self.log.range(self.clean_end..) {
            if builder.batch(*base, bytes).expect("intact") == Grown::Full {
                crossed = false;
                break;
            }
        }
        if crossed {
            builder.cross(until);
        }
        let (map, end) = builder.finish();
        let mut pass = Pass::new(&map, end, &aborted, &self.last, self.now_ms, DELETE_RETENTION_MS);
        let mut after = BTreeMap::new();
        for (base, bytes) in &self.log {
            match pass.batch(*base, bytes).expect("right") {
                Fate::Keep => drop(after.insert(*base, bytes.clone())),
                Fate::Drop => {}
                Fate::Replace { bytes, .. } => drop(after.insert(*base, bytes)),
            }
        }
        self.log = after;
        // As the index of undone transactions: one whose marker is gone has no data left.
        let log = &self.log;
        let header = |bytes| Header::parse(bytes).expect("a batch");
        self.aborted.retain(|(_, _, marker)| {
            log.get(marker).is_some_and(|bytes| header(bytes).record_count > 0)
        });
        let last = self.log.values().next_back().map(|bytes| header(bytes).last_offset() + 1);
        assert_eq!(last.unwrap_or(0), self.end, "a consumer comes to the end");
        self.clean_end = end;
    }

    fn check(&mut self, before: &BTreeMap<i64, Seen>) {
        let after = self.committed();
        for (offset, seen) in &after {
            assert_eq!(before.get(offset), Some(seen), "a record that was not there");
        }
        let clean: Vec<_> = after.range(..self.clean_end).collect();
        let keys: BTreeSet<_> = clean.iter().map(|(_, seen)| &seen.key).collect();
        assert_eq!(clean.len(), keys.len(), "one record a key below the clean end");
        let mut last = BTreeMap::new();
        for (offset, seen) in before.range(..self.clean_end) {
            last.insert(seen.key.clone(), (*offset, seen.value.is_none()));
        }
        let last_batch = self.log.range(..self.clean_end).next_back().map(|(base, _)| *base);
        for (offset, tombstone) in last.into_values() {
            let kept = after.contains_key(&offset);
            if tombstone {
                let since = *self.tombstones.entry(offset).or_insert(self.now_ms);
                if Some(offset) >= last_batch {
                    continue;
                }
                let due = self.now_ms >= since + DELETE_RETENTION_MS;
                assert_eq!(kept, !due, "tombstone {offset} of {since} at {}", self.now_ms);
            } else {
                assert!(kept, "the last record of a key, {offset}, is lost");
            }
        }
        let above = |all: &BTreeMap<i64, Seen>| all.range(self.clean_end..).count();
        assert_eq!(above(&after), above(before), "nothing above the clean end goes");
        self.check_producers();
    }

    /// The last batch of each producer tells its last sequence, also when its records are gone.
    fn check_producers(&self) {
        for (producer, next) in &self.sequences {
            let mut headers = self.log.values().map(|bytes| Header::parse(bytes).expect("a batch"));
            let last = headers
                .rfind(|header| header.producer_id == *producer && !header.attributes.control());
            assert_eq!(last.map(|header| header.last_sequence() + 1), Some(*next));
        }
    }
}

#[test]
fn a_compacted_log_tells_what_the_log_told() {
    for seed in 0..400 {
        let mut world = World::new(seed);
        for _ in 0..60 {
            match world.rng.below(10) {
                0..=5 => world.produce(),
                6..=7 => world.end_transaction(),
                8 => world.now_ms += world.below(700),
                _ => {
                    let before = world.committed();
                    world.compact();
                    world.check(&before);
                }
            }
        }
    }
}

#[test]
fn markers_go_once_their_data_and_their_time_are_over() {
    for seed in 0..50 {
        let mut world = World::new(seed);
        (0..30).for_each(|_| world.produce());
        while !world.open.is_empty() {
            world.end_transaction();
        }
        (0..8).for_each(|_| world.produce());
        while !world.open.is_empty() {
            world.end_transaction();
        }
        // As long as a producer is remembered, its last batch and the marker behind it stay.
        world.last.clear();
        world.sequences.clear();
        for _ in 0..40 {
            let before = world.committed();
            world.compact();
            world.check(&before);
            world.now_ms += DELETE_RETENTION_MS;
        }
        let undone_before = world.aborted.iter().filter(|(_, _, at)| *at + 1 < world.clean_end);
        assert_eq!(
            undone_before.count(),
            0,
            "seed {seed}: nothing of an undone transaction is left"
        );
    }
}

#[test]
fn what_would_lose_a_record_is_refused() {
    let mut builder = protocol::batch::Builder::new();
    builder.push(1, Some(b"a"), Some(b"1"), &[]);
    builder.push(1, Some(b"b"), Some(b"1"), &[]);
    let bytes = builder.build().expect("small");
    let mut map = OffsetMap::new(KeyHash::random(&Rng::seeded(1)));
    // A map that claims a later record where there can be none.
    map.put(b"a", 50);
    let producers = BTreeMap::new();
    let mut pass = Pass::new(&map, 10, &[], &producers, 0, 0);
    let refused = Error::Unproved { offset: 0, reason: "the last record of a key would be lost" };
    assert_eq!(pass.batch(0, &bytes), Err(refused));
}

//! What every client was told, over all lives, and whether it can all be true.

use std::collections::BTreeMap;

/// Values of one producer rise: the producer is in the upper half.
pub const PRODUCER_SHIFT: u32 = 32;

/// One partition as its clients know it.
#[derive(Debug, Default)]
struct Known {
    /// Offset to value: acknowledged or read. Each means that one record for ever.
    records: BTreeMap<i64, u64>,
    /// Value to offset: no value stands twice.
    places: BTreeMap<u64, i64>,
    /// Behind the highest record or high watermark that anybody has seen.
    high: i64,
}

/// The checker. The first contradiction ends the run.
#[derive(Debug, Default)]
pub struct Checker {
    partitions: BTreeMap<u32, Known>,
    violation: Option<String>,
    /// Records acknowledged.
    pub acked: u64,
    /// Repeats answered.
    pub duplicates: u64,
    /// Records read.
    pub read: u64,
}

impl Checker {
    /// Notes a contradiction; the first one counts.
    pub fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The first contradiction.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// A client was told that `value` stands at `offset`.
    pub fn know(&mut self, index: u32, offset: i64, value: u64, how: &str) {
        let known = self.partitions.entry(index).or_default();
        let before = *known.records.entry(offset).or_insert(value);
        if before != value {
            self.fail(format!(
                "partition {index} offset {offset}: {value:x} was {how}, {before:x} was known there"
            ));
            return;
        }
        let place = *known.places.entry(value).or_insert(offset);
        known.high = known.high.max(offset + 1);
        if place != offset {
            self.fail(format!("value {value:x} was {how} at {offset} and is known at {place}"));
        }
    }

    /// A client has seen this high watermark.
    pub fn high_watermark(&mut self, index: u32, high: i64) {
        let known = self.partitions.entry(index).or_default();
        if high < known.high {
            let before = known.high;
            self.fail(format!("the high watermark of {index} is {high}, {before} was seen"));
        } else {
            known.high = high;
        }
    }

    /// A read of everything below the high watermark has found `found`.
    pub fn complete(&mut self, index: u32, found: &BTreeMap<i64, u64>) {
        let known = self.partitions.entry(index).or_default();
        let missing = known.records.iter().find(|(offset, _)| !found.contains_key(offset));
        if let Some((offset, value)) = missing {
            let what = format!("partition {index} offset {offset}: {value:x} is lost");
            self.fail(what);
        }
        let mut newest: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, value) in found {
            self.know(index, *offset, *value, "read");
            let before = newest.insert(value >> PRODUCER_SHIFT, *value);
            if before.is_some_and(|before| before >= *value) {
                self.fail(format!("partition {index} offset {offset}: a producer's order is lost"));
            }
        }
    }
}

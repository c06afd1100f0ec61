//! What clients were told by whichever broker, and whether it can all be true.

use std::collections::BTreeMap;

/// One partition as its clients know it.
#[derive(Debug, Default)]
struct Known {
    /// Offset to value: acknowledged or read. Each means that one record for ever.
    records: BTreeMap<i64, u64>,
    /// Value to offset: no value stands twice.
    places: BTreeMap<u64, i64>,
    high: i64,
    /// The highest epoch under which anybody has opened it.
    opened: i32,
}

/// The checker. The first contradiction ends the run.
#[derive(Debug, Default)]
pub struct Checker {
    partitions: BTreeMap<u32, Known>,
    violation: Option<String>,
    pub trace: Vec<String>,
}

impl Checker {
    pub fn fail(&mut self, what: String) {
        self.trace.push(format!("FAILED {what}"));
        self.violation.get_or_insert(what);
    }

    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// A broker serves the partition under `epoch` from now on.
    pub fn opened(&mut self, index: u32, epoch: i32) {
        let known = self.partitions.entry(index).or_default();
        known.opened = known.opened.max(epoch);
    }

    /// An answer leaves a broker that serves under `epoch`, whose clock has always run.
    pub fn answers(&mut self, node: i32, index: u32, epoch: i32, what: &str) {
        let opened = self.partitions.entry(index).or_default().opened;
        if epoch < opened {
            self.fail(format!(
                "broker {node} answers a {what} of {index} under epoch {epoch}, {opened} is open"
            ));
        }
    }

    /// A client was told that `value` stands at `offset`.
    pub fn know(&mut self, index: u32, offset: i64, value: u64, how: &str) {
        let known = self.partitions.entry(index).or_default();
        let before = *known.records.entry(offset).or_insert(value);
        let place = *known.places.entry(value).or_insert(offset);
        known.high = known.high.max(offset + 1);
        if before != value {
            self.fail(format!(
                "partition {index} offset {offset}: {value:x} was {how}, {before:x} was known there"
            ));
        } else if place != offset {
            self.fail(format!("value {value:x} was {how} at {offset} and is known at {place}"));
        }
    }

    /// A client has seen this high watermark, from the present owner.
    pub fn high_watermark(&mut self, index: u32, high: i64) {
        let known = self.partitions.entry(index).or_default();
        let before = known.high;
        known.high = known.high.max(high);
        if high < before {
            self.fail(format!("the high watermark of {index} is {high}, {before} was seen"));
        }
    }

    /// Offsets from `start` on are lost by name: what stood there may come again, elsewhere.
    pub fn loses(&mut self, index: u32, start: i64) {
        let known = self.partitions.entry(index).or_default();
        known.places.retain(|_, offset| *offset < start);
    }

    /// A read of the whole partition has found `found`; only what lies in `lost` may be missing.
    pub fn complete(&mut self, index: u32, found: &BTreeMap<i64, u64>, lost: &[(i64, i64)]) {
        for (offset, value) in found {
            self.know(index, *offset, *value, "read in the end");
        }
        let known = self.partitions.entry(index).or_default();
        let is_lost = |at: i64| lost.iter().any(|(start, end)| (*start..*end).contains(&at));
        let missing =
            known.records.iter().find(|(at, _)| !found.contains_key(at) && !is_lost(**at));
        if let Some((offset, value)) = missing {
            let what = format!("partition {index} offset {offset}: {value:x} is lost, not named");
            self.fail(what);
        }
    }
}

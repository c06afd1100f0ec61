//! Pass 1: folds over the records of a committed range and decides where files and cuts end. Pure: time comes in with
//! each call.
//!
//! ```text
//!  boundary                                        position     readable end
//!     |---- file ----|---- file ----|-- open file --|...............|
//!     |<------- the next cut ------>|  stays folded; nothing is read twice by this pass
//! ```
//! A cut holds every file that is closed when the readable end is reached, at most `cut_files_max` of them. So a
//! backlog costs one upload round for many files.

use serde::{Deserialize, Serialize};

use crate::config::Rules;
use crate::infer::Facts;
use crate::record::{Piece, Record};
use crate::schedule;

/// The rule that closed a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// `flush.size`.
    Records,
    /// `file.size.bytes`, or the default size.
    Bytes,
    /// `rotate.interval.ms`.
    Interval,
    /// `rotate.schedule.interval.ms`.
    Schedule,
    /// `idle.ms`.
    Idle,
    /// The default age.
    Age,
    /// A bound of the sink itself.
    Limit,
}

/// The clock that a rule read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// No clock: a count.
    None,
    /// The timestamp of the record that came next.
    Record(i64),
    /// Wall clock, milliseconds since 1970.
    Wall(i64),
}

/// One file of a cut. It covers `[start, next file's start or the cut's end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePlan {
    /// First offset covered, a record or a hole.
    pub start: i64,
    /// One past the last offset covered.
    pub end: i64,
    /// Offset of the first record; it stands in the file's name.
    pub first: i64,
    /// Records in the file, 1 or more.
    pub records: u64,
    /// Bytes of keys, values and headers.
    pub raw_bytes: u64,
    /// What closed it.
    pub rule: Rule,
    /// The clock that the rule read.
    pub reading: Reading,
    /// Wall clock at the close, milliseconds since 1970.
    pub closed_ms: i64,
    /// Ticks of the schedule that passed without records before the file was opened.
    pub skipped_ticks: u64,
}

/// Bounds of a cut, whatever the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files of one cut.
    pub cut_files_max: usize,
    /// Estimated bytes of one file.
    pub file_bytes_max: u64,
    /// Records of one file.
    pub file_records_max: u64,
    /// Bytes of keys, values and headers of one cut.
    pub cut_raw_bytes_max: u64,
    /// Runs of offsets without rows in one file.
    pub file_holes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cut_files_max: 64,
            file_bytes_max: 1 << 30,
            file_records_max: 50_000_000,
            cut_raw_bytes_max: 8 << 30,
            file_holes_max: 16_384,
        }
    }
}

/// What the next cut would hold.
#[derive(Clone, Debug)]
pub struct CutPlan {
    /// First offset.
    pub start: i64,
    /// One past the last offset.
    pub end: i64,
    /// Its files, 1 or more; they tile `[start, end)`.
    pub files: Vec<FilePlan>,
    /// What was seen of keys and values.
    pub facts: Facts,
}

/// Estimated file bytes per million raw bytes.
pub const RATIO_START_PPM: u64 = 1_000_000;

/// The fold.
#[derive(Debug)]
pub struct Planner {
    rules: Rules,
    limits: Limits,
    ratio_ppm: u64,
    closed_ms: Option<i64>,
    start: i64,
    position: i64,
    files: Vec<FilePlan>,
    facts: Facts,
    open: Open,
}

#[derive(Debug, Default)]
struct Open {
    start: i64,
    head: Option<Head>,
    records: u64,
    raw_bytes: u64,
    holes: u64,
    last_seen_ms: i64,
    facts: Facts,
}

/// What the first record of the open file brought.
#[derive(Clone, Copy, Debug)]
struct Head {
    offset: i64,
    timestamp: i64,
    seen_ms: i64,
    tick_ms: Option<i64>,
    skipped_ticks: u64,
}

impl Planner {
    /// Begins at `start`, the boundary. `closed_ms` is when the last file before it was closed, if there is one.
    #[must_use]
    pub fn new(
        rules: Rules,
        limits: Limits,
        start: i64,
        closed_ms: Option<i64>,
        ratio_ppm: u64,
    ) -> Self {
        let open = Open { start, ..Open::default() };
        let (files, facts) = (Vec::new(), Facts::default());
        Self { rules, limits, ratio_ppm, closed_ms, start, position: start, files, facts, open }
    }

    /// One past the last offset that was folded.
    #[must_use]
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Records folded and not yet in a closed file.
    #[must_use]
    pub fn open_records(&self) -> u64 {
        self.open.records
    }

    /// Whether the next cut holds a file.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        !self.files.is_empty()
    }

    /// Whether the next cut can hold no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let raw_bytes: u64 = self.files.iter().map(|file| file.raw_bytes).sum();
        self.files.len() >= self.limits.cut_files_max || raw_bytes >= self.limits.cut_raw_bytes_max
    }

    /// Takes over what was observed of the last files: estimated file bytes per million raw bytes.
    pub fn set_ratio(&mut self, ratio_ppm: u64) {
        self.ratio_ppm = ratio_ppm.clamp(10_000, 4_000_000);
    }

    /// Folds the next piece, which begins at [`Self::position`].
    ///
    /// # Panics
    /// When the piece does not continue the range: the source broke its contract.
    pub fn push(&mut self, piece: &Piece, now_ms: i64) {
        assert_eq!(piece.start(), self.position, "pieces of a range follow each other");
        match piece {
            Piece::Hole(_) => {
                self.open.holes += 1;
                self.position = piece.end();
                if self.open.holes >= self.limits.file_holes_max {
                    self.close(Rule::Limit, Reading::None, now_ms);
                }
            }
            Piece::Record(record) => self.record(record, now_ms),
        }
    }

    /// Closes the open file when a rule of the wall clock says so.
    pub fn tick(&mut self, now_ms: i64) {
        let Some((at, rule, reading)) = self.due() else { return };
        if now_ms >= at {
            self.close(rule, reading.unwrap_or(Reading::Wall(now_ms)), now_ms);
        }
    }

    /// When [`Self::tick`] would next close the open file, milliseconds since 1970.
    #[must_use]
    pub fn deadline(&self) -> Option<i64> {
        self.due().map(|(at, _, _)| at)
    }

    /// Takes the closed files as a cut. The open file stays folded.
    pub fn take(&mut self) -> Option<CutPlan> {
        let end = self.files.last()?.end;
        let files = std::mem::take(&mut self.files);
        let facts = std::mem::take(&mut self.facts);
        let start = std::mem::replace(&mut self.start, end);
        Some(CutPlan { start, end, files, facts })
    }

    fn record(&mut self, record: &Record, now_ms: i64) {
        self.tick(now_ms);
        if let (Some(head), Some(span)) = (self.open.head, self.rules.span_ms)
            && record.timestamp.saturating_sub(head.timestamp) >= span
        {
            self.close(Rule::Interval, Reading::Record(record.timestamp), now_ms);
        }
        if self.open.head.is_none() {
            self.open.head = Some(self.head(record, now_ms));
        }
        self.open.records += 1;
        self.open.raw_bytes = self.open.raw_bytes.saturating_add(record.raw_bytes());
        self.open.last_seen_ms = now_ms;
        self.open.facts.observe(record);
        self.position = record.offset + 1;
        self.counts(now_ms);
    }

    fn head(&self, record: &Record, now_ms: i64) -> Head {
        let schedule = self.rules.schedule.as_ref();
        Head {
            offset: record.offset,
            timestamp: record.timestamp,
            seen_ms: now_ms,
            tick_ms: schedule.map(|schedule| schedule::next_tick(schedule, now_ms)),
            skipped_ticks: schedule
                .zip(self.closed_ms)
                .map_or(0, |(schedule, closed)| schedule::ticks_between(schedule, closed, now_ms)),
        }
    }

    fn counts(&mut self, now_ms: i64) {
        let estimate = u128::from(self.open.raw_bytes) * u128::from(self.ratio_ppm) / 1_000_000;
        let reached = |bound: Option<u64>| bound.is_some_and(|bytes| estimate >= u128::from(bytes));
        if self.rules.records.is_some_and(|records| self.open.records >= records) {
            self.close(Rule::Records, Reading::None, now_ms);
        } else if reached(self.rules.bytes) {
            self.close(Rule::Bytes, Reading::None, now_ms);
        } else if reached(Some(self.limits.file_bytes_max))
            || self.open.records >= self.limits.file_records_max
        {
            self.close(Rule::Limit, Reading::None, now_ms);
        }
    }

    /// The earliest rule of the wall clock: when, which, and the reading if it is fixed by the rule itself.
    fn due(&self) -> Option<(i64, Rule, Option<Reading>)> {
        let head = self.open.head?;
        let after = |since: i64, ms: Option<i64>| ms.map(|ms| since.saturating_add(ms));
        [
            head.tick_ms.map(|at| (at, Rule::Schedule, Some(Reading::Wall(at)))),
            after(head.seen_ms, self.rules.span_ms).map(|at| (at, Rule::Interval, None)),
            after(self.open.last_seen_ms, self.rules.idle_ms).map(|at| (at, Rule::Idle, None)),
            after(head.seen_ms, self.rules.age_ms).map(|at| (at, Rule::Age, None)),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _, _)| *at)
    }

    /// Ends the open file at the position. A file without records stays open: no records, no cut.
    fn close(&mut self, rule: Rule, reading: Reading, now_ms: i64) {
        let Some(head) = self.open.head else { return };
        let next = Open { start: self.position, ..Open::default() };
        let open = std::mem::replace(&mut self.open, next);
        self.files.push(FilePlan {
            start: open.start,
            end: self.position,
            first: head.offset,
            records: open.records,
            raw_bytes: open.raw_bytes,
            rule,
            reading,
            closed_ms: now_ms,
            skipped_ticks: head.skipped_ticks,
        });
        self.facts.merge(open.facts);
        self.closed_ms = Some(now_ms);
    }
}

#[cfg(test)]
mod tests;

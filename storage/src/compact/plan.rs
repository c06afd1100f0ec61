//! What to compact next: values in, a choice out. No I/O, no clock.
//!
//! Objects stand in the order of their log. Neighbours of similar size are merged when there are enough of them, and
//! their sum is several times the largest: so each byte is rewritten once per step of a geometric row, O(log) times.
//! Objects that have reached the target, but hold many streams, are merged once more among themselves so that each
//! stream's part grows; the outputs then split by stream. Objects that are mostly dead are rewritten first.
//!
//! ```text
//! order of the log   r r r r r r r r | r r r r r r r r | r r r        rounds
//!                    [==== merged ===] [==== merged ===] r r r        8 or more of one size
//!                    [========= merged again ==========] r r r        up to the target of 1 GiB
//! ```

use std::collections::{BTreeMap, BTreeSet};

use common::{Lsn, ObjectId, PartitionId, StreamEpoch, StreamId, WalId};
use meta::LiveRange;

use super::job::Part;
use crate::options::Options;

/// Objects of one size that are merged, at least.
const FAN_IN_MIN: usize = 8;
/// Objects that one job takes, at most.
pub(super) const FAN_IN_MAX: usize = 64;
/// The sum of a merge is at least so many times its largest input.
const GROWTH_MIN: u64 = 4;
/// Payload of the smallest size class; each next one is [`FAN_IN_MIN`] times as large.
const CLASS_BYTES: u64 = 512;
/// An object this large of which less than a quarter is live is rewritten.
const FREE_BYTES_MIN: u64 = 1 << 20;
/// A part of a stream this large is never merged further with others of finished objects.
const PART_BYTES_ENOUGH: u64 = 16 << 20;
/// A job over finished objects takes so many times the target.
const SPLIT_TARGETS_MAX: u64 = 16;

/// An object as the planner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Info {
    pub id: ObjectId,
    pub wal: WalId,
    pub lsns: (Lsn, Lsn),
    /// Payload bytes that are live.
    pub live_bytes: u64,
    /// Payload bytes when it was committed.
    pub payload_bytes: u64,
    /// Live ranges.
    pub live: u32,
    /// When it was committed.
    pub at_ms: i64,
    /// The first stream of an object that compaction split off others of the same place in the log.
    pub first: Option<StreamId>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub objects: Vec<ObjectId>,
    pub goal: Goal,
    /// Payload bytes to rewrite.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Goal {
    /// Frees objects that are mostly dead.
    Free,
    /// Makes one object of several.
    Merge,
    /// Makes parts of streams larger, over finished objects.
    Split,
}

/// The bounds of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub object_bytes_max: u64,
    pub ranges_max: usize,
    /// Younger objects are left alone.
    pub age_min_ms: i64,
}

impl Limits {
    pub fn of(options: &Options) -> Self {
        let age = i64::try_from(options.compaction_age_min.as_millis());
        Self {
            object_bytes_max: options.compaction_object_bytes_max.max(2),
            ranges_max: options.compaction_ranges_max.max(2),
            age_min_ms: age.unwrap_or(i64::MAX),
        }
    }
}

impl Info {
    /// As large as compaction makes objects.
    pub fn finished(&self, limits: &Limits) -> bool {
        self.live_bytes >= limits.object_bytes_max / 2
    }

    /// Nothing is left to do with it.
    pub fn done(&self, limits: &Limits) -> bool {
        let part = self.live_bytes / u64::from(self.live.max(1));
        self.finished(limits)
            && part >= PART_BYTES_ENOUGH.min(limits.object_bytes_max / 4)
            && !self.dead()
    }

    fn dead(&self) -> bool {
        self.payload_bytes >= FREE_BYTES_MIN && self.live_bytes < self.payload_bytes / 4
    }

    fn class(&self) -> u32 {
        let fan_in = FAN_IN_MIN as u64;
        let (mut class, mut bound) = (0, CLASS_BYTES);
        while self.live_bytes >= bound && bound < u64::MAX / fan_in {
            (class, bound) = (class + 1, bound * fan_in);
        }
        class
    }
}

/// Chooses among `infos`. `breaks` are objects that do not follow the ones before them.
pub(crate) fn choose(
    infos: &[Info],
    breaks: &BTreeSet<ObjectId>,
    now_ms: i64,
    limits: &Limits,
) -> Option<Choice> {
    let mut sorted: Vec<&Info> = infos.iter().filter(|info| info.live > 0).collect();
    sorted.sort_by_key(|info| (info.wal, info.first, info.lsns.0, info.id));
    let old = |info: &Info| now_ms.saturating_sub(info.at_ms) >= limits.age_min_ms;
    if let Some(choice) = free(&sorted, old, limits) {
        return Some(choice);
    }
    let mut runs: Vec<(Goal, Vec<&Info>)> = Vec::new();
    let mut last: Option<(WalId, Option<StreamId>, Goal)> = None;
    for info in sorted {
        let goal = if info.finished(limits) { Goal::Split } else { Goal::Merge };
        if !old(info) || info.done(limits) {
            last = None;
            continue;
        }
        let here = (info.wal, info.first, goal);
        if last != Some(here) || breaks.contains(&info.id) {
            runs.push((goal, Vec::new()));
        }
        runs.last_mut().expect("pushed above").1.push(info);
        last = Some(here);
    }
    let choices = runs.iter().flat_map(|(goal, run)| match goal {
        Goal::Split => split(run, limits),
        _ => merges(run, limits),
    });
    // The most ranges saved for a byte; of equal ones the newest, which lives longest.
    choices
        .max_by(|a, b| a.score().cmp(&b.score()).then(a.choice.objects.cmp(&b.choice.objects)))
        .map(|scored| scored.choice)
}

struct Scored {
    choice: Choice,
    saved: u64,
}

impl Scored {
    fn of(goal: Goal, run: &[&Info]) -> Self {
        let live: u64 = run.iter().map(|info| u64::from(info.live)).sum();
        let most = run.iter().map(|info| u64::from(info.live)).max().unwrap_or(0);
        let bytes = run.iter().map(|info| info.live_bytes).sum();
        let objects = run.iter().map(|info| info.id).collect();
        Self { choice: Choice { objects, goal, bytes }, saved: live - most }
    }

    fn score(&self) -> u128 {
        (u128::from(self.saved) << 64) / u128::from(self.choice.bytes.max(1))
    }
}

fn free(sorted: &[&Info], old: impl Fn(&Info) -> bool, limits: &Limits) -> Option<Choice> {
    let dead: Vec<&Info> = sorted.iter().filter(|info| info.dead() && old(info)).copied().collect();
    let taken = fitting(&dead, limits.object_bytes_max, limits.ranges_max);
    (taken > 0).then(|| Scored::of(Goal::Free, &dead[..taken]).choice)
}

/// How many of the first of `run` one job takes.
fn fitting(run: &[&Info], bytes_max: u64, ranges_max: usize) -> usize {
    let (mut bytes, mut ranges) = (0_u64, 0_usize);
    for (index, info) in run.iter().enumerate() {
        bytes = bytes.saturating_add(info.live_bytes);
        ranges = ranges.saturating_add(usize::try_from(info.live).unwrap_or(usize::MAX));
        let full = bytes > bytes_max || index >= FAN_IN_MAX;
        // Objects wider than a job are merged a part of their streams at a time.
        if index > 0 && (full || (ranges > ranges_max && index >= FAN_IN_MIN)) {
            return index;
        }
    }
    run.len()
}

/// Merges of neighbours, by size class.
fn merges(run: &[&Info], limits: &Limits) -> Vec<Scored> {
    let mut found = Vec::new();
    let classes: BTreeSet<u32> = run.iter().map(|info| info.class()).collect();
    for class in classes {
        for part in run.split(|info| info.class() > class) {
            let mut rest = part;
            while !rest.is_empty() {
                let taken = fitting(rest, limits.object_bytes_max, limits.ranges_max);
                let (window, after) = rest.split_at(taken);
                let sum: u64 = window.iter().map(|info| info.live_bytes).sum();
                let most = window.iter().map(|info| info.live_bytes).max().unwrap_or(0);
                let grows = |times: u64| sum / times >= most;
                let many = window.len() >= FAN_IN_MIN && grows(GROWTH_MIN);
                let full = window.len() > 1 && grows(2) && sum >= limits.object_bytes_max / 4 * 3;
                if many || full {
                    found.push(Scored::of(Goal::Merge, window));
                }
                rest = after;
            }
        }
        if !found.is_empty() {
            return found;
        }
    }
    found
}

/// Merges of finished objects whose streams have small parts.
fn split(run: &[&Info], limits: &Limits) -> Vec<Scored> {
    let bytes_max = limits.object_bytes_max.saturating_mul(SPLIT_TARGETS_MAX);
    let mut found = Vec::new();
    let mut rest = run;
    while rest.len() >= FAN_IN_MIN {
        let taken = fitting(rest, bytes_max, limits.ranges_max);
        if taken >= FAN_IN_MIN {
            found.push(Scored::of(Goal::Split, &rest[..taken]));
        }
        rest = &rest[taken..];
    }
    found
}

/// The parts of streams that a choice comes down to.
#[derive(Debug, PartialEq)]
pub(crate) struct Parts {
    /// Sorted by stream; within the bounds of one job.
    pub parts: Vec<Part>,
    /// Ranges in them.
    pub ranges: usize,
    /// The object that most streams do not go on with, where many do not.
    pub gap: Option<ObjectId>,
}

impl Parts {
    /// True when the job is worth its bytes.
    pub fn pays(&self, goal: Goal) -> bool {
        let saved = self.ranges - self.parts.len();
        !self.parts.is_empty() && (goal == Goal::Free || saved * 2 >= self.parts.len())
    }
}

/// Turns the live ranges of chosen objects into parts: of each stream that is owned here the longest row of ranges that
/// follow each other, at or above its log start.
pub(crate) fn parts(
    live: Vec<LiveRange>,
    owned: impl Fn(PartitionId) -> Option<StreamEpoch>,
    limits: &Limits,
) -> Parts {
    let mut streams: BTreeMap<StreamId, Vec<meta::ObjectRange>> = BTreeMap::new();
    for one in live {
        if one.range.start >= one.log_start && owned(one.stream.partition).is_some() {
            streams.entry(one.stream).or_default().push(one.range);
        }
    }
    let mut gaps: BTreeMap<ObjectId, usize> = BTreeMap::new();
    let all = streams.len();
    let mut found = Parts { parts: Vec::new(), ranges: 0, gap: None };
    for (stream, mut ranges) in streams {
        ranges.sort_by_key(|range| range.start);
        let rows = ranges.chunk_by(|before, after| before.end == after.start);
        let rows: Vec<_> = rows.collect();
        for row in &rows[1..] {
            *gaps.entry(row[0].object).or_default() += 1;
        }
        let longest = rows.into_iter().rev().max_by_key(|row| row.len()).unwrap_or_default();
        let Some(epoch) = owned(stream.partition) else { continue };
        let room = limits.ranges_max - found.ranges;
        let taken =
            longest.len().min(if found.parts.is_empty() { limits.ranges_max } else { room });
        if taken < longest.len() && !found.parts.is_empty() {
            break;
        }
        found.ranges += taken;
        found.parts.push(Part { stream, epoch, inputs: longest[..taken].to_vec() });
    }
    let most = gaps.into_iter().max_by_key(|(_, times)| *times);
    found.gap = most.filter(|(_, times)| times * 2 >= all).map(|(object, _)| object);
    found
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;

/// What compaction may ask of the store: earned by time and by uploaded bytes, in millionths of a request. A job may
/// begin while there is anything left; its cost is taken whole, so a large one is paid for afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    gets: i64,
    puts: i64,
}

/// Requests earned per second, in millionths: enough to merge the rounds of a broker that writes little.
const GETS_PER_SECOND: u64 = 250_000;
const PUTS_PER_SECOND: u64 = 50_000;
/// Requests earned per second while nothing is uploaded, to catch up.
const QUIET_FACTOR: u64 = 16;
/// Requests earned per GB uploaded.
const PER_GB: u64 = 15;
/// What is saved up, at most.
const SAVED_MAX: i64 = 2_000_000_000;

impl Default for Allowance {
    fn default() -> Self {
        Self { gets: 200_000_000, puts: 50_000_000 }
    }
}

impl Allowance {
    /// Adds what `millis` and `uploaded` bytes earn.
    pub fn earn(&mut self, millis: u64, uploaded: u64) {
        let factor = if uploaded == 0 { QUIET_FACTOR } else { 1 };
        // A millionth of a request per byte is a thousand requests per GB.
        let bytes = uploaded.saturating_mul(PER_GB) / 1000;
        let add = |sum: i64, per_second: u64| {
            let time = millis.saturating_mul(per_second).saturating_mul(factor) / 1000;
            let earned = i64::try_from(time.saturating_add(bytes)).unwrap_or(i64::MAX);
            sum.saturating_add(earned).min(SAVED_MAX)
        };
        self.gets = add(self.gets, GETS_PER_SECOND);
        self.puts = add(self.puts, PUTS_PER_SECOND);
    }

    pub fn allows(&self) -> bool {
        self.gets > 0 && self.puts > 0
    }

    pub fn spend(&mut self, gets: u64, puts: u64) {
        let millionths =
            |count: u64| i64::try_from(count.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        self.gets = self.gets.saturating_sub(millionths(gets));
        self.puts = self.puts.saturating_sub(millionths(puts));
    }
}

//! Decides how far the log start of a partition moves: by age, by size, and not past what sinks still need. Pure.
//!
//! ```text
//! log start          floor of a sink            wanted start     committed end
//!     |---range---|------range|------|---range-------|---range---|
//!     |<---- goes now ------->|<----- protected ---->|<- stays ->|
//! ```
//! A range of the stream index plays the part of Kafka's segment: it goes as a whole, when its youngest record is too
//! old, or when the partition without it still has `retention.bytes`.

/// One live range of the stream index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First offset covered.
    pub start: i64,
    /// Offset after the last one covered.
    pub end: i64,
    /// Bytes of its entries.
    pub bytes: u64,
    /// Highest timestamp of its records, milliseconds since 1970, or below 0 when none has one.
    pub max_timestamp: i64,
}

/// How far a sink has come, and how much of what it lacks is kept for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The sink.
    pub sink: u64,
    /// Everything below is in its files.
    pub offset: i64,
    /// Retention stops here (`sink.protect`).
    pub protect: bool,
    /// ... for at most so many bytes (`sink.protect.size.max.bytes`).
    pub bytes_max: Option<u64>,
    /// ... and records of at most this age, in milliseconds (`sink.protect.age.max.ms`).
    pub age_max_ms: Option<i64>,
}

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The log start.
    pub log_start: i64,
    /// The oldest live ranges, ascending, from the log start on.
    pub ranges: &'a [Extent],
    /// Bytes of all live ranges, those that are not given included.
    pub bytes: u64,
    /// Retention time.
    pub now_ms: i64,
    /// `retention.ms`, -1 for ever.
    pub retention_ms: i64,
    /// `retention.bytes`, -1 unbounded.
    pub retention_bytes: i64,
    /// Sinks of the topic.
    pub floors: &'a [Floor],
}

/// Offsets that a sink lacks and that its own bounds give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The sink.
    pub sink: u64,
    /// First offset.
    pub start: i64,
    /// Offset after the last one.
    pub end: i64,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The new log start; the old one when nothing goes.
    pub start: i64,
    /// Bytes that would go if no sink needed them.
    pub held_bytes: u64,
    /// Sinks whose bound of protection is nearly reached.
    pub nearing: Vec<u64>,
    /// What sinks will never get.
    pub passed: Vec<Passed>,
}

/// A bound counts as nearly reached at this share.
const NEARING_PERCENT: u64 = 80;

/// Decides.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Verdict {
    let wanted = wanted(facts);
    let mut verdict = Verdict { start: wanted, ..Verdict::default() };
    for floor in facts.floors.iter().filter(|floor| floor.protect && floor.offset < wanted) {
        let allowed = hold(facts, floor, wanted, &mut verdict);
        verdict.start = verdict.start.min(allowed);
    }
    verdict.start = verdict.start.max(facts.log_start);
    // Where another sink holds more, less of it is given up.
    let start = verdict.start;
    verdict.passed.retain_mut(|passed| {
        passed.end = passed.end.min(start);
        passed.start < passed.end
    });
    let held = facts.ranges.iter().filter(|range| range.end > start && range.end <= wanted);
    verdict.held_bytes = held.map(|range| range.bytes).sum();
    verdict
}

/// The log start if there were no sinks.
fn wanted(facts: &Facts<'_>) -> i64 {
    let mut start = facts.log_start;
    let mut bytes = facts.bytes;
    let mut gone = 0;
    if facts.retention_ms >= 0 {
        let (mut pending, mut pending_bytes) = (0, 0_u64);
        for range in facts.ranges {
            pending += 1;
            pending_bytes += range.bytes;
            // One whose records carry no time goes with the next that has one.
            if range.max_timestamp < 0 {
                continue;
            }
            if facts.now_ms.saturating_sub(range.max_timestamp) <= facts.retention_ms {
                break;
            }
            gone += pending;
            bytes = bytes.saturating_sub(pending_bytes);
            (pending, pending_bytes) = (0, 0);
            start = start.max(range.end);
        }
    }
    if let Ok(keep) = u64::try_from(facts.retention_bytes) {
        for range in &facts.ranges[gone..] {
            if bytes.saturating_sub(range.bytes) < keep || range.bytes > bytes {
                break;
            }
            bytes -= range.bytes;
            start = start.max(range.end);
        }
    }
    start
}

/// How far one sink lets the start go.
fn hold(facts: &Facts<'_>, floor: &Floor, wanted: i64, verdict: &mut Verdict) -> i64 {
    let lacking = |range: &&Extent| range.end > floor.offset && range.end <= wanted;
    let mut bytes: u64 = facts.ranges.iter().filter(lacking).map(|range| range.bytes).sum();
    let mut allowed = floor.offset.max(facts.log_start);
    let mut nearing = false;
    for range in facts.ranges.iter().filter(lacking) {
        let age_ms = facts.now_ms.saturating_sub(range.max_timestamp.max(0));
        let too_many = floor.bytes_max.is_some_and(|most| bytes > most);
        let too_old = floor.age_max_ms.is_some_and(|most| age_ms > most);
        if !too_many && !too_old {
            let near_bytes = floor.bytes_max.is_some_and(|most| near(bytes, most));
            let near_age = floor.age_max_ms.is_some_and(|most| {
                near(age_ms.unsigned_abs(), u64::try_from(most).unwrap_or(u64::MAX))
            });
            nearing = near_bytes || near_age;
            break;
        }
        bytes = bytes.saturating_sub(range.bytes);
        allowed = allowed.max(range.end);
    }
    if nearing {
        verdict.nearing.push(floor.sink);
    }
    if allowed > floor.offset.max(facts.log_start) {
        let start = floor.offset.max(facts.log_start);
        verdict.passed.push(Passed { sink: floor.sink, start, end: allowed });
    }
    allowed
}

fn near(value: u64, most: u64) -> bool {
    u128::from(value) * 100 >= u128::from(most) * u128::from(NEARING_PERCENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extent(start: i64, end: i64, bytes: u64, max_timestamp: i64) -> Extent {
        Extent { start, end, bytes, max_timestamp }
    }

    /// Three ranges of 100 bytes, aged 300, 200 and 100.
    const RANGES: [Extent; 3] = [
        Extent { start: 0, end: 10, bytes: 100, max_timestamp: 700 },
        Extent { start: 10, end: 20, bytes: 100, max_timestamp: 800 },
        Extent { start: 20, end: 30, bytes: 100, max_timestamp: 900 },
    ];

    fn facts(retention_ms: i64, retention_bytes: i64, floors: &[Floor]) -> Facts<'_> {
        Facts {
            log_start: 0,
            ranges: &RANGES,
            bytes: 300,
            now_ms: 1000,
            retention_ms,
            retention_bytes,
            floors,
        }
    }

    fn floor(offset: i64) -> Floor {
        Floor { sink: 7, offset, protect: true, bytes_max: None, age_max_ms: None }
    }

    #[test]
    fn age_and_size_take_whole_ranges_as_kafka_takes_segments() {
        let start = |ms, bytes| decide(&facts(ms, bytes, &[])).start;
        assert_eq!([start(-1, -1), start(300, -1), start(299, -1), start(150, -1)], [0, 0, 10, 20]);
        assert_eq!(start(0, -1), 30);
        assert_eq!([start(-1, 300), start(-1, 201), start(-1, 200), start(-1, 0)], [0, 0, 10, 30]);
        assert_eq!(start(250, 150), 10, "what age took counts for the size");
        assert_eq!(start(250, 100), 20);
    }

    #[test]
    fn a_range_without_times_goes_with_the_next_and_a_young_one_holds_the_old_behind_it() {
        let ranges = [extent(0, 5, 1, -1), extent(5, 9, 1, 100), extent(9, 12, 1, -1)];
        let of =
            |ranges: &[Extent]| decide(&Facts { ranges, bytes: 3, ..facts(500, -1, &[]) }).start;
        assert_eq!(of(&ranges), 9);
        assert_eq!(of(&[extent(0, 5, 1, 5000), extent(5, 9, 1, 1)]), 0);
    }

    #[test]
    fn a_sink_holds_what_it_lacks_within_its_bounds() {
        let verdict = decide(&facts(0, -1, &[floor(12), floor(15)]));
        assert_eq!((verdict.start, verdict.held_bytes), (12, 200));
        assert_eq!(verdict.passed, []);
        let off = Floor { protect: false, ..floor(12) };
        assert_eq!(decide(&facts(0, -1, &[off])).start, 30);
        let tight = Floor { bytes_max: Some(100), ..floor(12) };
        let verdict = decide(&facts(0, -1, &[tight]));
        assert_eq!((verdict.start, verdict.nearing), (20, vec![7]));
        assert_eq!(verdict.passed, [Passed { sink: 7, start: 12, end: 20 }]);
        let aged = Floor { age_max_ms: Some(250), ..floor(2) };
        let verdict = decide(&facts(0, -1, &[aged]));
        assert_eq!((verdict.start, verdict.nearing), (10, vec![7]));
        // Another sink that needs it all keeps it for both.
        assert_eq!(decide(&facts(0, -1, &[aged, floor(0)])).passed, []);
    }

    proptest! {
        #[test]
        fn nothing_young_or_protected_ever_goes(
            spans in prop::collection::vec((1i64..9, 0u64..200, -1i64..2000), 0..20),
            log_start in 0i64..20,
            retention_ms in -1i64..1500,
            retention_bytes in -1i64..2000,
            floor_at in prop::option::of(0i64..150),
        ) {
            let mut at = 0;
            let mut ranges = Vec::new();
            for (span, bytes, max_timestamp) in spans {
                ranges.push(extent(at, at + span, bytes, max_timestamp));
                at += span;
            }
            ranges.retain(|range| range.end > log_start);
            let bytes: u64 = ranges.iter().map(|range| range.bytes).sum();
            let floors: Vec<Floor> = floor_at.map(floor).into_iter().collect();
            let facts = Facts {
                log_start, ranges: &ranges, bytes, now_ms: 1000, retention_ms, retention_bytes,
                floors: &floors,
            };
            let verdict = decide(&facts);
            prop_assert!(verdict.start >= log_start);
            if let Some(floor) = floor_at {
                prop_assert!(verdict.start <= floor.max(log_start));
            }
            let gone: Vec<&Extent> =
                ranges.iter().filter(|range| range.end <= verdict.start).collect();
            let left = bytes - gone.iter().map(|range| range.bytes).sum::<u64>();
            let aged = |range: &&Extent| {
                range.max_timestamp < 0
                    || (retention_ms >= 0 && 1000 - range.max_timestamp > retention_ms)
            };
            if !gone.iter().all(aged) {
                prop_assert!(retention_bytes >= 0);
                prop_assert!(i64::try_from(left).unwrap() >= retention_bytes);
            }
        }
    }
}

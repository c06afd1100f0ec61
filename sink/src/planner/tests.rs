use bytes::Bytes;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::config::Schedule;
use crate::record::{Hole, HoleKind};

fn none() -> Rules {
    Rules { records: None, bytes: None, span_ms: None, schedule: None, idle_ms: None, age_ms: None }
}

fn planner(rules: Rules) -> Planner {
    Planner::new(rules, Limits::default(), 0, None, RATIO_START_PPM)
}

fn record(offset: i64, timestamp: i64, bytes: usize) -> Piece {
    let value = Some(Bytes::from(vec![b'x'; bytes]));
    Piece::Record(Record { offset, timestamp, key: None, value, headers: Vec::new() })
}

fn hole(start: i64, end: i64) -> Piece {
    Piece::Hole(Hole { start, end, kind: HoleKind::Control })
}

#[test]
fn flush_size_counts_records_and_not_offsets() {
    let mut plan = planner(Rules { records: Some(3), ..none() });
    for piece in [hole(0, 5), record(5, 0, 1), hole(6, 9), record(9, 0, 1), record(10, 0, 1)] {
        plan.push(&piece, 0);
    }
    plan.push(&record(11, 0, 1), 0);
    let cut = plan.take().expect("a file is closed");
    assert_eq!((cut.start, cut.end, cut.files.len()), (0, 11, 1));
    let file = cut.files[0];
    assert_eq!((file.first, file.records, file.rule), (5, 3, Rule::Records));
    assert_eq!(plan.open_records(), 1);
    assert!(plan.take().is_none());
}

#[test]
fn bytes_are_an_estimate_times_the_observed_ratio() {
    let mut plan = planner(Rules { bytes: Some(1000), ..none() });
    plan.set_ratio(100_000);
    for offset in 0..99 {
        plan.push(&record(offset, 0, 100), 0);
    }
    assert!(!plan.has_cut());
    plan.push(&record(99, 0, 100), 0);
    assert_eq!(plan.take().expect("100 * 100 / 10").files[0].rule, Rule::Bytes);
}

#[test]
fn record_time_closes_before_the_record_that_passes_the_span() {
    let mut plan = planner(Rules { span_ms: Some(1000), ..none() });
    for (offset, timestamp) in [(0, 5000), (1, 4000), (2, 5999), (3, 6000)] {
        plan.push(&record(offset, timestamp, 1), 50);
    }
    let cut = plan.take().expect("closed by the fourth record");
    assert_eq!((cut.start, cut.end), (0, 3));
    assert_eq!((cut.files[0].rule, cut.files[0].reading), (Rule::Interval, Reading::Record(6000)));
    assert_eq!(plan.deadline(), Some(1050));
    plan.tick(1049);
    assert!(!plan.has_cut());
    plan.tick(1050);
    let cut = plan.take().expect("idle data closes by wall clock");
    assert_eq!((cut.files[0].rule, cut.files[0].reading), (Rule::Interval, Reading::Wall(1050)));
}

#[test]
fn a_schedule_closes_on_its_ticks_and_names_those_without_records() {
    let schedule = Schedule { interval_ms: 3_600_000, zone: TimeZone::UTC };
    let mut plan = planner(Rules { schedule: Some(schedule), ..none() });
    plan.tick(3_600_000);
    assert!(!plan.has_cut(), "no records, no cut");
    plan.push(&record(0, 0, 1), 100);
    plan.tick(3_599_999);
    assert!(!plan.has_cut());
    plan.tick(3_600_050);
    let cut = plan.take().expect("the tick has passed");
    assert_eq!(cut.files[0].reading, Reading::Wall(3_600_000));
    plan.push(&record(1, 0, 1), 3 * 3_600_000 + 5);
    plan.tick(4 * 3_600_000);
    let cut = plan.take().expect("the next tick with records");
    assert_eq!(cut.files[0].skipped_ticks, 2);
}

#[test]
fn idle_data_and_old_data_close_by_wall_clock() {
    let mut plan = planner(Rules { idle_ms: Some(100), age_ms: Some(250), ..none() });
    for (offset, now) in [(0, 0), (1, 90), (2, 180)] {
        plan.push(&record(offset, 0, 1), now);
    }
    assert_eq!(plan.deadline(), Some(250));
    plan.push(&record(3, 0, 1), 240);
    plan.tick(250);
    assert_eq!(plan.take().expect("too old").files[0].rule, Rule::Age);
    plan.push(&record(4, 0, 1), 300);
    plan.tick(400);
    assert_eq!(plan.take().expect("idle").files[0].rule, Rule::Idle);
}

#[test]
fn without_rules_the_sinks_own_bounds_close() {
    let limits = Limits { file_records_max: 10, cut_files_max: 2, ..Limits::default() };
    let mut plan = Planner::new(none(), limits, 0, None, RATIO_START_PPM);
    for offset in 0..25 {
        plan.push(&record(offset, 0, 1), 0);
    }
    assert!(plan.is_full());
    let cut = plan.take().expect("two files");
    assert_eq!((cut.files.len(), cut.end, cut.files[0].rule), (2, 20, Rule::Limit));
}

proptest! {
    /// Whatever the rules, records, holes and times: cuts tile the range, files tile their cut, every record is in one
    /// file, each file obeys its bounds, and facts equal those of the records of the cut.
    #[test]
    fn cuts_tile_and_account_for_every_record(
        pieces in prop::collection::vec((any::<bool>(), 1i64..4, 0i64..50_000, 1usize..50), 1..120),
        records in prop::option::of(1u64..10),
        bytes in prop::option::of(20u64..300),
        span in prop::option::of(1_000i64..30_000),
        idle in prop::option::of(1i64..40),
        takes in prop::collection::vec(any::<bool>(), 120),
    ) {
        let rules = Rules { records, bytes, span_ms: span, idle_ms: idle, ..none() };
        let mut plan = planner(rules);
        let (mut at, mut now, mut cuts, mut offsets) = (0, 0, Vec::new(), Vec::new());
        for ((is_hole, step, timestamp, size), take) in pieces.into_iter().zip(takes) {
            let piece = if is_hole { hole(at, at + step) } else { record(at, timestamp, size) };
            if !is_hole {
                offsets.push(at);
            }
            at = piece.end();
            now += step * 7;
            plan.push(&piece, now);
            if take {
                plan.tick(now);
                cuts.extend(plan.take());
            }
        }
        cuts.extend(plan.take());
        let mut next = 0;
        for cut in &cuts {
            prop_assert_eq!(cut.start, next);
            for file in &cut.files {
                prop_assert_eq!(file.start, next);
                let inside: Vec<i64> =
                    offsets.iter().copied().filter(|o| (file.start..file.end).contains(o)).collect();
                prop_assert_eq!(u64::try_from(inside.len()).expect("small"), file.records);
                prop_assert_eq!(inside.first().copied(), Some(file.first));
                prop_assert!(records.is_none_or(|records| file.records <= records));
                next = file.end;
            }
            prop_assert_eq!(cut.end, next);
        }
        let left = offsets.iter().filter(|offset| **offset >= next).count();
        prop_assert_eq!(plan.open_records(), u64::try_from(left).expect("small"));
    }
}

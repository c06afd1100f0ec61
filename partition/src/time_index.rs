//! Finds where in a partition a time may first appear, without reading it all.

/// `(next offset, highest timestamp below it)`: both never fall from one point to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// First offset behind what the point covers.
    pub next_offset: i64,
    /// Highest timestamp of any record below it.
    pub timestamp_max: i64,
}

/// A sparse index over a prefix of the log, kept in memory and rebuilt as look-ups walk the log.
///
/// ```text
/// log start                      covered end          log end
///    |----point----point----point----|  ...  not known  |
/// ```
#[derive(Debug)]
pub struct TimeIndex {
    points: Vec<Point>,
    points_max: usize,
    covered_end: i64,
    timestamp_max: i64,
    since_point: u64,
    spacing_bytes: u64,
}

impl TimeIndex {
    /// Bytes of the log between two points at first.
    const SPACING_BYTES: u64 = 256 * 1024;

    /// An index that knows nothing and begins at `start`. When `points_max` is reached, every other point goes and the
    /// spacing doubles.
    #[must_use]
    pub fn new(start: i64, points_max: usize) -> Self {
        Self {
            points: Vec::new(),
            points_max: points_max.max(2),
            covered_end: start,
            timestamp_max: i64::MIN,
            since_point: 0,
            spacing_bytes: Self::SPACING_BYTES,
        }
    }

    /// End of the part that is known, exclusive.
    #[must_use]
    pub fn covered_end(&self) -> i64 {
        self.covered_end
    }

    /// Highest timestamp in the known part, or `None` when it holds no record.
    #[must_use]
    pub fn timestamp_max(&self) -> Option<i64> {
        (self.timestamp_max != i64::MIN).then_some(self.timestamp_max)
    }

    /// Notes `[start, next)` with its highest timestamp and size. Only what begins inside or at the end of the known
    /// part extends it; anything else changes nothing.
    pub fn note(&mut self, start: i64, next: i64, timestamp_max: i64, bytes: u64) {
        if start > self.covered_end || next <= self.covered_end {
            return;
        }
        self.since_point = self.since_point.saturating_add(bytes);
        self.covered_end = next;
        self.timestamp_max = self.timestamp_max.max(timestamp_max);
        if self.since_point >= self.spacing_bytes {
            self.since_point = 0;
            self.points.push(Point { next_offset: next, timestamp_max: self.timestamp_max });
            if self.points.len() > self.points_max {
                self.thin();
            }
        }
    }

    /// Notes that no record lies in `[covered end, next)`: a hole, or a log start that moved on.
    pub fn skip_to(&mut self, next: i64) {
        self.covered_end = self.covered_end.max(next);
    }

    /// Where a search for the first record with a timestamp of at least `timestamp` has to begin: no record below has
    /// one.
    #[must_use]
    pub fn search_from(&self, timestamp: i64, log_start: i64) -> i64 {
        if self.timestamp_max < timestamp {
            return self.covered_end.max(log_start);
        }
        let below = self.points.partition_point(|point| point.timestamp_max < timestamp);
        below.checked_sub(1).map_or(log_start, |at| self.points[at].next_offset.max(log_start))
    }

    fn thin(&mut self) {
        let mut odd = false;
        self.points.retain(|_| {
            odd = !odd;
            !odd
        });
        self.spacing_bytes = self.spacing_bytes.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_never_covered() {
        let mut index = TimeIndex::new(10, 8);
        index.note(12, 20, 5, 1);
        assert_eq!((index.covered_end(), index.timestamp_max()), (10, None));
        index.note(10, 12, 5, 1);
        index.note(5, 12, 99, 1);
        assert_eq!((index.covered_end(), index.timestamp_max()), (12, Some(5)));
        index.skip_to(20);
        index.note(20, 21, 4, 1);
        assert_eq!((index.covered_end(), index.timestamp_max()), (21, Some(5)));
    }

    proptest! {
        #[test]
        fn a_search_never_begins_behind_the_answer(
            batches in prop::collection::vec((1i64..5, 0i64..1000, 1u64..400_000), 1..200),
            known in 0usize..200,
            timestamp in 0i64..1100,
        ) {
            let mut index = TimeIndex::new(0, 4);
            let mut next = 0;
            let mut answer = None;
            for (at, (span, max, bytes)) in batches.iter().enumerate() {
                if at < known {
                    index.note(next, next + span, *max, *bytes);
                }
                if answer.is_none() && *max >= timestamp {
                    answer = Some(next);
                }
                next += span;
            }
            let from = index.search_from(timestamp, 0);
            prop_assert!(from <= answer.unwrap_or(next));
            prop_assert!(index.points.len() <= 4);
        }
    }
}

//! When a pass is due, and how far it may go.

use crate::clean::retention::Extent;

/// What the decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Due<'a> {
    /// Live ranges, ascending, from the log start to the committed end.
    pub ranges: &'a [Extent],
    /// Everything below holds one record a key.
    pub clean_end: i64,
    /// Nothing at or above may be touched: last stable offset, committed end, floors of sinks.
    pub until: i64,
    /// Retention time.
    pub now_ms: i64,
    /// `min.cleanable.dirty.ratio` in millionths.
    pub ratio_min_ppm: u32,
    /// `min.compaction.lag.ms`.
    pub lag_min_ms: i64,
    /// `max.compaction.lag.ms`.
    pub lag_max_ms: i64,
    /// When the first tombstone of the clean part may go; 0 for none.
    pub horizon_ms: i64,
}

/// A pass: the keys of `[from, until)` are mapped, everything below `until` is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where the dirty part begins.
    pub from: i64,
    /// Where it ends; equal to `from` when only tombstones go.
    pub until: i64,
}

/// Decides.
#[must_use]
pub fn plan(due: &Due<'_>) -> Option<Plan> {
    let start = due.ranges.first().map_or(0, |range| range.start);
    let from = due.clean_end.max(start);
    let mut until = due.until;
    let dirty = |range: &&Extent| range.end > from;
    if due.lag_min_ms > 0 {
        let young =
            |range: &&Extent| range.max_timestamp > due.now_ms.saturating_sub(due.lag_min_ms);
        let first = due.ranges.iter().filter(dirty).find(young);
        until = until.min(first.map_or(until, |range| range.start));
    }
    let tombstones = due.horizon_ms > 0 && due.horizon_ms <= due.now_ms;
    if until <= from {
        // The clean part may have become untouchable again only by a floor: then nothing of it goes either.
        let reachable = tombstones && due.until >= from && from > start;
        return reachable.then_some(Plan { from, until: from });
    }
    let (mut clean_bytes, mut dirty_bytes) = (0_u64, 0_u64);
    for range in due.ranges.iter().filter(|range| range.start < until) {
        if range.end <= from {
            clean_bytes = clean_bytes.saturating_add(range.bytes);
        } else {
            dirty_bytes = dirty_bytes.saturating_add(range.bytes);
        }
    }
    let all = u128::from(clean_bytes) + u128::from(dirty_bytes);
    let ratio = u128::from(dirty_bytes) * 1_000_000;
    let enough = dirty_bytes > 0 && ratio > u128::from(due.ratio_min_ppm) * all;
    let overdue = due.lag_max_ms < i64::MAX
        && due.ranges.iter().find(dirty).is_some_and(|range| {
            due.now_ms.saturating_sub(range.max_timestamp.max(0)) > due.lag_max_ms
        });
    (enough || overdue || tombstones).then_some(Plan { from, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGES: [Extent; 3] = [
        Extent { start: 0, end: 10, bytes: 100, max_timestamp: 700 },
        Extent { start: 10, end: 20, bytes: 50, max_timestamp: 800 },
        Extent { start: 20, end: 30, bytes: 50, max_timestamp: 900 },
    ];

    fn due() -> Due<'static> {
        Due {
            ranges: &RANGES,
            clean_end: 10,
            until: 30,
            now_ms: 1000,
            ratio_min_ppm: 499_999,
            lag_min_ms: 0,
            lag_max_ms: i64::MAX,
            horizon_ms: 0,
        }
    }

    #[test]
    fn the_ratio_the_lags_the_floors_and_the_horizon_decide() {
        let all = Some(Plan { from: 10, until: 30 });
        assert_eq!(plan(&due()), all);
        assert_eq!(plan(&Due { ratio_min_ppm: 500_000, ..due() }), None);
        assert_eq!(plan(&Due { ratio_min_ppm: 1_000_000, lag_max_ms: 199, ..due() }), all);
        assert_eq!(plan(&Due { ratio_min_ppm: 1_000_000, lag_max_ms: 200, ..due() }), None);
        let lagging = Due { ratio_min_ppm: 0, lag_min_ms: 150, ..due() };
        assert_eq!(plan(&lagging), Some(Plan { from: 10, until: 20 }));
        assert_eq!(plan(&Due { lag_min_ms: 500, ratio_min_ppm: 0, ..due() }), None);
        assert_eq!(
            plan(&Due { until: 12, ratio_min_ppm: 0, ..due() }),
            Some(Plan { from: 10, until: 12 })
        );
        assert_eq!(plan(&Due { until: 10, ..due() }), None);
        let over = Due { until: 10, horizon_ms: 1000, ..due() };
        assert_eq!(plan(&over), Some(Plan { from: 10, until: 10 }));
        assert_eq!(plan(&Due { until: 9, ..over }), None);
        assert_eq!(plan(&Due { horizon_ms: 1001, ..over }), None);
        assert_eq!(plan(&Due { ranges: &[], clean_end: 0, ..due() }), None);
    }
}

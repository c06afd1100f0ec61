//! Ticks of the wall clock, aligned to midnight of a time zone.
//!
//! ```text
//! midnight            +1 interval         +2 intervals           next midnight
//!    |--------------------|--------------------|------------ ... ------|
//!    tick                 tick                 tick                    tick, whatever the interval
//! ```
//! A day of 23 or 25 hours keeps its own midnight: the last interval before it is shorter.

use jiff::Timestamp;

use crate::config::Schedule;

/// The first tick after `after_ms`, milliseconds since 1970.
pub(crate) fn next_tick(schedule: &Schedule, after_ms: i64) -> i64 {
    let interval = schedule.interval_ms.max(1);
    let fallback = after_ms.saturating_add(interval);
    let Ok(instant) = Timestamp::from_millisecond(after_ms) else { return fallback };
    let zoned = instant.to_zoned(schedule.zone.clone());
    let Ok(start) = zoned.start_of_day() else { return fallback };
    let next_midnight = zoned
        .tomorrow()
        .and_then(|day| day.start_of_day())
        .map(|day| day.timestamp().as_millisecond());
    let start_ms = start.timestamp().as_millisecond();
    let steps = (after_ms - start_ms).div_euclid(interval) + 1;
    let tick = start_ms.saturating_add(steps.saturating_mul(interval));
    match next_midnight {
        // An interval of whole days is not aligned to each midnight but counted from 1970's.
        Ok(midnight) if interval < 86_400_000 => tick.min(midnight.max(after_ms + 1)),
        Ok(_) => days_tick(schedule, after_ms).unwrap_or(tick),
        Err(_) => tick,
    }
}

/// The first midnight after `after_ms` whose day number since 1970-01-01 is a multiple of the interval in days.
fn days_tick(schedule: &Schedule, after_ms: i64) -> Option<i64> {
    let days = schedule.interval_ms.div_euclid(86_400_000).max(1);
    let today = Timestamp::from_millisecond(after_ms).ok()?.to_zoned(schedule.zone.clone()).date();
    let epoch = jiff::civil::date(1970, 1, 1);
    let number = i64::from(epoch.until(today).ok()?.get_days());
    let ahead = days - number.rem_euclid(days);
    let date = today.checked_add(jiff::Span::new().try_days(ahead).ok()?).ok()?;
    Some(date.to_zoned(schedule.zone.clone()).ok()?.timestamp().as_millisecond())
}

/// Ticks in `(after_ms, until_ms]`: how many, and the last. Counts no further than 100,000.
pub(crate) fn ticks_between(schedule: &Schedule, after_ms: i64, until_ms: i64) -> u64 {
    let mut count = 0;
    let mut tick = next_tick(schedule, after_ms);
    while tick <= until_ms && count < 100_000 {
        count += 1;
        tick = next_tick(schedule, tick);
    }
    count
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    use super::*;

    fn ms(text: &str) -> i64 {
        text.parse::<Timestamp>().expect("valid").as_millisecond()
    }

    fn berlin(interval_ms: i64) -> Schedule {
        Schedule { interval_ms, zone: TimeZone::get("Europe/Berlin").expect("bundled") }
    }

    #[test]
    fn ticks_are_counted_from_local_midnight() {
        let hourly = berlin(3_600_000);
        assert_eq!(next_tick(&hourly, ms("2026-07-01T10:20:00Z")), ms("2026-07-01T11:00:00Z"));
        assert_eq!(next_tick(&hourly, ms("2026-07-01T11:00:00Z")), ms("2026-07-01T12:00:00Z"));
        let seven = berlin(7 * 3_600_000);
        assert_eq!(next_tick(&seven, ms("2026-07-01T20:30:00Z")), ms("2026-07-01T22:00:00Z"));
    }

    #[test]
    fn a_day_ends_at_local_midnight_through_both_clock_changes() {
        let daily = berlin(86_400_000);
        assert_eq!(next_tick(&daily, ms("2026-03-29T01:30:00Z")), ms("2026-03-29T22:00:00Z"));
        assert_eq!(next_tick(&daily, ms("2026-10-25T01:30:00Z")), ms("2026-10-25T23:00:00Z"));
        let six = berlin(6 * 3_600_000);
        assert_eq!(next_tick(&six, ms("2026-03-29T21:30:00Z")), ms("2026-03-29T22:00:00Z"));
    }

    #[test]
    fn ticks_that_passed_are_counted() {
        let hourly = berlin(3_600_000);
        let (from, until) = (ms("2026-07-01T10:20:00Z"), ms("2026-07-01T13:00:00Z"));
        assert_eq!(ticks_between(&hourly, from, until), 3);
    }

    proptest! {
        #[test]
        fn the_next_tick_lies_ahead(after in 0i64..4_000_000_000_000, interval in 1i64..200_000_000) {
            let schedule = berlin(interval);
            let tick = next_tick(&schedule, after);
            prop_assert!(tick > after);
            let days = interval.div_euclid(86_400_000).max(1) * 86_400_000;
            prop_assert!(tick - after <= interval.max(days) + 3_600_000);
        }
    }
}

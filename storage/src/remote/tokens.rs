//! A bucket of tokens: what retries and second tries are paid with, so that an outage is no storm of them.

use std::time::Duration;

use parking_lot::Mutex;

/// Starts full. A plain mutex: held for a few additions.
#[derive(Debug)]
pub(super) struct Tokens {
    max: f64,
    per_second: f64,
    state: Mutex<(f64, Duration)>,
}

impl Tokens {
    /// Holds at most `max`, and gains `per_second` by itself.
    pub fn new(max: f64, per_second: f64) -> Self {
        Self { max, per_second, state: Mutex::new((max, Duration::ZERO)) }
    }

    /// Takes one, at `now` on the process's monotonic clock. False when there is none.
    pub fn take(&self, now: Duration) -> bool {
        let mut state = self.state.lock();
        let gained = now.saturating_sub(state.1).as_secs_f64() * self.per_second;
        let left = (state.0 + gained).min(self.max);
        let taken = left >= 1.0;
        *state = (if taken { left - 1.0 } else { left }, now.max(state.1));
        taken
    }

    /// Gives `amount`, up to the bound.
    pub fn give(&self, amount: f64) {
        let mut state = self.state.lock();
        state.0 = (state.0 + amount).min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_comes_back_with_time_and_success() {
        let tokens = Tokens::new(3.0, 0.5);
        let at = Duration::from_secs;
        assert_eq!([0, 0, 0, 0].map(|now| tokens.take(at(now))), [true, true, true, false]);
        assert!(!tokens.take(at(1)));
        assert!(tokens.take(at(2)));
        tokens.give(10.0);
        assert_eq!([2, 2, 2, 2].map(|now| tokens.take(at(now))), [true, true, true, false]);
    }
}

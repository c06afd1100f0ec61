//! Healthy, throttled or down: what the last requests say about the store.

use std::time::Duration;

use common::Clock;
use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::cause::Cause;

/// Failures in a row, without a success between, before the store counts as down.
const FAILURES_MAX: u32 = 4;
/// How long no request may have succeeded before the store counts as down.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// How long after the last throttled answer the store counts as throttled.
const THROTTLED_FOR: Duration = Duration::from_secs(10);
/// While the store is down, one read in so much time tries whether it still is.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);

/// What the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// It answers.
    Healthy,
    /// It asks for fewer requests.
    Throttled,
    /// It does not answer, or refuses everything.
    Down(Cause),
}

impl StoreState {
    /// The word for `/v1` and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Throttled => "throttled",
            Self::Down(_) => "down",
        }
    }

    pub(super) fn number(self) -> i64 {
        match self {
            Self::Healthy => 0,
            Self::Throttled => 1,
            Self::Down(_) => 2,
        }
    }
}

#[derive(Debug)]
struct Seen {
    failures: u32,
    // Last success, last throttled answer, last trial: on the process's monotonic clock.
    success: Duration,
    throttled: Option<Duration>,
    trial: Option<Duration>,
    since: Duration,
}

#[derive(Debug)]
pub(super) struct Health {
    clock: Clock,
    seen: Mutex<Seen>,
    state: watch::Sender<StoreState>,
}

/// May a read go out now?
pub(super) enum Admission {
    Go,
    /// The store is down: after this time it may be tried, unless another read finds it well before.
    Wait(Duration),
}

impl Health {
    pub fn new(clock: Clock) -> Self {
        let now = clock.elapsed();
        let seen =
            Seen { failures: 0, success: now, throttled: None, trial: None, since: Duration::ZERO };
        Self { clock, seen: Mutex::new(seen), state: watch::Sender::new(StoreState::Healthy) }
    }

    pub fn state(&self) -> StoreState {
        self.settle();
        *self.state.borrow()
    }

    pub fn subscribe(&self) -> watch::Receiver<StoreState> {
        self.state.subscribe()
    }

    /// A throttled store that has not said so for a while is healthy.
    fn settle(&self) {
        let now = self.clock.elapsed();
        let seen = self.seen.lock();
        let over = seen.throttled.is_none_or(|at| now.saturating_sub(at) > THROTTLED_FOR);
        if over && *self.state.borrow() == StoreState::Throttled {
            drop(seen);
            self.become_(StoreState::Healthy, now);
        }
    }

    /// The store answered: success, or an error that is an answer.
    pub fn answered(&self) {
        let now = self.clock.elapsed();
        let throttled = {
            let mut seen = self.seen.lock();
            (seen.failures, seen.success, seen.trial) = (0, now, None);
            seen.throttled.is_some_and(|at| now.saturating_sub(at) <= THROTTLED_FOR)
        };
        self.become_(if throttled { StoreState::Throttled } else { StoreState::Healthy }, now);
    }

    pub fn failed(&self, cause: Cause) {
        let now = self.clock.elapsed();
        if cause == Cause::Throttled {
            let mut seen = self.seen.lock();
            seen.throttled = Some(now);
            seen.trial = None;
            drop(seen);
            return self.become_(StoreState::Throttled, now);
        }
        let down = {
            let mut seen = self.seen.lock();
            seen.failures = seen.failures.saturating_add(1);
            seen.failures >= FAILURES_MAX && now.saturating_sub(seen.success) >= SILENCE_MIN
        };
        if down {
            self.become_(StoreState::Down(cause), now);
        }
    }

    /// Asked by a read before it goes out. While the store is down, one read in a second is let through.
    pub fn admit(&self) -> Admission {
        if !matches!(*self.state.borrow(), StoreState::Down(_)) {
            return Admission::Go;
        }
        let now = self.clock.elapsed();
        let mut seen = self.seen.lock();
        let next = seen.trial.map_or(Duration::ZERO, |at| at + TRIAL_PAUSE);
        if next <= now {
            seen.trial = Some(now);
            return Admission::Go;
        }
        Admission::Wait(next - now)
    }

    fn become_(&self, state: StoreState, now: Duration) {
        let mut before = StoreState::Healthy;
        let changed = self.state.send_if_modified(|at| {
            before = *at;
            *at = state;
            before != state
        });
        // Another face of the same outage is told only when a person can do something about it.
        let same = matches!((before, state), (StoreState::Down(_), StoreState::Down(now))
            if matches!(now, Cause::Unavailable | Cause::TimedOut));
        if !changed || same {
            return;
        }
        let since = std::mem::replace(&mut self.seen.lock().since, now);
        let lasted = now.saturating_sub(since).as_secs();
        match state {
            StoreState::Down(cause) => warn!(
                cause = cause.name(),
                remedy = cause.remedy(),
                "object store is down; produce goes on until the log is full"
            ),
            StoreState::Throttled => {
                let remedy = Cause::Throttled.remedy();
                warn!(remedy, "object store throttles");
            }
            StoreState::Healthy => {
                info!(was = before.name(), seconds = lasted, "object store is healthy again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_over_a_while_are_an_outage_and_one_answer_ends_it() {
        let health = Health::new(Clock::simulated(0));
        for _ in 0..10 {
            health.failed(Cause::Unavailable);
        }
        assert_eq!(health.state(), StoreState::Healthy, "a burst within a second is no outage");
        tokio::time::sleep(SILENCE_MIN).await;
        health.failed(Cause::ClockSkew);
        assert_eq!(health.state(), StoreState::Down(Cause::ClockSkew));
        assert!(matches!(health.admit(), Admission::Go));
        assert!(matches!(health.admit(), Admission::Wait(_)));
        tokio::time::sleep(TRIAL_PAUSE).await;
        assert!(matches!(health.admit(), Admission::Go));
        health.answered();
        assert_eq!(health.state(), StoreState::Healthy);
        assert!(matches!(health.admit(), Admission::Go));
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_store_is_not_down_and_settles() {
        let health = Health::new(Clock::simulated(0));
        for _ in 0..10 {
            health.failed(Cause::Throttled);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(health.state(), StoreState::Throttled);
        health.answered();
        assert_eq!(health.state(), StoreState::Throttled, "not healthy at once");
        tokio::time::sleep(THROTTLED_FOR + Duration::from_secs(1)).await;
        assert_eq!(health.state(), StoreState::Healthy);
    }
}

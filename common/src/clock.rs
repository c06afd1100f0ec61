//! Time, as a value that is passed in.

use std::time::Duration;
#[expect(clippy::disallowed_types, reason = "the seam itself")]
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall and monotonic time. Under a paused tokio runtime both stand still until the runtime advances, so a simulation
/// built on [`Clock::simulated`] repeats exactly. Timers (`tokio::time::sleep`) follow the same runtime.
#[derive(Clone, Debug)]
pub struct Clock {
    started: tokio::time::Instant,
    source: Source,
}

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { start_ms: i64 },
}

impl Clock {
    /// The machine's clocks.
    #[must_use]
    pub fn system() -> Self {
        Self { started: tokio::time::Instant::now(), source: Source::System }
    }

    /// A wall clock that reads `start_ms` (milliseconds since 1970) now and moves with tokio's time.
    #[must_use]
    pub fn simulated(start_ms: i64) -> Self {
        Self { started: tokio::time::Instant::now(), source: Source::Simulated { start_ms } }
    }

    /// Wall time in milliseconds since 1970-01-01T00:00Z. May jump; never used for leases or time-outs.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        match self.source {
            Source::System => system_now_ms(),
            Source::Simulated { start_ms } => {
                start_ms + i64::try_from(self.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
            }
        }
    }

    /// Monotonic time since this clock was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        tokio::time::Instant::now().duration_since(self.started)
    }
}

#[expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "the seam itself")]
fn system_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

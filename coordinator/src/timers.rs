//! Deadlines, each with a name: setting a name again replaces its deadline.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A member, or a member id handed out and not yet used, has been silent for its session.
    Heartbeat { group: String, member: String },
    /// The join phase ends.
    Join { group: String },
    /// The sync phase ends.
    Sync { group: String },
    /// Offsets and groups are looked through for expired ones.
    Expiry,
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    by_name: BTreeMap<Timer, i64>,
    by_deadline: BTreeSet<(i64, Timer)>,
}

impl Timers {
    pub(crate) fn set(&mut self, timer: Timer, deadline_ms: i64) {
        self.cancel(&timer);
        self.by_deadline.insert((deadline_ms, timer.clone()));
        self.by_name.insert(timer, deadline_ms);
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some((timer, deadline)) = self.by_name.remove_entry(timer) {
            self.by_deadline.remove(&(deadline, timer));
        }
    }

    pub(crate) fn next(&self) -> Option<i64> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the earliest timer whose deadline has come.
    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<Timer> {
        if self.next()? > now_ms {
            return None;
        }
        let (_, timer) = self.by_deadline.pop_first()?;
        self.by_name.remove(&timer);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_deadline() {
        let mut timers = Timers::default();
        let join = || Timer::Join { group: "g".into() };
        timers.set(join(), 10);
        timers.set(Timer::Expiry, 20);
        timers.set(join(), 30);
        assert_eq!(timers.next(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(30), Some(Timer::Expiry));
        assert_eq!(timers.pop_due(30), Some(join()));
        assert_eq!(timers.pop_due(30), None);
        timers.set(join(), 5);
        timers.cancel(&join());
        assert_eq!(timers.next(), None);
    }
}

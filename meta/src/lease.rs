//! Leases: how long a broker may answer without asking again. They make failover fast; what keeps it right are the
//! epochs, the fenced medium and the commits.
//!
//! ```text
//! broker    sent |-------- valid here --------|
//! leader          received |------ nobody else before ------|+ a tenth
//! ```
//! A lease is counted from when its heartbeat was *sent*, on a clock that also runs while the machine sleeps. Renewals
//! live in the memory of the metadata group's leader; a new leader waits one whole lease before it ends any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Clock, NodeId, WalEpoch};

/// The lease of this broker, as it knows it. Clones share it.
#[derive(Clone, Debug)]
pub struct Lease {
    until_micros: Arc<AtomicU64>,
    clock: Clock,
}

impl Lease {
    /// A lease that never ends: of the only broker of a cluster.
    #[must_use]
    pub fn unlimited(clock: Clock) -> Self {
        Self { until_micros: Arc::new(AtomicU64::new(u64::MAX)), clock }
    }

    /// No lease yet.
    #[must_use]
    pub fn none(clock: Clock) -> Self {
        Self { until_micros: Arc::default(), clock }
    }

    /// The heartbeat sent at `sent` of the broker's own clock was answered: `length` is granted from then on.
    pub fn renewed(&self, sent: Duration, length: Duration) {
        self.until_micros.fetch_max(micros(sent.saturating_add(length)), Ordering::AcqRel);
    }

    /// Whether the broker may answer now.
    #[must_use]
    pub fn holds(&self) -> bool {
        let until = self.until_micros.load(Ordering::Acquire);
        until == u64::MAX || micros(self.clock.elapsed()) < until
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1)
}

#[derive(Clone, Copy, Debug)]
struct Granted {
    /// The epoch of the log that the broker had open: a broker that opened its log again has another.
    epoch: WalEpoch,
    /// Nobody else before, on the leader's clock.
    until: Duration,
    ended: bool,
}

/// What the leader of the metadata group knows of leases. One entry for each broker. Times are of the leader's clock.
#[derive(Clone, Debug)]
pub struct Leases {
    length: Duration,
    since: Duration,
    granted: BTreeMap<NodeId, Granted>,
}

impl Leases {
    /// Of a leader that begins at `now`.
    #[must_use]
    pub fn new(length: Duration, now: Duration) -> Self {
        Self { length, since: now, granted: BTreeMap::new() }
    }

    /// A heartbeat of `node`, whose log is open under `epoch`. The length that is granted, counted from when it was sent;
    /// `None` when that lease has been ended: the broker's process ends and opens its log again.
    pub fn renew(&mut self, node: NodeId, epoch: WalEpoch, now: Duration) -> Option<Duration> {
        let until = now + self.patience();
        let lease = self.granted.entry(node).or_insert(Granted { epoch, until, ended: false });
        if lease.epoch > epoch || (lease.epoch == epoch && lease.ended) {
            return None;
        }
        *lease = Granted { epoch, until: until.max(lease.until), ended: false };
        Some(self.length)
    }

    /// Ends the lease of `node`, whose log is open under `epoch`, if it has run out. From then on it is not renewed under
    /// that epoch, so the log may be fenced.
    pub fn end(&mut self, node: NodeId, epoch: WalEpoch, now: Duration) -> bool {
        // What a former leader granted ends one whole lease after that leader was heard last.
        let unheard = Granted { epoch, until: self.since, ended: false };
        let patience = self.patience();
        let lease = self.granted.entry(node).or_insert(unheard);
        if epoch > lease.epoch {
            *lease = Granted { epoch, until: lease.until, ended: false };
        }
        let until = lease.until.max(self.since + patience);
        lease.ended = lease.ended || now >= until;
        lease.ended
    }

    /// A lease and a tenth, for clocks that do not run alike.
    fn patience(&self) -> Duration {
        self.length + self.length / 10
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);
    const NODE: NodeId = NodeId(1);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_counts_from_the_sending() {
        let clock = Clock::simulated(0);
        let lease = Lease::none(clock.clone());
        assert!(!lease.holds());
        let sent = clock.elapsed();
        tokio::time::sleep(at(4)).await;
        lease.renewed(sent, LENGTH);
        assert!(lease.holds());
        tokio::time::sleep(at(6)).await;
        assert!(!lease.holds());
        assert!(Lease::unlimited(clock).holds());
    }

    #[test]
    fn an_ended_lease_comes_back_only_under_another_epoch() {
        let mut leases = Leases::new(LENGTH, at(0));
        assert_eq!(leases.renew(NODE, WalEpoch(3), at(5)), Some(LENGTH));
        assert!(!leases.end(NODE, WalEpoch(3), at(15)), "its time is not over");
        assert!(leases.end(NODE, WalEpoch(3), at(16)));
        assert_eq!(leases.renew(NODE, WalEpoch(3), at(17)), None);
        assert_eq!(leases.renew(NODE, WalEpoch(4), at(18)), Some(LENGTH));
        assert_eq!(leases.renew(NODE, WalEpoch(3), at(18)), None, "a former life");
        assert!(!leases.end(NODE, WalEpoch(4), at(19)));
    }

    #[test]
    fn a_new_leader_waits_one_lease() {
        let mut leases = Leases::new(LENGTH, at(100));
        assert!(!leases.end(NODE, WalEpoch(3), at(110)));
        assert!(leases.end(NODE, WalEpoch(3), at(111)));
        assert_eq!(leases.renew(NODE, WalEpoch(3), at(112)), None, "never heard, and fenced");
    }
}

//! Metrics of the metadata group, `sluice_meta_*`.

use common::metrics::{Counter, Gauge, Histogram, Registry, latency_histogram};

/// The set of this room. `Metrics::default()` counts without being published.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Commands applied.
    pub commands: Counter,
    /// Commands refused by `apply`.
    pub rejects: Counter,
    /// Time from a proposal to its reply.
    pub propose_seconds: Histogram,
    /// Time of a synced write of the store.
    pub sync_seconds: Histogram,
    /// Failed operations of the store; the process ends after the first failed write.
    pub store_errors: Counter,
    /// Entries in raft's log.
    pub log_entries: Gauge,
    /// 1 while this voter leads.
    pub leader: Gauge,
    /// Changes of leader seen.
    pub elections: Counter,
    /// Proposals refused because too many were in flight or no leader was known in time.
    pub proposals_refused: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commands: Counter::default(),
            rejects: Counter::default(),
            propose_seconds: latency_histogram(),
            sync_seconds: latency_histogram(),
            store_errors: Counter::default(),
            log_entries: Gauge::default(),
            leader: Gauge::default(),
            elections: Counter::default(),
            proposals_refused: Counter::default(),
        }
    }
}

impl Metrics {
    /// The set, published in `registry`.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let set = Self::default();
        registry.room("meta", |room| {
            room.register("commands", "Commands applied", set.commands.clone());
            room.register("rejects", "Commands refused by their rules", set.rejects.clone());
            let propose = set.propose_seconds.clone();
            room.register("propose_seconds", "Time from a proposal to its reply", propose);
            let sync = set.sync_seconds.clone();
            room.register("sync_seconds", "Time of a synced write of the store", sync);
            let errors = set.store_errors.clone();
            room.register("store_errors", "Failed operations of the store", errors);
            room.register("log_entries", "Entries in the raft log", set.log_entries.clone());
            room.register("leader", "1 while this voter leads", set.leader.clone());
            room.register("elections", "Changes of leader seen", set.elections.clone());
            let refused = set.proposals_refused.clone();
            room.register("proposals_refused", "Proposals given up or turned away", refused);
        });
        set
    }
}

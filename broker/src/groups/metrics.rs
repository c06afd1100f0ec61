//! Metrics of the group coordinators: `sluice_coordinator_*`.

use common::metrics::{Counter, Gauge, Histogram, Registry, latency_histogram};

#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) groups: Gauge,
    pub(super) load_duration: Histogram,
    pub(super) loads_failed: Counter,
    pub(super) append_duration: Histogram,
    pub(super) append_errors: Counter,
}

impl Metrics {
    /// Registers the set once.
    pub(super) fn register(registry: &Registry) -> Self {
        let own = Self {
            groups: Gauge::default(),
            load_duration: latency_histogram(),
            loads_failed: Counter::default(),
            append_duration: latency_histogram(),
            append_errors: Counter::default(),
        };
        registry.room("coordinator", |room| {
            room.register("groups", "Groups in the open shards of this broker", own.groups.clone());
            room.register(
                "load_duration_seconds",
                "Reading one partition of the internal topic into memory",
                own.load_duration.clone(),
            );
            room.register("loads_failed", "Loads that failed", own.loads_failed.clone());
            room.register(
                "append_duration_seconds",
                "From the append of group records until they passed the gate",
                own.append_duration.clone(),
            );
            room.register(
                "append_errors",
                "Group records that were refused",
                own.append_errors.clone(),
            );
        });
        own
    }
}

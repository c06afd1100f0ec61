//! Metrics of the partitions, `sluice_partition_*`.

use common::metrics::{Counter, Family, Gauge, Registry};

/// Label of a refused batch: Kafka's name of the error.
pub type Reason = Vec<(&'static str, &'static str)>;

/// One set per process; cheap to clone. `Metrics::default()` is an unregistered one for tests.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Partitions open now.
    pub open: Gauge,
    /// Batches queued on the log.
    pub appends: Counter,
    /// Records in them.
    pub append_records: Counter,
    /// Bytes in them.
    pub append_bytes: Counter,
    /// Batches refused, by Kafka's error name.
    pub rejected: Family<Reason, Counter>,
    /// Repeats answered with the offset of their original.
    pub duplicates: Counter,
    /// Producers remembered now.
    pub producers: Gauge,
    /// Producers forgotten because a cap was reached.
    pub producers_evicted: Counter,
    /// Snapshots queued into the state streams.
    pub snapshots: Counter,
    /// Fetches that waited at a partition beyond its bound and were woken at once.
    pub waiters_refused: Counter,
    /// Waits that ended because the partition is gone.
    pub gate_refused: Counter,
}

impl Metrics {
    /// Registers a set.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let m = Self::default();
        registry.room("partition", |room| {
            room.register("open", "Partitions open now", m.open.clone());
            room.register("appends", "Batches queued on the log", m.appends.clone());
            room.register("append_records", "Records queued", m.append_records.clone());
            room.register("append_bytes", "Bytes of batches queued", m.append_bytes.clone());
            room.register("rejected", "Batches refused, by error", m.rejected.clone());
            room.register("duplicates", "Repeated batches answered", m.duplicates.clone());
            room.register("producers", "Idempotent producers remembered", m.producers.clone());
            room.register(
                "producers_evicted",
                "Producers forgotten at a cap",
                m.producers_evicted.clone(),
            );
            room.register("snapshots", "Snapshots queued", m.snapshots.clone());
            room.register(
                "waiters_refused",
                "Fetches woken at once because too many wait",
                m.waiters_refused.clone(),
            );
            room.register(
                "gate_refused",
                "Waits ended because the partition is gone",
                m.gate_refused.clone(),
            );
        });
        m
    }

    /// Counts a batch refused with `code`.
    pub fn reject(&self, code: protocol::ErrorCode) {
        self.rejected.get_or_create(&vec![("reason", code.name())]).inc();
    }
}

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
    /// Rounds of the cleaner.
    pub clean_rounds: Counter,
    /// Steps of the cleaner that failed and were left to the next round.
    pub clean_errors: Counter,
    /// Log starts moved by retention.
    pub retention_moves: Counter,
    /// Seconds that the wall clock runs ahead of the time that retention goes by.
    pub retention_behind: Gauge,
    /// Bytes that retention would have released but for a sink, counted at each round.
    pub retention_held: Counter,
    /// Times a sink was found near its bound of protection.
    pub protect_nearing: Counter,
    /// Ranges that a sink will never get because its bound of protection was reached.
    pub protect_passed: Counter,
    /// Log starts moved by DeleteRecords.
    pub records_deleted: Counter,
    /// Passes of topic compaction.
    pub compact_passes: Counter,
    /// Partitions whose pass failed and was left to the next round.
    pub compact_errors: Counter,
    /// Records that passes read.
    pub compact_records_read: Counter,
    /// Records that passes dropped.
    pub compact_records_dropped: Counter,
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
            m.register_cleaning(room);
            room.register(
                "gate_refused",
                "Waits ended because the partition is gone",
                m.gate_refused.clone(),
            );
        });
        m
    }

    fn register_cleaning(&self, room: &mut prometheus_client::registry::Registry) {
        let m = self;
        room.register("clean_rounds", "Rounds of the cleaner", m.clean_rounds.clone());
        room.register("clean_errors", "Failed steps of the cleaner", m.clean_errors.clone());
        room.register(
            "retention_moves",
            "Log starts moved by retention",
            m.retention_moves.clone(),
        );
        room.register(
            "retention_behind_seconds",
            "Wall clock ahead of the time that retention goes by",
            m.retention_behind.clone(),
        );
        room.register(
            "retention_held_bytes",
            "Bytes kept for sinks past their retention, at each round",
            m.retention_held.clone(),
        );
        room.register(
            "protect_nearing",
            "Times a sink was near its bound of protection",
            m.protect_nearing.clone(),
        );
        room.register(
            "protect_passed",
            "Ranges deleted before a sink had cut them",
            m.protect_passed.clone(),
        );
        room.register(
            "records_deleted",
            "Log starts moved by DeleteRecords",
            m.records_deleted.clone(),
        );
        room.register("compact_passes", "Passes of topic compaction", m.compact_passes.clone());
        room.register("compact_errors", "Failed passes", m.compact_errors.clone());
        room.register(
            "compact_records_read",
            "Records that passes read",
            m.compact_records_read.clone(),
        );
        room.register(
            "compact_records_dropped",
            "Records that passes dropped",
            m.compact_records_dropped.clone(),
        );
    }

    /// Counts a batch refused with `code`.
    pub fn reject(&self, code: protocol::ErrorCode) {
        self.rejected.get_or_create(&vec![("reason", code.name())]).inc();
    }
}

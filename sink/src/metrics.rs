//! `sluice_sink_*`. A label names a sink and nothing finer: topics and partitions have no bound.

use common::metrics::{Counter, Family, Gauge, Histogram, Registry, latency_histogram};

/// The labels of a sink: `[("sink", name)]`.
pub type Labels = [(&'static str, String); 1];

/// The set of this room. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records that consumers see and no file holds yet, summed over partitions.
    pub lag: Family<Labels, Gauge>,
    /// Age in seconds of the oldest record that no file holds yet, the worst of all partitions.
    pub freshness: Family<Labels, Gauge>,
    /// Partitions that stopped and wait for an operator.
    pub stopped: Family<Labels, Gauge>,
    /// Partitions at work.
    pub running: Family<Labels, Gauge>,
    /// Completed cuts.
    pub cuts: Counter,
    /// Files put.
    pub files: Counter,
    /// Their bytes.
    pub bytes: Counter,
    /// Their rows.
    pub rows: Counter,
    /// Files found under their name and taken as ours.
    pub adopted: Counter,
    /// Paths whose values have no common type, and cuts whose values are no JSON objects.
    pub conflicts: Counter,
    /// Faults that were tried again.
    pub errors: Counter,
    /// From the decision to cut to the manifest, in seconds.
    pub cut_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            lag: Family::default(),
            freshness: Family::default(),
            stopped: Family::default(),
            running: Family::default(),
            cuts: Counter::default(),
            files: Counter::default(),
            bytes: Counter::default(),
            rows: Counter::default(),
            adopted: Counter::default(),
            conflicts: Counter::default(),
            errors: Counter::default(),
            cut_seconds: latency_histogram(),
        }
    }
}

impl Metrics {
    /// The set, registered.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let m = Self::default();
        registry.room("sink", |room| {
            room.register("lag_offsets", "Offsets not yet in files", m.lag.clone());
            room.register(
                "freshness_seconds",
                "Age of the oldest record not yet in files",
                m.freshness.clone(),
            );
            room.register(
                "stopped_partitions",
                "Partitions that wait for an operator",
                m.stopped.clone(),
            );
            room.register("running_partitions", "Partitions at work", m.running.clone());
            room.register("cuts", "Completed cuts", m.cuts.clone());
            room.register("files", "Files put", m.files.clone());
            room.register("file_bytes", "Bytes of files put", m.bytes.clone());
            room.register("rows", "Rows of files put", m.rows.clone());
            room.register("files_adopted", "Files found and taken as ours", m.adopted.clone());
            room.register(
                "conflicts",
                "Paths kept as text for want of a common type",
                m.conflicts.clone(),
            );
            room.register("errors", "Faults that were tried again", m.errors.clone());
            room.register("cut_seconds", "From decision to manifest", m.cut_seconds.clone());
        });
        m
    }
}

//! Metrics of the log, `sluice_wal_*`.

use common::metrics::{Counter, Gauge, Histogram, Registry, latency_histogram};

/// The set of this room. `Metrics::default()` counts without being published.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Capacity.
    pub capacity_bytes: Gauge,
    /// Bytes between the trimmed position and the end.
    pub occupancy_bytes: Gauge,
    /// Segments on the disk, of all kinds.
    pub segments: Gauge,
    /// Memory of group buffers: open, in flight, cached, and idle.
    pub buffer_bytes: Gauge,
    /// The part of it that waits for reuse.
    pub buffer_idle_bytes: Gauge,
    /// Groups written.
    pub groups: Counter,
    /// Frames in them.
    pub frames: Counter,
    /// Bytes written, padding and tables included.
    pub written_bytes: Counter,
    /// Bytes written that are neither payload nor header nor table.
    pub padding_bytes: Counter,
    /// Size of groups.
    pub group_bytes: Histogram,
    /// Writes in flight.
    pub in_flight: Gauge,
    /// Time from the submission of a group to its durability.
    pub sync_seconds: Histogram,
    /// Appends refused because the log was full.
    pub appends_refused: Counter,
    /// Failed writes or syncs; the process ends after the first.
    pub write_errors: Counter,
    /// Segments not prepared for lack of space.
    pub prepare_errors: Counter,
    /// Segments reused.
    pub segments_reused: Counter,
    /// Bytes read back.
    pub read_bytes: Counter,
    /// Reads that found damage or failed.
    pub read_errors: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let sizes = prometheus_client::metrics::histogram::exponential_buckets(4096.0, 2.0, 15);
        Self {
            capacity_bytes: Gauge::default(),
            occupancy_bytes: Gauge::default(),
            segments: Gauge::default(),
            buffer_bytes: Gauge::default(),
            buffer_idle_bytes: Gauge::default(),
            groups: Counter::default(),
            frames: Counter::default(),
            written_bytes: Counter::default(),
            padding_bytes: Counter::default(),
            group_bytes: Histogram::new(sizes),
            in_flight: Gauge::default(),
            sync_seconds: latency_histogram(),
            appends_refused: Counter::default(),
            write_errors: Counter::default(),
            prepare_errors: Counter::default(),
            segments_reused: Counter::default(),
            read_bytes: Counter::default(),
            read_errors: Counter::default(),
        }
    }
}

impl Metrics {
    /// The set, published in `registry`.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let set = Self::default();
        registry.room("wal", |room| {
            let gauges = [
                ("capacity_bytes", "Bytes of all segments together", &set.capacity_bytes),
                ("occupancy_bytes", "Bytes not yet trimmed", &set.occupancy_bytes),
                ("segments", "Segments on the disk", &set.segments),
                ("in_flight", "Group writes in flight", &set.in_flight),
                (
                    "buffer_bytes",
                    "Memory of group buffers, the idle ones included",
                    &set.buffer_bytes,
                ),
                (
                    "buffer_idle_bytes",
                    "Memory of group buffers kept for reuse",
                    &set.buffer_idle_bytes,
                ),
            ];
            for (name, help, gauge) in gauges {
                room.register(name, help, gauge.clone());
            }
            let counters = [
                ("groups", "Groups written", &set.groups),
                ("frames", "Frames written", &set.frames),
                ("written_bytes", "Bytes written, padding included", &set.written_bytes),
                ("padding_bytes", "Bytes of padding written", &set.padding_bytes),
                ("appends_refused", "Appends refused by a full log", &set.appends_refused),
                ("write_errors", "Failed writes or syncs", &set.write_errors),
                ("prepare_errors", "Segments not prepared for lack of space", &set.prepare_errors),
                ("segments_reused", "Segments reused after a trim", &set.segments_reused),
                ("read_bytes", "Bytes read back", &set.read_bytes),
                ("read_errors", "Reads that failed or found damage", &set.read_errors),
            ];
            for (name, help, counter) in counters {
                room.register(name, help, counter.clone());
            }
            room.register("group_bytes", "Size of groups", set.group_bytes.clone());
            let sync = set.sync_seconds.clone();
            room.register("sync_seconds", "Time of a synced group write", sync);
        });
        set
    }
}

/// A gauge holds an i64.
pub(crate) fn level(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

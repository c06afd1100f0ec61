//! Bounds of the partitions.

use std::time::Duration;

use crate::config::Resolver;

/// Settings of all partitions of a broker.
#[derive(Clone, Debug)]
pub struct Options {
    /// Idempotent producers remembered per partition; beyond it the one that appended longest ago is forgotten.
    pub producers_max: usize,
    /// Idempotent producers remembered on the broker; beyond it a partition that adds one forgets its oldest.
    pub producers_total_max: usize,
    /// A producer that appended nothing for so long is forgotten at the next snapshot, in milliseconds.
    pub producer_expiry_ms: i64,
    /// Batches between two snapshots: the longest replay of an opening.
    pub snapshot_batches_max: u64,
    /// Index records between two snapshots.
    pub snapshot_index_max: u64,
    /// Fetches that may wait at one partition; more are woken at once.
    pub waiters_max: usize,
    /// Points of the time index of one partition.
    pub time_points_max: usize,
    /// Bytes read at once while a partition is opened or searched.
    pub scan_bytes_max: u64,
    /// Bytes that the records of one compressed batch may come to.
    pub decompressed_bytes_max: usize,
    /// How the settings of a topic are found.
    pub resolver: Resolver,
    /// Time between two rounds of the cleaner (`log.retention.check.interval.ms`).
    pub clean_interval: Duration,
    /// Keys that one pass of topic compaction tells apart, and the keys of one batch more; a pass ends where they are
    /// used up and the next one goes on from there.
    pub compaction_keys_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            producers_max: 5_000,
            producers_total_max: 50_000,
            producer_expiry_ms: 86_400_000,
            snapshot_batches_max: 65_536,
            snapshot_index_max: 4_096,
            waiters_max: 10_000,
            time_points_max: 1_024,
            scan_bytes_max: 1 << 20,
            decompressed_bytes_max: 64 << 20,
            resolver: Resolver::default(),
            clean_interval: Duration::from_secs(300),
            compaction_keys_max: 500_000,
        }
    }
}

//! What a storage is made of, and its settings.

use std::sync::Arc;
use std::time::Duration;

use common::metrics::Registry;
use common::{Budget, Clock, NodeId, Rng, WalId};
use object_store::ObjectStore;
use object_store::path::Path;

/// Called with one clear line when the process must end: a failed write of the log, a fenced log, a broken invariant.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// The parts of a storage.
#[derive(Clone)]
pub struct Deps {
    /// Time.
    pub clock: Clock,
    /// Randomness, for jitter.
    pub rng: Rng,
    /// The directory of log segments.
    pub disk: Arc<dyn wal::Disk>,
    /// The object store, wrapped as [`crate::Remote`]. A local directory must be opened with fsync.
    pub store: Arc<dyn ObjectStore>,
    /// `<prefix>/<cluster id>` in the store.
    pub prefix: Path,
    /// Metadata.
    pub meta: meta::Handle,
    /// The process's memory budget.
    pub budget: Budget,
    /// The process's metrics.
    pub registry: Registry,
    /// This broker.
    pub node: NodeId,
    /// Its log, as metadata knows it.
    pub wal: WalId,
    /// Ends the process.
    pub on_fatal: OnFatal,
}

/// Settings. `Default` is for production; tests shrink the limits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Settings of the log.
    pub wal: wal::Options,
    /// An upload round begins when so many bytes of the log wait, and takes no more (`upload.size.max`).
    pub upload_bytes_max: u64,
    /// A round takes no more ranges of streams, so that its commit fits a metadata command; those of each group of the
    /// log count apart.
    pub upload_ranges_max: u64,
    /// Bytes that the index of what is not yet uploaded may take; at the bound the log counts as full.
    pub index_bytes_max: u64,
    /// An upload round begins when the oldest entry that waits is so old (`upload.age.max`).
    pub upload_age_max: Duration,
    /// A larger object is put in parts, when a single put of it has failed or it does not lie in memory.
    pub put_single_bytes_max: u64,
    /// Size of a part; S3 wants at least 5 MiB.
    pub put_part_bytes: u64,
    /// Parts in flight.
    pub put_parts_max: usize,
    /// A put or part that takes longer counts as failed.
    pub put_timeout: Duration,
    /// Bytes that an upload reads back from the log at once, when they have left the tail cache.
    pub upload_window_bytes_max: u64,
    /// How long a registered object id lives without a commit.
    pub object_ttl: Duration,
    /// Group buffers the tail cache keeps; also bounded by the budget.
    pub tail_bytes_max: u64,
    /// Blocks, object indexes and groups read back that the block cache keeps; also bounded by the budget.
    pub block_cache_bytes_max: u64,
    /// Bytes one read asks of the store at once, read-ahead included.
    pub read_ahead_bytes_max: u64,
    /// A read from the store that takes longer, its turn and its retries included, is refused as unavailable.
    pub read_timeout: Duration,
    /// Tries of a compaction's read, each with the retries of the store's wrapper, before its job is put off.
    pub read_tries_max: u32,
    /// Requests in flight of [`crate::Class::Tail`].
    pub tail_requests_max: usize,
    /// Requests in flight of [`crate::Class::CatchUp`].
    pub catch_up_requests_max: usize,
    /// Requests in flight of [`crate::Class::Sink`].
    pub sink_requests_max: usize,
    /// Requests in flight of [`crate::Class::Compaction`].
    pub compaction_requests_max: usize,
    /// Whether this broker plans compaction by itself (`compaction.enabled`).
    pub compaction_enabled: bool,
    /// Compaction jobs and rewrites at a time.
    pub compaction_jobs_max: usize,
    /// Bytes that compaction reads in a second (`compaction.bandwidth.max`).
    pub compaction_bytes_per_second: u64,
    /// Size of a part of an output; what a job holds in memory, apart from a few blocks.
    pub compaction_part_bytes: u64,
    /// An output is closed at about this size (`compaction.object.size.max`).
    pub compaction_object_bytes_max: u64,
    /// Ranges that one job takes.
    pub compaction_ranges_max: usize,
    /// Younger objects are left alone: the end of the log is read from memory, and more of it may come.
    pub compaction_age_min: Duration,
    /// Pause between looks for something to do.
    pub compaction_interval: Duration,
    /// First pause after a failure; doubles, jittered.
    pub backoff_min: Duration,
    /// Longest pause after a failure.
    pub backoff_max: Duration,
    /// How long a close waits for its last round while the store fails.
    pub close_timeout: Duration,
    /// Time between two passes of the sweeper.
    pub sweep_interval: Duration,
    /// Deletes in flight.
    pub sweep_deletes_max: usize,
    /// A released object is deleted so much later: longer than a read and the lag of metadata (`object.delete.delay`).
    pub delete_delay: Duration,
    /// Delete only what no snapshot of metadata in the bucket names any more; see [`crate::Storage::set_delete_floor`].
    pub delete_needs_snapshot: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wal: wal::Options::default(),
            upload_bytes_max: 64 << 20,
            upload_ranges_max: 200_000,
            index_bytes_max: 64 << 20,
            upload_age_max: Duration::from_secs(10),
            put_single_bytes_max: 16 << 20,
            put_part_bytes: 8 << 20,
            put_parts_max: 2,
            put_timeout: Duration::from_secs(120),
            upload_window_bytes_max: 16 << 20,
            object_ttl: Duration::from_secs(3600),
            tail_bytes_max: 64 << 20,
            block_cache_bytes_max: 24 << 20,
            read_ahead_bytes_max: 4 << 20,
            read_timeout: Duration::from_secs(25),
            read_tries_max: 3,
            tail_requests_max: 4,
            catch_up_requests_max: 3,
            sink_requests_max: 2,
            compaction_requests_max: 1,
            compaction_enabled: true,
            compaction_jobs_max: 1,
            compaction_bytes_per_second: 32 << 20,
            compaction_part_bytes: 16 << 20,
            compaction_object_bytes_max: 1 << 30,
            compaction_ranges_max: 8192,
            compaction_age_min: Duration::from_secs(60),
            compaction_interval: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            close_timeout: Duration::from_secs(30),
            sweep_interval: Duration::from_secs(10),
            sweep_deletes_max: 4,
            delete_delay: Duration::from_secs(120),
            delete_needs_snapshot: false,
        }
    }
}

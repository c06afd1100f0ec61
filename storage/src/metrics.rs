//! `sluice_storage_*`.

use common::failpoint;
use std::time::Duration;

use common::metrics::{Counter, Family, Gauge, Histogram, Registry, latency_histogram};
use prometheus_client::encoding::EncodeLabelSet;

/// Where the bytes of a read came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Source {
    pub source: &'static str,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Operation {
    pub operation: &'static str,
}

/// The metrics of a storage; unregistered by `default`.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    unuploaded_bytes: Gauge,
    upload_lag: Gauge,
    pub rounds: Counter,
    pub groups_read_back: Counter,
    pub ids_renewed: Counter,
    pub objects_put: Counter,
    pub objects_put_bytes: Counter,
    pub put_latency: Histogram,
    pub commit_latency: Histogram,
    errors: Family<Operation, Counter>,
    tail_bytes: Gauge,
    tail_evictions: Counter,
    index_bytes: Gauge,
    pub index_full: Counter,
    block_cache_bytes: Gauge,
    hits: Family<Source, Counter>,
    pub block_cache_misses: Counter,
    pub gets: Counter,
    pub get_bytes: Counter,
    read_latency: Family<Source, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            unuploaded_bytes: Gauge::default(),
            upload_lag: Gauge::default(),
            rounds: Counter::default(),
            groups_read_back: Counter::default(),
            ids_renewed: Counter::default(),
            objects_put: Counter::default(),
            objects_put_bytes: Counter::default(),
            put_latency: latency_histogram(),
            commit_latency: latency_histogram(),
            errors: Family::default(),
            tail_bytes: Gauge::default(),
            tail_evictions: Counter::default(),
            index_bytes: Gauge::default(),
            index_full: Counter::default(),
            block_cache_bytes: Gauge::default(),
            hits: Family::default(),
            block_cache_misses: Counter::default(),
            gets: Counter::default(),
            get_bytes: Counter::default(),
            read_latency: Family::new_with_constructor(latency_histogram),
        }
    }
}

impl Metrics {
    pub fn register(registry: &Registry) -> Self {
        let all = Self::default();
        registry.room("storage", |room| {
            let m = &all;
            room.register(
                "wal_unuploaded_bytes",
                "Payload bytes in the log that no committed object holds; what a plain disk could lose",
                m.unuploaded_bytes.clone(),
            );
            room.register(
                "upload_lag_seconds",
                "Age of the oldest entry that no committed object holds",
                m.upload_lag.clone(),
            );
            room.register("upload_rounds", "Committed upload rounds", m.rounds.clone());
            room.register(
                "upload_groups_read_back",
                "Groups that an upload read back from the log",
                m.groups_read_back.clone(),
            );
            room.register(
                "upload_ids_renewed",
                "Rounds that took another object id, because theirs expired or their plan changed",
                m.ids_renewed.clone(),
            );
            room.register("objects_put", "Objects put durably", m.objects_put.clone());
            room.register("objects_put_bytes", "Bytes of objects put", m.objects_put_bytes.clone());
            room.register("object_put_seconds", "Time of a durable put", m.put_latency.clone());
            room.register("upload_commit_seconds", "Time of a commit", m.commit_latency.clone());
            room.register("errors", "Failed operations, by operation", m.errors.clone());
            room.register("tail_cache_bytes", "Bytes in the tail cache", m.tail_bytes.clone());
            room.register(
                "tail_cache_evictions",
                "Groups evicted from the tail cache",
                m.tail_evictions.clone(),
            );
            room.register(
                "index_bytes",
                "Bytes of the index of what is in the log or in the tail cache",
                m.index_bytes.clone(),
            );
            room.register(
                "index_full",
                "Appends refused because that index has reached its bound",
                m.index_full.clone(),
            );
            room.register(
                "block_cache_bytes",
                "Bytes in the block cache",
                m.block_cache_bytes.clone(),
            );
            room.register("cache_hits", "Reads answered from a cache, by source", m.hits.clone());
            room.register(
                "block_cache_misses",
                "Blocks that had to be fetched",
                m.block_cache_misses.clone(),
            );
            room.register("object_gets", "Range requests to the store", m.gets.clone());
            room.register("object_get_bytes", "Bytes got from the store", m.get_bytes.clone());
            room.register("read_seconds", "Time of a read, by source", m.read_latency.clone());
        });
        all
    }

    pub fn pending(&self, bytes: u64) {
        self.unuploaded_bytes.set(signed(bytes));
    }

    pub fn lag(&self, lag: Duration) {
        self.upload_lag.set(signed(lag.as_secs()));
    }

    pub fn tail_bytes(&self, bytes: u64) {
        self.tail_bytes.set(signed(bytes));
    }

    pub fn index_bytes(&self, bytes: u64) {
        self.index_bytes.set(signed(bytes));
    }

    pub fn block_cache_bytes(&self, bytes: u64) {
        self.block_cache_bytes.set(signed(bytes));
    }

    pub fn evicted(&self, groups: u64) {
        self.tail_evictions.inc_by(groups);
    }

    pub fn error(&self, operation: &'static str) {
        self.errors.get_or_create(&Operation { operation }).inc();
    }

    pub fn hit(&self, source: &'static str) {
        if source == "block" {
            failpoint::hit("read.block");
        }
        self.hits.get_or_create(&Source { source }).inc();
    }

    pub fn read(&self, source: &'static str, time: Duration) {
        failpoint::hit(match source {
            "tail" => "read.tail",
            "wal" => "read.log",
            _ => "read.object",
        });
        self.read_latency.get_or_create(&Source { source }).observe(time.as_secs_f64());
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

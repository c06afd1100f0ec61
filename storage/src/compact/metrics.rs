//! `sluice_storage_compaction_*`.

use common::metrics::{Counter, Family, Gauge, Registry};
use prometheus_client::encoding::EncodeLabelSet;

/// What was asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    request: &'static str,
}

/// Why a job was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The metrics of compaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub read_bytes: Counter,
    pub written_bytes: Counter,
    pub jobs: Counter,
    requests: Family<Request, Counter>,
    abandoned: Family<Reason, Counter>,
    objects_per_stream: Gauge,
    waiting_objects: Gauge,
    live_objects: Gauge,
}

impl Metrics {
    pub fn register(registry: &Registry) -> Self {
        let all = Self::default();
        registry.room("storage", |room| {
            let m = &all;
            room.register(
                "compaction_read_bytes",
                "Bytes of blocks that compaction read",
                m.read_bytes.clone(),
            );
            room.register(
                "compaction_written_bytes",
                "Bytes of objects that compaction wrote",
                m.written_bytes.clone(),
            );
            room.register("compaction_jobs", "Jobs and rewrites committed", m.jobs.clone());
            room.register(
                "compaction_requests",
                "Requests of compaction to the store, by kind",
                m.requests.clone(),
            );
            room.register(
                "compaction_abandoned",
                "Jobs and rewrites given up, by reason",
                m.abandoned.clone(),
            );
            room.register(
                "compaction_objects_per_stream_max",
                "Objects of the stream that lies in the most, as compaction last saw it",
                m.objects_per_stream.clone(),
            );
            room.register(
                "compaction_waiting_objects",
                "Objects that compaction would still merge or split",
                m.waiting_objects.clone(),
            );
            room.register(
                "compaction_live_objects",
                "Objects with live ranges, as compaction last counted them",
                m.live_objects.clone(),
            );
        });
        all
    }

    /// One request of the kind `get` or `put`.
    pub fn request(&self, request: &'static str) {
        self.requests.get_or_create(&Request { request }).inc();
    }

    pub fn abandoned(&self, reason: &'static str) {
        self.abandoned.get_or_create(&Reason { reason }).inc();
    }

    pub fn seen(&self, live: usize, waiting: usize) {
        self.live_objects.set(i64::try_from(live).unwrap_or(i64::MAX));
        self.waiting_objects.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    pub fn objects_per_stream(&self, objects: usize) {
        self.objects_per_stream.set(i64::try_from(objects).unwrap_or(i64::MAX));
    }
}

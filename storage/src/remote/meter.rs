//! `sluice_storage_store_*`: every request to the object store, as the store's bill counts them.

use std::time::Duration;

use common::metrics::{Counter, Family, Gauge, Histogram, Registry, latency_histogram};
use prometheus_client::encoding::EncodeLabelSet;

use super::cause::Cause;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Part,
    /// Beginning, completing or aborting a multipart upload.
    Multipart,
    Get,
    Head,
    List,
    Delete,
    Copy,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Part => "part",
            Self::Multipart => "multipart",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Failed {
    operation: &'static str,
    cause: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Meter {
    requests: Family<Operation, Counter>,
    bytes: Family<Operation, Counter>,
    errors: Family<Failed, Counter>,
    latency: Family<Operation, Histogram>,
    pub retries: Counter,
    pub retries_refused: Counter,
    pub hedges: Counter,
    pub hedges_won: Counter,
    pub own_writes: Counter,
    pub refused_down: Counter,
    pub in_flight: Gauge,
    pub state: Gauge,
}

impl Meter {
    pub fn register(registry: &Registry) -> Self {
        let all = Self {
            requests: Family::default(),
            bytes: Family::default(),
            errors: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            retries: Counter::default(),
            retries_refused: Counter::default(),
            hedges: Counter::default(),
            hedges_won: Counter::default(),
            own_writes: Counter::default(),
            refused_down: Counter::default(),
            in_flight: Gauge::default(),
            state: Gauge::default(),
        };
        registry.room("storage", |room| {
            let m = &all;
            room.register("store_requests", "Requests sent to the store", m.requests.clone());
            room.register("store_bytes", "Bytes of bodies sent and received", m.bytes.clone());
            room.register("store_errors", "Failed requests, by cause", m.errors.clone());
            room.register("store_request_seconds", "Time of a request", m.latency.clone());
            room.register("store_retries", "Requests sent again", m.retries.clone());
            room.register(
                "store_retries_refused",
                "Requests not sent again because the retry budget was spent",
                m.retries_refused.clone(),
            );
            room.register("store_hedges", "Second requests for slow reads", m.hedges.clone());
            room.register(
                "store_hedges_won",
                "Second requests that were first",
                m.hedges_won.clone(),
            );
            room.register(
                "store_own_writes",
                "Writes answered as a conflict or failure that had taken effect",
                m.own_writes.clone(),
            );
            room.register(
                "store_refused_down",
                "Reads refused at once because the store is down",
                m.refused_down.clone(),
            );
            room.register("store_requests_in_flight", "Requests in flight", m.in_flight.clone());
            room.register(
                "store_state",
                "Object store: 0 healthy, 1 throttled, 2 down",
                m.state.clone(),
            );
        });
        all
    }

    pub fn sent(&self, kind: Kind) {
        self.requests.get_or_create(&Operation { operation: kind.name() }).inc();
    }

    pub fn bytes(&self, kind: Kind, bytes: u64) {
        self.bytes.get_or_create(&Operation { operation: kind.name() }).inc_by(bytes);
    }

    pub fn failed(&self, kind: Kind, cause: Cause) {
        let label = Failed { operation: kind.name(), cause: cause.name() };
        self.errors.get_or_create(&label).inc();
    }

    pub fn took(&self, kind: Kind, time: Duration) {
        let label = Operation { operation: kind.name() };
        self.latency.get_or_create(&label).observe(time.as_secs_f64());
    }
}

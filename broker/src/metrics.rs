//! Metrics of the broker process: `sluice_broker_*`.

use std::sync::Arc;
use std::time::Duration;

use common::metrics::{Counter, Family, Gauge, Histogram, Registry, latency_histogram};
use protocol::{ApiKey, ErrorCode};

use crate::budgets::Budgets;

type Labels = [(&'static str, &'static str); 1];
type CodeLabels = [(&'static str, &'static str); 2];

/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    requests: Family<Labels, Counter>,
    latency: Latencies,
    errors: Family<CodeLabels, Counter>,
    connections: Gauge,
    connections_opened: Counter,
    connections_refused: Counter,
    connections_broken: Counter,
    received: Counter,
    sent: Counter,
    in_flight: Gauge,
    in_flight_waits: Counter,
    buffers_idle: Gauge,
    answers: Gauge,
    produce_waits: Counter,
    memory_used: Gauge,
    memory_max: Gauge,
    memory_refused: Gauge,
}

#[derive(Debug)]
struct Latencies(Family<Labels, Histogram, fn() -> Histogram>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Family::new_with_constructor(latency_histogram))
    }
}

impl Metrics {
    /// Registers the set once.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        let own = &*metrics.0;
        registry.room("broker", |room| {
            room.register("requests", "Requests by API", own.requests.clone());
            room.register(
                "request_duration_seconds",
                "From the last byte of a request to the last byte of its answer, by API",
                own.latency.0.clone(),
            );
            room.register(
                "request_errors",
                "Errors in answers, by API and Kafka's error name",
                own.errors.clone(),
            );
            room.register("connections", "Open client connections", own.connections.clone());
            room.register(
                "connections_opened",
                "Client connections accepted",
                own.connections_opened.clone(),
            );
            room.register(
                "connections_refused",
                "Connections closed at once because max.connections was reached",
                own.connections_refused.clone(),
            );
            room.register(
                "connections_broken",
                "Connections ended by the broker because of what the client sent",
                own.connections_broken.clone(),
            );
            room.register("received_bytes", "Request bytes", own.received.clone());
            room.register("sent_bytes", "Response bytes", own.sent.clone());
            room.register(
                "in_flight_bytes",
                "Request bytes read and not yet handled",
                own.in_flight.clone(),
            );
            room.register(
                "in_flight_waits",
                "Times a request waited for room among the bytes in flight",
                own.in_flight_waits.clone(),
            );
            room.register(
                "buffers_idle_bytes",
                "Request buffers kept for reuse",
                own.buffers_idle.clone(),
            );
            room.register(
                "answers_bytes",
                "Response bytes that wait for their clients to take them",
                own.answers.clone(),
            );
            room.register(
                "produce_waits",
                "Times a produce request waited because the write-ahead log was full",
                own.produce_waits.clone(),
            );
            let memory = [
                ("memory_used_bytes", "Bytes taken from the memory budget", &own.memory_used),
                ("memory_max_bytes", "The memory budget, memory.max", &own.memory_max),
                ("memory_refusals", "Times the memory budget had no room", &own.memory_refused),
            ];
            for (name, help, gauge) in memory {
                room.register(name, help, gauge.clone());
            }
        });
        metrics
    }

    /// One request answered, `time` after its last byte came.
    pub fn answered(&self, key: ApiKey, time: Duration) {
        let labels = [("api", key.name())];
        self.0.requests.get_or_create(&labels).inc();
        self.0.latency.0.get_or_create(&labels).observe(time.as_secs_f64());
    }

    /// An answer carries `code`.
    pub fn failed(&self, key: ApiKey, code: ErrorCode) {
        if code != ErrorCode::None {
            self.0.errors.get_or_create(&[("api", key.name()), ("code", code.name())]).inc();
        }
    }

    /// A connection was accepted.
    pub fn opened(&self) {
        self.0.connections.inc();
        self.0.connections_opened.inc();
    }

    /// A connection has ended; `broken` when the broker ended it for what it sent.
    pub fn closed(&self, broken: bool) {
        self.0.connections.dec();
        if broken {
            self.0.connections_broken.inc();
        }
    }

    /// A connection was over the bound.
    pub fn refused(&self) {
        self.0.connections_refused.inc();
    }

    /// Request bytes came in.
    pub fn received(&self, bytes: u64) {
        self.0.received.inc_by(bytes);
    }

    /// Response bytes went out.
    pub fn sent(&self, bytes: u64) {
        self.0.sent.inc_by(bytes);
    }

    /// A request waits for room among the bytes in flight.
    pub fn in_flight_wait(&self) {
        self.0.in_flight_waits.inc();
    }

    /// A produce request waits for room in the log.
    pub fn produce_wait(&self) {
        self.0.produce_waits.inc();
    }

    /// Copies what the budgets say into the gauges; called when metrics are read.
    pub fn refresh(&self, budgets: &Budgets) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.0.memory_used.set(gauge(budgets.memory.used()));
        self.0.memory_max.set(gauge(budgets.memory.bytes_max()));
        self.0.memory_refused.set(gauge(budgets.memory.refused()));
        self.0.in_flight.set(gauge(budgets.requests.used() + budgets.small_requests.used()));
        self.0.answers.set(gauge(budgets.answers.used()));
        self.0.buffers_idle.set(gauge(budgets.buffers.idle_bytes()));
    }
}

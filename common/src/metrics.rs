//! The one registry of a process. Each room registers its own set once; names are `sluice_<room>_<noun>_<unit>`.

use std::sync::Arc;

use parking_lot::Mutex;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry;

/// Cheap to clone; all clones are the same registry.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Mutex<registry::Registry>>);

impl Default for Registry {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(registry::Registry::with_prefix("sluice"))))
    }
}

impl Registry {
    /// Registers the metrics of `room`: `body` sees a registry that prefixes `sluice_<room>_`.
    pub fn room<T>(&self, room: &str, body: impl FnOnce(&mut registry::Registry) -> T) -> T {
        body(self.0.lock().sub_registry_with_prefix(room))
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.0.lock())
            .expect("writing to a string does not fail");
        out
    }
}

/// A latency histogram in seconds, 50 microseconds to about 26 seconds, each bucket twice the one before.
#[must_use]
pub fn latency_histogram() -> Histogram {
    Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(50e-6, 2.0, 20))
}

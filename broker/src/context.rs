//! What every handler may use.

use std::ops::Range;
use std::sync::Arc;

use common::{Clock, NodeId, Rng, Shutdown};
use parking_lot::Mutex;

use crate::budgets::Budgets;
use crate::config::Settings;
use crate::groups::Groups;
use crate::metrics::Metrics;

/// The parts of a running broker. Cheap to clone: every field is a handle.
#[derive(Clone)]
pub struct Context {
    /// The settings the process was started with.
    pub settings: Arc<Settings>,
    /// Wall and monotonic time.
    pub clock: Clock,
    /// Seeded randomness.
    pub rng: Rng,
    /// This broker.
    pub node: NodeId,
    /// The host and port clients are told to use.
    pub advertised: (String, u16),
    /// Cluster truth: proposals, the image, stream indexes.
    pub meta: meta::Handle,
    /// Streams over WAL, caches and objects.
    pub storage: storage::Storage,
    /// Open partitions of this broker.
    pub partitions: partition::Partitions,
    /// Group coordinators of this broker.
    pub groups: Groups,
    /// Producer ids from metadata's last block that are not issued yet.
    pub producer_ids: Arc<Mutex<Range<i64>>>,
    /// Broker metrics.
    pub metrics: Metrics,
    /// Shares of `memory.max`.
    pub budgets: Budgets,
    /// Ends when the process drains.
    pub shutdown: Shutdown,
}

//! The partitions that are open on this broker.
//!
//! One task, [`Partitions::run`], follows the image: it closes partitions whose topic was deleted or whose epoch has
//! moved on, and hands changed topic settings to the others. It is owned by the broker and ends with its shutdown.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::metrics::Registry;
use common::{Budget, Clock, NodeId, PartitionId, Shutdown};
use parking_lot::Mutex;
use storage::Storage;
use tokio::sync::OnceCell;

use crate::config::TopicConfig;
use crate::error::{Gone, OpenError};
use crate::gate::owned;
use crate::metrics::Metrics;
use crate::open;
use crate::options::Options;
use crate::partition::{Partition, Shared};

/// The parts of a registry.
#[derive(Clone)]
pub struct Deps {
    /// Streams.
    pub storage: Storage,
    /// Metadata.
    pub meta: meta::Handle,
    /// How long this broker may answer.
    pub lease: meta::Lease,
    /// This broker.
    pub node: NodeId,
    /// Time.
    pub clock: Clock,
    /// The process's metrics.
    pub registry: Registry,
    /// The process's memory budget.
    pub budget: Budget,
}

/// Open partitions. Cheap to clone; all clones are one registry.
#[derive(Clone)]
pub struct Partitions {
    shared: Arc<Shared>,
    // Held for look-ups only, never over an await.
    slots: Arc<Mutex<BTreeMap<PartitionId, Slot>>>,
}

/// Filled once by whoever comes first; the others wait for it.
type Slot = Arc<OnceCell<Arc<Partition>>>;

impl Partitions {
    /// None open yet.
    #[must_use]
    pub fn new(deps: Deps, options: Options) -> Self {
        let metrics = Metrics::register(&deps.registry);
        let Deps { storage, meta, lease, node, clock, registry: _, budget } = deps;
        let shared = Shared { storage, meta, lease, node, clock, metrics, options, budget };
        Self { shared: Arc::new(shared), slots: Arc::default() }
    }

    /// The bounds in force.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The metrics of all partitions, also for batches that are refused before they reach one.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Makes everything queued so far go to the log: once per request, behind its appends.
    pub fn kick(&self) {
        self.shared.storage.kick();
    }

    /// The partition if it is open and owned here. Never waits.
    #[must_use]
    pub fn opened(&self, id: PartitionId) -> Option<Arc<Partition>> {
        let slot = self.slots.lock().get(&id).cloned()?;
        slot.get().filter(|partition| partition.gate().is_ok()).cloned()
    }

    /// The partition, opened on first use; callers that come meanwhile wait for the same opening. Cancel safe.
    ///
    /// # Errors
    /// See [`OpenError`]; the next call tries again.
    pub async fn get(&self, id: PartitionId) -> Result<Arc<Partition>, OpenError> {
        if let Some(partition) = self.opened(id) {
            return Ok(partition);
        }
        owned_somewhere(&self.shared, id)?;
        let slot = self.slot(id);
        let opened = slot.get_or_try_init(|| open::open(&self.shared, id)).await;
        if opened.is_err() {
            self.forget_empty(id, &slot);
        }
        opened.cloned()
    }

    /// The slot to fill: a new one when what was open is gone.
    fn slot(&self, id: PartitionId) -> Slot {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(&id) {
            match slot.get() {
                Some(partition) if partition.gate().is_err() => {}
                _ => return Arc::clone(slot),
            }
            self.shared.storage.close_partition(id);
        }
        let fresh = Slot::default();
        slots.insert(id, Arc::clone(&fresh));
        fresh
    }

    /// Forgets a slot that nobody fills or waits for.
    fn forget_empty(&self, id: PartitionId, slot: &Slot) {
        let mut slots = self.slots.lock();
        let mine = slots.get(&id).is_some_and(|held| Arc::ptr_eq(held, slot));
        // One count is the map's, one is the caller's.
        if mine && slot.get().is_none() && Arc::strong_count(slot) <= 2 {
            slots.remove(&id);
        }
    }

    /// All open partitions, ascending by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.slots.lock().values().filter_map(|slot| slot.get().cloned()).collect()
    }

    /// Follows the image until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let mut images = self.shared.meta.watch();
        let parts =
            |image: &meta::Image| (Arc::clone(&image.topics), Arc::clone(&image.broker_configs));
        let mut seen = parts(&images.borrow_and_update());
        self.follow();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = images.changed() => if changed.is_err() { return },
            }
            let now = parts(&images.borrow_and_update());
            if !Arc::ptr_eq(&now.0, &seen.0) || !Arc::ptr_eq(&now.1, &seen.1) {
                self.follow();
                seen = now;
            }
        }
    }

    /// Closes what is not owned any more, refreshes the settings of the rest.
    fn follow(&self) {
        let image = self.shared.meta.image();
        // Partitions of one topic follow each other: its settings are looked up once.
        let mut last: Option<(u64, Arc<TopicConfig>)> = None;
        let mut slots = self.slots.lock();
        slots.retain(|id, slot| {
            // An opening in progress meets the gate at its end.
            let Some(partition) = slot.get() else { return true };
            if let Err(gone) = owned(&image, *id, self.shared.node, partition.epoch) {
                partition.close(gone);
                self.shared.storage.close_partition(*id);
                return false;
            }
            if let Some(topic) = image.topics.get(&id.topic) {
                let known = last.take().filter(|(number, _)| *number == id.topic);
                let (_, config) = last.insert(known.unwrap_or_else(|| {
                    let resolver = &self.shared.options.resolver;
                    (id.topic, Arc::new(resolver.resolve(&image, topic)))
                }));
                partition.set_config(Arc::clone(config));
            }
            true
        });
    }

    /// Queues the last snapshots, waits until all that was appended is durable, then closes every partition. Appends
    /// that come later are refused; call it behind the last request and before the storage is closed.
    pub async fn close_all(&self) {
        let partitions = self.all();
        for partition in &partitions {
            // Without it the next opening only replays more.
            if let Err(error) = partition.snapshot() {
                tracing::debug!(partition = %partition.id(), %error, "no snapshot at close");
            }
        }
        self.shared.storage.kick();
        for partition in &partitions {
            let end = partition.offsets().end;
            // An error means it is closed already.
            let _ = partition.wait_durable(end).await;
            partition.close(Gone::Stopping);
        }
        let mut slots = self.slots.lock();
        for partition in &partitions {
            slots.remove(&partition.id());
            self.shared.storage.close_partition(partition.id());
        }
    }
}

/// Fails fast for what this broker does not own.
fn owned_somewhere(shared: &Shared, id: PartitionId) -> Result<(), OpenError> {
    let image = shared.meta.image();
    let index = usize::try_from(id.index).ok();
    let partition = image
        .topics
        .get(&id.topic)
        .and_then(|topic| topic.partitions.get(index?))
        .ok_or(OpenError::Unknown { topic: id.topic, index: id.index })?;
    if partition.leader == Some(shared.node) { Ok(()) } else { Err(Gone::NotLeader.into()) }
}

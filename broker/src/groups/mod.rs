//! The shell around [`coordinator::Shard`]: one task per open `__consumer_offsets` partition loads it, feeds it
//! requests, time and the outcome of writes, and executes its effects.
//!
//! ```text
//! api/*.rs -> Groups::join, commit, ... -> ask -> shard task -> Partition::append -> gate -> Shard::written -> answer
//! ```
//!
//! | task | owner | life |
//! |---|---|---|
//! | `watch` | [`Groups`] | from [`Groups::start`] to shutdown: opens the shards led here, reports deleted topics to them |
//! | shard, one per partition led here | [`Groups`] | from its first use until shutdown or the loss of the partition |

mod actor;
mod batch;
mod load;
mod metrics;
mod topic;
mod typed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Clock, NodeId, PartitionId, Rng, Shutdown};
use coordinator::{Request, Response};
use parking_lot::Mutex;
use protocol::ErrorCode;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::task::TaskTracker;

use metrics::Metrics;

/// How long a request waits for its shard to be loaded before it is told that loading is in progress.
const LOAD_PATIENCE: Duration = Duration::from_secs(1);

/// Requests queued at one shard; more wait in their connections.
const ASKS_MAX: usize = 1_024;

/// What the coordinators of a broker need.
pub struct Deps {
    /// Cluster truth.
    pub meta: meta::Handle,
    /// Streams, to start writes.
    pub storage: storage::Storage,
    /// Open partitions.
    pub partitions: partition::Partitions,
    /// Time.
    pub clock: Clock,
    /// Randomness, for member ids and the topic id.
    pub rng: Rng,
    /// This broker.
    pub node: NodeId,
    /// Where metrics go.
    pub registry: common::metrics::Registry,
    /// Limits and times.
    pub settings: coordinator::Settings,
    /// `offsets.topic.num.partitions`, for the creation of the topic.
    pub offsets_partitions: u32,
    /// Ends all tasks.
    pub shutdown: Shutdown,
}

/// The group coordinators of this broker. Cheap to clone.
#[derive(Clone)]
pub struct Groups(Arc<Inner>);

struct Inner {
    deps: Deps,
    metrics: Metrics,
    tasks: TaskTracker,
    // Held for look-ups and insertions only, never over an await.
    slots: Mutex<BTreeMap<PartitionId, Slot>>,
    // At most one creation of the topic at a time.
    creating: tokio::sync::Mutex<()>,
}

/// The way to one shard.
#[derive(Clone)]
struct Slot {
    asks: mpsc::Sender<Ask>,
    loaded: watch::Receiver<bool>,
}

/// What a shard's task is asked.
enum Ask {
    Request { request: Request, reply: oneshot::Sender<Response> },
    TopicDeleted(String),
}

impl std::fmt::Debug for Groups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Groups({} shards)", self.0.slots.lock().len())
    }
}

impl Groups {
    /// Starts the coordinators; shards are opened in the background and at first use.
    #[must_use]
    pub fn start(deps: Deps) -> Self {
        let metrics = Metrics::register(&deps.registry);
        let groups = Self(Arc::new(Inner {
            deps,
            metrics,
            tasks: TaskTracker::new(),
            slots: Mutex::new(BTreeMap::new()),
            creating: tokio::sync::Mutex::new(()),
        }));
        let watching = groups.clone();
        groups.0.tasks.spawn(async move { watching.watch().await });
        groups
    }

    /// Waits until all tasks have ended after shutdown.
    pub async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Which partition of the internal topic owns `group`; `None` while the topic does not exist.
    #[must_use]
    pub fn partition_of(&self, group: &str) -> Option<u32> {
        let image = self.0.deps.meta.image();
        let count = u32::try_from(image.topic(coordinator::TOPIC)?.partitions.len()).ok()?;
        (count > 0).then(|| coordinator::partition_for(group, count))
    }

    /// Sends `request` to the shard of its group and waits for the answer.
    async fn ask(&self, request: Request) -> Result<Response, ErrorCode> {
        let group = request.group().unwrap_or_default();
        let index = self.partition_of(group).ok_or(ErrorCode::NotCoordinator)?;
        let id = self.led_here(index).ok_or(ErrorCode::NotCoordinator)?;
        self.ask_shard(id, request).await
    }

    async fn ask_shard(&self, id: PartitionId, request: Request) -> Result<Response, ErrorCode> {
        let mut slot = self.open(id);
        match tokio::time::timeout(LOAD_PATIENCE, slot.loaded.wait_for(|loaded| *loaded)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(ErrorCode::CoordinatorNotAvailable),
            Err(_) => return Err(ErrorCode::CoordinatorLoadInProgress),
        }
        let (reply, answer) = oneshot::channel();
        let sent = slot.asks.send(Ask::Request { request, reply }).await;
        sent.map_err(|_| ErrorCode::NotCoordinator)?;
        match answer.await {
            Ok(Response::Refused(error)) => Err(error),
            Ok(response) => Ok(response),
            Err(_) => Err(ErrorCode::NotCoordinator),
        }
    }

    /// The partition `index` of the internal topic, when this broker leads it.
    fn led_here(&self, index: u32) -> Option<PartitionId> {
        let image = self.0.deps.meta.image();
        let topic = image.topic(coordinator::TOPIC)?;
        let partition = topic.partitions.get(usize::try_from(index).ok()?)?;
        let id = PartitionId { topic: topic.number, index };
        (partition.leader == Some(self.0.deps.node)).then_some(id)
    }

    /// All partitions of the internal topic that this broker leads.
    fn all_led_here(&self) -> Vec<PartitionId> {
        let count = self.0.deps.meta.image().topic(coordinator::TOPIC).map(|t| t.partitions.len());
        let count = u32::try_from(count.unwrap_or(0)).unwrap_or(0);
        (0..count).filter_map(|index| self.led_here(index)).collect()
    }

    /// The way to a shard; its task is started when there is none or the last one has ended.
    fn open(&self, id: PartitionId) -> Slot {
        let mut slots = self.0.slots.lock();
        if let Some(slot) = slots.get(&id).filter(|slot| !slot.asks.is_closed()) {
            return slot.clone();
        }
        slots.retain(|_, slot| !slot.asks.is_closed());
        let (asks, queue) = mpsc::channel(ASKS_MAX);
        let (ready, loaded) = watch::channel(false);
        let slot = Slot { asks, loaded };
        slots.insert(id, slot.clone());
        self.0.tasks.spawn(actor::run(self.clone(), id, queue, ready));
        slot
    }

    /// Opens what is led here and tells the shards of deleted topics, until shutdown.
    async fn watch(self) {
        let mut images = self.0.deps.meta.watch();
        let shutdown = self.0.deps.shutdown.clone();
        let mut known = Arc::clone(&images.borrow_and_update().by_name);
        loop {
            for id in self.all_led_here() {
                let mut slot = self.open(id);
                // One after the other: a start with many groups must not read everything at once.
                let loading = tokio::time::timeout(LOAD_PATIENCE, slot.loaded.wait_for(|l| *l));
                let _ = shutdown.run_until_cancelled(loading).await;
            }
            let changed = shutdown.run_until_cancelled(images.changed()).await;
            if !matches!(changed, Some(Ok(()))) {
                return;
            }
            let names = Arc::clone(&images.borrow_and_update().by_name);
            if Arc::ptr_eq(&names, &known) {
                continue;
            }
            let gone = known.iter().filter(|(name, number)| names.get(*name) != Some(number));
            for (name, _) in gone {
                self.topic_deleted(name).await;
            }
            known = names;
        }
    }

    async fn topic_deleted(&self, topic: &str) {
        let slots: Vec<Slot> = self.0.slots.lock().values().cloned().collect();
        for slot in slots {
            // A shard that has ended compares its topics with the image when it is loaded again.
            let _ = slot.asks.send(Ask::TopicDeleted(topic.to_owned())).await;
        }
    }
}

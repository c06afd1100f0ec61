//! Owns the tasks of all sinks on this broker.
//!
//! | task | owner | ends |
//! |---|---|---|
//! | `supervisor` | [`Runner`] | at [`Runner::close`]; follows the image, starts and stops the others |
//! | one per sink and partition led here | `supervisor`, which joins it | with its sink, its partition's leadership, or the runner |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use common::metrics::Registry;
use common::{Budget, Clock, NodeId, PartitionId, Rng, Shutdown};
use meta::{Image, SinkMeta, SinkState};
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::Mutex;
use partition::Partitions;
use storage::Storage;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinHandle;

use crate::config::SinkConfig;
use crate::executor::{Error, Executor, Identity};
use crate::layout::Layout;
use crate::log::PartitionLog;
use crate::metrics::Metrics;
use crate::planner::Limits;
use crate::status::{PartitionStatus, State};
use crate::store::{self, Unfit};
use crate::task::{Opener, Task};

/// Opens the store of another bucket by its name.
pub type OpenBucket = Arc<dyn Fn(&str) -> Result<Arc<dyn ObjectStore>, String> + Send + Sync>;

/// The parts of a runner.
#[derive(Clone)]
pub struct Deps {
    /// Open partitions.
    pub partitions: Partitions,
    /// Streams.
    pub storage: Storage,
    /// Metadata.
    pub meta: meta::Handle,
    /// This broker.
    pub node: NodeId,
    /// The cluster's own store.
    pub store: Arc<dyn ObjectStore>,
    /// `<cluster prefix>/<cluster id>` in it.
    pub prefix: Path,
    /// For sinks that name a bucket of their own.
    pub open_bucket: OpenBucket,
    /// Time.
    pub clock: Clock,
    /// Randomness, for names of temporary objects.
    pub rng: Rng,
    /// The process's memory budget.
    pub budget: Budget,
    /// The process's metrics.
    pub registry: Registry,
}

/// Bounds and times of a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bounds of a cut.
    pub limits: Limits,
    /// Cuts that are executed at the same time.
    pub writers_max: usize,
    /// How often a task looks for new committed records.
    pub poll: Duration,
    /// Largest file that is one put, in bytes.
    pub single_put_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            writers_max: 8,
            poll: Duration::from_millis(200),
            single_put_max: store::SINGLE_PUT_MAX,
        }
    }
}

/// Runs all sinks of this broker. Cheap to clone; all clones are one runner.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

/// A sink's id and a partition's index.
type Key = (u64, u32);
type SharedStatus = Arc<Mutex<PartitionStatus>>;

struct Inner {
    deps: Deps,
    options: Options,
    metrics: Metrics,
    writers: Arc<Semaphore>,
    // Short look-ups, never over an await.
    statuses: Mutex<BTreeMap<Key, SharedStatus>>,
    /// Names with a label set.
    measured: Mutex<BTreeSet<String>>,
    shutdown: Shutdown,
    supervisor: Mutex<Option<JoinHandle<()>>>,
}

/// A task and what it was started for.
struct Running {
    /// Of which sink, leader epoch and configuration it is.
    of: Of,
    shutdown: Shutdown,
    join: JoinHandle<()>,
}

#[derive(Clone, Debug, PartialEq)]
struct Of {
    sink: Arc<SinkMeta>,
    partition: PartitionId,
    epoch: common::StreamEpoch,
    problem: Option<String>,
}

/// Why a sink's store was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It cannot be opened.
    #[error("bucket {bucket:?} cannot be opened: {reason}")]
    Open {
        /// The bucket.
        bucket: String,
        /// Why.
        reason: String,
    },
    /// It cannot hold a sink's files.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

impl Runner {
    /// Starts the supervisor; it follows the image of metadata.
    #[must_use]
    pub fn start(deps: Deps, options: Options) -> Self {
        let inner = Arc::new(Inner {
            metrics: Metrics::register(&deps.registry),
            writers: Arc::new(Semaphore::new(options.writers_max)),
            deps,
            options,
            statuses: Mutex::default(),
            measured: Mutex::default(),
            shutdown: Shutdown::new(),
            supervisor: Mutex::default(),
        });
        let task = tokio::spawn(supervise(Arc::clone(&inner)));
        *inner.supervisor.lock() = Some(task);
        Self(inner)
    }

    /// Where a sink of this name and configuration puts its keys.
    #[must_use]
    pub fn prefix(&self, name: &str, config: &SinkConfig) -> Path {
        self.0.prefix(name, config)
    }

    /// Tries that the store of a configuration is there and refuses to overwrite.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub async fn probe(&self, name: &str, config: &SinkConfig) -> Result<(), ProbeError> {
        self.0.probe(name, config).await
    }

    /// What the sink with this id is doing in the partitions that this broker leads, by partition.
    #[must_use]
    pub fn status(&self, sink_id: u64) -> Vec<PartitionStatus> {
        let statuses = self.0.statuses.lock();
        let of = statuses.range((sink_id, 0)..=(sink_id, u32::MAX));
        of.map(|(_, status)| status.lock().clone()).collect()
    }

    /// Stops all tasks and joins them. An open cut is completed at the next start.
    pub async fn close(&self) {
        self.0.shutdown.cancel();
        let supervisor = self.0.supervisor.lock().take();
        if let Some(supervisor) = supervisor
            && let Err(error) = supervisor.await
        {
            tracing::error!(%error, "sink supervisor ended badly");
        }
    }
}

impl Inner {
    fn prefix(&self, name: &str, config: &SinkConfig) -> Path {
        match (&config.prefix, &config.bucket) {
            (Some(prefix), _) => Path::from(prefix.as_str()),
            (None, Some(_)) => Path::default(),
            (None, None) => self.deps.prefix.clone().join("sinks").join(name.to_owned()),
        }
    }

    fn store(&self, config: &SinkConfig) -> Result<Arc<dyn ObjectStore>, ProbeError> {
        let Some(bucket) = &config.bucket else { return Ok(Arc::clone(&self.deps.store)) };
        (self.deps.open_bucket)(bucket)
            .map_err(|reason| ProbeError::Open { bucket: bucket.clone(), reason })
    }

    async fn probe(&self, name: &str, config: &SinkConfig) -> Result<(), ProbeError> {
        let store = self.store(config)?;
        let layout = Layout::new(&self.prefix(name, config), config, name, "", 0);
        store::probe(store.as_ref(), &layout.probe(self.deps.rng.next_u64())).await?;
        Ok(())
    }

    /// What should run here: every partition of a running sink's topic that this node leads.
    fn wanted(&self, image: &Image) -> BTreeMap<Key, Of> {
        let mut wanted = BTreeMap::new();
        for sink in image.sinks.values().filter(|sink| sink.state == SinkState::Running) {
            let of = |index: u32, epoch, problem| Of {
                sink: Arc::clone(sink),
                partition: PartitionId { topic: sink.topic, index },
                epoch,
                problem,
            };
            let Some(topic) = image.topics.get(&sink.topic).filter(|t| t.id == sink.topic_id)
            else {
                let problem = gone(image, sink);
                wanted.insert((sink.id, 0), of(0, common::StreamEpoch(0), Some(problem)));
                continue;
            };
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.leader == Some(self.deps.node) {
                    wanted.insert((sink.id, index), of(index, partition.epoch, None));
                }
            }
        }
        wanted
    }

    /// Starts the task of `of`, or shows why there is none.
    fn start(self: &Arc<Self>, key: Key, of: Of, probed: Arc<OnceCell<()>>) -> Running {
        let status = Arc::new(Mutex::new(PartitionStatus {
            topic: of.sink.topic_name.clone(),
            partition: key.1,
            ..PartitionStatus::default()
        }));
        self.statuses.lock().insert(key, Arc::clone(&status));
        let shutdown = self.shutdown.child_token();
        let (config, generation) = match checked(&of) {
            Ok(checked) => checked,
            Err(problem) => return halted(of, &status, &problem, shutdown),
        };
        let image = self.deps.meta.image();
        let task = Task {
            rules: config.rules.clone(),
            limits: self.options.limits,
            origin: of.sink.starts.get(&key.1).copied(),
            floor: image.floor(key.0, key.1).unwrap_or(0),
            clock: self.deps.clock.clone(),
            poll: self.options.poll,
            budget: self.deps.budget.clone(),
            writers: Arc::clone(&self.writers),
            metrics: self.metrics.clone(),
            status,
            shutdown: shutdown.clone(),
            opener: Box::new(Open {
                runner: Arc::clone(self),
                sink: Arc::clone(&of.sink),
                partition: of.partition,
                config,
                generation,
                probed,
            }),
        };
        Running { of, shutdown, join: tokio::spawn(task.run()) }
    }

    /// Sums of all partitions, by sink.
    fn measure(&self, names: &BTreeMap<u64, String>) {
        let mut sums: BTreeMap<u64, [i64; 4]> = names.keys().map(|id| (*id, [0; 4])).collect();
        for ((sink, _), status) in self.statuses.lock().iter() {
            let status = status.lock();
            let Some(sum) = sums.get_mut(sink) else { continue };
            sum[0] = sum[0].saturating_add(status.lag);
            sum[1] = sum[1].max(status.freshness_ms / 1000);
            sum[2] += i64::from(status.state == State::Stopped);
            sum[3] += i64::from(status.state != State::Stopped);
        }
        let families = [
            &self.metrics.lag,
            &self.metrics.freshness,
            &self.metrics.stopped,
            &self.metrics.running,
        ];
        let labels = |name: &String| [("sink", name.clone())];
        let mut measured = self.measured.lock();
        for old in measured.iter().filter(|old| names.values().all(|name| name != *old)) {
            families.iter().for_each(|family| _ = family.remove(&labels(old)));
        }
        *measured = names.values().cloned().collect();
        for (id, sum) in sums {
            let Some(name) = names.get(&id) else { continue };
            for (family, value) in families.iter().zip(sum) {
                family.get_or_create(&labels(name)).set(value);
            }
        }
    }
}

fn gone(image: &Image, sink: &SinkMeta) -> String {
    let what = match image.topic(&sink.topic_name) {
        Some(topic) => format!("was recreated with id {}", topic.id),
        None => "was deleted".to_owned(),
    };
    format!(
        "topic {} (id {}) {what}; delete the sink (its files stay) and create one with another name or topics.dir",
        sink.topic_name, sink.topic_id
    )
}

/// The configuration and generation of a sink that can run.
fn checked(of: &Of) -> Result<(SinkConfig, u32), String> {
    if let Some(problem) = &of.problem {
        return Err(problem.clone());
    }
    let config = SinkConfig::parse(&of.sink.config).map_err(|faults| faults.to_string())?;
    let generation = u32::try_from(of.sink.generation);
    Ok((config, generation.map_err(|_| "its generation is past 2^32".to_owned())?))
}

/// A task that only waits to be ended.
fn halted(of: Of, status: &Mutex<PartitionStatus>, problem: &str, shutdown: Shutdown) -> Running {
    tracing::error!(sink = of.sink.name, problem, "sink stopped");
    let mut status = status.lock();
    (status.state, status.problem) = (State::Stopped, Some(problem.to_owned()));
    let token = shutdown.clone();
    Running { of, shutdown, join: tokio::spawn(async move { token.cancelled().await }) }
}

struct Open {
    runner: Arc<Inner>,
    sink: Arc<SinkMeta>,
    partition: PartitionId,
    config: SinkConfig,
    generation: u32,
    probed: Arc<OnceCell<()>>,
}

#[async_trait]
impl Opener for Open {
    async fn open(&self) -> Result<Executor, Error> {
        let Inner { deps, options, metrics, .. } = self.runner.as_ref();
        let probe = || self.runner.probe(&self.sink.name, &self.config);
        self.probed.get_or_try_init(probe).await.map_err(|error| match error {
            ProbeError::Unfit(Unfit::Overwrites { .. }) => Error::Stop {
                reason: error.to_string(),
                remedy: "point the sink at a store that honours create-only writes".to_owned(),
            },
            other => Error::Retry(other.to_string()),
        })?;
        let store = self.runner.store(&self.config).map_err(|e| Error::Retry(e.to_string()))?;
        let log =
            PartitionLog::open(&deps.partitions, &deps.storage, &deps.meta, self.partition).await?;
        let log = Arc::new(log);
        Ok(Executor {
            identity: Identity {
                sink_id: self.sink.id,
                sink: self.sink.name.clone(),
                generation: self.generation,
                topic: self.sink.topic_name.clone(),
                topic_id: self.sink.topic_id.to_string(),
                partition: self.partition.index,
            },
            config: self.config.clone(),
            prefix: self.runner.prefix(&self.sink.name, &self.config),
            store,
            source: log.clone(),
            ledger: log,
            rng: deps.rng.clone(),
            metrics: metrics.clone(),
            single_put_max: options.single_put_max,
        })
    }
}

async fn supervise(inner: Arc<Inner>) {
    let mut images = inner.deps.meta.watch();
    let mut running: BTreeMap<Key, Running> = BTreeMap::new();
    let mut probed: BTreeMap<u64, Arc<OnceCell<()>>> = BTreeMap::new();
    loop {
        let image = images.borrow_and_update().clone();
        let wanted = inner.wanted(&image);
        let stale: Vec<_> = running
            .iter()
            .filter(|(key, task)| wanted.get(key) != Some(&task.of))
            .map(|(key, _)| *key)
            .collect();
        for key in &stale {
            if let Some(task) = running.remove(key) {
                end(task).await;
                inner.statuses.lock().remove(key);
            }
        }
        let sinks: BTreeSet<u64> = wanted.keys().map(|(sink, _)| *sink).collect();
        probed.retain(|sink, _| sinks.contains(sink));
        for (key, of) in wanted {
            running.entry(key).or_insert_with(|| {
                let probed = Arc::clone(probed.entry(key.0).or_default());
                inner.start(key, of, probed)
            });
        }
        let names: BTreeMap<u64, String> =
            image.sinks.values().map(|sink| (sink.id, sink.name.clone())).collect();
        if idle(&inner, &mut images, &names).await {
            break;
        }
    }
    for (_, task) in running {
        end(task).await;
    }
}

/// Measures once a second until the image changes; true when it is time to stop.
async fn idle(
    inner: &Inner,
    images: &mut tokio::sync::watch::Receiver<Arc<Image>>,
    names: &BTreeMap<u64, String>,
) -> bool {
    loop {
        inner.measure(names);
        tokio::select! {
            biased;
            () = inner.shutdown.cancelled() => return true,
            changed = images.changed() => return changed.is_err(),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn end(task: Running) {
    task.shutdown.cancel();
    if let Err(error) = task.join.await {
        tracing::error!(sink = task.of.sink.name, %error, "sink task ended badly");
    }
}

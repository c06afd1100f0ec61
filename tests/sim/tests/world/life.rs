//! One life of the engine: metadata, log, storage, partitions, opened as the broker opens them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::metrics::Registry;
use common::{Budget, Clock, NodeId, Rng, Shutdown, StreamKind, WalId};
use meta::Reply;
use meta::command::{Bootstrap, CreateTopic, CreateWal, DeleteTopic, StartNode};
use partition::{Checked, OpenError, Origin, Partition, Partitions};
use protocol::batch::Builder;
use sim::store::{FaultStore, Faults};
use storage::Storage;

use super::clients::Env;
use super::{Cutter, PARTITIONS, World};

/// Bytes of a log segment.
pub const SEGMENT: u64 = 64 << 10;

/// Why a life does not begin.
#[derive(Debug)]
pub enum OpenFailure {
    /// A read of the disk failed, as it was told to.
    ReadFailed,
    Broken(String),
}

fn broken(error: impl ToString) -> OpenFailure {
    OpenFailure::Broken(error.to_string())
}

/// What runs.
pub struct Life {
    pub meta: meta::Handle,
    pub storage: Storage,
    pub partitions: Partitions,
    pub opened: Vec<Arc<Partition>>,
    pub clock: Clock,
    pub wal: WalId,
}

/// Limits so small that every edge is near.
fn storage_options(rng: &Rng) -> storage::Options {
    // Objects in one put or in parts, from memory or read back.
    let single = if rng.one_in(2) { 8 << 10 } else { 64 << 10 };
    let tail = if rng.one_in(2) { 24 << 10 } else { 96 << 10 };
    storage::Options {
        wal: wal::Options {
            gather_bytes_max: 2 << 10,
            capacity_max: 8 * SEGMENT,
            segment_bytes: SEGMENT,
            first_segment_bytes: SEGMENT / 2,
            group_bytes_max: 16 << 10,
            window_bytes_max: 64 << 10,
            queue_bytes_max: 32 << 10,
            ready_segments_max: 1,
            recovered_bytes_max: 64 << 10,
            prepare_backoff: Duration::from_millis(50),
            ..wal::Options::default()
        },
        upload_bytes_max: 48 << 10,
        upload_age_max: Duration::from_millis(150),
        put_single_bytes_max: single,
        put_part_bytes: 8 << 10,
        put_timeout: Duration::from_secs(1),
        upload_window_bytes_max: 16 << 10,
        object_ttl: Duration::from_secs(1),
        tail_bytes_max: tail,
        block_cache_bytes_max: 128 << 10,
        read_ahead_bytes_max: 16 << 10,
        read_timeout: Duration::from_secs(2),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(200),
        close_timeout: Duration::from_secs(2),
        sweep_interval: Duration::from_millis(200),
        delete_delay: Duration::from_millis(300),
        ..storage::Options::default()
    }
}

/// The wrapper of production, with patience that fits.
fn remote(store: &FaultStore, clock: &Clock, rng: &Rng, registry: &Registry) -> storage::Remote {
    let options = storage::RemoteOptions {
        attempt_timeout: Duration::from_millis(300),
        tries_max: 3,
        patience: Duration::from_millis(600),
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(100),
        down_wait_max: Duration::from_millis(1200),
        ..storage::RemoteOptions::default()
    };
    storage::Remote::new(Arc::new(store.clone()), options, clock.clone(), rng.fork(), registry)
}

fn partition_options() -> partition::Options {
    partition::Options {
        snapshot_batches_max: 24,
        snapshot_index_max: 8,
        scan_bytes_max: 8 << 10,
        time_points_max: 8,
        ..partition::Options::default()
    }
}

impl World {
    pub async fn open(
        &mut self,
        cutter: &Cutter,
        registry: &Registry,
    ) -> Result<Life, OpenFailure> {
        let clock = Clock::simulated(self.now_ms);
        let meta = self.open_meta(cutter, &clock).await?;
        let wal = self.bootstrap(&meta).await?;
        let budget = Budget::new(16 << 20);
        let deps = storage::Deps {
            clock: clock.clone(),
            rng: self.rng.fork(),
            disk: self.disk.open(),
            store: Arc::new(remote(&self.store, &clock, &self.rng, registry)),
            prefix: "p/cluster".into(),
            meta: meta.clone(),
            budget: budget.clone(),
            registry: registry.clone(),
            node: NodeId(1),
            wal,
            on_fatal: self.on_fatal(cutter),
        };
        let options = storage_options(&self.rng);
        if self.rng.one_in(4)
            && let Some(facts) = meta.wal(wal).await.map_err(broken)?
        {
            self.damaged_log_is_refused(&options.wal, &facts).await.map_err(OpenFailure::Broken)?;
        }
        let storage = Storage::open(deps, options).await;
        let storage = storage.map_err(|error| match error {
            storage::OpenError::Recover(wal::RecoverError::Read { .. }) => OpenFailure::ReadFailed,
            other => broken(other),
        })?;
        let topic = self.topic(&meta, &clock).await?;
        let deps = partition::Deps {
            storage: storage.clone(),
            meta: meta.clone(),
            lease: meta::Lease::unlimited(clock.clone()),
            node: NodeId(1),
            clock: clock.clone(),
            registry: registry.clone(),
            budget,
        };
        let partitions = Partitions::new(deps, partition_options());
        tokio::spawn(partitions.clone().run(Shutdown::new()));
        let opened = open_partitions(&partitions, topic).await?;
        Ok(Life { meta, storage, partitions, opened, clock, wal })
    }

    fn on_fatal(&self, cutter: &Cutter) -> Arc<dyn Fn(&str) + Send + Sync> {
        let (cutter, checker, disk) = (cutter.clone(), self.checker.clone(), self.disk.clone());
        let errors = disk.met().write_errors;
        Arc::new(move |line| {
            // The disk was told to fail, or the process is dead already.
            if disk.met().write_errors == errors && !cutter.is_dead() {
                checker.lock().fail(format!("the process ended itself: {line}"));
            }
            cutter.cut("fatal");
        })
    }

    async fn open_meta(&self, cutter: &Cutter, clock: &Clock) -> Result<meta::Handle, OpenFailure> {
        let deps = meta::Deps {
            clock: clock.clone(),
            rng: self.rng.fork(),
            transport: Box::new(meta::Alone),
            shutdown: Shutdown::new(),
            on_fatal: self.on_fatal(cutter),
            metrics: meta::Metrics::default(),
        };
        let propose_timeout = Duration::from_millis(300);
        let options = meta::Options { propose_timeout, ..meta::Options::alone() };
        let started = meta::start(Box::new(self.meta.open()), options, deps).await;
        let (handle, driver) = started.map_err(broken)?;
        tokio::spawn(driver.run());
        Ok(handle)
    }

    /// Brings metadata to where a broker can open, wherever a former start was interrupted.
    async fn bootstrap(&self, meta: &meta::Handle) -> Result<WalId, OpenFailure> {
        let cluster_id = "simulation".to_owned();
        let bootstrap = Bootstrap { cluster_id, incarnation: 1, feature_level: 1 };
        meta.propose(bootstrap).await.map_err(broken)?;
        let start = StartNode {
            node: 1,
            host: "localhost".to_owned(),
            port: 9092,
            feature_level_max: meta::FEATURE_LEVEL_MAX,
            ..StartNode::default()
        };
        match meta.propose(start).await.map_err(broken)? {
            Reply::NodeStarted { wal: Some(wal), .. } => Ok(wal),
            Reply::NodeStarted { wal: None, .. } => {
                let create = CreateWal { node: 1, salt: self.rng.next_u64(), survives: false };
                match meta.propose(create).await.map_err(broken)? {
                    Reply::WalCreated { wal } => Ok(wal),
                    other => Err(broken(format!("{other:?}"))),
                }
            }
            other => Err(broken(format!("{other:?}"))),
        }
    }

    /// The topic, made by the first life that gets so far.
    async fn topic(&self, meta: &meta::Handle, clock: &Clock) -> Result<u64, OpenFailure> {
        if let Some((number, _)) = meta.image().topics.first_key_value() {
            return Ok(*number);
        }
        let create = create_topic("topic".to_owned(), &self.rng, clock, PARTITIONS);
        match meta.propose(create).await.map_err(broken)? {
            Reply::TopicCreated { number, .. } => Ok(number),
            other => Err(broken(format!("{other:?}"))),
        }
    }
}

impl Cutter {
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

fn create_topic(name: String, rng: &Rng, clock: &Clock, partitions: u32) -> CreateTopic {
    CreateTopic {
        name,
        id: rng.uuid().as_bytes().to_vec(),
        partitions,
        replication_factor: 1,
        now_ms: clock.now_ms(),
        ..CreateTopic::default()
    }
}

/// A topic comes, is written to and is deleted; `early` counts deletions that an upload has not caught up with.
pub async fn topic_comes_and_goes(
    env: Env,
    meta: meta::Handle,
    partitions: Partitions,
    early: Arc<AtomicU64>,
) {
    let create = create_topic(format!("doomed-{}", env.life), &env.rng, &env.clock, 1);
    let id = create.id.clone();
    let number = match meta.propose(create).await {
        Ok(Reply::TopicCreated { number, .. }) => number,
        Ok(other) => return env.fail(format_args!("no topic: {other:?}")),
        Err(_) => return,
    };
    let partition = World::partition(number, 0);
    if let Ok(partition) = partitions.get(partition).await {
        for _ in 0..4 {
            let mut builder = Builder::new();
            builder.push(env.clock.now_ms(), None, Some(b"gone soon"), &[]);
            let batch = Checked::trusted(builder.build().expect("small")).expect("one batch");
            // A full log or the end of the process: fine.
            let _ = partition.append(&batch, Origin::Client);
            env.storage.kick();
            tokio::time::sleep(Duration::from_millis(env.rng.below(60))).await;
        }
    }
    let bounds = env.storage.bounds(partition.stream(StreamKind::Data));
    let behind = bounds.is_some_and(|bounds| bounds.committed_end < bounds.durable_end);
    let now_ms = env.clock.now_ms();
    match meta.propose(DeleteTopic { id, now_ms }).await {
        Ok(Reply::TopicDeleted { .. }) => {
            early.fetch_add(u64::from(behind && !env.is_dead()), Ordering::AcqRel);
        }
        Ok(other) => env.fail(format_args!("not deleted: {other:?}")),
        Err(_) => {}
    }
}

async fn open_partitions(
    partitions: &Partitions,
    topic: u64,
) -> Result<Vec<Arc<Partition>>, OpenFailure> {
    let mut opened = Vec::new();
    for index in 0..PARTITIONS {
        let id = World::partition(topic, index);
        let mut tries = 0;
        opened.push(loop {
            match partitions.get(id).await {
                Ok(partition) => break partition,
                Err(OpenError::Unavailable { .. }) if tries < 20 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(broken(error)),
            }
        });
    }
    Ok(opened)
}

/// Faults of the store.
pub async fn faults_come_and_go(env: Env, store: FaultStore) {
    loop {
        let sometimes = |n: u64| if env.rng.one_in(3) { n } else { 0 };
        let slowest = [2, 2, 5, 10, 30, 1200];
        let slowest = slowest[usize::try_from(env.rng.below(6)).expect("small")];
        let faults = Faults {
            latency_ms: 0..slowest,
            outage: env.rng.one_in(10),
            error_one_in: sometimes(4),
            lost_response_one_in: sometimes(3),
            conflict_one_in: sometimes(5),
            throttle_one_in: sometimes(6),
            slow_one_in: 0,
            stuck_body_one_in: sometimes(8),
            truncated_one_in: sometimes(8),
            wrong_bytes_one_in: sometimes(6),
            // A 404 for what metadata lists is refused at once: the storage suite meets it.
            missing_one_in: 0,
            heals: true,
        };
        if env.is_over() {
            return;
        }
        env.trace(format_args!("{faults:?}"));
        store.set(faults);
        tokio::time::sleep(Duration::from_millis(50 + env.rng.below(600))).await;
        env.rest().await;
    }
}

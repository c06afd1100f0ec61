//! One broker: its start, its heartbeats, its image that comes late, and how it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::metrics::Registry;
use common::{Budget, Clock, NodeId, PartitionId, Rng, Shutdown, WalEpoch, WalId};
use meta::command::{CreateWal, StartNode};
use meta::{Lease, Leases, Reject, Reply};
use parking_lot::Mutex;
use partition::{
    AppendError, BatchReader, Isolation, Origin, Partition, Partitions, ReadRequest, Rules,
    validate,
};
use protocol::batch::Header;
use sim::disk::SimDisk;
use sim::edges;
use sim::store::FaultStore;
use storage::{Class, Storage};
use tokio::sync::{mpsc, watch};

use super::checker::Checker;
use super::clients::{Answer, Fetched, Request};

const SEGMENT: u64 = 64 << 10;
const HEARTBEAT: Duration = Duration::from_millis(60);

/// What every broker of the world is given.
#[derive(Clone)]
pub struct Site {
    pub node: NodeId,
    pub meta: meta::Handle,
    pub store: FaultStore,
    pub checker: Arc<Mutex<Checker>>,
    pub leases: Arc<Mutex<Leases>>,
    /// The metadata leader's clock, in microseconds.
    pub now: Arc<AtomicU64>,
    pub topic: Arc<AtomicU64>,
    pub rng: Rng,
    /// The process has ended itself.
    pub dead: Arc<AtomicBool>,
    /// Its clock has stood still: its lease means nothing.
    pub stood_still: Arc<AtomicBool>,
}

/// What runs.
pub struct Running {
    pub storage: Storage,
    pub partitions: Partitions,
    pub wal: WalId,
}

/// Why a broker does not run.
#[derive(Debug)]
pub enum Refused {
    /// Its log was closed.
    Closed,
    /// It is tried again.
    Later,
    Broken(String),
}

fn options() -> storage::Options {
    storage::Options {
        wal: wal::Options {
            capacity_max: 16 * SEGMENT,
            segment_bytes: SEGMENT,
            first_segment_bytes: SEGMENT / 2,
            group_bytes_max: 16 << 10,
            window_bytes_max: 64 << 10,
            queue_bytes_max: 32 << 10,
            ready_segments_max: 1,
            recovered_bytes_max: 16 << 10,
            prepare_backoff: Duration::from_millis(50),
            ..wal::Options::default()
        },
        upload_bytes_max: 32 << 10,
        upload_age_max: Duration::from_millis(200),
        put_timeout: Duration::from_secs(1),
        upload_window_bytes_max: 16 << 10,
        object_ttl: Duration::from_secs(60),
        tail_bytes_max: 64 << 10,
        block_cache_bytes_max: 64 << 10,
        read_timeout: Duration::from_millis(500),
        read_tries_max: 6,
        backoff_min: Duration::from_millis(5),
        backoff_max: Duration::from_millis(100),
        close_timeout: Duration::from_secs(2),
        ..storage::Options::default()
    }
}

impl Site {
    /// The log that metadata knows for this broker, after noting its start.
    pub async fn register(&self) -> Result<Option<WalId>, Refused> {
        let start = StartNode {
            node: self.node.0,
            host: "localhost".to_owned(),
            port: 9092,
            feature_level_max: meta::FEATURE_LEVEL_MAX,
            ..StartNode::default()
        };
        match self.meta.propose(start).await {
            Ok(Reply::NodeStarted { wal, .. }) => Ok(wal),
            other => Err(Refused::Broken(format!("{other:?}"))),
        }
    }

    pub async fn create_wal(&self, survives: bool) -> Result<WalId, Refused> {
        let create = CreateWal { node: self.node.0, salt: self.rng.next_u64(), survives };
        match self.meta.propose(create).await {
            Ok(Reply::WalCreated { wal }) => Ok(wal),
            other => Err(Refused::Broken(format!("{other:?}"))),
        }
    }

    /// Opens log `wal` on `disk` and begins to serve.
    pub async fn open(
        &self,
        wal: WalId,
        disk: &SimDisk,
        door: mpsc::UnboundedReceiver<Request>,
    ) -> Result<Running, Refused> {
        let clock = Clock::simulated(1_700_000_000_000);
        let meta = self.late_images();
        let budget = Budget::new(16 << 20);
        let registry = Registry::default();
        let deps = storage::Deps {
            clock: clock.clone(),
            rng: self.rng.fork(),
            disk: disk.open(),
            store: Arc::new(self.store.clone()),
            prefix: "p/cluster".into(),
            meta: meta.clone(),
            budget: budget.clone(),
            registry: registry.clone(),
            node: self.node,
            wal,
            on_fatal: self.on_fatal(),
        };
        let storage = Storage::open(deps, options()).await.map_err(|error| match error {
            storage::OpenError::Refused(Reject::WalClosed(_)) => Refused::Closed,
            // Whoever takes the log over has attached its medium meanwhile.
            storage::OpenError::Meta(_)
            | storage::OpenError::Wal(_)
            | storage::OpenError::Recover(
                wal::RecoverError::Read { .. } | wal::RecoverError::List { .. },
            ) => Refused::Later,
            other => Refused::Broken(other.to_string()),
        })?;
        let lease = Lease::none(clock.clone());
        let deps = partition::Deps {
            storage: storage.clone(),
            meta: meta.clone(),
            lease: lease.clone(),
            node: self.node,
            clock: clock.clone(),
            registry,
            budget,
        };
        let small = partition::Options {
            snapshot_batches_max: 24,
            snapshot_index_max: 8,
            scan_bytes_max: 8 << 10,
            ..partition::Options::default()
        };
        let partitions = Partitions::new(deps, small);
        tokio::spawn(partitions.clone().run(Shutdown::new()));
        let site = self.clone();
        tokio::spawn(site.heartbeats(lease, clock, storage.wal_epoch()));
        tokio::spawn(self.clone().serve(door, storage.clone(), partitions.clone()));
        Ok(Running { storage, partitions, wal })
    }

    /// The image of a broker away from the leader: it comes later, and not at all while the broker stands still.
    fn late_images(&self) -> meta::Handle {
        let mut images = self.meta.watch();
        let (sender, receiver) = watch::channel(images.borrow_and_update().clone());
        let rng = self.rng.fork();
        tokio::spawn(async move {
            while images.changed().await.is_ok() {
                let wait = if rng.one_in(10) { 150 } else { 8 };
                tokio::time::sleep(Duration::from_millis(1 + rng.below(wait))).await;
                sender.send_replace(images.borrow_and_update().clone());
            }
        });
        self.meta.behind(receiver)
    }

    fn on_fatal(&self) -> Arc<dyn Fn(&str) + Send + Sync> {
        let site = self.clone();
        Arc::new(move |line| {
            let fenced = line.contains("has been fenced") || line.contains("was declared lost");
            let mut checker = site.checker.lock();
            if fenced {
                edges::met("owners.zombie.commit");
                checker.trace.push(format!("broker {} ends itself: {line}", site.node));
            } else {
                checker.fail(format!("broker {} ends itself: {line}", site.node));
            }
            site.dead.store(true, Ordering::Release);
        })
    }

    async fn heartbeats(self, lease: Lease, clock: Clock, epoch: WalEpoch) {
        loop {
            let sent = clock.elapsed();
            tokio::time::sleep(Duration::from_millis(1 + self.rng.below(4))).await;
            let now = Duration::from_micros(self.now.load(Ordering::Acquire));
            let granted = self.leases.lock().renew(self.node, epoch, now);
            tokio::time::sleep(Duration::from_millis(1 + self.rng.below(4))).await;
            let Some(length) = granted else {
                edges::met("owners.zombie.lease");
                self.dead.store(true, Ordering::Release);
                return;
            };
            lease.renewed(sent, length);
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn serve(
        self,
        mut door: mpsc::UnboundedReceiver<Request>,
        storage: Storage,
        partitions: Partitions,
    ) {
        while let Some(request) = door.recv().await {
            let (site, storage, partitions) = (self.clone(), storage.clone(), partitions.clone());
            tokio::spawn(async move {
                match request {
                    Request::Produce { index, batch, reply } => {
                        let answer = site.produce(&storage, &partitions, index, &batch).await;
                        let _ = reply.send(answer);
                    }
                    Request::Fetch { index, from, reply } => {
                        let _ = reply.send(site.fetch(&partitions, index, from).await);
                    }
                }
            });
        }
    }

    async fn partition(&self, partitions: &Partitions, index: u32) -> Option<Arc<Partition>> {
        let id = PartitionId { topic: self.topic.load(Ordering::Acquire), index };
        let partition = partitions.get(id).await.ok()?;
        self.checker.lock().opened(index, partition.leader_epoch());
        Some(partition)
    }

    /// An answer leaves now.
    fn answers(&self, index: u32, partition: &Partition, what: &str) {
        if !self.stood_still.load(Ordering::Acquire) {
            self.checker.lock().answers(self.node.0, index, partition.leader_epoch(), what);
        }
    }

    async fn produce(
        &self,
        storage: &Storage,
        partitions: &Partitions,
        index: u32,
        batch: &Bytes,
    ) -> Answer {
        let Some(partition) = self.partition(partitions, index).await else { return Answer::Retry };
        let (config, bounds) = (partition.config(), partitions.options());
        let rules = Rules::produce(&config, bounds, 9, false, 1);
        let checked = validate(batch, &rules).expect("a good batch");
        let appended = match partition.append(&checked, Origin::Client) {
            Ok(appended) => appended,
            Err(AppendError::OutOfOrderSequence { .. }) => {
                // Of the present owner; one that was replaced meanwhile knows nothing.
                let sure = partition.gate().is_ok() && !self.stood_still.load(Ordering::Acquire);
                return if sure { Answer::OutOfOrder } else { Answer::Retry };
            }
            Err(AppendError::Gone(_)) => {
                edges::met("owners.append.refused");
                return Answer::Retry;
            }
            Err(_) => return Answer::Retry,
        };
        storage.kick();
        let (base, repeat) = (appended.base_offset, appended.duplicate);
        if appended.done.await.is_err() {
            edges::met("owners.ack.dropped");
            return Answer::Retry;
        }
        self.answers(index, &partition, "produce");
        Answer::Acked { base, repeat }
    }

    async fn fetch(&self, partitions: &Partitions, index: u32, from: i64) -> Fetched {
        let partition = self.partition(partitions, index).await?;
        match read(&partition, from).await {
            Ok((records, next)) => {
                let high = partition.offsets().high_watermark;
                self.answers(index, &partition, "fetch");
                if !self.stood_still.load(Ordering::Acquire) {
                    self.checker.lock().high_watermark(index, high);
                }
                edges::met("owners.read");
                Some((records, next))
            }
            Err(partition::ReadError::Gone(_)) => {
                edges::met("owners.read.refused");
                None
            }
            Err(partition::ReadError::Corrupt { offset, reason }) => {
                self.checker.lock().fail(format!("{index} cannot be read at {offset}: {reason}"));
                None
            }
            Err(_) => None,
        }
    }
}

type Records = BTreeMap<i64, u64>;

/// The records from `from` on, and where to read on.
pub async fn read(
    partition: &Arc<Partition>,
    from: i64,
) -> Result<(Records, i64), partition::ReadError> {
    let request = ReadRequest {
        offset: from,
        bytes_max: 8_000,
        at_least_one: true,
        isolation: Isolation::ReadUncommitted,
        class: Class::CatchUp,
    };
    let batches = partition.read(request).await?;
    let mut rest = Bytes::from(batches.slices.concat());
    let mut records = BTreeMap::new();
    while !rest.is_empty() {
        let header = Header::parse(&rest).expect("a batch");
        let batch = rest.split_to(header.size());
        let reader = BatchReader::open(&batch).expect("a batch");
        for record in reader.records() {
            let record = record.expect("a record");
            let key = record.key.and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
            records.insert(record.offset, key.expect("one of ours"));
        }
    }
    Ok((records, batches.next))
}

//! A disk, a store and metadata that outlive a broker, and the broker's lives over them.

mod model;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Budget, Clock, NodeId, PartitionId, Rng, Shutdown, StreamKind, WalId, metrics};
use futures::FutureExt;
use meta::command::{Bootstrap, CreateTopic, CreateWal, StartNode};
use meta::testing::MemoryStore;
use object_store::memory::InMemory;
use partition::{
    AppendError, BatchReader, Deps, IndexKind, Isolation, MAX_TIMESTAMP, Origin, Partition,
    Partitions, Pending, ReadRequest, Rules, validate,
};
use protocol::batch::Header;
use sim::disk::SimDisk;
use storage::{Class, Storage};

use model::{Expected, Model, Sent};

const NODE: i32 = 1;
const START_MS: i64 = 1_700_000_000_000;

/// Everything that a crash leaves, and the model.
pub struct World {
    rng: Rng,
    model: Model,
    disk: SimDisk,
    store: Arc<InMemory>,
    meta: MemoryStore,
    now_ms: i64,
    wal: Option<WalId>,
    partition: Option<PartitionId>,
    high_watermark: i64,
    /// Cuts whose upload was waited for.
    cuts: Vec<u64>,
    cuts_queued: u64,
}

/// One life of the broker.
struct Life {
    storage: Storage,
    partitions: Partitions,
    partition: Arc<Partition>,
    clock: Clock,
    waiting: Vec<Pending>,
}

impl World {
    pub fn new(rng: Rng) -> Self {
        let disk = SimDisk::new(rng.fork());
        Self {
            disk,
            model: Model::default(),
            store: Arc::new(InMemory::new()),
            meta: MemoryStore::default(),
            now_ms: START_MS,
            wal: None,
            partition: None,
            high_watermark: 0,
            cuts: Vec::new(),
            cuts_queued: 0,
            rng,
        }
    }

    /// Opens the broker, works, and ends it by a crash or a clean close.
    pub fn live(&mut self) {
        let crash = self.rng.below(3) > 0;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut life = self.open().await;
            self.check_opened(&life).await;
            let steps = 20 + self.rng.below(150);
            for _ in 0..steps {
                self.step(&mut life).await;
            }
            if !crash {
                life.partitions.kick();
                for pending in std::mem::take(&mut life.waiting) {
                    let end = pending.end_offset();
                    pending.await.expect("the partition is ours");
                    self.model.answered(end);
                }
                life.partitions.close_all().await;
                life.storage.close().await;
                self.model.answered(self.model.end());
            }
            self.now_ms = life.clock.now_ms() + 1;
        });
        drop(runtime);
        self.disk.crash();
        if crash {
            self.meta.power_cut();
        }
    }

    /// The last look: everything that was answered is there.
    pub fn finish(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let life = self.open().await;
            self.check_opened(&life).await;
            self.check_lookups(&life).await;
        });
    }

    async fn open(&mut self) -> Life {
        let clock = Clock::simulated(self.now_ms);
        let shutdown = Shutdown::new();
        let voter = meta::testing::voter(
            self.meta.clone(),
            clock.clone(),
            self.rng.fork(),
            shutdown.clone(),
        );
        let (handle, driver) = voter.await.expect("metadata opens");
        tokio::spawn(driver.run());
        let wal = self.bootstrap(&handle).await;
        let budget = Budget::new(64 << 20);
        let registry = metrics::Registry::default();
        let deps = storage::Deps {
            clock: clock.clone(),
            rng: self.rng.fork(),
            disk: self.disk.open(),
            store: self.store.clone(),
            prefix: "cluster".into(),
            meta: handle.clone(),
            budget: budget.clone(),
            registry: registry.clone(),
            node: NodeId(NODE),
            wal,
            on_fatal: Arc::new(|line| panic!("fatal: {line}")),
        };
        let options = storage::Options {
            upload_bytes_max: 64 << 10,
            upload_age_max: Duration::from_millis(200),
            tail_bytes_max: 128 << 10,
            wal: wal::Options {
                gather_bytes_max: 2 << 10,
                capacity_max: 2 << 20,
                segment_bytes: 256 << 10,
                first_segment_bytes: 64 << 10,
                group_bytes_max: 16 << 10,
                ..wal::Options::default()
            },
            ..storage::Options::default()
        };
        let storage = Storage::open(deps, options).await.expect("storage opens");
        let id = self.topic(&handle).await;
        let deps = Deps {
            storage: storage.clone(),
            meta: handle,
            lease: meta::Lease::unlimited(clock.clone()),
            node: NodeId(NODE),
            clock: clock.clone(),
            registry,
            budget,
        };
        let options = partition::Options {
            snapshot_batches_max: 16,
            snapshot_index_max: 8,
            scan_bytes_max: 8 << 10,
            time_points_max: 4,
            ..partition::Options::default()
        };
        let partitions = Partitions::new(deps, options);
        tokio::spawn(partitions.clone().run(shutdown));
        let partition = partitions.get(id).await.expect("the partition opens");
        Life { storage, partitions, partition, clock, waiting: Vec::new() }
    }

    async fn bootstrap(&mut self, handle: &meta::Handle) -> WalId {
        let start = StartNode {
            node: NODE,
            host: "localhost".to_owned(),
            port: 9092,
            feature_level_max: meta::FEATURE_LEVEL_MAX,
            ..StartNode::default()
        };
        if let Some(wal) = self.wal {
            handle.propose(start).await.expect("metadata answers");
            return wal;
        }
        let cluster_id = "simulation".to_owned();
        let bootstrap = Bootstrap { cluster_id, incarnation: 1, feature_level: 1 };
        handle.propose(bootstrap).await.expect("metadata answers");
        handle.propose(start).await.expect("metadata answers");
        let created = handle
            .propose(CreateWal { node: NODE, salt: self.rng.next_u64(), survives: false })
            .await;
        let Ok(meta::Reply::WalCreated { wal }) = created else { panic!("no log: {created:?}") };
        *self.wal.insert(wal)
    }

    /// The topic gets an owner only while a broker has its log open.
    async fn topic(&mut self, handle: &meta::Handle) -> PartitionId {
        if let Some(known) = self.partition {
            return known;
        }
        let topic = CreateTopic {
            name: "topic".to_owned(),
            id: self.rng.uuid().as_bytes().to_vec(),
            partitions: 1,
            replication_factor: 1,
            now_ms: self.now_ms,
            ..CreateTopic::default()
        };
        let created = handle.propose(topic).await;
        let Ok(meta::Reply::TopicCreated { number, .. }) = created else {
            panic!("no topic: {created:?}")
        };
        *self.partition.insert(PartitionId { topic: number, index: 0 })
    }

    /// What survived is a prefix of what was appended, and holds all that was answered.
    async fn check_opened(&mut self, life: &Life) {
        let offsets = life.partition.offsets();
        assert_eq!(offsets.end, offsets.high_watermark, "recovery left something in flight");
        assert!(offsets.high_watermark >= self.high_watermark, "the high watermark fell");
        self.model.crashed(offsets.end);
        self.check_log(life).await;
        self.check_cuts(life).await;
        for logged in self.model.log.iter().rev().take(8) {
            let expected = self.model.expect(&logged.sent);
            if matches!(expected, Expected::Duplicate(_)) {
                let batch = self.check(life, &logged.sent);
                let appended = life.partition.append(&batch, Origin::Client).expect("a repeat");
                assert!(appended.duplicate, "a repeat was not known after a restart");
                assert_eq!(Expected::Duplicate(appended.base_offset), expected);
                appended.done.await.expect("durable already");
            }
        }
    }

    async fn step(&mut self, life: &mut Life) {
        match self.rng.below(24) {
            0..=11 => self.append(life).await,
            12..=15 => {
                let pause = Duration::from_micros(self.rng.below(4_000));
                life.partitions.kick();
                tokio::time::sleep(pause).await;
            }
            16 => self.check_log(life).await,
            17..=18 => self.check_lookups(life).await,
            19 => {
                if let Err(error) = life.partition.snapshot() {
                    assert!(error.waits_for_space(), "{error}");
                }
            }
            20 => self.cut(life).await,
            21 => tokio::time::sleep(Duration::from_millis(self.rng.below(500))).await,
            _ => self.see(life),
        }
        self.poll(life);
    }

    async fn append(&mut self, life: &mut Life) {
        let sent = self.model.draw(&self.rng, life.clock.now_ms());
        let expected = self.model.expect(&sent);
        let batch = self.check(life, &sent);
        let patience = Duration::from_secs(5);
        let result = life.partition.append_waiting(&batch, Origin::Client, patience).await;
        match (expected, result) {
            (Expected::Appended(offset), Ok(appended)) => {
                assert_eq!((appended.base_offset, appended.duplicate), (offset, false));
                self.model.appended(&sent, life.partition.leader_epoch());
                life.waiting.push(appended.done);
            }
            (Expected::Duplicate(offset), Ok(appended)) => {
                assert_eq!((appended.base_offset, appended.duplicate), (offset, true));
                // The planted bug changes what is waited for, never what is answered.
                let mut done = appended.done;
                if let Some(result) = (&mut done).now_or_never() {
                    result.expect("the partition is ours");
                    self.model.answered(appended.end_offset);
                } else {
                    life.waiting.push(done);
                }
            }
            (Expected::Fenced, Err(AppendError::InvalidProducerEpoch { .. }))
            | (Expected::OutOfOrder, Err(AppendError::OutOfOrderSequence { .. })) => {}
            (expected, result) => panic!("expected {expected:?}, got {result:?}"),
        }
        if self.rng.below(4) > 0 {
            life.partitions.kick();
        }
    }

    fn check(&self, life: &Life, sent: &Sent) -> partition::Checked {
        let now_ms = life.clock.now_ms();
        let options = life.partitions.options();
        let rules = Rules::produce(&life.partition.config(), options, 9, false, now_ms);
        validate(&sent.bytes, &rules).expect("a good batch")
    }

    fn poll(&mut self, life: &mut Life) {
        life.waiting.retain_mut(|pending| match pending.now_or_never() {
            None => true,
            Some(result) => {
                result.expect("the partition is ours");
                self.model.answered(pending.end_offset());
                false
            }
        });
    }

    fn see(&mut self, life: &Life) {
        let offsets = life.partition.offsets();
        assert!(offsets.high_watermark >= self.high_watermark, "the high watermark fell");
        assert!(offsets.committed_end <= offsets.high_watermark);
        assert_eq!(offsets.end, self.model.end());
        self.high_watermark = offsets.high_watermark;
        self.model.answered(offsets.high_watermark);
        for facts in life.partition.producers() {
            assert!(facts.last_offset < offsets.high_watermark, "a pending batch was shown");
        }
    }

    async fn check_log(&mut self, life: &Life) {
        self.see(life);
        let bound = self.high_watermark;
        let mut found = Vec::new();
        let mut at = 0;
        while at < bound {
            let request = ReadRequest {
                offset: at,
                bytes_max: 1 + self.rng.below(20_000),
                at_least_one: true,
                isolation: Isolation::ReadCommitted,
                class: Class::CatchUp,
            };
            let read = life.partition.read(request).await.expect("readable");
            assert!(read.next > at, "a read below the high watermark does not move on");
            at = read.next;
            found.extend(read.slices.into_iter().flatten());
        }
        let mut rest = Bytes::from(found);
        for logged in self.model.log.iter().take_while(|logged| logged.end() <= bound) {
            let header = Header::parse(&rest).expect("a batch");
            let batch = rest.split_to(header.size());
            assert_eq!(header.base_offset, logged.base_offset);
            assert_eq!(header.leader_epoch, logged.leader_epoch);
            assert_eq!(batch[16..], logged.sent.bytes[16..], "other bytes than were sent");
            let reader = BatchReader::open(&batch).expect("intact");
            for record in reader.records() {
                let record = record.expect("intact");
                assert_eq!(record.key, Some(&logged.sent.tag.to_be_bytes()[..]));
            }
        }
        assert!(at > bound || rest.is_empty(), "batches that nobody sent");
    }

    async fn check_lookups(&mut self, life: &Life) {
        self.see(life);
        let isolation = Isolation::ReadUncommitted;
        let time = life.clock.now_ms() - i64::try_from(self.rng.below(12_000)).expect("small");
        // A look-up may see more than was durable when it began.
        let before = self.high_watermark;
        let listed = life.partition.list_offset(time, isolation).await.expect("readable");
        self.see(life);
        let answers = [before, self.high_watermark]
            .map(|bound| self.model.by_time(time, bound).unwrap_or((-1, -1)));
        assert!(answers.contains(&(listed.offset, listed.timestamp)), "{listed:?} {answers:?}");
        let before = self.high_watermark;
        let listed = life.partition.list_offset(MAX_TIMESTAMP, isolation).await.expect("readable");
        self.see(life);
        let mut bounds: Vec<i64> = self.model.log.iter().map(model::Logged::end).collect();
        bounds.push(before);
        let answers: Vec<(i64, i64)> = bounds
            .into_iter()
            .filter(|bound| (before..=self.high_watermark).contains(bound))
            .map(|bound| self.model.highest(bound).unwrap_or((-1, -1)))
            .collect();
        assert!(answers.contains(&(listed.offset, listed.timestamp)), "{listed:?} {answers:?}");
        let current = life.partition.leader_epoch();
        for epoch in 0..=current {
            let end = life.partition.end_of_epoch(epoch);
            let expected = self.model.end_of_epoch(epoch, self.high_watermark);
            assert!(
                end.end_offset == expected
                    || end.epoch == epoch && epoch < first_epoch(&self.model),
                "epoch {epoch} ends at {expected}, answered {end:?}"
            );
        }
        assert_eq!(life.partition.end_of_epoch(current + 1).end_offset, -1);
    }

    async fn cut(&mut self, life: &Life) {
        let number = self.cuts_queued;
        let queued = life.partition.append_index(IndexKind::CUT, 1, &number.to_le_bytes());
        let Ok(position) = queued else { return };
        self.cuts_queued += 1;
        life.storage.upload_through(position.lsn).await.expect("the store answers");
        self.cuts.push(number);
        let committed = life.storage.bounds(life.partition.stream(StreamKind::Index));
        assert!(committed.is_some_and(|bounds| bounds.committed_end > position.offset));
    }

    /// Cuts that were waited for are there, in order.
    async fn check_cuts(&mut self, life: &Life) {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            let page = life.partition.read_index(IndexKind::CUT, at, 200).await.expect("readable");
            found.extend(page.records.iter().map(|record| {
                u64::from_le_bytes(record.payload.as_ref().try_into().expect("eight bytes"))
            }));
            at = page.next;
            if page.done {
                break;
            }
        }
        assert!(found.is_sorted(), "cuts out of order: {found:?}");
        assert!(self.cuts.iter().all(|cut| found.contains(cut)), "a cut is lost");
    }
}

fn first_epoch(model: &Model) -> i32 {
    model.log.first().map_or(i32::MAX, |first| first.leader_epoch)
}

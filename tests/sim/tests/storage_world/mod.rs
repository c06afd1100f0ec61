//! One broker's storage in a box, with a model beside it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::metrics::Registry;
use common::{
    Budget, Clock, Lsn, NodeId, PartitionId, Rng, Shutdown, StreamEpoch, StreamId, StreamKind,
    WalId,
};
use meta::Reply;
use meta::testing::{MemoryStore, voter};
use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;
use sim::disk::SimDisk;
use sim::edges::{self, Suite};
use sim::store::{FaultStore, Faults};
use storage::{
    AppendError, Class, Deps, DurableListener, Entry, NewEntry, Options, Read, ReadError, Remote,
    RemoteOptions, Storage,
};

thread_local! {
    pub static EDGES: RefCell<Edges> = const { RefCell::new(Edges::new()) };
}

/// How often each edge was met.
#[derive(Clone, Debug, Default)]
pub struct Edges {
    pub rounds: u64,
    pub evictions: u64,
    pub read_back_for_upload: u64,
    pub object_reads: u64,
    pub wal_reads: u64,
    pub lost_responses: u64,
    pub conflicts: u64,
    pub multiparts: u64,
    pub wrong_bytes: u64,
    pub stuck_bodies: u64,
    pub missing: u64,
    pub restarts: u64,
    pub expired_ids: u64,
}

impl Edges {
    pub const fn new() -> Self {
        Self {
            rounds: 0,
            evictions: 0,
            read_back_for_upload: 0,
            object_reads: 0,
            wal_reads: 0,
            lost_responses: 0,
            conflicts: 0,
            multiparts: 0,
            wrong_bytes: 0,
            stuck_bodies: 0,
            missing: 0,
            restarts: 0,
            expired_ids: 0,
        }
    }

    fn all(&self) -> [(&'static str, u64); 13] {
        [
            ("storage.rounds", self.rounds),
            ("storage.evictions", self.evictions),
            ("storage.read.back", self.read_back_for_upload),
            ("storage.read.object", self.object_reads),
            ("storage.read.log", self.wal_reads),
            ("storage.response.lost", self.lost_responses),
            ("storage.conflict", self.conflicts),
            ("storage.multipart", self.multiparts),
            ("storage.bytes.wrong", self.wrong_bytes),
            ("storage.body.stuck", self.stuck_bodies),
            ("storage.missing", self.missing),
            ("storage.restart", self.restarts),
            ("storage.id.expired", self.expired_ids),
        ]
    }

    pub fn add(&mut self, other: &Edges) {
        self.rounds += other.rounds;
        self.evictions += other.evictions;
        self.read_back_for_upload += other.read_back_for_upload;
        self.object_reads += other.object_reads;
        self.wal_reads += other.wal_reads;
        self.lost_responses += other.lost_responses;
        self.conflicts += other.conflicts;
        self.multiparts += other.multiparts;
        self.wrong_bytes += other.wrong_bytes;
        self.stuck_bodies += other.stuck_bodies;
        self.missing += other.missing;
        self.restarts += other.restarts;
        self.expired_ids += other.expired_ids;
    }

    pub fn assert_all_met(&self) {
        for (name, count) in self.all() {
            edges::add(name, count);
        }
        edges::take().assert_met(Suite::Storage);
    }
}

/// Limits so small that every edge is near.
pub fn small() -> Options {
    let wal = wal::Options {
        gather_bytes_max: 2 << 10,
        capacity_max: 1 << 20,
        segment_bytes: 128 << 10,
        first_segment_bytes: 64 << 10,
        group_bytes_max: 16 << 10,
        window_bytes_max: 64 << 10,
        queue_bytes_max: 64 << 10,
        recovered_bytes_max: 32 << 10,
        ..wal::Options::default()
    };
    Options {
        wal,
        upload_bytes_max: 64 << 10,
        upload_ranges_max: 24,
        upload_age_max: Duration::from_secs(1),
        put_single_bytes_max: 24 << 10,
        put_part_bytes: 8 << 10,
        put_timeout: Duration::from_secs(5),
        upload_window_bytes_max: 16 << 10,
        object_ttl: Duration::from_secs(40),
        tail_bytes_max: 48 << 10,
        block_cache_bytes_max: 256 << 10,
        read_ahead_bytes_max: 16 << 10,
        read_timeout: Duration::from_secs(25),
        ..Options::default()
    }
}

#[derive(Clone, Debug)]
struct ModelEntry {
    base: i64,
    end: i64,
    count: u64,
    bytes: Vec<u8>,
    at: Lsn,
}

#[derive(Clone, Debug, Default)]
struct Model {
    start: i64,
    entries: Vec<ModelEntry>,
}

impl Model {
    fn end(&self) -> i64 {
        self.entries.last().map_or(0, |entry| entry.end)
    }
}

/// Counts what a partition was told.
#[derive(Default)]
struct Told(Mutex<Lsn>);

impl DurableListener for Told {
    fn durable(&self, lsn: Lsn) {
        let mut last = self.0.lock();
        assert!(lsn > *last, "told in order, once a group: {lsn} after {last}");
        *last = lsn;
    }
}

pub struct World {
    pub storage: Storage,
    pub store: FaultStore,
    pub meta: meta::Handle,
    pub prefix: Path,
    clock: Clock,
    rng: Rng,
    disk: SimDisk,
    wal: WalId,
    options: Options,
    registry: Registry,
    fatal: Arc<Mutex<Vec<String>>>,
    model: BTreeMap<StreamId, Model>,
    partitions: Vec<PartitionId>,
    last: Lsn,
    edges: Edges,
    trace: String,
    _driver: Shutdown,
}

pub fn partition(index: usize) -> PartitionId {
    PartitionId { topic: (1 << 48) + 1 + index as u64, index: 0 }
}

/// The data stream of partition `index`; metadata numbers topics from 1 within the incarnation.
pub fn data_of(index: usize) -> StreamId {
    partition(index).stream(StreamKind::Data)
}

impl World {
    pub async fn new(seed: u64, options: Options) -> Self {
        let rng = Rng::seeded(seed);
        let clock = Clock::simulated(1_700_000_000_000);
        let shutdown = Shutdown::new();
        let store = MemoryStore::default();
        let (meta, driver) =
            voter(store, clock.clone(), rng.fork(), shutdown.clone()).await.expect("starts");
        tokio::spawn(driver.run());
        let wal = begin(&meta).await;
        let store = FaultStore::new(Arc::new(InMemory::new()), rng.fork(), Faults::default());
        let disk = SimDisk::new(rng.fork());
        let fatal: Arc<Mutex<Vec<String>>> = Arc::default();
        let prefix = Path::from("p/cluster");
        let registry = Registry::default();
        let deps = deps(&clock, &rng, &disk, &store, &meta, wal, &fatal, &registry);
        let storage = Storage::open(deps, options.clone()).await.expect("opens");
        let mut world = Self {
            storage,
            store,
            meta,
            prefix,
            clock,
            rng,
            disk,
            wal,
            options,
            registry,
            fatal,
            model: BTreeMap::new(),
            partitions: Vec::new(),
            last: Lsn(0),
            edges: Edges::default(),
            trace: String::new(),
            _driver: shutdown,
        };
        for index in 0..3 {
            world.create_topic(index).await;
        }
        world.open_partitions().await;
        world
    }

    async fn create_topic(&mut self, index: usize) {
        let command = meta::command::CreateTopic {
            name: format!("topic-{index}"),
            id: self.rng.uuid().as_bytes().to_vec(),
            partitions: 1,
            replication_factor: 1,
            now_ms: self.clock.now_ms(),
            ..Default::default()
        };
        let reply = self.meta.propose(command).await.expect("answers");
        let Reply::TopicCreated { number, .. } = reply else { panic!("{reply:?}") };
        assert_eq!(partition(index).topic, number);
        self.partitions.push(partition(index));
    }

    fn epoch(&self, id: PartitionId) -> StreamEpoch {
        self.meta.image().topics[&id.topic].partitions[0].epoch
    }

    async fn open_partitions(&mut self) {
        for id in self.partitions.clone() {
            let told: Arc<Told> = Arc::default();
            self.storage.open_partition(id, self.epoch(id), told).await.expect("opens");
        }
    }

    /// A crash and a start. What was not acknowledged may be gone; what was must be there.
    pub async fn restart(&mut self) {
        self.edges.restarts += 1;
        self.collect_edges();
        let acknowledged = self.storage.durable();
        self.disk.crash();
        self.registry = Registry::default();
        let registry = self.registry.clone();
        self.fatal = Arc::default();
        let deps = deps(
            &self.clock,
            &self.rng,
            &self.disk,
            &self.store,
            &self.meta,
            self.wal,
            &self.fatal,
            &registry,
        );
        self.storage.abandon();
        tokio::task::yield_now().await;
        self.storage = Storage::open(deps, self.options.clone()).await.expect("opens");
        self.open_partitions().await;
        for id in self.partitions.clone() {
            for kind in [StreamKind::Data, StreamKind::Index] {
                self.settle(id.stream(kind), acknowledged);
            }
        }
        let last = self.model.values().flat_map(|model| model.entries.last()).map(|entry| entry.at);
        self.last = last.max().unwrap_or(Lsn(0));
    }

    fn settle(&mut self, stream: StreamId, acknowledged: Lsn) {
        let end = self.storage.bounds(stream).expect("open").end;
        let Some(model) = self.model.get_mut(&stream) else {
            assert_eq!(end, 0);
            return;
        };
        let kept =
            model.entries.iter().filter(|entry| entry.at < acknowledged).map(|e| e.end).max();
        let kept = kept.unwrap_or(0);
        assert!(end >= kept, "{stream} ends at {end}, acknowledged up to {kept}");
        assert!(end <= model.end(), "{stream} ends at {end}, appended up to {}", model.end());
        model.entries.retain(|entry| entry.end <= end);
        assert_eq!(model.end(), end, "an entry is there whole or not at all");
    }

    pub fn try_append(
        &mut self,
        index: usize,
        kind: StreamKind,
        size: usize,
    ) -> Result<Lsn, AppendError> {
        let stream = partition(index).stream(kind);
        let epoch = self.epoch(stream.partition);
        let base = self.model.get(&stream).map_or(0, Model::end);
        let span = 1 + self.rng.below(5);
        let count = 1 + self.rng.below(span);
        let byte = u8::try_from(base % 251).expect("below 251");
        let mut bytes = vec![byte; size];
        bytes.extend_from_slice(&base.to_le_bytes());
        let (head, tail) = bytes.split_at(size / 2);
        let at = self.storage.append(&[NewEntry {
            stream,
            epoch,
            base_offset: base,
            span,
            count,
            max_timestamp: base * 10,
            parts: &[head, tail],
        }])?;
        let end = base + i64::try_from(span).expect("small");
        let entry = ModelEntry { base, end, count, bytes, at };
        self.model.entry(stream).or_default().entries.push(entry);
        self.last = self.last.max(at);
        Ok(at)
    }

    /// Appends and waits until it is durable.
    pub async fn append(&mut self, index: usize, kind: StreamKind, size: usize) {
        let mut space = self.storage.wal_space();
        loop {
            match self.try_append(index, kind, size) {
                Ok(at) => {
                    self.storage.kick();
                    let mut durable = self.storage.subscribe_durable();
                    durable.wait_for(|durable| *durable > at).await.expect("open");
                    return;
                }
                Err(AppendError::Full) => space.changed().await.expect("open"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub fn last_position(&self) -> Lsn {
        self.last
    }

    pub async fn read(&self, stream: StreamId, from: i64) -> Result<Read, ReadError> {
        self.storage.read(stream, from, i64::MAX, 20_000, Class::CatchUp).await
    }

    /// One random thing.
    pub async fn step(&mut self) {
        let (index, kind) = self.some_stream();
        match self.rng.below(20) {
            0..=8 => {
                let size = [10, 300, 3000, 9000, 30_000][self.draw(5)];
                for _ in 0..=self.rng.below(4) {
                    // Full is fine: uploads will make room.
                    let _ = self.try_append(index, kind, size);
                }
                if !self.rng.one_in(4) {
                    self.storage.kick();
                }
            }
            9..=12 => self.check_some(partition(index).stream(kind)).await,
            13 => self.storage.release_memory(self.rng.below(60_000)),
            14 => self.faults(),
            15 => {
                let limit = Duration::from_secs(90);
                let _ = tokio::time::timeout(limit, self.storage.upload_through(self.last)).await;
            }
            16 if self.rng.one_in(3) => self.restart().await,
            17 => self.check_back(partition(index).stream(kind)).await,
            _ => {
                let ms = [1, 50, 700, 3000][self.draw(4)];
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
        }
        let bounds = self.storage.bounds(data_of(0));
        writeln!(self.trace, "{:?} {:?} {:?}", self.clock.elapsed(), self.last, bounds)
            .expect("string");
    }

    /// An index below `bound`.
    fn draw(&self, bound: u64) -> usize {
        usize::try_from(self.rng.below(bound)).expect("small")
    }

    fn some_stream(&self) -> (usize, StreamKind) {
        let kind = if self.rng.one_in(4) { StreamKind::Index } else { StreamKind::Data };
        (self.draw(3), kind)
    }

    fn faults(&mut self) {
        let sometimes = |n: u64| if self.rng.one_in(3) { n } else { 0 };
        let faults = Faults {
            latency_ms: 0..[1, 20, 400][self.draw(3)],
            outage: self.rng.one_in(8),
            error_one_in: sometimes(4),
            lost_response_one_in: sometimes(3),
            conflict_one_in: sometimes(5),
            throttle_one_in: sometimes(4),
            slow_one_in: sometimes(20),
            stuck_body_one_in: sometimes(6),
            truncated_one_in: sometimes(6),
            wrong_bytes_one_in: sometimes(8),
            missing_one_in: sometimes(10),
            heals: false,
        };
        self.store.set(faults);
    }

    async fn check_some(&mut self, stream: StreamId) {
        let Some(model) = self.model.get(&stream).cloned() else { return };
        let from = i64::try_from(self.rng.below(model.end().unsigned_abs() + 1)).expect("small");
        let bytes_max = [1, 5000, 50_000][self.draw(3)];
        let bounds = self.storage.bounds(stream).expect("open");
        match self.storage.read(stream, from, i64::MAX, bytes_max, Class::CatchUp).await {
            Ok(read) => {
                if read.entries.is_empty() {
                    assert!(from >= bounds.durable_end, "nothing at {from} below {bounds:?}");
                }
                compare(&model, &read, from);
            }
            // An outage, damage on the way or a 404 twice: an error, never wrong bytes.
            Err(error) if is_fault(&error) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// One read of a reader that stands at `next`; where it stands then.
    pub async fn follow(&mut self, stream: StreamId, next: i64, bytes_max: u64) -> i64 {
        let Some(model) = self.model.get(&stream).cloned() else { return next };
        let end = self.storage.bounds(stream).expect("open").durable_end;
        let read = self.storage.read(stream, next, i64::MAX, bytes_max, Class::CatchUp).await;
        let read = read.expect("no faults are on");
        assert!(read.next > next || next >= end, "nothing at {next} below {end}");
        compare(&model, &read, next);
        read.next
    }

    async fn check_back(&mut self, stream: StreamId) {
        let Some(model) = self.model.get(&stream).cloned() else { return };
        let end = self.storage.bounds(stream).expect("open").durable_end;
        match self.storage.read_back(stream, end, 4000).await {
            Ok(read) => {
                let durable = model.entries.iter().filter(|entry| entry.end <= end);
                let newest = durable.map(|entry| entry.end).max();
                assert_eq!(read.entries.last().map(Entry::end_offset), newest);
                if let Some(first) = read.entries.first() {
                    compare(&model, &read, first.base_offset);
                }
            }
            Err(error) if is_fault(&error) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads every stream from its start to its durable end.
    pub async fn check_all(&mut self) {
        assert_eq!(self.fatal_lines(), Vec::<String>::new());
        for (stream, model) in self.model.clone() {
            let end = self.storage.bounds(stream).expect("open").durable_end;
            let mut at = model.start;
            while at < end {
                let read = self.storage.read(stream, at, i64::MAX, 20_000, Class::Sink).await;
                let read = read.expect("all is sound");
                compare(&model, &read, at);
                assert!(read.next > at, "a read below the end moves on");
                at = read.next;
            }
        }
        self.collect_edges();
    }

    pub fn start_of_entry(&self, stream: StreamId, index: usize) -> i64 {
        self.model[&stream].entries[index].base
    }

    pub async fn set_log_start(&mut self, stream: StreamId, start: i64) {
        let command = meta::command::SetLogStart {
            topic: stream.partition.topic,
            index: stream.partition.index,
            kind: u32::from(stream.kind as u8),
            start,
            epoch: self.epoch(stream.partition).0,
            now_ms: self.clock.now_ms(),
        };
        let reply = self.meta.propose(command).await.expect("answers");
        assert!(matches!(reply, Reply::LogStartSet { .. }), "{reply:?}");
        self.storage.set_start(stream, start);
        self.model.get_mut(&stream).expect("known").start = start;
    }

    pub async fn delete_topic(&mut self, index: usize) -> StreamId {
        let id = self.meta.image().topics[&partition(index).topic].id;
        let now_ms = self.clock.now_ms();
        let command = meta::command::DeleteTopic { id: id.as_bytes().to_vec(), now_ms };
        self.meta.propose(command).await.expect("answers");
        self.storage.close_partition(partition(index));
        self.partitions.retain(|id| *id != partition(index));
        self.model.retain(|stream, _| stream.partition != partition(index));
        data_of(index)
    }

    /// Another process opens the log: this one is fenced.
    pub async fn fence(&self) {
        let end = self.storage.durable().0;
        let command =
            meta::command::OpenWal { wal: self.wal.0, node: 1, recovered_end: end, cut: false };
        let reply = self.meta.propose(command).await.expect("answers");
        assert!(matches!(reply, Reply::WalOpened { .. }), "{reply:?}");
    }

    /// The disk is gone: the log is declared lost and a new one begun on another disk.
    pub async fn lose_the_disk(&mut self) {
        self.storage.abandon();
        self.disk.crash();
        let lost = meta::command::DeclareWalLost { wal: self.wal.0 };
        let reply = self.meta.propose(lost).await.expect("answers");
        assert!(matches!(reply, Reply::WalLost { .. }), "{reply:?}");
        let reply =
            self.meta.propose(meta::command::CreateWal { node: 1, salt: 8, survives: false }).await;
        let Ok(Reply::WalCreated { wal }) = reply else { panic!("{reply:?}") };
        self.wal = wal;
        self.disk = SimDisk::new(self.rng.fork());
        self.fatal = Arc::default();
        self.registry = Registry::default();
        let deps = deps(
            &self.clock,
            &self.rng,
            &self.disk,
            &self.store,
            &self.meta,
            self.wal,
            &self.fatal,
            &self.registry,
        );
        self.storage = Storage::open(deps, self.options.clone()).await.expect("opens");
        self.open_partitions().await;
    }

    pub fn epoch_of(&self, index: usize) -> StreamEpoch {
        self.epoch(partition(index))
    }

    pub fn fatal_lines(&self) -> Vec<String> {
        self.fatal.lock().clone()
    }

    pub fn trace(&self) -> String {
        // Metrics with labels are rendered in no fixed order.
        let metrics = self.registry.render();
        let mut metrics: Vec<_> = metrics.lines().collect();
        metrics.sort_unstable();
        format!("{}\n{:?}\n{}", self.trace, self.store.met(), metrics.join("\n"))
    }

    /// What was met since the last restart, from the metrics; what the store met in all.
    fn collect_edges(&mut self) {
        let text = self.registry.render();
        let value = |name: &str| -> u64 {
            let number = |line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
            text.lines().filter_map(number).sum()
        };
        let edges = &mut self.edges;
        edges.rounds = edges.rounds.max(value("sluice_storage_upload_rounds_total"));
        edges.evictions = edges.evictions.max(value("sluice_storage_tail_cache_evictions_total"));
        let back = value("sluice_storage_upload_groups_read_back_total");
        edges.read_back_for_upload = edges.read_back_for_upload.max(back);
        let objects = value("sluice_storage_read_seconds_count{source=\"object\"}");
        edges.object_reads = edges.object_reads.max(objects);
        let logs = value("sluice_storage_read_seconds_count{source=\"wal\"}");
        edges.wal_reads = edges.wal_reads.max(logs);
        edges.expired_ids = edges.expired_ids.max(value("sluice_storage_upload_ids_renewed_total"));
        let met = self.store.met();
        edges.lost_responses = met.lost_responses;
        edges.conflicts = met.conflicts;
        edges.multiparts = met.multiparts;
        edges.wrong_bytes = met.wrong_bytes;
        edges.stuck_bodies = met.stuck_bodies;
        edges.missing = met.missing;
    }

    pub fn edges(&mut self) -> Edges {
        self.collect_edges();
        self.edges.clone()
    }
}

/// What faults of the store may make of a read.
fn is_fault(error: &ReadError) -> bool {
    matches!(
        error,
        ReadError::Unavailable(_) | ReadError::Corrupt { .. } | ReadError::Missing { .. }
    )
}

/// What was read is what was appended, from the entry that covers `from` on, without a gap.
fn compare(model: &Model, read: &Read, from: i64) {
    let first = model.entries.partition_point(|entry| entry.end <= from);
    let mut joined = Vec::new();
    for (entry, expected) in read.entries.iter().zip(&model.entries[first..]) {
        assert_eq!((entry.base_offset, entry.end_offset()), (expected.base, expected.end));
        assert_eq!((entry.count, entry.max_timestamp), (expected.count, expected.base * 10));
        assert!(entry.bytes == expected.bytes, "bytes of offset {}", entry.base_offset);
        joined.extend_from_slice(&entry.bytes);
    }
    assert!(model.entries.len() - first >= read.entries.len(), "more was read than appended");
    assert_eq!(Bytes::from(read.slices().concat()), Bytes::from(joined));
    if let Some(last) = read.entries.last() {
        assert_eq!(read.next, last.end_offset());
    }
}

async fn begin(meta: &meta::Handle) -> WalId {
    use meta::command::{Bootstrap, CreateWal, StartNode};
    let (node, cluster_id) = (1, "tests".to_owned());
    let propose = |command: meta::Command| async {
        let reply = meta.propose(command).await.expect("answers");
        assert!(!matches!(reply, Reply::Rejected(_)), "{reply:?}");
        reply
    };
    propose(Bootstrap { cluster_id, incarnation: 1, feature_level: 1 }.into()).await;
    let start = StartNode { node, host: "localhost".to_owned(), port: 9092, ..Default::default() };
    propose(start.into()).await;
    let reply = propose(CreateWal { node, salt: 7, survives: false }.into()).await;
    let Reply::WalCreated { wal } = reply else { panic!("{reply:?}") };
    wal
}

/// The wrapper of production, with shorter patience.
fn remote(store: &FaultStore, clock: &Clock, rng: &Rng, registry: &Registry) -> Remote {
    let options = RemoteOptions {
        attempt_timeout: Duration::from_secs(2),
        tries_max: 6,
        backoff_min: Duration::from_millis(20),
        backoff_max: Duration::from_secs(1),
        ..RemoteOptions::default()
    };
    Remote::new(Arc::new(store.clone()), options, clock.clone(), rng.fork(), registry)
}

#[expect(clippy::too_many_arguments, reason = "the parts of a storage")]
fn deps(
    clock: &Clock,
    rng: &Rng,
    disk: &SimDisk,
    store: &FaultStore,
    meta: &meta::Handle,
    wal: WalId,
    fatal: &Arc<Mutex<Vec<String>>>,
    registry: &Registry,
) -> Deps {
    let fatal = fatal.clone();
    Deps {
        clock: clock.clone(),
        rng: rng.fork(),
        disk: disk.open(),
        store: Arc::new(remote(store, clock, rng, registry)),
        prefix: Path::from("p/cluster"),
        meta: meta.clone(),
        budget: Budget::new(4 << 20),
        registry: registry.clone(),
        node: NodeId(1),
        wal,
        on_fatal: Arc::new(move |line: &str| fatal.lock().push(line.to_owned())),
    }
}

//! A world for tests of compaction: metadata and a store in memory, rounds put by hand, streams read back entry by entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use common::metrics::Registry;
use common::{
    Budget, Clock, Lsn, ObjectId, PartitionId, Rng, Shutdown, StreamEpoch, StreamId, StreamKind,
    WalEpoch, WalId, crc32c,
};
use meta::Reply;
use meta::command::{
    CommitUpload, CreateTopic, ObjectFacts, RegisterObject, SetLogStart, StreamRange,
};
use meta::testing::MemoryStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::{Notify, watch};

use super::{Compactor, Parts};
use crate::core::Core;
use crate::key::data_key;
use crate::metrics::Metrics;
use crate::object::{Block, EntryMeta, EntryPart, Header, Kind, ObjectIndex, Writer};
use crate::options::Options;
use crate::streams::Table;
use crate::tail::Tail;

/// Base offset, span, count and payload of an entry.
pub(crate) type Plain = (i64, u64, u64, Bytes);

/// The gap before an entry, its span and its payload.
pub(crate) type Spaced = (i64, u64, Bytes);

pub(crate) struct World {
    pub memory: MemoryStore,
    pub meta: meta::Handle,
    pub store: Arc<dyn ObjectStore>,
    pub compactor: Arc<Compactor>,
    pub clock: Clock,
    pub topics: Vec<(u64, Vec<u8>)>,
    pub model: BTreeMap<StreamId, Vec<Plain>>,
    ends: BTreeMap<StreamId, i64>,
    wal: WalId,
    epoch: WalEpoch,
    next: u64,
    shutdown: Shutdown,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn options() -> Options {
    Options {
        compaction_part_bytes: 2048,
        compaction_bytes_per_second: u64::MAX,
        ..Options::default()
    }
}

pub(crate) fn core(clock: &Clock) -> Arc<Core> {
    let budget = Budget::new(64 << 20);
    Arc::new(Core {
        table: Table::default(),
        tail: Tail::new(budget.clone(), 1 << 20, Lsn(0)),
        budget,
        clock: clock.clone(),
        metrics: Metrics::default(),
        on_fatal: Arc::new(|line| panic!("{line}")),
        closed: AtomicBool::new(false),
        stopped: Shutdown::new(),
        space: watch::Sender::new(0),
        durable: watch::Sender::new(Lsn(0)),
        covered: watch::Sender::new(Lsn(0)),
        forced: AtomicU64::new(0),
        upload: Notify::new(),
        upload_bytes_max: 1 << 20,
    })
}

impl World {
    pub async fn new(seed: u64, topics: u8, options: Options) -> Self {
        Self::over(seed, topics, options, Arc::new(InMemory::new())).await
    }

    pub async fn over(
        seed: u64,
        topics: u8,
        options: Options,
        store: Arc<dyn ObjectStore>,
    ) -> Self {
        let (memory, clock, rng) =
            (MemoryStore::volatile(), Clock::simulated(1_000_000), Rng::seeded(seed));
        let shutdown = Shutdown::new();
        let voter =
            meta::testing::voter(memory.clone(), clock.clone(), rng.fork(), shutdown.clone());
        let (meta, driver) = voter.await.expect("starts");
        tokio::spawn(driver.run());
        let begun = meta::testing::begin(&meta).await.expect("begins");
        let compactor = Compactor::new(Parts {
            core: core(&clock),
            store: store.clone(),
            prefix: Path::from("test"),
            meta: meta.clone(),
            rng,
            options,
            id: begun.wal,
            epoch: begun.epoch,
            registry: Registry::default(),
        });
        let mut world = Self {
            memory,
            meta,
            store,
            compactor: Arc::new(compactor),
            clock,
            topics: Vec::new(),
            model: BTreeMap::new(),
            ends: BTreeMap::new(),
            wal: begun.wal,
            epoch: begun.epoch,
            next: 0,
            shutdown,
        };
        for topic in 1..=topics {
            world.create_topic(topic).await;
        }
        world
    }

    pub async fn create_topic(&mut self, name: u8) {
        let command = CreateTopic {
            name: format!("topic-{name}"),
            id: vec![name; 16],
            partitions: 1,
            replication_factor: 1,
            now_ms: self.clock.now_ms(),
            ..CreateTopic::default()
        };
        let reply = self.meta.propose(command).await.expect("answers");
        let Reply::TopicCreated { number, .. } = reply else { panic!("{reply:?}") };
        self.topics.push((number, vec![name; 16]));
    }

    pub fn stream(&self, topic: usize) -> StreamId {
        PartitionId { topic: self.topics[topic].0, index: 0 }.stream(StreamKind::Data)
    }

    pub fn begin_stream(&mut self, stream: StreamId, offset: i64) {
        self.memory.begin_stream(stream, offset);
        self.ends.insert(stream, offset);
    }

    pub fn epoch_of(&self, stream: StreamId) -> StreamEpoch {
        let image = self.meta.image();
        image.topics[&stream.partition.topic].partitions[0].epoch
    }

    /// One upload round: entries by stream as spans with payloads, each span preceded by a gap of offsets.
    pub async fn round(&mut self, streams: &[(StreamId, Vec<Spaced>)]) -> ObjectId {
        let (wal, epoch) = (self.wal.0, self.epoch.0);
        let now_ms = self.clock.now_ms();
        let register = RegisterObject { wal, epoch, ttl_ms: 3_600_000, now_ms };
        let reply = self.meta.propose(register).await.expect("answers");
        let Reply::ObjectRegistered { object, .. } = reply else { panic!("{reply:?}") };
        let (first, end) = (self.next, self.next + 4096);
        self.next = end;
        let header = Header {
            kind: Kind::StreamSet,
            store: 0,
            object,
            wal: self.wal,
            wal_epoch: self.epoch,
            first: Lsn(first),
            end: Lsn(end),
        };
        let mut out = Vec::new();
        let mut writer = Writer::new(header, &mut out);
        for (stream, entries) in streams {
            let start = self.ends.get(stream).copied().unwrap_or(0);
            let stream_epoch = self.epoch_of(*stream);
            let (mut at, mut parts) = (start, Vec::new());
            for (gap, span, payload) in entries {
                let part = entry(at + gap, *span, payload.clone(), stream_epoch);
                at = part.meta.end_offset();
                let model = self.model.entry(*stream).or_default();
                model.push((part.meta.base_offset, *span, part.meta.count, payload.clone()));
                parts.push(part);
            }
            writer.stream(*stream, start..at, stream_epoch, &parts, &mut out).expect("follows");
            self.ends.insert(*stream, at);
        }
        let summary = writer.finish(&mut out);
        let key = data_key(&Path::from("test"), object);
        self.store.put(&key, out.concat().into()).await.expect("puts");
        let range = |one: &crate::object::StreamSummary| StreamRange {
            bytes: one.bytes,
            records: one.records,
            max_timestamp: one.max_timestamp,
            ..StreamRange::of(one.stream, one.start, one.end, one.epoch.0)
        };
        let commit = CommitUpload {
            object: object.0,
            wal,
            epoch,
            first,
            end,
            facts: Some(ObjectFacts {
                bytes: summary.bytes,
                format: 1,
                index_at: summary.index_at,
                store: 0,
                footer_crc: summary.footer_crc,
            }),
            ranges: summary.streams.iter().map(range).collect(),
            now_ms,
            ..CommitUpload::default()
        };
        let reply = self.meta.propose(commit).await.expect("answers");
        assert!(matches!(reply, Reply::UploadCommitted { again: false, .. }), "{reply:?}");
        object
    }

    pub async fn set_start(&mut self, stream: StreamId, start: i64) {
        let PartitionId { topic, index } = stream.partition;
        let (kind, epoch) = (stream.kind as u32, self.epoch_of(stream).0);
        let now_ms = self.clock.now_ms();
        let command = SetLogStart { topic, index, kind, start, epoch, now_ms };
        let reply = self.meta.propose(command).await.expect("answers");
        assert!(matches!(reply, Reply::LogStartSet { .. }), "{reply:?}");
        if let Some(model) = self.model.get_mut(&stream) {
            model.retain(|(base, span, ..)| base.saturating_add_unsigned(*span) > start);
        }
    }

    /// The stream's objects in cover order.
    pub async fn cover(&self, stream: StreamId) -> Vec<(i64, i64, ObjectId)> {
        let index = self.meta.stream_index(stream, 0, 1 << 20).await.expect("answers");
        index.objects.iter().map(|one| (one.start, one.end, one.object)).collect()
    }

    /// Reads every entry at or above the log start, checking all there is to check.
    pub async fn read(&self, stream: StreamId) -> Vec<Plain> {
        let index = self.meta.stream_index(stream, 0, 1 << 20).await.expect("answers");
        let (mut found, mut at) = (Vec::new(), None);
        for range in &index.objects {
            assert!(at.is_none_or(|at| at == range.start), "{stream}: gap before {}", range.start);
            at = Some(range.end);
            let key = data_key(&Path::from("test"), range.object);
            let object = self.store.get(&key).await.expect("there").bytes().await.expect("read");
            let header = Header::parse(&object).expect("sound");
            assert_eq!(header.object, range.object);
            let parsed = ObjectIndex::parse(&object).expect("sound");
            crate::read::agree(&parsed, range).expect("the object metadata means");
            for info in parsed.blocks_of(stream, range.start, range.end) {
                let place = |at: u64| usize::try_from(at).expect("small");
                let bytes = object.slice(place(info.position)..place(info.position + info.length));
                let block = Block::parse(&bytes, info).expect("sound");
                for (meta, position) in block.entries().iter().zip(0..) {
                    let EntryMeta { base_offset, span, count, .. } = *meta;
                    if meta.end_offset() > index.start {
                        found.push((base_offset, span, count, block.payload(position)));
                    }
                }
            }
        }
        let covered = at.is_none_or(|at| at == index.committed_end);
        assert!(covered, "{stream}: the objects end at {at:?}");
        found
    }

    pub async fn check(&self) {
        for (stream, model) in &self.model {
            let found = self.read(*stream).await;
            assert_eq!(found.len(), model.len(), "{stream}");
            for (found, expected) in found.iter().zip(model) {
                assert_eq!(found, expected, "{stream}");
            }
        }
    }

    /// Deletes what metadata has released, as the sweeper does. How many objects went.
    pub async fn sweep(&self) -> usize {
        let now_ms = self.clock.now_ms();
        let due = self.meta.deletions(None, now_ms, 10_000).await.expect("answers");
        for one in &due {
            let gone = self.store.delete(&data_key(&Path::from("test"), one.object)).await;
            assert!(matches!(gone, Ok(()) | Err(object_store::Error::NotFound { .. })), "{gone:?}");
        }
        let objects = due.iter().map(|one| one.object.0).collect();
        let command = meta::command::ObjectsDeleted { objects, now_ms };
        self.meta.propose(command).await.expect("answers");
        due.len()
    }
}

pub(crate) fn entry(base_offset: i64, span: u64, payload: Bytes, epoch: StreamEpoch) -> EntryPart {
    let meta = EntryMeta {
        base_offset,
        span,
        count: span.min(3),
        max_timestamp: base_offset % 1000,
        epoch,
        length: u32::try_from(payload.len()).expect("small"),
        crc: crc32c(&payload),
        kind: 1,
        flags: 0,
    };
    EntryPart { meta, payload }
}

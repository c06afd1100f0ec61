//! Random commands against a model that is too simple to be wrong: maps of what each stream and object should hold.

use std::collections::{BTreeMap, BTreeSet};

use common::{ObjectId, PartitionId, Rng, StreamId, StreamKind};

use super::LOST_SPAN;
use super::world::{Log, World, range, rejected};
use crate::command::{DeclareWalLost, ExpireObjects, ObjectsDeleted, SetLogStart, StreamRange};
use crate::facts::ObjectStage;
use crate::reply::{Reject, Reply};

#[path = "model_swaps.rs"]
mod swaps;

#[derive(Default)]
struct Model {
    logs: Vec<ModelLog>,
    topics: BTreeMap<u64, Vec<u8>>,
    deleted: BTreeSet<u64>,
    partitions: BTreeMap<PartitionId, (Option<u64>, i32)>,
    streams: BTreeMap<StreamId, ModelStream>,
    objects: BTreeMap<ObjectId, ModelObject>,
}

#[derive(Clone, Copy)]
struct ModelLog {
    log: Log,
    node: i32,
    committed: u64,
    written: u64,
}

#[derive(Clone, Default)]
struct ModelStream {
    start: i64,
    end: i64,
    epoch: i32,
    ranges: BTreeMap<i64, (i64, ObjectId)>,
    lost: Vec<(i64, i64)>,
}

struct ModelObject {
    stage: ObjectStage,
    wal: u64,
    expires_ms: i64,
}

/// One random life of a cluster.
struct Life {
    rng: Rng,
    world: World,
    model: Model,
    met: BTreeMap<&'static str, usize>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let (world, logs) = World::with_nodes(3);
        let log = |(log, node)| ModelLog { log, node, committed: 0, written: 0 };
        let model =
            Model { logs: logs.into_iter().zip(1..).map(log).collect(), ..Model::default() };
        Self { rng: Rng::seeded(seed), world, model, met: BTreeMap::new() }
    }

    fn pick<T>(&self, items: impl IntoIterator<Item = T>) -> Option<T> {
        let items: Vec<T> = items.into_iter().collect();
        let many = u64::try_from(items.len()).expect("few");
        let chosen = usize::try_from(self.rng.below(many)).expect("few");
        items.into_iter().nth(chosen)
    }

    fn met(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn step(&mut self) {
        match self.rng.below(20) {
            0 | 1 => self.create_topic(),
            2 => self.delete_topic(),
            3 => self.reopen(),
            4 => self.lose(),
            5 => self.expire(),
            6 => self.forget(),
            7 | 8 => self.move_start(),
            9..=11 => self.swap(),
            _ => self.commit(),
        }
    }

    fn create_topic(&mut self) {
        if self.model.topics.len() > 4 {
            return;
        }
        let name = format!("t{}", self.model.topics.len() + self.model.deleted.len());
        let (number, id) = self.world.topic(&name, 3);
        for index in 0..3_u32 {
            let meta =
                self.world.image.topics[&number].partitions[usize::try_from(index).expect("3")];
            let owner = (meta.wal.map(|wal| wal.0), 0);
            self.model.partitions.insert(PartitionId { topic: number, index }, owner);
        }
        self.model.topics.insert(number, id);
    }

    fn delete_topic(&mut self) {
        let Some((number, id)) = self.pick(self.model.topics.clone()) else { return };
        assert!(matches!(self.world.delete(&id), Reply::TopicDeleted { .. }));
        self.model.topics.remove(&number);
        self.model.deleted.insert(number);
        self.model.partitions.retain(|id, _| id.topic != number);
        self.model.streams.retain(|id, _| id.partition.topic != number);
    }

    fn reopen(&mut self) {
        let Some(position) = self.pick(0..self.model.logs.len()) else { return };
        let one = self.model.logs[position];
        let end = one.written.max(one.committed) + 4096 * self.rng.below(2);
        let log = self.world.open(one.log.wal, one.node, end);
        assert!(log.epoch > one.log.epoch);
        self.model.logs[position] = ModelLog { log, written: end, ..one };
        self.adopt(log.wal);
    }

    /// An opened log raises the epoch of its partitions and takes those that nobody has.
    fn adopt(&mut self, wal: u64) {
        for (owner, epoch) in self.model.partitions.values_mut() {
            if owner.is_none_or(|owner| owner == wal) {
                (*owner, *epoch) = (Some(wal), *epoch + 1);
            }
        }
    }

    fn lose(&mut self) {
        if !self.rng.one_in(3) {
            return;
        }
        let Some(position) = self.pick(0..self.model.logs.len()) else { return };
        let gone = self.model.logs.remove(position);
        let reply = self.world.run(DeclareWalLost { wal: gone.log.wal });
        let Reply::WalLost { lost } = reply else { panic!("{reply:?}") };
        let mut expected = Vec::new();
        for (id, (owner, epoch)) in &mut self.model.partitions {
            if *owner != Some(gone.log.wal) {
                continue;
            }
            let meta = self.world.image.topics[&id.topic].partitions
                [usize::try_from(id.index).expect("3")];
            assert_eq!(meta.leader.is_some(), !self.model.logs.is_empty());
            (*owner, *epoch) = (meta.wal.map(|wal| wal.0), *epoch + 1);
            for kind in StreamKind::ALL {
                let stream = self.model.streams.entry(id.stream(kind)).or_default();
                let (start, end) = (stream.end, stream.end + LOST_SPAN);
                stream.lost.push((start, end));
                stream.end = end;
                expected.push((id.stream(kind), start, end));
            }
        }
        let lost: Vec<_> = lost.into_iter().map(|one| (one.stream, one.start, one.end)).collect();
        assert_eq!(lost, expected);
        self.met("lost");
        let log = self.world.start(gone.node);
        self.model.logs.push(ModelLog { log, node: gone.node, committed: 0, written: 0 });
        self.adopt(log.wal);
    }

    fn expire(&mut self) {
        self.world.now_ms += 40_000;
        let now_ms = self.world.now_ms;
        let reply = self.world.run(ExpireObjects { now_ms, objects_max: 1000 });
        let Reply::ObjectsExpired { objects, .. } = reply else { panic!("{reply:?}") };
        let mut expected = BTreeSet::new();
        for (id, object) in &mut self.model.objects {
            if object.stage == ObjectStage::Registered && object.expires_ms <= now_ms {
                object.stage = ObjectStage::Expired;
                expected.insert(*id);
            }
        }
        assert_eq!(objects.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    /// Deletes in the store what is due; only objects without a live range may come up.
    fn forget(&mut self) {
        self.world.now_ms += 30_000;
        let due = self.world.due();
        for id in &due {
            assert!(!self.live(*id), "object {id} is live and due to be deleted");
            self.met("deleted");
        }
        let objects = due.iter().map(|id| id.0).collect();
        self.world.run(ObjectsDeleted { objects, now_ms: self.world.now_ms });
        self.model
            .objects
            .retain(|id, object| object.stage != ObjectStage::Committed || !due.contains(id));
    }

    fn live(&self, id: ObjectId) -> bool {
        let mut ranges = self.model.streams.values().flat_map(|stream| stream.ranges.values());
        ranges.any(|(_, object)| *object == id)
    }

    fn move_start(&mut self) {
        let Some((id, (_, epoch))) = self.pick(self.model.partitions.clone()) else { return };
        let kind = self.pick(StreamKind::ALL).expect("three");
        let stream = self.model.streams.entry(id.stream(kind)).or_default();
        let span = u64::try_from(stream.end - stream.start + 20).expect("forward").min(60);
        let start = stream
            .start
            .max(stream.start + i64::try_from(self.rng.below(span)).expect("small") - 5);
        stream.start = start;
        stream.ranges.retain(|_, (end, _)| *end > start);
        stream.lost.retain(|(_, end)| *end > start);
        let (topic, index, kind) = (id.topic, id.index, u32::from(kind as u8));
        let now_ms = self.world.now_ms;
        let reply = self.world.run(SetLogStart { topic, index, kind, start, epoch, now_ms });
        assert_eq!(reply, Reply::LogStartSet { start, more: false });
    }

    /// A round of random streams of one log, sometimes with one thing wrong.
    fn commit(&mut self) {
        let Some(position) = self.pick(0..self.model.logs.len()) else { return };
        let one = self.model.logs[position];
        let object = self.world.register(one.log);
        let expires_ms = self.world.now_ms + 60_000;
        let stage = ObjectStage::Registered;
        self.model.objects.insert(object, ModelObject { stage, wal: one.log.wal, expires_ms });
        if self.rng.one_in(8) {
            return;
        }
        let mut ranges = Vec::new();
        for (id, (owner, epoch)) in &self.model.partitions {
            if *owner != Some(one.log.wal) || self.rng.one_in(3) {
                continue;
            }
            for kind in StreamKind::ALL {
                let stream = self.model.streams.get(&id.stream(kind)).cloned().unwrap_or_default();
                let length = 1 + i64::try_from(self.rng.below(9)).expect("small");
                let epoch = if self.rng.one_in(3) { stream.epoch } else { *epoch };
                ranges.push(range(id.stream(kind), stream.end, stream.end + length, epoch));
            }
        }
        let gone = self.pick(self.model.deleted.clone()).filter(|_| self.rng.one_in(3));
        if let Some(topic) = gone {
            ranges.push(range(PartitionId { topic, index: 1 }.stream(StreamKind::Data), 77, 99, 0));
        }
        let mut round = self.world.round(one.log, object, ranges);
        assert_eq!(round.first, one.committed);
        if let Some(expected) = self.spoil(&mut round) {
            let reject = rejected(self.world.run(round));
            assert_eq!(
                std::mem::discriminant(&reject),
                std::mem::discriminant(&expected),
                "{reject:?}"
            );
            self.met("refused");
            return;
        }
        let reply = self.world.run(round.clone());
        let Reply::UploadCommitted { committed, refused, again: false } = reply else {
            panic!("{reply:?}");
        };
        assert_eq!((committed.0, refused.len()), (round.end, usize::from(gone.is_some())));
        self.met(if gone.is_some() { "passed a deleted partition" } else { "committed" });
        self.take(position, object, &round.ranges, round.end);
        if self.rng.one_in(4) {
            let before = self.world.state.clone();
            assert!(matches!(self.world.run(round), Reply::UploadCommitted { again: true, .. }));
            assert_eq!(self.world.state, before);
        }
    }

    fn take(&mut self, position: usize, object: ObjectId, ranges: &[StreamRange], end: u64) {
        let log = &mut self.model.logs[position];
        log.committed = end;
        log.written = log.written.max(end);
        for range in ranges {
            let stream = range.stream().expect("a stream");
            if !self.model.partitions.contains_key(&stream.partition) {
                continue;
            }
            let model = self.model.streams.entry(stream).or_default();
            (model.end, model.epoch) = (range.end, range.epoch);
            if range.end > model.start {
                model.ranges.insert(range.start, (range.end, object));
            }
        }
        self.model.objects.get_mut(&object).expect("registered").stage = ObjectStage::Committed;
    }

    /// Makes one thing wrong with the round and says what is to be answered.
    fn spoil(&mut self, round: &mut crate::command::CommitUpload) -> Option<Reject> {
        use crate::reply::Broken;
        let broken = |id| Some(Broken::ObjectOfOther(ObjectId(id)).into());
        match self.rng.below(24) {
            0 => {
                round.epoch -= 1;
                Some(Reject::StaleWalEpoch { current: common::WalEpoch(0) })
            }
            1 => {
                round.first += 4096;
                round.end += 4096;
                broken(0)
            }
            2 => {
                let expired = self.model.objects.iter().find(|(_, object)| {
                    object.stage == ObjectStage::Expired && object.wal == round.wal
                });
                round.object = expired?.0.0;
                Some(Reject::ObjectExpired(ObjectId(0)))
            }
            3 => {
                let other = |object: &&ModelObject| object.wal != round.wal;
                round.object = self.model.objects.iter().find(|(_, one)| other(one))?.0.0;
                broken(0)
            }
            // One of the three streams of a partition does not follow: none may be taken.
            4 | 5 => {
                let there = |range: &&mut StreamRange| self.model.topics.contains_key(&range.topic);
                let one = round.ranges.iter_mut().find(there)?;
                one.start += 1;
                one.end += 1;
                broken(0)
            }
            6 => {
                let foreign =
                    self.model.partitions.iter().find(|(_, (wal, _))| *wal != Some(round.wal));
                let stream = foreign?.0.stream(StreamKind::Data);
                round.ranges.push(range(stream, 0, 1, 0));
                broken(0)
            }
            _ => None,
        }
    }

    /// The state says what the model says, and live and lost ranges tile each stream.
    fn check(&self) {
        for (stream, model) in &self.model.streams {
            let index = self.world.index(*stream);
            if index.version == 0 {
                assert_eq!((model.end, model.start), (0, 0), "{stream}");
                continue;
            }
            assert_eq!((index.start, index.committed_end), (model.start, model.end), "{stream}");
            assert_eq!(index.lost, model.lost);
            let ranges = index.objects.iter().map(|one| (one.start, (one.end, one.object)));
            assert_eq!(ranges.collect::<BTreeMap<_, _>>(), model.ranges, "{stream}");
            let bytes: i64 = model.ranges.iter().map(|(start, (end, _))| end - start).sum();
            assert_eq!(index.bytes, u64::try_from(bytes).expect("positive"));
            let mut tiles: Vec<(i64, i64)> =
                model.ranges.iter().map(|(start, (end, _))| (*start, *end)).collect();
            tiles.extend(&model.lost);
            tiles.sort_unstable();
            assert!(tiles.windows(2).all(|pair| pair[0].1 == pair[1].0), "{stream}: {tiles:?}");
            if let (Some(first), Some(last)) = (tiles.first(), tiles.last()) {
                assert!(first.0 <= model.start && last.1 == model.end, "{stream}: {tiles:?}");
            }
        }
        for (id, model) in &self.model.objects {
            let stage = self.world.object(*id).map(|object| object.stage);
            let expected = match model.stage {
                ObjectStage::Committed if self.live(*id) => ObjectStage::Committed,
                ObjectStage::Committed => ObjectStage::Released,
                other => other,
            };
            assert_eq!(stage, Some(expected), "object {id}");
            let ranges = crate::facts::live_ranges(&self.world.state, *id, 1000).expect("readable");
            let object = self.world.object(*id).expect("known");
            let bytes: u64 = ranges.iter().map(|one| one.range.bytes).sum();
            let counted = (u32::try_from(ranges.len()).expect("few"), bytes);
            assert_eq!((object.live, object.live_bytes), counted, "object {id}");
        }
        for one in &self.model.logs {
            assert_eq!(self.world.wal(one.log.wal).committed.0, one.committed);
        }
        for (id, (wal, epoch)) in &self.model.partitions {
            let meta = self.world.image.topics[&id.topic].partitions
                [usize::try_from(id.index).expect("3")];
            assert_eq!((meta.wal.map(|wal| wal.0), meta.epoch.0), (*wal, *epoch), "{id}");
        }
    }
}

#[test]
fn random_lives_agree_with_the_model() {
    let mut met: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0..150 {
        let outcome = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            for _ in 0..120 {
                life.step();
                life.check();
            }
            life.met
        });
        match outcome {
            Ok(seen) => {
                seen.into_iter().for_each(|(what, times)| *met.entry(what).or_default() += times)
            }
            Err(panic) => {
                eprintln!("seed {seed} of random_lives_agree_with_the_model failed");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let swaps = ["swapped", "swap below the log start", "swap refused", "swap again"];
    let edges = ["committed", "refused", "passed a deleted partition", "lost", "deleted"];
    for edge in edges.into_iter().chain(swaps) {
        assert!(met.get(edge).is_some_and(|times| *times > 20), "{edge} was hardly met: {met:?}");
    }
}

//! A state in a map with the commands that tests need most. Every command run here is also checked for what holds of all:
//! determinism, refusals that write nothing, and an image whose deltas equal a reload.

use std::collections::BTreeMap;

use common::{ObjectId, PartitionId, StreamId, StreamKind};

use super::apply;
use crate::command::{
    Bootstrap, Command, CommitUpload, CreateTopic, CreateWal, DeleteTopic, NewObject, ObjectFacts,
    OpenWal, RegisterObject, StartNode, StreamRange, SwapOutput, SwapRanges, SwapStream,
};
use crate::facts::{self, Object, StreamIndex, WalFacts};
use crate::image::Image;
use crate::reply::{Reject, Reply};

#[derive(Default)]
pub(super) struct World {
    pub state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub image: Image,
    pub now_ms: i64,
    topics: u8,
}

/// A log under its epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub wal: u64,
    pub epoch: u64,
}

impl World {
    /// A cluster with brokers 1..=`nodes`, each with an open log.
    pub fn with_nodes(nodes: i32) -> (Self, Vec<Log>) {
        let mut world = Self { now_ms: 1_000_000, ..Self::default() };
        world.run(Bootstrap { cluster_id: "c".into(), incarnation: 3, feature_level: 1 });
        let logs = (1..=nodes).map(|node| world.start(node)).collect();
        (world, logs)
    }

    pub fn run(&mut self, command: impl Into<Command>) -> Reply {
        let bytes = command.into().into_frame();
        let command = Command::from_frame(&bytes).expect("a frame");
        let (writes, reply) = apply(&self.state, command.as_ref()).expect("a readable state");
        let again = apply(&self.state, command.as_ref()).expect("a readable state");
        assert_eq!((&writes, &reply), (&again.0, &again.1), "apply is a function");
        if matches!(reply, Reply::Rejected(_)) {
            assert_eq!(writes, [], "a refusal writes nothing");
        }
        for write in writes {
            if Image::holds(&write.key) {
                self.image.change(&write.key, write.value.as_deref()).expect("a readable write");
            }
            match write.value {
                Some(value) => self.state.insert(write.key, value),
                None => self.state.remove(&write.key),
            };
        }
        assert_eq!(Image::build(&self.state, 0).expect("readable"), self.image, "delta and reload");
        reply
    }

    pub fn start(&mut self, node: i32) -> Log {
        self.start_on(node, false)
    }

    /// A broker with a new log, on a medium that survives its node or does not.
    pub fn start_on(&mut self, node: i32, survives: bool) -> Log {
        self.run(StartNode { node, host: "h".into(), port: 1, ..StartNode::default() });
        let Reply::WalCreated { wal } = self.run(CreateWal { node, salt: 9, survives }) else {
            panic!("no log");
        };
        self.open(wal.0, node, 0)
    }

    pub fn open(&mut self, wal: u64, node: i32, recovered_end: u64) -> Log {
        let reply = self.run(OpenWal { wal, node, recovered_end, cut: false });
        let Reply::WalOpened { epoch, first } = reply else { panic!("{reply:?}") };
        assert_eq!(first.0, recovered_end);
        Log { wal, epoch: epoch.0 }
    }

    /// A new topic: its number and its 16-byte id.
    pub fn topic(&mut self, name: &str, partitions: u32) -> (u64, Vec<u8>) {
        self.topics += 1;
        let id = vec![self.topics; 16];
        let reply = self.run(CreateTopic {
            name: name.into(),
            id: id.clone(),
            partitions,
            replication_factor: 1,
            now_ms: self.now_ms,
            ..CreateTopic::default()
        });
        let Reply::TopicCreated { number, .. } = reply else { panic!("{reply:?}") };
        (number, id)
    }

    pub fn delete(&mut self, id: &[u8]) -> Reply {
        self.run(DeleteTopic { id: id.to_vec(), now_ms: self.now_ms })
    }

    pub fn register(&mut self, log: Log) -> ObjectId {
        let Log { wal, epoch } = log;
        let reply = self.run(RegisterObject { wal, epoch, ttl_ms: 60_000, now_ms: self.now_ms });
        let Reply::ObjectRegistered { object, .. } = reply else { panic!("{reply:?}") };
        object
    }

    pub fn round(&self, log: Log, object: ObjectId, ranges: Vec<StreamRange>) -> CommitUpload {
        let first = self.wal(log.wal).committed.0;
        CommitUpload {
            object: object.0,
            wal: log.wal,
            epoch: log.epoch,
            first,
            end: first + 4096,
            facts: Some(ObjectFacts { bytes: 100, format: 1, ..ObjectFacts::default() }),
            ranges,
            floors: Vec::new(),
            now_ms: self.now_ms,
            left_out: Vec::new(),
        }
    }

    /// Registers an object and commits `ranges` under it.
    pub fn commit(&mut self, log: Log, ranges: Vec<StreamRange>) -> (ObjectId, Reply) {
        let object = self.register(log);
        let round = self.round(log, object, ranges);
        (object, self.run(round))
    }

    /// Objects whose delete in the store is due.
    pub fn due(&self) -> Vec<ObjectId> {
        let due = facts::deletions(&self.state, None, self.now_ms, 100).expect("readable");
        due.into_iter().map(|one| one.object).collect()
    }

    pub fn wal(&self, wal: u64) -> WalFacts {
        facts::wal(&self.state, common::WalId(wal)).expect("readable").expect("a log")
    }

    pub fn index(&self, stream: StreamId) -> StreamIndex {
        facts::stream_index(&self.state, stream, 0, usize::MAX - 1).expect("readable")
    }

    pub fn object(&self, id: ObjectId) -> Option<Object> {
        facts::object(&self.state, id).expect("readable")
    }
}

pub(super) fn data(topic: u64, index: u32) -> StreamId {
    PartitionId { topic, index }.stream(StreamKind::Data)
}

/// A range with a byte and a record per offset.
pub(super) fn range(stream: StreamId, start: i64, end: i64, epoch: i32) -> StreamRange {
    let many = u64::try_from(end - start).unwrap_or(0);
    StreamRange {
        bytes: many,
        records: many,
        max_timestamp: end,
        ..StreamRange::of(stream, start, end, epoch)
    }
}

pub(super) fn rejected(reply: Reply) -> Reject {
    match reply {
        Reply::Rejected(reject) => reject,
        other => panic!("accepted: {other:?}"),
    }
}

/// A swap without parts yet.
pub(super) fn swap_of(log: Log, objects: &[ObjectId], now_ms: i64) -> SwapRanges {
    let facts = Some(ObjectFacts { bytes: 100, format: 1, ..ObjectFacts::default() });
    let new = |id: &ObjectId| NewObject { object: id.0, facts, ..NewObject::default() };
    SwapRanges {
        wal: log.wal,
        epoch: log.epoch,
        objects: objects.iter().map(new).collect(),
        now_ms,
        ..SwapRanges::default()
    }
}

/// A part of `stream` from `start` with a byte and a record per offset; `outputs` are objects by position and ends.
pub(super) fn part_of(
    swap: &mut SwapRanges,
    stream: StreamId,
    epoch: i32,
    start: i64,
    inputs: &[ObjectId],
    outputs: &[(u32, i64)],
) -> SwapStream {
    let mut part = SwapStream::of(stream, epoch, start);
    for id in inputs {
        let known = swap.inputs.iter().position(|known| *known == id.0);
        let position = known.unwrap_or_else(|| {
            swap.inputs.push(id.0);
            swap.inputs.len() - 1
        });
        part.inputs.push(u32::try_from(position).expect("few"));
    }
    let mut from = start;
    for (object, end) in outputs.iter().copied() {
        let many = u64::try_from(end - from).expect("forward");
        let epoch = 0;
        part.outputs.push(SwapOutput {
            object,
            end,
            bytes: many,
            records: many,
            max_timestamp: end,
            epoch,
        });
        from = end;
    }
    part
}

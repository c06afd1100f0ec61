//! Random lives of brokers against a model of who holds which bytes: the one rule of ownership, after every command.

use std::collections::BTreeMap;

use common::{PartitionId, Rng, StreamKind};

use super::LOST_SPAN;
use super::world::{Log, World, data, range, rejected};
use crate::command::{Command, DeclareWalLost, FenceWal, HandOutWal, MovePartition, OpenWal};
use crate::reply::{Reject, Reply};

const NODES: i32 = 3;

/// A log as the brokers know it.
#[derive(Clone, Copy, Debug)]
struct Holder {
    node: i32,
    /// Its newest epoch, whoever holds that.
    epoch: u64,
    survives: bool,
    /// Its broker writes to it.
    open: bool,
    /// Being taken over by another broker.
    taken: bool,
}

/// A partition as its owners know it. Only its data stream is written.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    committed: i64,
    written: i64,
    /// The log with the bytes between.
    holder: Option<u64>,
}

struct Life {
    rng: Rng,
    world: World,
    topic: u64,
    logs: BTreeMap<u64, Holder>,
    held: BTreeMap<u32, Held>,
    leaders: BTreeMap<(u32, i32), i32>,
    late: Vec<Command>,
    met: BTreeMap<&'static str, usize>,
}

impl Life {
    fn new(seed: u64) -> Self {
        let (world, _) = World::with_nodes(0);
        let rng = Rng::seeded(seed);
        let mut life = Self {
            rng,
            world,
            topic: 0,
            logs: BTreeMap::new(),
            held: (0..4).map(|index| (index, Held::default())).collect(),
            leaders: BTreeMap::new(),
            late: Vec::new(),
            met: BTreeMap::new(),
        };
        (1..=NODES).for_each(|node| life.start(node));
        life.topic = life.world.topic("t", 4).0;
        life
    }

    fn met(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    fn start(&mut self, node: i32) {
        let survives = self.rng.one_in(2);
        let log = self.world.start_on(node, survives);
        let holder = Holder { node, epoch: log.epoch, survives, open: true, taken: false };
        self.logs.insert(log.wal, holder);
    }

    fn pick<T: Copy>(&self, items: impl IntoIterator<Item = T>) -> Option<T> {
        let items: Vec<T> = items.into_iter().collect();
        let at = self.rng.below(u64::try_from(items.len()).expect("few"));
        items.get(usize::try_from(at).expect("few")).copied()
    }

    fn meta(&self, index: u32) -> crate::image::PartitionMeta {
        let topic = &self.world.image.topics[&self.topic];
        topic.partitions[usize::try_from(index).expect("small")]
    }

    fn partition(&self) -> u32 {
        u32::try_from(self.rng.below(4)).expect("small")
    }

    fn step(&mut self) {
        match self.rng.below(16) {
            0..=4 => self.write(),
            5..=7 => self.upload(),
            8 | 9 => self.move_away(),
            10 => self.fence(),
            11 | 12 => self.hand_out(),
            13 => self.open(),
            14 => self.lose(),
            _ => self.late(),
        }
        self.check();
    }

    /// The leader of a partition appends to its own log.
    fn write(&mut self) {
        let index = self.partition();
        let meta = self.meta(index);
        let (Some(leader), Some(wal)) = (meta.leader, meta.wal) else { return };
        let log = self.logs[&wal.0];
        assert_eq!(log.node, leader.0, "a leader has its own log");
        let held = self.held.get_mut(&index).expect("four");
        held.written += 1 + i64::try_from(self.rng.below(5)).expect("small");
        held.holder = Some(wal.0);
    }

    /// A round of whoever holds a log's newest epoch: its broker, or the one that takes it over.
    fn upload(&mut self) {
        let held_by_any = |(wal, log): (&u64, &Holder)| (log.open || log.taken).then_some(*wal);
        let Some(wal) = self.pick(self.logs.iter().filter_map(held_by_any)) else { return };
        let epoch = self.logs[&wal].epoch;
        let mut ranges = Vec::new();
        for (index, held) in &self.held {
            if held.holder == Some(wal) && held.written > held.committed && !self.rng.one_in(3) {
                let (start, end) = (held.committed, held.written);
                let epoch = self.meta(*index).epoch.0;
                ranges.push(range(data(self.topic, *index), start, end, epoch));
            }
        }
        let log = Log { wal, epoch };
        let object = self.world.register(log);
        let round = self.world.round(log, object, ranges.clone());
        self.late.push(round.clone().into());
        if self.rng.one_in(4) {
            return;
        }
        let reply = self.world.run(round);
        assert!(matches!(reply, Reply::UploadCommitted { .. }), "{reply:?}");
        self.take(&ranges);
    }

    fn take(&mut self, ranges: &[crate::command::StreamRange]) {
        for range in ranges {
            let held = self.held.get_mut(&range.index).expect("four");
            assert_eq!(range.start, held.committed, "committed twice");
            held.committed = range.end;
        }
    }

    fn move_away(&mut self) {
        let index = self.partition();
        let (meta, held) = (self.meta(index), self.held[&index]);
        let Some(wal) = meta.wal.map(|wal| wal.0) else { return };
        let to = 1 + i32::try_from(self.rng.below(3)).expect("small");
        let command = MovePartition {
            topic: self.topic,
            index,
            epoch: meta.epoch.0 - i32::from(self.rng.one_in(8)),
            wal,
            wal_epoch: self.logs[&wal].epoch,
            to,
            ends: vec![held.written, 0, 0],
        };
        let reply = self.world.run(command.clone());
        let heir = self.logs.values().any(|log| log.node == to && log.open);
        // A command whose answer got lost may come again at any time: its sender has sealed the partition, so what it
        // names is the last word of that epoch. Only such a one is kept.
        if matches!(reply, Reply::PartitionMoved { .. }) {
            assert_eq!(held.committed, held.written, "moved away from its bytes");
            assert!(heir && self.logs[&wal].node != to);
            self.held.get_mut(&index).expect("four").holder = None;
            self.late.push(command.into());
            self.met("moved");
            return;
        }
        let what = match rejected(reply) {
            Reject::NotUploaded { .. } => "move before its upload",
            Reject::StaleStreamEpoch { .. } => "move under a former epoch",
            Reject::CannotOwn(_) => "move to a broker without a log",
            Reject::Malformed(_) => "move to itself",
            other => panic!("{other:?}"),
        };
        self.met(what);
    }

    fn fence(&mut self) {
        let Some(wal) = self.pick(self.logs.keys().copied()) else { return };
        let log = self.logs[&wal];
        let able = |other: &Holder| (other.open && other.node != log.node).then_some(other.node);
        let by = self.pick(self.logs.values().filter_map(able)).filter(|_| self.rng.one_in(2));
        let reply = self.world.run(FenceWal { wal, by });
        let Reply::WalFenced { epoch } = reply else {
            assert_eq!(
                rejected(reply),
                Reject::WalStays { wal: common::WalId(wal), node: common::NodeId(log.node) }
            );
            assert!(by.is_some() && !log.survives);
            return self.met("takeover of a disk that stays");
        };
        let after = Holder { epoch: epoch.0, open: false, taken: by.is_some(), ..log };
        self.logs.insert(wal, after);
        self.met(if by.is_some() { "taken over" } else { "fenced" });
    }

    fn hand_out(&mut self) {
        let taken = |(wal, log): (&u64, &Holder)| log.taken.then_some(*wal);
        let Some(wal) = self.pick(self.logs.iter().filter_map(taken)) else { return };
        let left = self
            .held
            .values()
            .any(|held| held.holder == Some(wal) && held.written > held.committed);
        if left {
            return;
        }
        let log = self.logs[&wal];
        let facts = self.world.wal(wal);
        let opened = facts.epochs.last().map_or(0, |(_, first)| first.0);
        let end = facts.committed.0.max(opened) + 4096;
        let command = HandOutWal { wal, epoch: log.epoch, end };
        match self.world.run(command) {
            Reply::WalHandedOut { again: false, .. } => {}
            other => {
                assert_eq!(rejected(other), Reject::NoBroker);
                return;
            }
        }
        assert!(matches!(self.world.run(command), Reply::WalHandedOut { again: true, .. }));
        self.logs.remove(&wal);
        self.late.push(command.into());
        let back = OpenWal { wal, node: log.node, recovered_end: end, cut: false };
        assert_eq!(rejected(self.world.run(back)), Reject::WalClosed(common::WalId(wal)));
        self.met("handed out");
        self.start(log.node);
    }

    /// A broker starts again, whoever was taking its log over.
    fn open(&mut self) {
        let Some(wal) = self.pick(self.logs.keys().copied()) else { return };
        let log = self.logs[&wal];
        let committed = self.world.wal(wal).committed.0;
        let end = committed + 4096 + self.world.wal(wal).epochs.last().map_or(0, |(_, at)| at.0);
        let opened = self.world.open(wal, log.node, end);
        if log.taken {
            self.met("came back during its takeover");
        }
        let after = Holder { epoch: opened.epoch, open: true, taken: false, ..log };
        self.logs.insert(wal, after);
    }

    fn lose(&mut self) {
        if !self.rng.one_in(2) {
            return;
        }
        let Some(wal) = self.pick(self.logs.keys().copied()) else { return };
        let mine: Vec<u32> =
            (0..4).filter(|index| self.meta(*index).wal == Some(common::WalId(wal))).collect();
        let reply = self.world.run(DeclareWalLost { wal });
        assert!(matches!(reply, Reply::WalLost { .. }));
        for index in mine {
            let held = self.held.get_mut(&index).expect("four");
            assert!(held.written <= held.committed + LOST_SPAN);
            let end = held.committed + LOST_SPAN;
            *held = Held { committed: end, written: end, holder: None };
        }
        let gone = self.logs.remove(&wal).expect("known");
        self.met("lost");
        self.start(gone.node);
    }

    /// A command that was under way for long arrives: it does nothing, or what it was still free to do.
    fn late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let at = self.rng.below(u64::try_from(self.late.len()).expect("few"));
        let command = self.late.swap_remove(usize::try_from(at).expect("few"));
        let reply = self.world.run(command.clone());
        match (&command, &reply) {
            (Command::CommitUpload(round), Reply::UploadCommitted { again: false, .. }) => {
                let log = self.logs[&round.wal];
                assert_eq!(log.epoch, round.epoch, "a round of a former holder");
                self.take(&round.ranges);
            }
            (Command::MovePartition(_), Reply::PartitionMoved { .. }) => {
                panic!("moved again by {command:?}");
            }
            (_, Reply::Rejected(_)) => self.met("late and refused"),
            _ => {}
        }
    }

    /// At most one log holds un-uploaded bytes of a partition, and only its own broker leads there.
    fn check(&mut self) {
        for (index, held) in &self.held {
            let meta = self.meta(*index);
            let id = PartitionId { topic: self.topic, index: *index };
            let committed = self.world.index(id.stream(StreamKind::Data)).committed_end;
            assert_eq!(committed, held.committed, "{id}");
            if held.written > held.committed {
                assert_eq!(meta.wal.map(|wal| wal.0), held.holder, "{id}: bytes elsewhere");
            }
            let Some(leader) = meta.leader else { continue };
            let facts = self.world.wal(meta.wal.expect("a leader has a log").0);
            assert!(!facts.closed && facts.fence.is_none() && !facts.fresh, "{id}: {facts:?}");
            assert_eq!(facts.node, leader, "{id}: led by a broker that has another log");
            let known = *self.leaders.entry((*index, meta.epoch.0)).or_insert(leader.0);
            assert_eq!(known, leader.0, "{id}: two leaders in one epoch");
        }
    }
}

#[test]
fn nothing_above_a_committed_end_is_in_two_logs_or_led_from_elsewhere() {
    let mut met: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0..200 {
        let outcome = std::panic::catch_unwind(|| {
            let mut life = Life::new(seed);
            (0..150).for_each(|_| life.step());
            life.met
        });
        match outcome {
            Ok(seen) => {
                seen.into_iter().for_each(|(what, times)| *met.entry(what).or_default() += times);
            }
            Err(panic) => {
                eprintln!("seed {seed} failed");
                std::panic::resume_unwind(panic);
            }
        }
    }
    for edge in [
        "moved",
        "move before its upload",
        "move under a former epoch",
        "move to a broker without a log",
        "move to itself",
        "fenced",
        "taken over",
        "takeover of a disk that stays",
        "handed out",
        "came back during its takeover",
        "lost",
        "late and refused",
    ] {
        assert!(met.get(edge).is_some_and(|times| *times > 20), "{edge} was hardly met: {met:?}");
    }
    println!("{met:?}");
}

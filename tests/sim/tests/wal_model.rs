//! Random appends, crashes and interrupted starts over the simulated disk, against a small model: after each start the
//! log holds a prefix of what was appended, all of what was acknowledged, and nothing that an earlier start has cut.

use std::sync::Arc;
use std::time::Duration;

use common::metrics::Registry;
use common::{Lsn, PartitionId, Rng, StreamEpoch, StreamKind, WalEpoch, WalId, failpoint};
use parking_lot::Mutex;
use sim::disk::{Behaviour, Met, SimDisk};
use wal::{AppendError, Error, Frame, FrameHeader, Group, Identity, Listener, Options, Wal};

fn options() -> Options {
    Options {
        gather_bytes_max: 2 << 10,
        capacity_max: 256 << 10,
        segment_bytes: 64 << 10,
        first_segment_bytes: 16 << 10,
        group_bytes_max: 16 << 10,
        window_bytes_max: 48 << 10,
        queue_bytes_max: 64 << 10,
        ..Options::default()
    }
}

fn header(id: i64) -> FrameHeader {
    FrameHeader {
        kind: 1,
        flags: 0,
        stream: PartitionId { topic: 9, index: 0 }.stream(StreamKind::Data),
        epoch: StreamEpoch(0),
        base_offset: id,
        span: 1,
        count: 1,
        max_timestamp: id * 10,
        key_id: 0,
    }
}

/// A payload that tells its id in every eight bytes.
fn payload(id: i64, len: usize) -> Vec<u8> {
    id.to_le_bytes().into_iter().cycle().take(len).collect()
}

#[derive(Default)]
struct Heard {
    /// (id, end of its group), in the order of durability.
    durable: Mutex<Vec<(i64, Lsn)>>,
    sealed: Mutex<Vec<Lsn>>,
    failed: Mutex<bool>,
    after_failure: Mutex<u64>,
    space: Mutex<u64>,
}

impl Listener for Heard {
    fn sealed(&self, group: Arc<Group>) {
        self.sealed.lock().push(group.first());
    }

    fn durable(&self, group: &Arc<Group>, durable: Lsn) {
        assert_eq!(group.end(), durable);
        if *self.failed.lock() {
            *self.after_failure.lock() += 1;
        }
        let ids = group.frames().iter().map(|frame| (frame.header.base_offset, group.end()));
        self.durable.lock().extend(ids);
    }

    fn failed(&self, _error: &Error) {
        *self.failed.lock() = true;
    }

    fn space(&self) {
        *self.space.lock() += 1;
    }
}

/// What must be in the log.
#[derive(Default)]
struct Model {
    /// Ids above the committed position, in order; the first `acked` are acknowledged.
    ids: Vec<i64>,
    ends: Vec<Lsn>,
    next: i64,
    epochs: Vec<(WalEpoch, Lsn)>,
    committed: Lsn,
    interrupted_twice: u64,
    full: u64,
}

impl Model {
    fn identity(&self) -> Identity {
        Identity {
            wal: WalId(3),
            salt: 0x5a17,
            epochs: self.epochs.clone(),
            committed: self.committed,
            fresh: self.epochs.is_empty(),
        }
    }

    /// Checks what a start found; what is not there was cut and must never come back.
    fn check(&mut self, groups: &[Arc<Group>]) -> Result<(), String> {
        let mut found = Vec::new();
        let mut at = self.committed;
        for group in groups {
            if group.first() != at {
                return Err(format!("group at {} instead of {at}", group.first()));
            }
            at = group.end();
            for (index, frame) in group.frames().iter().enumerate() {
                let id = frame.header.base_offset;
                let bytes = group.payload(index);
                if frame.header != header(id) || bytes != payload(id, bytes.len()) {
                    return Err(format!("frame {id} is not what was appended"));
                }
                found.push((id, group.end()));
            }
        }
        let ids: Vec<i64> = found.iter().map(|(id, _)| *id).collect();
        if !self.ids.starts_with(&ids) {
            return Err(format!("found {ids:?}, appended {:?}", self.ids));
        }
        let acked = self.ends.len();
        if ids.len() < acked {
            return Err(format!("found {} of {acked} acknowledged frames", ids.len()));
        }
        self.ids = ids;
        self.ends = found.into_iter().map(|(_, end)| end).collect();
        Ok(())
    }

    fn heard(&mut self, heard: &Heard) {
        let durable = heard.durable.lock();
        let mine = durable.iter().filter(|(_, end)| *end > self.committed);
        for (id, end) in mine {
            if self.ends.last().is_none_or(|last| end >= last)
                && self.ids.get(self.ends.len()) == Some(id)
            {
                self.ends.push(*end);
            }
        }
    }

    fn commit(&mut self, to: Lsn) {
        let gone = self.ends.partition_point(|end| *end <= to);
        self.ids.drain(..gone);
        self.ends.drain(..gone);
        self.committed = to;
        while self.epochs.len() > 1 && self.epochs[1].1 <= to {
            self.epochs.remove(0);
        }
    }
}

async fn run(seed: u64, lives: u64) -> Result<(Met, Model, u32), String> {
    let rng = Rng::seeded(seed);
    let disk = SimDisk::new(rng.fork());
    let mut model = Model::default();
    let mut epoch = 0;
    let mut interrupted = 0;
    for _ in 0..lives {
        let recovered = Wal::recover(disk.open(), &options(), &model.identity()).await;
        let recovered = recovered.map_err(|error| format!("refused: {error}"))?;
        model.check(recovered.groups())?;
        if rng.one_in(8) {
            disk.crash();
            continue;
        }
        epoch += 1;
        model.epochs.push((WalEpoch(epoch), recovered.end()));
        if rng.one_in(4) {
            interrupted += 1;
            model.interrupted_twice += u64::from(interrupted == 2);
            disk.crash();
            continue;
        }
        interrupted = 0;
        let heard = Arc::new(Heard::default());
        let registry = Registry::default();
        let start = Wal::start(recovered, WalEpoch(epoch), heard.clone(), &registry);
        let patience = Duration::from_millis(if rng.one_in(4) { 2 } else { 60_000 });
        let Ok(wal) = tokio::time::timeout(patience, start).await else {
            disk.crash();
            continue;
        };
        let wal = wal.map_err(|error| error.to_string())?;
        live(&rng, &wal, &heard, &mut model).await;
        disk.crash();
        model.heard(&heard);
        drop(wal);
    }
    let print = disk.fingerprint();
    Ok((disk.met(), model, print))
}

async fn live(rng: &Rng, wal: &Wal, heard: &Heard, model: &mut Model) {
    for _ in 0..rng.below(60) {
        let count = 1 + rng.below(4);
        let len = |rng: &Rng| match rng.below(20) {
            0 => 20_000 + rng.below(20_000),
            1..4 => 2000 + rng.below(4000),
            _ => rng.below(600),
        };
        let frames: Vec<(i64, Vec<u8>)> = (0..count)
            .map(|_| {
                model.next += 1;
                (model.next, payload(model.next, usize::try_from(len(rng)).expect("small")))
            })
            .collect();
        let parts: Vec<[&[u8]; 2]> = frames
            .iter()
            .map(|(_, bytes)| {
                let (a, b) = bytes.split_at(bytes.len() / 3);
                [a, b]
            })
            .collect();
        let list: Vec<Frame<'_>> = frames
            .iter()
            .zip(&parts)
            .map(|((id, _), parts)| Frame { header: header(*id), parts })
            .collect();
        match wal.append(&list) {
            Ok(_) => model.ids.extend(frames.iter().map(|(id, _)| *id)),
            Err(AppendError::Full) => {
                model.full += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
                model.heard(heard);
                model.commit(wal.durable());
                wal.trim(model.committed);
            }
            Err(error) => panic!("{error}"),
        }
        if !rng.one_in(3) {
            wal.kick();
        }
        match rng.below(8) {
            0 => tokio::time::sleep(Duration::from_millis(20)).await,
            1..4 => tokio::time::sleep(Duration::from_micros(rng.below(2000))).await,
            _ => tokio::task::yield_now().await,
        }
        if rng.one_in(16) {
            model.heard(heard);
            model.commit(*wal.subscribe().borrow());
            wal.trim(model.committed);
        }
        read_one(rng, wal, model).await;
    }
}

async fn read_one(rng: &Rng, wal: &Wal, model: &Model) {
    if !rng.one_in(16) || model.committed >= wal.durable() {
        return;
    }
    // The committed position is the first of a durable group.
    let group = wal.read_group(model.committed).await.expect("a durable group can be read");
    if !group.frames().is_empty() {
        let payload = wal.read(model.committed, 0).await.expect("a durable frame can be read");
        assert_eq!(payload, group.payload(0));
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime").block_on(future)
}

/// One seed from `SLUICE_SEED`, as many as `SLUICE_SEEDS`, or 400.
fn seeds() -> std::ops::Range<u64> {
    let number = |variable: &str| {
        let text = std::env::var(variable).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    match number("SLUICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_SEEDS").unwrap_or(400),
    }
}

#[test]
fn acknowledged_frames_survive_and_nothing_cut_comes_back() {
    let mut sum = (0, 0, 0, 0, 0, 0);
    let seeds = seeds();
    let one = seeds.end - seeds.start == 1;
    for seed in seeds {
        let (met, model, _) = block_on(run(seed, 12)).unwrap_or_else(|error| {
            panic!(
                "{error}\nrepeat: SLUICE_SEED={seed} cargo test --release -p sim --test wal_model"
            )
        });
        sum.0 += met.rolls;
        sum.1 += met.reused;
        sum.2 += met.holes;
        sum.3 += met.torn;
        sum.4 += model.full;
        sum.5 += model.interrupted_twice;
    }
    let (rolls, reused, holes, torn, full, interrupted) = sum;
    println!(
        "rolls {rolls} reused {reused} holes {holes} torn {torn} full {full} interrupted twice {interrupted}"
    );
    assert!(
        one || rolls.min(reused).min(holes).min(torn).min(full).min(interrupted) > 0,
        "{sum:?}"
    );
}

#[test]
fn one_seed_is_one_run() {
    for seed in 0..5 {
        let (first, again) = (block_on(run(seed, 8)), block_on(run(seed, 8)));
        let facts = |run: Result<(Met, Model, u32), String>| run.map(|(e, m, p)| (e, m.next, p));
        assert_eq!(facts(first), facts(again));
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in ["ack-before-sync", "revive-behind-cut"] {
        let _planted = failpoint::plant(bug);
        let found = (0..200).find(|seed| block_on(run(*seed, 12)).is_err());
        println!("{bug}: seed {found:?}");
        assert!(found.is_some(), "{bug}");
    }
}

#[test]
fn after_a_failed_write_nothing_is_acknowledged() {
    for seed in 0..100 {
        block_on(async {
            let rng = Rng::seeded(seed);
            let disk = SimDisk::new(rng.fork());
            let mut model = Model::default();
            let recovered =
                Wal::recover(disk.open(), &options(), &model.identity()).await.expect("fresh");
            model.epochs.push((WalEpoch(1), recovered.end()));
            let heard = Arc::new(Heard::default());
            let wal = Wal::start(recovered, WalEpoch(1), heard.clone(), &Registry::default())
                .await
                .expect("starts");
            disk.fail_writes_after(rng.below(10));
            for id in 1..=100 {
                let bytes = payload(id, 4000);
                match wal.append(&[Frame { header: header(id), parts: &[&bytes] }]) {
                    Ok(_) => model.ids.push(id),
                    Err(AppendError::Full) => {}
                    Err(AppendError::Closed) => assert!(*heard.failed.lock()),
                    Err(error) => panic!("{error}"),
                }
                wal.kick();
                tokio::time::sleep(Duration::from_micros(rng.below(500))).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(*heard.failed.lock());
            assert_eq!(*heard.after_failure.lock(), 0);
            assert_eq!(wal.append(&[]), Err(AppendError::Closed));
            wal.close().await;
            model.heard(&heard);
            disk.crash();
            let again =
                Wal::recover(disk.open(), &options(), &model.identity()).await.expect("recovers");
            model.check(again.groups()).expect("all acknowledged frames");
        });
    }
}

#[test]
fn a_full_log_refuses_then_goes_on_after_a_trim() {
    block_on(async {
        let disk = SimDisk::new(Rng::seeded(1));
        let mut model = Model::default();
        let recovered =
            Wal::recover(disk.open(), &options(), &model.identity()).await.expect("fresh");
        model.epochs.push((WalEpoch(1), recovered.end()));
        let heard = Arc::new(Heard::default());
        let wal = Wal::start(recovered, WalEpoch(1), heard.clone(), &Registry::default())
            .await
            .expect("starts");
        let bytes = payload(7, 8000);
        let frame = Frame { header: header(7), parts: &[&bytes] };
        let fill = async || {
            let mut refused = 0;
            while refused < 20 {
                refused += u64::from(wal.append(&[frame]) == Err(AppendError::Full));
                wal.kick();
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        fill().await;
        let full = wal.occupancy();
        assert!(full.bytes > full.capacity - (80 << 10) && full.bytes <= full.capacity, "{full:?}");
        assert_eq!(wal.durable(), full.end);
        let before = *heard.space.lock();
        // No space for a new segment either: only the trimmed ones help.
        disk.behave(Behaviour { capacity: 0, ..Behaviour::default() });
        wal.trim(wal.durable());
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(*heard.space.lock() > before);
        fill().await;
        assert!(disk.met().reused > 1);
        assert!(matches!(
            wal.append(&[Frame { header: header(7), parts: &[&vec![0; 70_000]] }]),
            Err(AppendError::TooLarge { bytes: 70_000, .. })
        ));
    });
}

#[test]
fn a_full_log_opens_again_and_waits_for_a_trim() {
    block_on(async {
        let disk = SimDisk::new(Rng::seeded(2));
        let mut model = Model::default();
        let recovered =
            Wal::recover(disk.open(), &options(), &model.identity()).await.expect("fresh");
        model.epochs.push((WalEpoch(1), recovered.end()));
        let heard = Arc::new(Heard::default());
        let registry = Registry::default();
        let wal =
            Wal::start(recovered, WalEpoch(1), heard.clone(), &registry).await.expect("starts");
        // One frame fills a group of two blocks, so that the last one ends with the last segment.
        for id in 1.. {
            let bytes = payload(id, 3800);
            let room = wal.append(&[Frame { header: header(id), parts: &[&bytes] }]);
            let Ok(at) = room else { break };
            wal.kick();
            wal.subscribe().wait_for(|durable| *durable > at.group).await.expect("alive");
            model.ids.push(id);
        }
        drop(wal);
        disk.crash();
        model.heard(&heard);
        for epoch in 2..5 {
            let recovered =
                Wal::recover(disk.open(), &options(), &model.identity()).await.expect("recovers");
            model.check(recovered.groups()).expect("all there");
            model.epochs.push((WalEpoch(epoch), recovered.end()));
            let heard = Arc::new(Heard::default());
            let registry = Registry::default();
            let wal = Wal::start(recovered, WalEpoch(epoch), heard.clone(), &registry)
                .await
                .expect("a full log opens");
            let bytes = payload(1 << 40, 3800);
            let frame = Frame { header: header(1 << 40), parts: &[&bytes] };
            assert_eq!(wal.append(&[frame]), Err(AppendError::Full));
            if epoch == 4 {
                wal.trim(wal.durable());
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert!(*heard.space.lock() > 0);
                assert!(wal.append(&[frame]).is_ok());
            }
            drop(wal);
            disk.crash();
        }
    });
}

#[test]
fn no_space_at_first_is_tried_again() {
    block_on(async {
        let disk = SimDisk::new(Rng::seeded(1));
        let model = Model::default();
        let recovered =
            Wal::recover(disk.open(), &options(), &model.identity()).await.expect("fresh");
        disk.behave(Behaviour { capacity: 0, ..Behaviour::default() });
        let heard = Arc::new(Heard::default());
        let wal = Wal::start(recovered, WalEpoch(1), heard.clone(), &Registry::default())
            .await
            .expect("starts");
        let bytes = payload(7, 4000);
        let frame = Frame { header: header(7), parts: &[&bytes] };
        while wal.append(&[frame]).is_ok() {
            wal.kick();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!*heard.failed.lock());
        disk.behave(Behaviour::default());
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(*heard.space.lock(), 1);
        assert!(wal.append(&[frame]).is_ok());
    });
}

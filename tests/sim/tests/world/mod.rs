//! One broker's whole engine on media that outlive it, and the lives that it has on them.

mod checker;
mod clients;
mod damage;
pub mod edges;
mod forged;
mod housekeeping;
mod life;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::metrics::Registry;
use common::{PartitionId, Rng, WalId};
use object_store::memory::InMemory;
use parking_lot::Mutex;
use sim::disk::{Behaviour, SimDisk};
use sim::edges::Counts;
use sim::meta_store::MetaDisk;
use sim::store::{FaultStore, Faults};
use sim::trigger::{self, Trigger};
use tokio::sync::Notify;

use checker::Checker;
use clients::{Env, Producer, Sender};
use life::{Life, OpenFailure};

/// Partitions of the topic.
pub const PARTITIONS: u32 = 2;
/// Idempotent producers, spread over the partitions.
const PRODUCERS: u64 = 4;
const START_MS: i64 = 1_700_000_000_000;

/// What a run met, beside what the seams count.
#[derive(Debug, Default)]
pub struct Met {
    pub reads_failed: u64,
    pub commits_refused: u64,
    pub ids_renewed: u64,
    pub read_back: u64,
    pub rounds: u64,
    pub starts_interrupted: u64,
    pub starts_interrupted_twice: u64,
    pub stops: u64,
    pub deleted_early: Arc<AtomicU64>,
}

/// Everything that a crash leaves.
pub struct World {
    pub disk: SimDisk,
    pub meta: MetaDisk,
    pub store: FaultStore,
    pub trigger: Trigger,
    pub met: Met,
    pub checker: Arc<Mutex<Checker>>,
    rng: Rng,
    trace: Arc<Mutex<Vec<String>>>,
    producers: Vec<(u32, Arc<Mutex<Producer>>)>,
    now_ms: i64,
    lives: u64,
    interrupted: u64,
    /// A commit that a former life may still send.
    late: Option<meta::command::CommitUpload>,
}

/// How a run ended.
pub struct Outcome {
    pub violation: Option<String>,
    pub trace: Vec<String>,
    pub edges: Counts,
}

/// Ends the process at once, from wherever it is called.
#[derive(Clone)]
pub struct Cutter {
    disk: SimDisk,
    meta: MetaDisk,
    store: FaultStore,
    rng: Rng,
    trace: Arc<Mutex<Vec<String>>>,
    dead: Arc<AtomicBool>,
    told: Arc<Notify>,
}

impl Cutter {
    /// A power cut, now.
    pub fn cut(&self, why: &str) {
        if self.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        self.trace.lock().push(format!("cut: {why}"));
        self.disk.crash();
        if self.rng.one_in(4) {
            self.meta.kill();
        } else {
            self.meta.power_cut();
        }
        self.store.set(Faults { outage: true, ..Faults::default() });
        self.told.notify_one();
    }
}

/// Runs `seed` to its end.
pub fn run(seed: u64) -> Outcome {
    let _former = sim::edges::take();
    let mut world = World::new(Rng::seeded(seed));
    let trigger = world.trigger.clone();
    let _watching = sim::edges::watch(move |point| {
        edges::note_source(point);
        trigger.hit(point);
    });
    for _ in 0..7 {
        world.live(false);
        if world.checker.lock().violation().is_some() {
            break;
        }
    }
    if world.checker.lock().violation().is_none() {
        // Whatever was interrupted, it opens in the end.
        world.live(true);
    }
    world.trigger.on_cut(None);
    let violation = world.checker.lock().violation().map(str::to_owned);
    let mut trace = std::mem::take(&mut *world.trace.lock());
    trace.push(format!("{:?} {:?} {:?}", world.disk.met(), world.store.met(), world.met));
    Outcome { violation, trace, edges: edges::of(&world) }
}

impl World {
    fn new(rng: Rng) -> Self {
        let trigger = Trigger::default();
        let disk = SimDisk::new(rng.fork()).with_trigger(trigger.clone());
        let meta = MetaDisk::new(rng.fork()).with_trigger(trigger.clone());
        let store = FaultStore::new(Arc::new(InMemory::new()), rng.fork(), Faults::default());
        store.set_trigger(trigger.clone());
        let producer = |id| {
            let index = u32::try_from(id % u64::from(PARTITIONS)).expect("small");
            (index, Arc::new(Mutex::new(Producer::new(id))))
        };
        Self {
            disk,
            meta,
            store,
            trigger,
            met: Met::default(),
            checker: Arc::default(),
            trace: Arc::default(),
            producers: (0..PRODUCERS).map(producer).collect(),
            now_ms: START_MS,
            lives: 0,
            interrupted: 0,
            late: None,
            rng,
        }
    }

    /// One life, from the start of the process to its end.
    fn live(&mut self, last: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        self.lives += 1;
        let cutter = Cutter {
            disk: self.disk.clone(),
            meta: self.meta.clone(),
            store: self.store.clone(),
            rng: self.rng.fork(),
            trace: self.trace.clone(),
            dead: Arc::default(),
            told: Arc::default(),
        };
        let at_point = cutter.clone();
        self.trigger.on_cut(Some(Arc::new(move |point| at_point.cut(point))));
        self.disk.behave(Behaviour::default());
        self.store.set(Faults::default());
        self.meta.stall_one_in(0);
        runtime.block_on(async {
            let began = tokio::time::Instant::now();
            // Far longer than any life: a hang is a finding.
            let limit = Duration::from_secs(600);
            let registry = Registry::default();
            let life = self.live_until_cut(&cutter, &registry, last);
            if tokio::time::timeout(limit, life).await.is_err() {
                self.trace.lock().push(registry.render());
                self.checker.lock().fail(format!("life {} hangs", self.lives));
            }
            let lived = i64::try_from(began.elapsed().as_millis()).expect("small");
            self.now_ms += lived + 1;
        });
        self.trigger.disarm();
        drop(runtime);
        cutter.cut("end");
    }

    async fn live_until_cut(&mut self, cutter: &Cutter, registry: &Registry, last: bool) {
        let told = cutter.told.clone();
        self.arm_start(last);
        let opened = tokio::select! {
            biased;
            () = told.notified() => None,
            opened = self.open(cutter, registry) => Some(opened),
        };
        self.trigger.disarm();
        match opened {
            _ if cutter.dead.load(Ordering::Acquire) => {
                self.interrupted += 1;
                self.met.starts_interrupted += 1;
                self.met.starts_interrupted_twice += u64::from(self.interrupted == 2);
            }
            Some(Err(OpenFailure::ReadFailed)) => self.met.reads_failed += 1,
            Some(Err(OpenFailure::Broken(what))) => {
                self.checker.lock().fail(format!("life {} does not start: {what}", self.lives));
            }
            Some(Ok(life)) => {
                self.interrupted = 0;
                self.work(cutter, life, last).await;
            }
            None => unreachable!("only a cut ends an opening"),
        }
        let text = registry.render();
        self.met.ids_renewed += edges::metric(&text, "sluice_storage_upload_ids_renewed_total");
        self.met.read_back += edges::metric(&text, "sluice_storage_upload_groups_read_back_total");
        self.met.rounds += edges::metric(&text, "sluice_storage_upload_rounds_total");
    }

    /// Sometimes the start itself is interrupted, sometimes a read of it fails.
    fn arm_start(&self, last: bool) {
        if last {
            return;
        }
        if self.rng.one_in(2) {
            let (point, nth) = match self.rng.below(7) {
                0 => (trigger::DISK_READ, 6),
                1 => (trigger::META_WRITTEN, 8),
                2 => (trigger::META_SYNCED, 6),
                3 => ("wal.recovery", 1),
                // The first write of an epoch: what lies behind the cut is still there.
                _ => (trigger::DISK_DONE, 2),
            };
            self.trigger.arm(point, 1 + self.rng.below(nth));
        } else if self.rng.one_in(6) {
            self.disk.behave(Behaviour { read_error_one_in: 3, ..Behaviour::default() });
        }
    }

    async fn work(&mut self, cutter: &Cutter, life: Life, last: bool) {
        self.disk.behave(Behaviour::default());
        let env = Env {
            checker: self.checker.clone(),
            trace: self.trace.clone(),
            dead: cutter.dead.clone(),
            stopping: Arc::default(),
            clock: life.clock.clone(),
            life: self.lives,
            rng: self.rng.fork(),
            options: life.partitions.options().clone(),
            storage: life.storage.clone(),
            store: self.store.clone(),
            flips: self.rng.one_in(6),
            quiet: Arc::default(),
        };
        let told = cutter.told.clone();
        let begun = async {
            self.check(&env, &life, last).await;
            self.late_commit(&env, &life).await;
            let _unanswered = self.commit_again(&env, &life).await;
            for _ in 0..self.rng.below(4) {
                self.forge(&env, &life).await;
                let _unanswered = housekeeping::forge_swap(&env, &life).await;
            }
        };
        tokio::select! {
            biased;
            () = told.notified() => return,
            () = begun => {}
        }
        if last {
            return;
        }
        let clients = self.start_clients(&env, &life);
        self.arm_end(env.flips);
        let time =
            Duration::from_millis(20 + self.rng.below(if self.rng.one_in(4) { 4000 } else { 500 }));
        let stop = self.rng.one_in(5);
        let quiet = self.rng.one_in(6);
        let end = async {
            tokio::time::sleep(time).await;
            if quiet {
                // Long enough for released objects to be deleted under readers that know them.
                env.quiet.store(true, Ordering::Release);
                tokio::time::sleep(Duration::from_secs(65)).await;
                env.quiet.store(false, Ordering::Release);
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            if stop {
                self.stop(&env, &life, clients).await;
            }
        };
        tokio::select! {
            biased;
            () = told.notified() => {}
            () = end => {}
        }
        self.trigger.disarm();
        cutter.cut("time");
    }

    /// A clean stop.
    async fn stop(&mut self, env: &Env, life: &Life, clients: Vec<tokio::task::JoinHandle<()>>) {
        self.trigger.disarm();
        self.store.set(Faults::default());
        self.meta.stall_one_in(0);
        env.stopping.store(true, Ordering::Release);
        for client in clients {
            if let Err(error) = client.await {
                env.fail(format_args!("a client ended: {error}"));
            }
        }
        life.partitions.close_all().await;
        life.storage.close().await;
        env.trace("stopped");
        self.met.stops += 1;
    }

    /// Where this life ends, unless it is by time, and what its disk does.
    fn arm_end(&self, flips: bool) {
        if self.rng.one_in(6) {
            self.trigger.arm(trigger::DISK_DONE, 1 + self.rng.below(60));
        } else if !self.rng.one_in(3) {
            let points: Vec<_> = edges::cuts().collect();
            let at = self.rng.below(points.len() as u64);
            let nth = [1, 1, 3, 30][usize::try_from(self.rng.below(4)).expect("small")];
            let point = points[usize::try_from(at).expect("small")];
            self.trigger.arm(point, 1 + self.rng.below(nth));
        } else if self.rng.one_in(3) {
            self.disk.fail_writes_after(self.rng.below(100));
        }
        let mut behaviour = Behaviour::default();
        if self.rng.one_in(6) {
            behaviour.capacity = self.disk.used() + self.rng.below(3) * life::SEGMENT;
        }
        if flips {
            behaviour.read_flip_one_in = 4;
        }
        self.disk.behave(behaviour);
        if self.rng.one_in(4) {
            self.meta.stall_one_in(20);
        }
    }

    fn start_clients(&self, env: &Env, life: &Life) -> Vec<tokio::task::JoinHandle<()>> {
        let mut tasks = Vec::new();
        for (index, producer) in &self.producers {
            let env = Env { rng: env.rng.fork(), ..env.clone() };
            let partition = life.opened[usize::try_from(*index).expect("small")].clone();
            let sender = Sender::new(env, *index, partition, producer.clone());
            tasks.push(tokio::spawn(sender.run()));
        }
        let reader = Env { rng: env.rng.fork(), ..env.clone() };
        tasks.push(tokio::spawn(clients::read_now_and_then(reader, life.opened.clone())));
        for partition in &life.opened {
            let follower = Env { rng: env.rng.fork(), ..env.clone() };
            tasks.push(tokio::spawn(clients::follow(follower, partition.clone())));
        }
        let faults = Env { rng: env.rng.fork(), ..env.clone() };
        tokio::spawn(life::faults_come_and_go(faults, self.store.clone()));
        let rewrites = Env { rng: env.rng.fork(), ..env.clone() };
        let ids = life.opened.iter().map(|partition| partition.id()).collect();
        let meta = life.meta.clone();
        tokio::spawn(housekeeping::rewrite_now_and_then(rewrites, meta, ids));
        let topic = Env { rng: env.rng.fork(), ..env.clone() };
        let (meta, partitions) = (life.meta.clone(), life.partitions.clone());
        let early = self.met.deleted_early.clone();
        tokio::spawn(life::topic_comes_and_goes(topic, meta, partitions, early));
        tasks
    }

    /// Everything that anybody was told is still so.
    async fn check(&self, env: &Env, life: &Life, whole: bool) {
        for (index, partition) in (0..).zip(&life.opened) {
            let offsets = partition.offsets();
            self.checker.lock().high_watermark(index, offsets.high_watermark);
            env.trace(format_args!("opened {index} {offsets:?}"));
            if offsets.end != offsets.high_watermark {
                env.fail(format_args!("{index} opens with something in flight: {offsets:?}"));
            }
            if !whole && self.rng.one_in(3) {
                continue;
            }
            let mut found = BTreeMap::new();
            let mut at = 0;
            let mut tries = 0;
            while at < offsets.high_watermark && tries < 100 {
                match clients::read(partition, at, 8_000).await {
                    Ok((_, next)) if next <= at => {
                        return env
                            .fail(format_args!("{index} reads nothing at {at}: {offsets:?}"));
                    }
                    Ok((records, next)) => {
                        found.extend(records);
                        at = next;
                    }
                    Err(clients::Failure::Later) => {
                        tries += 1;
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    Err(clients::Failure::Broken(what)) => return env.fail(what),
                }
            }
            if at < offsets.high_watermark {
                return env.fail(format_args!("{index} cannot be read at {at}"));
            }
            if !env.is_dead() {
                self.checker.lock().complete(index, &found);
            }
        }
    }

    /// A commit of the former life arrives late: refused. And one of this life is kept back.
    async fn late_commit(&mut self, env: &Env, life: &Life) {
        use meta::{Reply, command};
        if let Some(late) = self.late.take() {
            match life.meta.propose(late).await {
                Ok(Reply::Rejected(_)) => self.met.commits_refused += 1,
                Ok(other) => env.fail(format_args!("a commit of a former life gave {other:?}")),
                Err(_) => {}
            }
        }
        let (wal, epoch) = (life.wal.0, life.storage.wal_epoch().0);
        let now_ms = life.clock.now_ms();
        let register = command::RegisterObject { wal, epoch, ttl_ms: 600_000, now_ms };
        let reply = life.meta.propose(register).await;
        if let (Ok(Reply::ObjectRegistered { object, .. }), Ok(Some(first))) =
            (reply, life.meta.committed(WalId(wal)).await)
        {
            self.late = Some(command::CommitUpload {
                object: object.0,
                wal,
                epoch,
                first: first.0,
                end: first.0 + 4096,
                facts: Some(command::ObjectFacts::default()),
                now_ms,
                ..command::CommitUpload::default()
            });
        }
    }

    /// The partition with number `index` of `topic`.
    fn partition(topic: u64, index: u32) -> PartitionId {
        PartitionId { topic, index }
    }
}

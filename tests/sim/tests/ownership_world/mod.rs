//! Two brokers, each on a runtime of its own, driven in steps of a millisecond: a broker whose runtime is not driven stands
//! still as a stopped process does.

mod broker;
mod checker;
mod clients;
mod nemesis;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{NodeId, PartitionId, Rng, Shutdown, StreamKind, WalId};
use meta::Leases;
use object_store::memory::InMemory;
use parking_lot::Mutex;
use sim::disk::SimDisk;
use sim::edges;
use sim::meta_store::MetaDisk;
use sim::store::{FaultStore, Faults};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use broker::{Refused, Running, Site};
use checker::Checker;
use clients::Clients;

const TICK: Duration = Duration::from_millis(1);
const PARTITIONS: u32 = 4;
const PRODUCERS: u64 = 6;
const LEASE: Duration = Duration::from_millis(300);
const EPISODES: u64 = 9;
/// A broker without its medium finds out within so many milliseconds.
const KICKED_TICKS: u32 = 60;

/// How a run ended.
pub struct Outcome {
    pub violation: Option<String>,
    pub trace: Vec<String>,
    pub met: edges::Counts,
}

/// Where a result arrives.
type Slot<T> = Arc<Mutex<Option<T>>>;

struct Pause {
    /// Its clock has run meanwhile.
    jump: bool,
    ticks: u32,
}

struct Process {
    runtime: Runtime,
    running: Slot<Result<Running, Refused>>,
    dead: Arc<AtomicBool>,
    stood_still: Arc<AtomicBool>,
    pause: Option<Pause>,
    /// Milliseconds for which it has run without its medium.
    kicked: u32,
}

struct Node {
    disk: SimDisk,
    survives: bool,
    /// The log on the disk.
    wal: Arc<Mutex<Option<WalId>>>,
    /// Another broker has attached the medium: the next write fails and ends the process.
    attached: Arc<AtomicBool>,
    process: Option<Process>,
}

/// Kills a broker at a point of the product.
#[derive(Clone, Default)]
struct Crash {
    armed: Rc<RefCell<Option<(&'static str, usize)>>>,
    stepping: Rc<Cell<Option<usize>>>,
    fired: Rc<Cell<bool>>,
}

struct World {
    rng: Rng,
    ticks: u64,
    now: Arc<AtomicU64>,
    meta_runtime: Runtime,
    meta: meta::Handle,
    store: FaultStore,
    leases: Arc<Mutex<Leases>>,
    checker: Arc<Mutex<Checker>>,
    nodes: [Node; 2],
    clients_runtime: Runtime,
    clients: Clients,
    topic: Arc<AtomicU64>,
    crash: Crash,
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().expect("a runtime")
}

/// Drives a runtime for `time` of its clock: all that can happen in it without more time, nearly.
fn step(runtime: &Runtime, time: Duration, stop: &Cell<bool>) {
    runtime.block_on(async {
        tokio::time::advance(time).await;
        for _ in 0..12 {
            if stop.get() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
}

/// Runs `future` in `runtime`; its result arrives while the runtime is driven.
fn start<T: Send + 'static>(
    runtime: &Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> Slot<T> {
    let slot: Slot<T> = Arc::default();
    let into = slot.clone();
    runtime.spawn(async move {
        let result = future.await;
        *into.lock() = Some(result);
    });
    slot
}

/// Runs `seed` to its end.
pub fn run(seed: u64) -> Outcome {
    let crash = Crash::default();
    let (armed, at) = (crash.clone(), crash.clone());
    let watching = edges::watch(move |name| {
        let hit = armed
            .armed
            .borrow()
            .is_some_and(|(point, node)| point == name && at.stepping.get() == Some(node));
        if hit {
            *armed.armed.borrow_mut() = None;
            armed.fired.set(true);
        }
    });
    let mut world = World::new(Rng::seeded(seed), crash);
    world.live();
    let mut trace = std::mem::take(&mut world.checker.lock().trace);
    trace.push(format!("{:?} {:?}", world.store.met(), world.ticks));
    let violation = world.checker.lock().violation().map(str::to_owned);
    drop(world);
    drop(watching);
    Outcome { violation, trace, met: edges::take() }
}

impl World {
    fn new(rng: Rng, crash: Crash) -> Self {
        let (meta_runtime, clients_runtime) = (runtime(), runtime());
        let store = FaultStore::new(Arc::new(InMemory::new()), rng.fork(), Faults::default());
        let checker: Arc<Mutex<Checker>> = Arc::default();
        let disk = MetaDisk::new(rng.fork());
        let deps_rng = rng.fork();
        let meta = meta_runtime.block_on(async {
            let deps = meta::Deps {
                clock: common::Clock::simulated(1_700_000_000_000),
                rng: deps_rng,
                transport: Box::new(meta::Alone),
                shutdown: Shutdown::new(),
                on_fatal: Arc::new(|line| panic!("metadata: {line}")),
                metrics: meta::Metrics::default(),
            };
            let started = meta::start(Box::new(disk.open()), meta::Options::alone(), deps).await;
            let (handle, driver) = started.expect("metadata starts");
            tokio::spawn(driver.run());
            let bootstrap = meta::command::Bootstrap {
                cluster_id: "simulation".to_owned(),
                incarnation: 1,
                feature_level: 1,
            };
            handle.propose(bootstrap).await.expect("bootstraps");
            handle
        });
        let node = |survives| Node {
            disk: SimDisk::new(rng.fork()),
            survives,
            wal: Arc::default(),
            attached: Arc::default(),
            process: None,
        };
        let nodes = [node(true), node(rng.one_in(2))];
        let clients = Clients {
            doors: Arc::default(),
            checker: checker.clone(),
            losses: Arc::default(),
            over: Arc::default(),
            rng: rng.fork(),
        };
        Self {
            ticks: 0,
            now: Arc::default(),
            meta_runtime,
            meta,
            store,
            leases: Arc::new(Mutex::new(Leases::new(LEASE, Duration::ZERO))),
            checker,
            nodes,
            clients_runtime,
            clients,
            topic: Arc::default(),
            crash,
            rng,
        }
    }

    fn trace(&self, what: impl std::fmt::Display) {
        self.checker.lock().trace.push(format!("{} {what}", self.ticks));
    }

    fn fail(&self, what: impl std::fmt::Display) {
        self.checker.lock().fail(format!("{} {what}", self.ticks));
    }

    fn is_over(&self) -> bool {
        self.checker.lock().violation().is_some()
    }

    fn live(&mut self) {
        for node in 0..2 {
            self.start(node);
            self.until(2_000, |world| world.is_running(node));
        }
        let create = meta::command::CreateTopic {
            name: "topic".to_owned(),
            id: self.rng.uuid().as_bytes().to_vec(),
            partitions: PARTITIONS,
            replication_factor: 1,
            now_ms: 1,
            ..meta::command::CreateTopic::default()
        };
        match self.propose(create) {
            Some(meta::Reply::TopicCreated { number, .. }) => {
                self.topic.store(number, Ordering::Release);
            }
            other => return self.fail(format_args!("no topic: {other:?}")),
        }
        for id in 0..PRODUCERS {
            let index = u32::try_from(id % u64::from(PARTITIONS)).expect("few");
            let client = Clients { rng: self.rng.fork(), ..self.clients.clone() };
            self.clients_runtime.spawn(client.produce(id + 1, index));
        }
        for _ in 0..2 {
            let client = Clients { rng: self.rng.fork(), ..self.clients.clone() };
            self.clients_runtime.spawn(client.fetch(PARTITIONS));
        }
        for _ in 0..EPISODES {
            self.episode();
            self.drive(50 + self.rng.below(200));
            if self.is_over() {
                return;
            }
        }
        self.finish();
    }

    /// Everything works again: all that was told is there.
    fn finish(&mut self) {
        self.store.set(Faults::default());
        *self.crash.armed.borrow_mut() = None;
        (0..2).for_each(|node| self.resume(node));
        self.until(8_000, |world| {
            world.restart_the_dead();
            (0..2).all(|node| world.is_running(node)) && world.leaderless() == 0
        });
        self.drive(500);
        self.clients.over.store(true, Ordering::Release);
        self.drive(400);
        for index in 0..PARTITIONS {
            let id = self.partition(index);
            let meta = self.meta.clone();
            let data = id.stream(StreamKind::Data);
            let lost =
                start(&self.meta_runtime, async move { meta.stream_index(data, 0, 0).await });
            let lost = self.wait(1_000, &lost).and_then(Result::ok).map(|index| index.lost);
            let found = (0..10).find_map(|_| {
                let leader = self.leader(index)?;
                let partitions = self.running(leader, |running| running.partitions.clone())?;
                let process = self.nodes[leader].process.as_ref()?;
                let slot = start(&process.runtime, whole(partitions, id));
                let found = self.wait(3_000, &slot).flatten();
                self.restart_the_dead();
                found
            });
            match (found, lost) {
                (Some(found), Some(lost)) => self.checker.lock().complete(index, &found, &lost),
                (found, _) => {
                    self.fail(format_args!(
                        "{index} cannot be read in the end: {}",
                        found.is_some()
                    ));
                }
            }
        }
    }

    fn partition(&self, index: u32) -> PartitionId {
        PartitionId { topic: self.topic.load(Ordering::Acquire), index }
    }

    fn meta_of(&self, index: u32) -> Option<meta::PartitionMeta> {
        let image = self.meta.image();
        let topic = image.topics.get(&self.topic.load(Ordering::Acquire))?;
        topic.partitions.get(usize::try_from(index).expect("few")).copied()
    }

    fn leader(&self, index: u32) -> Option<usize> {
        let leader = self.meta_of(index)?.leader?;
        usize::try_from(leader.0 - 1).ok()
    }

    fn leaderless(&self) -> usize {
        (0..PARTITIONS).filter(|index| self.leader(*index).is_none()).count()
    }

    fn running<T>(&self, node: usize, body: impl FnOnce(&Running) -> T) -> Option<T> {
        let process = self.nodes[node].process.as_ref()?;
        let running = process.running.lock();
        running.as_ref()?.as_ref().ok().map(body)
    }

    fn is_running(&self, node: usize) -> bool {
        let awake = self.nodes[node].process.as_ref().is_some_and(|one| one.pause.is_none());
        awake && self.running(node, |_| ()).is_some()
    }

    /// One millisecond of everybody who is awake.
    fn tick(&mut self) {
        let never = Cell::new(false);
        self.ticks += 1;
        self.now.store(self.ticks * 1000, Ordering::Release);
        step(&self.meta_runtime, TICK, &never);
        for node in 0..2 {
            let Some(process) = self.nodes[node].process.as_mut() else { continue };
            if let Some(pause) = &mut process.pause {
                pause.ticks += 1;
                continue;
            }
            self.crash.stepping.set(Some(node));
            step(&process.runtime, TICK, &self.crash.fired);
            self.crash.stepping.set(None);
            let kicked = self.nodes[node].attached.load(Ordering::Acquire);
            let process = self.nodes[node].process.as_mut().expect("just driven");
            process.kicked += u32::from(kicked);
            let crashed = self.crash.fired.replace(false) || process.kicked > KICKED_TICKS;
            if crashed || process.dead.load(Ordering::Acquire) {
                self.kill(node);
            } else {
                self.notice(node);
            }
        }
        step(&self.clients_runtime, TICK, &never);
    }

    /// A start that ended without a running broker.
    fn notice(&mut self, node: usize) {
        let process = self.nodes[node].process.as_ref().expect("just driven");
        let failed = process.running.lock().as_ref().and_then(|result| match result {
            Ok(_) => None,
            Err(Refused::Broken(why)) => Some(Some(why.clone())),
            Err(Refused::Closed | Refused::Later) => Some(None),
        });
        let Some(why) = failed else { return };
        if let Some(why) = why {
            self.fail(format_args!("broker {node} does not start: {why}"));
        }
        self.kill(node);
    }

    fn drive(&mut self, ticks: u64) {
        for _ in 0..ticks {
            if self.is_over() {
                return;
            }
            self.tick();
        }
    }

    /// Drives until `done`, for so long at most; a world that does not get there has failed.
    fn until(&mut self, ticks: u64, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..ticks {
            if done(self) || self.is_over() {
                return;
            }
            self.tick();
        }
        let running = [0, 1].map(|node| self.is_running(node));
        self.fail(format_args!(
            "does not get on: running {running:?}, without a leader {}",
            self.leaderless()
        ));
    }

    fn wait<T>(&mut self, ticks: u64, slot: &Slot<T>) -> Option<T> {
        for _ in 0..ticks {
            if let Some(result) = slot.lock().take() {
                return Some(result);
            }
            if self.is_over() {
                return None;
            }
            self.tick();
        }
        None
    }

    fn propose(&mut self, command: impl Into<meta::Command>) -> Option<meta::Reply> {
        let (meta, command) = (self.meta.clone(), command.into());
        let slot = start(&self.meta_runtime, async move { meta.propose(command).await });
        self.wait(1_000, &slot).and_then(Result::ok)
    }

    /// Starts the process of a broker on its disk, which no earlier process reaches any more.
    fn start(&mut self, node: usize) {
        self.trace(format_args!("start {node}"));
        let (door, requests) = mpsc::unbounded_channel();
        self.clients.doors.lock()[node] = Some(door);
        let one = &mut self.nodes[node];
        one.disk.crash();
        one.attached.store(false, Ordering::Release);
        let site = Site {
            node: NodeId(1 + i32::try_from(node).expect("two")),
            meta: self.meta.clone(),
            store: self.store.clone(),
            checker: self.checker.clone(),
            leases: self.leases.clone(),
            now: self.now.clone(),
            topic: self.topic.clone(),
            rng: self.rng.fork(),
            dead: Arc::default(),
            stood_still: Arc::default(),
        };
        let (dead, stood_still) = (site.dead.clone(), site.stood_still.clone());
        let (disk, wal, survives) = (one.disk.clone(), one.wal.clone(), one.survives);
        let runtime = runtime();
        let running = start(&runtime, begin(site, disk, wal, survives, requests));
        one.process = Some(Process { runtime, running, dead, stood_still, pause: None, kicked: 0 });
    }

    /// The process ends, wherever it is. A disk whose log was closed is put aside.
    fn kill(&mut self, node: usize) {
        self.clients.doors.lock()[node] = None;
        let one = &mut self.nodes[node];
        let Some(process) = one.process.take() else { return };
        let closed = matches!(*process.running.lock(), Some(Err(Refused::Closed)));
        drop(process);
        if closed {
            edges::met("owners.lost.disk");
            one.disk = SimDisk::new(self.rng.fork());
            one.survives = self.rng.one_in(2);
            one.wal = Arc::default();
        }
        self.trace(format_args!("end {node}"));
    }

    fn restart_the_dead(&mut self) {
        for node in 0..2 {
            if self.nodes[node].process.is_none() {
                self.start(node);
            }
        }
    }

    fn pause(&mut self, node: usize, jump: bool) {
        self.trace(format_args!("pause {node} jump {jump}"));
        if let Some(process) = self.nodes[node].process.as_mut() {
            process.pause = Some(Pause { jump, ticks: 0 });
            if !jump {
                process.stood_still.store(true, Ordering::Release);
            }
        }
    }

    fn resume(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(pause) = process.pause.take() else { return };
        if pause.jump {
            edges::met("owners.paused.jump");
            // The clock has run; what was waiting for time finds it over.
            self.crash.stepping.set(None);
            step(&process.runtime, TICK * pause.ticks, &Cell::new(true));
        } else {
            edges::met("owners.paused.still");
        }
        self.trace(format_args!("resume {node}"));
    }
}

/// The start of a broker: with the log that its disk holds, or a new one.
async fn begin(
    site: Site,
    disk: SimDisk,
    wal: Arc<Mutex<Option<WalId>>>,
    survives: bool,
    requests: mpsc::UnboundedReceiver<clients::Request>,
) -> Result<Running, Refused> {
    let known = site.register().await?;
    let mine = *wal.lock();
    let id = match (known, mine) {
        (Some(known), _) => known,
        // Its log was closed meanwhile: to be refused.
        (None, Some(mine)) => mine,
        (None, None) => site.create_wal(survives).await?,
    };
    *wal.lock() = Some(id);
    site.open(id, &disk, requests).await
}

/// All records of a partition.
async fn whole(partitions: partition::Partitions, id: PartitionId) -> Option<BTreeMap<i64, u64>> {
    let partition = partitions.get(id).await.ok()?;
    let (mut at, mut found, mut tries) = (0, BTreeMap::new(), 0);
    while at < partition.offsets().high_watermark && tries < 50 {
        match broker::read(&partition, at).await {
            Ok((records, next)) => {
                found.extend(records);
                at = next;
            }
            Err(_) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    (at >= partition.offsets().high_watermark).then_some(found)
}

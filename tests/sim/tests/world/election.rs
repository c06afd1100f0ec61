//! Three voters of the metadata group over a network that loses, delays, repeats and reorders; leaders are killed.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use common::{Clock, Rng, Shutdown};
use futures::future::BoxFuture;
use meta::command::{AllocateProducerIds, Bootstrap};
use meta::{Handle, ProposeError, Reply, Transport};
use parking_lot::Mutex;
use sim::meta_store::MetaDisk;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const VOTERS: [u64; 3] = [1, 2, 3];

#[derive(Clone)]
struct Net {
    rng: Rng,
    inboxes: Arc<Mutex<BTreeMap<u64, mpsc::UnboundedSender<Vec<u8>>>>>,
}

struct Wire {
    net: Net,
    inbox: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Transport for Wire {
    fn send(&mut self, to: u64, message: Vec<u8>) {
        let rng = self.net.rng.clone();
        if rng.one_in(20) {
            return;
        }
        for _ in 0..=u64::from(rng.one_in(20)) {
            let (inboxes, message) = (self.net.inboxes.clone(), message.clone());
            let delay = Duration::from_micros(rng.below(30_000));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                if let Some(inbox) = inboxes.lock().get(&to) {
                    // A voter that is down loses its messages.
                    let _ = inbox.send(message);
                }
            });
        }
    }

    fn receive(&mut self) -> BoxFuture<'_, Vec<u8>> {
        Box::pin(async {
            match self.inbox.recv().await {
                Some(message) => message,
                None => std::future::pending().await,
            }
        })
    }
}

struct Voter {
    handle: Handle,
    task: JoinHandle<Result<(), meta::Fatal>>,
}

struct Group {
    net: Net,
    rng: Rng,
    clock: Clock,
    disks: BTreeMap<u64, MetaDisk>,
    voters: BTreeMap<u64, Voter>,
    trace: Vec<String>,
}

impl Group {
    async fn start(&mut self, voter: u64) {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.net.inboxes.lock().insert(voter, sender);
        let deps = meta::Deps {
            clock: self.clock.clone(),
            rng: self.rng.fork(),
            transport: Box::new(Wire { net: self.net.clone(), inbox }),
            shutdown: Shutdown::new(),
            on_fatal: Arc::new(|_| {}),
            metrics: meta::Metrics::default(),
        };
        let options = meta::Options {
            log_entries_max: 16,
            log_entries_keep: 8,
            propose_timeout: Duration::from_secs(3),
            ..meta::Options::group(voter, VOTERS.to_vec())
        };
        let store = Box::new(self.disks[&voter].open());
        let (handle, driver) = meta::start(store, options, deps).await.expect("a voter starts");
        let task = tokio::spawn(driver.run());
        self.voters.insert(voter, Voter { handle, task });
        self.trace(format_args!("voter {voter} starts"));
    }

    async fn kill(&mut self, voter: u64) {
        let Voter { task, .. } = self.voters.remove(&voter).expect("it runs");
        self.net.inboxes.lock().remove(&voter);
        task.abort();
        let _ = task.await;
        self.disks[&voter].power_cut();
        self.trace(format_args!("voter {voter} is killed"));
    }

    fn trace(&mut self, event: impl Display) {
        self.trace.push(format!("{:?} {event}", self.clock.elapsed()));
    }

    async fn leader(&self) -> u64 {
        loop {
            let leads = |(_, voter): &(&u64, &Voter)| voter.handle.standing().borrow().leads();
            if let Some((leader, _)) = self.voters.iter().find(leads) {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Commits one command, whoever leads. An answer that did not come leaves a gap in the ids, never a repeat.
    async fn allocate(&mut self) -> i64 {
        loop {
            let leader = self.leader().await;
            let propose = self.voters[&leader].handle.propose(AllocateProducerIds { node: 1 });
            match propose.await {
                Ok(Reply::ProducerIds { start, .. }) => {
                    self.trace(format_args!("voter {leader} issues {start}"));
                    return start;
                }
                Ok(other) => panic!("{other:?}"),
                Err(ProposeError::Closed | ProposeError::TooLarge { .. }) => panic!("it runs"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn agree(&mut self) -> u32 {
        for _ in 0..3000 {
            let mut sums = Vec::new();
            for voter in self.voters.values() {
                sums.push(voter.handle.checksum().await.expect("it runs"));
            }
            if sums.windows(2).all(|pair| pair[0] == pair[1]) {
                self.trace(format_args!("all have {:08x}", sums[0]));
                return sums[0];
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the voters never agree");
    }
}

/// Kills the leader five times while commands go on; returns the trace.
pub async fn run(seed: u64) -> Vec<String> {
    let rng = Rng::seeded(seed);
    let net = Net { rng: rng.fork(), inboxes: Arc::default() };
    let disks = VOTERS.map(|voter| (voter, MetaDisk::new(rng.fork()))).into_iter().collect();
    let (clock, voters) = (Clock::simulated(0), BTreeMap::new());
    let mut group = Group { net, rng, clock, disks, voters, trace: Vec::new() };
    for voter in VOTERS {
        group.start(voter).await;
    }
    loop {
        let leader = group.leader().await;
        let cluster_id = "simulation".to_owned();
        let bootstrap = Bootstrap { cluster_id, incarnation: 1, feature_level: 1 };
        if group.voters[&leader].handle.propose(bootstrap).await.is_ok() {
            break;
        }
    }
    let mut issued = Vec::new();
    for _ in 0..5 {
        for _ in 0..=group.rng.below(12) {
            issued.push(group.allocate().await);
        }
        let leader = group.leader().await;
        group.kill(leader).await;
        for _ in 0..=group.rng.below(30) {
            issued.push(group.allocate().await);
        }
        group.start(leader).await;
    }
    group.agree().await;
    assert!(issued.is_sorted_by(|a, b| a < b), "seed {seed}: an id was issued twice: {issued:?}");
    group.trace
}

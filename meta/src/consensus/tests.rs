//! One voter and three, under a paused clock: elections, lost messages, lagging voters, power cuts, failing stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Clock, Rng, Shutdown};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Deps, Fatal, Options, StartError, Transport, start};
use crate::command::{AllocateProducerIds, Bootstrap, CreateTopic};
use crate::handle::{Handle, ProposeError};
use crate::metrics::Metrics;
use crate::reply::Reply;
use crate::testing::{self, MemoryStore};

/// Carries messages between voters; a cut voter neither sends nor receives.
#[derive(Clone, Default)]
struct Net(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    inboxes: BTreeMap<u64, mpsc::UnboundedSender<Vec<u8>>>,
    cut: Vec<u64>,
    lose_one_in: u64,
}

struct Wire {
    net: Net,
    voter: u64,
    rng: Rng,
    inbox: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Net {
    fn wire(&self, voter: u64, rng: Rng) -> Box<Wire> {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.0.lock().inboxes.insert(voter, sender);
        Box::new(Wire { net: self.clone(), voter, rng, inbox })
    }

    fn cut(&self, voters: &[u64]) {
        self.0.lock().cut = voters.to_vec();
    }
}

impl Transport for Wire {
    fn send(&mut self, to: u64, message: Vec<u8>) {
        let wires = self.net.0.lock();
        let cut = wires.cut.contains(&self.voter) || wires.cut.contains(&to);
        if !cut
            && !self.rng.one_in(wires.lose_one_in)
            && let Some(inbox) = wires.inboxes.get(&to)
        {
            // A voter that is down loses its messages.
            let _ = inbox.send(message);
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
    store: MemoryStore,
    handle: Handle,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Fatal>>,
}

struct Group {
    net: Net,
    rng: Rng,
    voters: BTreeMap<u64, Voter>,
    keep: u64,
}

impl Group {
    async fn new(seed: u64, keep: u64) -> Self {
        let (net, rng) = (Net::default(), Rng::seeded(seed));
        let mut group = Self { net, rng, voters: BTreeMap::new(), keep };
        for voter in 1..=3 {
            group.start(voter, MemoryStore::default()).await;
        }
        group
    }

    async fn start(&mut self, voter: u64, store: MemoryStore) {
        let shutdown = Shutdown::new();
        let deps = Deps {
            clock: Clock::simulated(0),
            rng: self.rng.fork(),
            transport: self.net.wire(voter, self.rng.fork()),
            shutdown: shutdown.clone(),
            on_fatal: Arc::new(|line| panic!("{line}")),
            metrics: Metrics::default(),
        };
        let options = Options {
            log_entries_max: usize::try_from(self.keep * 2).expect("small"),
            log_entries_keep: self.keep,
            propose_timeout: Duration::from_secs(60),
            ..Options::group(voter, vec![1, 2, 3])
        };
        let started = start(Box::new(store.clone()), options, deps).await;
        let (handle, driver) = started.expect("starts");
        let task = tokio::spawn(driver.run());
        self.voters.insert(voter, Voter { store, handle, shutdown, task });
    }

    async fn stop(&mut self, voter: u64) -> MemoryStore {
        let Voter { store, shutdown, task, .. } = self.voters.remove(&voter).expect("runs");
        shutdown.cancel();
        task.await.expect("no panic").expect("no failure");
        store
    }

    /// The leader that a majority follows.
    async fn leader(&self, among: &[u64]) -> u64 {
        for _ in 0..600 {
            let leads = |voter: &&u64| self.voters[*voter].handle.standing().borrow().leads();
            let follows = |leader: u64| {
                let standing = |voter: &&u64| self.voters[*voter].handle.standing().borrow().leader;
                among.iter().filter(|voter| standing(voter) == Some(leader)).count() >= 2
            };
            if let Some(leader) = among.iter().find(leads).filter(|leader| follows(**leader)) {
                return *leader;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no leader among {among:?}");
    }

    async fn propose(&self, among: &[u64]) -> i64 {
        loop {
            let leader = self.leader(among).await;
            match self.voters[&leader].handle.propose(AllocateProducerIds { node: 1 }).await {
                Ok(Reply::ProducerIds { start, .. }) => return start,
                Err(ProposeError::NotLeader { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn agree(&self) {
        for _ in 0..600 {
            let states: Vec<_> = self.voters.values().map(|voter| voter.store.state()).collect();
            if states.windows(2).all(|pair| pair[0] == pair[1]) {
                let mut sums = Vec::new();
                for voter in self.voters.values() {
                    sums.push(voter.handle.checksum().await.expect("readable"));
                }
                assert!(sums.windows(2).all(|pair| pair[0] == pair[1]), "{sums:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the voters do not agree");
    }
}

async fn begun(seed: u64, keep: u64) -> Group {
    let group = Group::new(seed, keep).await;
    let leader = group.leader(&[1, 2, 3]).await;
    let bootstrap = Bootstrap { cluster_id: "c".into(), incarnation: 1, feature_level: 1 };
    group.voters[&leader].handle.propose(bootstrap).await.expect("a reply");
    group
}

#[tokio::test(start_paused = true)]
async fn three_voters_elect_replicate_and_agree() {
    for seed in 0..10 {
        let group = begun(seed, 100).await;
        for expected in 0..20 {
            assert_eq!(group.propose(&[1, 2, 3]).await, (1 << 48) + expected * 1000);
        }
        group.agree().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader() {
    let group = begun(1, 100).await;
    let leader = group.leader(&[1, 2, 3]).await;
    let follower = (1..=3).find(|voter| *voter != leader).expect("two others");
    let handle = &group.voters[&follower].handle;
    let error = handle.propose(AllocateProducerIds { node: 1 }).await.expect_err("refused");
    assert_eq!(error, ProposeError::NotLeader { leader });
}

/// No id is issued twice and no acknowledged command is lost when leaders are cut off in the middle of proposals.
#[tokio::test(start_paused = true)]
async fn a_cut_leader_acknowledges_nothing_and_comes_back() {
    for seed in 0..10 {
        let group = begun(seed, 100).await;
        group.net.0.lock().lose_one_in = 20;
        let mut issued = Vec::new();
        for _ in 0..5 {
            let old = group.leader(&[1, 2, 3]).await;
            group.net.cut(&[old]);
            let lonely = group.voters[&old].handle.clone();
            let cut_off =
                tokio::spawn(async move { lonely.propose(AllocateProducerIds { node: 1 }).await });
            let others: Vec<u64> = (1..=3).filter(|voter| *voter != old).collect();
            issued.push(group.propose(&others).await);
            assert!(!cut_off.is_finished(), "seed {seed}: a minority has answered");
            group.net.cut(&[]);
            // Dropped for certain, it is refused towards the new leader or repeated under this one.
            match cut_off.await.expect("no panic") {
                Ok(Reply::ProducerIds { start, .. }) => issued.push(start),
                Err(ProposeError::NotLeader { .. } | ProposeError::TimedOut) => {}
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        group.net.0.lock().lose_one_in = 0;
        group.agree().await;
        let mut unique = issued.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), issued.len(), "seed {seed}: {issued:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_voter_behind_the_log_is_sent_the_state() {
    let mut group = begun(3, 4).await;
    let leader = group.leader(&[1, 2, 3]).await;
    let lagging = (1..=3).find(|voter| *voter != leader).expect("two others");
    let store = group.stop(lagging).await;
    let others: Vec<u64> = (1..=3).filter(|voter| *voter != lagging).collect();
    for _ in 0..50 {
        group.propose(&others).await;
    }
    let before = super::applied(&store).expect("readable").index;
    group.start(lagging, store).await;
    group.agree().await;
    let image = group.voters[&lagging].handle.image();
    assert!(image.applied > before + 40 && image.cluster.is_some(), "{}", image.applied);
    // And it takes part again, over a restart too.
    let store = group.stop(lagging).await;
    store.power_cut();
    group.start(lagging, store).await;
    group.propose(&[1, 2, 3]).await;
    group.agree().await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_of_all_loses_nothing_acknowledged() {
    for seed in 0..10 {
        let mut group = begun(seed, 8).await;
        for round in 0..5 {
            for number in 0..7 {
                let expected = (1 << 48) + (round * 7 + number) * 1000;
                assert_eq!(group.propose(&[1, 2, 3]).await, expected, "seed {seed}");
            }
            for voter in 1..=3 {
                let Voter { store, task, .. } = group.voters.remove(&voter).expect("runs");
                task.abort();
                assert!(task.await.is_err());
                store.power_cut();
                group.start(voter, store).await;
            }
        }
        group.agree().await;
    }
}

fn alone(
    store: &MemoryStore,
    shutdown: &Shutdown,
) -> impl Future<Output = Result<(Handle, super::Driver), StartError>> {
    testing::voter(store.clone(), Clock::simulated(0), Rng::seeded(1), shutdown.clone())
}

#[tokio::test(start_paused = true)]
async fn one_voter_leads_without_a_tick_and_replays_nothing_old() {
    let store = MemoryStore::default();
    for life in 0..5_usize {
        let shutdown = Shutdown::new();
        let (handle, driver) = alone(&store, &shutdown).await.expect("starts");
        let clock = Clock::simulated(0);
        let task = tokio::spawn(driver.run());
        if life == 0 {
            testing::begin(&handle).await.expect("begins");
        }
        let many = (0..300).map(|number| {
            let id = [[0; 8].as_slice(), &(life * 1000 + number).to_be_bytes()].concat();
            let name = format!("t{life}-{number}");
            handle.propose(CreateTopic {
                name,
                id,
                partitions: 1,
                replication_factor: 1,
                ..CreateTopic::default()
            })
        });
        for reply in futures::future::join_all(many).await {
            assert!(matches!(reply, Ok(Reply::TopicCreated { .. })), "{reply:?}");
        }
        assert_eq!(clock.elapsed(), Duration::ZERO, "no timer was waited for");
        assert_eq!(handle.image().topics.len(), 300 * (life + 1));
        let applied = super::applied(&store).expect("readable");
        shutdown.cancel();
        task.await.expect("no panic").expect("no failure");
        assert_eq!(
            handle.propose(AllocateProducerIds { node: 1 }).await,
            Err(ProposeError::Closed)
        );
        assert!(super::entries_held(&store).expect("readable") < 2500, "the log is compacted");
        if life == 2 {
            store.power_cut();
        } else {
            assert_eq!(super::applied(&store).expect("readable"), applied);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_ends_the_voter_and_answers_nothing() {
    let (store, shutdown) = (MemoryStore::default(), Shutdown::new());
    let lines = Arc::new(Mutex::new(Vec::new()));
    let deps = Deps {
        clock: Clock::simulated(0),
        rng: Rng::seeded(1),
        transport: Box::new(super::Alone),
        shutdown,
        on_fatal: Arc::new({
            let lines = lines.clone();
            move |line| lines.lock().push(line.to_owned())
        }),
        metrics: Metrics::default(),
    };
    let started = start(Box::new(store.clone()), Options::alone(), deps).await;
    let (handle, driver) = started.expect("starts");
    let task = tokio::spawn(driver.run());
    testing::begin(&handle).await.expect("begins");
    store.fail_writes();
    let reply = handle.propose(AllocateProducerIds { node: 1 }).await;
    assert_eq!(reply, Err(ProposeError::Closed));
    assert!(task.await.expect("no panic").is_err());
    assert_eq!(lines.lock().len(), 1);
    assert!(lines.lock()[0].contains("input/output error"), "{:?}", lines.lock());
}

#[tokio::test(start_paused = true)]
async fn a_store_of_another_voter_is_refused() {
    let (store, shutdown) = (MemoryStore::default(), Shutdown::new());
    alone(&store, &shutdown).await.expect("starts");
    let deps = Deps {
        clock: Clock::simulated(0),
        rng: Rng::seeded(1),
        transport: Box::new(super::Alone),
        shutdown,
        on_fatal: Arc::new(|_| {}),
        metrics: Metrics::default(),
    };
    let error = start(Box::new(store), Options::group(2, vec![1, 2, 3]), deps).await.err();
    assert!(matches!(error, Some(StartError::OtherVoter { found: 1, .. })), "{error:?}");
}

//! Random operations of several clients with crashes, against what must always hold:
//!
//! - a committed offset that was confirmed is read until a later commit, also after a crash;
//! - a read never shows what no crash could have kept;
//! - in one generation there is one leader, and only members get an assignment, each its own;
//! - generations of one life rise, and a committed one never falls.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::ErrorCode;

use super::bench::*;
use crate::records::{GroupMetadata, Key};
use crate::*;

#[derive(Clone, Debug)]
enum Step {
    Join(usize),
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    Commit(usize),
    Fetch,
    Write,
    Refuse,
    Advance(i64),
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => client.clone().prop_map(Step::Join),
        6 => client.clone().prop_map(Step::Sync),
        3 => client.clone().prop_map(Step::Heartbeat),
        1 => client.clone().prop_map(Step::Leave),
        4 => client.prop_map(Step::Commit),
        3 => Just(Step::Fetch),
        12 => Just(Step::Write),
        1 => Just(Step::Refuse),
        3 => (1i64..20_000).prop_map(Step::Advance),
        1 => (0usize..3).prop_map(Step::Crash),
    ]
}

const CLIENTS: usize = 4;

#[derive(Clone, Debug, Default)]
struct Client {
    member: String,
    generation: i32,
    leads: Vec<String>,
    joining: Option<Token>,
    syncing: Option<Token>,
}

struct World {
    bench: Bench,
    clients: Vec<Client>,
    commits: BTreeMap<Token, i64>,
    reads: BTreeMap<Token, BTreeSet<i64>>,
    next_offset: i64,
    /// Offsets a read may show: the last confirmed one and all that came after it without being refused.
    readable: BTreeSet<i64>,
    leaders: BTreeMap<i32, String>,
    members: BTreeMap<i32, BTreeSet<String>>,
    highest_generation: i32,
    committed_generation: i32,
}

impl World {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.writes_at_once = false;
        Self {
            bench,
            clients: vec![Client::default(); CLIENTS],
            commits: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_offset: 0,
            readable: BTreeSet::from([-1]),
            leaders: BTreeMap::new(),
            members: BTreeMap::new(),
            highest_generation: 0,
            committed_generation: 0,
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Join(client) => {
                if self.clients[client].joining.is_none() {
                    let token = self.bench.send(join(&self.clients[client].member.clone()));
                    self.clients[client].joining = Some(token);
                }
            }
            Step::Sync(client) => self.sync(client),
            Step::Heartbeat(client) => {
                let Client { member, generation, .. } = self.clients[client].clone();
                self.bench.heartbeat(&member, generation);
            }
            Step::Leave(client) => {
                let member = std::mem::take(&mut self.clients[client].member);
                self.bench.send(leave(&[(&member, None)]));
            }
            Step::Commit(client) => self.commit(client),
            Step::Fetch => {
                let token = self.bench.send(fetch());
                self.reads.insert(token, self.readable.clone());
            }
            Step::Write if !self.bench.pending.is_empty() => self.bench.write(),
            Step::Refuse if !self.bench.pending.is_empty() => {
                self.bench.refuse_write(ErrorCode::NotEnoughReplicas);
            }
            Step::Write | Step::Refuse => {}
            Step::Advance(ms) => self.bench.advance(ms),
            Step::Crash(kept) => self.crash(kept),
        }
        self.check_log();
        self.read_answers();
    }

    fn sync(&mut self, client: usize) {
        let Client { member, generation, leads, .. } = self.clients[client].clone();
        let own: Vec<(String, String)> =
            leads.iter().map(|member| (member.clone(), format!("{generation}:{member}"))).collect();
        let own: Vec<(&str, &str)> = own.iter().map(|(m, a)| (m.as_str(), a.as_str())).collect();
        let token = self.bench.send(sync(&member, generation, &own));
        self.clients[client].syncing = Some(token);
    }

    fn commit(&mut self, client: usize) {
        let Client { member, generation, .. } = self.clients[client].clone();
        let offset = self.next_offset;
        self.next_offset += 1;
        let token = self.bench.send(commit(&member, generation, offset));
        self.commits.insert(token, offset);
        self.readable.insert(offset);
        for read in self.reads.values_mut() {
            read.insert(offset);
        }
    }

    fn crash(&mut self, kept: usize) {
        self.bench.restart(kept);
        self.check_log();
        for client in &mut self.clients {
            client.joining = None;
            client.syncing = None;
        }
        self.commits.clear();
        self.reads.clear();
        self.highest_generation = self.committed_generation;
        self.leaders.retain(|generation, _| *generation <= self.committed_generation);
        self.members.retain(|generation, _| *generation <= self.committed_generation);
    }

    fn read_answers(&mut self) {
        for (token, response) in std::mem::take(&mut self.bench.answers) {
            match response {
                Response::Join(joined) => self.joined(token, joined),
                Response::Sync(synced) => self.synced(token, &synced),
                Response::Commit(errors) => {
                    let offset = self.commits.remove(&token).expect("sent");
                    if errors.topics[0].1[0].1 == ErrorCode::None {
                        // Confirmed in order: everything older is overwritten.
                        self.readable.retain(|readable| *readable >= offset);
                    } else {
                        self.readable.remove(&offset);
                    }
                }
                Response::Fetch(found) => {
                    let offset = found.topics[0].partitions[0].offset;
                    let allowed = self.reads.remove(&token).expect("sent");
                    assert!(allowed.contains(&offset), "read {offset}, allowed {allowed:?}");
                }
                Response::Leave(_) | Response::Heartbeat(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn joined(&mut self, token: Token, joined: JoinResponse) {
        let Some(client) = self.clients.iter_mut().find(|c| c.joining == Some(token)) else {
            return;
        };
        client.joining = None;
        client.member.clone_from(&joined.member);
        if joined.error != ErrorCode::None {
            client.member.clear();
            return;
        }
        client.generation = joined.generation;
        client.leads = joined.members.iter().map(|member| member.member.clone()).collect();
        let generation = joined.generation;
        assert!(generation >= self.highest_generation, "generations rise");
        self.highest_generation = generation;
        let leader = self.leaders.entry(generation).or_insert_with(|| joined.leader.clone());
        assert_eq!(*leader, joined.leader, "one leader in generation {generation}");
        assert!(joined.members.is_empty() || joined.leader == joined.member);
        self.members.entry(generation).or_default().insert(joined.member);
    }

    fn synced(&mut self, token: Token, synced: &SyncResponse) {
        let Some(client) = self.clients.iter_mut().find(|c| c.syncing == Some(token)) else {
            return;
        };
        client.syncing = None;
        if synced.error == ErrorCode::None && !synced.assignment.is_empty() {
            let expected = format!("{}:{}", client.generation, client.member);
            assert_eq!(synced.assignment, expected.as_bytes(), "its own, of its generation");
            assert!(self.members[&client.generation].contains(&client.member));
            assert!(self.committed_generation >= client.generation, "durable before it is told");
        }
    }

    /// Committed generations never fall.
    fn check_log(&mut self) {
        self.committed_generation = 0;
        for record in &self.bench.log {
            let key = Key::decode(&record.key).expect("own record").expect("known kind");
            if let (Key::Group { .. }, Some(value)) = (key, &record.value) {
                let generation = GroupMetadata::decode(value).expect("own record").generation;
                assert!(generation >= self.committed_generation);
                self.committed_generation = generation;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn invariants_hold_under_any_order_and_crashes(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.run(step);
        }
        // The image of a living shard, of one that replays its log, and of one that restores a snapshot are the same.
        let before = world.bench.shard.committed().clone();
        world.bench.restart(0);
        prop_assert_eq!(world.bench.shard.committed(), &before);
        let mut restored = Committed::default();
        prop_assert_eq!(restored.restore(&before.snapshot()), Ok(()));
        prop_assert_eq!(&restored, &before);
    }
}

//! A classic group between requests: who is in it, who is awaited. Volatile; [`crate::Committed`] is what survives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::committed::CommittedGroup;
use crate::effect::WriteId;
use crate::member::{Member, Protocol};
use crate::records::GroupMetadata;
use crate::response::JoinedMember;
use crate::subscription::{CONSUMER, collect_topics};

/// Kafka's states of a classic group. A dead group is one that is not there.
///
/// ```text
/// Empty -> PreparingRebalance -> CompletingRebalance -> Stable
///   ^            |  ^                    |                |
///   +------------+  +--------------------+----------------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// No members; perhaps offsets.
    Empty,
    /// Members are asked to join again.
    PreparingRebalance,
    /// The generation is formed, the leader's assignment awaited.
    CompletingRebalance,
    /// The assignment is durable and handed out.
    Stable,
}

impl State {
    /// Kafka's name of the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    state: State,
    /// True while the first members gather: from Empty, with the initial delay.
    pub(crate) gathering: bool,
    /// Wall time of the last change of state, -1 when not known.
    pub(crate) state_ms: i64,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol_name: Option<String>,
    pub(crate) generation: i32,
    pub(crate) leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Instance id to member id.
    pub(crate) statics: BTreeMap<String, String>,
    /// Member ids handed out with MEMBER_ID_REQUIRED and not used yet.
    pub(crate) pending: BTreeSet<String>,
    /// Members of this generation whose SyncGroup is awaited.
    pub(crate) unsynced: BTreeSet<String>,
    /// Topics the members read; `None` when that cannot be known.
    pub(crate) subscribed: Option<BTreeSet<String>>,
    /// A member came while the first ones gather: wait for more.
    pub(crate) member_added: bool,
    /// What is left of the initial wait after the present delay, milliseconds.
    pub(crate) gather_remaining_ms: i64,
    /// Writes under way.
    pub(crate) writes: usize,
    pub(crate) last_write: Option<WriteId>,
    /// A deletion is under way: everything else waits for it.
    pub(crate) deleting: bool,
}

impl Group {
    pub(crate) fn new(id: &str, now_ms: i64) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Empty,
            gathering: false,
            state_ms: now_ms,
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending: BTreeSet::new(),
            unsynced: BTreeSet::new(),
            subscribed: None,
            member_added: false,
            gather_remaining_ms: 0,
            writes: 0,
            last_write: None,
            deleting: false,
        }
    }

    /// The group as its records left it: stable with members, else empty.
    pub(crate) fn loaded(id: &str, committed: &CommittedGroup, now_ms: i64) -> Self {
        let mut group = Self::new(id, now_ms);
        let Some(saved) = &committed.metadata else { return group };
        group.state_ms = saved.state_ms;
        group.generation = saved.generation;
        group.protocol_type = Some(saved.protocol_type.clone()).filter(|text| !text.is_empty());
        group.protocol_name.clone_from(&saved.protocol);
        for member in &saved.members {
            let member = Member::loaded(member, saved.protocol.as_deref());
            if let Some(instance) = &member.instance {
                group.statics.insert(instance.clone(), member.id.clone());
            }
            group.members.insert(member.id.clone(), member);
        }
        let known = saved.leader.as_ref().filter(|leader| group.members.contains_key(*leader));
        group.leader = known.or(group.members.keys().next()).cloned();
        if !group.members.is_empty() {
            group.state = State::Stable;
        }
        group.subscribed = group.topics_of_members();
        group
    }

    /// The record value of the present generation.
    pub(crate) fn saved(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadata {
        let protocol = self.protocol_name.as_deref();
        GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            state_ms: self.state_ms,
            members: self.members.values().map(|m| m.saved(protocol, assignment(m))).collect(),
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn is(&self, state: State) -> bool {
        self.state == state
    }

    pub(crate) fn enter(&mut self, state: State, now_ms: i64) {
        self.gathering = self.state == State::Empty && state == State::PreparingRebalance;
        self.state = state;
        self.state_ms = now_ms;
    }

    pub(crate) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(crate) fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// True for a group that only its offsets keep: nobody is in it or on the way.
    pub(crate) fn is_vacant(&self) -> bool {
        self.is(State::Empty) && self.members.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn add(&mut self, member: Member, protocol_type: String) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        self.pending.remove(&member.id);
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.members.insert(member.id.clone(), member);
    }

    /// Takes out a member or a member id that was handed out.
    pub(crate) fn remove(&mut self, id: &str) -> Option<Member> {
        let removed = self.members.remove(id);
        if let Some(instance) = removed.as_ref().and_then(|member| member.instance.as_ref()) {
            self.statics.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending.remove(id);
        self.unsynced.remove(id);
        removed
    }

    /// Gives the static member `old` the id `new`, keeping all else but what it waits on.
    pub(crate) fn rename(&mut self, old: &str, new: &str) -> Option<Member> {
        let before = self.members.remove(old)?;
        let member = Member {
            id: new.to_owned(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            ..before.clone()
        };
        if let Some(instance) = &member.instance {
            self.statics.insert(instance.clone(), new.to_owned());
        }
        if self.is_leader(old) {
            self.leader = Some(new.to_owned());
        }
        self.unsynced.remove(old);
        self.members.insert(new.to_owned(), member);
        Some(before)
    }

    /// Can a member with these protocols be in the group?
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.is(State::Empty) {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|p| self.members.values().all(|m| m.supports(&p.name)))
    }

    /// The protocol with the most votes among those all members support; ties go to the first by name.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let candidates: BTreeSet<&str> = first
            .protocols
            .iter()
            .map(|protocol| protocol.name.as_str())
            .filter(|name| self.members.values().all(|member| member.supports(name)))
            .collect();
        let mut votes = BTreeMap::<&str, usize>::new();
        for vote in self.members.values().filter_map(|member| member.vote(&candidates)) {
            *votes.entry(vote).or_default() += 1;
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).to_owned())
    }

    pub(crate) fn awaiting_join(&self) -> usize {
        self.members.values().filter(|member| member.awaiting_join.is_some()).count()
    }

    pub(crate) fn all_joined(&self) -> bool {
        self.pending.is_empty() && self.members.values().all(|m| m.awaiting_join.is_some())
    }

    /// The longest rebalance time-out of the members, milliseconds.
    pub(crate) fn rebalance_timeout_ms(&self) -> i64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms).max();
        i64::from(longest.unwrap_or(0).max(0))
    }

    /// Makes sure the leader is a member that has joined; false when nobody has.
    pub(crate) fn elect_leader(&mut self) -> bool {
        let joined = |member: &&Member| member.awaiting_join.is_some();
        let current = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if current.as_ref().is_some_and(joined) {
            return true;
        }
        match self.members.values().find(joined) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// Begins the next generation with the members as they are.
    pub(crate) fn next_generation(&mut self, now_ms: i64) {
        // Kafka's counter would overflow too; after two thousand million rebalances it starts again at 0.
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.unsynced.clear();
        self.protocol_name = self.select_protocol();
        self.subscribed = self.topics_of_members();
        let empty = self.members.is_empty();
        self.enter(if empty { State::Empty } else { State::CompletingRebalance }, now_ms);
    }

    fn topics_of_members(&self) -> Option<BTreeSet<String>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        let mut topics = BTreeSet::new();
        let protocol = self.protocol_name.as_deref();
        let readable =
            self.members.values().all(|m| collect_topics(&m.metadata(protocol), &mut topics));
        readable.then_some(topics)
    }

    /// True when a member reads `topic`, or might.
    pub(crate) fn reads(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// All members, as the leader is told.
    pub(crate) fn joined_members(&self) -> Vec<JoinedMember> {
        let protocol = self.protocol_name.as_deref();
        let joined = |member: &Member| JoinedMember {
            member: member.id.clone(),
            instance: member.instance.clone(),
            metadata: member.metadata(protocol),
        };
        self.members.values().map(joined).collect()
    }
}

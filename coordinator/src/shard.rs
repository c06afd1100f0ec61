//! All groups of one `__consumer_offsets` partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use common::Rng;
use protocol::ErrorCode;

use crate::committed::{Committed, Replayed};
use crate::context::{After, Context, Write};
use crate::effect::{Effect, Time, Token, WriteError, WriteId};
use crate::group::{Group, State};
use crate::records::DecodeError;
use crate::request::{FetchRequest, Request};
use crate::response::{JoinResponse, LeaveResponse, PartitionErrors, Response, SyncResponse};
use crate::settings::Settings;
use crate::timers::Timer;
use crate::{inspect, leave, offsets};

/// The state machine. Life: [`Self::new`], [`Self::replay`] for each record of the partition in order,
/// [`Self::loaded`]; then [`Self::handle`], [`Self::tick`] and [`Self::written`] as things happen; at last
/// [`Self::close`].
#[derive(Debug)]
pub struct Shard {
    context: Context,
    committed: Committed,
    groups: BTreeMap<String, Group>,
    /// Reads that wait for a write.
    reads: BTreeMap<WriteId, Vec<(Token, FetchRequest)>>,
    /// Requests that wait for a deletion, or that delete and wait for writes, by group, in order.
    deferred: BTreeMap<String, VecDeque<(Token, Request)>>,
    /// Topics deleted while the write was under way.
    forgotten: BTreeMap<WriteId, Vec<String>>,
}

impl Shard {
    /// An empty shard. `rng` makes member ids.
    #[must_use]
    pub fn new(settings: Settings, rng: Rng) -> Self {
        Self {
            context: Context::new(settings, rng),
            committed: Committed::default(),
            groups: BTreeMap::new(),
            reads: BTreeMap::new(),
            deferred: BTreeMap::new(),
            forgotten: BTreeMap::new(),
        }
    }

    /// Applies one record of the partition while loading. `value` is `None` for a tombstone.
    ///
    /// # Errors
    /// When the record is damaged; the shard must not be used then.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Replayed, DecodeError> {
        self.committed.replay(key, value)
    }

    /// Loads a snapshot ([`Committed::snapshot`]) in place of the records it was made of.
    ///
    /// # Errors
    /// When the bytes are not a snapshot; the shard must not be used then.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), DecodeError> {
        self.committed.restore(snapshot)
    }

    /// All records are replayed: sessions of the members begin.
    pub fn loaded(&mut self, now: Time) -> Vec<Effect> {
        self.context.now = now;
        for (id, committed) in self.committed.iter() {
            let group = Group::loaded(id, committed, now.wall_ms);
            for member in group.members.keys() {
                self.context.renew_session(&group, member);
            }
            self.groups.insert(id.to_owned(), group);
        }
        let too_large =
            |group: &&mut Group| group.members.len() > self.context.settings.group_size_max;
        for group in self.groups.values_mut().filter(too_large).collect::<Vec<_>>() {
            // The limit has been lowered: a rebalance lets only so many in again.
            self.context.prepare_rebalance(group);
        }
        self.context.set_timer(Timer::Expiry, self.context.settings.offsets_check_interval_ms);
        self.take_effects()
    }

    /// Takes one request. Its response is among these effects or those of a later call.
    pub fn handle(&mut self, now: Time, token: Token, request: Request) -> Vec<Effect> {
        self.context.now = now;
        if request.oversized() {
            self.context.respond(token, Response::Refused(ErrorCode::InvalidRequest));
        } else if self.overloaded(&request) {
            self.context.respond(token, Response::Refused(ErrorCode::CoordinatorNotAvailable));
        } else if self.must_wait(&request) {
            self.defer(token, request);
        } else {
            self.dispatch(token, request);
        }
        self.take_effects()
    }

    /// The earliest `uptime_ms` at which [`Self::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<i64> {
        self.context.timers.next()
    }

    /// Does what has become due.
    pub fn tick(&mut self, now: Time) -> Vec<Effect> {
        self.context.now = now;
        while let Some(timer) = self.context.timers.pop_due(now.uptime_ms) {
            self.fire(timer);
        }
        self.take_effects()
    }

    /// The outcome of a write, in the order of the writes. `Ok` means that its records have passed the gate.
    ///
    /// # Panics
    /// When `write` is not the oldest one under way: outcomes out of order would break the order of the log.
    pub fn written(
        &mut self,
        now: Time,
        write: WriteId,
        outcome: Result<(), WriteError>,
    ) -> Vec<Effect> {
        self.context.now = now;
        let oldest = self.context.writes.first_key_value().map(|(oldest, _)| *oldest);
        assert_eq!(oldest, Some(write), "the outcome of a write that is not the oldest one");
        let (_, Write { group, records, after }) =
            self.context.writes.pop_first().expect("looked at just above");
        if outcome.is_ok() {
            for record in &records {
                self.committed
                    .replay(&record.key, record.value.as_deref())
                    .expect("a record this shard encoded is decoded again");
            }
        }
        self.finish(&group, after, outcome);
        for (token, request) in self.reads.remove(&write).unwrap_or_default() {
            self.answer_fetch(token, &request);
        }
        for topic in self.forgotten.remove(&write).unwrap_or_default() {
            self.forget(topic);
        }
        self.run_deferred(&group);
        self.take_effects()
    }

    /// A topic has been deleted: its committed offsets go.
    pub fn topic_deleted(&mut self, now: Time, topic: &str) -> Vec<Effect> {
        self.context.now = now;
        self.forget(topic.to_owned());
        self.take_effects()
    }

    /// Answers everything that waits with `error` (NOT_COORDINATOR when the partition is lost). The shard is of no use
    /// afterwards.
    pub fn close(&mut self, error: ErrorCode) -> Vec<Effect> {
        for group in self.groups.values_mut() {
            for member in group.members.values_mut() {
                let response = JoinResponse::error(&member.id, error);
                self.context.answer_join(member, response);
                self.context.answer_sync(member, SyncResponse::error(error));
            }
        }
        let writes = std::mem::take(&mut self.context.writes);
        for write in writes.into_values() {
            match write.after {
                After::Reply { token, response } => {
                    self.context.respond(token, refused(response, error));
                }
                After::Deleted { token: Some(token) } => {
                    self.context.respond(token, Response::Delete(error));
                }
                After::Nothing
                | After::Assign { .. }
                | After::Replaced(_)
                | After::Deleted { token: None } => {}
            }
        }
        let reads = std::mem::take(&mut self.reads).into_values().flatten();
        let deferred = std::mem::take(&mut self.deferred).into_values().flatten();
        let tokens = reads.map(|(token, _)| token).chain(deferred.map(|(token, _)| token));
        for token in tokens {
            self.context.respond(token, Response::Refused(error));
        }
        self.take_effects()
    }

    /// The durable image.
    #[must_use]
    pub fn committed(&self) -> &Committed {
        &self.committed
    }

    /// State and generation of a group, for tests and metrics.
    #[must_use]
    pub fn group_state(&self, group: &str) -> Option<(State, i32)> {
        self.groups.get(group).map(|group| (group.state(), group.generation))
    }

    /// Topics with committed offsets.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<String> {
        self.committed.iter().flat_map(|(_, group)| group.offsets.keys().cloned()).collect()
    }

    /// Groups in memory.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// Writes whose outcome is awaited.
    #[must_use]
    pub fn writes_under_way(&self) -> usize {
        self.context.writes.len()
    }

    fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.context.effects)
    }

    fn overloaded(&self, request: &Request) -> bool {
        let settings = &self.context.settings;
        let writes = match request {
            Request::Join(_) | Request::Sync(_) | Request::Leave(_) | Request::Commit(_) => true,
            Request::Delete { .. } | Request::DeleteOffsets(_) => true,
            Request::Heartbeat(_) | Request::Fetch(_) => false,
            Request::List(_) | Request::Describe { .. } => false,
        };
        let queue = request.group().and_then(|group| self.deferred.get(group));
        (writes && self.context.writes.len() >= settings.writes_max)
            || queue.is_some_and(|queue| queue.len() >= settings.deferred_max)
    }

    /// A deletion sees all writes before it, and nothing of its group runs beside it.
    fn must_wait(&self, request: &Request) -> bool {
        let Some(id) = request.group() else { return false };
        let queued = self.deferred.contains_key(id);
        match request {
            Request::Fetch(_) | Request::List(_) | Request::Describe { .. } => false,
            _ => queued || self.conflicts(id, request),
        }
    }

    fn conflicts(&self, id: &str, request: &Request) -> bool {
        let Some(group) = self.groups.get(id) else { return false };
        let deletes = matches!(request, Request::Delete { .. } | Request::DeleteOffsets(_));
        group.deleting || (deletes && group.writes > 0)
    }

    fn defer(&mut self, token: Token, request: Request) {
        let id = request.group().expect("only requests of a group wait").to_owned();
        self.deferred.entry(id).or_default().push_back((token, request));
    }

    fn run_deferred(&mut self, id: &str) {
        while let Some(queue) = self.deferred.get_mut(id) {
            let Some((token, request)) = queue.pop_front() else {
                self.deferred.remove(id);
                return;
            };
            if self.conflicts(id, &request) {
                if let Some(queue) = self.deferred.get_mut(id) {
                    queue.push_front((token, request));
                }
                return;
            }
            self.dispatch(token, request);
        }
    }

    fn dispatch(&mut self, token: Token, request: Request) {
        match request {
            Request::Fetch(request) => return self.fetch(token, request),
            Request::List(request) => {
                let listed = self.durable().filter(|group| inspect::is_listed(group, &request));
                let listed = listed.map(inspect::listed).collect();
                return self.context.respond(token, Response::List(listed));
            }
            Request::Describe { group } => {
                let known = self.committed.get(&group).and_then(|_| self.groups.get(&group));
                let found = known.map_or_else(|| inspect::missing(&group), inspect::described);
                return self.context.respond(token, Response::Describe(found));
            }
            Request::Join(request) => return self.join(token, request),
            _ => {}
        }
        let id = request.group().expect("all others name a group").to_owned();
        if let Request::Commit(commit) = &request
            && commit.generation < 0
        {
            let now_ms = self.context.now.wall_ms;
            self.groups.entry(id.clone()).or_insert_with(|| Group::new(&id, now_ms));
        }
        match self.groups.get_mut(&id) {
            Some(group) => {
                let committed = self.committed.get(&id);
                let context = &mut self.context;
                let drop_group = match request {
                    Request::Delete { .. } => context.delete(group, committed, token),
                    Request::DeleteOffsets(request) => {
                        context.delete_offsets(group, committed, request, token);
                        false
                    }
                    other => {
                        run(context, group, token, other);
                        false
                    }
                };
                if drop_group {
                    self.groups.remove(&id);
                }
            }
            None => self.unknown_group(token, request),
        }
    }

    /// Groups that a record knows: a group still being born is not shown.
    fn durable(&self) -> impl Iterator<Item = &Group> {
        self.groups.values().filter(|group| self.committed.get(&group.id).is_some())
    }

    fn join(&mut self, token: Token, request: crate::request::JoinRequest) {
        if let Err(error) = self.context.check_join(&request) {
            return self.context.refuse_join(token, &request.member, error);
        }
        let id = request.group.clone();
        let is_new = !self.groups.contains_key(&id);
        if is_new && !request.member.is_empty() {
            return self.context.refuse_join(token, &request.member, ErrorCode::UnknownMemberId);
        }
        let now_ms = self.context.now.wall_ms;
        let group = self.groups.entry(id.clone()).or_insert_with(|| Group::new(&id, now_ms));
        self.context.join(group, request, token);
        if !is_new {
            return;
        }
        if group.is_vacant() {
            self.groups.remove(&id);
        } else if group.writes == 0 {
            // The group exists from now on, even if it never gets as far as a generation.
            let newborn = Group::new(&id, group.state_ms).saved(|_| bytes::Bytes::new());
            let key = crate::records::Key::Group { group: id }.encode();
            let record = crate::effect::Record { key, value: Some(newborn.encode()) };
            self.context.append(group, vec![record], After::Nothing);
        }
    }

    fn unknown_group(&mut self, token: Token, request: Request) {
        let response = match request {
            Request::Sync(_) => Response::Sync(SyncResponse::error(ErrorCode::UnknownMemberId)),
            Request::Heartbeat(_) => Response::Heartbeat(ErrorCode::UnknownMemberId),
            Request::Leave(request) => Response::Leave(leave::unknown_group(request)),
            Request::Commit(request) => {
                let error = if request.names_missing_group {
                    ErrorCode::GroupIdNotFound
                } else {
                    ErrorCode::IllegalGeneration
                };
                Response::Commit(offsets::all_commits(&request, error))
            }
            Request::Delete { .. } => Response::Delete(ErrorCode::GroupIdNotFound),
            Request::DeleteOffsets(request) => Response::DeleteOffsets(offsets::all_deletes(
                &request.topics,
                ErrorCode::GroupIdNotFound,
            )),
            Request::Join(_) | Request::Fetch(_) | Request::List(_) | Request::Describe { .. } => {
                unreachable!("dispatched before")
            }
        };
        self.context.respond(token, response);
    }

    /// Answers from the durable image, once it holds every write of the group that is under way now.
    fn fetch(&mut self, token: Token, request: FetchRequest) {
        let group = self.groups.get(&request.group);
        match group.and_then(|group| self.context.pending_write(group)) {
            Some(write) => self.reads.entry(write).or_default().push((token, request)),
            None => self.answer_fetch(token, &request),
        }
    }

    fn answer_fetch(&mut self, token: Token, request: &FetchRequest) {
        let response = offsets::fetch(self.committed.get(&request.group), request);
        self.context.respond(token, Response::Fetch(response));
    }

    fn forget(&mut self, topic: String) {
        if let Some(write) = self.context.newest_write() {
            self.forgotten.entry(write).or_default().push(topic);
            return;
        }
        for (id, committed) in self.committed.iter() {
            if let Some(group) = self.groups.get_mut(id) {
                self.context.forget_topic(group, committed, &topic);
            }
        }
    }

    fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Heartbeat { group, member } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    self.context.heartbeat_missed(group, &member);
                }
            }
            Timer::Join { group } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    self.context.join_phase_ended(group);
                }
            }
            Timer::Sync { group } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    self.context.sync_phase_ended(group);
                }
            }
            Timer::Expiry => {
                let (context, committed) = (&mut self.context, &self.committed);
                self.groups.retain(|id, group| !context.expire(group, committed.get(id)));
                context.set_timer(Timer::Expiry, context.settings.offsets_check_interval_ms);
            }
        }
    }

    fn finish(&mut self, id: &str, after: After, outcome: Result<(), WriteError>) {
        let group = self.groups.get_mut(id).expect("a group stays while it has writes under way");
        group.writes -= 1;
        let context = &mut self.context;
        match (after, outcome) {
            (After::Nothing, _) => {}
            (After::Reply { token, response }, Ok(())) => context.respond(token, response),
            (After::Reply { token, response }, Err(error)) => {
                context.respond(token, refused(response, error.for_client()));
            }
            (After::Assign { generation, assignments }, Ok(())) => {
                context.assigned(group, generation, assignments);
            }
            (After::Assign { generation, .. }, Err(error)) => {
                context.assignment_refused(group, generation, error);
            }
            (After::Replaced(done), Ok(())) => context.replaced(group, &done),
            (After::Replaced(done), Err(error)) => context.replacement_refused(group, done, error),
            (After::Deleted { token }, outcome) => {
                group.deleting = false;
                let mut error = outcome.err().map_or(ErrorCode::None, WriteError::for_client);
                if self.committed.get(id).is_none() {
                    self.groups.remove(id);
                } else if outcome.is_ok() {
                    // An earlier part of the deletion was refused: it is not done.
                    error = ErrorCode::CoordinatorNotAvailable;
                }
                if let Some(token) = token {
                    self.context.respond(token, Response::Delete(error));
                }
            }
        }
    }
}

fn run(context: &mut Context, group: &mut Group, token: Token, request: Request) {
    match request {
        Request::Sync(request) => context.sync(group, request, token),
        Request::Heartbeat(request) => {
            let error = context.heartbeat(group, &request);
            context.respond(token, Response::Heartbeat(error));
        }
        Request::Leave(request) => context.leave(group, request, token),
        Request::Commit(request) => context.commit(group, request, token),
        Request::Join(_) | Request::Fetch(_) | Request::List(_) | Request::Describe { .. } => {
            unreachable!("dispatched before")
        }
        Request::Delete { .. } | Request::DeleteOffsets(_) => unreachable!("dispatched before"),
    }
}

/// `response` with `error` in place of success.
fn refused(response: Response, error: ErrorCode) -> Response {
    let all = |errors: PartitionErrors| PartitionErrors {
        error,
        topics: errors
            .topics
            .into_iter()
            .map(|(topic, partitions)| {
                (topic, partitions.into_iter().map(|(partition, _)| (partition, error)).collect())
            })
            .collect(),
    };
    match response {
        Response::Commit(errors) => Response::Commit(all(errors)),
        Response::DeleteOffsets(errors) => Response::DeleteOffsets(all(errors)),
        Response::Leave(left) => Response::Leave(LeaveResponse { error, members: left.members }),
        Response::Delete(_) => Response::Delete(error),
        _ => Response::Refused(error),
    }
}

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

/// The state machine. Life: [`Self::new`], [`Self::replay`] for each record of the partition in order,
/// [`Self::loaded`]; then [`Self::handle`], [`Self::tick`] and [`Self::written`] as things happen; at last
/// [`Self::close`].
#[derive(Debug)]
pub struct Shard {
    pub(crate) context: Context,
    pub(crate) committed: Committed,
    pub(crate) groups: BTreeMap<String, Group>,
    /// Reads that wait for a write.
    pub(crate) reads: BTreeMap<WriteId, Vec<(Token, FetchRequest)>>,
    /// Requests that wait for a deletion, or that delete and wait for writes, by group, in order.
    pub(crate) deferred: BTreeMap<String, VecDeque<(Token, Request)>>,
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

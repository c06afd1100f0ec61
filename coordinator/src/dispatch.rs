//! The way of one request through a shard: refused, deferred, or given to its group.

use protocol::ErrorCode;

use crate::context::{After, Context};
use crate::effect::{Record, Token};
use crate::group::Group;
use crate::records::Key;
use crate::request::{FetchRequest, JoinRequest, Request};
use crate::response::{Response, SyncResponse};
use crate::shard::Shard;
use crate::{inspect, leave, offsets};

impl Shard {
    pub(crate) fn overloaded(&self, request: &Request) -> bool {
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
    pub(crate) fn must_wait(&self, request: &Request) -> bool {
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

    pub(crate) fn defer(&mut self, token: Token, request: Request) {
        let id = request.group().expect("only requests of a group wait").to_owned();
        self.deferred.entry(id).or_default().push_back((token, request));
    }

    pub(crate) fn run_deferred(&mut self, id: &str) {
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

    pub(crate) fn dispatch(&mut self, token: Token, request: Request) {
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

    fn join(&mut self, token: Token, request: JoinRequest) {
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
            let key = Key::Group { group: id }.encode();
            let record = Record { key, value: Some(newborn.encode()) };
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

    pub(crate) fn answer_fetch(&mut self, token: Token, request: &FetchRequest) {
        let response = offsets::fetch(self.committed.get(&request.group), request);
        self.context.respond(token, Response::Fetch(response));
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

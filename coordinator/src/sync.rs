//! SyncGroup and Heartbeat.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::ErrorCode;

use crate::context::{After, Context};
use crate::effect::{Token, WriteError};
use crate::group::{Group, State};
use crate::join::validate_member;
use crate::request::{HeartbeatRequest, SyncRequest};
use crate::response::{Response, SyncResponse};
use crate::timers::Timer;

impl Context {
    pub(crate) fn refuse_sync(&mut self, token: Token, error: ErrorCode) {
        self.respond(token, Response::Sync(SyncResponse::error(error)));
    }

    pub(crate) fn sync(&mut self, group: &mut Group, request: SyncRequest, token: Token) {
        if let Err(error) = check_sync(group, &request) {
            return self.refuse_sync(token, error);
        }
        match group.state() {
            State::Empty => self.refuse_sync(token, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => self.refuse_sync(token, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.synced(group, &request.member);
                if let Some(member) = group.members.get_mut(&request.member) {
                    // The same member asked twice: the older request is a left-over of a broken connection.
                    self.answer_sync(member, SyncResponse::error(ErrorCode::RebalanceInProgress));
                    member.awaiting_sync = Some(token);
                }
                if group.is_leader(&request.member) {
                    self.store_assignment(group, request);
                }
            }
            State::Stable => {
                self.synced(group, &request.member);
                let response = assigned(group, &request.member);
                self.respond(token, Response::Sync(response));
            }
        }
    }

    fn synced(&mut self, group: &mut Group, member: &str) {
        group.unsynced.remove(member);
        if group.unsynced.is_empty() {
            self.timers.cancel(&Timer::Sync { group: group.id.clone() });
        }
    }

    /// Writes the generation. Nobody learns an assignment before it is durable.
    fn store_assignment(&mut self, group: &mut Group, request: SyncRequest) {
        let assignments: BTreeMap<String, Bytes> = request
            .assignments
            .into_iter()
            .filter(|assignment| group.members.contains_key(&assignment.member))
            .map(|assignment| (assignment.member, assignment.bytes))
            .collect();
        let saved = assignments.clone();
        let generation = group.generation;
        self.append_metadata(
            group,
            |member| saved.get(&member.id).cloned().unwrap_or_default(),
            After::Assign { generation, assignments },
        );
    }

    /// The generation is durable. It counts only if no rebalance has begun since.
    pub(crate) fn assigned(
        &mut self,
        group: &mut Group,
        generation: i32,
        mut assignments: BTreeMap<String, Bytes>,
    ) {
        if !group.is(State::CompletingRebalance) || group.generation != generation {
            return;
        }
        for member in group.members.values_mut() {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
        }
        group.enter(State::Stable, self.now.wall_ms);
        let waiting: Vec<String> = group
            .members
            .values()
            .filter(|member| member.awaiting_sync.is_some())
            .map(|member| member.id.clone())
            .collect();
        for id in waiting {
            let response = assigned(group, &id);
            let Some(member) = group.members.get_mut(&id) else { continue };
            self.answer_sync(member, response);
            self.expect_heartbeat(&group.id, &id, i64::from(member.session_timeout_ms));
        }
    }

    /// The generation was refused: everybody starts over.
    pub(crate) fn assignment_refused(
        &mut self,
        group: &mut Group,
        generation: i32,
        error: WriteError,
    ) {
        if group.is(State::CompletingRebalance) && group.generation == generation {
            self.reset_assignment(group, error.for_client());
            self.rebalance_or_complete(group);
        }
    }

    pub(crate) fn heartbeat(&mut self, group: &Group, request: &HeartbeatRequest) -> ErrorCode {
        if let Err(error) = validate_member(group, &request.member, request.instance.as_deref()) {
            return error;
        }
        if request.generation != group.generation {
            return ErrorCode::IllegalGeneration;
        }
        self.renew_session(group, &request.member);
        match group.state() {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => ErrorCode::RebalanceInProgress,
            State::CompletingRebalance | State::Stable => ErrorCode::None,
        }
    }

    pub(crate) fn renew_session(&mut self, group: &Group, member: &str) {
        if let Some(member) = group.members.get(member) {
            self.expect_heartbeat(&group.id, &member.id, i64::from(member.session_timeout_ms));
        }
    }
}

fn check_sync(group: &Group, request: &SyncRequest) -> Result<(), ErrorCode> {
    validate_member(group, &request.member, request.instance.as_deref())?;
    if request.generation != group.generation {
        return Err(ErrorCode::IllegalGeneration);
    }
    let differs = |asked: &Option<String>, known: &Option<String>| matches!((asked, known), (Some(asked), Some(known)) if asked != known);
    if differs(&request.protocol_type, &group.protocol_type)
        || differs(&request.protocol_name, &group.protocol_name)
    {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    Ok(())
}

fn assigned(group: &Group, member: &str) -> SyncResponse {
    SyncResponse {
        error: ErrorCode::None,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        assignment: group.members.get(member).map(|m| m.assignment.clone()).unwrap_or_default(),
    }
}

//! JoinGroup.

use protocol::ErrorCode;

use crate::context::{After, Context, Replaced};
use crate::effect::{Token, WriteError};
use crate::group::{Group, State};
use crate::request::JoinRequest;
use crate::response::{JoinResponse, Response, SyncResponse};

impl Context {
    /// The checks that need no group.
    pub(crate) fn check_join(&self, request: &JoinRequest) -> Result<(), ErrorCode> {
        if request.group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        let (min, max) =
            (self.settings.session_timeout_min_ms, self.settings.session_timeout_max_ms);
        if !(min..=max).contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        Ok(())
    }

    pub(crate) fn refuse_join(&mut self, token: Token, member: &str, error: ErrorCode) {
        self.respond(token, Response::Join(JoinResponse::error(member, error)));
    }

    pub(crate) fn join(&mut self, group: &mut Group, request: JoinRequest, token: Token) {
        if !self.has_room(group, &request.member) {
            self.drop_member(group, &request.member);
            return self.refuse_join(token, "", ErrorCode::GroupMaxSizeReached);
        }
        if !group.supports(&request.protocol_type, &request.protocols) {
            return self.refuse_join(token, &request.member, ErrorCode::InconsistentGroupProtocol);
        }
        if request.member.is_empty() {
            self.join_new(group, request, token);
        } else {
            self.join_known(group, request, token);
        }
    }

    fn has_room(&self, group: &Group, member: &str) -> bool {
        let max = self.settings.group_size_max;
        let known = group.members.get(member);
        match group.state() {
            State::Empty => true,
            State::PreparingRebalance => {
                known.is_some_and(|member| member.awaiting_join.is_some())
                    || group.awaiting_join() < max
            }
            State::CompletingRebalance | State::Stable => {
                known.is_some() || group.members.len() < max
            }
        }
    }

    fn join_new(&mut self, group: &mut Group, request: JoinRequest, token: Token) {
        let prefix = request.instance.as_ref().unwrap_or(&request.client_id);
        let id = format!("{prefix}-{}", self.rng.uuid());
        if let Some(instance) = request.instance.clone() {
            match group.statics.get(&instance).cloned() {
                Some(old) => self.replace_static(group, &instance, &old, id, request, token),
                None => self.add_member(group, id, request, token),
            }
        } else if request.requires_member_id {
            if group.pending.len() >= self.settings.pending_members_max {
                return self.refuse_join(token, "", ErrorCode::GroupMaxSizeReached);
            }
            self.expect_heartbeat(&group.id, &id, i64::from(request.session_timeout_ms));
            self.refuse_join(token, &id, ErrorCode::MemberIdRequired);
            group.pending.insert(id);
        } else {
            self.add_member(group, id, request, token);
        }
    }

    fn join_known(&mut self, group: &mut Group, request: JoinRequest, token: Token) {
        let id = request.member.clone();
        if group.pending.contains(&id) {
            if request.instance.is_some() {
                return self.refuse_join(token, &id, ErrorCode::UnknownServerError);
            }
            return self.add_member(group, id, request, token);
        }
        if let Err(error) = validate_member(group, &id, request.instance.as_deref()) {
            return self.refuse_join(token, &id, error);
        }
        let same = group.members.get(&id).is_some_and(|m| m.protocols == request.protocols);
        let rejoins = match group.state() {
            State::PreparingRebalance => true,
            State::CompletingRebalance => !same,
            State::Stable => !same || group.is_leader(&id),
            State::Empty => {
                return self.refuse_join(token, &id, ErrorCode::UnknownMemberId);
            }
        };
        if rejoins {
            self.update_member(group, &id, &request, token);
            self.rebalance_or_complete(group);
        } else {
            // The answer got lost on its way: give it again. A stable generation has a leader that knows its members.
            let mut response = self.joined(group, &id);
            if group.is(State::Stable) {
                response.members.clear();
            }
            self.respond(token, Response::Join(response));
        }
    }

    /// A static member came back without its member id: the new id takes the old one's place.
    fn replace_static(
        &mut self,
        group: &mut Group,
        instance: &str,
        old: &str,
        new: String,
        request: JoinRequest,
        token: Token,
    ) {
        let old_leader = group.leader.clone();
        self.forget_heartbeat(&group.id, old);
        let Some(mut before) = group.rename(old, &new) else { return };
        self.answer_join(&mut before, JoinResponse::error(old, ErrorCode::FencedInstanceId));
        self.answer_sync(&mut before, SyncResponse::error(ErrorCode::FencedInstanceId));
        self.update_member(group, &new, &request, token);
        self.expect_heartbeat(&group.id, &new, i64::from(request.session_timeout_ms));
        match group.state() {
            State::Stable if group.select_protocol() == group.protocol_name => {
                let undo = Replaced {
                    instance: instance.to_owned(),
                    old_member: old.to_owned(),
                    new_member: new,
                    old_protocols: before.protocols,
                    old_rebalance_timeout_ms: before.rebalance_timeout_ms,
                    old_session_timeout_ms: before.session_timeout_ms,
                    old_leader,
                    may_skip_assignment: request.may_skip_assignment,
                };
                self.append_metadata(group, |m| m.assignment.clone(), After::Replaced(undo));
            }
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(group),
            State::PreparingRebalance => self.complete_if_all_joined(group),
            State::Empty => unreachable!("an empty group has no static member to replace"),
        }
    }

    /// The record that names the new id of a static member is durable: answer without a rebalance.
    pub(crate) fn replaced(&mut self, group: &mut Group, done: &Replaced) {
        if !group.is(State::Stable) {
            // A rebalance has begun meanwhile and will answer.
            return;
        }
        let id = &done.new_member;
        let mut response = self.joined(group, id);
        if done.may_skip_assignment {
            response.skip_assignment = group.is_leader(id);
        } else {
            // An old client that sees itself as leader would assign again; it is told the id it had.
            response.members.clear();
            response.leader = done.old_leader.clone().unwrap_or_default();
        }
        if let Some(member) = group.members.get_mut(id) {
            self.answer_join(member, response);
        }
    }

    /// The record was refused: the old id is back, and the one that came is told to try again.
    pub(crate) fn replacement_refused(
        &mut self,
        group: &mut Group,
        done: Replaced,
        error: WriteError,
    ) {
        if group.statics.get(&done.instance) != Some(&done.new_member) {
            return;
        }
        let Some(mut refused) = group.rename(&done.new_member, &done.old_member) else { return };
        self.forget_heartbeat(&group.id, &done.new_member);
        if let Some(member) = group.members.get_mut(&done.old_member) {
            member.protocols = done.old_protocols;
            member.rebalance_timeout_ms = done.old_rebalance_timeout_ms;
            member.session_timeout_ms = done.old_session_timeout_ms;
            let session_ms = i64::from(member.session_timeout_ms);
            self.expect_heartbeat(&group.id, &done.old_member, session_ms);
        }
        self.answer_join(&mut refused, JoinResponse::error("", error.for_client()));
    }
}

/// Is `member` (under `instance`, when static) in the group?
pub(crate) fn validate_member(
    group: &Group,
    member: &str,
    instance: Option<&str>,
) -> Result<(), ErrorCode> {
    if let Some(instance) = instance {
        match group.statics.get(instance) {
            None => return Err(ErrorCode::UnknownMemberId),
            Some(known) if known != member => return Err(ErrorCode::FencedInstanceId),
            Some(_) => {}
        }
    }
    if group.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
}

//! LeaveGroup.

use protocol::ErrorCode;

use crate::context::{After, Context};
use crate::effect::Token;
use crate::group::{Group, State};
use crate::join::validate_member;
use crate::request::{LeaveRequest, LeavingMember};
use crate::response::{LeaveResponse, LeftMember, Response};

impl Context {
    pub(crate) fn leave(&mut self, group: &mut Group, request: LeaveRequest, token: Token) {
        let members: Vec<LeftMember> =
            request.members.into_iter().map(|member| self.leave_one(group, member)).collect();
        let any_left = members.iter().any(|member| member.error == ErrorCode::None);
        let before = group.last_write;
        if any_left {
            match group.state() {
                State::Stable | State::CompletingRebalance => self.prepare_rebalance(group),
                State::PreparingRebalance => self.complete_if_all_joined(group),
                State::Empty => {}
            }
        }
        let response = Response::Leave(LeaveResponse { error: ErrorCode::None, members });
        let ended = group.last_write.filter(|_| group.last_write != before);
        match ended.and_then(|write| self.writes.get_mut(&write)) {
            // The last member left: the answer waits until the empty generation is durable.
            Some(write) => write.after = After::Reply { token, response },
            None => self.respond(token, response),
        }
    }

    fn leave_one(&mut self, group: &mut Group, leaving: LeavingMember) -> LeftMember {
        let error = self.try_leave(group, &leaving).err().unwrap_or(ErrorCode::None);
        LeftMember { member: leaving.member, instance: leaving.instance, error }
    }

    fn try_leave(&mut self, group: &mut Group, leaving: &LeavingMember) -> Result<(), ErrorCode> {
        let instance = leaving.instance.as_deref();
        let id = if leaving.member.is_empty() {
            let known = instance.and_then(|instance| group.statics.get(instance));
            known.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else {
            if !group.pending.contains(&leaving.member) {
                validate_member(group, &leaving.member, instance)?;
            }
            leaving.member.clone()
        };
        self.drop_member(group, &id);
        Ok(())
    }
}

/// The answer for a group that does not exist.
pub(crate) fn unknown_group(request: LeaveRequest) -> LeaveResponse {
    let unknown = |leaving: LeavingMember| LeftMember {
        member: leaving.member,
        instance: leaving.instance,
        error: ErrorCode::UnknownMemberId,
    };
    LeaveResponse {
        error: ErrorCode::None,
        members: request.members.into_iter().map(unknown).collect(),
    }
}

//! The dance itself: from the first join to the answer with a generation.

use bytes::Bytes;
use protocol::ErrorCode;

use crate::context::{After, Context};
use crate::effect::Token;
use crate::group::{Group, State};
use crate::member::Member;
use crate::request::JoinRequest;
use crate::response::{JoinResponse, Response, SyncResponse};
use crate::timers::Timer;

impl Context {
    /// A member as the group knows it joins (again), waiting on `token`.
    pub(crate) fn wait_for_join(&mut self, member: &mut Member, token: Token) {
        if let Some(older) = member.awaiting_join.replace(token) {
            // The same member asked twice; the older request is a left-over of a broken connection.
            let response = JoinResponse::error(&member.id, ErrorCode::RebalanceInProgress);
            self.respond(older, Response::Join(response));
        }
    }

    pub(crate) fn add_member(
        &mut self,
        group: &mut Group,
        id: String,
        request: JoinRequest,
        token: Token,
    ) {
        if group.is(State::PreparingRebalance) && group.gathering {
            group.member_added = true;
        }
        let protocol_type = request.protocol_type.clone();
        let mut member = Member::joining(id.clone(), request);
        self.wait_for_join(&mut member, token);
        group.add(member, protocol_type);
        // Its session starts with its first generation; until then this longer time counts.
        self.expect_heartbeat(&group.id, &id, self.settings.new_member_timeout_ms);
        self.rebalance_or_complete(group);
    }

    pub(crate) fn update_member(
        &mut self,
        group: &mut Group,
        id: &str,
        request: &JoinRequest,
        token: Token,
    ) {
        let Some(member) = group.members.get_mut(id) else { return };
        member.protocols.clone_from(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        self.wait_for_join(member, token);
    }

    pub(crate) fn rebalance_or_complete(&mut self, group: &mut Group) {
        if group.is(State::PreparingRebalance) {
            self.complete_if_all_joined(group);
        } else {
            self.prepare_rebalance(group);
        }
    }

    pub(crate) fn complete_if_all_joined(&mut self, group: &mut Group) {
        if group.is(State::PreparingRebalance) && !group.gathering && group.all_joined() {
            self.complete_join(group);
        }
    }

    pub(crate) fn prepare_rebalance(&mut self, group: &mut Group) {
        if group.is(State::CompletingRebalance) {
            self.reset_assignment(group, ErrorCode::RebalanceInProgress);
        }
        group.unsynced.clear();
        self.timers.cancel(&Timer::Sync { group: group.id.clone() });
        let first = group.is(State::Empty);
        group.enter(State::PreparingRebalance, self.now.wall_ms);
        if first {
            let delay_ms = i64::from(self.settings.initial_rebalance_delay_ms);
            group.member_added = false;
            group.gather_remaining_ms = (group.rebalance_timeout_ms() - delay_ms).max(0);
            self.set_timer(Timer::Join { group: group.id.clone() }, delay_ms);
        } else if group.all_joined() {
            self.complete_join(group);
        } else {
            let timeout_ms = group.rebalance_timeout_ms();
            self.set_timer(Timer::Join { group: group.id.clone() }, timeout_ms);
        }
    }

    /// The join timer has fired.
    pub(crate) fn join_phase_ended(&mut self, group: &mut Group) {
        if !group.is(State::PreparingRebalance) {
            return;
        }
        if group.gathering && group.member_added && group.gather_remaining_ms > 0 {
            let delay_ms = i64::from(self.settings.initial_rebalance_delay_ms);
            let next_ms = delay_ms.min(group.gather_remaining_ms);
            group.member_added = false;
            group.gather_remaining_ms = (group.gather_remaining_ms - delay_ms).max(0);
            self.set_timer(Timer::Join { group: group.id.clone() }, next_ms);
        } else {
            self.complete_join(group);
        }
    }

    /// Ends the join phase: who has not joined is out (static members stay), the rest is the next generation.
    pub(crate) fn complete_join(&mut self, group: &mut Group) {
        self.timers.cancel(&Timer::Join { group: group.id.clone() });
        let gone = |m: &&Member| m.awaiting_join.is_none() && m.instance.is_none();
        let gone: Vec<String> =
            group.members.values().filter(gone).map(|member| member.id.clone()).collect();
        for id in gone {
            self.drop_member(group, &id);
        }
        if !group.elect_leader() && !group.members.is_empty() {
            // Only absent static members are left: give them another round.
            let timeout_ms = group.rebalance_timeout_ms();
            self.set_timer(Timer::Join { group: group.id.clone() }, timeout_ms);
            return;
        }
        group.next_generation(self.now.wall_ms);
        if group.is(State::Empty) {
            self.append_metadata(group, |_| Bytes::new(), After::Nothing);
        } else {
            self.answer_joins(group);
        }
    }

    fn answer_joins(&mut self, group: &mut Group) {
        let ids: Vec<String> = group.members.keys().cloned().collect();
        for id in ids {
            let response = self.joined(group, &id);
            let Some(member) = group.members.get_mut(&id) else { continue };
            self.answer_join(member, response);
            member.is_new = false;
            self.expect_heartbeat(&group.id, &id, i64::from(member.session_timeout_ms));
            group.unsynced.insert(id);
        }
        let timeout_ms = group.rebalance_timeout_ms();
        self.set_timer(Timer::Sync { group: group.id.clone() }, timeout_ms);
    }

    /// The answer to a member that is in the present generation.
    pub(crate) fn joined(&self, group: &Group, member: &str) -> JoinResponse {
        let members = if group.is_leader(member) { group.joined_members() } else { Vec::new() };
        JoinResponse {
            error: ErrorCode::None,
            generation: group.generation,
            protocol_type: group.protocol_type.clone(),
            protocol_name: group.protocol_name.clone(),
            leader: group.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member: member.to_owned(),
            members,
        }
    }

    /// Takes a member out; what it waits on is answered with UNKNOWN_MEMBER_ID.
    pub(crate) fn drop_member(&mut self, group: &mut Group, id: &str) {
        self.forget_heartbeat(&group.id, id);
        if let Some(mut member) = group.remove(id) {
            self.answer_join(&mut member, JoinResponse::error("", ErrorCode::UnknownMemberId));
            self.answer_sync(&mut member, SyncResponse::error(ErrorCode::UnknownMemberId));
        }
    }

    pub(crate) fn answer_sync(&mut self, member: &mut Member, response: SyncResponse) -> bool {
        let Some(token) = member.awaiting_sync.take() else { return false };
        self.respond(token, Response::Sync(response));
        true
    }

    /// Members waiting for their assignment get `error` instead.
    pub(crate) fn reset_assignment(&mut self, group: &mut Group, error: ErrorCode) {
        for member in group.members.values_mut() {
            member.assignment = Bytes::new();
            if self.answer_sync(member, SyncResponse::error(error)) {
                self.expect_heartbeat(&group.id, &member.id, i64::from(member.session_timeout_ms));
            }
        }
    }

    /// A member, or a member id that was handed out, has been silent for too long.
    pub(crate) fn heartbeat_missed(&mut self, group: &mut Group, id: &str) {
        if group.pending.contains(id) {
            group.remove(id);
        } else {
            let Some(member) = group.members.get(id) else { return };
            if member.satisfies_heartbeat() {
                return;
            }
            self.drop_member(group, id);
            if matches!(group.state(), State::Stable | State::CompletingRebalance) {
                return self.prepare_rebalance(group);
            }
        }
        if group.is(State::PreparingRebalance) && group.all_joined() {
            self.complete_join(group);
        }
    }

    /// The sync phase has lasted too long: who has not synced is out.
    pub(crate) fn sync_phase_ended(&mut self, group: &mut Group) {
        let forming = matches!(group.state(), State::CompletingRebalance | State::Stable);
        if !forming || group.unsynced.is_empty() {
            return;
        }
        for id in std::mem::take(&mut group.unsynced) {
            self.drop_member(group, &id);
        }
        self.prepare_rebalance(group);
    }
}

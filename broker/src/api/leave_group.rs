//! LeaveGroup: one member below version 3, any number from there on.

use coordinator::{LeaveRequest, LeaveResponse, LeavingMember};
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::{Request, Response};
use crate::Context;

/// First version with a list of members.
const MEMBERS_SINCE: i16 = 3;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: LeaveGroupRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let version = request.header.version;
    let left = ctx.groups.leave(from_wire(version, body)).await;
    let response = to_wire(version, left);
    let error = ErrorCode::from_code(response.error_code).unwrap_or(ErrorCode::None);
    ctx.metrics.failed(ApiKey::LeaveGroup, error);
    request.answer(&response)
}

fn from_wire(version: i16, body: LeaveGroupRequest) -> LeaveRequest {
    let members = if version < MEMBERS_SINCE {
        vec![LeavingMember { member: body.member_id.to_string(), instance: None }]
    } else {
        let leaving = body.members.into_iter().map(|member| LeavingMember {
            member: member.member_id.to_string(),
            instance: member.group_instance_id.map(|id| id.to_string()),
        });
        leaving.collect()
    };
    LeaveRequest { group: body.group_id.to_string(), members }
}

fn to_wire(version: i16, left: LeaveResponse) -> LeaveGroupResponse {
    if version < MEMBERS_SINCE {
        // The error of the one member is the error of the request.
        let own = left.members.first().map_or(ErrorCode::None, |member| member.error);
        let error = if left.error == ErrorCode::None { own } else { left.error };
        return LeaveGroupResponse::default().with_error_code(error.code());
    }
    // With an error of the whole request there are no members in the answer.
    let members = left.members.into_iter().filter(|_| left.error == ErrorCode::None);
    let members = members.map(|member| {
        MemberResponse::default()
            .with_member_id(StrBytes::from_string(member.member))
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_error_code(member.error.code())
    });
    LeaveGroupResponse::default().with_error_code(left.error.code()).with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use coordinator::LeftMember;

    use super::*;

    #[test]
    fn an_old_version_lifts_the_error_of_its_one_member() {
        let unknown =
            LeftMember { member: "m".into(), instance: None, error: ErrorCode::UnknownMemberId };
        let left = LeaveResponse { error: ErrorCode::None, members: vec![unknown] };
        let old = to_wire(2, left.clone());
        assert_eq!((old.error_code, old.members.len()), (25, 0));
        let new = to_wire(3, left);
        assert_eq!((new.error_code, new.members[0].error_code), (0, 25));
    }
}

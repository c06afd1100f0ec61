//! JoinGroup. The answer leaves when the join phase ends.

use coordinator::{JoinRequest, JoinResponse, Protocol};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use protocol::{ApiKey, StrBytes};

use super::{Request, Response};
use crate::Context;

/// First version whose first join is sent back with a member id (KIP-394).
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
/// First version in which a leader may be told to skip the assignment (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
/// First version in which the protocol name may be null.
const NULL_PROTOCOL_SINCE: i16 = 7;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: JoinGroupRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let joined = ctx.groups.join(from_wire(&request, body)).await;
    ctx.metrics.failed(ApiKey::JoinGroup, joined.error);
    request.answer(&to_wire(request.header.version, joined))
}

fn from_wire(request: &Request, body: JoinGroupRequest) -> JoinRequest {
    let version = request.header.version;
    let protocols = body
        .protocols
        .into_iter()
        .map(|protocol| Protocol { name: protocol.name.to_string(), metadata: protocol.metadata });
    JoinRequest {
        group: body.group_id.to_string(),
        member: body.member_id.to_string(),
        instance: body.group_instance_id.map(|id| id.to_string()),
        client_id: request.header.client_id.as_deref().unwrap_or_default().to_owned(),
        client_host: format!("/{}", request.peer.ip()),
        session_timeout_ms: body.session_timeout_ms,
        rebalance_timeout_ms: match version {
            0 => body.session_timeout_ms,
            _ => body.rebalance_timeout_ms,
        },
        protocol_type: body.protocol_type.to_string(),
        protocols: protocols.collect(),
        requires_member_id: version >= MEMBER_ID_REQUIRED_SINCE,
        may_skip_assignment: version >= SKIP_ASSIGNMENT_SINCE,
    }
}

fn to_wire(version: i16, joined: JoinResponse) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member))
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    let protocol_name = match joined.protocol_name {
        None if version < NULL_PROTOCOL_SINCE => Some(StrBytes::default()),
        name => name.map(StrBytes::from_string),
    };
    JoinGroupResponse::default()
        .with_error_code(joined.error.code())
        .with_generation_id(joined.generation)
        .with_protocol_type(joined.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(protocol_name)
        .with_leader(StrBytes::from_string(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(StrBytes::from_string(joined.member))
        .with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use protocol::ErrorCode;

    use super::*;

    #[test]
    fn every_version_encodes_errors_and_answers() {
        let mut good = JoinResponse::error("m", ErrorCode::None);
        good.generation = 1;
        good.protocol_type = Some("consumer".into());
        good.protocol_name = Some("range".into());
        for version in 0..=9 {
            for joined in [good.clone(), JoinResponse::error("", ErrorCode::MemberIdRequired)] {
                let mut wire = to_wire(version, joined);
                if version < NULL_PROTOCOL_SINCE {
                    // Older versions have no such field; the codec leaves it out.
                    wire.protocol_type = None;
                }
                assert!(protocol::messages::encode(&wire, version).is_ok(), "{version}");
            }
        }
    }
}

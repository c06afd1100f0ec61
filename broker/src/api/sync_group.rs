//! SyncGroup. The answer leaves when the generation is durable.

use coordinator::{Assignment, SyncRequest, SyncResponse};
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::{Request, Response};
use crate::Context;

/// First version that must name protocol type and name (KIP-559).
const PROTOCOL_NAMED_SINCE: i16 = 5;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: SyncGroupRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let named = body.protocol_type.is_some() && body.protocol_name.is_some();
    let synced = if request.header.version >= PROTOCOL_NAMED_SINCE && !named {
        SyncResponse::error(ErrorCode::InconsistentGroupProtocol)
    } else {
        ctx.groups.sync(from_wire(body)).await
    };
    ctx.metrics.failed(ApiKey::SyncGroup, synced.error);
    let response = SyncGroupResponse::default()
        .with_error_code(synced.error.code())
        .with_protocol_type(synced.protocol_type.map(StrBytes::from_string))
        .with_protocol_name(synced.protocol_name.map(StrBytes::from_string))
        .with_assignment(synced.assignment);
    request.answer(&response)
}

fn from_wire(body: SyncGroupRequest) -> SyncRequest {
    let assignments = body.assignments.into_iter().map(|assignment| Assignment {
        member: assignment.member_id.to_string(),
        bytes: assignment.assignment,
    });
    SyncRequest {
        group: body.group_id.to_string(),
        member: body.member_id.to_string(),
        instance: body.group_instance_id.map(|id| id.to_string()),
        generation: body.generation_id,
        protocol_type: body.protocol_type.map(|text| text.to_string()),
        protocol_name: body.protocol_name.map(|text| text.to_string()),
        assignments: assignments.collect(),
    }
}

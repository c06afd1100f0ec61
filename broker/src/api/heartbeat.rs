//! Heartbeat.

use coordinator::HeartbeatRequest;
use kafka_protocol::messages::{self, HeartbeatResponse};
use protocol::ApiKey;

use super::{Request, Response};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: messages::HeartbeatRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let beat = HeartbeatRequest {
        group: body.group_id.to_string(),
        member: body.member_id.to_string(),
        instance: body.group_instance_id.map(|id| id.to_string()),
        generation: body.generation_id,
    };
    let error = ctx.groups.heartbeat(beat).await;
    ctx.metrics.failed(ApiKey::Heartbeat, error);
    request.answer(&HeartbeatResponse::default().with_error_code(error.code()))
}

//! InitProducerId for idempotent producers. Ids come in blocks from metadata and are never issued twice.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use meta::Reply;
use protocol::ErrorCode;

use super::errors::{Failure, unexpected};
use super::{Request, Response};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: InitProducerIdRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut response = InitProducerIdResponse::default();
    let outcome = match &body.transactional_id {
        Some(id) if id.is_empty() => Err(ErrorCode::InvalidRequest),
        // Transactions are not served yet; the code ends the producer instead of letting it try for ever.
        Some(_) => Err(ErrorCode::UnsupportedVersion),
        None => next_id(ctx).await.map_err(|failure| {
            tracing::warn!(error = failure.message, "no producer id could be issued");
            // Retriable: clients ask again.
            ErrorCode::CoordinatorNotAvailable
        }),
    };
    match outcome {
        Ok(id) => {
            response.producer_id = ProducerId(id);
            response.producer_epoch = 0;
        }
        Err(code) => {
            ctx.metrics.failed(request.header.key, code);
            response.error_code = code.code();
            response.producer_id = ProducerId(-1);
            response.producer_epoch = -1;
        }
    }
    request.answer(&response)
}

/// An id from the block at hand, or from a new one. Two askers at an empty block fetch two blocks: the later one is kept
/// and a part of the other is never used, which ids can afford.
async fn next_id(ctx: &Context) -> Result<i64, Failure> {
    if let Some(id) = ctx.producer_ids.lock().next() {
        return Ok(id);
    }
    let command = meta::command::AllocateProducerIds { node: ctx.node.0 };
    match ctx.meta.propose(command).await? {
        Reply::ProducerIds { start, len } => {
            let mut block = start..start + i64::from(len);
            let id = block.next().ok_or_else(|| {
                Failure::new(ErrorCode::UnknownServerError, "metadata issued an empty block")
            })?;
            *ctx.producer_ids.lock() = block;
            Ok(id)
        }
        Reply::Rejected(reject) => Err(reject.into()),
        other => Err(unexpected(&other)),
    }
}

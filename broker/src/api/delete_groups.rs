//! DeleteGroups. A group is gone when the answer leaves.

use std::collections::BTreeSet;

use futures::future::join_all;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse, GroupId};
use protocol::ApiKey;

use super::{Request, Response};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DeleteGroupsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut seen = BTreeSet::new();
    let distinct: Vec<GroupId> =
        body.groups_names.into_iter().filter(|id| seen.insert(id.to_string())).collect();
    let results = distinct.into_iter().map(|id| async move {
        let error = ctx.groups.delete(id.to_string()).await;
        ctx.metrics.failed(ApiKey::DeleteGroups, error);
        DeletableGroupResult::default().with_group_id(id).with_error_code(error.code())
    });
    request.answer(&DeleteGroupsResponse::default().with_results(join_all(results).await))
}

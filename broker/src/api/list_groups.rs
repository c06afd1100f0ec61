//! ListGroups: the groups whose coordinator this broker is.

use coordinator::{ListRequest, ListedGroup};
use kafka_protocol::messages::list_groups_response;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use protocol::{ApiKey, StrBytes};

use super::{Request, Response};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: ListGroupsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let strings = |filter: Vec<StrBytes>| filter.iter().map(|text| text.to_string()).collect();
    let list =
        ListRequest { states: strings(body.states_filter), types: strings(body.types_filter) };
    let response = match ctx.groups.list(list).await {
        Ok(groups) => {
            ListGroupsResponse::default().with_groups(groups.into_iter().map(to_wire).collect())
        }
        Err(error) => {
            ctx.metrics.failed(ApiKey::ListGroups, error);
            ListGroupsResponse::default().with_error_code(error.code())
        }
    };
    request.answer(&response)
}

fn to_wire(group: ListedGroup) -> list_groups_response::ListedGroup {
    list_groups_response::ListedGroup::default()
        .with_group_id(GroupId(StrBytes::from_string(group.group)))
        .with_protocol_type(StrBytes::from_string(group.protocol_type))
        .with_group_state(StrBytes::from_static_str(group.state))
        .with_group_type(StrBytes::from_static_str(group.kind))
}

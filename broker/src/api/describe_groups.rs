//! DescribeGroups.

use coordinator::{DescribeResponse, DescribedMember};
use futures::future::join_all;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use protocol::{ApiKey, ErrorCode, StrBytes};

use super::{Request, Response};
use crate::Context;

/// First version in which an unknown group is an error; below it is a dead group.
const MISSING_GROUP_NAMED_SINCE: i16 = 6;
/// First version that shows instance ids.
const INSTANCE_SINCE: i16 = 4;
/// First version that can ask for authorized operations.
const OPERATIONS_SINCE: i16 = 3;
/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS: all that can be done to a group.
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: DescribeGroupsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let version = request.header.version;
    let with_operations = version >= OPERATIONS_SINCE && body.include_authorized_operations;
    let described = body.groups.into_iter().map(|id| async move {
        let mut group = match ctx.groups.describe(id.to_string()).await {
            Ok(found) => to_wire(version, id, found),
            Err(error) => DescribedGroup::default().with_group_id(id).with_error_code(error.code()),
        };
        let error = ErrorCode::from_code(group.error_code).unwrap_or(ErrorCode::None);
        ctx.metrics.failed(ApiKey::DescribeGroups, error);
        if with_operations && error == ErrorCode::None {
            group.authorized_operations = ALL_OPERATIONS;
        }
        group
    });
    request.answer(&DescribeGroupsResponse::default().with_groups(join_all(described).await))
}

fn to_wire(version: i16, id: GroupId, found: DescribeResponse) -> DescribedGroup {
    let mut group = DescribedGroup::default()
        .with_group_state(StrBytes::from_static_str(found.state))
        .with_protocol_type(StrBytes::from_string(found.protocol_type))
        .with_protocol_data(StrBytes::from_string(found.protocol))
        .with_members(found.members.into_iter().map(|m| member_to_wire(version, m)).collect());
    if found.error != ErrorCode::None && version >= MISSING_GROUP_NAMED_SINCE {
        group.error_code = found.error.code();
        let message = format!("Group {} not found.", id.as_str());
        group.error_message = Some(StrBytes::from_string(message));
    }
    group.with_group_id(id)
}

fn member_to_wire(version: i16, member: DescribedMember) -> DescribedGroupMember {
    let instance = member.instance.filter(|_| version >= INSTANCE_SINCE);
    DescribedGroupMember::default()
        .with_member_id(StrBytes::from_string(member.member))
        .with_group_instance_id(instance.map(StrBytes::from_string))
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

//! ListGroups and DescribeGroups.

use protocol::ErrorCode;

use crate::group::{Group, State};
use crate::request::ListRequest;
use crate::response::{DescribeResponse, DescribedMember, ListedGroup};

/// The only type of group this coordinator keeps so far.
pub(crate) const CLASSIC: &str = "classic";

/// True when `group` passes the filters of a listing.
pub(crate) fn is_listed(group: &Group, request: &ListRequest) -> bool {
    let passes = |filter: &[String], name: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
    };
    passes(&request.states, group.state().name()) && passes(&request.types, CLASSIC)
}

pub(crate) fn listed(group: &Group) -> ListedGroup {
    ListedGroup {
        group: group.id.clone(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        state: group.state().name(),
        kind: CLASSIC,
    }
}

pub(crate) fn described(group: &Group) -> DescribeResponse {
    let stable = group.is(State::Stable);
    let protocol = group.protocol_name.as_deref().filter(|_| stable);
    let members = group.members.values().map(|member| DescribedMember {
        member: member.id.clone(),
        instance: member.instance.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: member.metadata(protocol),
        assignment: member.assignment.clone(),
    });
    DescribeResponse {
        error: ErrorCode::None,
        group: group.id.clone(),
        state: group.state().name(),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol: protocol.unwrap_or_default().to_owned(),
        members: members.collect(),
    }
}

/// The answer for a group that does not exist.
pub(crate) fn missing(group: &str) -> DescribeResponse {
    DescribeResponse {
        error: ErrorCode::GroupIdNotFound,
        group: group.to_owned(),
        state: "Dead",
        protocol_type: String::new(),
        protocol: String::new(),
        members: Vec::new(),
    }
}

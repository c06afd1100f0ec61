//! Consumer groups over the wire: a life of a group at every version, and what a restart keeps of it.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use protocol::{ErrorCode, StrBytes};

use crate::Broker;
use crate::client::{Client, name};

/// A ConsumerProtocolSubscription of topic "t".
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

async fn find(client: &mut Client, version: i16, key_type: i8) -> (i16, i32) {
    let mut request = FindCoordinatorRequest::default().with_key_type(key_type);
    if version < 4 {
        request.key = text("g");
        let found = client.ask(&request, version).await;
        return (found.error_code, found.node_id.0);
    }
    request.coordinator_keys = vec![text("g"), text("h")];
    let found = client.ask(&request, version).await;
    assert_eq!(found.coordinators.len(), 2);
    (found.coordinators[1].error_code, found.coordinators[1].node_id.0)
}

/// The first question creates the internal topic.
async fn find_at_every_version(client: &mut Client) {
    for version in 0..=6 {
        assert_eq!(find(client, version, 0).await, (0, 1), "version {version}");
    }
    for version in 1..=6 {
        // Transactions, and a type that does not exist.
        let (code, node) = find(client, version, 1).await;
        assert_eq!((code, node), (ErrorCode::UnsupportedVersion.code(), -1));
        let (code, node) = find(client, version, 9).await;
        assert_eq!((code, node), (ErrorCode::InvalidRequest.code(), -1));
    }
}

/// Joins `id` as its only member and makes it stable. Returns the member id.
async fn enter(client: &mut Client, version: i16, id: &str) -> StrBytes {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(SUBSCRIPTION));
    let mut join = JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_session_timeout_ms(600_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version > 0 {
        join.rebalance_timeout_ms = 60_000;
    }
    let mut joined = client.ask(&join, version).await;
    if version >= 4 {
        assert_eq!(joined.error_code, ErrorCode::MemberIdRequired.code());
        join.member_id = joined.member_id;
        joined = client.ask(&join, version).await;
    }
    assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    let member = joined.member_id;

    let version = version.min(5);
    let assignment = SyncGroupRequestAssignment::default()
        .with_member_id(member.clone())
        .with_assignment(Bytes::from_static(b"all"));
    let mut sync = SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_generation_id(1)
        .with_member_id(member.clone())
        .with_assignments(vec![assignment]);
    if version >= 5 {
        let unnamed = client.ask(&sync, version).await;
        assert_eq!(unnamed.error_code, ErrorCode::InconsistentGroupProtocol.code());
        sync.protocol_type = Some(text("consumer"));
        sync.protocol_name = Some(text("range"));
    }
    let synced = client.ask(&sync, version).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    member
}

async fn heartbeat(client: &mut Client, version: i16, id: &str, member: &StrBytes) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(id))
        .with_generation_id(1)
        .with_member_id(member.clone());
    client.ask(&request, version.min(4)).await.error_code
}

/// Commits 40 and 41 for the two partitions of "t", and for what does not exist.
async fn commit(client: &mut Client, version: i16, id: &str, member: &StrBytes) {
    let version = version.max(2);
    let partition = |index: i32| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(40 + i64::from(index))
            .with_committed_metadata(Some(text("note")))
    };
    let topic = |topic: &str, count: i32| {
        OffsetCommitRequestTopic::default()
            .with_name(name(topic))
            .with_partitions((0..count).map(partition).collect())
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_generation_id_or_member_epoch(1)
        .with_member_id(member.clone())
        .with_topics(vec![topic("t", 3), topic("missing", 1)]);
    let committed = client.ask(&request, version).await;
    let codes: Vec<i16> =
        committed.topics.iter().flat_map(|t| &t.partitions).map(|p| p.error_code).collect();
    assert_eq!(codes, [0, 0, 3, 3], "version {version}");
}

async fn leave(client: &mut Client, version: i16, id: &str, member: &StrBytes) {
    let version = version.min(5);
    let mut request = LeaveGroupRequest::default().with_group_id(group(id));
    if version < 3 {
        request.member_id = member.clone();
    } else {
        request.members = vec![MemberIdentity::default().with_member_id(member.clone())];
    }
    assert_eq!(client.ask(&request, version).await.error_code, 0);
}

/// What every version tells of the groups `g0` to `g9`, the even ones left.
async fn check(client: &mut Client) {
    for version in 1..=9 {
        fetch(client, version).await;
    }
    for version in 0..=5 {
        let mut request = ListGroupsRequest::default();
        if version >= 4 {
            request.states_filter = vec![text("stable")];
        }
        let listed = client.ask(&request, version).await;
        assert_eq!(listed.groups.len(), if version < 4 { 10 } else { 5 }, "version {version}");
    }
    for version in 0..=6 {
        let request =
            DescribeGroupsRequest::default().with_groups(vec![group("g3"), group("missing")]);
        let described = client.ask(&request, version).await;
        let member = &described.groups[0].members[0];
        assert_eq!(
            (member.client_host.as_str(), &member.member_assignment[..]),
            ("/127.0.0.1", &b"all"[..])
        );
        let missing = &described.groups[1];
        let code = if version < 6 { 0 } else { ErrorCode::GroupIdNotFound.code() };
        assert_eq!((missing.group_state.as_str(), missing.error_code), ("Dead", code));
    }
}

async fn fetch(client: &mut Client, version: i16) {
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(name("t"))
            .with_partition_indexes(vec![1, 9]);
        let request =
            OffsetFetchRequest::default().with_group_id(group("g3")).with_topics(Some(vec![topic]));
        let found = client.ask(&request, version).await;
        let partitions = &found.topics[0].partitions;
        let offsets = (partitions[0].committed_offset, partitions[1].committed_offset);
        assert_eq!((offsets, partitions[0].metadata.as_deref()), ((41, -1), Some("note")));
        return;
    }
    let topic =
        OffsetFetchRequestTopics::default().with_name(name("t")).with_partition_indexes(vec![1, 9]);
    let some = OffsetFetchRequestGroup::default()
        .with_group_id(group("g3"))
        .with_topics(Some(vec![topic]));
    let all = OffsetFetchRequestGroup::default().with_group_id(group("g4")).with_topics(None);
    let request =
        OffsetFetchRequest::default().with_topics(Some(Vec::new())).with_groups(vec![some, all]);
    let found = client.ask(&request, version).await;
    assert_eq!(found.groups[0].topics[0].partitions[0].committed_offset, 41);
    assert_eq!(found.groups[1].topics[0].partitions.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_live_at_every_version_and_survive_a_restart() {
    let dir = crate::temporary();
    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    client.create("t", 2).await;
    find_at_every_version(&mut client).await;
    let mut stayed = Vec::new();
    for version in 0..=9 {
        let id = format!("g{version}");
        let member = enter(&mut client, version, &id).await;
        assert_eq!(heartbeat(&mut client, version, &id, &member).await, 0);
        commit(&mut client, version, &id, &member).await;
        if version % 2 == 0 {
            leave(&mut client, version, &id, &member).await;
        } else {
            stayed.push((id, member));
        }
    }
    check(&mut client).await;
    drop(client);
    broker.stop().await;

    let broker = Broker::start(dir.path()).await;
    let mut client = broker.connect().await;
    check(&mut client).await;
    for (id, member) in &stayed {
        assert_eq!(heartbeat(&mut client, 4, id, member).await, 0, "no rebalance by a restart");
    }
    for (version, id, code) in [
        (0, "g0", 0),
        (1, "g1", ErrorCode::NonEmptyGroup.code()),
        (2, "g2", 0),
        (2, "g2", ErrorCode::GroupIdNotFound.code()),
    ] {
        // A group that is named twice is deleted once.
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group(id), group(id)]);
        let deleted = client.ask(&request, version).await;
        let codes: Vec<i16> = deleted.results.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [code], "{id}");
    }
    broker.stop().await;
}

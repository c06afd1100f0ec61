//! Static members (`group.instance.id`).

use protocol::ErrorCode;

use super::bench::*;
use crate::*;

fn static_join(member: &str, may_skip_assignment: bool) -> Request {
    let instance = Some("i".to_owned());
    Request::Join(JoinRequest {
        instance,
        may_skip_assignment,
        requires_member_id: true,
        ..join_request(member)
    })
}

fn static_heartbeat(member: &str, instance: &str) -> Request {
    Request::Heartbeat(HeartbeatRequest {
        group: GROUP.into(),
        member: member.into(),
        instance: Some(instance.into()),
        generation: 1,
    })
}

/// A stable group of one static member. Returns its id.
fn stable(bench: &mut Bench) -> String {
    let token = bench.send(static_join("", false));
    let joined = bench.joined(token);
    assert_eq!(joined.error, ErrorCode::None, "a static member needs no second join");
    assert!(joined.member.starts_with("i-"), "{}", joined.member);
    let token = bench.send(sync(&joined.member, 1, &[(&joined.member, "all")]));
    assert_eq!(bench.synced(token).error, ErrorCode::None);
    joined.member
}

#[test]
fn a_static_member_comes_back_without_a_rebalance() {
    let mut bench = Bench::new();
    let old = stable(&mut bench);
    bench.writes_at_once = false;
    let token = bench.send(static_join("", true));
    assert!(bench.answers.is_empty(), "its new id must be durable first");
    bench.write();
    let joined = bench.joined(token);
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, 1));
    assert_ne!(joined.member, old);
    assert!(joined.skip_assignment && joined.leader == joined.member && joined.members.len() == 1);
    let token = bench.send(sync(&joined.member, 1, &[]));
    assert_eq!(bench.synced(token).assignment, "all");

    for (request, error) in [
        (static_heartbeat(&old, "i"), ErrorCode::FencedInstanceId),
        (static_heartbeat(&old, "other"), ErrorCode::UnknownMemberId),
        (static_heartbeat(&joined.member, "i"), ErrorCode::None),
    ] {
        let token = bench.send(request);
        assert_eq!(bench.answer(token), Response::Heartbeat(error));
    }
    let token = bench.send(static_join(&old, true));
    assert_eq!(bench.joined(token).error, ErrorCode::FencedInstanceId);
    bench.restart(0);
    let token = bench.send(static_heartbeat(&joined.member, "i"));
    assert_eq!(bench.answer(token), Response::Heartbeat(ErrorCode::None));
}

#[test]
fn an_old_client_is_not_told_that_it_leads() {
    let mut bench = Bench::new();
    let old = stable(&mut bench);
    let token = bench.send(static_join("", false));
    let joined = bench.joined(token);
    assert_eq!((joined.leader, joined.skip_assignment), (old, false));
    assert!(joined.members.is_empty());
}

#[test]
fn a_refused_replacement_leaves_the_old_member() {
    let mut bench = Bench::new();
    let old = stable(&mut bench);
    bench.writes_at_once = false;
    let token = bench.send(static_join("", true));
    bench.refuse_write(ErrorCode::NotLeaderOrFollower);
    assert_eq!(bench.joined(token).error, ErrorCode::NotCoordinator);
    let token = bench.send(static_heartbeat(&old, "i"));
    assert_eq!(bench.answer(token), Response::Heartbeat(ErrorCode::None));
    bench.advance(i64::from(SESSION_MS));
    assert_eq!(bench.state(), Some((State::Empty, 2)), "its session is watched again");
}

#[test]
fn a_waiting_static_member_is_fenced_by_its_successor() {
    let mut bench = Bench::with(Settings::default());
    let first = bench.send(static_join("", true));
    let second = bench.send(static_join("", true));
    let fenced = bench.joined(first);
    assert_eq!(fenced.error, ErrorCode::FencedInstanceId);
    bench.advance(3_000);
    assert_eq!(bench.joined(second).generation, 1);
}

#[test]
fn changed_protocols_of_a_successor_cause_a_rebalance() {
    let mut bench = Bench::new();
    stable(&mut bench);
    let request = JoinRequest {
        instance: Some("i".into()),
        protocols: vec![protocol("sticky"), protocol("range")],
        ..join_request("")
    };
    let token = bench.send(Request::Join(request));
    let joined = bench.joined(token);
    assert_eq!((joined.generation, joined.protocol_name.as_deref()), (2, Some("sticky")));
}

#[test]
fn a_static_member_stays_through_a_rebalance_it_missed() {
    let mut bench = Bench::new();
    let away = stable(&mut bench);
    let token = bench.send(join(""));
    for _ in 0..6 {
        bench.send(static_heartbeat(&away, "i"));
        bench.advance(9_999);
    }
    bench.send(static_heartbeat(&away, "i"));
    bench.advance(6);
    let joined = bench.joined(token);
    assert_eq!((joined.generation, joined.members.len()), (2, 2), "the absent one is counted in");
    assert_eq!(joined.leader, joined.member);
}

#[test]
fn a_static_member_leaves_by_its_instance() {
    let mut bench = Bench::new();
    stable(&mut bench);
    let token = bench.send(leave(&[("", Some("other")), ("wrong", Some("i")), ("", Some("i"))]));
    let Response::Leave(left) = bench.answer(token) else { panic!() };
    let errors: Vec<ErrorCode> = left.members.iter().map(|member| member.error).collect();
    let expected = [ErrorCode::UnknownMemberId, ErrorCode::FencedInstanceId, ErrorCode::None];
    assert_eq!(errors, expected);
    assert_eq!(bench.state(), Some((State::Empty, 2)));
}

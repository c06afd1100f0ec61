//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup of dynamic members.

use bytes::Bytes;
use protocol::ErrorCode;

use super::bench::*;
use crate::*;

fn join_error(bench: &mut Bench, request: JoinRequest) -> ErrorCode {
    let token = bench.send(Request::Join(request));
    bench.joined(token).error
}

#[test]
fn a_join_is_checked_before_it_reaches_a_group() {
    let mut bench = Bench::new();
    let unnamed = JoinRequest { group: String::new(), ..join_request("") };
    assert_eq!(join_error(&mut bench, unnamed), ErrorCode::InvalidGroupId);
    for session_timeout_ms in [5_999, 1_800_001, -1] {
        let request = JoinRequest { session_timeout_ms, ..join_request("") };
        assert_eq!(join_error(&mut bench, request), ErrorCode::InvalidSessionTimeout);
    }
    assert_eq!(join_error(&mut bench, join_request("nobody")), ErrorCode::UnknownMemberId);
    for request in [
        JoinRequest { protocols: vec![], ..join_request("") },
        JoinRequest { protocol_type: String::new(), ..join_request("") },
    ] {
        assert_eq!(join_error(&mut bench, request), ErrorCode::InconsistentGroupProtocol);
    }
    assert_eq!(bench.shard.group_count(), 0, "a refused join leaves no group behind");
    assert_eq!(bench.log, []);
}

#[test]
fn a_first_join_of_version_4_is_given_an_id_and_sent_back() {
    let mut bench = Bench::new();
    let first = JoinRequest { requires_member_id: true, ..join_request("") };
    let token = bench.send(Request::Join(first.clone()));
    let refused = bench.joined(token);
    assert_eq!(refused.error, ErrorCode::MemberIdRequired);
    assert_eq!((refused.generation, refused.leader.as_str()), (-1, ""));
    assert!(refused.member.starts_with("c-") && refused.member.len() == 38, "{}", refused.member);
    assert_eq!(bench.log.len(), 1, "the group exists from now on");

    let token = bench.send(join(&refused.member));
    let joined = bench.joined(token);
    assert_eq!((joined.error, joined.generation), (ErrorCode::None, 1));
    assert_eq!((&joined.leader, joined.members.len()), (&refused.member, 1));

    // An id that was given and not used is forgotten after its session.
    let token = bench.send(Request::Join(first));
    let unused = bench.joined(token).member;
    bench.advance(i64::from(SESSION_MS));
    assert_eq!(join_error(&mut bench, join_request(&unused)), ErrorCode::UnknownMemberId);
}

#[test]
fn two_members_dance_and_each_gets_its_own_assignment() {
    let mut bench = Bench::with(Settings::default());
    let (a, b) = (bench.send(join("")), bench.send(join("")));
    assert!(bench.answers.is_empty(), "the first members gather for the initial delay");
    bench.advance(3_000);
    assert!(bench.answers.is_empty(), "a second one came, so the delay starts anew");
    bench.advance(3_000);
    let (a, b) = (bench.joined(a), bench.joined(b));
    assert_eq!((a.generation, b.generation), (1, 1));
    assert_eq!(a.leader, b.leader);
    assert_eq!(a.protocol_name.as_deref(), Some("range"));
    let (leader, other) = if a.leader == a.member { (a, b) } else { (b, a) };
    assert_eq!((leader.members.len(), other.members.len()), (2, 0));

    bench.writes_at_once = false;
    let waiting = bench.send(sync(&other.member, 1, &[]));
    let assignments = [(leader.member.as_str(), "L"), (&other.member, "O"), ("stranger", "S")];
    let leading = bench.send(sync(&leader.member, 1, &assignments));
    assert!(bench.answers.is_empty(), "no assignment leaves before the generation is durable");
    assert_eq!(bench.state(), Some((State::CompletingRebalance, 1)));
    while !bench.pending.is_empty() {
        bench.write();
    }
    assert_eq!(bench.synced(waiting).assignment, "O");
    assert_eq!(bench.synced(leading).assignment, "L");
    assert_eq!(bench.state(), Some((State::Stable, 1)));
    let again = bench.send(sync(&other.member, 1, &[]));
    assert_eq!(bench.synced(again).assignment, "O");
}

#[test]
fn a_third_member_makes_the_others_join_again() {
    let mut bench = Bench::new();
    let first = bench.stable();
    let second = bench.send(join(""));
    assert_eq!(bench.state(), Some((State::PreparingRebalance, 1)));
    assert_eq!(bench.heartbeat(&first, 1), ErrorCode::RebalanceInProgress);
    let token = bench.send(sync(&first, 1, &[]));
    assert_eq!(bench.synced(token).error, ErrorCode::RebalanceInProgress);
    let again = bench.send(join(&first));
    let (first, second) = (bench.joined(again), bench.joined(second));
    assert_eq!((first.generation, second.generation), (2, 2));
    assert_eq!(bench.heartbeat(&second.member, 2), ErrorCode::None);
    assert_eq!(bench.heartbeat(&second.member, 1), ErrorCode::IllegalGeneration);
    assert_eq!(bench.heartbeat("nobody", 2), ErrorCode::UnknownMemberId);
    let token = bench.send(sync(&second.member, 1, &[]));
    assert_eq!(bench.synced(token).error, ErrorCode::IllegalGeneration);
    let token = bench.send(sync("nobody", 2, &[]));
    assert_eq!(bench.synced(token).error, ErrorCode::UnknownMemberId);
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut bench = Bench::new();
    let first = bench.stable();
    let second = bench.send(join(""));
    for _ in 0..6 {
        assert_eq!(bench.heartbeat(&first, 1), ErrorCode::RebalanceInProgress);
        bench.advance(9_999);
    }
    assert_eq!(bench.heartbeat(&first, 1), ErrorCode::RebalanceInProgress);
    assert!(bench.answers.is_empty());
    bench.advance(6);
    let second = bench.joined(second);
    assert_eq!((second.generation, second.members.len()), (2, 1));
    assert_eq!(second.leader, second.member, "the leader that stayed away is replaced");
    assert_eq!(bench.heartbeat(&first, 2), ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_loses_its_session() {
    let mut bench = Bench::new();
    let member = bench.stable();
    bench.advance(9_000);
    assert_eq!(bench.heartbeat(&member, 1), ErrorCode::None);
    bench.advance(9_999);
    assert_eq!(bench.state(), Some((State::Stable, 1)));
    bench.advance(1);
    assert_eq!(bench.state(), Some((State::Empty, 2)));
    assert_eq!(bench.heartbeat(&member, 1), ErrorCode::UnknownMemberId);
    assert_eq!(join_error(&mut bench, join_request(&member)), ErrorCode::UnknownMemberId);
}

#[test]
fn who_does_not_sync_in_time_is_out() {
    let mut bench = Bench::new();
    let (first, second) = (bench.stable(), bench.send(join("")));
    let again = bench.send(join(&first));
    let (leader, silent) = (bench.joined(again), bench.joined(second).member);
    let token = bench.send(sync(&leader.member, 2, &[(&leader.member, "x")]));
    assert_eq!(bench.synced(token).error, ErrorCode::None);
    for _ in 0..6 {
        bench.heartbeat(&leader.member, 2);
        bench.heartbeat(&silent, 2);
        bench.advance(9_999);
    }
    assert_eq!(bench.state(), Some((State::Stable, 2)));
    bench.heartbeat(&leader.member, 2);
    bench.advance(6);
    assert_eq!(bench.state(), Some((State::PreparingRebalance, 2)));
    assert_eq!(bench.heartbeat(&silent, 2), ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_during_the_sync_is_told_to_who_waits() {
    let mut bench = Bench::new();
    let (first, second) = (bench.stable(), bench.send(join("")));
    let again = bench.send(join(&first));
    let (leader, follower) = (bench.joined(again), bench.joined(second).member);
    let waiting = bench.send(sync(&follower, 2, &[]));
    bench.writes_at_once = false;
    let leading = bench.send(sync(&leader.member, 2, &[(&follower, "late")]));
    let third = bench.send(join(""));
    assert_eq!(bench.synced(waiting).error, ErrorCode::RebalanceInProgress);
    assert_eq!(bench.synced(leading).error, ErrorCode::RebalanceInProgress);
    bench.write();
    assert_eq!(
        bench.state(),
        Some((State::PreparingRebalance, 2)),
        "the late record changes nothing"
    );
    assert!(bench.answers.is_empty());
    for member in [&leader.member, &follower] {
        bench.send(join(member));
    }
    assert_eq!(bench.joined(third).generation, 3);
}

#[test]
fn a_refused_assignment_starts_the_group_over() {
    let mut bench = Bench::new();
    let token = bench.send(join(""));
    let member = bench.joined(token).member;
    bench.writes_at_once = false;
    let waiting = bench.send(sync(&member, 1, &[(&member, "x")]));
    bench.refuse_write(ErrorCode::NotEnoughReplicas);
    assert_eq!(bench.synced(waiting).error, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.state(), Some((State::PreparingRebalance, 1)));
}

#[test]
fn protocols_must_agree() {
    let mut bench = Bench::new();
    let member = bench.stable();
    let connect = JoinRequest { protocol_type: "connect".into(), ..join_request("") };
    assert_eq!(join_error(&mut bench, connect), ErrorCode::InconsistentGroupProtocol);
    let sticky = JoinRequest { protocols: vec![protocol("sticky")], ..join_request("") };
    assert_eq!(join_error(&mut bench, sticky), ErrorCode::InconsistentGroupProtocol);
    let wrong = |kind: &str, name: &str| {
        Request::Sync(SyncRequest {
            group: GROUP.into(),
            member: member.clone(),
            generation: 1,
            protocol_type: Some(kind.into()),
            protocol_name: Some(name.into()),
            ..SyncRequest::default()
        })
    };
    for (kind, name, error) in [
        ("connect", "range", ErrorCode::InconsistentGroupProtocol),
        ("consumer", "sticky", ErrorCode::InconsistentGroupProtocol),
        ("consumer", "range", ErrorCode::None),
    ] {
        let token = bench.send(wrong(kind, name));
        assert_eq!(bench.synced(token).error, error);
    }
}

#[test]
fn the_protocol_with_most_votes_wins() {
    let mut bench = Bench::with(Settings::default());
    let tokens: Vec<Token> = [["a", "b"], ["b", "a"], ["b", "a"]]
        .iter()
        .map(|names| {
            let protocols = names.iter().map(|name| protocol(name)).collect();
            bench.send(Request::Join(JoinRequest { protocols, ..join_request("") }))
        })
        .collect();
    bench.advance(60_000);
    for token in tokens {
        assert_eq!(bench.joined(token).protocol_name.as_deref(), Some("b"));
    }
}

#[test]
fn a_member_that_changes_nothing_is_given_the_same_answer_again() {
    let mut bench = Bench::new();
    let token = bench.send(join(""));
    let member = bench.joined(token).member;
    let token = bench.send(join(&member));
    let again = bench.joined(token);
    assert_eq!((again.generation, again.members.len()), (1, 1), "the leader, before it synced");
    let token = bench.send(sync(&member, 1, &[]));
    assert_eq!(bench.synced(token).error, ErrorCode::None);
    let token = bench.send(join(&member));
    assert_eq!(bench.joined(token).generation, 2, "a stable group's leader asks for a rebalance");
}

#[test]
fn a_full_group_takes_nobody_else() {
    let settings =
        Settings { group_size_max: 1, initial_rebalance_delay_ms: 0, ..Settings::default() };
    let mut bench = Bench::with(settings);
    let member = bench.stable();
    let token = bench.send(join(""));
    let refused = bench.joined(token);
    assert_eq!((refused.error, refused.member.as_str()), (ErrorCode::GroupMaxSizeReached, ""));
    let token = bench.send(join(&member));
    assert_eq!(bench.joined(token).generation, 2);
}

#[test]
fn leaving_is_answered_when_the_empty_group_is_durable() {
    let mut bench = Bench::new();
    let member = bench.stable();
    let token = bench.send(leave(&[("nobody", None)]));
    let Response::Leave(left) = bench.answer(token) else { panic!() };
    assert_eq!(left.members[0].error, ErrorCode::UnknownMemberId);
    bench.writes_at_once = false;
    let token = bench.send(leave(&[(&member, None)]));
    assert!(bench.answers.is_empty());
    bench.write();
    let Response::Leave(left) = bench.answer(token) else { panic!() };
    assert_eq!((left.error, left.members[0].error), (ErrorCode::None, ErrorCode::None));
    assert_eq!(bench.state(), Some((State::Empty, 2)));
}

#[test]
fn leaving_an_unknown_group_names_each_member() {
    let mut bench = Bench::new();
    let token = bench.send(leave(&[("a", None), ("", Some("i"))]));
    let Response::Leave(left) = bench.answer(token) else { panic!() };
    assert_eq!(left.error, ErrorCode::None);
    assert!(left.members.iter().all(|member| member.error == ErrorCode::UnknownMemberId));
}

#[test]
fn requests_to_an_unknown_group_have_kafkas_codes() {
    let mut bench = Bench::new();
    assert_eq!(bench.heartbeat("m", 1), ErrorCode::UnknownMemberId);
    let token = bench.send(sync("m", 1, &[]));
    assert_eq!(bench.synced(token).error, ErrorCode::UnknownMemberId);
}

#[test]
fn a_restarted_group_keeps_its_generation_and_members() {
    let mut bench = Bench::new();
    let member = bench.stable();
    bench.restart(0);
    assert_eq!(bench.state(), Some((State::Stable, 1)));
    assert_eq!(bench.heartbeat(&member, 1), ErrorCode::None);
    let token = bench.send(sync(&member, 1, &[]));
    assert_eq!(bench.synced(token).assignment, Bytes::from_static(b"all"));
    bench.advance(i64::from(SESSION_MS));
    assert_eq!(bench.state(), Some((State::Empty, 2)), "sessions begin anew at the start");
}

#[test]
fn an_id_too_long_for_a_record_is_refused() {
    let mut bench = Bench::new();
    let token =
        bench.send(Request::Join(JoinRequest { group: "x".repeat(40_000), ..join_request("") }));
    assert_eq!(bench.answer(token), Response::Refused(ErrorCode::InvalidRequest));
}

#[test]
fn closing_answers_everybody() {
    let mut bench = Bench::new();
    let member = bench.stable();
    bench.writes_at_once = false;
    let waiting = bench.send(join(""));
    let committing = bench.send(commit(&member, 1, 5));
    let reading = bench.send(fetch());
    for effect in bench.shard.close(ErrorCode::NotCoordinator) {
        let Effect::Respond { token, response } = effect else { panic!("{effect:?}") };
        bench.answers.insert(token, response);
    }
    assert_eq!(bench.joined(waiting).error, ErrorCode::NotCoordinator);
    assert_eq!(bench.committed(committing), [ErrorCode::NotCoordinator]);
    assert_eq!(bench.answer(reading), Response::Refused(ErrorCode::NotCoordinator));
}

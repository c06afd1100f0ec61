//! A shard with a log, a clock and a mailbox.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use common::Rng;
use protocol::ErrorCode;

use crate::*;

pub(super) const GROUP: &str = "g";
pub(super) const SESSION_MS: i32 = 10_000;
pub(super) const REBALANCE_MS: i32 = 60_000;

pub(super) struct Bench {
    pub(super) shard: Shard,
    settings: Settings,
    pub(super) now: Time,
    next_token: u64,
    /// Records that have passed the gate.
    pub(super) log: Vec<Record>,
    /// Writes under way.
    pub(super) pending: VecDeque<(WriteId, Vec<Record>)>,
    pub(super) answers: BTreeMap<Token, Response>,
    /// When false, writes wait for [`Bench::write`].
    pub(super) writes_at_once: bool,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(Settings { initial_rebalance_delay_ms: 0, ..Settings::default() })
    }

    pub(super) fn with(settings: Settings) -> Self {
        let mut shard = Shard::new(settings.clone(), Rng::seeded(1));
        let now = Time { wall_ms: 1_000_000, uptime_ms: 0 };
        assert_eq!(shard.loaded(now), []);
        Self {
            shard,
            settings,
            now,
            next_token: 0,
            log: Vec::new(),
            pending: VecDeque::new(),
            answers: BTreeMap::new(),
            writes_at_once: true,
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { write, records } => self.pending.push_back((write, records)),
                Effect::Respond { token, response } => {
                    assert!(self.answers.insert(token, response).is_none(), "answered twice");
                }
            }
        }
        while self.writes_at_once && !self.pending.is_empty() {
            self.write();
        }
    }

    /// The oldest write passes the gate.
    pub(super) fn write(&mut self) {
        let (write, records) = self.pending.pop_front().expect("a write under way");
        self.log.extend(records);
        let effects = self.shard.written(self.now, write, Ok(()));
        self.take(effects);
    }

    /// The oldest write is refused.
    pub(super) fn refuse_write(&mut self, error: ErrorCode) {
        let (write, _) = self.pending.pop_front().expect("a write under way");
        let effects = self.shard.written(self.now, write, Err(WriteError(error)));
        self.take(effects);
    }

    pub(super) fn send(&mut self, request: Request) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let effects = self.shard.handle(self.now, token, request);
        self.take(effects);
        // What is due at once (a delay of 0) happens at once.
        let effects = self.shard.tick(self.now);
        self.take(effects);
        token
    }

    /// Time passes; each deadline is met when it comes.
    pub(super) fn advance(&mut self, ms: i64) {
        let end = self.now.uptime_ms + ms;
        while let Some(deadline) = self.shard.next_deadline().filter(|at| *at <= end) {
            let step = (deadline - self.now.uptime_ms).max(0);
            self.now.uptime_ms += step;
            self.now.wall_ms += step;
            let effects = self.shard.tick(self.now);
            self.take(effects);
        }
        self.now.wall_ms += end - self.now.uptime_ms;
        self.now.uptime_ms = end;
    }

    /// The process dies; a new one replays the log. Unanswered requests and writes under way are lost, or, for as many
    /// as `kept` of the latter, in the log without an answer.
    pub(super) fn restart(&mut self, kept: usize) {
        for (_, records) in self.pending.drain(..).take(kept) {
            self.log.extend(records);
        }
        self.pending.clear();
        self.answers.clear();
        self.shard = Shard::new(self.settings.clone(), Rng::seeded(self.next_token + 2));
        for record in &self.log {
            let replayed = self.shard.replay(&record.key, record.value.as_deref());
            assert_eq!(replayed, Ok(Replayed::Applied));
        }
        self.now.uptime_ms = 0;
        let effects = self.shard.loaded(self.now);
        self.take(effects);
    }

    pub(super) fn state(&self) -> Option<(State, i32)> {
        self.shard.group_state(GROUP)
    }

    pub(super) fn answer(&mut self, token: Token) -> Response {
        self.answers.remove(&token).unwrap_or_else(|| panic!("{token:?} is not answered"))
    }

    pub(super) fn joined(&mut self, token: Token) -> JoinResponse {
        match self.answer(token) {
            Response::Join(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn synced(&mut self, token: Token) -> SyncResponse {
        match self.answer(token) {
            Response::Sync(response) => response,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group: GROUP.into(),
            member: member.into(),
            generation,
            ..HeartbeatRequest::default()
        };
        let token = self.send(Request::Heartbeat(request));
        match self.answer(token) {
            Response::Heartbeat(error) => error,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn committed(&mut self, token: Token) -> Vec<ErrorCode> {
        match self.answer(token) {
            Response::Commit(errors) => {
                errors.topics.into_iter().flat_map(|(_, p)| p).map(|(_, error)| error).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    /// (offset, metadata) of topic `t`, partition 0.
    pub(super) fn fetched(&mut self, token: Token) -> (i64, String) {
        match self.answer(token) {
            Response::Fetch(response) => {
                let found = &response.topics[0].partitions[0];
                (found.offset, found.metadata.clone())
            }
            other => panic!("{other:?}"),
        }
    }

    /// A group of one dynamic member, stable. Returns its id.
    pub(super) fn stable(&mut self) -> String {
        let token = self.send(join(""));
        let member = self.joined(token).member;
        let token = self.send(sync(&member, 1, &[(&member, "all")]));
        assert_eq!(self.synced(token).assignment, "all");
        assert_eq!(self.state(), Some((State::Stable, 1)));
        member
    }
}

pub(super) fn protocol(name: &str) -> Protocol {
    // ConsumerProtocolSubscription v0 of topic "t".
    let metadata = Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff");
    Protocol { name: name.into(), metadata }
}

pub(super) fn join_request(member: &str) -> JoinRequest {
    JoinRequest {
        group: GROUP.into(),
        member: member.into(),
        client_id: "c".into(),
        client_host: "/h".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range")],
        ..JoinRequest::default()
    }
}

pub(super) fn join(member: &str) -> Request {
    Request::Join(join_request(member))
}

pub(super) fn sync(member: &str, generation: i32, assignments: &[(&str, &str)]) -> Request {
    let assignments = assignments.iter().map(|(member, bytes)| Assignment {
        member: (*member).into(),
        bytes: Bytes::copy_from_slice(bytes.as_bytes()),
    });
    Request::Sync(SyncRequest {
        group: GROUP.into(),
        member: member.into(),
        generation,
        assignments: assignments.collect(),
        ..SyncRequest::default()
    })
}

pub(super) fn leave(members: &[(&str, Option<&str>)]) -> Request {
    let members = members.iter().map(|(member, instance)| LeavingMember {
        member: (*member).into(),
        instance: instance.map(Into::into),
    });
    Request::Leave(LeaveRequest { group: GROUP.into(), members: members.collect() })
}

pub(super) fn commit_request(member: &str, generation: i32, offset: i64) -> CommitRequest {
    CommitRequest {
        group: GROUP.into(),
        member: member.into(),
        generation,
        retention_ms: -1,
        topics: vec![TopicCommits {
            topic: "t".into(),
            partitions: vec![CommittedPartition {
                partition: 0,
                offset,
                leader_epoch: 4,
                metadata: "m".into(),
            }],
        }],
        ..CommitRequest::default()
    }
}

pub(super) fn commit(member: &str, generation: i32, offset: i64) -> Request {
    Request::Commit(commit_request(member, generation, offset))
}

pub(super) fn fetch() -> Request {
    let topics = vec![TopicPartitions { topic: "t".into(), partitions: vec![0] }];
    Request::Fetch(FetchRequest { group: GROUP.into(), topics: Some(topics) })
}

//! What the operations of all groups share: settings, time, timers, effects, and the writes under way.

use std::collections::BTreeMap;

use bytes::Bytes;
use common::Rng;

use crate::effect::{Effect, Record, Time, Token, WriteId};
use crate::group::Group;
use crate::member::{Member, Protocol};
use crate::records::Key;
use crate::response::{JoinResponse, Response};
use crate::settings::Settings;
use crate::timers::{Timer, Timers};

/// Keys and values of one append, so that the batch stays far below any `max.message.bytes`.
const WRITE_BYTES_MAX: usize = 512 << 10;

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) rng: Rng,
    pub(crate) now: Time,
    pub(crate) timers: Timers,
    pub(crate) effects: Vec<Effect>,
    pub(crate) writes: BTreeMap<WriteId, Write>,
    next_write: u64,
}

/// A write under way.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) group: String,
    pub(crate) records: Vec<Record>,
    pub(crate) after: After,
}

/// What happens once the records of a write are durable and replayed.
#[derive(Debug)]
pub(crate) enum After {
    /// Nothing more.
    Nothing,
    /// This answer leaves; an error takes its place when the write was refused.
    Reply { token: Token, response: Response },
    /// The generation becomes stable and its members learn their assignments.
    Assign { generation: i32, assignments: BTreeMap<String, Bytes> },
    /// A static member has come back under a new id; its join is answered.
    Replaced(Replaced),
    /// The group is gone.
    Deleted { token: Option<Token> },
}

/// What a refused write takes back.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) instance: String,
    pub(crate) old_member: String,
    pub(crate) new_member: String,
    pub(crate) old_protocols: Vec<Protocol>,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) old_session_timeout_ms: i32,
    pub(crate) old_leader: Option<String>,
    pub(crate) may_skip_assignment: bool,
}

impl Context {
    pub(crate) fn new(settings: Settings, rng: Rng) -> Self {
        Self {
            settings,
            rng,
            now: Time::default(),
            timers: Timers::default(),
            effects: Vec::new(),
            writes: BTreeMap::new(),
            next_write: 0,
        }
    }

    pub(crate) fn respond(&mut self, token: Token, response: Response) {
        self.effects.push(Effect::Respond { token, response });
    }

    /// Starts the write of `records`, which must not be empty.
    pub(crate) fn append(&mut self, group: &mut Group, records: Vec<Record>, after: After) {
        assert!(!records.is_empty(), "a write without records");
        let write = WriteId(self.next_write);
        self.next_write += 1;
        group.writes += 1;
        group.last_write = Some(write);
        self.effects.push(Effect::Append { write, records: records.clone() });
        self.writes.insert(write, Write { group: group.id.clone(), records, after });
    }

    /// Like [`Self::append`], cut into several writes where one would be too large; `after` follows the last.
    pub(crate) fn append_in_parts(
        &mut self,
        group: &mut Group,
        records: Vec<Record>,
        after: After,
    ) {
        let mut part = Vec::new();
        let mut bytes = 0;
        for record in records {
            let size = record.key.len() + record.value.as_ref().map_or(0, Bytes::len);
            if !part.is_empty() && bytes + size > WRITE_BYTES_MAX {
                self.append(group, std::mem::take(&mut part), After::Nothing);
                bytes = 0;
            }
            bytes += size;
            part.push(record);
        }
        self.append(group, part, after);
    }

    /// Writes the group's present generation, with `assignment` deciding what each member is given.
    pub(crate) fn append_metadata(
        &mut self,
        group: &mut Group,
        assignment: impl Fn(&Member) -> Bytes,
        after: After,
    ) {
        let key = Key::Group { group: group.id.clone() }.encode();
        let value = group.saved(assignment).encode();
        self.append(group, vec![Record { key, value: Some(value) }], after);
    }

    /// The newest write of `group` that is still under way.
    pub(crate) fn pending_write(&self, group: &Group) -> Option<WriteId> {
        group.last_write.filter(|write| self.writes.contains_key(write))
    }

    pub(crate) fn newest_write(&self) -> Option<WriteId> {
        self.writes.last_key_value().map(|(write, _)| *write)
    }

    fn after_ms(&self, delay_ms: i64) -> i64 {
        self.now.uptime_ms.saturating_add(delay_ms.max(0))
    }

    pub(crate) fn set_timer(&mut self, timer: Timer, delay_ms: i64) {
        let deadline = self.after_ms(delay_ms);
        self.timers.set(timer, deadline);
    }

    pub(crate) fn expect_heartbeat(&mut self, group: &str, member: &str, within_ms: i64) {
        let timer = Timer::Heartbeat { group: group.to_owned(), member: member.to_owned() };
        self.set_timer(timer, within_ms);
    }

    pub(crate) fn forget_heartbeat(&mut self, group: &str, member: &str) {
        self.timers
            .cancel(&Timer::Heartbeat { group: group.to_owned(), member: member.to_owned() });
    }

    /// Answers the join that `member` waits on, if any.
    pub(crate) fn answer_join(&mut self, member: &mut Member, response: JoinResponse) -> bool {
        let Some(token) = member.awaiting_join.take() else { return false };
        self.respond(token, Response::Join(response));
        true
    }
}

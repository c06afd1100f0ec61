//! DeleteGroups, and the offsets of deleted topics.

use protocol::ErrorCode;

use crate::committed::CommittedGroup;
use crate::context::{After, Context};
use crate::effect::{Record, Token};
use crate::group::{Group, State};
use crate::offsets::tombstone;
use crate::records::Key;
use crate::response::Response;

impl Context {
    /// Starts the deletion. Returns true when the group has nothing durable and is to be dropped at once.
    pub(crate) fn delete(
        &mut self,
        group: &mut Group,
        committed: Option<&CommittedGroup>,
        token: Token,
    ) -> bool {
        if !group.is(State::Empty) {
            self.respond(token, Response::Delete(ErrorCode::NonEmptyGroup));
            return false;
        }
        let records = group_tombstones(&group.id, committed);
        if records.is_empty() {
            self.respond(token, Response::Delete(ErrorCode::None));
            return true;
        }
        group.deleting = true;
        self.append_in_parts(group, records, After::Deleted { token: Some(token) });
        false
    }

    /// Writes tombstones for what `group` committed for `topic`.
    pub(crate) fn forget_topic(
        &mut self,
        group: &mut Group,
        committed: &CommittedGroup,
        topic: &str,
    ) {
        let partitions = committed.offsets.get(topic).into_iter().flatten();
        let records: Vec<Record> =
            partitions.map(|(partition, _)| tombstone(&group.id, topic, *partition)).collect();
        if !records.is_empty() {
            self.append_in_parts(group, records, After::Nothing);
        }
    }
}

/// Tombstones for all that is durable of a group; its metadata last, so that a crash in between leaves a group that can
/// be deleted again.
fn group_tombstones(id: &str, committed: Option<&CommittedGroup>) -> Vec<Record> {
    let Some(committed) = committed else { return Vec::new() };
    let mut records: Vec<Record> = committed
        .offsets
        .iter()
        .flat_map(|(topic, partitions)| {
            partitions.keys().map(move |partition| tombstone(id, topic, *partition))
        })
        .collect();
    if committed.metadata.is_some() {
        records.push(group_tombstone(id));
    }
    records
}

/// The tombstone of a group's metadata.
pub(crate) fn group_tombstone(id: &str) -> Record {
    Record { key: Key::Group { group: id.to_owned() }.encode(), value: None }
}

//! Retention of offsets and of groups that nothing keeps.

use crate::committed::CommittedGroup;
use crate::context::{After, Context};
use crate::delete::group_tombstone;
use crate::effect::Record;
use crate::group::{Group, State};
use crate::offsets::tombstone;
use crate::records::CommittedOffset;

/// From when the retention of an offset counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// The commit.
    Commit,
    /// The moment the group became empty.
    Empty(i64),
}

impl Context {
    /// Writes tombstones for what has expired. Returns true when the group has nothing durable and nobody in it.
    pub(crate) fn expire(&mut self, group: &mut Group, committed: Option<&CommittedGroup>) -> bool {
        if group.writes > 0 || group.deleting {
            return false;
        }
        let Some(committed) = committed else { return group.is_vacant() };
        let (mut records, all) = match since(group) {
            Some(since) => self.expired(group, committed, since),
            None => (Vec::new(), committed.offsets.is_empty()),
        };
        let ends = all && group.is_vacant();
        if ends && committed.metadata.is_some() {
            records.push(group_tombstone(&group.id));
        }
        if records.is_empty() {
            return false;
        }
        group.deleting = ends;
        let after = if ends { After::Deleted { token: None } } else { After::Nothing };
        self.append_in_parts(group, records, after);
        false
    }

    /// Tombstones of expired offsets, and whether that is all of them.
    fn expired(
        &self,
        group: &Group,
        committed: &CommittedGroup,
        since: Since,
    ) -> (Vec<Record>, bool) {
        let mut all = true;
        let mut records = Vec::new();
        for (topic, partitions) in &committed.offsets {
            let in_use = group.reads(topic);
            for (partition, offset) in partitions {
                if !in_use && self.is_expired(offset, since) {
                    records.push(tombstone(&group.id, topic, *partition));
                } else {
                    all = false;
                }
            }
        }
        (records, all)
    }

    fn is_expired(&self, offset: &CommittedOffset, since: Since) -> bool {
        let now = self.now.wall_ms;
        if let Some(expire_ms) = offset.expire_ms {
            return now >= expire_ms;
        }
        let base = match since {
            Since::Empty(ms) if ms >= 0 => ms,
            Since::Empty(_) | Since::Commit => offset.commit_ms,
        };
        now.saturating_sub(base) >= self.settings.offsets_retention_ms
    }
}

/// `None` while the group keeps its offsets alive.
fn since(group: &Group) -> Option<Since> {
    match (&group.protocol_type, group.state()) {
        (None, _) => Some(Since::Commit),
        (Some(_), State::Empty) => Some(Since::Empty(group.state_ms)),
        (Some(_), State::Stable) if group.subscribed.is_some() => Some(Since::Commit),
        (Some(_), _) => None,
    }
}

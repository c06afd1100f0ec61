//! The durable image: what the records of the partition say, and nothing else.

use std::collections::BTreeMap;

use crate::records::{CommittedOffset, DecodeError, GroupMetadata, Key};

/// All groups of a shard as their records describe them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    groups: BTreeMap<String, CommittedGroup>,
}

/// One group as its records describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedGroup {
    /// The last committed generation; `None` for a group of offsets alone.
    pub metadata: Option<GroupMetadata>,
    /// By topic and partition. No topic is kept without partitions.
    pub offsets: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
}

/// What a replayed record was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It changed the image, or repeated what stood there.
    Applied,
    /// Its key is of a kind this build does not know.
    Unknown,
}

impl Committed {
    /// Applies one record. `value` is `None` for a tombstone.
    ///
    /// # Errors
    /// When key or value is damaged; the image is unchanged then.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<Replayed, DecodeError> {
        match Key::decode(key)? {
            None => return Ok(Replayed::Unknown),
            Some(Key::Group { group }) => match value.map(GroupMetadata::decode).transpose()? {
                Some(metadata) => {
                    self.groups.entry(group).or_default().metadata = Some(metadata);
                }
                None => self.change(&group, |found| found.metadata = None),
            },
            Some(Key::Offset { group, topic, partition }) => {
                match value.map(CommittedOffset::decode).transpose()? {
                    Some(offset) => {
                        let found = self.groups.entry(group).or_default();
                        found.offsets.entry(topic).or_default().insert(partition, offset);
                    }
                    None => self.change(&group, |found| found.forget(&topic, partition)),
                }
            }
        }
        Ok(Replayed::Applied)
    }

    fn change(&mut self, group: &str, change: impl FnOnce(&mut CommittedGroup)) {
        let Some(found) = self.groups.get_mut(group) else { return };
        change(found);
        if found.metadata.is_none() && found.offsets.is_empty() {
            self.groups.remove(group);
        }
    }

    /// The group `id`, if any record of it is alive.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&CommittedGroup> {
        self.groups.get(id)
    }

    /// All groups, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &CommittedGroup)> {
        self.groups.iter().map(|(id, group)| (id.as_str(), group))
    }
}

impl CommittedGroup {
    fn forget(&mut self, topic: &str, partition: i32) {
        let Some(partitions) = self.offsets.get_mut(topic) else { return };
        partitions.remove(&partition);
        if partitions.is_empty() {
            self.offsets.remove(topic);
        }
    }

    /// The committed offset of a partition.
    #[must_use]
    pub fn offset(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.offsets.get(topic)?.get(&partition)
    }
}

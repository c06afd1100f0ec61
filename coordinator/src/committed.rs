//! The durable image: what the records of the partition say, and nothing else.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::effect::Record;
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

    /// The fewest records that replay to this image.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.groups.iter().flat_map(|(id, group)| group.records(id))
    }

    /// The image as a snapshot, which [`Self::restore`] reads: records back to back.
    ///
    /// ```text
    /// | key length: u32 | key | value length: u32 | value |   ... little-endian, no tombstones
    /// ```
    ///
    /// # Panics
    /// When a record is 4 GiB or larger; frames are far smaller.
    #[must_use]
    pub fn snapshot(&self) -> Bytes {
        let mut out = BytesMut::new();
        for record in self.records() {
            for part in [&record.key, &record.value.unwrap_or_default()] {
                out.put_u32_le(u32::try_from(part.len()).expect("a record below 4 GiB"));
                out.put_slice(part);
            }
        }
        out.freeze()
    }

    /// Replays a snapshot into this image, which must be empty.
    ///
    /// # Errors
    /// When the bytes are not a snapshot; the image is of no use then.
    pub fn restore(&mut self, mut snapshot: &[u8]) -> Result<(), DecodeError> {
        while !snapshot.is_empty() {
            let key = snapshot_part(&mut snapshot)?;
            let value = snapshot_part(&mut snapshot)?;
            self.replay(key, Some(value))?;
        }
        Ok(())
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

fn snapshot_part<'a>(snapshot: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let short = DecodeError::Short { field: "snapshot" };
    let (length, rest) = snapshot.split_first_chunk::<4>().ok_or(short.clone())?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| short.clone())?;
    let (part, rest) = rest.split_at_checked(length).ok_or(short)?;
    *snapshot = rest;
    Ok(part)
}

impl CommittedGroup {
    fn records(&self, id: &str) -> impl Iterator<Item = Record> {
        let metadata = self.metadata.iter().map(move |metadata| Record {
            key: Key::Group { group: id.to_owned() }.encode(),
            value: Some(metadata.encode()),
        });
        let offsets = self.offsets.iter().flat_map(move |(topic, partitions)| {
            partitions.iter().map(move |(partition, offset)| {
                let (group, topic) = (id.to_owned(), topic.clone());
                let key = Key::Offset { group, topic, partition: *partition };
                Record { key: key.encode(), value: Some(offset.encode()) }
            })
        });
        metadata.chain(offsets)
    }

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

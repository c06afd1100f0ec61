//! Loading a shard: its partition is replayed from the log start to the high watermark.

use std::sync::Arc;

use bytes::Bytes;
use common::PartitionId;
use coordinator::records::DecodeError;
use coordinator::{Replayed, Shard};
use partition::{BatchReader, Isolation, Partition, ReadRequest, StateKind};
use storage::Class;
use tracing::warn;

use super::Groups;

/// Bytes of one read while loading.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Version of the payload of a snapshot.
pub(super) const SNAPSHOT_VERSION: u16 = 1;

#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error(transparent)]
    Open(#[from] partition::OpenError),
    #[error(transparent)]
    Read(#[from] partition::ReadError),
    #[error("the batch at offset {offset} cannot be read: {reason}")]
    Batch { offset: i64, reason: String },
    #[error("the snapshot for offset {offset} and on cannot be read: {reason}")]
    Snapshot { offset: i64, reason: String },
}

impl LoadError {
    /// True when trying again cannot help.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Open(partition::OpenError::Corrupt { .. })
            | Self::Read(partition::ReadError::Corrupt { .. })
            | Self::Batch { .. }
            | Self::Snapshot { .. } => true,
            Self::Open(
                partition::OpenError::Unknown { .. }
                | partition::OpenError::Gone(_)
                | partition::OpenError::Unavailable { .. },
            )
            | Self::Read(
                partition::ReadError::Gone(_)
                | partition::ReadError::OutOfRange { .. }
                | partition::ReadError::Unavailable { .. },
            ) => false,
        }
    }
}

/// Opens the partition and replays it: the newest snapshot, then what came after it.
pub(super) async fn load(
    groups: &Groups,
    id: PartitionId,
) -> Result<(Arc<Partition>, Shard), LoadError> {
    let deps = &groups.0.deps;
    let partition = deps.partitions.get(id).await?;
    let offsets = partition.offsets();
    let mut shard = Shard::new(deps.settings.clone(), deps.rng.fork());
    let mut at = offsets.log_start;
    let snapshot = partition.read_state(StateKind::GROUPS, offsets.high_watermark).await?;
    // A snapshot of a version that this build does not know is passed over: the log says the same.
    if let Some(snapshot) = snapshot.filter(|found| found.version == SNAPSHOT_VERSION) {
        let damaged =
            |error: DecodeError| LoadError::Snapshot { offset: at, reason: error.to_string() };
        shard.restore(&snapshot.payload).map_err(damaged)?;
        at = at.max(snapshot.valid_for);
    }
    let mut unknown = 0u64;
    while at < offsets.high_watermark {
        let request = ReadRequest {
            offset: at,
            bytes_max: READ_BYTES_MAX,
            at_least_one: true,
            isolation: Isolation::ReadUncommitted,
            class: Class::CatchUp,
        };
        let read = partition.read_entries(request).await?;
        for entry in &read.batches {
            unknown += replay(&mut shard, &entry.bytes, entry.base_offset)?;
        }
        if read.next <= at {
            let reason = "the read did not move on".to_owned();
            return Err(LoadError::Batch { offset: at, reason });
        }
        at = read.next;
    }
    if unknown > 0 {
        warn!(partition = id.index, records = unknown, "records of an unknown kind were skipped");
    }
    Ok((partition, shard))
}

/// Replays one batch; returns how many records are of an unknown kind.
fn replay(shard: &mut Shard, bytes: &Bytes, offset: i64) -> Result<u64, LoadError> {
    let bad = |reason: String| LoadError::Batch { offset, reason };
    let batch = BatchReader::open(bytes).map_err(|error| bad(error.to_string()))?;
    if batch.is_control() {
        return Ok(0);
    }
    let mut unknown = 0;
    for record in batch.records() {
        let record = record.map_err(|error| bad(error.to_string()))?;
        let key = record.key.ok_or_else(|| bad("a record has no key".to_owned()))?;
        match shard.replay(key, record.value).map_err(|error| bad(error.to_string()))? {
            Replayed::Applied => {}
            Replayed::Unknown => unknown += 1,
        }
    }
    Ok(unknown)
}

#[cfg(test)]
mod tests {
    use common::Rng;
    use coordinator::records::{CommittedOffset, Key};
    use coordinator::{Record, Settings};

    use super::*;
    use crate::groups::batch::encode;

    #[test]
    fn a_written_batch_is_replayed() {
        let key = Key::Offset { group: "g".into(), topic: "t".into(), partition: 3 };
        let offset = CommittedOffset {
            offset: 9,
            leader_epoch: 1,
            metadata: "m".into(),
            commit_ms: 5,
            expire_ms: None,
        };
        let other = Key::Offset { group: "g".into(), topic: "t".into(), partition: 4 };
        let records = [
            Record { key: key.encode(), value: Some(offset.encode()) },
            Record { key: other.encode(), value: Some(offset.encode()) },
            Record { key: other.encode(), value: None },
            Record { key: Bytes::from_static(b"\x00\x63new"), value: None },
        ];
        let bytes = encode(&records, 7).expect("small");
        let mut shard = Shard::new(Settings::default(), Rng::seeded(1));
        assert_eq!(replay(&mut shard, &bytes, 0).expect("intact"), 1);
        let group = shard.committed().get("g").expect("replayed");
        assert_eq!(group.offset("t", 3), Some(&offset));
        assert_eq!(group.offset("t", 4), None);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let key = Key::Group { group: "g".into() }.encode();
        let value = Some(Bytes::from_static(b"\x00\x03\x00"));
        let bytes = encode(&[Record { key, value }], 7).expect("small");
        let mut shard = Shard::new(Settings::default(), Rng::seeded(1));
        let error = replay(&mut shard, &bytes, 42).expect_err("damaged");
        assert!(error.is_damage() && error.to_string().contains("offset 42"), "{error}");
    }
}

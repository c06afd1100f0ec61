use bytes::Bytes;

use super::{BuildError, Builder, Record};
use crate::wire::{Reader, Writer};

/// Kinds of markers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum ControlType {
    /// The producer's transaction is undone.
    Abort = 0,
    /// The producer's transaction holds.
    Commit = 1,
}

/// The marker that ends a producer's transaction in one partition.
///
/// ```text
/// key   | version i16 = 0 | type i16 |
/// value | version i16 = 0 | coordinator epoch i32 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// How it ends.
    pub kind: ControlType,
    /// Epoch of the coordinator that says so.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Reads the marker of a control batch's record; `None` for kinds that are not of transactions.
    #[must_use]
    pub fn from_record(record: &Record<'_>) -> Option<Self> {
        let mut key = Reader::new(record.key?);
        key.i16().ok()?;
        let kind = match key.i16().ok()? {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            _ => return None,
        };
        let mut value = Reader::new(record.value?);
        value.i16().ok()?;
        Some(Self { kind, coordinator_epoch: value.i32().ok()? })
    }

    /// The control batch of the marker.
    ///
    /// # Errors
    /// None that can occur for a batch so small; see [`BuildError`].
    pub fn batch(
        &self,
        base_offset: i64,
        leader_epoch: i32,
        timestamp: i64,
        producer_id: i64,
        producer_epoch: i16,
    ) -> Result<Bytes, BuildError> {
        let mut key = Writer::with_capacity(4);
        key.i16(0);
        key.i16(self.kind as i16);
        let mut value = Writer::with_capacity(6);
        value.i16(0);
        value.i32(self.coordinator_epoch);
        let mut builder = Builder::new()
            .base_offset(base_offset)
            .leader_epoch(leader_epoch)
            .producer(producer_id, producer_epoch, super::NO_SEQUENCE)
            .transactional()
            .control();
        builder.push(timestamp, Some(&key.finish()), Some(&value.finish()), &[]);
        builder.build()
    }
}

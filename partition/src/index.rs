//! Records of the `index` stream: facts that explain the data, found by offset. Bytes in `docs/formats/state.md`.

use bytes::Bytes;

use crate::state::Damaged;

/// Size of the head of an index record, in bytes.
pub const HEAD_BYTES: usize = 4;
/// Largest payload of an index record.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// What an index record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexKind(pub u16);

impl IndexKind {
    /// Where a leader epoch begins; queued before the first batch of the epoch.
    pub const LEADER_EPOCH: IndexKind = IndexKind(1);
    /// An aborted transaction; queued before its marker.
    pub const ABORTED: IndexKind = IndexKind(2);
    /// A cut of a sink. The payload is the sink's.
    pub const CUT: IndexKind = IndexKind(3);
    /// Offsets that a sink will never get, because its own bound of protection gave them up; queued before they go.
    pub const SKIPPED: IndexKind = IndexKind(4);
}

/// One record of the index stream.
///
/// ```text
/// 0      2         4
/// +------+---------+---------
/// | kind | version | payload
/// +------+---------+---------
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexRecord {
    /// Its offset in the index stream.
    pub offset: i64,
    /// What it tells.
    pub kind: IndexKind,
    /// Version of the payload.
    pub version: u16,
    /// The payload.
    pub payload: Bytes,
}

/// The head of a record.
#[must_use]
pub fn head(kind: IndexKind, version: u16) -> [u8; HEAD_BYTES] {
    let ([a, b], [c, d]) = (kind.0.to_le_bytes(), version.to_le_bytes());
    [a, b, c, d]
}

impl IndexRecord {
    /// Reads the record found at `offset`.
    ///
    /// # Errors
    /// [`Damaged`] when it is shorter than its head.
    pub fn decode(offset: i64, bytes: &Bytes) -> Result<Self, Damaged> {
        let Some((&[a, b, c, d], _)) = bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Err(Damaged("an index record is shorter than its head"));
        };
        Ok(Self {
            offset,
            kind: IndexKind(u16::from_le_bytes([a, b])),
            version: u16::from_le_bytes([c, d]),
            payload: bytes.slice(HEAD_BYTES..),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(head(IndexKind::CUT, 0x0102), [3, 0, 2, 1]);
        let bytes = Bytes::from_static(&[1, 0, 1, 0, 9, 9]);
        let record = IndexRecord::decode(5, &bytes).expect("long enough");
        assert_eq!((record.offset, record.kind, record.version), (5, IndexKind::LEADER_EPOCH, 1));
        assert_eq!(record.payload.as_ref(), [9, 9]);
        assert!(IndexRecord::decode(0, &bytes.slice(..3)).is_err());
    }
}

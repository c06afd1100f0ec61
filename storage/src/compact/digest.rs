//! What a part of a stream holds, as one number: how a rewrite is proved before it is committed.

use bytes::BytesMut;
use common::Crc32c;

use crate::object::{ENTRY_ROW_BYTES, EntryMeta};

/// What entries of one stream add up to. Equal digests of input and output mean: the same entries, in the same order,
/// with the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Entries.
    pub entries: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Base offset of the first entry.
    pub first: Option<i64>,
    /// Offset after the last entry.
    pub end: Option<i64>,
    /// Highest max timestamp; -1 without entries.
    pub max_timestamp: i64,
    /// CRC-32C over the rows of the entries as objects store them: offset, span, count, timestamp, epoch, length,
    /// payload checksum, kind and flags.
    pub crc: u32,
}

/// Adds entries up.
pub(crate) struct Counting {
    digest: Digest,
    crc: Crc32c,
    row: BytesMut,
}

impl Default for Counting {
    fn default() -> Self {
        let digest = Digest { max_timestamp: -1, ..Digest::default() };
        Self { digest, crc: Crc32c::default(), row: BytesMut::with_capacity(ENTRY_ROW_BYTES) }
    }
}

impl Counting {
    /// Adds the next entry.
    ///
    /// # Errors
    /// When it does not lie behind the one before it, or a sum passes its type.
    pub fn add(&mut self, meta: &EntryMeta) -> Result<(), String> {
        let digest = &mut self.digest;
        let at = meta.base_offset;
        if digest.end.is_some_and(|end| at < end) {
            return Err(format!("entry at offset {at} lies before the end of the one before it"));
        }
        let sums = (
            at.checked_add_unsigned(meta.span),
            digest.records.checked_add(meta.count),
            digest.bytes.checked_add(u64::from(meta.length)),
        );
        let (Some(end), Some(records), Some(bytes)) = sums else {
            return Err(format!("entry at offset {at} does not fit the numbers of a stream"));
        };
        digest.first.get_or_insert(at);
        (digest.end, digest.records, digest.bytes) = (Some(end), records, bytes);
        digest.entries += 1;
        digest.max_timestamp = digest.max_timestamp.max(meta.max_timestamp);
        self.row.clear();
        meta.put(&mut self.row);
        self.crc.update(&self.row);
        Ok(())
    }

    /// The sum of all that was added.
    pub fn finish(&self) -> Digest {
        Digest { crc: self.crc.finish(), ..self.digest }
    }
}

//! The fixed parts of an object and their bytes.

use bytes::{BufMut, BytesMut};
use common::{Lsn, ObjectId, StreamEpoch, StreamId, WalEpoch, WalId, crc32c};

use super::reader::Damage;

/// Version of the format this build writes; the highest it reads.
pub const VERSION: u8 = 1;
/// Bytes of the object header.
pub const HEADER_BYTES: usize = 64;
/// Bytes of a block's head, before its entry table.
pub const BLOCK_HEAD_BYTES: usize = 64;
/// Bytes of one row of a block's entry table.
pub const ENTRY_ROW_BYTES: usize = 48;
/// Bytes of one row of the block index.
pub const INDEX_ROW_BYTES: usize = 104;
/// Bytes of the footer, the last bytes of the object.
pub const FOOTER_BYTES: usize = 80;

pub(super) const MAGIC_HEADER: &[u8; 8] = b"SLUICOBJ";
pub(super) const MAGIC_FOOTER: &[u8; 8] = b"SLUICEND";
pub(super) const MAGIC_BLOCK: &[u8; 4] = b"SBLK";

/// What an object holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Blocks of many streams: one upload round.
    StreamSet = 1,
    /// Blocks of one stream: the output of compaction.
    Stream = 2,
    /// Blocks of several streams, the output of compaction: unlike a round it need not hold all that its LSNs span.
    Merged = 3,
}

/// How the payload of a block is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    None = 0,
}

impl Kind {
    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        [Self::StreamSet, Self::Stream, Self::Merged].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The first bytes of an object: where it comes from, so that metadata can be rebuilt from the bucket.
///
/// ```text
/// 0        8   9    10       12     16        24       32          40          48        56     60    64
/// +--------+---+----+--------+------+---------+--------+-----------+-----------+---------+------+-----+
/// | magic  |ver|kind|store_id| zero |object id| WAL id | WAL epoch | first LSN | end LSN | zero | CRC |
/// +--------+---+----+--------+------+---------+--------+-----------+-----------+---------+------+-----+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the object holds.
    pub kind: Kind,
    /// Which configured store it was put into; 0 is the cluster's own.
    pub store: u16,
    /// Its registered id.
    pub object: ObjectId,
    /// The log whose prefix it holds.
    pub wal: WalId,
    /// The epoch of the log that put it.
    pub wal_epoch: WalEpoch,
    /// First LSN of the round.
    pub first: Lsn,
    /// LSN after the round.
    pub end: Lsn,
}

impl Header {
    /// The bytes of the header.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.put_slice(MAGIC_HEADER);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u16_le(self.store);
        out.put_u32_le(0);
        out.put_u64_le(self.object.0);
        out.put_u64_le(self.wal.0);
        out.put_u64_le(self.wal_epoch.0);
        out.put_u64_le(self.first.0);
        out.put_u64_le(self.end.0);
        out.put_u32_le(0);
        out.put_u32_le(crc32c(&out));
        out.try_into().expect("the fields add up to the size of the header")
    }

    /// Reads and checks the first bytes of an object.
    ///
    /// # Errors
    /// [`Damage`] that names what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let part = "header";
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(Damage::Short { part })?;
        if &bytes[..8] != MAGIC_HEADER {
            return Err(Damage::Magic { part });
        }
        check_version(bytes[8])?;
        if crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(Damage::Checksum { part });
        }
        Ok(Self {
            kind: Kind::from_byte(bytes[9]).ok_or(Damage::Field { part })?,
            store: u16_at(bytes, 10),
            object: ObjectId(u64_at(bytes, 16)),
            wal: WalId(u64_at(bytes, 24)),
            wal_epoch: WalEpoch(u64_at(bytes, 32)),
            first: Lsn(u64_at(bytes, 40)),
            end: Lsn(u64_at(bytes, 48)),
        })
    }
}

pub(super) fn check_version(version: u8) -> Result<(), Damage> {
    if version == 0 || version > VERSION { Err(Damage::Version { version }) } else { Ok(()) }
}

/// One entry, as the entry table of its block describes it.
///
/// ```text
/// 0             8      16      24              32      36       40    44     45      46    48
/// +-------------+------+-------+---------------+-------+--------+-----+------+-------+------+
/// | base offset | span | count | max timestamp | epoch | length | CRC | kind | flags | zero |
/// +-------------+------+-------+---------------+-------+--------+-----+------+-------+------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// First offset of the entry.
    pub base_offset: i64,
    /// Offsets it covers; at least `count`.
    pub span: u64,
    /// Records in it.
    pub count: u64,
    /// Highest timestamp of its records, milliseconds since 1970, or -1.
    pub max_timestamp: i64,
    /// Epoch of the stream when it was appended.
    pub epoch: StreamEpoch,
    /// Bytes of its payload.
    pub length: u32,
    /// CRC-32C of its payload, as computed when it was appended.
    pub crc: u32,
    /// Kind of the log frame it came from.
    pub kind: u8,
    /// Flags of the log frame it came from.
    pub flags: u8,
}

impl EntryMeta {
    /// The offset after the entry; saturates, so that a hostile table cannot wrap.
    #[must_use]
    pub fn end_offset(&self) -> i64 {
        self.base_offset.saturating_add_unsigned(self.span)
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_i64_le(self.base_offset);
        out.put_u64_le(self.span);
        out.put_u64_le(self.count);
        out.put_i64_le(self.max_timestamp);
        out.put_i32_le(self.epoch.0);
        out.put_u32_le(self.length);
        out.put_u32_le(self.crc);
        out.put_u8(self.kind);
        out.put_u8(self.flags);
        out.put_u16_le(0);
    }

    pub(super) fn get(row: &[u8]) -> Self {
        Self {
            base_offset: i64_at(row, 0),
            span: u64_at(row, 8),
            count: u64_at(row, 16),
            max_timestamp: i64_at(row, 24),
            epoch: StreamEpoch(i32_at(row, 32)),
            length: u32_at(row, 36),
            crc: u32_at(row, 40),
            kind: row[44],
            flags: row[45],
        }
    }
}

/// One row of the block index: where a block lies and what it covers. Rows are sorted by stream, then by offset; the
/// blocks of one stream tile the range that the object covers of it.
///
/// ```text
/// 0           16            24          32         40       48        56              64
/// +-----------+-------------+-----------+----------+--------+---------+---------------+
/// | stream id | cover start | cover end | position | length | records | payload bytes |
/// +-----------+-------------+-----------+----------+--------+---------+---------------+
/// 64              72              80        84       88            92           96      97     104
/// +---------------+---------------+---------+--------+-------------+------------+-------+------+
/// | min timestamp | max timestamp | entries | key id | first epoch | last epoch | codec | zero |
/// +---------------+---------------+---------+--------+-------------+------------+-------+------+
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// The stream.
    pub stream: StreamId,
    /// First offset covered.
    pub start: i64,
    /// Offset after the last one covered.
    pub end: i64,
    /// Where the block begins in the object.
    pub position: u64,
    /// Its bytes, head and table included.
    pub length: u64,
    /// Records in its entries.
    pub records: u64,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// Lowest of its entries' max timestamps; -1 without entries.
    pub min_timestamp: i64,
    /// Highest of its entries' max timestamps; -1 without entries.
    pub max_timestamp: i64,
    /// Number of entries; 0 for a range whose bytes lay below the log start.
    pub entries: u32,
    /// Key the payload is encrypted with; 0 for none.
    pub key: u32,
    /// Stream epoch of the first entry.
    pub epoch_first: StreamEpoch,
    /// Stream epoch of the last entry.
    pub epoch_last: StreamEpoch,
    /// How the payload is stored.
    pub codec: Codec,
}

impl BlockInfo {
    pub(super) fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.stream.to_bytes());
        out.put_i64_le(self.start);
        out.put_i64_le(self.end);
        out.put_u64_le(self.position);
        out.put_u64_le(self.length);
        out.put_u64_le(self.records);
        out.put_u64_le(self.payload_bytes);
        out.put_i64_le(self.min_timestamp);
        out.put_i64_le(self.max_timestamp);
        out.put_u32_le(self.entries);
        out.put_u32_le(self.key);
        out.put_i32_le(self.epoch_first.0);
        out.put_i32_le(self.epoch_last.0);
        out.put_u8(self.codec as u8);
        out.put_bytes(0, 7);
    }

    pub(super) fn get(row: &[u8]) -> Result<Self, Damage> {
        let part = "block index";
        let stream = row.first_chunk::<16>().and_then(StreamId::from_bytes);
        if row[96] != Codec::None as u8 {
            return Err(Damage::Codec { codec: row[96] });
        }
        Ok(Self {
            stream: stream.ok_or(Damage::Field { part })?,
            start: i64_at(row, 16),
            end: i64_at(row, 24),
            position: u64_at(row, 32),
            length: u64_at(row, 40),
            records: u64_at(row, 48),
            payload_bytes: u64_at(row, 56),
            min_timestamp: i64_at(row, 64),
            max_timestamp: i64_at(row, 72),
            entries: u32_at(row, 80),
            key: u32_at(row, 84),
            epoch_first: StreamEpoch(i32_at(row, 88)),
            epoch_last: StreamEpoch(i32_at(row, 92)),
            codec: Codec::None,
        })
    }
}

// Callers have checked the length of `bytes`: each reader works on one fixed-size part.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("a slice of N bytes is an array of N bytes")
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_le_bytes(array_at(bytes, at))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(array_at(bytes, at))
}

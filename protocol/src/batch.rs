//! Record batches, format 2, as Kafka clients write and read them.
//!
//! ```text
//!  0            8         12       16     17      21           23
//!  +------------+---------+--------+------+-------+------------+--------------+
//!  | baseOffset | length  | leader | magic| crc   | attributes | lastOffset-  |
//!  | i64        | i32     | epoch  | i8=2 | u32   | i16        | Delta i32    |
//!  +------------+---------+--------+------+-------+------------+--------------+
//!  27              35             43           51         53        57       61
//!  +---------------+--------------+------------+----------+---------+--------+---------
//!  | baseTimestamp | maxTimestamp | producerId | producer | base-   | record | records
//!  | i64           | i64          | i64        | Epoch i16| Seq i32 | Count  | ...
//!  +---------------+--------------+------------+----------+---------+--------+---------
//! ```
//!
//! `length` counts from the leader epoch on; the CRC-32C covers attributes to the end. So base offset and leader epoch
//! are patched in place with no new CRC.

use bytes::Bytes;

use crate::compression::{self, Codec};
use crate::wire::Reader;

mod builder;
mod control;
mod records;
mod rewriter;

pub use builder::{BuildError, Builder};
pub use control::{ControlType, EndTransactionMarker};
pub use records::{Headers, Record, RecordError, Records};
pub use rewriter::Rewriter;

/// Size of the header, in bytes.
pub const HEADER_BYTES: usize = 61;
/// The only format that is taken.
pub const MAGIC: i8 = 2;
/// Bytes before the part that `length` counts.
pub const LENGTH_OVERHEAD: usize = 12;
/// Producer id of a batch without one.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch of a batch without one.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence of a batch without one.
pub const NO_SEQUENCE: i32 = -1;
/// Timestamp of a record without one.
pub const NO_TIMESTAMP: i64 = -1;

/// Where the fields of the header begin.
#[expect(missing_docs, reason = "the picture above names them")]
pub mod field {
    pub const BASE_OFFSET: usize = 0;
    pub const LENGTH: usize = 8;
    pub const LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
}

/// The attribute bits: 0-2 codec, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    pub(crate) const CODEC: i16 = 0b111;
    const APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    pub(crate) const DELETE_HORIZON: i16 = 1 << 6;
    const KNOWN: i16 = 0x7f;

    /// The codec, or `None` for a number that Kafka does not use.
    #[must_use]
    pub fn codec(self) -> Option<Codec> {
        Codec::from_number(self.0 & Self::CODEC)
    }

    /// True when `max_timestamp` is the time of the append and stands for every record.
    #[must_use]
    pub fn append_time(self) -> bool {
        self.0 & Self::APPEND_TIME != 0
    }

    /// True for a batch of a transaction.
    #[must_use]
    pub fn transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// True for a batch of markers, which no client may write.
    #[must_use]
    pub fn control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// True when `base_timestamp` is the delete horizon of a compacted batch.
    #[must_use]
    pub fn delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }
}

/// A batch header, all fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Bytes from the leader epoch on.
    pub length: i32,
    /// Epoch of the leader that appended the batch.
    pub leader_epoch: i32,
    /// CRC-32C from the attributes to the end.
    pub crc: u32,
    /// The attribute bits.
    pub attributes: Attributes,
    /// Offset of the last record minus that of the first.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas add to.
    pub base_timestamp: i64,
    /// Highest timestamp, or the time of the append.
    pub max_timestamp: i64,
    /// Id of the idempotent producer, or -1.
    pub producer_id: i64,
    /// Its epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

/// Bytes that are not a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than a header, or than the header's length says.
    #[error("batch of {wanted} bytes, {found} are there")]
    Short {
        /// Bytes the batch needs.
        wanted: usize,
        /// Bytes given.
        found: usize,
    },
    /// A length that is negative or smaller than the rest of the header.
    #[error("batch length {0} is too small")]
    Length(i32),
    /// Format 0, 1 or an unknown one.
    #[error("record format {0}, only format 2 is taken")]
    Magic(i8),
}

impl Header {
    /// Reads the header at the beginning of `bytes`. The records need not be there; the CRC is not checked.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(bytes: &[u8]) -> Result<Header, Error> {
        if let Some(magic) = bytes.get(field::MAGIC).map(|byte| byte.cast_signed())
            && magic != MAGIC
        {
            return Err(Error::Magic(magic));
        }
        let short = Error::Short { wanted: HEADER_BYTES, found: bytes.len() };
        let header = Self::read(bytes).map_err(|_| short)?;
        let rest = i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD).expect("a constant");
        if header.length < rest { Err(Error::Length(header.length)) } else { Ok(header) }
    }

    fn read(bytes: &[u8]) -> Result<Header, crate::wire::Error> {
        let mut reader = Reader::new(bytes);
        let base_offset = reader.i64()?;
        let length = reader.i32()?;
        let leader_epoch = reader.i32()?;
        reader.i8()?;
        Ok(Header {
            base_offset,
            length,
            leader_epoch,
            crc: reader.u32()?,
            attributes: Attributes(reader.i16()?),
            last_offset_delta: reader.i32()?,
            base_timestamp: reader.i64()?,
            max_timestamp: reader.i64()?,
            producer_id: reader.i64()?,
            producer_epoch: reader.i16()?,
            base_sequence: reader.i32()?,
            record_count: reader.i32()?,
        })
    }

    /// Size of the whole batch, header included, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        LENGTH_OVERHEAD + usize::try_from(self.length).expect("parse refuses a negative length")
    }

    /// Offset of the last record. Saturates.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// Sequence of the last record, wrapped from 2^31 - 1 to 0; -1 when the batch has no sequence.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return NO_SEQUENCE;
        }
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta.max(0));
        i32::try_from(sum & i64::from(i32::MAX)).expect("masked to 31 bits")
    }

    /// True when an idempotent or transactional producer wrote the batch.
    #[must_use]
    pub fn has_producer(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// The first 16 bytes of the batch with another base offset and leader epoch. The CRC stays valid.
    #[must_use]
    pub fn patched_head(&self, base_offset: i64, leader_epoch: i32) -> [u8; 16] {
        let mut head = [0; 16];
        head[..8].copy_from_slice(&base_offset.to_be_bytes());
        head[8..12].copy_from_slice(&self.length.to_be_bytes());
        head[12..].copy_from_slice(&leader_epoch.to_be_bytes());
        head
    }

    /// The header's 61 bytes with another base offset and leader epoch, stamped with the time of the append and a new
    /// CRC. `records` are the bytes behind the header.
    #[must_use]
    pub fn stamped_head(
        &self,
        base_offset: i64,
        leader_epoch: i32,
        append_time: i64,
        records: &[u8],
    ) -> [u8; HEADER_BYTES] {
        let mut stamped = *self;
        stamped.base_offset = base_offset;
        stamped.leader_epoch = leader_epoch;
        stamped.attributes =
            Attributes(self.attributes.0 & Attributes::KNOWN | Attributes::APPEND_TIME);
        stamped.max_timestamp = append_time;
        stamped.sealed(records)
    }

    /// The header with the producer's timestamps in force.
    #[must_use]
    pub fn with_create_time(mut self) -> Self {
        self.attributes = Attributes(self.attributes.0 & !Attributes::APPEND_TIME);
        self
    }

    /// The header of the same records in another codec, where they have `payload_bytes` bytes (at most 2 GiB). The CRC is
    /// not that of the new bytes yet.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec, payload_bytes: usize) -> Self {
        self.attributes = Attributes(self.attributes.0 & !Attributes::CODEC | codec.number());
        let length = HEADER_BYTES - LENGTH_OVERHEAD + payload_bytes;
        self.length = i32::try_from(length).expect("a batch is at most 2 GiB");
        self
    }

    /// The header's 61 bytes with the CRC computed anew.
    #[must_use]
    pub fn sealed(mut self, records: &[u8]) -> [u8; HEADER_BYTES] {
        let mut crc = common::Crc32c::default();
        crc.update(&self.to_bytes()[field::ATTRIBUTES..]);
        crc.update(records);
        self.crc = crc.finish();
        self.to_bytes()
    }

    /// The header's 61 bytes as the fields say.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.base_offset.to_be_bytes());
        put(&self.length.to_be_bytes());
        put(&self.leader_epoch.to_be_bytes());
        put(&MAGIC.to_be_bytes());
        put(&self.crc.to_be_bytes());
        put(&self.attributes.0.to_be_bytes());
        put(&self.last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.to_be_bytes());
        put(&self.max_timestamp.to_be_bytes());
        put(&self.producer_id.to_be_bytes());
        put(&self.producer_epoch.to_be_bytes());
        put(&self.base_sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        out
    }
}

/// True when the CRC of `batch`, a whole batch and nothing more, is right.
#[must_use]
pub fn crc_is_right(batch: &[u8]) -> bool {
    let Some(stored) = batch.get(field::CRC..field::ATTRIBUTES) else { return false };
    stored == common::crc32c(&batch[field::ATTRIBUTES..]).to_be_bytes()
}

/// The records of `batch`, a whole batch, uncompressed. A batch that is not compressed yields a slice of itself.
///
/// # Errors
/// See [`compression::Error`]: also when they are larger than `bytes_max` or the codec is unknown.
pub fn payload(
    batch: &Bytes,
    header: &Header,
    bytes_max: usize,
) -> Result<Bytes, compression::Error> {
    let number = header.attributes.0 & Attributes::CODEC;
    let codec = header.attributes.codec().ok_or(compression::Error::UnknownCodec(number))?;
    let records = batch.slice(HEADER_BYTES.min(batch.len())..);
    if codec == Codec::None {
        return Ok(records);
    }
    compression::decompress(codec, &records, bytes_max)
}

/// Walks batches that lie back to back. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// A walk over `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }
}

impl Iterator for Batches {
    type Item = Result<(Header, Bytes), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let next = Header::parse(&self.rest).and_then(|header| {
            let (wanted, found) = (header.size(), self.rest.len());
            if wanted > found { Err(Error::Short { wanted, found }) } else { Ok(header) }
        });
        match next {
            Ok(header) => Some(Ok((header, self.rest.split_to(header.size())))),
            Err(error) => {
                self.rest = Bytes::new();
                Some(Err(error))
            }
        }
    }
}

#[cfg(test)]
mod tests;

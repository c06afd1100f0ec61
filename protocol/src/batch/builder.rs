use bytes::{Bytes, BytesMut};

use super::{
    Attributes, HEADER_BYTES, Header, LENGTH_OVERHEAD, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP,
};
use crate::compression::{self, Codec};
use crate::wire::{Writer, varint_len, varlong_len};

/// A batch that cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No record was pushed.
    #[error("a batch holds one record at least")]
    Empty,
    /// A key, value, the records or the batch reach 2^31 bytes.
    #[error("a batch stays below 2^31 bytes and records")]
    TooLarge,
}

/// Builds one batch. Offsets of the records are dense from the base offset on.
#[derive(Debug)]
pub struct Builder {
    header: Header,
    codec: Codec,
    records: Writer,
    too_large: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// An empty batch at offset 0, uncompressed, without a producer.
    #[must_use]
    pub fn new() -> Self {
        let header = Header {
            base_offset: 0,
            length: 0,
            leader_epoch: -1,
            crc: 0,
            attributes: Attributes(0),
            last_offset_delta: -1,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            record_count: 0,
        };
        Self { header, codec: Codec::None, records: Writer::default(), too_large: false }
    }

    /// Sets the offset of the first record.
    #[must_use]
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.header.base_offset = offset;
        self
    }

    /// Sets the leader epoch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.header.leader_epoch = epoch;
        self
    }

    /// Sets how the records are compressed.
    #[must_use]
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// Sets the idempotent producer and the sequence of the first record.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(self) -> Self {
        self.attribute(Attributes::TRANSACTIONAL)
    }

    /// Marks the batch as one of markers.
    #[must_use]
    pub fn control(self) -> Self {
        self.attribute(Attributes::CONTROL)
    }

    /// Marks the timestamps as the time of the append: the highest one pushed stands for all.
    #[must_use]
    pub fn append_time(self) -> Self {
        self.attribute(Attributes::APPEND_TIME)
    }

    fn attribute(mut self, bit: i16) -> Self {
        self.header.attributes.0 |= bit;
        self
    }

    /// Records pushed so far.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.header.record_count
    }

    /// Size of the batch so far, before compression, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// Adds a record. A record that is too large is noted and makes [`Self::build`] fail.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        if self.header.record_count == 0 {
            self.header.base_timestamp = timestamp;
        }
        let delta = timestamp.wrapping_sub(self.header.base_timestamp);
        let offset_delta = self.header.record_count;
        let parts = [key, value]
            .into_iter()
            .chain(headers.iter().flat_map(|(key, value)| [Some(*key), *value]));
        let payload: usize = parts.map(part_len).sum();
        let count = i32::try_from(headers.len()).unwrap_or(i32::MAX);
        let size = 1 + varlong_len(delta) + varint_len(offset_delta) + varint_len(count) + payload;
        let Ok(length) = i32::try_from(size) else {
            self.too_large = true;
            return;
        };
        self.records.varint(length);
        self.records.i8(0);
        self.records.varlong(delta);
        self.records.varint(offset_delta);
        self.put(key);
        self.put(value);
        self.records.varint(count);
        for (key, value) in headers {
            self.put(Some(key));
            self.put(*value);
        }
        self.header.last_offset_delta = offset_delta;
        self.header.record_count += 1;
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
    }

    fn put(&mut self, part: Option<&[u8]>) {
        let length = part.map_or(-1, |part| i32::try_from(part.len()).expect("size was checked"));
        self.records.varint(length);
        self.records.raw(part.unwrap_or_default());
    }

    /// The batch.
    ///
    /// # Errors
    /// See [`BuildError`].
    pub fn build(self) -> Result<Bytes, BuildError> {
        let mut header = self.header;
        if self.too_large {
            return Err(BuildError::TooLarge);
        }
        if header.record_count == 0 {
            return Err(BuildError::Empty);
        }
        let records = compression::compress(self.codec, self.records.finish());
        let length = HEADER_BYTES - LENGTH_OVERHEAD + records.len();
        header.length = i32::try_from(length).map_err(|_| BuildError::TooLarge)?;
        header.attributes.0 |= self.codec.number();
        let mut out = BytesMut::with_capacity(HEADER_BYTES + records.len());
        out.extend_from_slice(&header.sealed(&records));
        out.extend_from_slice(&records);
        Ok(out.freeze())
    }
}

fn part_len(part: Option<&[u8]>) -> usize {
    let length = part.map_or(-1, |part| i32::try_from(part.len()).unwrap_or(i32::MAX));
    varint_len(length) + part.map_or(0, <[u8]>::len)
}

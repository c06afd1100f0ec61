use crate::wire::{self, Reader};

/// One record of a batch; borrows the uncompressed bytes.
///
/// ```text
/// | length varint | attributes i8 | timestamp delta varlong | offset delta varint |
/// | key length varint, -1 null | key | value length varint, -1 null | value |
/// | header count varint | (key length | key | value length, -1 null | value)* |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Added to the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Added to the batch's base offset.
    pub offset_delta: i32,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
    /// The headers, in their order; one key may occur more than once.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// The record's timestamp, given its batch.
    #[must_use]
    pub fn timestamp(&self, batch: &super::Header) -> i64 {
        if batch.attributes.append_time() {
            batch.max_timestamp
        } else {
            batch.base_timestamp.saturating_add(self.timestamp_delta)
        }
    }

    /// The record's offset, given its batch. Saturates.
    #[must_use]
    pub fn offset(&self, batch: &super::Header) -> i64 {
        batch.base_offset.saturating_add(i64::from(self.offset_delta))
    }
}

/// The headers of a record, an iterator of (key, value or null). They were checked when the record was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    count: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let mut reader = Reader::new(self.bytes);
        let header = read_header(&mut reader).expect("checked when the record was read");
        self.bytes = reader.rest();
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// Bytes that are not records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A value cannot be read.
    #[error("record {index} cannot be read: {error}")]
    Wire {
        /// The record, from 0.
        index: i32,
        /// What is wrong, with a position in the uncompressed records or in the record itself.
        error: wire::Error,
    },
    /// A record that is longer than its parts.
    #[error("record {index} has {left} bytes behind its last header")]
    Slack {
        /// The record, from 0.
        index: i32,
        /// Bytes that are left over.
        left: usize,
    },
    /// Bytes behind the last record.
    #[error("{left} bytes behind record {count}, the last")]
    Trailing {
        /// Number of records.
        count: i32,
        /// Bytes that are left over.
        left: usize,
    },
}

/// Walks the uncompressed records of a batch. Yields `count` records, or ends after the first error; bytes behind the
/// last record are an error too.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    reader: Reader<'a>,
    next: i32,
    count: i32,
    ended: bool,
}

impl<'a> Records<'a> {
    /// A walk over `payload`, which holds `count` records as the batch header says.
    #[must_use]
    pub fn new(payload: &'a [u8], count: i32) -> Self {
        Self { reader: Reader::new(payload), next: 0, count, ended: false }
    }

    /// Where the next record begins, in bytes of the payload.
    #[must_use]
    pub fn position(&self) -> usize {
        self.reader.position()
    }

    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let index = self.next;
        let wire = |error| RecordError::Wire { index, error };
        let at = self.reader.position();
        let length = self.reader.varint().map_err(wire)?;
        let size = usize::try_from(length)
            .map_err(|_| wire(wire::Error::Length { at, length: i64::from(length) }))?;
        let mut inner = Reader::new(self.reader.take(size).map_err(wire)?);
        let record = read_record(&mut inner).map_err(wire)?;
        match inner.remaining() {
            0 => Ok(record),
            left => Err(RecordError::Slack { index, left }),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.next >= self.count {
            self.ended = true;
            let left = self.reader.remaining();
            return (left > 0)
                .then_some(Err(RecordError::Trailing { count: self.count.max(0), left }));
        }
        let record = self.read();
        self.ended = record.is_err();
        self.next += 1;
        Some(record)
    }
}

fn read_record<'a>(reader: &mut Reader<'a>) -> Result<Record<'a>, wire::Error> {
    reader.i8()?;
    let timestamp_delta = reader.varlong()?;
    let offset_delta = reader.varint()?;
    let key = nullable(reader)?;
    let value = nullable(reader)?;
    let at = reader.position();
    let count = reader.varint()?;
    let refused = wire::Error::Length { at, length: i64::from(count) };
    let count = usize::try_from(count).map_err(|_| refused)?;
    // A header takes two bytes at least.
    if count > reader.remaining() / 2 {
        return Err(refused);
    }
    let bytes = reader.rest();
    for _ in 0..count {
        read_header(reader)?;
    }
    let bytes = &bytes[..bytes.len() - reader.remaining()];
    let headers = Headers { bytes, count };
    Ok(Record { timestamp_delta, offset_delta, key, value, headers })
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), wire::Error> {
    let at = reader.position();
    let key = nullable(reader)?.ok_or(wire::Error::Length { at, length: -1 })?;
    Ok((key, nullable(reader)?))
}

fn nullable<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, wire::Error> {
    let at = reader.position();
    let length = reader.varint()?;
    if length == -1 {
        return Ok(None);
    }
    let refused = wire::Error::Length { at, length: i64::from(length) };
    reader.take(usize::try_from(length).map_err(|_| refused)?).map(Some)
}

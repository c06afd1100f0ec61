//! The records of a stored batch, for sinks and look-ups.

use bytes::Bytes;
use protocol::batch::{self, Header, Headers, Records};

/// Bytes that the records of a stored batch may come to. They were checked against a smaller bound when they were
/// produced.
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// A batch cannot be read, although the storage proved its bytes intact.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The header.
    #[error("the batch header cannot be read: {0}")]
    Header(#[from] batch::Error),
    /// The checksum.
    #[error("the batch does not match its checksum")]
    Checksum,
    /// The compression.
    #[error("the batch cannot be decompressed: {0}")]
    Compression(#[from] protocol::compression::Error),
    /// A record.
    #[error("{0}")]
    Record(#[from] batch::RecordError),
}

/// One opened batch. Owns its records uncompressed; a batch without compression shares its bytes.
#[derive(Clone, Debug)]
pub struct BatchReader {
    header: Header,
    payload: Bytes,
}

impl BatchReader {
    /// Opens a stored batch. The checksum is checked.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn open(bytes: &Bytes) -> Result<Self, BatchError> {
        Self::open_capped(bytes, DECOMPRESSED_BYTES_MAX)
    }

    /// As [`Self::open`] with a bound on the uncompressed bytes.
    ///
    /// # Errors
    /// See [`BatchError`].
    pub fn open_capped(bytes: &Bytes, bytes_max: usize) -> Result<Self, BatchError> {
        let header = Header::parse(bytes)?;
        if header.size() != bytes.len() {
            let (wanted, found) = (header.size(), bytes.len());
            return Err(batch::Error::Short { wanted, found }.into());
        }
        if !batch::crc_is_right(bytes) {
            return Err(BatchError::Checksum);
        }
        let payload = batch::payload(bytes, &header, bytes_max)?;
        Ok(Self { header, payload })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// True for markers, which are no data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.header.attributes.control()
    }

    /// Bytes of the records, uncompressed.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// The records, uncompressed.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// A copy-free slice of the records that holds `part`, which must come from one of these records.
    #[must_use]
    pub fn slice(&self, part: &[u8]) -> Bytes {
        self.payload.slice_ref(part)
    }

    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Result<Record<'_>, BatchError>> {
        let header = &self.header;
        Records::new(&self.payload, header.record_count).map(move |record| {
            let record = record?;
            Ok(Record {
                offset: record.offset(header),
                timestamp: record.timestamp(header),
                key: record.key,
                value: record.value,
                headers: record.headers,
            })
        })
    }
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970: create time or append time, -1 for none.
    pub timestamp: i64,
    /// The key, or null.
    pub key: Option<&'a [u8]>,
    /// The value, or null.
    pub value: Option<&'a [u8]>,
    /// The headers in their order; keys may repeat.
    pub headers: Headers<'a>,
}

#[cfg(test)]
mod tests {
    use protocol::batch::Builder;
    use protocol::compression::Codec;

    use super::*;

    #[test]
    fn records_come_back_with_offsets_times_and_repeated_headers() {
        for codec in Codec::ALL {
            let mut builder = Builder::new().codec(codec).base_offset(100);
            builder.push(50, Some(b"k"), None, &[(b"h", Some(b"1")), (b"h", None)]);
            builder.push(40, None, Some(b"v"), &[]);
            let bytes = builder.build().expect("small");
            let reader = BatchReader::open(&bytes).expect("intact");
            let records: Vec<_> = reader.records().map(|r| r.expect("intact")).collect();
            assert_eq!((records[0].offset, records[0].timestamp), (100, 50));
            assert_eq!((records[1].offset, records[1].timestamp), (101, 40));
            assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), None));
            let headers: Vec<_> = records[0].headers.collect();
            assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]);
            assert_eq!(reader.slice(records[1].value.expect("set")), Bytes::from_static(b"v"));
            let mut bad = bytes.to_vec();
            *bad.last_mut().expect("not empty") ^= 1;
            assert_eq!(BatchReader::open(&bad.into()).expect_err("damaged"), BatchError::Checksum);
        }
    }
}

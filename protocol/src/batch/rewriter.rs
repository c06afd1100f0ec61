use bytes::{Bytes, BytesMut};

use super::{
    Attributes, BuildError, HEADER_BYTES, Header, LENGTH_OVERHEAD, NO_TIMESTAMP, Record,
    RecordError,
};
use crate::compression::{self, Codec};
use crate::wire::{Error, Reader, Writer, varlong_len};

/// Rebuilds a stored batch with some of its records: offsets, sequences, producer, codec and the bytes of each record
/// stay. As Kafka's `MemoryRecords.filterTo`.
///
/// With a delete horizon the base timestamp becomes the horizon, and the records' deltas are written anew so that their
/// timestamps stay.
#[derive(Debug)]
pub struct Rewriter {
    header: Header,
    base_before: i64,
    max_timestamp: i64,
    records: Writer,
    count: i32,
}

impl Rewriter {
    /// A batch like that of `header`, without records yet. `horizon` is set when it is given.
    #[must_use]
    pub fn new(header: &Header, horizon: Option<i64>) -> Self {
        let mut changed = *header;
        if let Some(horizon) = horizon {
            changed.attributes.0 |= Attributes::DELETE_HORIZON;
            changed.base_timestamp = horizon;
        }
        Self {
            header: changed,
            base_before: header.base_timestamp,
            max_timestamp: NO_TIMESTAMP,
            records: Writer::default(),
            count: 0,
        }
    }

    /// Keeps `record`, whose bytes in the uncompressed payload are `raw`, length included.
    ///
    /// # Errors
    /// When `raw` is not a record.
    pub fn keep(&mut self, raw: &[u8], record: &Record<'_>) -> Result<(), RecordError> {
        let index = self.count;
        self.count += 1;
        let timestamp = self.base_before.wrapping_add(record.timestamp_delta);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if self.header.base_timestamp == self.base_before {
            self.records.raw(raw);
            return Ok(());
        }
        let wire = |error: Error| RecordError::Wire { index, error };
        let mut reader = Reader::new(raw);
        reader.varint().map_err(wire)?;
        let attributes = reader.i8().map_err(wire)?;
        reader.varlong().map_err(wire)?;
        let rest = reader.rest();
        let delta = timestamp.wrapping_sub(self.header.base_timestamp);
        let size = 1 + varlong_len(delta) + rest.len();
        let size = i32::try_from(size)
            .map_err(|_| wire(Error::Length { at: 0, length: i64::from(i32::MAX) }))?;
        self.records.varint(size);
        self.records.i8(attributes);
        self.records.varlong(delta);
        self.records.raw(rest);
        Ok(())
    }

    /// The batch.
    ///
    /// # Errors
    /// See [`BuildError`]; a batch without records comes from [`Self::empty`] only.
    pub fn finish(self) -> Result<Bytes, BuildError> {
        if self.count == 0 {
            return Err(BuildError::Empty);
        }
        let mut header = self.header;
        header.record_count = self.count;
        if !header.attributes.append_time() {
            header.max_timestamp = self.max_timestamp;
        }
        let codec = header.attributes.codec().unwrap_or(Codec::None);
        seal(header, &compression::compress(codec, self.records.finish()))
    }

    /// The header of a batch whose records are all gone: it keeps the place of its producer's last sequence.
    ///
    /// # Errors
    /// None that can occur; see [`BuildError`].
    pub fn empty(header: &Header) -> Result<Bytes, BuildError> {
        let mut header = *header;
        header.attributes.0 &= !(Attributes::CODEC | Attributes::DELETE_HORIZON);
        header.base_timestamp = NO_TIMESTAMP;
        header.record_count = 0;
        seal(header, &[])
    }
}

fn seal(mut header: Header, records: &[u8]) -> Result<Bytes, BuildError> {
    let length = HEADER_BYTES - LENGTH_OVERHEAD + records.len();
    header.length = i32::try_from(length).map_err(|_| BuildError::TooLarge)?;
    let mut out = BytesMut::with_capacity(HEADER_BYTES + records.len());
    out.extend_from_slice(&header.sealed(records));
    out.extend_from_slice(records);
    Ok(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Records, crc_is_right, payload};
    use super::*;

    /// Offset, timestamp, key, value, headers.
    type Seen = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn seen(bytes: &Bytes) -> Vec<Seen> {
        let header = Header::parse(bytes).expect("a batch");
        let records = payload(bytes, &header, 1 << 20).expect("intact");
        let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        Records::new(&records, header.record_count)
            .map(|record| {
                let record = record.expect("intact");
                let headers = record.headers.map(|(key, value)| (key.to_vec(), owned(value)));
                let (offset, time) = (record.offset(&header), record.timestamp(&header));
                (offset, time, owned(record.key), owned(record.value), headers.collect())
            })
            .collect()
    }

    fn rewritten(bytes: &Bytes, horizon: Option<i64>, kept: &[i32]) -> Bytes {
        let header = Header::parse(bytes).expect("a batch");
        let records = payload(bytes, &header, 1 << 20).expect("intact");
        let mut walk = Records::new(&records, header.record_count);
        let mut rewriter = Rewriter::new(&header, horizon);
        loop {
            let at = walk.position();
            let Some(record) = walk.next() else { break };
            let record = record.expect("intact");
            if kept.contains(&record.offset_delta) {
                rewriter.keep(&records[at..walk.position()], &record).expect("a record");
            }
        }
        rewriter.finish().expect("small")
    }

    #[test]
    fn kept_records_stay_as_they_are_in_every_codec_with_and_without_a_horizon() {
        for codec in Codec::ALL {
            let mut builder =
                Builder::new().codec(codec).base_offset(100).producer(7, 2, 40).transactional();
            for at in 0..9_i64 {
                let key = at.to_be_bytes();
                builder.push(
                    1000 + at,
                    Some(&key),
                    Some(b"value"),
                    &[(b"h", None), (b"h", Some(b"2"))],
                );
            }
            let bytes = builder.build().expect("small");
            let all = seen(&bytes);
            for horizon in [None, Some(0), Some(i64::MAX), Some(1_700_000_000_000)] {
                let less = rewritten(&bytes, horizon, &[2, 3, 7]);
                assert!(crc_is_right(&less));
                let expected = [all[2].clone(), all[3].clone(), all[7].clone()];
                assert_eq!(seen(&less), expected, "{codec:?} {horizon:?}");
                let (old, new) = (
                    Header::parse(&bytes).expect("a batch"),
                    Header::parse(&less).expect("a batch"),
                );
                assert_eq!((new.base_offset, new.last_offset_delta), (100, 8));
                assert_eq!((new.record_count, new.max_timestamp), (3, 1007));
                assert_eq!(new.last_sequence(), old.last_sequence());
                assert_eq!(new.attributes.delete_horizon(), horizon.is_some());
                assert_eq!(new.attributes.codec(), Some(codec));
                // A second pass keeps the horizon.
                let again = rewritten(&less, None, &[3]);
                let header = Header::parse(&again).expect("a batch");
                assert_eq!(header.attributes.delete_horizon(), horizon.is_some());
                assert_eq!(header.base_timestamp, horizon.unwrap_or(1000));
                assert_eq!(seen(&again), [all[3].clone()]);
            }
            let empty = Rewriter::empty(&Header::parse(&bytes).expect("a batch")).expect("small");
            let header = Header::parse(&empty).expect("a batch");
            assert!(crc_is_right(&empty) && header.record_count == 0);
            assert_eq!(header.last_sequence(), 48);
            assert!(header.attributes.transactional() && seen(&empty).is_empty());
        }
    }

    #[test]
    fn an_append_time_stays() {
        let mut builder = Builder::new().append_time();
        builder.push(5, Some(b"a"), None, &[]);
        builder.push(9, Some(b"b"), None, &[]);
        let bytes = builder.build().expect("small");
        let less = rewritten(&bytes, Some(77), &[0]);
        assert_eq!(seen(&less), seen(&bytes)[..1]);
        assert_eq!(seen(&less)[0].1, 9);
    }
}

//! The pre-encoded batch and the request around it.
//!
//! ```text
//! | size | key | version | correlation | client | transactional id | acks | timeout | 1 topic: name | n partitions |
//! then for each partition | index | length | batch |
//! ```
//!
//! Only size, correlation id and partition indexes are written per request; the batch is one and the same buffer.

use bytes::Bytes;
use common::Rng;
use protocol::ApiKey;
use protocol::batch::{Builder, HEADER_BYTES, field};
use protocol::compression::Codec;
use protocol::wire::{Reader, Writer, varint_len};

use crate::args::bench::Load;
use crate::output::Failure;

/// Served by every broker from Apache Kafka 1.0 on; later versions add nothing that a replay needs.
pub const PRODUCE_VERSION: i16 = 7;
const CLIENT_ID: &str = "sluice-bench";
const TIMEOUT_MS: i32 = 30_000;
const CORRELATION_AT: usize = 8;
const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Marks a value that carries a time: the marker, then nanoseconds since the start.
const MARKER: u64 = 0x534c_5549_4345_4232;
const STAMP_BYTES: usize = 16;

/// A batch ready to be sent.
#[derive(Clone, Debug)]
pub struct Template {
    pub batch: Bytes,
    /// Records in it.
    pub records: u64,
    /// Bytes of their values.
    pub value_bytes: u64,
    /// -1, 0 or 1.
    pub acks: i16,
    head: Vec<u8>,
    stamp_at: usize,
}

impl Template {
    /// Builds the batch: values of random letters, as Kafka's own perf tool writes them. `now_ms` is their timestamp.
    pub fn new(load: &Load, topic: &str, now_ms: i64) -> Result<Self, Failure> {
        let codec = Codec::from_name(&load.compression).ok_or_else(|| {
            Failure::usage(format!(
                "--compression {}: none, gzip, snappy, lz4 or zstd",
                load.compression
            ))
        })?;
        let acks = match load.acks.as_str() {
            "all" | "-1" => -1,
            "1" => 1,
            "0" => 0,
            other => return Err(Failure::usage(format!("--acks {other}: all, 1 or 0"))),
        };
        let size = value_size(load)?;
        let (batch, count) = build(load, codec, size, now_ms)?;
        let mut head = Writer::default();
        head.i32(0);
        head.i16(ApiKey::Produce.code());
        head.i16(PRODUCE_VERSION);
        head.i32(0);
        head.string(false, Some(CLIENT_ID));
        head.string(false, None);
        head.i16(acks);
        head.i32(TIMEOUT_MS);
        head.i32(1);
        head.string(false, Some(topic));
        Ok(Self {
            batch,
            records: count,
            value_bytes: count * size as u64,
            acks,
            head: head.finish().to_vec(),
            stamp_at: HEADER_BYTES + value_at(size),
        })
    }

    /// Writes the parts of a request between the batches into `heads`: first the request's head with the first
    /// partition's, `first` bytes, then 8 bytes for each further one. Returns `first`.
    pub fn heads(&self, heads: &mut Vec<u8>, id: i32, partitions: &[i32]) -> usize {
        let length = i32::try_from(self.batch.len()).expect("a batch stays below 2^31 bytes");
        let whole = self.head.len() + 4 + partitions.len() * (8 + self.batch.len());
        heads.clear();
        heads.extend_from_slice(&self.head);
        let size = i32::try_from(whole - 4).expect("the caller keeps requests below 2^31 bytes");
        heads[..4].copy_from_slice(&size.to_be_bytes());
        heads[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&id.to_be_bytes());
        let count = i32::try_from(partitions.len()).expect("few");
        heads.extend_from_slice(&count.to_be_bytes());
        for partition in partitions {
            heads.extend_from_slice(&partition.to_be_bytes());
            heads.extend_from_slice(&length.to_be_bytes());
        }
        self.head.len() + 12
    }

    /// A copy of the batch whose first value carries `ns`, CRC and all.
    pub fn stamped(&self, ns: u64) -> Bytes {
        let mut batch = self.batch.to_vec();
        let at = self.stamp_at;
        batch[at..at + 8].copy_from_slice(&MARKER.to_be_bytes());
        batch[at + 8..at + STAMP_BYTES].copy_from_slice(&ns.to_be_bytes());
        let crc = common::crc32c(&batch[field::ATTRIBUTES..]);
        batch[field::CRC..field::ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
        batch.into()
    }

    /// The time that [`Self::stamped`] wrote into a batch of the same shape; `None` for any other batch.
    pub fn stamp(&self, batch: &[u8]) -> Option<u64> {
        let mut reader = Reader::new(batch.get(self.stamp_at..self.stamp_at + STAMP_BYTES)?);
        let marker = reader.array::<8>().ok()?;
        let ns = reader.array::<8>().ok()?;
        (u64::from_be_bytes(marker) == MARKER).then(|| u64::from_be_bytes(ns))
    }

    /// Refuses what cannot carry a time.
    pub fn check_stampable(&self, load: &Load) -> Result<(), Failure> {
        if load.compression != "none" || load.record_bytes < STAMP_BYTES as u64 {
            return Err(Failure::usage(format!(
                "a time travels in the first value: --compression none and --record-bytes {STAMP_BYTES} at least"
            )));
        }
        if self.acks == 0 {
            return Err(Failure::usage("--acks 0 cannot tell what was accepted: all or 1"));
        }
        Ok(())
    }
}

/// Bytes of a value.
fn value_size(load: &Load) -> Result<usize, Failure> {
    let records = u64::from(load.batch_records.unwrap_or(1));
    let wanted = load.record_bytes.saturating_mul(records).max(load.batch_bytes);
    if wanted > BATCH_BYTES_MAX {
        return Err(Failure::usage(format!("a batch of more than {} MiB", BATCH_BYTES_MAX >> 20)));
    }
    Ok(usize::try_from(load.record_bytes).expect("checked to be small"))
}

/// The batch and its number of records: as many as asked for, or as fit, one at least.
fn build(load: &Load, codec: Codec, size: usize, now_ms: i64) -> Result<(Bytes, u64), Failure> {
    let rng = Rng::seeded(load.batch_bytes ^ load.record_bytes);
    let mut builder = Builder::new().codec(codec);
    let mut value = vec![0u8; size];
    // Offset deltas take up to five bytes where one is reckoned.
    let record = value_at(size) + size + 1 + 4;
    let more = |builder: &Builder| match load.batch_records {
        Some(count) => i64::from(builder.count()) < i64::from(count),
        None => (builder.bytes() + record) as u64 <= load.batch_bytes,
    };
    while builder.count() == 0 || more(&builder) {
        for byte in &mut value {
            *byte = b'A' + u8::try_from(rng.below(26)).expect("below 26");
        }
        builder.push(now_ms, None, Some(&value), &[]);
    }
    let count = u64::try_from(builder.count()).expect("a count");
    Ok((builder.build().map_err(Failure::usage)?, count))
}

/// Where the value begins in the first record, which has neither key nor headers: length, attributes, time, offset, key,
/// length of the value.
fn value_at(size: usize) -> usize {
    let value = i32::try_from(size).expect("value_size refuses more");
    let body = 4 + varint_len(value) + size + 1;
    varint_len(i32::try_from(body).expect("value_size refuses more")) + 4 + varint_len(value)
}

#[cfg(test)]
mod tests {
    use protocol::batch::{Batches, crc_is_right};
    use protocol::{frame, produce};

    use super::*;

    fn load(batch_bytes: u64, record_bytes: u64) -> Load {
        Load {
            batch_bytes,
            batch_records: None,
            record_bytes,
            compression: "none".to_owned(),
            acks: "all".to_owned(),
        }
    }

    #[test]
    fn a_broker_reads_the_request() {
        let template = Template::new(&load(16_384, 1024), "load", 1).expect("valid");
        assert_eq!((template.records, template.value_bytes), (15, 15 * 1024));
        let mut heads = Vec::new();
        let first = template.heads(&mut heads, 77, &[3, 9]);
        let mut whole = heads[..first].to_vec();
        whole.extend_from_slice(&template.batch);
        whole.extend_from_slice(&heads[first..]);
        whole.extend_from_slice(&template.batch);
        let size = frame::size(whole[..4].try_into().expect("four"), 1 << 20).expect("small");
        assert_eq!(size, whole.len() - 4);
        let request = frame::decode(&Bytes::from(whole).slice(4..)).expect("a request");
        assert_eq!((request.key, request.correlation_id), (ApiKey::Produce, 77));
        let body = produce::Request::decode(request.version, &request.body).expect("decodes");
        assert_eq!((body.acks, &body.topics[0].name[..]), (-1, "load"));
        let indexes: Vec<i32> = body.topics[0].partitions.iter().map(|one| one.index).collect();
        assert_eq!(indexes, [3, 9]);
        for one in &body.topics[0].partitions {
            let records = one.records.clone().expect("records");
            assert!(crc_is_right(&records) && records.len() <= 16_384);
        }
    }

    #[test]
    fn batches_come_close_to_the_size_asked_for_and_not_over_it() {
        for (batch, record) in [(16_384, 1024), (1_000_000, 1024), (16_384, 100), (1_000_000, 10)] {
            let template = Template::new(&load(batch, record), "load", 1).expect("valid");
            let len = template.batch.len() as u64;
            assert!(len <= batch && len + record + 64 > batch, "{batch} {record} {len}");
        }
    }

    #[test]
    fn a_time_goes_in_and_comes_out_and_the_crc_stays_right() {
        for (records, size) in [(1, 16), (1, 1024), (20, 1024), (3, 100)] {
            let mut load = load(0, size);
            load.batch_records = Some(records);
            let template = Template::new(&load, "load", 1_700_000_000_000).expect("valid");
            template.check_stampable(&load).expect("stampable");
            let batch = template.stamped(0x0123_4567_89ab_cdef);
            assert!(crc_is_right(&batch));
            assert_eq!(template.stamp(&batch), Some(0x0123_4567_89ab_cdef));
            assert_eq!(template.stamp(&template.batch), None);
            let (header, whole) = Batches::new(batch).next().expect("one").expect("a batch");
            assert_eq!(u32::try_from(header.record_count), Ok(records));
            let payload = protocol::batch::payload(&whole, &header, 1 << 20).expect("plain");
            let first = &payload[value_at(usize::try_from(size).expect("small"))..];
            assert_eq!(&first[..8], MARKER.to_be_bytes());
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut wrong = load(1, 1024);
        wrong.compression = "brotli".to_owned();
        assert_eq!(Template::new(&wrong, "load", 1).expect_err("refused").code, 2);
        let mut wrong = load(1, 1024);
        wrong.acks = "2".to_owned();
        assert_eq!(Template::new(&wrong, "load", 1).expect_err("refused").code, 2);
        assert!(Template::new(&load(1, 1 << 40), "load", 1).is_err());
        let small = load(1, 8);
        let template = Template::new(&small, "load", 1).expect("valid");
        assert!(template.check_stampable(&small).is_err());
    }
}

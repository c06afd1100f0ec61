//! The check of a produced batch, before anything is appended. Pure, and outside every lock.
//!
//! The rules and their errors are those of Kafka's `ProduceRequest`, `UnifiedLog.analyzeAndValidateRecords` and
//! `LogValidator`.

use bytes::Bytes;
use protocol::ErrorCode;
use protocol::batch::{self, HEADER_BYTES, Header, NO_TIMESTAMP, Records};
use protocol::compression::{self, Codec};

use crate::config::{TimestampType, TopicConfig};
use crate::options::Options;
use crate::producers::Sequenced;

/// Largest batch whatever the topic says: a group of the write-ahead log takes no more.
pub const BATCH_BYTES_MAX: usize = 32 << 20;
/// Record errors named in one answer.
pub const RECORD_ERRORS_MAX: usize = 1_024;
/// First version of Produce whose clients may send zstd.
const ZSTD_VERSION_MIN: i16 = 7;

/// What a batch is held against.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Version of the Produce request.
    pub api_version: i16,
    /// The request carries a transactional id.
    pub transactional_id: bool,
    /// Largest batch, in bytes.
    pub message_bytes_max: usize,
    /// Which time the records get.
    pub timestamp_type: TimestampType,
    /// How far a create time may lie in the past, in milliseconds.
    pub timestamp_before_max_ms: i64,
    /// How far a create time may lie in the future, in milliseconds.
    pub timestamp_after_max_ms: i64,
    /// Every record needs a key.
    pub compacted: bool,
    /// Wall time, milliseconds since 1970.
    pub now_ms: i64,
    /// Open compressed batches too (`records.validate = full`).
    pub full: bool,
    /// Bytes that the records of one compressed batch may come to.
    pub decompressed_bytes_max: usize,
    /// The codec that batches are stored in; `None` for the producer's own (`compression.type`).
    pub codec: Option<Codec>,
}

impl Rules {
    /// The rules for a Produce request to a topic with `config`.
    #[must_use]
    pub fn produce(
        config: &TopicConfig,
        options: &Options,
        api_version: i16,
        transactional_id: bool,
        now_ms: i64,
    ) -> Self {
        Self {
            api_version,
            transactional_id,
            message_bytes_max: config.message_bytes_max.min(BATCH_BYTES_MAX),
            timestamp_type: config.timestamp_type,
            timestamp_before_max_ms: config.timestamp_before_max_ms,
            timestamp_after_max_ms: config.timestamp_after_max_ms,
            compacted: config.compacted,
            now_ms,
            full: true,
            decompressed_bytes_max: options.decompressed_bytes_max,
            codec: config.codec,
        }
    }
}

/// One record that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// Why.
    pub message: String,
}

/// A batch was refused. Nothing of it is appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Reject {
    /// Kafka's code.
    pub code: ErrorCode,
    /// One sentence for the client (Produce v8 and above).
    pub message: String,
    /// The records at fault, when single ones are (Produce v8 and above).
    pub record_errors: Vec<RecordError>,
    /// Kafka's log refuses this, not its request handling: the answer names the log start.
    pub by_the_log: bool,
}

impl Reject {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), record_errors: Vec::new(), by_the_log: false }
    }

    fn by_the_log(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { by_the_log: true, ..Self::new(code, message) }
    }
}

/// A batch that may be appended.
#[derive(Clone, Debug)]
pub struct Checked {
    bytes: Bytes,
    header: Header,
    // Set when the header is not the one that came: append time, or a highest timestamp that was not the records'.
    head: Option<Box<[u8; HEADER_BYTES]>>,
}

impl Checked {
    /// Takes over a batch that this broker has built itself, with no more checks than its frame.
    ///
    /// # Errors
    /// When the bytes are not exactly one batch.
    pub fn trusted(bytes: Bytes) -> Result<Self, Reject> {
        let header = frame(&bytes)?;
        counts(&header)?;
        Ok(Self { bytes, header, head: None })
    }

    /// The header as it will be written, but for base offset and leader epoch.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the batch.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a batch has at least its header")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Records inside.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::try_from(self.header.record_count).expect("checked to be above 0")
    }

    /// Offsets covered.
    #[must_use]
    pub fn span(&self) -> u64 {
        u64::try_from(self.header.last_offset_delta).expect("checked to be 0 or more") + 1
    }

    /// Highest timestamp of its records, or the append time.
    #[must_use]
    pub fn max_timestamp(&self) -> i64 {
        self.header.max_timestamp
    }

    /// The time to answer: the append time, or -1 under create time.
    #[must_use]
    pub fn log_append_time(&self) -> i64 {
        if self.header.attributes.append_time() { self.header.max_timestamp } else { NO_TIMESTAMP }
    }

    /// Producer and sequence, if it has one.
    #[must_use]
    pub fn sequenced(&self) -> Option<Sequenced> {
        sequenced(&self.header)
    }

    /// The bytes to write at `base_offset` under `leader_epoch`.
    #[must_use]
    pub(crate) fn stamp(&self, base_offset: i64, leader_epoch: i32) -> Stamped<'_> {
        let patched = self.header.patched_head(base_offset, leader_epoch);
        let mut head = [0; HEADER_BYTES];
        let mut head_bytes = patched.len();
        if let Some(whole) = &self.head {
            head = **whole;
            head_bytes = HEADER_BYTES;
        }
        head[..patched.len()].copy_from_slice(&patched);
        Stamped { head, head_bytes, rest: &self.bytes[head_bytes..] }
    }
}

/// What the header says about the producer; `None` without one and for control batches.
pub(crate) fn sequenced(header: &Header) -> Option<Sequenced> {
    let data = header.has_producer() && !header.attributes.control();
    data.then_some(Sequenced {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        last_offset_delta: header.last_offset_delta,
    })
}

/// A batch with its place in the log.
pub(crate) struct Stamped<'a> {
    head: [u8; HEADER_BYTES],
    head_bytes: usize,
    rest: &'a [u8],
}

impl Stamped<'_> {
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [&self.head[..self.head_bytes], self.rest]
    }
}

/// Checks the records that a Produce request carries for one partition, and brings them into the topic's codec.
///
/// # Errors
/// [`Reject`] with Kafka's code.
pub fn validate(bytes: &Bytes, rules: &Rules) -> Result<Checked, Reject> {
    let header = frame(bytes)?;
    let codec = codec(&header, rules)?;
    if header.base_offset != 0 {
        let message =
            format!("the base offset of a batch has to be 0, it is {}", header.base_offset);
        return Err(Reject::by_the_log(ErrorCode::InvalidRecord, message));
    }
    let target = rules.codec.unwrap_or(codec);
    if target == codec {
        fits(bytes.len(), rules)?;
    }
    if !batch::crc_is_right(bytes) {
        let message = "the batch does not match its checksum";
        return Err(Reject::new(ErrorCode::CorruptMessage, message));
    }
    counts(&header)?;
    client(&header, rules)?;
    let opened = match codec {
        Codec::None => Some(bytes.slice(HEADER_BYTES..)),
        _ if rules.full || target != codec => {
            let records = batch::payload(bytes, &header, rules.decompressed_bytes_max);
            Some(records.map_err(|error| opening(&error))?)
        }
        _ => None,
    };
    let highest = match &opened {
        Some(records) => walk(records, &header, rules)?,
        None => header.max_timestamp,
    };
    match opened {
        Some(records) if target != codec => recoded(&header, target, records, highest, rules),
        _ => Ok(restamped(bytes, header, highest, rules)),
    }
}

fn fits(size: usize, rules: &Rules) -> Result<(), Reject> {
    let max = rules.message_bytes_max;
    if size <= max {
        return Ok(());
    }
    let message = format!("the batch has {size} bytes, max.message.bytes is {max}");
    Err(Reject::new(ErrorCode::MessageTooLarge, message))
}

/// The batch in another codec. Its size counts after that, as in Kafka.
fn recoded(
    header: &Header,
    codec: Codec,
    records: Bytes,
    highest: i64,
    rules: &Rules,
) -> Result<Checked, Reject> {
    let packed = compression::compress(codec, records);
    let size = HEADER_BYTES + packed.len();
    fits(size, rules)?;
    let mut header = header.with_codec(codec, packed.len());
    header.max_timestamp = highest;
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&header.sealed(&packed));
    bytes.extend_from_slice(&packed);
    let header = Header::parse(&bytes).expect("a header that was just written");
    Ok(restamped(&Bytes::from(bytes), header, highest, rules))
}

/// The batch with the time, the highest timestamp and the timestamp type that it is stored under.
fn restamped(bytes: &Bytes, mut header: Header, highest: i64, rules: &Rules) -> Checked {
    let records = &bytes[HEADER_BYTES..];
    let create_time = header.with_create_time();
    let head = match rules.timestamp_type {
        TimestampType::LogAppendTime => Some(header.stamped_head(0, -1, rules.now_ms, records)),
        TimestampType::CreateTime if highest != header.max_timestamp || create_time != header => {
            Some(Header { max_timestamp: highest, ..create_time }.sealed(records))
        }
        TimestampType::CreateTime => None,
    };
    if let Some(head) = &head {
        header = Header::parse(head).expect("a header that was just written");
    }
    Checked { bytes: bytes.clone(), header, head: head.map(Box::new) }
}

/// Exactly one batch of format 2.
fn frame(bytes: &Bytes) -> Result<Header, Reject> {
    if bytes.is_empty() {
        let message = "a produce request has exactly one record batch per partition, here is none";
        return Err(Reject::new(ErrorCode::InvalidRecord, message));
    }
    let header = Header::parse(bytes).map_err(|error| {
        let code = match error {
            // Kafka sees no batch at all in bytes that end before one does.
            batch::Error::Magic(0 | 1) | batch::Error::Short { .. } => ErrorCode::InvalidRecord,
            batch::Error::Magic(_) | batch::Error::Length(_) => ErrorCode::CorruptMessage,
        };
        Reject::new(code, error.to_string())
    })?;
    let (size, there) = (header.size(), bytes.len());
    if size > there {
        let message = format!("the batch says it has {size} bytes, {there} are there");
        return Err(Reject::new(ErrorCode::InvalidRecord, message));
    }
    if size < there {
        let message = "a produce request has exactly one record batch per partition";
        return Err(Reject::new(ErrorCode::InvalidRecord, message));
    }
    Ok(header)
}

fn codec(header: &Header, rules: &Rules) -> Result<Codec, Reject> {
    let code = ErrorCode::UnsupportedCompressionType;
    let unknown = || Reject::by_the_log(code, "unknown compression codec");
    let codec = header.attributes.codec().ok_or_else(unknown)?;
    if codec == Codec::Zstd && rules.api_version < ZSTD_VERSION_MIN {
        return Err(Reject::new(code, "zstd needs version 7 of Produce"));
    }
    Ok(codec)
}

fn counts(header: &Header) -> Result<(), Reject> {
    let (count, delta) = (header.record_count, header.last_offset_delta);
    if count > 0 && delta == count - 1 {
        return Ok(());
    }
    let message = format!("the batch counts {count} records, its last offset delta is {delta}");
    Err(Reject::by_the_log(ErrorCode::InvalidRecord, message))
}

/// What no client may set.
fn client(header: &Header, rules: &Rules) -> Result<(), Reject> {
    let attributes = header.attributes;
    if attributes.control() {
        let message = "clients may not write control records";
        return Err(Reject::by_the_log(ErrorCode::InvalidRecord, message));
    }
    if header.has_producer() && header.base_sequence < 0 {
        let message = format!(
            "sequence {} of producer {} is below 0",
            header.base_sequence, header.producer_id
        );
        return Err(Reject::by_the_log(ErrorCode::InvalidRecord, message));
    }
    if attributes.transactional() {
        return Err(if rules.transactional_id {
            let message = "the partition was not added to a transaction of this producer";
            Reject::new(ErrorCode::InvalidTxnState, message)
        } else {
            let message = "a transactional batch needs a request with a transactional id";
            Reject::new(ErrorCode::TransactionalIdAuthorizationFailed, message)
        });
    }
    Ok(())
}

fn opening(error: &compression::Error) -> Reject {
    let code = match error {
        compression::Error::UnknownCodec(_) => ErrorCode::UnsupportedCompressionType,
        compression::Error::TooLarge { .. } => ErrorCode::MessageTooLarge,
        compression::Error::Corrupt { .. } => ErrorCode::InvalidRecord,
    };
    Reject::by_the_log(code, error.to_string())
}

/// Walks every record; returns the highest timestamp.
fn walk(payload: &[u8], header: &Header, rules: &Rules) -> Result<i64, Reject> {
    let mut highest = NO_TIMESTAMP;
    let mut errors: Vec<RecordError> = Vec::new();
    let mut time_is_wrong = false;
    for (record, index) in Records::new(payload, header.record_count).zip(0i32..) {
        let record = record
            .map_err(|error| Reject::by_the_log(ErrorCode::InvalidRecord, error.to_string()))?;
        let timestamp = record.timestamp(header);
        highest = highest.max(timestamp);
        let wrong = if record.offset_delta != index {
            Some(format!("record {index} has offset delta {}", record.offset_delta))
        } else if rules.compacted && record.key.is_none() {
            Some("a compacted topic takes no record without a key".to_owned())
        } else {
            let wrong = timestamp_error(timestamp, header, rules);
            time_is_wrong |= wrong.is_some();
            wrong
        };
        if let Some(message) = wrong
            && errors.len() < RECORD_ERRORS_MAX
        {
            errors.push(RecordError { index, message });
        }
    }
    if errors.is_empty() {
        return Ok(highest);
    }
    let (code, what) = if time_is_wrong {
        (ErrorCode::InvalidTimestamp, "an invalid timestamp")
    } else {
        (ErrorCode::InvalidRecord, "record errors")
    };
    let message = format!("one or more records have been rejected due to {what}");
    Err(Reject { code, message, record_errors: errors, by_the_log: true })
}

fn timestamp_error(timestamp: i64, header: &Header, rules: &Rules) -> Option<String> {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        let set = header.attributes.append_time();
        return set.then(|| "a producer may not set the timestamp type LogAppendTime".to_owned());
    }
    if timestamp == NO_TIMESTAMP {
        return None;
    }
    let now = rules.now_ms;
    let earliest = now.saturating_sub(rules.timestamp_before_max_ms);
    let latest = now.saturating_add(rules.timestamp_after_max_ms);
    if (earliest..=latest).contains(&timestamp) {
        return None;
    }
    Some(format!("timestamp {timestamp} is out of range [{earliest}, {latest}]"))
}

#[cfg(test)]
mod tests;

//! Group records as one record batch.

use bytes::Bytes;
use coordinator::Record;
use partition::Checked;
use protocol::ErrorCode;
use protocol::batch::{BuildError, Builder};

/// Most bytes of one batch, as Kafka's default `max.message.bytes`.
const BATCH_BYTES_MAX: usize = 1_048_588;

/// The batch of `records`, ready to be appended.
///
/// # Errors
/// MESSAGE_TOO_LARGE when it would be larger than a message may be.
pub(super) fn build(records: &[Record], now_ms: i64) -> Result<Checked, ErrorCode> {
    let bytes = encode(records, now_ms).map_err(|error| match error {
        BuildError::TooLarge => ErrorCode::MessageTooLarge,
        BuildError::Empty => ErrorCode::InvalidRecord,
    })?;
    if bytes.len() > BATCH_BYTES_MAX {
        return Err(ErrorCode::MessageTooLarge);
    }
    Checked::trusted(bytes).map_err(|reject| reject.code)
}

pub(super) fn encode(records: &[Record], now_ms: i64) -> Result<Bytes, BuildError> {
    let mut builder = Builder::new();
    for record in records {
        builder.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
    }
    builder.build()
}

//! DeleteRecords: the log start moves because a client says so.

use std::sync::Arc;

use common::failpoint;
use protocol::ErrorCode;

use super::floors;
use super::start::{self, StartError};
use crate::error::Gone;
use crate::partition::Partition;

/// DeleteRecords: everything below the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Why no record was deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteError {
    /// The partition is not served here any more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The offset is negative or lies above the high watermark.
    #[error("offset {offset} lies outside [0, {high_watermark}]")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The high watermark.
        high_watermark: i64,
    },
    /// `cleanup.policy` lacks `delete`.
    #[error("records of a topic whose cleanup.policy lacks delete are not deleted")]
    Policy,
    /// Metadata does not answer; the start may have moved.
    #[error("{0}")]
    Unavailable(String),
}

impl DeleteError {
    /// Kafka's code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Gone(gone) => gone.code(),
            Self::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Policy => ErrorCode::PolicyViolation,
            Self::Unavailable(_) => ErrorCode::RequestTimedOut,
        }
    }
}

impl From<StartError> for DeleteError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Gone(gone) => Self::Gone(gone),
            StartError::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl Partition {
    /// Deletes every record below `offset`, or below the high watermark for -1, and returns the log start: durable, and
    /// in force for readers. No sink is asked: what a sink has not cut is gone for it too, and its next cut names it as
    /// skipped. Only the bytes of a cut that is being written wait for its end.
    ///
    /// # Errors
    /// See [`DeleteError`].
    pub async fn delete_records(self: &Arc<Self>, offset: i64) -> Result<i64, DeleteError> {
        self.gate()?;
        if !self.config().deleted_by_age {
            return Err(DeleteError::Policy);
        }
        let high_watermark = self.offsets().high_watermark;
        let wanted = if offset == HIGH_WATERMARK { high_watermark } else { offset };
        if wanted < 0 || wanted > high_watermark {
            return Err(DeleteError::OutOfRange { offset, high_watermark });
        }
        if wanted > self.offsets().log_start {
            self.remove_below(wanted).await?;
            self.shared.metrics.records_deleted.inc();
        }
        self.gate()?;
        Ok(self.offsets().log_start)
    }

    /// Hides everything below `start` from readers and has its bytes released, but for those that an open cut of a sink
    /// still reads: they go with a later round of the cleaner.
    pub(crate) async fn remove_below(self: &Arc<Self>, start: i64) -> Result<(), StartError> {
        let held = self.held_from(start);
        if held < start {
            start::hide_in_meta(&self.shared, self.id, self.epoch, start).await?;
            failpoint::hit("partition.start.hidden");
            self.see_start(start);
        }
        // Looked at again behind the act: a cut that came meanwhile was refused or is seen now.
        let until = if held < start { self.held_from(start) } else { start };
        if until > self.kept_from() {
            start::move_data(&self.shared, self.id, self.epoch, Some(self), until).await?;
        }
        Ok(())
    }

    /// First offset whose bytes are kept: below the log start while a cut of a sink needs them.
    #[must_use]
    pub fn kept_from(&self) -> i64 {
        let stream = self.stream(common::StreamKind::Data);
        self.shared.storage.bounds(stream).map_or(0, |bounds| bounds.start)
    }

    /// The lowest offset below `start` that an open cut needs, else `start`.
    fn held_from(&self, start: i64) -> i64 {
        let image = self.shared.meta.image();
        let state = self.state.lock();
        let sinks = floors::of(&image, self.id, state.log_start);
        let needed = sinks.iter().filter_map(|sink| match state.cuts.get(&sink.sink) {
            Some(Some(open)) => Some(*open),
            Some(None) => None,
            // It has not told since the partition was opened: it may find an open cut.
            None => Some(sink.offset),
        });
        needed.fold(start, i64::min)
    }

    /// Releases what was hidden and held, as far as no cut needs it any more.
    pub(crate) async fn release_hidden(self: &Arc<Self>) -> Result<(), StartError> {
        let visible = self.offsets().log_start;
        let until = self.held_from(visible);
        if until > self.kept_from() {
            start::move_data(&self.shared, self.id, self.epoch, Some(self), until).await?;
        }
        Ok(())
    }
}

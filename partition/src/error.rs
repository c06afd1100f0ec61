//! What the operations of a partition can return.

use protocol::ErrorCode;

/// Why a partition is no longer served here. Whoever waits on it is answered with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// Its topic has been deleted.
    #[error("the topic has been deleted")]
    Deleted,
    /// Another broker owns it, or this broker owns it under a newer epoch.
    #[error("this broker no longer leads the partition")]
    NotLeader,
    /// This broker is stopping.
    #[error("this broker is stopping")]
    Stopping,
}

impl Gone {
    /// Kafka's code: a client refreshes its metadata on each.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Gone::Deleted => ErrorCode::UnknownTopicOrPartition,
            Gone::NotLeader | Gone::Stopping => ErrorCode::NotLeaderOrFollower,
        }
    }
}

/// Why a batch was not appended. Nothing was queued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The partition is not served here any more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The epoch is below the newest one of the producer id.
    #[error("producer {producer_id} wrote with epoch {epoch}, its epoch is {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// Epoch of the batch.
        epoch: i16,
        /// Newest epoch seen.
        current: i16,
    },
    /// The sequence does not follow the last one.
    #[error(
        "producer {producer_id} sent sequence {first_sequence} with epoch {epoch}, expected {expected}"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// Epoch of the batch.
        epoch: i16,
        /// Base sequence of the batch.
        first_sequence: i32,
        /// The sequence that would have followed.
        expected: i32,
    },
    /// The write-ahead log has no room until an upload frees some: wait, then try again.
    #[error("the write-ahead log is full; uploads free it, wal.size.max bounds it")]
    Full,
    /// The offset would reach the committed end plus 2^32: wait for uploads, then try again.
    #[error("the partition is 2^32 offsets ahead of its committed end; uploads must catch up")]
    TooFarAhead,
    /// The batch is larger than the log takes.
    #[error("a batch of {bytes} bytes is larger than the write-ahead log takes")]
    TooLarge {
        /// Size of the batch.
        bytes: usize,
    },
}

impl AppendError {
    /// Kafka's code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            AppendError::Gone(gone) => gone.code(),
            AppendError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            AppendError::Full | AppendError::TooFarAhead => ErrorCode::KafkaStorageError,
            AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        }
    }

    /// True when waiting for uploads and trying again can help.
    #[must_use]
    pub fn waits_for_space(&self) -> bool {
        matches!(self, AppendError::Full | AppendError::TooFarAhead)
    }
}

/// Why a read failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The partition is not served here any more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The offset lies below the log start or above the end.
    #[error("offset {offset} lies outside [{log_start}, {end}]")]
    OutOfRange {
        /// The offset asked for.
        offset: i64,
        /// First offset that can be read.
        log_start: i64,
        /// The end of the log.
        end: i64,
    },
    /// The bytes cannot be had now: try again.
    #[error("reading the partition failed for now: {reason}")]
    Unavailable {
        /// What the storage said.
        reason: String,
    },
    /// The range cannot be proved intact. Never skipped in silence.
    #[error("the partition cannot be read from offset {offset}: {reason}")]
    Corrupt {
        /// Where.
        offset: i64,
        /// What is wrong.
        reason: String,
    },
}

impl ReadError {
    /// Kafka's code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            ReadError::Gone(gone) => gone.code(),
            ReadError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            ReadError::Unavailable { .. } | ReadError::Corrupt { .. } => {
                ErrorCode::KafkaStorageError
            }
        }
    }
}

/// Why a partition could not be opened. Opening is tried again at the next use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Metadata knows no such partition.
    #[error("partition {index} of topic {topic} does not exist")]
    Unknown {
        /// Number of the topic.
        topic: u64,
        /// Index of the partition.
        index: u32,
    },
    /// Another broker leads it, or none does.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The storage could not give its bounds or bytes now.
    #[error("opening the partition failed for now: {reason}")]
    Unavailable {
        /// What the storage said.
        reason: String,
    },
    /// Its state cannot be proved intact.
    #[error("the partition cannot be opened: {reason}")]
    Corrupt {
        /// What is wrong.
        reason: String,
    },
}

impl OpenError {
    /// Kafka's code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            OpenError::Unknown { .. } => ErrorCode::UnknownTopicOrPartition,
            OpenError::Gone(gone) => gone.code(),
            OpenError::Unavailable { .. } | OpenError::Corrupt { .. } => {
                ErrorCode::KafkaStorageError
            }
        }
    }
}

impl From<ReadError> for OpenError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Gone(gone) => OpenError::Gone(gone),
            ReadError::Unavailable { reason } => OpenError::Unavailable { reason },
            other @ (ReadError::Corrupt { .. } | ReadError::OutOfRange { .. }) => {
                OpenError::Corrupt { reason: other.to_string() }
            }
        }
    }
}

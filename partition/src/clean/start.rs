//! Moving the start of a stream: metadata first, then whoever reads here.

use std::sync::Arc;

use common::{PartitionId, StreamEpoch, StreamId, StreamKind, failpoint};
use meta::Reply;
use meta::command::{SetCleaning, SetLogStart};

use crate::error::Gone;
use crate::partition::{Partition, Shared};
use crate::time_index::TimeIndex;

/// A start that could not be moved; it may have moved in metadata.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StartError {
    /// Another owner moves it.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// Metadata does not answer.
    #[error("metadata does not answer: {0}")]
    Unavailable(String),
}

/// Has metadata move the start of `stream` forward to `start` and release what lies below. Returns the start now.
pub(crate) async fn move_in_meta(
    shared: &Shared,
    stream: StreamId,
    epoch: StreamEpoch,
    start: i64,
) -> Result<i64, StartError> {
    let PartitionId { topic, index } = stream.partition;
    loop {
        let command = SetLogStart {
            topic,
            index,
            kind: u32::from(stream.kind as u8),
            start,
            epoch: epoch.0,
            now_ms: shared.clock.now_ms(),
        };
        match shared.meta.propose(command).await {
            Ok(Reply::LogStartSet { more: true, .. }) => {}
            Ok(Reply::LogStartSet { start, more: false }) => return Ok(start),
            other => return Err(refused(other)),
        }
    }
}

/// Has metadata remember that clients see nothing below `hidden_below`.
pub(crate) async fn hide_in_meta(
    shared: &Shared,
    id: PartitionId,
    epoch: StreamEpoch,
    hidden_below: i64,
) -> Result<(), StartError> {
    let command = SetCleaning {
        topic: id.topic,
        index: id.index,
        epoch: epoch.0,
        hidden_below: Some(hidden_below),
        ..SetCleaning::default()
    };
    match shared.meta.propose(command).await {
        Ok(Reply::CleaningSet) => Ok(()),
        other => Err(refused(other)),
    }
}

pub(crate) fn refused(reply: Result<Reply, meta::ProposeError>) -> StartError {
    match reply {
        Ok(Reply::Rejected(meta::Reject::UnknownPartition(_))) => Gone::Deleted.into(),
        Ok(Reply::Rejected(meta::Reject::StaleStreamEpoch { .. })) => Gone::NotLeader.into(),
        Ok(other) => StartError::Unavailable(format!("unexpected reply {other:?}")),
        Err(error) => StartError::Unavailable(error.to_string()),
    }
}

/// Moves the data start of a partition of this broker, open or not: durable in metadata, then for readers.
pub(crate) async fn move_data(
    shared: &Shared,
    id: PartitionId,
    epoch: StreamEpoch,
    open: Option<&Arc<Partition>>,
    start: i64,
) -> Result<i64, StartError> {
    let stream = id.stream(StreamKind::Data);
    let start = move_in_meta(shared, stream, epoch, start).await?;
    failpoint::hit("partition.start.moved");
    shared.storage.set_start(stream, start);
    if let Some(partition) = open {
        partition.see_start(start);
    }
    Ok(start)
}

impl Partition {
    /// Readers see nothing below `start` from now on; what told of it is forgotten.
    pub(crate) fn see_start(&self, start: i64) {
        let mut state = self.state.lock();
        if start <= state.log_start {
            return;
        }
        state.log_start = start;
        state.epochs.truncate_below(start);
        // Its highest time may have been that of a record that is gone.
        let points_max = self.shared.options.time_points_max;
        *self.time_index.lock() = TimeIndex::new(start, points_max);
    }
}

//! Moving a partition to another broker.
//!
//! ```text
//! upload the tail, serving -> seal -> upload the rest -> MovePartition: new owner, next epoch
//! ```
//! Nothing is appended behind the seal, so the ends that the command names are the last word of this epoch. Once the
//! command is under way nothing is answered here either: the next owner may be open before the reply is back. A seal is
//! taken back only while it is certain that no command is under way: one that comes late would give the partition away
//! from bytes that were appended since.

use std::time::Duration;

use common::{NodeId, PartitionId, StreamEpoch, failpoint};
use meta::command::MovePartition;
use meta::{ProposeError, Reject, Reply};

use crate::error::{Gone, OpenError};
use crate::partition::Partition;
use crate::registry::Partitions;

/// A partition is sealed for so long at most before its move is given up, unless the command is under way already.
pub const SEALED_MAX: Duration = Duration::from_secs(5);

/// First pause before an unanswered command is repeated; doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Why a partition has not moved. It is opened again here at its next use, unless it is gone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It is not served here, or not any more.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// It could not be opened.
    #[error("a partition moves from where it is open: {0}")]
    NotOpen(OpenError),
    /// Metadata refuses.
    #[error("{0}")]
    Refused(Reject),
    /// The object store did not take the rest in time.
    #[error("the rest of the partition was not uploaded within {SEALED_MAX:?}; it stays")]
    Slow,
}

impl Partitions {
    /// Moves partition `id` to broker `to`. It is served until the last moment, and afterwards by `to` under the epoch
    /// that is returned. Run it to its end: when it is dropped while metadata does not answer, the partition stays
    /// sealed until its epoch changes.
    ///
    /// # Errors
    /// [`MoveError`].
    pub async fn move_to(&self, id: PartitionId, to: NodeId) -> Result<StreamEpoch, MoveError> {
        let partition = self.get(id).await.map_err(|error| match error {
            OpenError::Gone(gone) => MoveError::Gone(gone),
            other => MoveError::NotOpen(other),
        })?;
        let storage = &partition.shared.storage;
        storage.upload_appended().await.map_err(|_| Gone::Stopping)?;
        let ends = partition.seal()?;
        failpoint::hit("partition.sealed");
        let mut sealed = Sealed { partition: &partition, keep: false };
        let rest = tokio::time::timeout(SEALED_MAX, storage.upload_appended()).await;
        rest.map_err(|_| MoveError::Slow)?.map_err(|_| Gone::Stopping)?;
        let command = MovePartition {
            topic: id.topic,
            index: id.index,
            epoch: partition.epoch.0,
            wal: storage.wal_id().0,
            wal_epoch: storage.wal_epoch().0,
            to: to.0,
            ends: ends.to_vec(),
        };
        partition.close(Gone::NotLeader);
        storage.close_partition(id);
        hand_over(&partition, command, &mut sealed).await
    }
}

/// Proposes until there is an answer.
async fn hand_over(
    partition: &Partition,
    command: MovePartition,
    sealed: &mut Sealed<'_>,
) -> Result<StreamEpoch, MoveError> {
    let mut pause = BACKOFF_MIN;
    let mut unanswered = false;
    loop {
        sealed.keep = true;
        match partition.shared.meta.propose(command.clone()).await {
            Ok(Reply::PartitionMoved { epoch }) => return Ok(epoch),
            // Moved by a command whose answer was lost, or deleted, or taken away by a fence.
            Ok(Reply::Rejected(Reject::StaleStreamEpoch { current })) if unanswered => {
                return Ok(current);
            }
            Ok(Reply::Rejected(reject)) if !unanswered => {
                sealed.keep = false;
                return Err(MoveError::Refused(reject));
            }
            Err(error @ (ProposeError::NotLeader { .. } | ProposeError::TooLarge { .. })) => {
                // Certainly not done; but an earlier one may be.
                sealed.keep = unanswered;
                tracing::debug!(%error, "a move is proposed again");
            }
            Err(ProposeError::Closed) => return Err(Gone::Stopping.into()),
            Ok(_) | Err(_) => unanswered = true,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACKOFF_MAX);
    }
}

/// Takes the seal back unless a command may be under way.
struct Sealed<'a> {
    partition: &'a Partition,
    keep: bool,
}

impl Drop for Sealed<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.partition.shared.storage.unseal_partition(self.partition.id);
        }
    }
}

impl Partition {
    /// Seals the streams behind a last snapshot; their ends.
    fn seal(&self) -> Result<[i64; 3], Gone> {
        let mut state = self.state.lock();
        self.check_gate(&mut state)?;
        // Without it the next owner only replays more.
        let _ = self.queue_snapshots(&mut state);
        // The mutex keeps appends out: none is between its check and the log.
        self.shared.storage.seal_partition(self.id).ok_or(Gone::NotLeader)
    }
}

//! Taking over the log of a broker that is gone, when its medium survived.
//!
//! ```text
//! fence in metadata -> fence the medium -> recover -> rounds above the committed LSN -> hand out
//! ```
//! The order is the point. After the first step nothing of the old owner is committed any more, after the second none of
//! its writes lands, so what recovery reads is all that it can ever have acknowledged. Each step may be repeated from the
//! start, by this broker or another one: the newest fence wins.

use std::future::Future;
use std::io;
use std::sync::Arc;

use common::{Lsn, WalEpoch, WalId, failpoint};
use meta::command::{FenceWal, HandOutWal};
use meta::{Reject, Reply};
use tokio::time::sleep;

use crate::core::Core;
use crate::floors::Floors;
use crate::metrics::Metrics;
use crate::storage::Storage;
use crate::upload::{Log, Uploader, backoff};

/// What a takeover did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// Groups of the log that were not in objects yet.
    pub groups: u64,
    /// Partitions that have another owner now.
    pub partitions: u32,
}

/// Why a log was not taken over. It may be tried again, from the start; what was uploaded stays uploaded.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// Metadata refuses.
    #[error("{0}")]
    Refused(Reject),
    /// Metadata could not be asked.
    #[error("metadata is not reachable: {0}")]
    Meta(String),
    /// The medium could not be attached.
    #[error("cannot attach the medium of write-ahead log {wal}: {source}")]
    Medium {
        /// The log.
        wal: WalId,
        /// What the medium said.
        source: io::Error,
    },
    /// The log cannot be read.
    #[error("{0}")]
    Recover(#[from] wal::RecoverError),
    /// A round was refused: somebody else holds the log now.
    #[error("{0}")]
    Upload(String),
}

impl Storage {
    /// Takes over log `wal`, whose broker's lease has ended: uploads what it holds and hands its partitions out.
    /// `attach` fences the medium (after it no write of an earlier attachment lands) and opens it. Waits for as long as
    /// store and metadata fail. Cancel safe: it may be begun again, here or elsewhere.
    ///
    /// # Errors
    /// [`TakeOverError`].
    pub async fn take_over<F>(
        &self,
        wal: WalId,
        attach: impl FnOnce() -> F,
    ) -> Result<TakenOver, TakeOverError>
    where
        F: Future<Output = io::Result<Arc<dyn wal::Disk>>>,
    {
        let parts = self.parts();
        let fence = FenceWal { wal: wal.0, by: Some(parts.node.0) };
        let epoch = match parts.meta.propose(fence).await {
            Ok(Reply::WalFenced { epoch }) => epoch,
            Ok(Reply::Rejected(reject)) => return Err(TakeOverError::Refused(reject)),
            Ok(other) => return Err(TakeOverError::Meta(format!("unexpected answer {other:?}"))),
            Err(error) => return Err(TakeOverError::Meta(error.to_string())),
        };
        failpoint::hit("storage.takeover.fenced");
        let facts =
            parts.meta.wal(wal).await.map_err(|error| TakeOverError::Meta(error.to_string()))?;
        let facts = facts.ok_or(TakeOverError::Refused(Reject::UnknownWal(wal)))?;
        let (groups, end) = if facts.fresh {
            (0, Lsn(0))
        } else {
            let disk = attach().await.map_err(|source| TakeOverError::Medium { wal, source })?;
            self.upload_all_of(&facts, epoch, disk).await?
        };
        failpoint::hit("storage.takeover.uploaded");
        let partitions = self.hand_out(wal, epoch, end).await?;
        tracing::info!(%wal, groups, partitions, "write-ahead log taken over");
        Ok(TakenOver { groups, partitions })
    }

    /// Recovers the log and uploads what lies above its committed LSN. Gives the groups and the log's end.
    async fn upload_all_of(
        &self,
        facts: &meta::WalFacts,
        epoch: WalEpoch,
        disk: Arc<dyn wal::Disk>,
    ) -> Result<(u64, Lsn), TakeOverError> {
        let parts = self.parts();
        let identity = wal::Identity {
            wal: facts.id,
            salt: facts.salt,
            epochs: facts.epochs.clone(),
            committed: facts.committed,
            fresh: false,
        };
        let recovered = wal::Wal::recover(disk, &parts.options.wal, &identity).await?;
        let (groups, end) = (recovered.report().groups, recovered.end());
        let core = Arc::new(Core::new(
            parts.budget,
            parts.clock,
            // Counted by nobody: the gauges are those of the open log.
            Metrics::default(),
            // A refused round ends the takeover, not this process.
            Arc::new(|_| {}),
            &parts.options,
            facts.committed,
        ));
        for group in recovered.groups() {
            core.recovered(group);
        }
        let uploader = Uploader {
            core: core.clone(),
            log: Log::Recovered(Arc::new(recovered)),
            store: parts.store,
            prefix: parts.prefix,
            meta: parts.meta,
            rng: parts.rng,
            options: parts.options,
            id: facts.id,
            epoch,
            floors: Arc::new(Floors::default()),
        };
        while core.tail.pending().frames > 0 {
            uploader.round().await.map_err(TakeOverError::Upload)?;
        }
        Ok((groups, end))
    }

    async fn hand_out(&self, wal: WalId, epoch: WalEpoch, end: Lsn) -> Result<u32, TakeOverError> {
        let parts = self.parts();
        let command = HandOutWal { wal: wal.0, epoch: epoch.0, end: end.0 };
        let mut failures = 0;
        loop {
            // The outcome of a failed proposal is unknown; a repeat is answered as the first.
            match parts.meta.propose(command).await {
                Ok(Reply::WalHandedOut { partitions, .. }) => return Ok(partitions),
                Ok(Reply::Rejected(reject)) => return Err(TakeOverError::Refused(reject)),
                Ok(other) => {
                    return Err(TakeOverError::Meta(format!("unexpected answer {other:?}")));
                }
                Err(meta::ProposeError::Closed) => {
                    return Err(TakeOverError::Meta(meta::ProposeError::Closed.to_string()));
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(%error, %wal, "handing a log out is not answered, it is repeated");
                    sleep(backoff(&parts.options, &parts.rng, failures)).await;
                }
            }
        }
    }
}

/// What a takeover uses of a storage.
pub(crate) struct Parts {
    pub node: common::NodeId,
    pub meta: meta::Handle,
    pub store: Arc<dyn object_store::ObjectStore>,
    pub prefix: object_store::path::Path,
    pub rng: common::Rng,
    pub options: crate::options::Options,
    pub budget: common::Budget,
    pub clock: common::Clock,
}

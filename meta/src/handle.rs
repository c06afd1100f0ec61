//! What the rest of the broker holds of metadata.

use std::sync::Arc;

use common::{Lsn, ObjectId, PartitionId, StreamId, WalId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::command::Command;
use crate::consensus::{applied, dump};
use crate::facts::{self, Cleaning, Deletion, LiveRange, Object, StreamIndex, WalFacts};
use crate::image::Image;
use crate::reply::Reply;
use crate::store::{Frozen, MetaStore};
use crate::view::{StoreView, View, ViewError};

/// Why a proposal has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Another voter leads; nothing was done. Ask that one.
    #[error("voter {leader} leads the metadata group; propose there")]
    NotLeader {
        /// The leader.
        leader: u64,
    },
    /// No reply in time. The command may still take effect.
    #[error("no answer of the metadata group within its time; the command may still take effect")]
    TimedOut,
    /// This voter fell behind and took a snapshot over. The command may have taken effect.
    #[error(
        "this voter of the metadata group fell behind; whether the command took effect is unknown"
    )]
    Unknown,
    /// The driver has stopped. The command may have taken effect.
    #[error("the metadata group has stopped")]
    Closed,
    /// The command is larger than a log entry may be; nothing was done.
    #[error("command of {bytes} bytes, the most is {bytes_max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The driver has stopped.
    #[error("the metadata group has stopped")]
    Closed,
    /// The state cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
}

/// Where this voter stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// This voter.
    pub voter: u64,
    /// The leader, when one is known.
    pub leader: Option<u64>,
    /// Raft's term.
    pub term: u64,
}

impl Standing {
    /// True while this voter leads.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.leader == Some(self.voter)
    }
}

pub(crate) struct Proposal {
    pub command: Vec<u8>,
    pub reply: oneshot::Sender<Result<Reply, ProposeError>>,
}

pub(crate) type Read = Box<dyn FnOnce(&dyn MetaStore) + Send>;

/// Access to metadata. Cheap to clone.
///
/// Images and reads show the state as this voter has applied it: on the leader that is at least everything whose reply
/// has been given.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) proposals: mpsc::Sender<Proposal>,
    pub(crate) reads: mpsc::Sender<Read>,
    pub(crate) images: watch::Receiver<Arc<Image>>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) command_bytes_max: usize,
    /// The voter's own images, when `images` come later.
    pub(crate) source: Option<watch::Receiver<Arc<Image>>>,
}

impl Handle {
    /// Proposes `command` and waits until it is committed, durable and applied. A proposal that a change of leader
    /// certainly dropped is repeated. Waits while too many are in flight. Not cancel safe: after a drop the command may
    /// still take effect.
    ///
    /// # Errors
    /// [`ProposeError`]; a refusal by the rules is `Ok(Reply::Rejected)`.
    pub async fn propose(&self, command: impl Into<Command>) -> Result<Reply, ProposeError> {
        let command = command.into().into_frame();
        let (bytes, bytes_max) = (command.len(), self.command_bytes_max);
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.proposals.send(Proposal { command, reply }).await;
        sent.map_err(|_| ProposeError::Closed)?;
        let reply = answer.await.unwrap_or(Err(ProposeError::Closed))?;
        if let Some(source) = &self.source {
            let applied = source.borrow().applied;
            let mut images = self.images.clone();
            let seen = images.wait_for(|image| image.applied >= applied).await;
            seen.map_err(|_| ProposeError::Closed)?;
        }
        Ok(reply)
    }

    /// A handle whose image comes later, by way of `images`: as a broker away from the voter has it. A reply is waited
    /// for until that image contains it.
    #[must_use]
    pub fn behind(&self, images: watch::Receiver<Arc<Image>>) -> Self {
        Self { images, source: Some(self.images.clone()), ..self.clone() }
    }

    /// The image now. After a reply it contains what the command did.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.images.borrow().clone()
    }

    /// A receiver that is told of each new image.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Image>> {
        self.images.clone()
    }

    /// Where this voter stands; changes are told.
    #[must_use]
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Runs `body` on the state, on the driver's thread: it has to be short.
    ///
    /// # Errors
    /// When the driver has stopped or the state cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        body: impl FnOnce(&dyn View) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (sender, answer) = oneshot::channel();
        let read: Read = Box::new(move |store| {
            // The asker may have gone.
            let _ = sender.send(body(&StoreView(store)));
        });
        self.reads.send(read).await.map_err(|_| ReadError::Closed)?;
        Ok(answer.await.map_err(|_| ReadError::Closed)??)
    }

    /// The index of `stream` from the range that covers `from`, at most `limit` ranges. A stream that was never
    /// committed has the empty index, version 0.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn stream_index(
        &self,
        stream: StreamId,
        from: i64,
        limit: usize,
    ) -> Result<StreamIndex, ReadError> {
        self.read(move |view| facts::stream_index(view, stream, from, limit)).await
    }

    /// How far partition `id` is cleaned; zero where nothing was noted.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn cleaning(&self, id: PartitionId) -> Result<Cleaning, ReadError> {
        self.read(move |view| facts::cleaning(view, id)).await
    }

    /// Streams with an index, from `after` exclusive, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn streams(
        &self,
        after: Option<StreamId>,
        limit: usize,
    ) -> Result<Vec<StreamId>, ReadError> {
        self.read(move |view| facts::streams(view, after, limit)).await
    }

    /// One object with its live ranges.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn object(&self, id: ObjectId) -> Result<Option<Object>, ReadError> {
        self.read(move |view| facts::object(view, id)).await
    }

    /// Objects above `after`, at most `limit`, without their ranges.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn objects(
        &self,
        after: Option<ObjectId>,
        limit: usize,
    ) -> Result<Vec<Object>, ReadError> {
        self.read(move |view| facts::objects(view, after, limit)).await
    }

    /// The live ranges of an object, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn live_ranges(
        &self,
        id: ObjectId,
        limit: usize,
    ) -> Result<Vec<LiveRange>, ReadError> {
        self.read(move |view| facts::live_ranges(view, id, limit)).await
    }

    /// Index of the last command applied.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn applied(&self) -> Result<u64, ReadError> {
        self.read(facts::applied_index).await
    }

    /// True when [`crate::command::ExpireObjects`] would find something to do at `now_ms`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn housekeeping_due(&self, now_ms: i64) -> Result<bool, ReadError> {
        self.read(move |view| facts::housekeeping_due(view, now_ms)).await
    }

    /// Deletes in the store that are due at `until_ms`, behind `after`, by time, at most `limit`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn deletions(
        &self,
        after: Option<Deletion>,
        until_ms: i64,
        limit: usize,
    ) -> Result<Vec<Deletion>, ReadError> {
        self.read(move |view| facts::deletions(view, after, until_ms, limit)).await
    }

    /// One log as metadata knows it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn wal(&self, id: WalId) -> Result<Option<WalFacts>, ReadError> {
        self.read(move |view| facts::wal(view, id)).await
    }

    /// All logs.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn wals(&self) -> Result<Vec<WalFacts>, ReadError> {
        self.read(facts::wals).await
    }

    /// The committed LSN of a log, or `None` for an unknown one.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn committed(&self, id: WalId) -> Result<Option<Lsn>, ReadError> {
        Ok(self.wal(id).await?.map(|facts| facts.committed))
    }

    /// The state as it is now, to be read while later commands go on, and the index of the last command in it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn freeze(&self) -> Result<(u64, Box<dyn Frozen>), ReadError> {
        let (sender, answer) = oneshot::channel();
        let read: Read = Box::new(move |store| {
            let frozen = applied(store).and_then(|at| Ok((at.index, store.freeze()?)));
            // The asker may have gone.
            let _ = sender.send(frozen);
        });
        self.reads.send(read).await.map_err(|_| ReadError::Closed)?;
        Ok(answer.await.map_err(|_| ReadError::Closed)??)
    }

    /// CRC-32C of the whole state. Reads all of it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn checksum(&self) -> Result<u32, ReadError> {
        self.read(dump::checksum).await
    }
}

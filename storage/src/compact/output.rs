//! The objects of a job on their way into the store: one create-only put when small, else parts of one size, one at a
//! time, so that a job holds one part and one block.

use bytes::{Bytes, BytesMut};
use common::{Lsn, ObjectId, StreamEpoch, StreamId};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::{Instant, timeout};

use super::digest::Counting;
use super::{CompactError, Compactor};
use crate::key::data_key;
use crate::object::{Block, EntryPart, FOOTER_BYTES, Header, Kind, ObjectIndex, Summary, Writer};
use crate::upload::{Failure, Parts, same_object};

/// An object that is being written.
pub(super) struct Output {
    pub object: ObjectId,
    /// The id is of no use any more from then on.
    pub until: Instant,
    key: Path,
    writer: Writer,
    waiting: Vec<Bytes>,
    waiting_bytes: u64,
    parts: Option<Parts>,
}

/// An object that is durable, and what it is made of.
pub(super) struct Written {
    pub object: ObjectId,
    pub until: Instant,
    pub summary: Summary,
}

impl Output {
    /// Registers an id and begins the object. `lsns` is the part of the log's order it stands for.
    pub async fn begin(
        compactor: &Compactor,
        kind: Kind,
        (first, end): (Lsn, Lsn),
    ) -> Result<Self, CompactError> {
        let (object, until) = compactor.register().await?;
        // Told apart from an upload round: a rebuild from the bucket goes by the rounds.
        let kind = if kind == Kind::StreamSet { Kind::Merged } else { kind };
        let header = Header {
            kind,
            store: 0,
            object,
            wal: compactor.id,
            wal_epoch: compactor.epoch,
            first,
            end,
        };
        let mut waiting = Vec::new();
        let writer = Writer::new(header, &mut waiting);
        let key = data_key(&compactor.prefix, object);
        let waiting_bytes = waiting.iter().map(|piece| piece.len() as u64).sum();
        Ok(Self { object, until, key, writer, waiting, waiting_bytes, parts: None })
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.writer.position()
    }

    /// Adds one block of `stream` that covers `cover`, and counts what was really written: the block is read back from
    /// the very bytes that go to the store.
    pub async fn block(
        &mut self,
        compactor: &Compactor,
        stream: StreamId,
        cover: std::ops::Range<i64>,
        epoch: StreamEpoch,
        entries: &[EntryPart],
        counting: &mut Counting,
    ) -> Result<(), CompactError> {
        let before = self.writer.blocks().len();
        let mut pieces = Vec::new();
        self.writer
            .stream(stream, cover, epoch, entries, &mut pieces)
            .map_err(|error| CompactError::Unproved(error.to_string()))?;
        // One copy: slices would keep whole input blocks in memory until the part is sent.
        let length = pieces.iter().map(Bytes::len).sum();
        let mut joined = BytesMut::with_capacity(length);
        pieces.iter().for_each(|piece| joined.extend_from_slice(piece));
        let mut bytes = joined.freeze();
        self.waiting.push(bytes.clone());
        self.waiting_bytes += bytes.len() as u64;
        for info in &self.writer.blocks()[before..] {
            let unproved = |what: String| {
                CompactError::Unproved(format!("block at {}: {what}", info.position))
            };
            let length = usize::try_from(info.length).unwrap_or(usize::MAX).min(bytes.len());
            let block = Block::parse(&bytes.split_to(length), info);
            for meta in block.map_err(|damage| unproved(damage.to_string()))?.entries() {
                counting.add(meta).map_err(unproved)?;
            }
        }
        self.send(compactor).await
    }

    /// Sends whole parts.
    async fn send(&mut self, compactor: &Compactor) -> Result<(), CompactError> {
        let part_bytes = compactor.options.compaction_part_bytes;
        if self.waiting_bytes < part_bytes {
            return Ok(());
        }
        let _permit = compactor.permit().await;
        let parts = match &mut self.parts {
            Some(parts) => parts,
            None => {
                compactor.metrics.request("put");
                let begun = Parts::begin(
                    &*compactor.store,
                    &self.key,
                    part_bytes,
                    1,
                    compactor.options.put_timeout,
                );
                self.parts.insert(begun.await.map_err(unavailable)?)
            }
        };
        let sent = parts.feed(std::mem::take(&mut self.waiting)).await;
        self.waiting_bytes = parts.waiting_bytes();
        sent.map_err(unavailable)?;
        compactor.metrics.request("put");
        parts.settle().await.map_err(unavailable)
    }

    /// Ends the object and makes it durable.
    pub async fn finish(mut self, compactor: &Compactor) -> Result<Written, CompactError> {
        let summary = self.writer.finish(&mut self.waiting);
        let pieces = std::mem::take(&mut self.waiting);
        let (object, until) = (self.object, self.until);
        match self.parts.take() {
            Some(parts) => {
                let _permit = compactor.permit().await;
                compactor.metrics.request("put");
                compactor.metrics.request("put");
                parts.finish(pieces).await.map_err(unavailable)?;
                // The store has put the parts together: is it one object now?
                look(compactor, &self.key, &summary).await?;
            }
            None => put(compactor, &self.key, pieces, &summary).await?,
        }
        compactor.metrics.written_bytes.inc_by(summary.bytes);
        Ok(Written { object, until, summary })
    }

    /// Gives the object up: parts that were sent are dropped, as far as the store answers.
    pub async fn abort(self) {
        if let Some(parts) = self.parts {
            parts.abort().await;
        }
    }
}

async fn put(
    compactor: &Compactor,
    key: &Path,
    pieces: Vec<Bytes>,
    summary: &Summary,
) -> Result<(), CompactError> {
    let payload: PutPayload = pieces.into_iter().collect();
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let patience = compactor.options.put_timeout;
    let _permit = compactor.permit().await;
    compactor.metrics.request("put");
    match timeout(patience, compactor.store.put_opts(key, payload, options)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::AlreadyExists { .. })) => {
            same_object(&*compactor.store, key, summary, patience).await.map_err(unavailable)
        }
        Ok(Err(error)) => Err(CompactError::Unavailable(error.to_string())),
        Err(_) => Err(CompactError::Unavailable(format!("put of {key} took too long"))),
    }
}

/// Reads index and footer back.
async fn look(compactor: &Compactor, key: &Path, summary: &Summary) -> Result<(), CompactError> {
    compactor.metrics.request("get");
    let range = summary.index_at..summary.bytes;
    debug_assert!(range.end - range.start >= FOOTER_BYTES as u64);
    let tail = timeout(compactor.options.read_timeout, compactor.store.get_range(key, range)).await;
    let tail =
        tail.map_err(|_| CompactError::Unavailable("the object store took too long".into()))?;
    let tail = tail.map_err(|error| CompactError::Unavailable(error.to_string()))?;
    let unproved = |what: String| CompactError::Unproved(format!("object at {key}: {what}"));
    let index = ObjectIndex::parse(&tail).map_err(|damage| unproved(damage.to_string()))?;
    let same = index.footer.crc == summary.footer_crc && index.footer.size == summary.bytes;
    if same { Ok(()) } else { Err(unproved("another footer than was written".into())) }
}

fn unavailable(failure: Failure) -> CompactError {
    CompactError::Unavailable(failure.to_string())
}

//! Putting an object: one create-only put, or parts with a bounded number of them in memory.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use common::{Crc32c, ObjectId, failpoint};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UploadPart,
};
use tokio::time::timeout;

use super::plan::Plan;
use super::{Failure, Uploader};
use crate::key::data_key;
use crate::object::{Header, Kind, Summary, Writer};

impl Uploader {
    /// Builds and puts the object of `plan`. When this returns `Ok` the object is durable.
    pub(super) async fn put(
        &self,
        plan: &mut Plan,
        object: ObjectId,
        failed_before: bool,
    ) -> Result<Summary, Failure> {
        if failpoint::planted("trim-before-durable") {
            self.log.trim(plan.end);
        }
        let key = data_key(&self.prefix, object);
        // What lies in memory anyway goes out in one request. A retry of something large goes in parts, so that a slow
        // link gets it through piece by piece.
        let single_max = if plan.resident && !failed_before {
            u64::MAX
        } else {
            self.options.put_single_bytes_max
        };
        let single = plan.payload_bytes <= single_max;
        let mut parts = if single { None } else { Some(self.parts_of(&key).await?) };
        let written = self.write(plan, object, parts.as_mut()).await;
        let (summary, pieces) = match (written, parts) {
            (Ok((summary, pieces)), None) => (summary, pieces),
            (Ok((summary, pieces)), Some(parts)) => {
                parts.finish(pieces).await?;
                return Ok(summary);
            }
            (Err(failure), parts) => {
                if let Some(parts) = parts {
                    parts.abort().await;
                }
                return Err(failure);
            }
        };
        let payload: PutPayload = pieces.into_iter().collect();
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match timeout(self.options.put_timeout, self.store.put_opts(&key, payload, options)).await {
            Ok(Ok(_)) => Ok(summary),
            Ok(Err(Error::AlreadyExists { .. })) => {
                let patience = self.options.put_timeout;
                same_object(&*self.store, &key, &summary, patience).await.map(|()| summary)
            }
            Ok(Err(error)) => Err(Failure::Again(error.to_string())),
            Err(_) => Err(Failure::Again(format!("put of {key} took too long"))),
        }
    }

    /// Produces the object's pieces: handed to `parts` window by window, or all returned.
    async fn write(
        &self,
        plan: &mut Plan,
        object: ObjectId,
        mut parts: Option<&mut Parts>,
    ) -> Result<(Summary, Vec<Bytes>), Failure> {
        let header = Header {
            kind: Kind::StreamSet,
            store: 0,
            object,
            wal: self.id,
            wal_epoch: self.epoch,
            first: plan.first,
            end: plan.end,
        };
        let mut pieces = Vec::new();
        let mut writer = Writer::new(header, &mut pieces);
        for window in 0..plan.windows.len() {
            self.window(plan, window, &mut writer, &mut pieces).await?;
            if let Some(parts) = parts.as_deref_mut() {
                parts.feed(std::mem::take(&mut pieces)).await?;
            }
        }
        Ok((writer.finish(&mut pieces), pieces))
    }

    async fn parts_of(&self, key: &Path) -> Result<Parts, Failure> {
        let options = &self.options;
        let (bytes, max) = (options.put_part_bytes, options.put_parts_max);
        Parts::begin(&*self.store, key, bytes, max, options.put_timeout).await
    }
}

/// "Already exists" may be our own put, whose answer got lost; or a store that answered 409 and holds nothing.
pub(crate) async fn same_object(
    store: &dyn ObjectStore,
    key: &Path,
    summary: &Summary,
    patience: Duration,
) -> Result<(), Failure> {
    let again = |error: Error| Failure::Again(error.to_string());
    let found = match store.get(key).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => {
            return Err(Failure::Again(format!("{key} was refused as existing, but is not there")));
        }
        Err(error) => return Err(again(error)),
    };
    let size = found.meta.size;
    let mut crc = Crc32c::default();
    let mut body = found.into_stream();
    let read = async {
        while let Some(chunk) = body.try_next().await? {
            crc.update(&chunk);
        }
        Ok::<_, Error>(())
    };
    let read = timeout(patience, read).await;
    read.map_err(|_| Failure::Again(format!("comparing {key} took too long")))?.map_err(again)?;
    if size == summary.bytes && crc.finish() == summary.crc {
        return Ok(());
    }
    tracing::error!(key = %key, "another content lies under a key that was issued to this log alone");
    Err(Failure::NewId(format!("another content lies under {key}")))
}

/// A multipart upload with at most `parts_max` parts in flight.
pub(crate) struct Parts {
    upload: Box<dyn MultipartUpload>,
    waiting: VecDeque<Bytes>,
    waiting_bytes: u64,
    part_bytes: u64,
    parts_max: usize,
    in_flight: FuturesUnordered<UploadPart>,
    patience: Duration,
}

impl Parts {
    /// Begins an upload in parts of `part_bytes`, at most `parts_max` of them in flight. Each request gets `patience`.
    pub(crate) async fn begin(
        store: &dyn ObjectStore,
        key: &Path,
        part_bytes: u64,
        parts_max: usize,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let upload = within(patience, store.put_multipart(key)).await?;
        Ok(Self {
            upload,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            part_bytes,
            parts_max,
            in_flight: FuturesUnordered::new(),
            patience,
        })
    }

    /// Bytes that no part has taken yet.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.waiting_bytes
    }

    /// Waits until no part is in flight.
    pub(crate) async fn settle(&mut self) -> Result<(), Failure> {
        while !self.in_flight.is_empty() {
            self.wait_one().await?;
        }
        Ok(())
    }

    pub(crate) async fn feed(&mut self, pieces: Vec<Bytes>) -> Result<(), Failure> {
        self.waiting_bytes += pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        self.waiting.extend(pieces);
        while self.waiting_bytes >= self.part_bytes {
            self.send(self.part_bytes).await?;
        }
        Ok(())
    }

    /// Sends the first `bytes` of what waits: all parts but the last have one size, as some stores demand.
    async fn send(&mut self, bytes: u64) -> Result<(), Failure> {
        while self.in_flight.len() >= self.parts_max {
            self.wait_one().await?;
        }
        let mut part = Vec::new();
        let mut missing = bytes;
        while missing > 0 {
            let mut piece = self.waiting.pop_front().expect("counted by waiting_bytes");
            let fits = usize::try_from(missing).unwrap_or(usize::MAX);
            if piece.len() > fits {
                let rest = piece.split_off(fits);
                self.waiting.push_front(rest);
            }
            missing -= piece.len() as u64;
            part.push(piece);
        }
        self.waiting_bytes -= bytes;
        self.in_flight.push(self.upload.put_part(part.into_iter().collect()));
        Ok(())
    }

    async fn wait_one(&mut self) -> Result<(), Failure> {
        let next = async { self.in_flight.next().await.unwrap_or(Ok(())) };
        within(self.patience, next).await
    }

    pub(crate) async fn finish(mut self, pieces: Vec<Bytes>) -> Result<(), Failure> {
        let result = self.complete(pieces).await;
        if result.is_err() {
            self.abort().await;
        }
        result
    }

    async fn complete(&mut self, pieces: Vec<Bytes>) -> Result<(), Failure> {
        self.feed(pieces).await?;
        if self.waiting_bytes > 0 {
            self.send(self.waiting_bytes).await?;
        }
        self.settle().await?;
        within(self.patience, self.upload.complete()).await.map(|_| ())
    }

    /// Best effort; a bucket's lifecycle rule removes what stays.
    pub(crate) async fn abort(mut self) {
        self.in_flight.clear();
        let _ = timeout(self.patience, self.upload.abort()).await;
    }
}

async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match timeout(patience, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Again(error.to_string())),
        Err(_) => Err(Failure::Again("the object store took too long".to_owned())),
    }
}

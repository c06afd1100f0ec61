//! The proof of the bucket: what lies there, and what metadata says lies there, are the same.
//!
//! The bucket is listed first and metadata read after, so that whatever is listed is known: an id is registered before
//! its object is put. What seems wrong is asked again before it is reported. Holds 32 bytes per object.

use std::time::Duration;

use common::{IdSpace, ObjectId, StreamId};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use meta::{MetaStore, Object, ObjectStage, ReadError, StoreView, StreamIndex, facts};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;

use crate::key::data_key;
use crate::object::ObjectIndex;
use crate::snapshot::id_of;

/// Objects, streams or ranges asked of metadata at once.
const PAGE: usize = 1000;
/// Findings told one by one; the others are only counted.
const FINDINGS_MAX: usize = 1000;

/// Where the facts of metadata come from.
pub trait Facts: Send + Sync {
    /// Objects above `after`, without their ranges.
    fn objects(&self, after: Option<ObjectId>) -> BoxFuture<'_, Result<Vec<Object>, ReadError>>;
    /// One object.
    fn object(&self, id: ObjectId) -> BoxFuture<'_, Result<Option<Object>, ReadError>>;
    /// Streams above `after`.
    fn streams(&self, after: Option<StreamId>) -> BoxFuture<'_, Result<Vec<StreamId>, ReadError>>;
    /// The index of a stream from `from` on.
    fn index(&self, stream: StreamId, from: i64) -> BoxFuture<'_, Result<StreamIndex, ReadError>>;
}

impl Facts for meta::Handle {
    fn objects(&self, after: Option<ObjectId>) -> BoxFuture<'_, Result<Vec<Object>, ReadError>> {
        Self::objects(self, after, PAGE).boxed()
    }

    fn object(&self, id: ObjectId) -> BoxFuture<'_, Result<Option<Object>, ReadError>> {
        Self::object(self, id).boxed()
    }

    fn streams(&self, after: Option<StreamId>) -> BoxFuture<'_, Result<Vec<StreamId>, ReadError>> {
        Self::streams(self, after, PAGE).boxed()
    }

    fn index(&self, stream: StreamId, from: i64) -> BoxFuture<'_, Result<StreamIndex, ReadError>> {
        self.stream_index(stream, from, PAGE).boxed()
    }
}

/// A metadata store that no broker runs.
pub struct Offline(Mutex<Box<dyn MetaStore>>);

impl Offline {
    /// Reads `store`.
    #[must_use]
    pub fn new(store: Box<dyn MetaStore>) -> Self {
        Self(Mutex::new(store))
    }

    fn read<T: Send + 'static>(
        &self,
        body: impl FnOnce(&dyn meta::View) -> Result<T, meta::ViewError>,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let found = body(&StoreView(&**self.0.lock())).map_err(ReadError::from);
        futures::future::ready(found).boxed()
    }
}

impl Facts for Offline {
    fn objects(&self, after: Option<ObjectId>) -> BoxFuture<'_, Result<Vec<Object>, ReadError>> {
        self.read(|view| facts::objects(view, after, PAGE))
    }

    fn object(&self, id: ObjectId) -> BoxFuture<'_, Result<Option<Object>, ReadError>> {
        self.read(|view| facts::object(view, id))
    }

    fn streams(&self, after: Option<StreamId>) -> BoxFuture<'_, Result<Vec<StreamId>, ReadError>> {
        self.read(|view| facts::streams(view, after, PAGE))
    }

    fn index(&self, stream: StreamId, from: i64) -> BoxFuture<'_, Result<StreamIndex, ReadError>> {
        self.read(|view| facts::stream_index(view, stream, from, PAGE))
    }
}

/// How to check.
#[derive(Clone, Debug)]
pub struct FsckOptions {
    /// What waits for the sweeper longer than this is a finding.
    pub grace: Duration,
    /// Wall time, milliseconds since 1970.
    pub now_ms: i64,
    /// The cluster's incarnation: objects of former ones that a rebuild left alone are no finding.
    pub incarnation: u16,
    /// Read and check the index of every committed object.
    pub read_indexes: bool,
    /// Requests in flight.
    pub requests_max: usize,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `missing`, `size`, `damaged`, `unknown`, `overdue`, `foreign`, `gap`.
    pub kind: &'static str,
    /// The key of an object, or a stream.
    pub place: String,
    /// What is wrong.
    pub detail: String,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Committed objects that are there.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects in the bucket that are registered, or wait for their delete.
    pub pending: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Objects of former incarnations that a rebuild left alone.
    pub left_behind: u64,
    /// Streams whose ranges tile.
    pub streams: u64,
    /// Their ranges.
    pub ranges: u64,
    /// What is wrong, the first ones.
    pub findings: Vec<Finding>,
    /// How much is wrong in all.
    pub findings_total: u64,
}

impl FsckReport {
    fn find(&mut self, kind: &'static str, place: impl ToString, detail: impl ToString) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            let (place, detail) = (place.to_string(), detail.to_string());
            self.findings.push(Finding { kind, place, detail });
        }
    }
}

/// Why nothing could be proved.
#[derive(Debug, thiserror::Error)]
pub enum FsckError {
    /// The object store does not answer.
    #[error("the object store cannot be read: {0}")]
    Store(#[from] Error),
    /// Metadata does not answer.
    #[error("metadata cannot be read: {0}")]
    Meta(#[from] ReadError),
}

struct Listed {
    id: ObjectId,
    bytes: u64,
    modified_ms: i64,
}

struct Check<'a> {
    store: &'a dyn ObjectStore,
    prefix: &'a Path,
    facts: &'a dyn Facts,
    options: &'a FsckOptions,
    report: FsckReport,
}

/// Compares the bucket below `prefix` with metadata.
///
/// # Errors
/// [`FsckError`] when it could not be checked to the end.
pub async fn fsck(
    store: &dyn ObjectStore,
    prefix: &Path,
    facts: &dyn Facts,
    options: &FsckOptions,
) -> Result<FsckReport, FsckError> {
    let report = FsckReport::default();
    let mut check = Check { store, prefix, facts, options, report };
    let listed = check.list().await?;
    check.objects(listed).await?;
    check.streams().await?;
    Ok(check.report)
}

impl Check<'_> {
    async fn list(&mut self) -> Result<Vec<Listed>, FsckError> {
        let data = self.prefix.clone().join("data");
        let mut found = self.store.list(Some(&data));
        let mut listed = Vec::new();
        while let Some(one) = found.try_next().await? {
            match id_of(self.prefix, &one.location) {
                Some(id) => listed.push(Listed {
                    id,
                    bytes: one.size,
                    modified_ms: one.last_modified.timestamp_millis(),
                }),
                None => self.report.find("foreign", &one.location, "no object has this name"),
            }
        }
        listed.sort_unstable_by_key(|one| one.id);
        Ok(listed)
    }

    async fn objects(&mut self, listed: Vec<Listed>) -> Result<(), FsckError> {
        let mut listed = listed.into_iter().peekable();
        let mut after = None;
        loop {
            let page = self.facts.objects(after).await?;
            let mut good = Vec::new();
            for object in &page {
                while let Some(one) = listed.next_if(|one| one.id < object.id) {
                    self.unknown(&one).await?;
                }
                let there = listed.next_if(|one| one.id == object.id);
                if self.known(object, there.as_ref()).await? {
                    good.push(object.clone());
                }
            }
            if self.options.read_indexes {
                self.indexes(good).await?;
            }
            after = page.last().map(|object| object.id);
            if page.len() < PAGE {
                break;
            }
        }
        for one in listed {
            self.unknown(&one).await?;
        }
        Ok(())
    }

    /// True when the object is committed and has its size.
    async fn known(&mut self, object: &Object, there: Option<&Listed>) -> Result<bool, FsckError> {
        let key = data_key(self.prefix, object.id);
        if object.stage != ObjectStage::Committed {
            if let Some(one) = there {
                self.pending(object, one, &key).await?;
            }
            return Ok(false);
        }
        let expected = object.facts.map_or(0, |facts| facts.bytes);
        let found = match there {
            Some(one) if one.bytes == expected => Some(expected),
            // Listed before it was put or before it was whole.
            _ => self.size(&key).await?,
        };
        if found == Some(expected) {
            self.report.objects += 1;
            self.report.bytes += expected;
            return Ok(true);
        }
        // It may have been released and deleted since metadata was read.
        let again = self.facts.object(object.id).await?;
        if again.is_some_and(|again| again.stage == ObjectStage::Committed) {
            match found {
                None => self.report.find("missing", key, "metadata lists it, the bucket has not"),
                Some(found) => {
                    let detail = format!("{found} bytes, metadata says {expected}");
                    self.report.find("size", key, detail);
                }
            }
        }
        Ok(false)
    }

    async fn size(&self, key: &Path) -> Result<Option<u64>, FsckError> {
        match self.store.head(key).await {
            Ok(found) => Ok(Some(found.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn pending(
        &mut self,
        object: &Object,
        one: &Listed,
        key: &Path,
    ) -> Result<(), FsckError> {
        self.report.pending += 1;
        self.report.pending_bytes += one.bytes;
        let grace = i64::try_from(self.options.grace.as_millis()).unwrap_or(i64::MAX);
        let late = object.at_ms.saturating_add(grace) < self.options.now_ms;
        if late && self.size(key).await?.is_some() {
            let detail = format!("{:?}, its delete is overdue", object.stage).to_lowercase();
            self.report.find("overdue", key, detail);
        }
        Ok(())
    }

    async fn unknown(&mut self, one: &Listed) -> Result<(), FsckError> {
        let key = data_key(self.prefix, one.id);
        if self.facts.object(one.id).await?.is_some() || self.size(&key).await?.is_none() {
            return Ok(());
        }
        let former = IdSpace::new(self.options.incarnation).and_then(|space| space.id(0));
        if former.is_some_and(|first| one.id.0 < first) {
            self.report.left_behind += 1;
            return Ok(());
        }
        let detail = format!(
            "{} bytes of {} ms since 1970 that metadata does not know",
            one.bytes, one.modified_ms
        );
        self.report.find("unknown", key, detail);
        Ok(())
    }

    async fn indexes(&mut self, objects: Vec<Object>) -> Result<(), FsckError> {
        let (store, prefix, facts) = (self.store, self.prefix, self.facts);
        let mut checks = futures::stream::iter(objects)
            .map(|object| async move {
                let key = data_key(prefix, object.id);
                let wrong = index_of(store, facts, &key, object.id).await?;
                Ok::<_, FsckError>((key, wrong))
            })
            .buffered(self.options.requests_max.max(1));
        let mut wrongs = Vec::new();
        while let Some(checked) = checks.next().await {
            if let (key, Some(wrong)) = checked? {
                wrongs.push((key, wrong));
            }
        }
        drop(checks);
        for (key, wrong) in wrongs {
            self.report.find("damaged", key, wrong);
        }
        Ok(())
    }

    async fn streams(&mut self) -> Result<(), FsckError> {
        let mut after = None;
        loop {
            let page = self.facts.streams(after).await?;
            for stream in &page {
                self.stream(*stream).await?;
            }
            after = page.last().copied();
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// Live and lost ranges must tile `[start, committed end)`.
    async fn stream(&mut self, stream: StreamId) -> Result<(), FsckError> {
        let mut index = self.facts.index(stream, 0).await?;
        let mut at = index.start;
        loop {
            for range in &index.objects {
                at = behind_losses(&index, at);
                if range.start > at {
                    let detail = format!("no object covers [{at}, {})", range.start);
                    self.report.find("gap", stream, detail);
                }
                if range.facts.bytes == 0 {
                    let detail = format!("object {} of it is unknown", range.object);
                    self.report.find("gap", stream, detail);
                }
                at = at.max(range.end);
                self.report.ranges += 1;
            }
            if !index.more {
                break;
            }
            index = self.facts.index(stream, at).await?;
        }
        at = behind_losses(&index, at);
        if at < index.committed_end {
            let detail = format!("no object covers [{at}, {})", index.committed_end);
            self.report.find("gap", stream, detail);
        }
        self.report.streams += 1;
        Ok(())
    }
}

fn behind_losses(index: &StreamIndex, mut at: i64) -> i64 {
    for (start, end) in &index.lost {
        if *start <= at && at < *end {
            at = *end;
        }
    }
    at
}

/// What is wrong with the index of a committed object; what metadata has released meanwhile is nothing.
async fn index_of(
    store: &dyn ObjectStore,
    facts: &dyn Facts,
    key: &Path,
    id: ObjectId,
) -> Result<Option<String>, FsckError> {
    let Some(object) = facts.object(id).await? else { return Ok(None) };
    let (ObjectStage::Committed, Some(said)) = (object.stage, object.facts) else {
        return Ok(None);
    };
    let tail = match store.get_range(key, said.index_at..said.bytes).await {
        Ok(tail) => tail,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let index = match ObjectIndex::parse(&tail) {
        Ok(index) => index,
        Err(damage) => return Ok(Some(damage.to_string())),
    };
    if index.footer.crc != said.footer_crc || index.footer.object != id {
        return Ok(Some("its footer is another object's".to_owned()));
    }
    let lacks = |(stream, start): &&(StreamId, i64)| {
        let blocks = index.blocks_of(*stream, *start, i64::MAX);
        blocks.first().is_none_or(|block| block.start > *start)
    };
    let lacking = object.ranges.iter().find(lacks);
    Ok(lacking.map(|(stream, start)| format!("it does not hold offset {start} of stream {stream}")))
}

#[cfg(test)]
mod tests;

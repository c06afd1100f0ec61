//! The inputs of a job: objects read front to back, one request each where the job takes its blocks in file order.
//!
//! A small object comes whole in one request. A larger one is opened by its index, then its wanted blocks come through a
//! *lane*: the body of one range request that is read as far as it is needed, so that the store and the network hold
//! what the job has not got to yet, not this process. A block behind a small gap is reached by reading over it.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use common::StreamId;
use futures::StreamExt;
use futures::stream::BoxStream;
use meta::ObjectRange;
use object_store::{Error, GetOptions, GetRange, GetResultPayload, ObjectStoreExt};
use tokio::time::{sleep, timeout};

use super::{CompactError, Compactor};
use crate::key::data_key;
use crate::object::{Block, BlockInfo, Damage, FOOTER_BYTES, ObjectIndex};

/// An object up to this size is got whole.
const WHOLE_BYTES_MAX: u64 = 256 << 10;
/// Bytes that are read and dropped rather than asked for by another request.
const SKIP_BYTES_MAX: u64 = 1 << 20;
/// Bodies open at a time in one object; at the bound the oldest goes.
const LANES_MAX: usize = 2;
/// Bytes read from a local file at once.
const FILE_BYTES: u64 = 1 << 20;

/// One input object.
pub(super) struct Source {
    pub index: ObjectIndex,
    range: ObjectRange,
    whole: Option<Bytes>,
    /// Positions `[start, end)` of the object that hold wanted blocks, gaps up to [`SKIP_BYTES_MAX`] included.
    segments: Vec<Range<u64>>,
    lanes: Vec<Lane>,
}

/// The body of a range request, read up to `at`.
struct Lane {
    body: Body,
    at: u64,
    end: u64,
    rest: Bytes,
}

enum Body {
    Stream(BoxStream<'static, object_store::Result<Bytes>>),
    /// A file of a local directory; moves into a blocking read and back.
    File(Option<std::fs::File>),
}

/// Why a block was not got.
enum Failure {
    Gone,
    Again(String),
    Damaged(Damage),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound { .. } => Self::Gone,
            error => Self::Again(error.to_string()),
        }
    }
}

impl Source {
    /// Opens the object of `range`, of which the job wants the offsets in `wanted`, by stream.
    pub async fn open(
        compactor: &Compactor,
        range: &ObjectRange,
        wanted: &[(StreamId, Range<i64>)],
    ) -> Result<Self, CompactError> {
        let (at, end) = (range.facts.index_at, range.facts.bytes);
        if at >= end || end - at < FOOTER_BYTES as u64 {
            return Err(damaged(range, &Damage::Field { part: "metadata of the object" }));
        }
        let from = if end <= WHOLE_BYTES_MAX { 0 } else { at };
        let mut tries = 0;
        loop {
            let failure = match open_at(compactor, range, from).await {
                Ok((whole, index)) => {
                    let segments = segments(&index, wanted);
                    let (range, lanes) = (range.clone(), Vec::new());
                    return Ok(Self { index, range, whole, segments, lanes });
                }
                Err(failure) => failure,
            };
            compactor.again(range, failure, &mut tries).await?;
        }
    }

    /// Reads one wanted block.
    pub async fn block(
        &mut self,
        compactor: &Compactor,
        info: &BlockInfo,
    ) -> Result<Block, CompactError> {
        let mut tries = 0;
        loop {
            let found = self.attempt(compactor, info).await;
            match found {
                Ok(block) => return Ok(block),
                Err(failure) => {
                    self.lanes.clear();
                    compactor.again(&self.range, failure, &mut tries).await?;
                }
            }
        }
    }

    async fn attempt(&mut self, compactor: &Compactor, info: &BlockInfo) -> Result<Block, Failure> {
        let bytes = match &self.whole {
            Some(whole) => {
                let place =
                    usize::try_from(info.position).ok().zip(usize::try_from(info.length).ok());
                let slice = place.and_then(|(at, length)| Some(at..at.checked_add(length)?));
                let slice = slice.filter(|slice| slice.end <= whole.len());
                whole.slice(slice.ok_or(Failure::Damaged(Damage::Short { part: "object" }))?)
            }
            None => {
                let lane = self.lane(compactor, info).await?;
                let bytes = lane.take(info.position, info.length, compactor).await?;
                self.lanes.retain(|lane| lane.at < lane.end);
                bytes
            }
        };
        compactor.metrics.read_bytes.inc_by(info.length);
        Block::parse(&bytes, info).map_err(Failure::Damaged)
    }

    async fn lane(
        &mut self,
        compactor: &Compactor,
        info: &BlockInfo,
    ) -> Result<&mut Lane, Failure> {
        let (at, end) = (info.position, info.position.saturating_add(info.length));
        let fits = |lane: &Lane| lane.at <= at && at - lane.at <= SKIP_BYTES_MAX && end <= lane.end;
        if let Some(found) = self.lanes.iter().position(fits) {
            return Ok(&mut self.lanes[found]);
        }
        let segment = self.segments.iter().find(|segment| segment.start <= at && at < segment.end);
        let until = segment.map_or(end, |segment| segment.end.max(end));
        if self.lanes.len() >= LANES_MAX {
            self.lanes.remove(0);
        }
        let lane = Lane::open(compactor, &self.range, at..until).await?;
        self.lanes.push(lane);
        Ok(self.lanes.last_mut().expect("pushed above"))
    }
}

async fn open_at(
    compactor: &Compactor,
    range: &ObjectRange,
    from: u64,
) -> Result<(Option<Bytes>, ObjectIndex), Failure> {
    let key = data_key(&compactor.prefix, range.object);
    let _permit = compactor.permit().await;
    compactor.core.metrics.gets.inc();
    compactor.metrics.request("get");
    let get = compactor.store.get_range(&key, from..range.facts.bytes);
    let bytes = timeout(compactor.options.read_timeout, get).await;
    let bytes = bytes.map_err(|_| Failure::Again("the object store took too long".into()))??;
    compactor.core.metrics.get_bytes.inc_by(bytes.len() as u64);
    let index = ObjectIndex::parse(&bytes).map_err(Failure::Damaged)?;
    crate::read::agree(&index, range).map_err(Failure::Damaged)?;
    Ok(((from == 0).then_some(bytes), index))
}

/// The parts of the object that hold wanted blocks, near ones joined.
fn segments(index: &ObjectIndex, wanted: &[(StreamId, Range<i64>)]) -> Vec<Range<u64>> {
    let blocks = wanted
        .iter()
        .flat_map(|(stream, range)| index.blocks_of(*stream, range.start, range.end).iter());
    let mut places: Vec<_> =
        blocks.map(|block| block.position..block.position.saturating_add(block.length)).collect();
    places.sort_by_key(|place| place.start);
    let mut segments: Vec<Range<u64>> = Vec::new();
    for place in places {
        match segments.last_mut() {
            Some(last) if place.start.saturating_sub(last.end) <= SKIP_BYTES_MAX => {
                last.end = last.end.max(place.end);
            }
            _ => segments.push(place),
        }
    }
    segments
}

impl Lane {
    async fn open(
        compactor: &Compactor,
        range: &ObjectRange,
        bytes: Range<u64>,
    ) -> Result<Self, Failure> {
        let key = data_key(&compactor.prefix, range.object);
        compactor.core.metrics.gets.inc();
        compactor.metrics.request("get");
        // To the end of the object, although not all of it is read: a bounded range may be collected whole in
        // memory below, an open one comes as it is taken.
        let range = Some(GetRange::Offset(bytes.start));
        let options = GetOptions { range, ..GetOptions::default() };
        let get = compactor.store.get_opts(&key, options);
        let found = timeout(compactor.options.read_timeout, get).await;
        let found =
            found.map_err(|_| Failure::Again("the object store took too long".into()))??;
        if found.range.start != bytes.start || found.range.end < bytes.end {
            return Err(Failure::Damaged(Damage::Short { part: "object" }));
        }
        let body = match found.payload {
            GetResultPayload::File(file, _) => Body::File(Some(file)),
            GetResultPayload::Stream(stream) => Body::Stream(stream),
        };
        Ok(Self { body, at: bytes.start, end: bytes.end, rest: Bytes::new() })
    }

    /// The bytes `[position, position + length)`; what lies before is dropped.
    async fn take(
        &mut self,
        position: u64,
        length: u64,
        compactor: &Compactor,
    ) -> Result<Bytes, Failure> {
        let _permit = compactor.permit().await;
        let too_large = || Failure::Damaged(Damage::Field { part: "block index" });
        let length = usize::try_from(length).map_err(|_| too_large())?;
        let mut out = BytesMut::with_capacity(length);
        while out.len() < length {
            if self.rest.is_empty() {
                let wanted = (length - out.len()) as u64 + position.saturating_sub(self.at);
                let next = timeout(compactor.options.read_timeout, self.next(wanted)).await;
                self.rest = next.map_err(|_| Failure::Again("a body got stuck".into()))??;
                compactor.core.metrics.get_bytes.inc_by(self.rest.len() as u64);
                compactor.pace(self.rest.len() as u64).await;
            }
            let skip = usize::try_from(position.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let skip = skip.min(self.rest.len());
            let taken = (length - out.len()).min(self.rest.len() - skip);
            let piece = self.rest.split_to(skip + taken);
            out.extend_from_slice(&piece[skip..]);
            self.at += piece.len() as u64;
        }
        Ok(out.freeze())
    }

    async fn next(&mut self, wanted: u64) -> Result<Bytes, Failure> {
        let short = || Failure::Again("a body ended too early".into());
        match &mut self.body {
            Body::Stream(stream) => match stream.next().await {
                Some(chunk) => Ok(chunk?),
                None => Err(short()),
            },
            Body::File(file) => {
                let mut open = file.take().ok_or_else(short)?;
                let (at, bytes) = (self.at, wanted.max(FILE_BYTES).min(self.end - self.at));
                let read = tokio::task::spawn_blocking(move || {
                    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
                    open.seek(SeekFrom::Start(at))?;
                    open.read_exact(&mut buffer)?;
                    Ok::<_, std::io::Error>((open, Bytes::from(buffer)))
                });
                let (open, bytes) = read
                    .await
                    .map_err(|_| short())?
                    .map_err(|error| Failure::Again(error.to_string()))?;
                *file = Some(open);
                Ok(bytes)
            }
        }
    }
}

impl Compactor {
    /// Waits for the next try, or says that there is none.
    async fn again(
        &self,
        range: &ObjectRange,
        failure: Failure,
        tries: &mut u32,
    ) -> Result<(), CompactError> {
        *tries += 1;
        match failure {
            Failure::Gone => {
                let detail = format!("object {} is not in the store any more", range.object);
                return Err(CompactError::Lost { reason: "gone", detail });
            }
            Failure::Damaged(damage) if *tries > 1 => return Err(damaged(range, &damage)),
            Failure::Damaged(_) => {}
            Failure::Again(reason) if *tries >= self.options.read_tries_max => {
                self.core.metrics.error("compact_get");
                return Err(CompactError::Unavailable(reason));
            }
            Failure::Again(_) => self.core.metrics.error("compact_get"),
        }
        sleep(crate::upload::backoff(&self.options, &self.rng, *tries)).await;
        Ok(())
    }
}

fn damaged(range: &ObjectRange, damage: &Damage) -> CompactError {
    CompactError::Damaged(format!("object {}: {damage}", range.object))
}

//! Reads: ranges in as few requests as their places allow, each copied once, into a buffer of its own.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error, GetOptions, GetRange, GetResult, GetResultPayload, Result};
use tokio::time::{sleep, timeout};

use super::cause::{Cause, TooShort};
use super::meter::Kind;
use super::{Inner, too_long};

/// Requests of one call in flight.
const REQUESTS_MAX: usize = 4;
/// A bounded read up to this size is collected within its attempt, so that it can be tried again.
const COLLECTED_BYTES_MAX: u64 = 16 << 20;

/// See [`object_store::ObjectStore::get_opts`].
pub(super) async fn get(
    inner: &Arc<Inner>,
    location: &Path,
    options: GetOptions,
) -> Result<GetResult> {
    if options.head {
        return inner
            .repeat(Kind::Head, 0, || inner.store.get_opts(location, options.clone()))
            .await;
    }
    inner.admit().await?;
    if let Some(GetRange::Bounded(range)) = options.range.clone()
        && range.end.saturating_sub(range.start) <= COLLECTED_BYTES_MAX
    {
        let (mut found, bytes) =
            inner.collect(location, std::slice::from_ref(&range), options, false).await?;
        let bytes = bytes.into_iter().next().unwrap_or_default();
        found.range = range.start..range.start + bytes.len() as u64;
        found.payload =
            GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
        return Ok(found);
    }
    let mut found =
        inner.repeat(Kind::Get, 0, || inner.store.get_opts(location, options.clone())).await?;
    if let GetResultPayload::Stream(body) = found.payload {
        let meter = inner.meter.clone();
        let body = body.inspect_ok(move |bytes| meter.bytes(Kind::Get, bytes.len() as u64));
        found.payload = GetResultPayload::Stream(unstuck(inner, body.boxed()));
    } else {
        inner.meter.bytes(Kind::Get, found.range.end - found.range.start);
    }
    Ok(found)
}

/// A stream that ends with an error when nothing comes for the time of an attempt.
pub(super) fn unstuck<T: Send + 'static>(
    inner: &Arc<Inner>,
    stream: BoxStream<'static, Result<T>>,
) -> BoxStream<'static, Result<T>> {
    let inner = Arc::clone(inner);
    let limit = inner.options.attempt_timeout;
    futures::stream::unfold(Some(stream), move |stream| {
        let inner = Arc::clone(&inner);
        async move {
            let mut stream = stream?;
            match timeout(limit, stream.next()).await {
                Ok(Some(item)) => Some((item, Some(stream))),
                Ok(None) => None,
                Err(_) => {
                    inner.failed(Kind::Get, Cause::TimedOut);
                    Some((Err(too_long(limit, "go on with a body")), None))
                }
            }
        }
    })
    .boxed()
}

impl Inner {
    /// The bytes of `ranges`, in their order, each in a buffer of its own.
    pub(super) async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        self.admit().await?;
        let requests = merged(ranges, self.options.gap_bytes_max);
        let found: Vec<Vec<Bytes>> = futures::stream::iter(requests.clone())
            .map(|indexes| async move {
                let wanted: Vec<_> = indexes.iter().map(|index| ranges[*index].clone()).collect();
                let found = self.collect(location, &wanted, GetOptions::default(), true).await;
                found.map(|(_, bytes)| bytes)
            })
            .buffered(REQUESTS_MAX)
            .try_collect()
            .await?;
        let mut out = vec![Bytes::new(); ranges.len()];
        for (index, bytes) in requests.into_iter().flatten().zip(found.into_iter().flatten()) {
            out[index] = bytes;
        }
        Ok(out)
    }

    /// One request over `ranges`, which rise and lie near each other; tried again, and hedged.
    async fn collect(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
        options: GetOptions,
        strict: bool,
    ) -> Result<(GetResult, Vec<Bytes>)> {
        let start = ranges.first().map_or(0, |range| range.start);
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(start);
        let options = GetOptions { range: Some(GetRange::Bounded(start..end)), ..options };
        let once = || {
            let work = self.collect_once(location, ranges, options.clone(), start..end, strict);
            self.attempt(Kind::Get, end - start, work)
        };
        let mut attempts = self.begin();
        loop {
            let started = self.clock.elapsed();
            let error = match self.hedged(&once).await {
                Ok(found) => {
                    self.took(self.clock.elapsed().saturating_sub(started));
                    return Ok(found);
                }
                Err(error) => error,
            };
            if !self.again(&mut attempts, Cause::of(&error)).await {
                return Err(super::plain(error));
            }
        }
    }

    async fn collect_once(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
        options: GetOptions,
        whole: Range<u64>,
        strict: bool,
    ) -> Result<(GetResult, Vec<Bytes>)> {
        let mut found = self.store.get_opts(location, options).await?;
        if found.range.start != whole.start || (strict && found.range.end != whole.end) {
            let source = Box::new(TooShort { size: found.meta.size, end: whole.end });
            return Err(Error::Generic { store: "Remote", source });
        }
        // Not strict: a range that passes the end of the object is cut there, as stores do.
        let last = found.range.end;
        let cut = |range: &Range<u64>| range.start.min(last)..range.end.min(last);
        let ranges: Vec<_> = ranges.iter().map(cut).collect();
        let nothing = GetResultPayload::Stream(futures::stream::empty().boxed());
        let bytes = match std::mem::replace(&mut found.payload, nothing) {
            GetResultPayload::Stream(body) => split(body, whole.start, &ranges).await?,
            GetResultPayload::File(file, _) => from_file(file, ranges).await?,
        };
        self.meter.bytes(Kind::Get, last - whole.start);
        Ok((found, bytes))
    }

    /// Sends a second request when the first takes longer than nearly all do; the first success counts.
    async fn hedged<T, F: Future<Output = Result<T>>>(&self, once: &impl Fn() -> F) -> Result<T> {
        let one_in = self.options.hedge_one_in;
        let mut first = std::pin::pin!(once());
        if one_in == 0 {
            return first.await;
        }
        self.hedges.give(f64::from(one_in).recip());
        tokio::select! {
            biased;
            result = &mut first => return result,
            () = sleep(self.slow()) => {}
        }
        if !self.hedges.take(self.clock.elapsed()) {
            return first.await;
        }
        self.meter.hedges.inc();
        let mut second = std::pin::pin!(once());
        tokio::select! {
            biased;
            result = &mut first => match result {
                Ok(value) => Ok(value),
                Err(_) => second.await,
            },
            result = &mut second => match result {
                Ok(value) => {
                    self.meter.hedges_won.inc();
                    Ok(value)
                }
                Err(_) => first.await,
            },
        }
    }
}

/// Which ranges go into one request: indexes, by position, split where more than `gap_max` bytes lie between.
fn merged(ranges: &[Range<u64>], gap_max: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..ranges.len()).collect();
    order.sort_by_key(|index| ranges[*index].start);
    let mut requests: Vec<Vec<usize>> = Vec::new();
    let mut end = 0_u64;
    for index in order {
        let range = &ranges[index];
        match requests.last_mut() {
            Some(request) if range.start <= end.saturating_add(gap_max) => request.push(index),
            _ => requests.push(vec![index]),
        }
        end = if requests.last().is_some_and(|request| request.len() == 1) {
            range.end
        } else {
            end.max(range.end)
        };
    }
    requests
}

/// Copies a body that begins at `at` into one buffer for each of `ranges`, which rise.
async fn split(
    mut body: BoxStream<'static, Result<Bytes>>,
    mut at: u64,
    ranges: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    let mut out: Vec<BytesMut> = Vec::with_capacity(ranges.len());
    let size = |range: &Range<u64>| usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    for range in ranges {
        out.push(BytesMut::with_capacity(size(range)));
    }
    let mut open = 0;
    while let Some(chunk) = body.try_next().await? {
        let end = at + chunk.len() as u64;
        for (range, buffer) in ranges.iter().zip(&mut out).skip(open) {
            if range.start >= end {
                break;
            }
            let from = range.start.max(at).min(end) - at;
            let to = range.end.clamp(at, end) - at;
            let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else { break };
            if from < to {
                buffer.extend_from_slice(&chunk[from..to]);
            }
        }
        at = end;
        while ranges.get(open).is_some_and(|range| range.end <= at) {
            open += 1;
        }
    }
    let whole = ranges.iter().zip(&out).all(|(range, buffer)| buffer.len() == size(range));
    if !whole {
        let source = "the body ended before its length".into();
        return Err(Error::Generic { store: "Remote", source });
    }
    Ok(out.into_iter().map(BytesMut::freeze).collect())
}

/// Reads `ranges` of a local file, each into a buffer of its own that is not zeroed before.
async fn from_file(mut file: std::fs::File, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
    let read = move || {
        let mut out = Vec::with_capacity(ranges.len());
        for range in &ranges {
            let length = range.end - range.start;
            let mut buffer = Vec::with_capacity(usize::try_from(length).unwrap_or(usize::MAX));
            file.seek(SeekFrom::Start(range.start))?;
            (&mut file).take(length).read_to_end(&mut buffer)?;
            if buffer.len() as u64 != length {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            out.push(Bytes::from(buffer));
        }
        Ok::<_, std::io::Error>(out)
    };
    let found = tokio::task::spawn_blocking(read).await?;
    found.map_err(|error| Error::Generic { store: "Remote", source: Box::new(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ranges_are_one_request() {
        let ranges = [50..60, 0..10, 10..20, 25..30, 100..110];
        assert_eq!(merged(&ranges, 5), [vec![1, 2, 3], vec![0], vec![4]]);
        assert_eq!(merged(&ranges, 20), [vec![1, 2, 3, 0], vec![4]]);
        assert!(merged(&[], 5).is_empty());
    }

    #[tokio::test]
    async fn a_body_is_split_at_any_chunk_size() {
        let body: Vec<u8> = (0..100).collect();
        let ranges = [10..20, 20..23, 30..30, 40..99];
        for size in 1..=90 {
            let chunks: Vec<_> =
                body[10..].chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let found = split(futures::stream::iter(chunks).boxed(), 10, &ranges).await;
            let found = found.expect("whole");
            for (range, bytes) in ranges.iter().zip(&found) {
                let range =
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                assert_eq!(bytes[..], body[range]);
            }
        }
        let short = vec![Ok(Bytes::from_static(b"abc"))];
        assert!(split(futures::stream::iter(short).boxed(), 10, &ranges).await.is_err());
    }
}

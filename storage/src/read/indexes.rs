//! Stream indexes, fetched from metadata by part and kept for a while.
//!
//! A cached part says for ever which object held a range when it was asked; when such an object is gone (404), or a range
//! is not covered, the caller asks again past the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{StreamId, failpoint};
use meta::StreamIndex;
use parking_lot::Mutex;

use crate::error::ReadError;

/// Streams whose part is kept; at the bound the lowest stream id goes.
const STREAMS_MAX: usize = 512;
/// Ranges asked for at once.
const RANGES_MAX: usize = 32;

pub(crate) struct Indexes {
    meta: meta::Handle,
    parts: Mutex<BTreeMap<StreamId, Arc<StreamIndex>>>,
}

impl Indexes {
    pub fn new(meta: meta::Handle) -> Self {
        Self { meta, parts: Mutex::default() }
    }

    /// A part of the index of `stream` that says what holds `offset`.
    pub async fn at(
        &self,
        stream: StreamId,
        offset: i64,
        fresh: bool,
    ) -> Result<Arc<StreamIndex>, ReadError> {
        let known = self.parts.lock().get(&stream).cloned();
        let fresh = fresh && !failpoint::planted("stale-index");
        if let Some(part) = known.filter(|part| !fresh && covers(part, offset)) {
            return Ok(part);
        }
        let part = self.meta.stream_index(stream, offset, RANGES_MAX).await;
        let part = part.map_err(|error| ReadError::Unavailable(format!("metadata: {error}")))?;
        let part = Arc::new(part);
        let mut parts = self.parts.lock();
        if parts.len() >= STREAMS_MAX && !parts.contains_key(&stream) {
            parts.pop_first();
        }
        parts.insert(stream, part.clone());
        Ok(part)
    }

    /// Asks again for `stream` at the next use.
    pub fn forget(&self, stream: StreamId) {
        self.parts.lock().remove(&stream);
    }
}

fn covers(part: &StreamIndex, offset: i64) -> bool {
    part.objects.iter().any(|range| range.start <= offset && offset < range.end)
        || part.lost.iter().any(|(start, end)| *start <= offset && offset < *end)
}

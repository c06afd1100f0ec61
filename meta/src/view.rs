//! How `apply` sees the state: ordered keys to read, and an overlay that collects writes.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::frame::{self, DecodeError};
use crate::store::{MetaStore, Pair, Space, StoreError};

/// The state cannot be read. Fatal: the process ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A value or log entry is damaged or of another version.
    #[error("metadata under key {key:02x?}: {source}")]
    Decode {
        /// The key.
        key: Vec<u8>,
        /// What is wrong.
        source: DecodeError,
    },
    /// A key that does not follow the layout.
    #[error("metadata holds a key of unknown shape {key:02x?}")]
    Key {
        /// The key.
        key: Vec<u8>,
    },
}

/// Ordered keys to read.
pub trait View {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the store fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError>;

    /// The first `limit` pairs in `[start, end)`, ascending.
    ///
    /// # Errors
    /// When the store fails.
    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError>;

    /// The last `limit` pairs in `[start, end)`, descending.
    ///
    /// # Errors
    /// When the store fails.
    fn scan_back(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError>;
}

/// Reading of typed values.
pub(crate) trait Load: View {
    fn load<R: prost::Message + Default>(&self, key: &[u8]) -> Result<Option<R>, ViewError> {
        self.get(key)?.map(|value| read(key, &value)).transpose()
    }

    /// Calls `body` with every pair under `prefix`, in pages.
    fn each(
        &self,
        prefix: Vec<u8>,
        mut body: impl FnMut(&[u8], &[u8]) -> Result<(), ViewError>,
    ) -> Result<(), ViewError> {
        let (mut start, end) = crate::keys::under(prefix);
        loop {
            let page = self.scan(&start, &end, PAGE)?;
            for (key, value) in &page {
                body(key, value)?;
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => start = crate::keys::next(last),
                _ => return Ok(()),
            }
        }
    }
}

const PAGE: usize = 1024;

impl<V: View + ?Sized> Load for V {}

/// Reads a typed value.
pub(crate) fn read<R: prost::Message + Default>(key: &[u8], value: &[u8]) -> Result<R, ViewError> {
    frame::decode(value).map_err(|source| ViewError::Decode { key: key.to_vec(), source })
}

pub(crate) fn bad_key(key: &[u8]) -> ViewError {
    ViewError::Key { key: key.to_vec() }
}

/// The state space of a store.
pub struct StoreView<'a>(pub &'a dyn MetaStore);

impl View for StoreView<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(self.0.get(Space::State, key)?)
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError> {
        Ok(self.0.scan(Space::State, start, end, limit)?)
    }

    fn scan_back(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError> {
        Ok(self.0.scan_back(Space::State, start, end, limit)?)
    }
}

/// One write that `apply` wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Vec<u8>,
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// A view with writes of its own above it.
pub struct Overlay<'a> {
    base: &'a dyn View,
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl<'a> Overlay<'a> {
    /// Nothing written yet.
    #[must_use]
    pub fn over(base: &'a dyn View) -> Self {
        Self { base, writes: BTreeMap::new() }
    }

    /// Takes writes over.
    pub fn absorb(&mut self, writes: Vec<Write>) {
        self.writes.extend(writes.into_iter().map(|write| (write.key, write.value)));
    }

    /// What was written, in key order.
    #[must_use]
    pub fn into_writes(self) -> Vec<Write> {
        self.writes.into_iter().map(|(key, value)| Write { key, value }).collect()
    }

    pub(crate) fn put<R: prost::Message>(&mut self, key: Vec<u8>, record: &R) {
        self.writes.insert(key, Some(frame::encode(record)));
    }

    pub(crate) fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    fn written(&self, start: &[u8], end: &[u8]) -> Vec<(&Vec<u8>, &Option<Vec<u8>>)> {
        if start >= end {
            return Vec::new();
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        self.writes.range::<[u8], _>(bounds).collect()
    }

    /// Base pairs and writes of `[start, end)`, in key order, right up to `limit` pairs from the asked side.
    fn merged(
        &self,
        (start, end): (&[u8], &[u8]),
        limit: usize,
        page: impl Fn(usize) -> Result<Vec<Pair>, ViewError>,
        within: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, ViewError> {
        let written = self.written(start, end);
        // Every write can hide at most one pair of the base.
        let asked = limit.saturating_add(written.len());
        let base = page(asked)?;
        let horizon =
            if base.len() < asked { None } else { base.last().map(|(key, _)| key.clone()) };
        let mut merged: BTreeMap<Vec<u8>, Vec<u8>> = base.into_iter().collect();
        for (key, value) in written {
            if horizon.as_ref().is_some_and(|horizon| !within(key, horizon)) {
                continue;
            }
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        Ok(merged)
    }
}

impl View for Overlay<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.base.get(key),
        }
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError> {
        let page = |asked| self.base.scan(start, end, asked);
        let merged = self.merged((start, end), limit, page, |key, horizon| key <= horizon)?;
        Ok(merged.into_iter().take(limit).collect())
    }

    fn scan_back(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError> {
        let page = |asked| self.base.scan_back(start, end, asked);
        let merged = self.merged((start, end), limit, page, |key, horizon| key >= horizon)?;
        Ok(merged.into_iter().rev().take(limit).collect())
    }
}

impl View for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let pairs = self.range::<[u8], _>(bounds).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_back(&self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, ViewError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let bounds = (Bound::Included(start), Bound::Excluded(end));
        let pairs = self.range::<[u8], _>(bounds).rev().take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use common::Rng;

    use super::*;

    /// Random writes over a random base read like the merged map, from both sides and for every limit.
    #[test]
    fn an_overlay_reads_like_the_merged_map() {
        for seed in 0..200 {
            let rng = Rng::seeded(seed);
            let byte = |bound| u8::try_from(rng.below(bound)).expect("below 256");
            let base: BTreeMap<Vec<u8>, Vec<u8>> =
                (0..byte(20)).map(|_| (vec![byte(30)], vec![0])).collect();
            let mut model = base.clone();
            let mut overlay = Overlay::over(&base);
            for _ in 0..byte(20) {
                let key = vec![byte(30)];
                let value = rng.one_in(2).then(|| vec![1]);
                match &value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(&key),
                };
                overlay.absorb(vec![Write { key, value }]);
            }
            for limit in 0..8 {
                let (start, end) = ([byte(30)], [byte(31)]);
                assert_eq!(
                    overlay.scan(&start, &end, limit),
                    View::scan(&model, &start, &end, limit)
                );
                let back = View::scan_back(&model, &start, &end, limit);
                assert_eq!(overlay.scan_back(&start, &end, limit), back, "seed {seed}");
            }
        }
    }
}

//! The seam below metadata: ordered keys in two spaces, written in atomic batches.

use futures::future::BoxFuture;

/// Which of the two ordered maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Raft's log, hard state and membership.
    Log,
    /// The replicated state and the index up to which it was applied.
    State,
}

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key.
    Put(Space, Vec<u8>, Vec<u8>),
    /// Removes a key, which may be absent.
    Delete(Space, Vec<u8>),
    /// Removes every key in `[start, end)`.
    DeleteRange(Space, Vec<u8>, Vec<u8>),
}

/// Changes that happen together or not at all, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
}

impl Batch {
    /// Sets `key`.
    pub fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.changes.push(Change::Put(space, key, value));
    }

    /// Removes `key`.
    pub fn delete(&mut self, space: Space, key: Vec<u8>) {
        self.changes.push(Change::Delete(space, key));
    }

    /// Removes every key in `[start, end)`.
    pub fn delete_range(&mut self, space: Space, start: Vec<u8>, end: Vec<u8>) {
        self.changes.push(Change::DeleteRange(space, start, end));
    }

    /// The changes, in order.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// The changes, in order, by value.
    #[must_use]
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// True when there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// The store could not do what was asked. After a failed write the process ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("metadata store: {what}: {reason}")]
pub struct StoreError {
    /// The operation, `read`, `write` or `open`.
    pub what: &'static str,
    /// What the medium said.
    pub reason: String,
}

impl StoreError {
    /// An error of `what` for `reason`.
    #[must_use]
    pub fn new(what: &'static str, reason: impl ToString) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The state space as it was at one moment, whatever is written later. Read from any thread; a read blocks.
pub trait Frozen: Send {
    /// The first `limit` pairs with keys in `[start, end)`, ascending.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn scan(&mut self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError>;
}

impl Frozen for std::collections::BTreeMap<Vec<u8>, Vec<u8>> {
    fn scan(&mut self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if start >= end {
            return Ok(Vec::new());
        }
        let bounds = (std::ops::Bound::Included(start), std::ops::Bound::Excluded(end));
        let pairs = self.range::<[u8], _>(bounds).take(limit);
        Ok(pairs.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

/// Ordered keys in two spaces. The conformance suite ([`crate::conformance`]) says what an implementation must hold:
///
/// - a batch is atomic, also over a power cut, and over both spaces;
/// - `write(.., sync: true)` is durable when its future ends, and with it every earlier write;
/// - a power cut may lose unsynced writes, but only a suffix of them in write order;
/// - reads see every finished write.
pub trait MetaStore: Send + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first `limit` pairs with keys in `[start, end)`, ascending.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError>;

    /// The last `limit` pairs with keys in `[start, end)`, descending.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn scan_back(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError>;

    /// The state space as it is now, with every finished write, for a reader that takes its time.
    ///
    /// # Errors
    /// When the medium cannot be read.
    fn freeze(&self) -> Result<Box<dyn Frozen>, StoreError>;

    /// Writes `batch`, durably when `sync`. Not cancel safe: the future runs to its end or the process does.
    ///
    /// # Errors
    /// When the medium failed; what it holds afterwards is decided by the next start.
    fn write(&mut self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), StoreError>>;
}

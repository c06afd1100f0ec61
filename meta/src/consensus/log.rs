//! Raft's log: held in memory whole, because compaction keeps it short, and written to the store's `Log` space.
//!
//! ```text
//! key                 value
//! 'e' index:u64 BE    entry
//! 'h'                 hard state (term, vote, commit)
//! 'c'                 membership
//! 't'                 (index, term) up to which the log is compacted
//! 'i'                 id of this voter
//! ```

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::codec;
use crate::frame;
use crate::keys;
use crate::record::{Applied, Number};
use crate::store::{Batch, MetaStore, Space, StoreError};
use crate::view::ViewError;

const ENTRY: u8 = b'e';
const HARD_STATE: u8 = b'h';
const CONF_STATE: u8 = b'c';
const TRUNCATED: u8 = b't';
const IDENTITY: u8 = b'i';

fn entry_key(index: u64) -> Vec<u8> {
    let mut key = vec![ENTRY];
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// The log and what belongs to it, as raft-rs reads it.
pub(crate) struct Log {
    truncated: Applied,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    /// Raft wants a snapshot at or above this index; the driver builds it.
    wanted: Cell<Option<u64>>,
    snapshot: RefCell<Option<Snapshot>>,
}

/// What a start finds.
pub(crate) enum Loaded {
    Fresh,
    Found { log: Box<Log>, voter: u64 },
}

impl Log {
    /// The log of a group that has not begun. Every voter begins with the same one.
    pub fn first(voters: &[u64]) -> Self {
        let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
        let hard_state = HardState { term: 1, vote: 0, commit: 1 };
        Self::with(Applied { index: 1, term: 1 }, hard_state, conf_state)
    }

    fn with(truncated: Applied, hard_state: HardState, conf_state: ConfState) -> Self {
        Self {
            truncated,
            entries: VecDeque::new(),
            bytes: 0,
            hard_state,
            conf_state,
            wanted: Cell::new(None),
            snapshot: RefCell::new(None),
        }
    }

    /// What a fresh store has to hold before raft starts.
    pub fn first_batch(&self, voter: u64) -> Batch {
        let mut batch = Batch::default();
        batch.put(Space::Log, vec![IDENTITY], frame::encode(&Number { value: voter }));
        batch.put(Space::Log, vec![CONF_STATE], codec::encode_conf_state(&self.conf_state));
        batch.put(Space::Log, vec![HARD_STATE], codec::encode_hard_state(&self.hard_state));
        batch.put(Space::Log, vec![TRUNCATED], frame::encode(&self.truncated));
        batch.put(Space::State, keys::applied(), frame::encode(&self.truncated));
        batch
    }

    pub fn load(store: &dyn MetaStore, applied: Applied) -> Result<Loaded, ViewError> {
        let get = |tag: u8| store.get(Space::Log, &[tag]);
        let (Some(identity), Some(hard), Some(conf), Some(truncated)) =
            (get(IDENTITY)?, get(HARD_STATE)?, get(CONF_STATE)?, get(TRUNCATED)?)
        else {
            return Ok(Loaded::Fresh);
        };
        let damaged = |tag: u8| move |source| ViewError::Decode { key: vec![tag], source };
        let mut hard = codec::decode_hard_state(&hard).map_err(damaged(HARD_STATE))?;
        // What was applied had been committed; the commit index itself is not synced each time.
        hard.commit = hard.commit.max(applied.index);
        let conf = codec::decode_conf_state(&conf).map_err(damaged(CONF_STATE))?;
        let truncated: Applied = frame::decode(&truncated).map_err(damaged(TRUNCATED))?;
        let voter = frame::decode::<Number>(&identity).map_err(damaged(IDENTITY))?.value;
        let mut log = Self::with(truncated, hard, conf);
        log.load_entries(store)?;
        log.hard_state.commit = log.hard_state.commit.min(log.last());
        Ok(Loaded::Found { log: Box::new(log), voter })
    }

    fn load_entries(&mut self, store: &dyn MetaStore) -> Result<(), ViewError> {
        const PAGE: usize = 256;
        let end = keys::after(&[ENTRY]);
        loop {
            let start = entry_key(self.last() + 1);
            let page = store.scan(Space::Log, &start, &end, PAGE)?;
            for (key, value) in &page {
                let damaged = |source| ViewError::Decode { key: key.clone(), source };
                let entry = codec::decode_entry(value).map_err(damaged)?;
                if entry.index != self.last() + 1 {
                    return Err(ViewError::Key { key: key.clone() });
                }
                self.push(entry);
            }
            if page.len() < PAGE {
                return Ok(());
            }
        }
    }

    pub fn voters(&self) -> &[u64] {
        &self.conf_state.voters
    }

    pub fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub fn last(&self) -> u64 {
        self.truncated.index + u64::try_from(self.entries.len()).expect("a short log")
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the entries held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += codec::entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    fn at(&self, index: u64) -> Option<&Entry> {
        let position = index.checked_sub(self.truncated.index + 1)?;
        self.entries.get(usize::try_from(position).ok()?)
    }

    /// Takes entries over what was there from their first index on, and adds that to `batch`.
    pub fn append(&mut self, entries: Vec<Entry>, batch: &mut Batch) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        assert!(
            first > self.truncated.index && first <= self.last() + 1,
            "entries from {first} do not follow a log of ({}, {}]",
            self.truncated.index,
            self.last()
        );
        if first <= self.last() {
            batch.delete_range(Space::Log, entry_key(first), entry_key(self.last() + 1));
            while self.last() >= first {
                let dropped = self.entries.pop_back().expect("the log reaches past its start");
                self.bytes -= codec::entry_bytes(&dropped);
            }
        }
        for entry in entries {
            batch.put(Space::Log, entry_key(entry.index), codec::encode_entry(&entry));
            self.push(entry);
        }
    }

    pub fn set_hard_state(&mut self, state: HardState, batch: &mut Batch) {
        batch.put(Space::Log, vec![HARD_STATE], codec::encode_hard_state(&state));
        self.hard_state = state;
    }

    /// Forgets entries up to `index`, which has been applied.
    pub fn compact(&mut self, index: u64, batch: &mut Batch) {
        let Some(term) = self.at(index).map(|entry| entry.term) else { return };
        batch.delete_range(Space::Log, entry_key(0), entry_key(index + 1));
        while self.truncated.index < index {
            let dropped = self.entries.pop_front().expect("the log holds the index");
            self.bytes -= codec::entry_bytes(&dropped);
            self.truncated.index += 1;
        }
        self.truncated.term = term;
        batch.put(Space::Log, vec![TRUNCATED], frame::encode(&self.truncated));
        self.snapshot.take();
    }

    /// Begins anew behind an installed snapshot.
    pub fn install(&mut self, at: Applied, conf_state: ConfState, batch: &mut Batch) {
        batch.delete_range(Space::Log, entry_key(0), keys::after(&[ENTRY]));
        batch.put(Space::Log, vec![TRUNCATED], frame::encode(&at));
        batch.put(Space::Log, vec![CONF_STATE], codec::encode_conf_state(&conf_state));
        self.entries.clear();
        self.bytes = 0;
        self.truncated = at;
        self.conf_state = conf_state;
        self.hard_state.commit = self.hard_state.commit.max(at.index);
        self.snapshot.take();
    }

    /// The index from which raft waits for a snapshot.
    pub fn take_wanted(&self) -> Option<u64> {
        self.wanted.take()
    }

    pub fn offer(&self, snapshot: Snapshot) {
        self.snapshot.replace(Some(snapshot));
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.truncated.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let mut entries: Vec<Entry> =
            (low..high).filter_map(|index| self.at(index)).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.truncated.index {
            return Ok(self.truncated.term);
        }
        if index < self.truncated.index {
            return Err(StorageError::Compacted.into());
        }
        self.at(index).map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.truncated.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let offered = self.snapshot.borrow();
        match offered.as_ref() {
            Some(snapshot) if snapshot.get_metadata().index >= request_index => {
                Ok(snapshot.clone())
            }
            _ => {
                self.wanted.set(Some(request_index));
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}

/// How far the state of `store` has been applied.
pub(crate) fn applied(store: &dyn MetaStore) -> Result<Applied, ViewError> {
    let key = keys::applied();
    match store.get(Space::State, &key)? {
        None => Ok(Applied::default()),
        Some(value) => crate::view::read(&key, &value),
    }
}

/// Length of raft's log in `store`, for tools.
pub(crate) fn entries_held(store: &dyn MetaStore) -> Result<usize, StoreError> {
    store.scan(Space::Log, &[ENTRY], &keys::after(&[ENTRY]), usize::MAX).map(|pairs| pairs.len())
}

//! A snapshot of the state family. It borrows the database, so a thread of its own holds both and answers for them.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use meta::{Frozen, Pair, StoreError};
use rocksdb::{DB, IteratorMode, ReadOptions};

use crate::options::STATE;

struct Ask {
    start: Vec<u8>,
    end: Vec<u8>,
    limit: usize,
}

/// The state as it was when this was made. Ends its thread when it is dropped.
pub(crate) struct Snapshot {
    asks: Option<Sender<Ask>>,
    answers: Receiver<Result<Vec<Pair>, StoreError>>,
    thread: Option<JoinHandle<()>>,
}

impl Snapshot {
    pub fn take(db: &Arc<DB>) -> Result<Self, StoreError> {
        let db = Arc::clone(db);
        let (asks, asked) = channel::<Ask>();
        let (answer, answers) = channel();
        let thread = common::threads::spawn("meta-snapshot", move || {
            let snapshot = db.snapshot();
            // The first answer says that the snapshot is there.
            if answer.send(Ok(Vec::new())).is_err() {
                return;
            }
            let family = db.cf_handle(STATE).expect("the family is opened with the store");
            for Ask { start, end, limit } in asked {
                let mut options = ReadOptions::default();
                options.set_iterate_lower_bound(start);
                options.set_iterate_upper_bound(end);
                options.fill_cache(false);
                let pairs = snapshot.iterator_cf_opt(family, options, IteratorMode::Start);
                let pairs = pairs
                    .take(limit)
                    .map(|pair| pair.map(|(key, value)| (key.into_vec(), value.into_vec())))
                    .collect::<Result<_, _>>()
                    .map_err(|error| StoreError::new("read", error));
                if answer.send(pairs).is_err() {
                    return;
                }
            }
        });
        let thread = Some(thread.map_err(|error| StoreError::new("read", error))?);
        let frozen = Self { asks: Some(asks), answers, thread };
        frozen.answer()?;
        Ok(frozen)
    }

    fn answer(&self) -> Result<Vec<Pair>, StoreError> {
        let gone = |_| StoreError::new("read", "the thread of the snapshot has ended");
        self.answers.recv().map_err(gone)?
    }
}

impl Frozen for Snapshot {
    fn scan(&mut self, start: &[u8], end: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        if start >= end || limit == 0 {
            return Ok(Vec::new());
        }
        let ask = Ask { start: start.to_vec(), end: end.to_vec(), limit };
        if let Some(asks) = &self.asks {
            // A thread that has ended is told by the missing answer.
            let _ = asks.send(ask);
        }
        self.answer()
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.asks.take();
        if let Some(thread) = self.thread.take() {
            // It has nothing left to do; a panic there has been an answer that did not come.
            let _ = thread.join();
        }
    }
}

//! Idempotent producers and readers: they try one broker, then the other, until they are answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::Rng;
use parking_lot::Mutex;
use protocol::batch::Builder;
use sim::edges;
use tokio::sync::{mpsc, oneshot};

use super::checker::Checker;

/// What a broker is asked.
pub enum Request {
    Produce { index: u32, batch: Bytes, reply: oneshot::Sender<Answer> },
    Fetch { index: u32, from: i64, reply: oneshot::Sender<Fetched> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Acked {
        base: i64,
        repeat: bool,
    },
    Retry,
    /// The sequence does not follow: what came before is lost, by name.
    OutOfOrder,
}

/// Records, where to read on; nothing when the broker does not serve it.
pub type Fetched = Option<(BTreeMap<i64, u64>, i64)>;

/// The brokers' doors, as they are now.
pub type Doors = Arc<Mutex<[Option<mpsc::UnboundedSender<Request>>; 2]>>;

#[derive(Clone)]
pub struct Clients {
    pub doors: Doors,
    pub checker: Arc<Mutex<Checker>>,
    /// Losses declared, by partition: producers may have been forgotten.
    pub losses: Arc<Mutex<BTreeMap<u32, u64>>>,
    pub over: Arc<AtomicBool>,
    pub rng: Rng,
}

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_millis(250);

impl Clients {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    async fn ask<T>(
        &self,
        broker: usize,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Option<T> {
        let door = self.doors.lock()[broker].clone()?;
        let (reply, answer) = oneshot::channel();
        door.send(request(reply)).ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// One producer, one batch at a time, each until it is acknowledged.
    pub async fn produce(self, mut id: u64, index: u32) {
        let (mut sequence, mut values, mut losses) = (0, 0_u64, 0);
        let mut broker = 0;
        while !self.is_over() {
            let count = 1 + self.rng.below(3);
            let mut builder =
                Builder::new().producer(i64::try_from(id).expect("small"), 0, sequence);
            let mut batch_values = Vec::new();
            for _ in 0..count {
                values += 1;
                let value = ((id % 100) << 40) | values;
                let padding = vec![7; usize::try_from(self.rng.below(400)).expect("small")];
                builder.push(1, Some(&value.to_be_bytes()), Some(&padding), &[]);
                batch_values.push(value);
            }
            let batch = builder.build().expect("small");
            let mut first = None;
            let base = loop {
                if self.is_over() {
                    return;
                }
                let sent = batch.clone();
                let answer =
                    self.ask(broker, |reply| Request::Produce { index, batch: sent, reply }).await;
                match answer {
                    Some(Answer::Acked { base, repeat }) => {
                        if repeat && first.is_some_and(|first| first != broker) {
                            edges::met("owners.repeat.elsewhere");
                        }
                        break Some(base);
                    }
                    Some(Answer::OutOfOrder) => {
                        let declared = self.losses.lock().get(&index).copied().unwrap_or(0);
                        if declared == losses {
                            self.checker.lock().fail(format!("{index} has lost producer {id}"));
                            return;
                        }
                        losses = declared;
                        break None;
                    }
                    Some(Answer::Retry) | None => {
                        first = first.or(answer.is_none().then_some(broker));
                        broker = 1 - broker;
                        let pause = 1 + self.rng.below(20);
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                }
            };
            let Some(base) = base else {
                // A new producer: whether the batch stands is for the checker to see.
                (id, sequence) = (id + 100, 0);
                continue;
            };
            sequence += i32::try_from(count).expect("small");
            {
                let mut checker = self.checker.lock();
                for (offset, value) in (base..).zip(&batch_values) {
                    checker.know(index, offset, *value, "acknowledged");
                }
            }
            edges::met("owners.acked");
            if self.rng.one_in(6) {
                self.repeat(index, batch, base, broker).await;
            }
            tokio::time::sleep(Duration::from_millis(self.rng.below(8))).await;
        }
    }

    /// An answered batch again: the same answer.
    async fn repeat(&self, index: u32, batch: Bytes, known: i64, broker: usize) {
        let answer = self.ask(broker, |reply| Request::Produce { index, batch, reply }).await;
        if let Some(Answer::Acked { base, .. }) = answer
            && base != known
        {
            let what = format!("{index}: a repeat of the batch at {known} is answered with {base}");
            self.checker.lock().fail(what);
        }
    }

    /// Reads anywhere, from anybody who answers.
    pub async fn fetch(self, partitions: u32) {
        let mut next = vec![0; usize::try_from(partitions).expect("few")];
        while !self.is_over() {
            tokio::time::sleep(Duration::from_millis(1 + self.rng.below(6))).await;
            let index = u32::try_from(self.rng.below(u64::from(partitions))).expect("few");
            let at = &mut next[usize::try_from(index).expect("few")];
            let from = *at;
            let broker = usize::try_from(self.rng.below(2)).expect("two");
            let answer = self.ask(broker, |reply| Request::Fetch { index, from, reply }).await;
            if let Some(Some((records, on))) = answer {
                let mut checker = self.checker.lock();
                for (offset, value) in records {
                    checker.know(index, offset, value, "read");
                }
                *at = if self.rng.one_in(20) { 0 } else { on };
            }
        }
    }
}

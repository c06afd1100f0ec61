//! Idempotent producers and readers. They outlive the broker; their tasks end with each of its lives.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Clock, Rng};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use parking_lot::Mutex;
use partition::{
    AppendError, Appended, BATCHES_MAX, BatchReader, Gone, Isolation, Origin, Partition, ReadError,
    ReadRequest, Rules, validate,
};
use protocol::batch::{Builder, Header};
use sim::edges::met;
use sim::store::FaultStore;
use storage::Class;

use super::checker::{Checker, PRODUCER_SHIFT};
use super::edges::{handed_over, last_source};

/// Batches in flight of one producer, as many as the broker remembers.
const IN_FLIGHT_MAX: usize = BATCHES_MAX;

/// What a client sees of one life.
#[derive(Clone)]
pub struct Env {
    pub checker: Arc<Mutex<Checker>>,
    pub trace: Arc<Mutex<Vec<String>>>,
    /// The process is dead: nothing that comes from it counts.
    pub dead: Arc<AtomicBool>,
    /// A clean stop has begun.
    pub stopping: Arc<AtomicBool>,
    pub clock: Clock,
    pub life: u64,
    pub rng: Rng,
    pub options: partition::Options,
    pub storage: storage::Storage,
    pub store: FaultStore,
    /// Reads of the log may come with wrong bits: a refused read says nothing then.
    pub flips: bool,
    /// Nobody sends or reads for a while.
    pub quiet: Arc<AtomicBool>,
}

impl Env {
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub fn fail(&self, what: impl Display) {
        if !self.is_dead() {
            self.trace(format_args!("FAILED {what}"));
            self.checker.lock().fail(format!("life {}: {what}", self.life));
        }
    }

    pub fn trace(&self, event: impl Display) {
        let line = format!("{} {:?} {event}", self.life, self.clock.elapsed());
        self.trace.lock().push(line);
    }

    /// Waits while all is quiet.
    pub async fn rest(&self) {
        while self.quiet.load(Ordering::Acquire) && !self.is_over() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_dead() || self.stopping.load(Ordering::Acquire)
    }
}

/// A batch as it was built once; every try sends these bytes.
#[derive(Clone, Debug)]
struct Batch {
    number: u64,
    values: Vec<u64>,
    bytes: Bytes,
}

/// One idempotent producer.
#[derive(Debug)]
pub struct Producer {
    id: u64,
    batches: u64,
    sequence: i32,
    records: u64,
    unacked: VecDeque<Batch>,
    /// Acknowledged, with their offset.
    recent: VecDeque<(Batch, i64)>,
}

impl Producer {
    pub fn new(id: u64) -> Self {
        let (unacked, recent) = (VecDeque::new(), VecDeque::new());
        Self { id, batches: 0, sequence: 0, records: 0, unacked, recent }
    }

    fn build(&mut self, rng: &Rng, now_ms: i64) -> Batch {
        let count = 1 + rng.below(3);
        let padding = if rng.one_in(10) { rng.below(4_000) } else { rng.below(300) };
        let producer = i64::try_from(self.id).expect("small");
        let mut builder = Builder::new().producer(producer, 0, self.sequence);
        let mut values = Vec::new();
        for _ in 0..count {
            self.records += 1;
            let value = (self.id << PRODUCER_SHIFT) | self.records;
            builder.push(now_ms, Some(&value.to_be_bytes()), Some(&body(value, padding)), &[]);
            values.push(value);
        }
        self.batches += 1;
        self.sequence += i32::try_from(count).expect("small");
        let batch = Batch { number: self.batches, values, bytes: builder.build().expect("small") };
        self.unacked.push_back(batch.clone());
        batch
    }

    fn acked(&mut self, number: u64, base: i64) {
        let Some(at) = self.unacked.iter().position(|batch| batch.number == number) else { return };
        let batch = self.unacked.remove(at).expect("just found");
        self.recent.push_back((batch, base));
        if self.recent.len() > BATCHES_MAX {
            self.recent.pop_front();
        }
    }
}

/// The bytes that belong to a value.
fn body(value: u64, padding: u64) -> Vec<u8> {
    let length = usize::try_from(padding).expect("small");
    let mut body = padding.to_be_bytes().to_vec();
    body.resize(8 + length, value.to_le_bytes()[0]);
    body
}

type Waiting = FuturesUnordered<BoxFuture<'static, (Batch, Told, Result<(), Gone>)>>;

/// What is kept of an answer while it waits for durability.
#[derive(Clone, Copy, Debug)]
struct Told {
    base: i64,
    duplicate: bool,
}

/// A producer's task in one life.
pub struct Sender {
    env: Env,
    index: u32,
    partition: Arc<Partition>,
    producer: Arc<Mutex<Producer>>,
    waiting: Waiting,
}

impl Sender {
    pub fn new(
        env: Env,
        index: u32,
        partition: Arc<Partition>,
        producer: Arc<Mutex<Producer>>,
    ) -> Self {
        Self { env, index, partition, producer, waiting: FuturesUnordered::new() }
    }

    /// Sends again what was not answered, then works until the life is over.
    pub async fn run(mut self) {
        let backlog: Vec<Batch> = self.producer.lock().unacked.iter().cloned().collect();
        for batch in backlog {
            self.send(&batch, None).await;
        }
        self.env.storage.kick();
        loop {
            let micros = match self.env.rng.below(12) {
                0 => 20_000,
                1..=3 => 5_000,
                _ => 1_500,
            };
            let quiet = self.env.quiet.load(Ordering::Acquire);
            let micros = if quiet { 200_000 } else { self.env.rng.below(micros) };
            let pause = tokio::time::sleep(Duration::from_micros(micros));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    Some((batch, told, result)) = self.waiting.next(), if !self.waiting.is_empty() => {
                        self.settle(&batch, told, result);
                    }
                    () = &mut pause => break,
                }
            }
            if self.env.quiet.load(Ordering::Acquire) && !self.env.is_over() {
                continue;
            }
            if self.env.is_over() {
                break;
            }
            self.act().await;
        }
        // Part of the last requests may not have been sent on its way.
        self.env.storage.kick();
        while let Some((batch, told, result)) = self.waiting.next().await {
            self.settle(&batch, told, result);
        }
    }

    async fn act(&mut self) {
        let room = IN_FLIGHT_MAX - self.producer.lock().unacked.len();
        match self.env.rng.below(12) {
            0..=5 if room > 0 => {
                let batch = self.build();
                self.send(&batch, None).await;
            }
            6 | 7 => {
                if let Some(batch) = self.some_unacked() {
                    self.send(&batch, Some(None)).await;
                }
            }
            8 if room >= 2 && !self.producer.lock().recent.is_empty() => self.reorder().await,
            9 => self.repeat_answered().await,
            _ => return,
        }
        if !self.env.rng.one_in(5) {
            self.env.storage.kick();
        }
    }

    fn build(&self) -> Batch {
        self.producer.lock().build(&self.env.rng, self.env.clock.now_ms())
    }

    fn some_unacked(&self) -> Option<Batch> {
        let producer = self.producer.lock();
        let at = self.env.rng.below(producer.unacked.len() as u64);
        producer.unacked.get(usize::try_from(at).expect("small")).cloned()
    }

    /// The later batch comes first: it has to be refused.
    async fn reorder(&mut self) {
        let (first, second) = (self.build(), self.build());
        if let Ok(checked) = self.check(&second) {
            match self.partition.append(&checked, Origin::Client) {
                Err(AppendError::OutOfOrderSequence { .. } | AppendError::Gone(_)) => {}
                other => self.env.fail(format_args!("a gap in the sequence gave {other:?}")),
            }
        }
        self.send(&first, None).await;
        self.send(&second, None).await;
    }

    async fn repeat_answered(&mut self) {
        let known = {
            let producer = self.producer.lock();
            let at = self.env.rng.below(producer.recent.len() as u64);
            let known = producer.recent.get(usize::try_from(at).expect("small")).cloned();
            // Only so many are remembered.
            known.filter(|(batch, _)| batch.number + BATCHES_MAX as u64 > producer.batches)
        };
        if let Some((batch, base)) = known {
            self.send(&batch, Some(Some(base))).await;
        }
    }

    fn check(&self, batch: &Batch) -> Result<partition::Checked, ()> {
        let (config, now_ms) = (self.partition.config(), self.env.clock.now_ms());
        let rules = Rules::produce(&config, &self.env.options, 9, false, now_ms);
        validate(&batch.bytes, &rules).map_err(|reject| {
            self.env.fail(format_args!("a good batch was refused: {reject}"));
        })
    }

    /// `repeat`: it was sent in this life or answered before, at the offset inside.
    async fn send(&mut self, batch: &Batch, repeat: Option<Option<i64>>) {
        let Ok(checked) = self.check(batch) else { return };
        while !self.env.is_dead() {
            let result = self.partition.append(&checked, Origin::Client);
            match result {
                Ok(appended) => return self.queued(batch, appended, repeat),
                Err(error) if error.waits_for_space() => {
                    // Looks again by itself: the order in which waiters of one signal wake is not seeded.
                    self.env.storage.kick();
                    met(if self.env.store.is_out() { "log.full.in.outage" } else { "log.full" });
                    let pause = Duration::from_micros(500 + self.env.rng.below(5_000));
                    tokio::time::sleep(pause).await;
                }
                Err(AppendError::Gone(_)) if self.env.is_over() => return,
                Err(error) => return self.env.fail(error),
            }
        }
    }

    fn queued(&mut self, batch: &Batch, appended: Appended, repeat: Option<Option<i64>>) {
        let told = Told { base: appended.base_offset, duplicate: appended.duplicate };
        self.env.trace(format_args!("sent {} {:x} {told:?}", self.index, batch.values[0]));
        if repeat.is_some() && !told.duplicate {
            self.env.fail(format_args!("a repeat of {batch:?} was appended once more"));
        }
        if repeat.flatten().is_some_and(|base| base != told.base) {
            self.env.fail(format_args!("{repeat:?} was answered, the repeat at {}", told.base));
        }
        let batch = batch.clone();
        self.waiting.push(appended.done.map(move |result| (batch, told, result)).boxed());
    }

    fn settle(&self, batch: &Batch, told: Told, result: Result<(), Gone>) {
        match result {
            _ if self.env.is_dead() => {}
            Ok(()) => {
                self.env.trace(format_args!("acked {} {:x} {told:?}", self.index, batch.values[0]));
                self.producer.lock().acked(batch.number, told.base);
                let mut checker = self.env.checker.lock();
                for (offset, value) in (told.base..).zip(&batch.values) {
                    checker.know(self.index, offset, *value, "acknowledged");
                }
                checker.acked += batch.values.len() as u64;
                checker.duplicates += u64::from(told.duplicate);
            }
            Err(_) if self.env.is_over() => {}
            Err(gone) => self.env.fail(gone),
        }
    }
}

/// A reader's task in one life.
pub async fn read_now_and_then(env: Env, partitions: Vec<Arc<Partition>>) {
    while !env.is_over() {
        let pause = Duration::from_micros(env.rng.below(20_000));
        tokio::time::sleep(pause).await;
        env.rest().await;
        let index = u32::try_from(env.rng.below(partitions.len() as u64)).expect("small");
        let partition = &partitions[usize::try_from(index).expect("small")];
        let high = partition.offsets().high_watermark;
        if env.is_over() {
            return;
        }
        env.checker.lock().high_watermark(index, high);
        let back = if env.rng.one_in(2) { 20 } else { high.unsigned_abs() + 1 };
        let from = high - i64::try_from(env.rng.below(back)).expect("small");
        match read(partition, from.max(0), 1 + env.rng.below(20_000)).await {
            Ok((records, _)) if !env.is_over() => {
                env.trace(format_args!("read {index} {from} {}", records.len()));
                let mut checker = env.checker.lock();
                checker.read += records.len() as u64;
                for (offset, value) in records {
                    checker.know(index, offset, value, "read");
                }
            }
            Err(Failure::Broken(what)) if !env.is_over() && !env.flips => env.fail(what),
            _ => {}
        }
    }
}

/// A reader that goes on where it stopped, falls behind and catches up, from one tier to the next.
pub async fn follow(env: Env, partition: Arc<Partition>) {
    let (index, mut at, mut former) = (partition.id().index, 0, "");
    while !env.is_over() {
        let micros = if env.rng.one_in(12) { 400_000 } else { 8_000 };
        tokio::time::sleep(Duration::from_micros(env.rng.below(micros))).await;
        env.rest().await;
        for _ in 0..env.rng.below(8) {
            let _other = last_source();
            match read(&partition, at, 1 + env.rng.below(20_000)).await {
                Ok((records, next)) if !env.is_over() => {
                    let first = records.keys().next().copied().unwrap_or(at);
                    if first != at || next < at {
                        return env.fail(format_args!("{index}: reading on at {at} gave {first}"));
                    }
                    if let Some(source) = last_source() {
                        handed_over(former, source);
                        former = source;
                    }
                    let mut checker = env.checker.lock();
                    checker.read += records.len() as u64;
                    for (expected, (offset, value)) in (at..).zip(records) {
                        if offset != expected {
                            checker.fail(format!("{index}: {expected} was passed over"));
                        }
                        checker.know(index, offset, value, "read");
                    }
                    at = next;
                }
                Err(Failure::Broken(what)) if !env.is_over() && !env.flips => {
                    return env.fail(what);
                }
                _ => break,
            }
        }
    }
}

/// Why a read gave nothing.
#[derive(Debug)]
pub enum Failure {
    Later,
    Broken(String),
}

/// The records from `from` on and where to read on.
pub async fn read(
    partition: &Arc<Partition>,
    from: i64,
    bytes_max: u64,
) -> Result<(BTreeMap<i64, u64>, i64), Failure> {
    let request = ReadRequest {
        offset: from,
        bytes_max,
        at_least_one: true,
        isolation: Isolation::ReadUncommitted,
        class: Class::CatchUp,
    };
    let batches = partition.read(request).await.map_err(|error| match error {
        ReadError::Unavailable { .. } | ReadError::Gone(_) => Failure::Later,
        other => Failure::Broken(format!("{:?} cannot be read: {other}", partition.id())),
    })?;
    let mut rest = Bytes::from(batches.slices.concat());
    let mut records = BTreeMap::new();
    while !rest.is_empty() {
        let header = Header::parse(&rest).map_err(|error| Failure::Broken(error.to_string()))?;
        let batch = rest.split_to(header.size());
        let reader = BatchReader::open(&batch).map_err(|e| Failure::Broken(e.to_string()))?;
        for record in reader.records() {
            let record = record.map_err(|error| Failure::Broken(error.to_string()))?;
            let key = record.key.and_then(|key| key.try_into().ok()).map(u64::from_be_bytes);
            let value = key.ok_or_else(|| Failure::Broken("a foreign record".to_owned()))?;
            let bytes = record.value.unwrap_or_default();
            let padding = bytes.first_chunk().map_or(0, |head| u64::from_be_bytes(*head));
            if padding > 10_000 || bytes != body(value, padding) {
                return Err(Failure::Broken(format!("the bytes of {value:x} have changed")));
            }
            records.insert(record.offset, value);
        }
    }
    Ok((records, batches.next))
}

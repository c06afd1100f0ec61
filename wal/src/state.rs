//! The log behind its one mutex: open group, queue, in-flight window, and the events to deliver.
//!
//! ```text
//!   append -> open group -> queue (closed, placed) -> window (sealed, written) -> durable, in LSN order -> listener
//! ```
//! The disk is submitted to under the mutex (it never answers from within). The listener is called without it, in
//! order, by whichever completion finds nobody else delivering; appends never deliver, because their callers hold
//! locks of the layers above.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use common::{Lsn, WalEpoch, failpoint};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use crate::builder::{Builder, Closed};
use crate::disk::Disk;
use crate::error::Error;
use crate::format::{BLOCK, FRAME_SIZE, HEADER_SIZE, Stamp};
use crate::group::Group;
use crate::log::Listener;
use crate::metrics::{Metrics, level};
use crate::options::{Geometry, Options, WINDOW_GROUPS_MAX};
use crate::pool::Pool;
use crate::segments::{Job, Segments};

pub(crate) struct Inner {
    pub disk: Arc<dyn Disk>,
    pub stamp: Stamp,
    pub options: Options,
    pub geometry: Geometry,
    pub epoch: WalEpoch,
    /// Epochs with their first LSN, this one last.
    pub epochs: Vec<(WalEpoch, Lsn)>,
    pub pool: Arc<Pool>,
    pub listener: Arc<dyn Listener>,
    pub metrics: Metrics,
    pub durable: watch::Sender<Lsn>,
    pub idle: Notify,
    pub reads: Semaphore,
    pub runtime: tokio::runtime::Handle,
    // Held for the copy of frames and for submissions, never over an await or a callback other than `sealed`.
    pub state: Mutex<State>,
}

pub(crate) struct State {
    pub segments: Segments,
    /// Where the next group begins; the open group begins here.
    pub cursor: u64,
    pub open: Option<Builder>,
    pub queue: VecDeque<Closed>,
    pub queued_bytes: u64,
    /// The window: submitted groups from the oldest that is not durable on, written or not.
    flights: VecDeque<Flight>,
    /// Writes that have not ended.
    in_flight: usize,
    /// Bytes of `flights`.
    window_bytes: u64,
    /// Everything below is durable.
    pub durable: u64,
    pub trimmed: u64,
    kicked: bool,
    link: u32,
    syncs: Syncs,
    /// End of the last submitted group with frames.
    pub data_end: u64,
    /// Highest `acked_lsn` submitted.
    pub published: u64,
    pub submits: u64,
    pub idle_armed: bool,
    pub refused: bool,
    preparing: bool,
    pub failed: bool,
    pub closed: bool,
    events: VecDeque<Event>,
    delivering: bool,
}

struct Flight {
    started: Instant,
    group: Arc<Group>,
    bytes: u64,
    done: bool,
}

enum Event {
    Durable(Arc<Group>),
    Failed(Error),
    Space,
}

impl State {
    /// True while the disk works on a segment.
    pub fn is_preparing(&self) -> bool {
        self.preparing && !self.failed
    }

    pub fn new(segments: Segments, cursor: u64, trimmed: u64, link: u32) -> Self {
        Self {
            segments,
            cursor,
            open: None,
            queue: VecDeque::new(),
            queued_bytes: 0,
            flights: VecDeque::new(),
            in_flight: 0,
            window_bytes: 0,
            durable: cursor,
            trimmed,
            kicked: false,
            link,
            syncs: Syncs::default(),
            data_end: cursor,
            published: 0,
            submits: 0,
            idle_armed: false,
            refused: false,
            preparing: false,
            failed: false,
            closed: false,
            events: VecDeque::new(),
            delivering: false,
        }
    }

    /// Closes the open group, if there is one: its place is fixed and the cursor stands behind it.
    pub fn close_open(&mut self) {
        if let Some(open) = self.open.take() {
            self.kicked = false;
            self.enqueue(Closed::of(open));
        }
    }

    pub fn enqueue(&mut self, closed: Closed) {
        self.cursor = closed.end;
        self.queued_bytes += closed.bytes;
        self.queue.push_back(closed);
    }

    /// The oldest group of the window is durable.
    fn pass_first(&mut self) {
        let flight = self.flights.pop_front().expect("the caller has looked");
        self.window_bytes -= flight.bytes;
        self.durable = flight.group.end.0;
        self.events.push_back(Event::Durable(flight.group));
    }

    /// True when the newest write has been under way for longer than `patience`: a busy machine or a stalled disk.
    fn is_late(&self, patience: Duration) -> bool {
        let newest = self.flights.back();
        newest.is_some_and(|flight| flight.started.elapsed() > patience)
    }

    /// True when nothing is open, queued or in flight.
    pub fn is_drained(&self) -> bool {
        self.open.is_none() && self.queue.is_empty() && self.in_flight == 0
    }

    /// True when durable frames are not yet covered by a published position, and none is on its way to become so.
    pub fn must_publish(&self) -> bool {
        self.is_drained() && self.data_end > self.published && self.durable >= self.data_end
    }
}

/// Writes after which the fastest is looked for anew.
const SYNCS_SEEN: u32 = 64;

/// How long the fastest of the last writes took: what the medium can do, however loaded the machine is.
#[derive(Debug, Default)]
struct Syncs {
    fastest: Option<Duration>,
    before: Option<Duration>,
    seen: u32,
}

impl Syncs {
    fn note(&mut self, took: Duration) {
        self.fastest = Some(self.fastest.map_or(took, |fastest| fastest.min(took)));
        self.seen += 1;
        if self.seen == SYNCS_SEEN {
            (self.before, self.fastest, self.seen) = (self.fastest, None, 0);
        }
    }

    /// Zero while nothing is known.
    fn fastest(&self) -> Duration {
        self.before.into_iter().chain(self.fastest).min().unwrap_or_default()
    }
}

impl Inner {
    /// Submits closed groups, and the open one after a kick, while the window has room.
    pub fn pump(self: &Arc<Self>, state: &mut State) {
        // The window ends with the oldest group that is not durable, also when later ones are written already:
        // recovery takes no more valid groups behind a hole for an unacknowledged tail.
        while !state.failed && state.flights.len() < WINDOW_GROUPS_MAX {
            if state.queue.is_empty() && state.kicked && self.may_close(state) {
                state.close_open();
            }
            let Some(next) = state.queue.front() else { break };
            let bytes = state.window_bytes + next.bytes;
            if !state.flights.is_empty() && bytes > self.options.window_bytes_max {
                break;
            }
            let next = state.queue.pop_front().expect("looked at above");
            state.queued_bytes -= next.bytes;
            self.submit(state, next);
        }
        self.prepare(state);
    }

    /// True when the open group need not gather more. While a write of a fast medium is under way, what arrives waits for
    /// its end: a synced write costs the processor more than it costs the disk, and the answer comes in the order of the
    /// log anyway. A slow medium, or enough bytes, is worth a write beside it.
    fn may_close(&self, state: &State) -> bool {
        let Some(open) = &state.open else { return true };
        state.flights.is_empty()
            || open.payload_bytes() >= self.options.gather_bytes_max
            || state.syncs.fastest() > self.options.gather_sync_max
            || state.is_late(self.options.gather_sync_max)
    }

    pub fn kick(self: &Arc<Self>) {
        let early = {
            let mut state = self.state.lock();
            state.kicked = state.open.is_some();
            self.pump(&mut state);
            failpoint::planted("ack-before-sync") && self.acknowledge_early(&mut state)
        };
        if early {
            self.deliver();
        }
    }

    /// The planted bug: what is in flight counts as durable.
    fn acknowledge_early(&self, state: &mut State) -> bool {
        while !state.flights.is_empty() {
            state.pass_first();
        }
        !state.events.is_empty()
    }

    fn submit(self: &Arc<Self>, state: &mut State, closed: Closed) {
        let acked = Lsn(state.durable);
        let (bytes, end, roll) = (closed.bytes, closed.end, closed.is_roll());
        let (group, link) = closed.seal(self.stamp, self.epoch, acked, state.link, &self.pool);
        state.link = link;
        let group = Arc::new(group);
        if !group.frames.is_empty() {
            state.data_end = end;
        }
        state.published = state.published.max(acked.0);
        state.submits += 1;
        state.in_flight += 1;
        state.window_bytes += bytes;
        self.count(&group, bytes, state);
        self.listener.sealed(group.clone());
        let first = group.first;
        let (segment, at, room) =
            state.segments.locate(first.0).expect("a group is placed in a live segment");
        assert!(room >= bytes && (!roll || first.0 + room == end), "a group stays in its segment");
        let data = group.bytes.clone().expect("a sealed group has its buffer");
        let started = Instant::now();
        state.flights.push_back(Flight { group, bytes, started, done: false });
        let inner = self.clone();
        let done = move |result| inner.written(first, bytes, started, result);
        self.disk.write(segment, at, data, Box::new(done));
    }

    fn count(&self, group: &Group, bytes: u64, state: &State) {
        let metrics = &self.metrics;
        let payload: u64 =
            group.frames.iter().map(|frame| u64::from(frame.range.end - frame.range.start)).sum();
        let table = (HEADER_SIZE + group.frames.len() * FRAME_SIZE) as u64;
        metrics.groups.inc();
        metrics.frames.inc_by(group.frames.len() as u64);
        metrics.written_bytes.inc_by(bytes);
        metrics.padding_bytes.inc_by(bytes.saturating_sub(payload + table));
        #[expect(clippy::cast_precision_loss, reason = "group sizes are far below 2^52")]
        metrics.group_bytes.observe(bytes as f64);
        metrics.in_flight.set(level(state.in_flight as u64));
        self.count_occupancy(state);
    }

    pub fn count_occupancy(&self, state: &State) {
        let (live, free) = state.segments.counts();
        self.metrics.segments.set(level((live + free) as u64));
        self.metrics.occupancy_bytes.set(level(state.cursor.saturating_sub(state.trimmed)));
    }

    /// A write has ended.
    fn written(self: &Arc<Self>, first: Lsn, bytes: u64, started: Instant, result: io::Result<()>) {
        let took = Instant::now().saturating_duration_since(started);
        if result.is_ok() {
            self.metrics.sync_seconds.observe(took.as_secs_f64());
            failpoint::hit("wal.group.written");
        }
        let mut state = self.state.lock();
        state.syncs.note(took);
        if state.failed {
            return;
        }
        state.in_flight -= 1;
        self.metrics.in_flight.set(level(state.in_flight as u64));
        match result {
            Err(source) => {
                self.metrics.write_errors.inc();
                self.fail(&mut state, Error::Write { lsn: first, bytes, source });
            }
            Ok(()) => {
                if let Some(flight) = state.flights.iter_mut().find(|f| f.group.first == first) {
                    flight.done = true;
                }
                while state.flights.front().is_some_and(|flight| flight.done) {
                    state.pass_first();
                }
                self.pump(&mut state);
                self.offer_space(&mut state);
                if state.must_publish() && !state.idle_armed {
                    state.idle_armed = true;
                    self.idle.notify_one();
                }
            }
        }
        drop(state);
        self.deliver();
    }

    /// Nothing is acknowledged from here on.
    fn fail(&self, state: &mut State, error: Error) {
        state.failed = true;
        state.events.clear();
        state.events.push_back(Event::Failed(error));
    }

    /// Tells appenders that were refused to try again, if one was and there is a chance.
    pub fn offer_space(&self, state: &mut State) {
        let queue_has_room = state.queued_bytes < self.options.queue_bytes_max;
        if state.refused && queue_has_room && state.segments.room(state.cursor) >= BLOCK {
            state.refused = false;
            state.events.push_back(Event::Space);
        }
    }

    /// Calls the listener for what has happened, in order, unless another thread is doing so and will go on.
    pub fn deliver(&self) {
        let mut state = self.state.lock();
        if state.delivering {
            return;
        }
        state.delivering = true;
        while let Some(event) = state.events.pop_front() {
            drop(state);
            match event {
                Event::Durable(group) => {
                    let durable = group.end;
                    self.listener.durable(&group, durable);
                    self.durable.send_replace(durable);
                }
                Event::Failed(error) => {
                    tracing::error!(%error, "write-ahead log failed");
                    self.listener.failed(&error);
                    // Wakes who waits for a position that will not come.
                    self.durable.send_modify(|_| {});
                }
                Event::Space => self.listener.space(),
            }
            state = self.state.lock();
        }
        state.delivering = false;
    }

    /// Starts the next step of preparation, if there is one and none is running.
    pub fn prepare(self: &Arc<Self>, state: &mut State) {
        if state.preparing || state.failed || state.closed {
            return;
        }
        let ready_max = self.options.ready_segments_max;
        let Some(job) = state.segments.next_job(state.cursor, self.geometry, ready_max) else {
            return;
        };
        state.preparing = true;
        let inner = self.clone();
        submit_job(&*self.disk, job, move |result| inner.prepared(job, result));
    }

    fn prepared(self: &Arc<Self>, job: Job, result: io::Result<()>) {
        let mut state = self.state.lock();
        match result {
            Ok(()) => {
                state.segments.apply(job);
                state.preparing = false;
                if matches!(job, Job::Reuse { .. }) {
                    self.metrics.segments_reused.inc();
                }
                self.count_occupancy(&state);
                self.prepare(&mut state);
                self.offer_space(&mut state);
            }
            Err(error) if is_lack_of_space(&error) => {
                self.metrics.prepare_errors.inc();
                tracing::warn!(segment = job.number(), %error, "no space for a log segment");
                self.runtime.spawn(retry(Arc::downgrade(self), self.options.prepare_backoff));
            }
            Err(source) => {
                self.metrics.write_errors.inc();
                self.fail(&mut state, Error::Prepare { segment: job.number(), source });
            }
        }
        drop(state);
        self.deliver();
    }
}

/// Ends after one try: the next one starts another.
async fn retry(inner: Weak<Inner>, pause: Duration) {
    tokio::time::sleep(pause).await;
    if let Some(inner) = inner.upgrade() {
        let mut state = inner.state.lock();
        state.preparing = false;
        inner.prepare(&mut state);
    }
}

pub(crate) fn submit_job(
    disk: &dyn Disk,
    job: Job,
    done: impl FnOnce(io::Result<()>) + Send + 'static,
) {
    match job {
        Job::Create { number, len } => disk.create(number, len, Box::new(done)),
        Job::Reuse { from, to, .. } => disk.reuse(from, to, Box::new(done)),
        Job::Remove { number } => disk.remove(number, Box::new(done)),
    }
}

pub(crate) fn is_lack_of_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

//! The open log.

use std::sync::Arc;

use bytes::Bytes;
use common::metrics::Registry;
use common::{Lsn, WalEpoch};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

use crate::append::Position;
use crate::builder::{Closed, staging_bytes};
use crate::disk::{Disk, wait};
use crate::error::{AppendError, Error, ReadError, RecoverError};
use crate::format::BLOCK;
use crate::group::{Frame, Group};
use crate::idle;
use crate::metrics::{Metrics, level};
use crate::options::Options;
use crate::pool::Pool;
use crate::recover::{self, Identity, Recovered};
use crate::state::{Inner, State, is_lack_of_space, submit_job};

/// Hears what happens to groups. Calls are short and do not block.
pub trait Listener: Send + Sync + 'static {
    /// A group is about to be written. In LSN order, under the log's mutex, often on an appender's thread: take only
    /// leaf locks and never call the log from here.
    fn sealed(&self, group: Arc<Group>);

    /// `group` and everything before it is durable; `durable` is its end. In LSN order, each group once, never after
    /// [`Self::failed`], without the log's mutex. Called on a thread of the disk or of a caller of [`Wal::trim`], never
    /// from within an append.
    fn durable(&self, group: &Arc<Group>, durable: Lsn);

    /// A write or sync failed: the process must end. Nothing is acknowledged from here on.
    fn failed(&self, error: &Error);

    /// Appends that were refused with [`AppendError::Full`] may be tried again.
    fn space(&self);
}

/// How full the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Bytes that all segments may take together.
    pub capacity: u64,
    /// Bytes from the trimmed position to the end.
    pub bytes: u64,
    /// Everything below may be forgotten.
    pub trimmed: Lsn,
    /// Everything below is durable.
    pub durable: Lsn,
    /// Where the next group begins.
    pub end: Lsn,
    /// Appends are refused because the disk has too many bytes to write, not for lack of capacity: soon over.
    pub queue_full: bool,
    /// Segments in use or ready.
    pub segments_live: usize,
    /// Segments that wait for reuse.
    pub segments_free: usize,
}

/// How often a close looks whether a segment is still being prepared.
const PREPARING_POLL: std::time::Duration = std::time::Duration::from_millis(1);

/// A write-ahead log, open for writing under one epoch. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct Wal {
    inner: Arc<Inner>,
    _task: Arc<Task>,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Wal {
    /// Reads the log above `identity.committed` and decides where it ends. Writes nothing, except that a log which was
    /// never opened (`identity.fresh`) gets its first segment here, before metadata records its first epoch.
    ///
    /// # Errors
    /// [`RecoverError`] names what is wrong; the medium is as it was.
    pub async fn recover(
        disk: Arc<dyn Disk>,
        options: &Options,
        identity: &Identity,
    ) -> Result<Recovered, RecoverError> {
        recover::recover(disk, options, identity).await
    }

    /// Opens for writing under `epoch`, whose first LSN metadata has recorded as `recovered.end()`. Returns once an
    /// empty group of the new epoch is durable; a full log opens without it and waits for a trim.
    ///
    /// # Errors
    /// [`Error`] when a segment or that group cannot be written.
    pub async fn start(
        mut recovered: Recovered,
        epoch: WalEpoch,
        listener: Arc<dyn Listener>,
        registry: &Registry,
    ) -> Result<Self, Error> {
        let end = recovered.end;
        first_segment(&mut recovered, end.0).await?;
        let metrics = Metrics::register(registry);
        metrics.capacity_bytes.set(level(recovered.geometry.capacity));
        let staging = staging_bytes(recovered.geometry.group_max);
        let mut epochs = recovered.epochs;
        epochs.push((epoch, end));
        let state = State::new(recovered.segments, end.0, recovered.committed.0, recovered.link);
        let inner = Arc::new(Inner {
            disk: recovered.disk,
            stamp: recovered.stamp,
            geometry: recovered.geometry,
            epoch,
            epochs,
            pool: Pool::new(
                staging,
                recovered.options.pool_buffers_max,
                recovered.options.budget.clone(),
                metrics.clone(),
            ),
            listener,
            metrics,
            durable: watch::Sender::new(end),
            idle: Notify::new(),
            reads: Semaphore::new(recovered.options.reads_max),
            runtime: tokio::runtime::Handle::current(),
            state: Mutex::new(state),
            options: recovered.options,
        });
        let task = tokio::spawn(idle::run(Arc::downgrade(&inner), inner.options.quiet));
        let wal = Self { inner, _task: Arc::new(Task(task)) };
        wal.open_epoch().await?;
        Ok(wal)
    }

    /// Writes the first group of the epoch, without frames, if there is a block for it.
    async fn open_epoch(&self) -> Result<(), Error> {
        let end = {
            let mut state = self.inner.state.lock();
            let first = state.cursor;
            if state.segments.room(first) < BLOCK {
                tracing::warn!(end = first, "write-ahead log is full; it goes on after an upload");
                self.inner.prepare(&mut state);
                return Ok(());
            }
            state.enqueue(Closed::empty(first));
            self.inner.pump(&mut state);
            Lsn(state.cursor)
        };
        if self.wait_for(end).await {
            return Ok(());
        }
        let source = std::io::Error::other("the first write of the epoch failed");
        Err(Error::Write { lsn: end, bytes: BLOCK, source })
    }

    /// Appends frames in order, all or none, to the open group or to it and the next ones, and returns the position of
    /// the last. Nothing is written before [`Self::kick`] or a full group. Does not block.
    ///
    /// # Errors
    /// [`AppendError`]; then no frame was taken.
    pub fn append(&self, frames: &[Frame<'_>]) -> Result<Position, AppendError> {
        self.inner.append(frames)
    }

    /// Submits the open group now, or when the in-flight window has room.
    pub fn kick(&self) {
        self.inner.kick();
    }

    /// Everything below is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn(self.inner.state.lock().durable)
    }

    /// The durable position, changing after the listener has heard of it.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Lsn> {
        self.inner.durable.subscribe()
    }

    /// The largest payload of a frame that this log takes, in bytes.
    #[must_use]
    pub fn frame_bytes_max(&self) -> u64 {
        self.inner.frame_bytes_max()
    }

    /// Reads one payload of the durable group at `group_first` back from the disk, checked.
    ///
    /// # Errors
    /// [`ReadError::Moved`] when the log no longer holds the group.
    pub async fn read(&self, group_first: Lsn, frame: u32) -> Result<Bytes, ReadError> {
        self.inner.read(group_first, frame).await
    }

    /// Reads the durable group at `group_first` back from the disk, checked.
    ///
    /// # Errors
    /// [`ReadError::Moved`] when the log no longer holds the group.
    pub async fn read_group(&self, group_first: Lsn) -> Result<Arc<Group>, ReadError> {
        self.inner.read_group(group_first).await.map(Arc::new)
    }

    /// Every frame below `committed` is in objects: segments that lie wholly below are reused. Never backwards.
    pub fn trim(&self, committed: Lsn) {
        {
            let mut state = self.inner.state.lock();
            let committed = committed.0.min(state.durable);
            state.trimmed = state.trimmed.max(committed);
            let cursor = state.cursor;
            state.segments.trim(committed, cursor);
            self.inner.prepare(&mut state);
            self.inner.offer_space(&mut state);
            self.inner.count_occupancy(&state);
        }
        self.inner.deliver();
    }

    /// How full the log is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let state = self.inner.state.lock();
        let (segments_live, segments_free) = state.segments.counts();
        Occupancy {
            capacity: self.inner.geometry.capacity,
            bytes: state.cursor.saturating_sub(state.trimmed),
            trimmed: Lsn(state.trimmed),
            durable: Lsn(state.durable),
            end: Lsn(state.cursor),
            queue_full: state.queued_bytes >= self.inner.options.queue_bytes_max,
            segments_live,
            segments_free,
        }
    }

    /// Refuses appends from now on, makes durable what was taken, publishes the last position, and waits for a segment
    /// that is being prepared: the directory is left alone afterwards.
    pub async fn close(&self) {
        let end = {
            let mut state = self.inner.state.lock();
            state.closed = true;
            state.close_open();
            self.inner.pump(&mut state);
            Lsn(state.cursor)
        };
        if !self.wait_for(end).await {
            return;
        }
        let end = {
            let mut state = self.inner.state.lock();
            self.inner.publish(&mut state);
            Lsn(state.cursor)
        };
        self.wait_for(end).await;
        while self.inner.state.lock().is_preparing() {
            tokio::time::sleep(PREPARING_POLL).await;
        }
    }

    /// Waits until `end` is durable; false when the log fails before.
    async fn wait_for(&self, end: Lsn) -> bool {
        let mut durable = self.subscribe();
        loop {
            if *durable.borrow_and_update() >= end {
                return true;
            }
            if self.inner.state.lock().failed || durable.changed().await.is_err() {
                return false;
            }
        }
    }
}

/// Tries to have the segment that holds the end. A log that is full, or whose disk is, opens all the same: uploads make
/// the room that appends wait for.
async fn first_segment(recovered: &mut Recovered, end: u64) -> Result<(), Error> {
    while recovered.segments.locate(end).is_none() {
        let Some(job) = recovered.segments.next_job(end, recovered.geometry, 1) else { break };
        let disk: &Arc<dyn Disk> = &recovered.disk;
        match wait(|done| submit_job(&**disk, job, done)).await {
            Ok(()) => recovered.segments.apply(job),
            Err(error) if is_lack_of_space(&error) => break,
            Err(source) => return Err(Error::Prepare { segment: job.number(), source }),
        }
    }
    Ok(())
}

//! What the log tells the storage: groups become durable, the disk fails, there is room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Budget, Clock, Lsn, PartitionId, Shutdown, StreamId};
use tokio::sync::{Notify, watch};

use crate::metrics::Metrics;
use crate::options::{OnFatal, Options};
use crate::streams::{Run, Table};
use crate::tail::{Evicted, Slot, Tail, TailGroup};
use crate::types::DurableListener;

/// The part of a storage that the log calls back: everything but the log itself.
pub(crate) struct Core {
    pub table: Table,
    pub tail: Tail,
    pub budget: Budget,
    pub clock: Clock,
    pub metrics: Metrics,
    pub on_fatal: OnFatal,
    pub closed: AtomicBool,
    /// Cancelled when nothing is uploaded any more.
    pub stopped: Shutdown,
    /// Raised whenever the log has room again.
    pub space: watch::Sender<u64>,
    /// Everything below is durable.
    pub durable: watch::Sender<Lsn>,
    /// Everything below is in committed objects, or needs no object.
    pub covered: watch::Sender<Lsn>,
    /// An upload of everything at or below this was asked for; 0 is nothing, else LSN + 1.
    pub forced: AtomicU64,
    /// Wakes the uploader.
    pub upload: Notify,
    pub upload_bytes_max: u64,
}

impl Core {
    pub fn new(
        budget: Budget,
        clock: Clock,
        metrics: Metrics,
        on_fatal: OnFatal,
        options: &Options,
        committed: Lsn,
    ) -> Self {
        Self {
            table: Table::default(),
            tail: Tail::new(budget.clone(), options.tail_bytes_max, committed),
            budget,
            clock,
            metrics,
            on_fatal,
            closed: AtomicBool::new(false),
            stopped: Shutdown::new(),
            space: watch::Sender::new(0),
            durable: watch::Sender::new(committed),
            covered: watch::Sender::new(committed),
            forced: AtomicU64::new(0),
            upload: Notify::new(),
            upload_bytes_max: options.upload_bytes_max,
        }
    }

    /// Takes over a group that recovery found, before the log is open. Its buffer may not have been kept.
    pub fn recovered(&self, group: &Arc<wal::Group>) {
        self.index(group);
    }

    /// Puts a durable group into the tail cache and its entries into their streams. Returns the listeners to call.
    fn index(&self, group: &Arc<wal::Group>) -> Vec<Arc<dyn DurableListener>> {
        let tail = Arc::new(TailGroup::new(group.clone(), &self.budget));
        let runs = tail.runs();
        let slot = Slot {
            end: group.end(),
            payload_bytes: runs.iter().map(|(_, run)| run.bytes).sum(),
            frames: tail.len(),
            streams: u32::try_from(runs.len()).expect("a group has no more streams than frames"),
            at: self.clock.elapsed(),
            cached: (group.has_payloads() && tail.len() > 0).then_some(tail),
        };
        // Cache first, streams after: who sees the new end finds the bytes.
        let evicted = self.tail.push(group.first(), slot);
        let listeners = self.push_runs(runs);
        let crossed = evicted.pending_bytes.start < self.upload_bytes_max
            && evicted.pending_bytes.end >= self.upload_bytes_max;
        self.forget(&evicted);
        self.metrics.pending(evicted.pending_bytes.end);
        self.metrics.tail_bytes(evicted.cached_bytes);
        self.metrics.index_bytes(self.tail.index_bytes());
        let forced = self.forced.load(Ordering::Acquire) > 0;
        if crossed || evicted.first_pending || forced {
            self.upload.notify_one();
        }
        listeners
    }

    fn push_runs(&self, runs: Vec<(StreamId, Run)>) -> Vec<Arc<dyn DurableListener>> {
        let mut listeners = Vec::new();
        let mut rest = runs.as_slice();
        while let Some(partition) = rest.first().map(|(stream, _)| stream.partition) {
            let len = rest.partition_point(|(stream, _)| stream.partition == partition);
            let (mine, after) = rest.split_at(len);
            let listener = self.table.update(partition, |state| {
                for (stream, run) in mine {
                    state.stream(stream.kind).push(*run);
                }
                state.listener.clone()
            });
            listeners.extend(listener);
            rest = after;
        }
        listeners
    }

    /// Forgets the runs of evicted groups that are in objects.
    pub fn forget(&self, evicted: &Evicted) {
        self.metrics.evicted(evicted.count);
        if evicted.groups.is_empty() {
            return;
        }
        let horizon = self.tail.horizon();
        for group in &evicted.groups {
            for (stream, _) in group.runs() {
                self.prune(stream.partition, horizon);
            }
        }
    }

    /// Forgets runs of `partition` below `horizon`, and the partition when nothing of it is left.
    pub fn prune(&self, partition: PartitionId, horizon: Lsn) {
        let Some(slot) = self.table.get(partition) else { return };
        let idle = {
            let mut state = slot.state.lock();
            state.streams.iter_mut().for_each(|stream| stream.prune(horizon));
            !state.opened && state.streams.iter().all(|stream| stream.runs.is_empty())
        };
        if idle {
            self.table.forget_if_idle(partition);
        }
    }

    /// Ends everything: nothing is appended, uploaded or acknowledged from now on.
    pub fn fatal(&self, line: &str) {
        self.closed.store(true, Ordering::Release);
        self.stopped.cancel();
        self.upload.notify_one();
        (self.on_fatal)(line);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

impl wal::Listener for Core {
    /// Nothing: a group is of use only when it is durable.
    fn sealed(&self, _group: Arc<wal::Group>) {}

    fn durable(&self, group: &Arc<wal::Group>, durable: Lsn) {
        let listeners = self.index(group);
        self.durable.send_replace(durable);
        for listener in listeners {
            listener.durable(durable);
        }
    }

    fn failed(&self, error: &wal::Error) {
        self.fatal(&format!("write-ahead log failed: {error}"));
    }

    fn space(&self) {
        self.space.send_modify(|count| *count = count.wrapping_add(1));
    }
}

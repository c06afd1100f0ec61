//! The gate: log durable, then still ours, then the high watermark moves, then whoever waits is woken.

use std::sync::Arc;
use std::task::{Poll, Waker};

use common::{Lsn, NodeId, PartitionId, StreamEpoch, failpoint};
use parking_lot::MutexGuard;

use crate::error::Gone;
use crate::partition::{InFlight, Partition, State};
use crate::wake::{FetchWaiter, Pending, Subscription};

impl storage::DurableListener for Partition {
    fn durable(&self, lsn: Lsn) {
        let mut wakers = Vec::new();
        let fetches: Vec<FetchWaiter> = {
            let mut state = self.state.lock();
            if state.in_flight.front().is_none_or(|first| first.position >= lsn)
                || self.check_gate(&mut state).is_err()
            {
                return;
            }
            let mut times = self.time_index.lock();
            while state.in_flight.front().is_some_and(|first| first.position < lsn) {
                let durable = state.in_flight.pop_front().expect("just seen");
                state.high_watermark = durable.end;
                let InFlight { start, end, max_timestamp, bytes, .. } = durable;
                times.note(start, end, max_timestamp, bytes);
                durable.wakers.drain(&mut wakers);
            }
            state.waiters.values().cloned().collect()
        };
        wakers.into_iter().for_each(Waker::wake);
        fetches.iter().for_each(FetchWaiter::notify);
    }
}

impl Partition {
    /// Everything below the high watermark passed the gate already; this asks whether an answer may leave *now*.
    ///
    /// # Errors
    /// [`Gone`] when the partition is not served here any more.
    pub fn gate(&self) -> Result<(), Gone> {
        self.check_gate(&mut self.state.lock())
    }

    /// A wait for everything below `end` that has been appended by now.
    pub fn wait_durable(self: &Arc<Self>, end: i64) -> Pending {
        let end = end.min(self.state.lock().data_end);
        Pending::new(Arc::clone(self), end)
    }

    /// Subscribes a fetch: it is woken once per group that moves the high watermark, and when the partition is gone.
    /// Subscribe first, read second, wait third. At the bound of waiters it is woken at once.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, waiter: &FetchWaiter) -> Subscription {
        let mut state = self.state.lock();
        let key = state.next_waiter;
        state.next_waiter += 1;
        if state.gone.is_some() || state.waiters.len() >= self.shared.options.waiters_max {
            if state.gone.is_none() {
                self.shared.metrics.waiters_refused.inc();
            }
            waiter.notify();
        } else {
            state.waiters.insert(key, waiter.clone());
        }
        Subscription::new(Arc::clone(self), key)
    }

    pub(crate) fn unsubscribe(&self, key: u64) {
        self.state.lock().waiters.remove(&key);
    }

    /// The gate: this broker still owns the partition under the epoch it was opened with.
    pub(crate) fn check_gate(&self, state: &mut MutexGuard<'_, State>) -> Result<(), Gone> {
        if let Some(gone) = state.gone {
            return Err(gone);
        }
        if self.lapsed() {
            self.end(state, Gone::NotLeader);
            return Err(Gone::NotLeader);
        }
        let image = self.shared.meta.image();
        if image.applied == state.gate_seen {
            return Ok(());
        }
        match owned(&image, self.id, self.shared.node, self.epoch) {
            Ok(()) => {
                state.gate_seen = image.applied;
                Ok(())
            }
            Err(gone) => {
                self.end(state, gone);
                Err(gone)
            }
        }
    }

    /// The lease has run out: a successor may serve the partition, whatever the image here says. It is opened again
    /// when it is still ours after all.
    fn lapsed(&self) -> bool {
        // A test plants this to see answers leave a broker that has lost its partitions.
        !self.shared.lease.holds() && !failpoint::planted("zombie-read")
    }

    /// Ends the partition: whoever waits is answered with `gone`.
    pub(crate) fn close(&self, gone: Gone) {
        self.end(&mut self.state.lock(), gone);
    }

    fn end(&self, state: &mut MutexGuard<'_, State>, gone: Gone) {
        if state.gone.is_some() {
            return;
        }
        state.gone = Some(gone);
        let mut wakers = Vec::new();
        for waiting in std::mem::take(&mut state.in_flight) {
            waiting.wakers.drain(&mut wakers);
        }
        let fetches = std::mem::take(&mut state.waiters);
        self.shared.metrics.gate_refused.inc_by(wakers.len() as u64);
        self.shared.metrics.open.dec();
        self.shared.metrics.producers.dec_by(state.producers_counted);
        state.producers_counted = 0;
        // Waking only schedules: no waiter runs inside this section.
        wakers.into_iter().for_each(Waker::wake);
        fetches.into_values().for_each(|fetch| fetch.notify());
    }

    pub(crate) fn poll_durable(&self, end: i64, waker: &Waker) -> Poll<Result<(), Gone>> {
        let mut state = self.state.lock();
        if self.lapsed() {
            self.end(&mut state, Gone::NotLeader);
        }
        // Durable and shown, but perhaps not ours to tell: another broker answers the repeat.
        if state.high_watermark >= end && state.gone != Some(Gone::NotLeader) {
            return Poll::Ready(Ok(()));
        }
        if let Some(gone) = state.gone {
            return Poll::Ready(Err(gone));
        }
        let at = state.in_flight.partition_point(|waiting| waiting.end < end);
        let waiting = state.in_flight.get_mut(at).expect("what is not durable is in flight");
        waiting.wakers.add(waker);
        Poll::Pending
    }
}

/// Whether `node` owns partition `id` under `epoch`.
pub(crate) fn owned(
    image: &meta::Image,
    id: PartitionId,
    node: NodeId,
    epoch: StreamEpoch,
) -> Result<(), Gone> {
    let topic = image.topics.get(&id.topic).ok_or(Gone::Deleted)?;
    let index = usize::try_from(id.index).map_err(|_| Gone::Deleted)?;
    let partition = topic.partitions.get(index).ok_or(Gone::Deleted)?;
    if partition.leader == Some(node) && partition.epoch == epoch {
        Ok(())
    } else {
        Err(Gone::NotLeader)
    }
}

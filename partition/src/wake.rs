//! Waking those who wait on a partition: produce requests for durability, fetches for data.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

use crate::error::Gone;
use crate::partition::Partition;

/// Completes when everything below an offset is durable and has passed the gate, or the partition is gone. Dropping it
/// gives up the wait and nothing else.
#[derive(Debug)]
#[must_use = "the append may not be answered before this completes"]
pub struct Pending {
    partition: Arc<Partition>,
    end: i64,
}

impl Pending {
    pub(crate) fn new(partition: Arc<Partition>, end: i64) -> Self {
        Self { partition, end }
    }

    /// First offset behind what is waited for.
    #[must_use]
    pub fn end_offset(&self) -> i64 {
        self.end
    }
}

impl Future for Pending {
    type Output = Result<(), Gone>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.partition.poll_durable(self.end, context.waker())
    }
}

/// The wakers of one in-flight append; nearly always exactly one.
#[derive(Debug, Default)]
pub(crate) struct Wakers {
    first: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakers {
    pub(crate) fn add(&mut self, waker: &Waker) {
        let mut known = self.first.iter().chain(&self.others);
        if known.any(|old| old.will_wake(waker)) {
            return;
        }
        match &mut self.first {
            None => self.first = Some(waker.clone()),
            Some(_) => self.others.push(waker.clone()),
        }
    }

    /// Moves the wakers to `into`, each task once.
    pub(crate) fn drain(self, into: &mut Vec<Waker>) {
        for waker in self.first.into_iter().chain(self.others) {
            if !into.last().is_some_and(|last| last.will_wake(&waker)) {
                into.push(waker);
            }
        }
    }
}

/// One fetch that waits at several partitions. Any of them wakes it; wake-ups between two waits count once.
#[derive(Clone, Debug, Default)]
pub struct FetchWaiter(Arc<Notify>);

impl FetchWaiter {
    /// Waits until one of the partitions it is subscribed to has moved or is gone. A move after the subscription and
    /// before this call is not missed. Cancel safe.
    pub async fn woken(&self) {
        self.0.notified().await;
    }

    pub(crate) fn notify(&self) {
        self.0.notify_one();
    }
}

/// Keeps a [`FetchWaiter`] subscribed at a partition until it is dropped.
#[derive(Debug)]
pub struct Subscription {
    partition: Arc<Partition>,
    key: u64,
}

impl Subscription {
    pub(crate) fn new(partition: Arc<Partition>, key: u64) -> Self {
        Self { partition, key }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.partition.unsubscribe(self.key);
    }
}

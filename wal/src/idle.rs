//! The log's task: when the log falls quiet, an empty group publishes the last durable position, so that a hole behind
//! it is known to be damage.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::builder::Closed;
use crate::format::BLOCK;
use crate::state::{Inner, State};

/// Runs until the log is dropped.
pub(crate) async fn run(inner: Weak<Inner>, quiet: Duration) {
    loop {
        let Some(log) = inner.upgrade() else { return };
        wait_for_work(log).await;
        let mut submits = None;
        loop {
            tokio::time::sleep(quiet).await;
            let Some(log) = inner.upgrade() else { return };
            let mut state = log.state.lock();
            if submits == Some(state.submits) || !state.must_publish() {
                log.publish(&mut state);
                state.idle_armed = false;
                drop(state);
                log.pool.trim();
                break;
            }
            // First look, or something was written meanwhile: a whole quiet period more.
            submits = Some(state.submits);
        }
    }
}

/// A log that is dropped aborts the task, so holding it here does not keep it alive for ever.
async fn wait_for_work(log: Arc<Inner>) {
    log.idle.notified().await;
}

impl Inner {
    /// Submits an empty group when a position is to be published and a block is free.
    pub fn publish(self: &Arc<Self>, state: &mut State) {
        if state.failed || !state.must_publish() || state.segments.room(state.cursor) < BLOCK {
            return;
        }
        let first = state.cursor;
        state.enqueue(Closed::empty(first));
        self.pump(state);
    }
}

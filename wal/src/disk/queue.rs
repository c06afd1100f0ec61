//! The queue between the log and the disk's threads. A thread that finds it empty sleeps at once: threads that spin or
//! yield first cost a tenth of the processor under small writes.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// A bounded queue for many senders and many threads.
pub struct Queue<T> {
    // Held for a push or a pop.
    state: Mutex<State<T>>,
    filled: Condvar,
    drained: Condvar,
    items_max: usize,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub fn new(items_max: usize) -> Self {
        let state = State { items: VecDeque::new(), closed: false };
        Self {
            state: Mutex::new(state),
            filled: Condvar::new(),
            drained: Condvar::new(),
            items_max,
        }
    }

    /// Adds `item`; waits at the bound.
    pub fn push(&self, item: T) {
        let mut state = self.state.lock();
        while state.items.len() >= self.items_max {
            self.drained.wait(&mut state);
        }
        state.items.push_back(item);
        drop(state);
        self.filled.notify_one();
    }

    /// The next item; waits for one. `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        while state.items.is_empty() {
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
        self.take(&mut state)
    }

    /// The next item, if there is one.
    pub fn try_pop(&self) -> Option<T> {
        self.take(&mut self.state.lock())
    }

    fn take(&self, state: &mut State<T>) -> Option<T> {
        let full = state.items.len() >= self.items_max;
        let item = state.items.pop_front();
        if full {
            self.drained.notify_one();
        }
        item
    }

    /// Ends the threads once the queue is empty.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn items_come_in_order_the_bound_holds_senders_and_a_close_drains_first() {
        let queue = Arc::new(Queue::new(2));
        let other = queue.clone();
        let sender = common::threads::spawn("queue-test", move || {
            (0..100).for_each(|item| other.push(item));
            other.close();
        });
        let mut seen = Vec::new();
        while let Some(item) = queue.pop() {
            assert!(queue.state.lock().items.len() <= 2);
            seen.push(item);
        }
        sender.expect("a thread").join().expect("no panic");
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(queue.try_pop(), None);
    }
}

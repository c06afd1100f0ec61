//! A bounded pool of group buffers. A buffer comes back when the last slice of its group is dropped.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::disk::AlignedBuf;

pub(crate) struct Pool {
    // Held for a push or a pop.
    free: Mutex<Vec<AlignedBuf>>,
    buffer_bytes: usize,
    buffers_max: usize,
}

struct Pooled {
    buffer: Option<AlignedBuf>,
    pool: Weak<Pool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        self.buffer.as_ref().expect("taken only by drop")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        if let (Some(buffer), Some(pool)) = (self.buffer.take(), self.pool.upgrade()) {
            pool.give(buffer);
        }
    }
}

impl Pool {
    pub fn new(buffer_bytes: usize, buffers_max: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new(Vec::new()), buffer_bytes, buffers_max })
    }

    /// A buffer with any content.
    pub fn take(&self) -> AlignedBuf {
        let free = self.free.lock().pop();
        free.unwrap_or_else(|| AlignedBuf::zeroed(self.buffer_bytes))
    }

    fn give(&self, buffer: AlignedBuf) {
        let mut free = self.free.lock();
        if free.len() < self.buffers_max {
            free.push(buffer);
        }
    }

    /// The buffer as shared bytes; it comes back here in the end.
    pub fn share(self: &Arc<Self>, buffer: AlignedBuf) -> Bytes {
        Bytes::from_owner(Pooled { buffer: Some(buffer), pool: Arc::downgrade(self) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice_and_the_pool_is_bounded() {
        let pool = Pool::new(4096, 1);
        let (first, second) = (pool.share(pool.take()), pool.share(pool.take()));
        let slice = first.slice(10..20);
        drop(first);
        assert_eq!(pool.free.lock().len(), 0);
        drop(slice);
        assert_eq!(pool.free.lock().len(), 1);
        drop(second);
        assert_eq!(pool.free.lock().len(), 1);
    }
}

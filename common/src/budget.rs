//! One memory budget for caches, partition state, request, upload and sink buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound on bytes held. Cheap to clone; all clones share one bound. Non-blocking: at the bound the asker is refused
/// and evicts, waits or turns its client away; what it does is the asker's documented behaviour.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes_max: u64,
    used: AtomicU64,
    refused: AtomicU64,
}

/// The budget has no room for the bytes asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("memory budget of {bytes_max} bytes has no room for {asked} more; raise memory.max")]
pub struct Exhausted {
    /// The bound.
    pub bytes_max: u64,
    /// What was asked for.
    pub asked: u64,
}

/// Bytes taken from a budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        let inner = Inner { bytes_max, used: AtomicU64::new(0), refused: AtomicU64::new(0) };
        Self(Arc::new(inner))
    }

    /// Takes `bytes`, or nothing.
    ///
    /// # Errors
    /// [`Exhausted`] when the bound would be passed.
    pub fn reserve(&self, bytes: u64) -> Result<Reservation, Exhausted> {
        let inner = &self.0;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= inner.bytes_max);
        match inner.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => Ok(Reservation { budget: self.clone(), bytes }),
            Err(_) => {
                inner.refused.fetch_add(1, Ordering::Relaxed);
                Err(Exhausted { bytes_max: inner.bytes_max, asked: bytes })
            }
        }
    }

    /// Takes `bytes` even past the bound: for what already exists and only has to be counted.
    #[must_use]
    pub fn force(&self, bytes: u64) -> Reservation {
        self.0.used.fetch_add(bytes, Ordering::AcqRel);
        Reservation { budget: self.clone(), bytes }
    }

    /// Bytes held now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Acquire)
    }

    /// The bound, in bytes.
    #[must_use]
    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max
    }

    /// Times an asker was refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Bytes held by this reservation.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds `bytes` from now on, even past the bound: for what grows and shrinks in place.
    pub fn resize(&mut self, bytes: u64) {
        let used = &self.budget.0.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::AcqRel);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::AcqRel);
        }
        self.bytes = bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_takes_nothing_and_a_drop_gives_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(60).expect("fits");
        assert_eq!(budget.reserve(41).expect_err("too much").asked, 41);
        assert_eq!((budget.used(), budget.refused()), (60, 1));
        drop(first);
        let all = budget.reserve(100).expect("fits again");
        assert_eq!(all.bytes(), 100);
        let past = budget.force(50);
        assert_eq!(budget.used(), 150);
        let mut grows = budget.force(0);
        grows.resize(70);
        assert_eq!((budget.used(), grows.bytes()), (220, 70));
        grows.resize(20);
        assert_eq!(budget.used(), 170);
        drop(grows);
        assert_eq!(budget.used(), 150);
        drop((all, past));
        assert_eq!(budget.used(), 0);
    }
}

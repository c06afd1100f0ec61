//! A disk that completes writes late and out of order, and that a crash leaves torn.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Rng;
use parking_lot::Mutex;
use wal::{BLOCK, Disk, Done, SegmentFile, Space};

/// Clones share the medium.
#[derive(Clone, Debug)]
pub struct SimDisk {
    rng: Rng,
    medium: Arc<Mutex<Medium>>,
}

#[derive(Debug, Default)]
struct Medium {
    segments: BTreeMap<u64, Vec<u8>>,
    /// Submitted, not yet completed: segment, position, bytes.
    pending: BTreeMap<u64, (u64, u64, Bytes)>,
    submitted: u64,
}

impl Medium {
    fn put(&mut self, segment: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        let file = self.segments.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let at = usize::try_from(at).expect("small");
        file[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

impl SimDisk {
    pub fn new(rng: Rng) -> Self {
        Self { rng, medium: Arc::default() }
    }

    /// Each write in flight reaches the medium whole, in part, or not at all.
    pub fn crash(&self) {
        let mut medium = self.medium.lock();
        let block = usize::try_from(BLOCK).expect("small");
        for (segment, at, bytes) in std::mem::take(&mut medium.pending).into_values() {
            for (n, part) in bytes.chunks(block).enumerate() {
                if self.rng.one_in(2) {
                    // A segment that was reused meanwhile has lost the write.
                    let _ = medium.put(segment, at + n as u64 * BLOCK, part);
                }
            }
        }
    }

    fn later<T: Send + 'static>(
        &self,
        done: Done<T>,
        body: impl FnOnce(&mut Medium) -> io::Result<T> + Send + 'static,
    ) {
        let pause = Duration::from_micros(50 + self.rng.below(2_000));
        let medium = self.medium.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let result = body(&mut medium.lock());
            done(result);
        });
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<SegmentFile>> {
        let medium = self.medium.lock();
        let file = |(number, file): (&u64, &Vec<u8>)| SegmentFile {
            number: *number,
            len: file.len() as u64,
        };
        Ok(medium.segments.iter().map(file).collect())
    }

    fn create(&self, number: u64, len: u64, done: Done<()>) {
        let len = usize::try_from(len).expect("small");
        self.later(done, move |medium| {
            if medium.segments.contains_key(&number) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            medium.segments.insert(number, vec![0; len]);
            Ok(())
        });
    }

    fn reuse(&self, from: u64, to: u64, done: Done<()>) {
        self.later(done, move |medium| {
            let file = medium.segments.remove(&from).ok_or(io::ErrorKind::NotFound)?;
            medium.segments.insert(to, file);
            Ok(())
        });
    }

    fn remove(&self, number: u64, done: Done<()>) {
        self.later(done, move |medium| {
            medium.segments.remove(&number);
            Ok(())
        });
    }

    fn write(&self, segment: u64, at: u64, bytes: Bytes, done: Done<()>) {
        let key = {
            let mut medium = self.medium.lock();
            medium.submitted += 1;
            let key = medium.submitted;
            medium.pending.insert(key, (segment, at, bytes));
            key
        };
        self.later(done, move |medium| {
            let (segment, at, bytes) = medium.pending.remove(&key).expect("submitted");
            medium.put(segment, at, &bytes)
        });
    }

    fn read(&self, segment: u64, at: u64, len: usize, done: Done<Bytes>) {
        self.later(done, move |medium| {
            let file = medium.segments.get(&segment).ok_or(io::ErrorKind::NotFound)?;
            let at = usize::try_from(at).expect("small");
            Ok(Bytes::copy_from_slice(&file[at..at + len]))
        });
    }

    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: 1 << 30, available: 1 << 30 })
    }
}

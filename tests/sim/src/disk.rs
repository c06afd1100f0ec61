//! A directory of log segments on a simulated disk: writes take time, end out of order, and a crash drops, keeps or
//! tears at sectors whatever has not ended.
//!
//! ```text
//! submit -> pending --delay--> image (durable), done(Ok)
//!              |
//!            crash -> dropped | kept | torn; done is never called
//! ```

mod medium;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::Rng;
use parking_lot::Mutex;
use wal::{Disk, Done, SegmentFile, Space};

pub use medium::Met;
use medium::{Medium, Operation};

use crate::trigger::{self, Trigger};

/// How the disk behaves from now on.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Longest ordinary time of one operation.
    pub time_max: Duration,
    /// One operation in so many takes `stall` instead; 0 is never.
    pub stall_one_in: u64,
    /// Time of a stalled operation.
    pub stall: Duration,
    /// One read in so many fails; 0 is never.
    pub read_error_one_in: u64,
    /// One read in so many comes with a wrong bit; 0 is never.
    pub read_flip_one_in: u64,
    /// Bytes that all segments may take together.
    pub capacity: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            time_max: Duration::from_millis(3),
            stall_one_in: 50,
            stall: Duration::from_millis(40),
            read_error_one_in: 0,
            read_flip_one_in: 0,
            capacity: 1 << 30,
        }
    }
}

/// A handle of the disk. Clones reach the same medium.
#[derive(Clone, Debug)]
pub struct SimDisk {
    rng: Rng,
    medium: Arc<Mutex<Medium>>,
    /// The life this handle belongs to; `None` is whichever runs.
    life: Option<u64>,
    trigger: Trigger,
}

impl SimDisk {
    /// An empty directory. This handle works in every life.
    #[must_use]
    pub fn new(rng: Rng) -> Self {
        let medium = Arc::new(Mutex::new(Medium::default()));
        Self { rng, medium, life: None, trigger: Trigger::default() }
    }

    /// Passes the moments of `trigger`.
    #[must_use]
    pub fn with_trigger(self, trigger: Trigger) -> Self {
        Self { trigger, ..self }
    }

    /// A handle for the process that runs now: after the next crash it reaches nothing.
    #[must_use]
    pub fn open(&self) -> Arc<Self> {
        let life = Some(self.medium.lock().life);
        Arc::new(Self { life, ..self.clone() })
    }

    /// Changes the behaviour.
    pub fn behave(&self, behaviour: Behaviour) {
        self.medium.lock().behaviour = behaviour;
    }

    /// A power cut: each operation that has not ended is dropped, kept or torn. None of them is ever answered.
    pub fn crash(&self) {
        self.medium.lock().crash(&self.rng);
    }

    /// The write after `writes` more fails, and with it every later one of this life.
    pub fn fail_writes_after(&self, writes: u64) {
        self.medium.lock().writes_left = Some(writes);
    }

    /// Inverts one bit of the image. False when there is no such byte.
    pub fn flip(&self, segment: u64, at: u64, bit: u8) -> bool {
        self.medium.lock().flip(segment, at, bit)
    }

    /// Changes one byte of the image behind the log's back.
    ///
    /// # Panics
    /// When there is no such byte.
    pub fn damage(&self, segment: u64, at: u64, change: impl FnOnce(&mut u8)) {
        change(self.medium.lock().byte(segment, at).expect("a byte of the image"));
    }

    /// Puts `bytes` at `at` of a segment behind the log's back; returns what was there.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn replace(&self, segment: u64, at: u64, bytes: &[u8]) -> Bytes {
        let mut medium = self.medium.lock();
        let before = medium.read(segment, at, bytes.len()).expect("a place of the image");
        medium.put(segment, at, bytes).expect("just read");
        before
    }

    /// Removes a segment behind the log's back.
    pub fn lose(&self, number: u64) {
        self.medium.lock().lose(number);
    }

    /// A checksum of the image, for comparing runs.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        self.medium.lock().fingerprint()
    }

    /// Bytes that all segments take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.medium.lock().used()
    }

    /// What has happened so far.
    #[must_use]
    pub fn met(&self) -> Met {
        self.medium.lock().met
    }

    /// A life that a crash has ended reaches nothing any more.
    fn is_dead(&self, medium: &Medium) -> bool {
        self.life.is_some_and(|life| life != medium.life)
    }

    fn delay(&self, behaviour: &Behaviour) -> Duration {
        if self.rng.one_in(behaviour.stall_one_in) {
            self.medium.lock().met.stalls += 1;
            return behaviour.stall;
        }
        let micros = u64::try_from(behaviour.time_max.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(1 + self.rng.below(micros))
    }

    /// `bytes` with one wrong bit.
    fn flipped(&self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let at = self.rng.below(bytes.len() as u64);
        if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
            *byte ^= 1 << self.rng.below(8);
        }
        bytes.into()
    }

    fn submit(&self, operation: Operation, done: Done<()>) {
        let (id, delay) = {
            let mut medium = self.medium.lock();
            if self.is_dead(&medium) {
                return;
            }
            (medium.submit(operation), medium.behaviour.clone())
        };
        let delay = self.delay(&delay);
        let disk = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let (life, ended) = {
                let mut medium = disk.medium.lock();
                (medium.life, medium.complete(id, &disk.rng))
            };
            let Some(result) = ended else { return };
            disk.trigger.hit(trigger::DISK_DONE);
            if disk.medium.lock().life == life {
                done(result);
            }
        });
    }
}

impl Disk for SimDisk {
    fn list(&self) -> io::Result<Vec<SegmentFile>> {
        let medium = self.medium.lock();
        if self.is_dead(&medium) {
            return Err(gone());
        }
        Ok(medium.list())
    }

    fn create(&self, number: u64, len: u64, done: Done<()>) {
        self.submit(Operation::Create { number, len }, done);
    }

    fn reuse(&self, from: u64, to: u64, done: Done<()>) {
        self.submit(Operation::Reuse { from, to }, done);
    }

    fn remove(&self, number: u64, done: Done<()>) {
        self.submit(Operation::Remove { number }, done);
    }

    fn write(&self, segment: u64, at: u64, bytes: Bytes, done: Done<()>) {
        self.submit(Operation::Write { segment, at, bytes }, done);
    }

    fn read(&self, segment: u64, at: u64, len: usize, done: Done<Bytes>) {
        let (delay, life) = {
            let medium = self.medium.lock();
            if self.is_dead(&medium) {
                return;
            }
            (medium.behaviour.clone(), medium.life)
        };
        let delay = self.delay(&delay);
        let disk = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let result = {
                let mut medium = disk.medium.lock();
                if medium.life != life {
                    return;
                }
                if disk.rng.one_in(medium.behaviour.read_error_one_in) {
                    medium.met.read_errors += 1;
                    Err(io::Error::other("input/output error"))
                } else {
                    let flips = disk.rng.one_in(medium.behaviour.read_flip_one_in);
                    medium.met.read_flips += u64::from(flips);
                    let read = medium.read(segment, at, len);
                    if flips { read.map(|bytes| disk.flipped(&bytes)) } else { read }
                }
            };
            disk.trigger.hit(trigger::DISK_READ);
            if disk.medium.lock().life == life {
                done(result);
            }
        });
    }

    fn space(&self) -> io::Result<Space> {
        let medium = self.medium.lock();
        if self.is_dead(&medium) {
            return Err(gone());
        }
        let total = medium.behaviour.capacity;
        Ok(Space { total, available: total.saturating_sub(medium.used()) })
    }
}

fn gone() -> io::Error {
    io::Error::other("this process has ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(disk: &SimDisk, at: u64, byte: u8) -> Option<io::Result<()>> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done = move |result| drop(sender.send(result));
        disk.write(0, at, Bytes::from(vec![byte; 4096]), Box::new(done));
        receiver.await.ok()
    }

    async fn made(disk: &SimDisk) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        disk.create(0, 64 << 10, Box::new(move |result| drop(sender.send(result))));
        receiver.await.expect("answered").expect("created");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_answered_stays_and_the_rest_is_dropped_kept_or_torn() {
        let (mut dropped, mut kept, mut torn) = (0, 0, 0);
        for seed in 0..60 {
            let root = SimDisk::new(Rng::seeded(seed));
            let disk = root.open();
            made(&disk).await;
            write(&disk, 0, 1).await.expect("answered").expect("written");
            let late = disk.clone();
            let task = tokio::spawn(async move { write(&late, 4096, 2).await });
            tokio::task::yield_now().await;
            root.crash();
            assert!(task.await.expect("no panic").is_none(), "answered after the crash");
            assert!(write(&disk, 8192, 3).await.is_none(), "a dead process has written");
            let image = root.medium.lock().read(0, 0, 12_288).expect("readable");
            assert!(image[..4096].iter().all(|byte| *byte == 1));
            assert!(image[8192..].iter().all(|byte| *byte == 0));
            match image[4096..8192].iter().filter(|byte| **byte == 2).count() {
                0 => dropped += 1,
                4096 => kept += 1,
                part => {
                    assert_eq!(part % 512, 0);
                    torn += 1;
                }
            }
        }
        assert!(dropped > 5 && kept > 5 && torn > 5, "{dropped} {kept} {torn}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failed_write_nothing_hears_ok() {
        let disk = SimDisk::new(Rng::seeded(3));
        made(&disk).await;
        disk.fail_writes_after(1);
        assert!(write(&disk, 0, 1).await.expect("answered").is_ok());
        for _ in 0..3 {
            assert!(write(&disk, 4096, 1).await.expect("answered").is_err());
        }
        disk.crash();
        assert!(write(&disk, 4096, 1).await.expect("answered").is_ok(), "a new process");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_says_so_and_reads_see_flipped_bits() {
        let disk = SimDisk::new(Rng::seeded(4));
        disk.behave(Behaviour { capacity: 64 << 10, ..Behaviour::default() });
        made(&disk).await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        disk.create(1 << 16, 4096, Box::new(move |result| drop(sender.send(result))));
        let error = receiver.await.expect("answered").expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(disk.flip(0, 5, 3) && !disk.flip(9, 5, 3));
        assert_eq!(disk.medium.lock().read(0, 0, 8).expect("readable")[5], 8);
    }
}

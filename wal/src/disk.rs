//! The disk seam: one directory of segments, submit and complete, so that the same log runs on threads and in simulation.

mod aligned;
mod dir;
mod files;
mod queue;
mod threads;

use std::io;

use bytes::Bytes;

pub use aligned::AlignedBuf;
pub(crate) use aligned::{Block, Home};
pub use dir::{DirDisk, Mode};

/// What is called when an operation has ended. Never from within the submitting call (the log submits under its
/// mutex), and on any thread.
pub type Done<T> = Box<dyn FnOnce(io::Result<T>) + Send>;

/// A segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// Its number: the LSN of its first byte.
    pub number: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// Room on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the file system.
    pub total: u64,
    /// Bytes that can still be taken.
    pub available: u64,
}

/// One directory of WAL segments.
pub trait Disk: Send + Sync + 'static {
    /// The segments, sorted by number. For start-up and inspection only; may block.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list(&self) -> io::Result<Vec<SegmentFile>>;

    /// Makes segment `number` of `len` zero bytes. It is listed only once it is whole and durable, with its directory
    /// entry. Fails with `AlreadyExists` when it exists.
    fn create(&self, number: u64, len: u64, done: Done<()>);

    /// Gives segment `from` the number `to`, content and all, durably, all or nothing.
    fn reuse(&self, from: u64, to: u64, done: Done<()>);

    /// Removes segment `number`, durably.
    fn remove(&self, number: u64, done: Done<()>);

    /// Writes `bytes` at `at` of `segment`. Durable when `done` hears `Ok`. Position and length are multiples of
    /// [`crate::BLOCK`], the memory is aligned to it. Once a write has failed, no later one hears `Ok`.
    fn write(&self, segment: u64, at: u64, bytes: Bytes, done: Done<()>);

    /// Reads `len` bytes at `at` of `segment`, both multiples of [`crate::BLOCK`] and inside the file.
    fn read(&self, segment: u64, at: u64, len: usize, done: Done<Bytes>);

    /// Room on the medium. May block shortly.
    ///
    /// # Errors
    /// When the file system does not answer.
    fn space(&self) -> io::Result<Space>;
}

/// Waits for one operation. An operation dropped without an answer (a disk that went away) is an error.
pub(crate) async fn wait<T: Send + 'static>(submit: impl FnOnce(Done<T>)) -> io::Result<T> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    submit(Box::new(move |result| {
        // Nobody waits any more: fine, the result was for them.
        let _ = sender.send(result);
    }));
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the disk went away")))
}

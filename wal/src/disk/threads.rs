//! The disk's threads: writers, readers, and one that prepares segments.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Done;
use super::files::{self, Files};
use super::queue::Queue;

/// Writes that one sync of the buffered fallback serves at most.
const SYNC_WRITES_MAX: usize = 4;

pub struct Shared {
    pub dir: PathBuf,
    pub direct: bool,
    /// Set by the first failed write or sync. Completions pass one at a time, so that none says `Ok` after it.
    pub failed: Mutex<bool>,
}

pub struct Write {
    pub segment: u64,
    pub at: u64,
    pub bytes: Bytes,
    pub done: Done<()>,
}

pub struct Read {
    pub segment: u64,
    pub at: u64,
    pub len: usize,
    pub done: Done<Bytes>,
}

pub enum Job {
    Create { number: u64, len: u64 },
    Reuse { from: u64, to: u64 },
    Remove { number: u64 },
}

impl Shared {
    fn complete(&self, result: io::Result<()>, done: Done<()>) {
        let mut failed = self.failed.lock();
        match result {
            Ok(()) if *failed => {
                done(Err(io::Error::other("another write of this log has failed")))
            }
            Ok(()) => done(Ok(())),
            Err(error) => {
                *failed = true;
                done(Err(error));
            }
        }
    }
}

/// One of several writers; each opens the segments itself, because the kernel reports a write-back error once for each
/// open file.
pub fn write_direct(shared: &Arc<Shared>, queue: &Queue<Write>) {
    let mut files = Files::writing(&shared.dir, true);
    while let Some(write) = queue.pop() {
        let result = files.write(write.segment, write.at, &write.bytes);
        drop(write.bytes);
        shared.complete(result, write.done);
    }
}

/// The only writer where the file system refuses direct I/O: it alone writes and syncs, so a sync's result counts for
/// exactly the writes before it, and no sync follows a failed one.
pub fn write_buffered(shared: &Arc<Shared>, queue: &Queue<Write>) {
    let mut files = Files::writing(&shared.dir, false);
    while let Some(first) = queue.pop() {
        let mut batch = vec![first];
        while batch.len() < SYNC_WRITES_MAX
            && let Some(next) = queue.try_pop()
        {
            batch.push(next);
        }
        let result = if *shared.failed.lock() {
            Err(io::Error::other("another write of this log has failed"))
        } else {
            write_and_sync(&mut files, &batch)
        };
        for write in batch {
            let result = result
                .as_ref()
                .copied()
                .map_err(|error| io::Error::new(error.kind(), error.to_string()));
            shared.complete(result, write.done);
        }
    }
}

fn write_and_sync(files: &mut Files, batch: &[Write]) -> io::Result<()> {
    let mut segments = Vec::new();
    for write in batch {
        files.write(write.segment, write.at, &write.bytes)?;
        if !segments.contains(&write.segment) {
            segments.push(write.segment);
        }
    }
    segments.into_iter().try_for_each(|segment| files.sync(segment))
}

pub fn read(shared: &Arc<Shared>, queue: &Queue<Read>) {
    let mut files = Files::reading(&shared.dir, shared.direct);
    while let Some(read) = queue.pop() {
        (read.done)(files.read(read.segment, read.at, read.len));
    }
}

pub fn prepare(shared: &Arc<Shared>, queue: &Queue<(Job, Done<()>)>) {
    while let Some((job, done)) = queue.pop() {
        done(match job {
            Job::Create { number, len } => files::create(&shared.dir, number, len, shared.direct),
            Job::Reuse { from, to } => files::reuse(&shared.dir, from, to),
            Job::Remove { number } => files::remove(&shared.dir, number),
        });
    }
}

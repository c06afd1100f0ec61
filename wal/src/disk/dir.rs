//! The real disk: a local directory.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;

use super::queue::Queue;
use super::threads::{self, Job, Read, Shared, Write};
use super::{Disk, Done, SegmentFile, Space, files};

/// Writer threads, as many as the log has writes in flight.
const WRITERS: usize = crate::WINDOW_GROUPS_MAX;
const READERS: usize = 2;
/// Operations queued for the threads of one kind. The log keeps far fewer in flight.
const QUEUE_MAX: usize = 64;

/// The queue of the thread that prepares segments.
type Jobs = Queue<(Job, Done<()>)>;

/// How writes are made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `O_DIRECT | O_DSYNC`, or buffered where the file system refuses it.
    Auto,
    /// Buffered writes and `fdatasync`, one syncer.
    Buffered,
}

/// A local directory of segments, with threads of its own: four writers (one where direct I/O is refused), two readers
/// and one that prepares segments. They are joined when it is dropped.
pub struct DirDisk {
    shared: Arc<Shared>,
    writes: Option<Arc<Queue<Write>>>,
    reads: Option<Arc<Queue<Read>>>,
    jobs: Option<Arc<Jobs>>,
    threads: Vec<JoinHandle<()>>,
}

impl DirDisk {
    /// Opens `dir`, creating it when it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made, written or given threads.
    pub fn open(dir: &Path) -> io::Result<Self> {
        Self::open_with(dir, Mode::Auto)
    }

    /// Opens `dir` with a choice of how to write.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(dir: &Path, mode: Mode) -> io::Result<Self> {
        if !dir.try_exists()? {
            std::fs::create_dir_all(dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                files::sync_directory(parent)?;
            }
        }
        let direct = mode == Mode::Auto && files::takes_direct(dir)?;
        if !direct {
            tracing::info!(dir = %dir.display(), "write-ahead log uses buffered writes");
        }
        let mut disk = Self::bare(dir, direct);
        let body = if direct { threads::write_direct } else { threads::write_buffered };
        let writers = if direct { WRITERS } else { 1 };
        disk.writes = Some(disk.start("wal-writer", writers, body)?);
        disk.reads = Some(disk.start("wal-reader", READERS, threads::read)?);
        disk.jobs = Some(disk.start("wal-prepare", 1, threads::prepare)?);
        Ok(disk)
    }

    /// Opens `dir` for inspection, also beside a running broker: nothing is written, and nothing can be.
    ///
    /// # Errors
    /// When the directory is not there.
    pub fn open_read_only(dir: &Path) -> io::Result<Self> {
        files::list(dir)?;
        let mut disk = Self::bare(dir, false);
        disk.reads = Some(disk.start("wal-reader", 1, threads::read)?);
        Ok(disk)
    }

    /// True when writes bypass the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.shared.direct
    }

    fn bare(dir: &Path, direct: bool) -> Self {
        let shared = Shared { dir: dir.to_owned(), direct, failed: Mutex::new(false) };
        let shared = Arc::new(shared);
        Self { shared, writes: None, reads: None, jobs: None, threads: Vec::new() }
    }

    fn start<T: Send + 'static>(
        &mut self,
        name: &str,
        count: usize,
        body: fn(&Arc<Shared>, &Queue<T>),
    ) -> io::Result<Arc<Queue<T>>> {
        let queue = Arc::new(Queue::new(QUEUE_MAX));
        for index in 0..count {
            let (shared, mine) = (self.shared.clone(), queue.clone());
            let thread = common::threads::spawn(&format!("{name}-{index}"), move || {
                body(&shared, &mine);
            });
            match thread {
                Ok(thread) => self.threads.push(thread),
                Err(error) => {
                    queue.close();
                    return Err(error);
                }
            }
        }
        Ok(queue)
    }

    fn close_queues(&self) {
        if let Some(writes) = &self.writes {
            writes.close();
        }
        if let Some(reads) = &self.reads {
            reads.close();
        }
        if let Some(jobs) = &self.jobs {
            jobs.close();
        }
    }

    fn job(&self, job: Job, done: Done<()>) {
        match &self.jobs {
            Some(jobs) => jobs.push((job, done)),
            None => done(Err(read_only())),
        }
    }
}

fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the log was opened for inspection")
}

impl Disk for DirDisk {
    fn list(&self) -> io::Result<Vec<SegmentFile>> {
        files::list(&self.shared.dir)
    }

    fn create(&self, number: u64, len: u64, done: Done<()>) {
        self.job(Job::Create { number, len }, done);
    }

    fn reuse(&self, from: u64, to: u64, done: Done<()>) {
        self.job(Job::Reuse { from, to }, done);
    }

    fn remove(&self, number: u64, done: Done<()>) {
        self.job(Job::Remove { number }, done);
    }

    fn write(&self, segment: u64, at: u64, bytes: Bytes, done: Done<()>) {
        let write = Write { segment, at, bytes, done };
        match &self.writes {
            Some(writes) => writes.push(write),
            None => (write.done)(Err(read_only())),
        }
    }

    fn read(&self, segment: u64, at: u64, len: usize, done: Done<Bytes>) {
        let reads = self.reads.as_ref().expect("every disk has readers");
        reads.push(Read { segment, at, len, done });
    }

    fn space(&self) -> io::Result<Space> {
        files::space(&self.shared.dir)
    }
}

impl Drop for DirDisk {
    fn drop(&mut self) {
        self.close_queues();
        let me = std::thread::current().id();
        if self.threads.iter().any(|thread| thread.thread().id() == me) {
            // The last owner was a completion on one of these threads, which may hold what another one waits for. They
            // all end by themselves, because their queues are closed.
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the write-ahead log panicked");
            }
        }
    }
}

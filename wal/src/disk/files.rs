//! Files of a segment directory, one system call at a time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::aligned::AlignedBuf;
use super::{SegmentFile, Space};

const SUFFIX: &str = ".wal";
const NEXT: &str = "next.tmp";
const PROBE: &str = "probe.tmp";
const ZERO_BYTES: usize = 1 << 20;
/// Open files kept by one thread.
const OPEN_FILES_MAX: usize = 4;

/// The path of segment `number`.
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}{SUFFIX}"))
}

/// The segments of `dir`, sorted.
pub fn list(dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
        if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
            segments.push(SegmentFile { number, len: entry.metadata()?.len() });
        }
    }
    segments.sort_by_key(|segment| segment.number);
    Ok(segments)
}

/// Room on the file system of `dir`.
pub fn space(dir: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(dir)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { total: bytes(stat.f_blocks), available: bytes(stat.f_bavail) })
}

/// True when the file system takes direct synced writes.
pub fn takes_direct(dir: &Path) -> io::Result<bool> {
    let probe = dir.join(PROBE);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let refused = |errno: Errno| matches!(errno, Errno::INVAL | Errno::OPNOTSUPP);
    let result = rustix::fs::open(&probe, flags | OFlags::DIRECT | OFlags::DSYNC, permissions())
        .and_then(|file| rustix::io::pwrite(&file, &AlignedBuf::zeroed(1), 0));
    let answer = match result {
        Ok(_) => Ok(true),
        Err(errno) if refused(errno) => Ok(false),
        // A full disk says nothing about direct writes; the first segment will say it better.
        Err(Errno::NOSPC | Errno::DQUOT) => Ok(true),
        Err(errno) => Err(errno.into()),
    };
    match rustix::fs::unlink(&probe) {
        Ok(()) | Err(Errno::NOENT) => answer,
        Err(errno) => answer.and(Err(errno.into())),
    }
}

/// Makes a whole, zero-filled, durable segment.
pub fn create(dir: &Path, number: u64, len: u64, direct: bool) -> io::Result<()> {
    let target = path(dir, number);
    refuse_existing(&target)?;
    let next = dir.join(NEXT);
    let result = fill(&next, len, direct)
        .and_then(|()| Ok(rustix::fs::rename(&next, &target)?))
        .and_then(|()| sync_directory(dir));
    if result.is_err() {
        // Gives the space back; the error that counts is the first one.
        let _ = rustix::fs::unlink(&next);
    }
    result
}

fn fill(path: &Path, len: u64, direct: bool) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let flags = if direct { flags | OFlags::DIRECT } else { flags };
    let file = rustix::fs::open(path, flags, permissions())?;
    match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len) {
        Ok(()) | Err(Errno::OPNOTSUPP) => {}
        Err(errno) => return Err(errno.into()),
    }
    let zeros = AlignedBuf::zeroed(ZERO_BYTES);
    let mut at = 0;
    while at < len {
        let part = usize::try_from(len - at).map_or(ZERO_BYTES, |rest| rest.min(ZERO_BYTES));
        write_all(&file, &zeros[..part], at)?;
        at += part as u64;
    }
    Ok(rustix::fs::fsync(&file)?)
}

/// Renames a segment, durably.
pub fn reuse(dir: &Path, from: u64, to: u64) -> io::Result<()> {
    refuse_existing(&path(dir, to))?;
    rustix::fs::rename(path(dir, from), path(dir, to))?;
    sync_directory(dir)
}

/// Removes a segment, durably.
pub fn remove(dir: &Path, number: u64) -> io::Result<()> {
    rustix::fs::unlink(path(dir, number))?;
    sync_directory(dir)
}

fn refuse_existing(path: &Path) -> io::Result<()> {
    if path.try_exists()? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the segment exists"));
    }
    Ok(())
}

/// Makes the names in `dir` durable.
pub fn sync_directory(dir: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::open(dir, flags, Mode::empty())?)?)
}

fn permissions() -> Mode {
    Mode::from_raw_mode(0o600)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                at += written as u64;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// The segments that one thread has opened for itself.
pub struct Files {
    dir: PathBuf,
    flags: OFlags,
    open: BTreeMap<u64, OwnedFd>,
}

impl Files {
    pub fn writing(dir: &Path, direct: bool) -> Self {
        // Buffered, the synced flag is left out: one sync serves several writes.
        let sync = if direct { OFlags::DIRECT | OFlags::DSYNC } else { OFlags::empty() };
        Self { dir: dir.to_owned(), flags: OFlags::WRONLY | sync, open: BTreeMap::new() }
    }

    pub fn reading(dir: &Path, direct: bool) -> Self {
        let direct = if direct { OFlags::DIRECT } else { OFlags::empty() };
        Self { dir: dir.to_owned(), flags: OFlags::RDONLY | direct, open: BTreeMap::new() }
    }

    fn file(&mut self, number: u64) -> io::Result<&OwnedFd> {
        if !self.open.contains_key(&number) {
            if self.open.len() >= OPEN_FILES_MAX {
                self.open.pop_first();
            }
            let flags = self.flags | OFlags::CLOEXEC;
            let file = rustix::fs::open(path(&self.dir, number), flags, Mode::empty())?;
            self.open.insert(number, file);
        }
        Ok(self.open.get(&number).expect("inserted above"))
    }

    pub fn write(&mut self, number: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        write_all(self.file(number)?, bytes, at)
    }

    pub fn sync(&mut self, number: u64) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(self.file(number)?)?)
    }

    pub fn read(&mut self, number: u64, at: u64, len: usize) -> io::Result<Bytes> {
        let file = self.file(number)?;
        let mut buffer = AlignedBuf::zeroed(len);
        let mut done = 0;
        while done < len {
            let position = at + done as u64;
            match rustix::io::pread(file, &mut buffer[done..len], position) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Bytes::from_owner(buffer).slice(..len))
    }
}

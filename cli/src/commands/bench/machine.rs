//! `sluice bench machine`: what the machine can do, so that a broker's figures can be read against it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde_json::{Value, json};
use tokio::time::Instant;
use wal::AlignedBuf;

use super::tally::{Tally, rounded};
use super::{nanoseconds, size};
use crate::args::bench::Machine;
use crate::output::{Failure, Output};

const FILE_BYTES: u64 = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;
const COPY_BYTES: usize = 64 << 20;
const BLOCK_BYTES: u64 = 4096;
/// Writes a second, and threads that share them.
const PACED_RATE: u32 = 1_000;
const PACED_THREADS: u32 = 4;
const PING_BYTES: usize = 1024;

pub fn run(command: &Machine, out: &Output) -> Result<ExitCode, Failure> {
    let span = Duration::from_nanos(nanoseconds(command.seconds)?);
    for size in &command.sizes {
        if *size == 0 || !size.is_multiple_of(BLOCK_BYTES) || *size > FILE_BYTES {
            return Err(Failure::usage(format!("--sizes {size}: a multiple of {BLOCK_BYTES}")));
        }
    }
    let file = Scratch::create(&command.dir)?;
    let mut writes = Vec::new();
    for bytes in &command.sizes {
        for in_flight in &command.in_flight {
            let tally = synced(&file, *bytes, size(*in_flight), span)?;
            let seconds = span.as_secs_f64();
            writes.push(json!({
                "size": bytes,
                "in_flight": in_flight,
                "writes_per_second": rounded(tally.requests() as f64 / seconds),
                "megabytes_per_second": rounded(tally.bytes() as f64 / 1e6 / seconds),
                "p50_ms": rounded(tally.percentile_ms(50.0)),
                "p99_ms": rounded(tally.percentile_ms(99.0)),
                "p99_9_ms": rounded(tally.percentile_ms(99.9)),
            }));
        }
    }
    let loopback = loopback(span).context("loopback")?;
    let round_trip = round_trip(span).context("loopback")?;
    let document = json!({
        "direct": file.direct,
        "synced_writes": writes,
        "paced_write": paced_document(&paced(&file, span)?),
        "loopback_megabytes_per_second": rounded(loopback),
        "round_trip_p50_ms": rounded(round_trip.percentile_ms(50.0)),
        "round_trip_p99_ms": rounded(round_trip.percentile_ms(99.0)),
        "memory_copy_megabytes_per_second": rounded(memory_copy(span)),
        "crc32c_megabytes_per_second": rounded(checksum(span)),
    });
    tell(&document, out);
    Ok(ExitCode::SUCCESS)
}

fn tell(document: &Value, out: &Output) {
    if out.is_json() {
        out.json(document);
        return;
    }
    let columns = [
        "size",
        "in_flight",
        "writes_per_second",
        "megabytes_per_second",
        "p50_ms",
        "p99_ms",
        "p99_9_ms",
    ];
    let rows = document["synced_writes"].as_array().into_iter().flatten();
    let row = |row: &Value| columns.iter().map(|name| row[*name].clone()).collect();
    out.rows(&columns, rows.map(row).collect());
    let mut rest = document.clone();
    if let Some(rest) = rest.as_object_mut() {
        rest.remove("synced_writes");
        for (name, value) in document["paced_write"].as_object().into_iter().flatten() {
            rest.insert(format!("paced_write_{name}"), value.clone());
        }
        rest.remove("paced_write");
    }
    out.document(&rest);
}

/// A preallocated file of zeros that is removed at the end.
struct Scratch {
    path: PathBuf,
    direct: bool,
}

impl Scratch {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(format!(".sluice-bench-{}", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let made = || format!("{} cannot be written", path.display());
        let mode = Mode::from_raw_mode(0o600);
        let file = rustix::fs::open(&path, flags, mode).with_context(made)?;
        let mut scratch = Self { path: path.clone(), direct: true };
        let zeros = AlignedBuf::zeroed(CHUNK_BYTES);
        for at in (0..FILE_BYTES).step_by(CHUNK_BYTES) {
            write_at(&file, &zeros, at).with_context(made)?;
        }
        rustix::fs::fsync(&file).with_context(made)?;
        scratch.direct = match scratch.open().and_then(|file| write_at(&file, &zeros, 0)) {
            Ok(()) => true,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => false,
            Err(error) => return Err(error).with_context(made),
        };
        Ok(scratch)
    }

    /// Opens it for synced writes, past the page cache where the file system allows that.
    fn open(&self) -> Result<OwnedFd, Errno> {
        let direct = if self.direct { OFlags::DIRECT } else { OFlags::empty() };
        let flags = OFlags::WRONLY | OFlags::DSYNC | OFlags::CLOEXEC | direct;
        rustix::fs::open(&self.path, flags, Mode::empty())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind would only take room.
        let _ = rustix::fs::unlink(&self.path);
    }
}

fn write_at(file: &OwnedFd, bytes: &[u8], at: u64) -> Result<(), Errno> {
    match rustix::io::pwrite(file, bytes, at) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::NOSPC),
        Err(error) => Err(error),
    }
}

/// Synced writes of `bytes`, `in_flight` at a time, one behind the other in the file.
fn synced(file: &Scratch, bytes: u64, in_flight: usize, span: Duration) -> anyhow::Result<Tally> {
    let next = Arc::new(AtomicU64::new(0));
    let begin = Instant::now();
    let mut threads = Vec::new();
    for index in 0..in_flight {
        let (fd, next) = (file.open()?, next.clone());
        threads.push(common::threads::spawn(&format!("write-{index}"), move || {
            let mut tally = Tally::new(0);
            let mut buffer = AlignedBuf::zeroed(usize::try_from(bytes)?);
            buffer.fill(0x5a);
            while begin.elapsed() < span {
                let at = next.fetch_add(bytes, Ordering::Relaxed) % (FILE_BYTES - bytes + 1);
                let before = since(begin);
                write_at(&fd, &buffer, at / BLOCK_BYTES * BLOCK_BYTES)?;
                tally.answer(before, since(begin), 1, bytes);
            }
            Ok::<_, anyhow::Error>(tally)
        })?);
    }
    let mut total = Tally::new(0);
    for thread in threads {
        total.merge(&thread.join().map_err(|_| anyhow!("a thread panicked"))??);
    }
    Ok(total)
}

/// Blocks written at a steady rate, [`PACED_THREADS`] at most at a time: what a broker's log asks of the disk when small
/// requests come in. A disk that is kept busy answers otherwise than one that is woken up a thousand times a second.
fn paced(file: &Scratch, span: Duration) -> anyhow::Result<Tally> {
    let begin = Instant::now();
    let mut threads = Vec::new();
    for index in 0..PACED_THREADS {
        let fd = file.open()?;
        threads.push(common::threads::spawn(&format!("paced-{index}"), move || {
            let mut tally = Tally::new(0);
            let mut buffer = AlignedBuf::zeroed(usize::try_from(BLOCK_BYTES)?);
            buffer.fill(0x5a);
            for turn in (u64::from(index)..).step_by(usize::try_from(PACED_THREADS)?) {
                let due = Duration::from_secs(1) / PACED_RATE * u32::try_from(turn)?;
                if due >= span {
                    break;
                }
                pause(due.saturating_sub(begin.elapsed()));
                let before = since(begin);
                write_at(&fd, &buffer, turn * BLOCK_BYTES % FILE_BYTES)?;
                tally.answer(before, since(begin), 1, BLOCK_BYTES);
            }
            Ok::<_, anyhow::Error>(tally)
        })?);
    }
    let mut total = Tally::new(0);
    for thread in threads {
        total.merge(&thread.join().map_err(|_| anyhow!("a thread panicked"))??);
    }
    Ok(total)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread of its own that measures the machine, not a simulation"
)]
fn pause(span: Duration) {
    std::thread::sleep(span);
}

fn paced_document(tally: &Tally) -> Value {
    json!({
        "size": BLOCK_BYTES,
        "rate": PACED_RATE,
        "p50_ms": rounded(tally.percentile_ms(50.0)),
        "p99_ms": rounded(tally.percentile_ms(99.0)),
        "p99_9_ms": rounded(tally.percentile_ms(99.9)),
    })
}

fn since(begin: Instant) -> u64 {
    u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn pair() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    Ok((client, server))
}

/// MB/s through one connection on loopback.
fn loopback(span: Duration) -> anyhow::Result<f64> {
    let (mut client, mut server) = pair()?;
    let begin = Instant::now();
    let sender = common::threads::spawn("send", move || {
        let buffer = vec![0x5a; CHUNK_BYTES];
        while begin.elapsed() < span && client.write_all(&buffer).is_ok() {}
    })?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0u64;
    loop {
        match server.read(&mut buffer)? {
            0 => break,
            count => total += count as u64,
        }
    }
    sender.join().map_err(|_| anyhow!("a thread panicked"))?;
    Ok(total as f64 / 1e6 / begin.elapsed().as_secs_f64())
}

/// A kilobyte there and back on loopback.
fn round_trip(span: Duration) -> anyhow::Result<Tally> {
    let (mut client, mut server) = pair()?;
    let echo = common::threads::spawn("echo", move || {
        let mut buffer = [0; PING_BYTES];
        while server.read_exact(&mut buffer).is_ok() && server.write_all(&buffer).is_ok() {}
    })?;
    let mut tally = Tally::new(0);
    let mut buffer = [0x5a; PING_BYTES];
    let begin = Instant::now();
    while begin.elapsed() < span {
        let before = since(begin);
        client.write_all(&buffer)?;
        client.read_exact(&mut buffer)?;
        tally.answer(before, since(begin), 1, PING_BYTES as u64);
    }
    drop(client);
    echo.join().map_err(|_| anyhow!("a thread panicked"))?;
    Ok(tally)
}

/// MB/s of copying memory that is in no cache, on one core.
fn memory_copy(span: Duration) -> f64 {
    let from = vec![0x5a; COPY_BYTES];
    let mut to = vec![0; COPY_BYTES];
    repeated(span, COPY_BYTES, || {
        to.copy_from_slice(std::hint::black_box(&from));
        std::hint::black_box(&mut to);
    })
}

/// MB/s of CRC-32C over memory that is in the cache, on one core.
fn checksum(span: Duration) -> f64 {
    let bytes = vec![0x5a; CHUNK_BYTES];
    repeated(span, CHUNK_BYTES, || {
        std::hint::black_box(common::crc32c(std::hint::black_box(&bytes)));
    })
}

fn repeated(span: Duration, bytes: usize, mut work: impl FnMut()) -> f64 {
    work();
    let begin = Instant::now();
    let mut total = 0;
    while begin.elapsed() < span {
        work();
        total += bytes;
    }
    total as f64 / 1e6 / begin.elapsed().as_secs_f64()
}

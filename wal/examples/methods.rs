//! Measures ways to make a group durable: `cargo run --release -p wal --example methods -- DIR`.
//!
//! Writes to a preallocated, zero-filled file in DIR: buffered with `fdatasync`, `O_DSYNC`, and `O_DIRECT | O_DSYNC`, with
//! 1 to 8 threads, each at its own place, at 4 KiB, 64 KiB and 1 MiB. Prints writes and megabytes a second, p50 and p99 of
//! a write, and the processor's time per write.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use tokio::time::Instant;
use wal::AlignedBuf;

const FILE_BYTES: usize = 256 << 20;
const TIME: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
struct Method {
    name: &'static str,
    flags: OFlags,
    sync: bool,
}

fn main() {
    let dir = std::env::args().nth(1).expect("a directory on the file system to measure");
    let path = Path::new(&dir).join("methods.tmp");
    fill(&path);
    let methods = [
        Method { name: "buffered + fdatasync", flags: OFlags::empty(), sync: true },
        Method { name: "O_DSYNC", flags: OFlags::DSYNC, sync: false },
        Method {
            name: "O_DIRECT|O_DSYNC",
            flags: OFlags::DIRECT.union(OFlags::DSYNC),
            sync: false,
        },
    ];
    println!(
        "method                size KiB threads writes/s    MB/s  p50 us  p99 us CPU us/write"
    );
    for size in [4 << 10, 64 << 10, 1 << 20] {
        for method in methods {
            for threads in [1, 2, 4, 8] {
                measure(&path, method, size, threads);
            }
        }
    }
    rustix::fs::unlink(&path).expect("our own file");
}

fn fill(path: &Path) {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).expect("the file opens");
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, FILE_BYTES as u64).expect("room");
    let zeros = AlignedBuf::zeroed(1 << 20);
    for at in (0..FILE_BYTES).step_by(1 << 20) {
        rustix::io::pwrite(&file, &zeros, at as u64).expect("a write");
    }
    rustix::fs::fsync(&file).expect("a sync");
}

fn measure(path: &Path, method: Method, size: usize, threads: usize) {
    let (cpu, began) = (cpu_seconds(), Instant::now());
    let writers: Vec<_> = (0..threads)
        .map(|index| {
            let path = PathBuf::from(path);
            let own = FILE_BYTES / threads;
            let writer = move || write(&path, method, size, index * own, own);
            common::threads::spawn("method", writer).expect("a thread")
        })
        .collect();
    let mut waits = Vec::new();
    for writer in writers {
        waits.extend(writer.join().expect("no panic"));
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100].as_micros();
    let rate = waits.len() as f64 / seconds;
    println!(
        "{:<21} {:>8} {threads:>7} {rate:>8.0} {:>7.0} {:>7} {:>7} {:>12.0}",
        method.name,
        size >> 10,
        rate * size as f64 / 1e6,
        at(50),
        at(99),
        cpu * 1e6 / waits.len() as f64,
    );
}

fn write(path: &Path, method: Method, size: usize, from: usize, own: usize) -> Vec<Duration> {
    let file = rustix::fs::open(path, OFlags::WRONLY | method.flags, Mode::empty()).expect("opens");
    let mut bytes = AlignedBuf::zeroed(size);
    bytes.fill(7);
    let (began, mut waits, mut at) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < TIME {
        let start = Instant::now();
        let written = rustix::io::pwrite(&file, &bytes, (from + at) as u64).expect("a write");
        assert_eq!(written, size, "a whole write");
        if method.sync {
            rustix::fs::fdatasync(&file).expect("a sync");
        }
        waits.push(start.elapsed());
        at = (at + size) % own;
    }
    waits
}

/// User and system time of this process so far, in ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<_> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

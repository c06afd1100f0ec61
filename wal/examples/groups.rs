//! Measures synced appends on a directory: `cargo run --release -p wal --example groups -- DIR`.
//! Prints, for each payload size and number of appenders, appends and megabytes a second, and p50 and p99 of an append's
//! wait for durability.

use std::sync::Arc;
use std::time::Duration;

use common::metrics::Registry;
use common::{Lsn, PartitionId, StreamEpoch, StreamKind, WalEpoch, WalId};
use tokio::time::Instant;
use wal::{DirDisk, Error, Frame, FrameHeader, Group, Identity, Listener, Options, Wal};

struct Deaf;

impl Listener for Deaf {
    fn sealed(&self, _: Arc<Group>) {}
    fn durable(&self, _: &Arc<Group>, _: Lsn) {}
    fn failed(&self, error: &Error) {
        panic!("{error}");
    }
    fn space(&self) {}
}

async fn appender(wal: Wal, bytes: Vec<u8>, until: Instant) -> Vec<Duration> {
    let header = FrameHeader {
        kind: 0,
        flags: 0,
        stream: PartitionId { topic: 1, index: 0 }.stream(StreamKind::Data),
        epoch: StreamEpoch(0),
        base_offset: 0,
        span: 1,
        count: 1,
        max_timestamp: 0,
        key_id: 0,
    };
    let mut waits = Vec::new();
    let mut durable = wal.subscribe();
    while Instant::now() < until {
        let begin = Instant::now();
        match wal.append(&[Frame { header, parts: &[&bytes] }]) {
            Ok(at) => {
                wal.kick();
                durable.wait_for(|lsn| *lsn > at.group).await.expect("alive");
                waits.push(begin.elapsed());
            }
            Err(_) => tokio::time::sleep(Duration::from_micros(200)).await,
        }
        if waits.len().is_multiple_of(64) {
            wal.trim(wal.durable());
        }
    }
    waits
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let dir = std::env::args().nth(1).expect("a directory that does not exist yet");
    let disk = Arc::new(DirDisk::open(dir.as_ref()).expect("the directory opens"));
    println!("direct {}", disk.is_direct());
    let identity =
        Identity { wal: WalId(1), salt: 1, epochs: Vec::new(), committed: Lsn(0), fresh: true };
    let options = Options { capacity_max: 1 << 30, ..Options::default() };
    let recovered = Wal::recover(disk, &options, &identity).await.expect("a new log");
    let registry = Registry::default();
    let wal = Wal::start(recovered, WalEpoch(1), Arc::new(Deaf), &registry).await.expect("starts");
    for (size, appenders) in
        [(1024, 1), (1024, 4), (1024, 64), (16_384, 16), (1_000_000, 1), (1_000_000, 8)]
    {
        let time = Duration::from_secs(4);
        let until = Instant::now() + time;
        let tasks: Vec<_> = (0..appenders)
            .map(|_| tokio::spawn(appender(wal.clone(), vec![7; size], until)))
            .collect();
        let mut waits = Vec::new();
        for task in tasks {
            waits.extend(task.await.expect("no panic"));
        }
        waits.sort_unstable();
        let at = |per_mille: usize| waits[(waits.len() - 1) * per_mille / 1000];
        let rate = waits.len() as f64 / time.as_secs_f64();
        let megabytes = rate * size as f64 / 1e6;
        println!(
            "{size:>8} B x {appenders:>2}: {rate:>8.0} appends/s {megabytes:>7.1} MB/s p50 {:?} p99 {:?}",
            at(500),
            at(990)
        );
    }
    wal.close().await;
}

//! The bytes of version 1, fixed: a log written by this version is read by every later one.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use common::metrics::Registry;
use common::{Lsn, PartitionId, StreamEpoch, StreamKind, WalEpoch, WalId};
use parking_lot::Mutex;
use wal::{
    Disk, Done, Error, Frame, FrameHeader, Group, Identity, Listener, Options, SegmentFile, Space,
    Wal,
};

const GOLDEN: &str = include_str!("golden/group-v1.hex");

struct Deaf;

impl Listener for Deaf {
    fn sealed(&self, _: Arc<Group>) {}
    fn durable(&self, _: &Arc<Group>, _: Lsn) {}
    fn failed(&self, _: &Error) {}
    fn space(&self) {}
}

/// One segment in memory.
#[derive(Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

fn later(answer: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move { answer() });
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<SegmentFile>> {
        let len = self.0.lock().len() as u64;
        Ok(if len == 0 { Vec::new() } else { vec![SegmentFile { number: 0, len }] })
    }
    fn create(&self, number: u64, len: u64, done: Done<()>) {
        if number == 0 {
            *self.0.lock() = vec![0; usize::try_from(len).expect("small")];
        }
        later(|| done(Ok(())));
    }
    fn reuse(&self, _: u64, _: u64, _: Done<()>) {
        unreachable!("nothing is trimmed");
    }
    fn remove(&self, _: u64, _: Done<()>) {
        unreachable!("nothing is trimmed");
    }
    fn write(&self, _: u64, at: u64, bytes: Bytes, done: Done<()>) {
        let at = usize::try_from(at).expect("small");
        self.0.lock()[at..at + bytes.len()].copy_from_slice(&bytes);
        later(|| done(Ok(())));
    }
    fn read(&self, _: u64, at: u64, len: usize, done: Done<Bytes>) {
        let at = usize::try_from(at).expect("small");
        let bytes = Bytes::copy_from_slice(&self.0.lock()[at..at + len]);
        later(|| done(Ok(bytes)));
    }
    fn space(&self) -> io::Result<Space> {
        Ok(Space { total: 1 << 30, available: 1 << 30 })
    }
}

/// Two frames behind the opening group, as hexadecimal lines of 32 bytes.
async fn written() -> String {
    let memory = Memory::default();
    let bytes = memory.0.clone();
    let disk: Arc<dyn Disk> = Arc::new(memory);
    let identity = Identity {
        wal: WalId(0x0102_0304_0506_0708),
        salt: 0x1112_1314_1516_1718,
        epochs: Vec::new(),
        committed: Lsn(0),
        fresh: true,
    };
    let options = Options { capacity_max: 1 << 20, ..Options::default() };
    let recovered = Wal::recover(disk, &options, &identity).await.expect("fresh");
    let registry = Registry::default();
    let wal =
        Wal::start(recovered, WalEpoch(0x21), Arc::new(Deaf), &registry).await.expect("starts");
    let header = |kind, base_offset| FrameHeader {
        kind,
        flags: 0x81,
        stream: PartitionId { topic: 0x3132, index: 0x33 }.stream(StreamKind::Index),
        epoch: StreamEpoch(0x41),
        base_offset,
        span: 3,
        count: 2,
        max_timestamp: 0x0051_5253,
        key_id: 0x61,
    };
    let parts: [&[u8]; 2] = [b"first ", b"payload"];
    let frames = [
        Frame { header: header(1, 0x71), parts: &parts },
        Frame { header: header(2, 0x74), parts: &[b"second"] },
    ];
    wal.append(&frames).expect("fits");
    wal.kick();
    wal.subscribe().wait_for(|durable| durable.0 >= 8192).await.expect("alive");
    let bytes = bytes.lock();
    let used = 128 + 2 * 72 + 13 + 6;
    assert!(bytes[4096 + used..8192].iter().all(|byte| *byte == 0), "padding is zero");
    let lines = bytes[4096..4096 + used].chunks(32).map(|line| {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        digits.concat() + "\n"
    });
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn version_1_stays_as_it_is() {
    let written = written().await;
    assert_eq!(written, GOLDEN, "written now:\n{written}");
}

//! The real disk, direct and buffered: whole lives of a log in a temporary directory.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::metrics::Registry;
use common::{Lsn, PartitionId, StreamEpoch, StreamKind, WalEpoch, WalId};
use parking_lot::Mutex;
use wal::disk::Mode;
use wal::{
    AppendError, DirDisk, Disk, Error, Frame, FrameHeader, Group, Identity, Inspector, Item,
    Listener, Options, Position, Wal,
};

#[derive(Default)]
struct Heard(Mutex<Vec<i64>>);

impl Listener for Heard {
    fn sealed(&self, _: Arc<Group>) {}
    fn durable(&self, group: &Arc<Group>, _: Lsn) {
        self.0.lock().extend(group.frames().iter().map(|frame| frame.header.base_offset));
    }
    fn failed(&self, error: &Error) {
        panic!("{error}");
    }
    fn space(&self) {}
}

fn header(id: i64) -> FrameHeader {
    FrameHeader {
        kind: 2,
        flags: 1,
        stream: PartitionId { topic: 1, index: 3 }.stream(StreamKind::State),
        epoch: StreamEpoch(2),
        base_offset: id,
        span: 1,
        count: 1,
        max_timestamp: -1,
        key_id: 0,
    }
}

fn options() -> Options {
    Options {
        capacity_max: 32 << 20,
        segment_bytes: 4 << 20,
        first_segment_bytes: 1 << 20,
        ..Options::default()
    }
}

/// Appends once there is room: the next segment may still be on its way.
async fn append(wal: &Wal, frame: &Frame<'_>) -> Position {
    loop {
        match wal.append(std::slice::from_ref(frame)) {
            Err(AppendError::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
            other => return other.expect("fits"),
        }
    }
}

async fn lives(dir: &Path, mode: Mode) {
    let sizes = [10, 4000, 900_000, 200_000, 3_000_000, 1];
    let mut identity =
        Identity { wal: WalId(1), salt: 9, epochs: Vec::new(), committed: Lsn(0), fresh: true };
    let mut expected = Vec::new();
    for life in 1..=3_u64 {
        let disk = Arc::new(DirDisk::open_with(dir, mode).expect("opens"));
        let recovered = Wal::recover(disk, &options(), &identity).await.expect("recovers");
        let found: Vec<i64> = recovered
            .groups()
            .iter()
            .flat_map(|group| group.frames().iter().map(|frame| frame.header.base_offset))
            .collect();
        assert_eq!(found, expected);
        identity.epochs.push((WalEpoch(life), recovered.end()));
        identity.fresh = false;
        let heard = Arc::new(Heard::default());
        let wal = Wal::start(recovered, WalEpoch(life), heard.clone(), &Registry::default())
            .await
            .expect("starts");
        let mut mine = Vec::new();
        for (id, size) in (0..).zip(sizes) {
            let id = i64::try_from(life).expect("small") * 100 + id;
            let bytes = vec![u8::try_from(id % 251).expect("small"); size];
            let at = append(&wal, &Frame { header: header(id), parts: &[&bytes] }).await;
            wal.kick();
            wal.subscribe().wait_for(|durable| *durable > at.group).await.expect("alive");
            assert_eq!(wal.read(at.group, at.frame).await.expect("there"), bytes);
            mine.push(id);
        }
        wal.close().await;
        assert_eq!(*heard.0.lock(), mine);
        expected.extend(mine);
    }
    inspect(dir, expected.len()).await;
}

async fn inspect(dir: &Path, expected: usize) {
    let disk = Arc::new(DirDisk::open_read_only(dir).expect("opens"));
    for salt in [None, Some(9)] {
        let mut inspector = Inspector::open(disk.clone(), salt).expect("lists");
        let mut frames = 0;
        while let Some(item) = inspector.next().await.expect("reads") {
            if let Item::Group { frames: found, in_place, table_intact, .. } = item {
                assert!(in_place && table_intact && found.iter().all(|(_, intact)| *intact));
                frames += found.len();
            }
        }
        assert_eq!(frames, expected);
    }
    let (sender, receiver) = std::sync::mpsc::channel();
    disk.remove(0, Box::new(move |result| sender.send(result).expect("waited for")));
    assert!(receiver.recv().expect("answered").is_err());
}

#[tokio::test]
async fn direct_lives() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    lives(&dir.path().join("wal"), Mode::Auto).await;
}

#[tokio::test]
async fn buffered_lives() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    lives(&dir.path().join("wal"), Mode::Buffered).await;
}

#[tokio::test]
async fn a_log_much_longer_than_its_capacity_reuses_its_segments() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let disk = Arc::new(DirDisk::open(dir.path()).expect("opens"));
    let identity =
        Identity { wal: WalId(1), salt: 9, epochs: Vec::new(), committed: Lsn(0), fresh: true };
    let recovered = Wal::recover(disk.clone(), &options(), &identity).await.expect("recovers");
    let registry = Registry::default();
    let heard = Arc::new(Heard::default());
    let wal = Wal::start(recovered, WalEpoch(1), heard.clone(), &registry).await.expect("starts");
    let bytes = vec![5; 700_000];
    let mut id = 0;
    while id < 150 {
        match wal.append(&[Frame { header: header(id), parts: &[&bytes] }]) {
            Ok(_) => id += 1,
            Err(error) => {
                assert_eq!(error, wal::AppendError::Full);
                wal.trim(wal.durable());
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
        wal.kick();
    }
    wal.close().await;
    assert_eq!(*heard.0.lock(), (0..150).collect::<Vec<_>>());
    let total: u64 = disk.list().expect("lists").iter().map(|segment| segment.len).sum();
    assert!(total <= 32 << 20, "{total}");
    let text = registry.render();
    let reused = text.lines().find(|line| line.starts_with("sluice_wal_segments_reused_total "));
    let reused = reused.and_then(|line| line.rsplit(' ').next()).expect("a metric");
    assert!(reused.parse::<u64>().expect("a number") > 5, "{reused}");
}

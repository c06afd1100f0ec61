use std::path::Path;
use std::time::Duration;

use common::{Clock, Rng, Shutdown};
use meta::command::{AllocateProducerIds, CreateTopic};
use meta::{Batch, MetaStore, Reply, Space, testing};
use tempfile::TempDir;

use super::RocksStore;

/// A power cut of a process: what it had not synced is still in the kernel, so this proves a clean and a killed end; the
/// crash tests cut the power of a whole file system.
#[tokio::test]
async fn holds_what_a_metadata_store_must() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("meta");
    let mut reopen =
        |_cut: bool| -> Box<dyn MetaStore> { Box::new(RocksStore::open(&path).expect("opens")) };
    meta::conformance::run(&mut reopen).await;
}

#[test]
fn a_second_process_and_a_missing_store_are_refused_with_the_path() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("meta");
    let missing = RocksStore::open_read_only(&path).err().expect("nothing there");
    assert!(missing.to_string().contains("meta"), "{missing}");
    let _first = RocksStore::open(&path).expect("opens");
    let second = RocksStore::open(&path).err().expect("refused");
    assert!(second.to_string().contains(&*path.to_string_lossy()), "{second}");
}

/// Damage in the middle of its log is not taken for the log's end: what follows it was acknowledged.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the test damages a file")]
async fn damage_in_the_middle_of_the_log_is_refused() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("meta");
    let mut store = RocksStore::open(&path).expect("opens");
    for number in 0..20_u8 {
        let mut batch = Batch::default();
        batch.put(Space::State, vec![number], vec![number; 100]);
        store.write(batch, true).await.expect("written");
    }
    drop(store);
    let files = std::fs::read_dir(&path).expect("listed").map(|file| file.expect("a file").path());
    let logs = files.filter(|file| file.extension().is_some_and(|kind| kind == "log"));
    let log = logs.max().expect("a log");
    let mut bytes = std::fs::read(&log).expect("read");
    let middle = bytes.windows(100).position(|part| part == [9_u8; 100]).expect("the tenth write");
    bytes[middle + 50] ^= 1;
    std::fs::write(&log, bytes).expect("written");
    let error = RocksStore::open(&path).err().expect("refused").to_string();
    assert!(error.to_lowercase().contains("corrupt"), "{error}");
}

struct Running {
    handle: meta::Handle,
    shutdown: Shutdown,
    thread: std::thread::JoinHandle<Result<(), meta::Fatal>>,
}

async fn begin(path: &Path, seed: u64) -> Running {
    let store = RocksStore::open(path).expect("opens");
    let shutdown = Shutdown::new();
    let clock = Clock::system();
    let voter = testing::voter(store, clock, Rng::seeded(seed), shutdown.clone());
    let (handle, driver) = voter.await.expect("starts");
    let thread = driver.run_on_thread("meta").expect("a thread");
    Running { handle, shutdown, thread }
}

async fn end(running: Running) {
    running.shutdown.cancel();
    drop(running.handle);
    running.thread.join().expect("no panic").expect("no failure");
}

/// The bound is generous, for a busy machine; the measured time is printed with `--nocapture`.
#[tokio::test]
async fn a_single_voter_is_ready_at_once_and_keeps_what_it_said() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("meta");
    let clock = Clock::system();
    let mut next_producer = None;
    for life in 0..4_u32 {
        let before = clock.elapsed();
        let running = begin(&path, u64::from(life)).await;
        if life == 0 {
            testing::begin(&running.handle).await.expect("begins");
        }
        let reply = running.handle.propose(AllocateProducerIds { node: 1 }).await.expect("a reply");
        let took = clock.elapsed().saturating_sub(before);
        println!("life {life}: open, elected and first command durable after {took:?}");
        assert!(took < Duration::from_secs(5), "took {took:?}");
        let Reply::ProducerIds { start, len } = reply else { panic!("{reply:?}") };
        assert!(next_producer.is_none_or(|next| next == start), "ids were issued twice");
        next_producer = Some(start + i64::from(len));
        for number in 0..20 {
            let topic = CreateTopic {
                name: format!("t{life}-{number}"),
                id: uuid_bytes(life, number),
                partitions: 3,
                replication_factor: 3,
                ..CreateTopic::default()
            };
            let reply = running.handle.propose(topic).await.expect("a reply");
            assert!(matches!(reply, Reply::TopicCreated { partitions: 3, .. }), "{reply:?}");
        }
        let image = running.handle.image();
        assert_eq!(image.topics.len(), usize::try_from(20 * (life + 1)).expect("small"));
        end(running).await;
    }
}

fn uuid_bytes(life: u32, number: u32) -> Vec<u8> {
    [[0; 8].as_slice(), &life.to_be_bytes(), &number.to_be_bytes()].concat()
}

#[tokio::test]
async fn a_dump_reads_beside_a_running_voter() {
    let home = TempDir::new().expect("a directory");
    let path = home.path().join("meta");
    let running = begin(&path, 1).await;
    testing::begin(&running.handle).await.expect("begins");
    let beside = RocksStore::open_read_only(&path).expect("opens beside it");
    let summary = meta::summary(&beside).expect("readable");
    assert!(summary.applied > 1 && summary.keys > 0, "{summary:?}");
    let mut kinds = Vec::new();
    meta::dump(&beside, |line| kinds.push(line.kind)).expect("readable");
    for wanted in ["cluster", "broker", "wal"] {
        assert!(kinds.contains(&wanted), "{wanted} in {kinds:?}");
    }
    assert!(!kinds.contains(&"unreadable"));
    end(running).await;
}

/// One by one and many at a time; what it took is printed with `--nocapture`.
#[tokio::test]
async fn many_commands_at_a_time_are_all_answered() {
    let home = TempDir::new().expect("a directory");
    let running = begin(&home.path().join("meta"), 1).await;
    testing::begin(&running.handle).await.expect("begins");
    let clock = Clock::system();
    let propose = async |together: usize, rounds: usize| {
        let began = clock.elapsed();
        for _ in 0..rounds {
            let one = || running.handle.propose(AllocateProducerIds { node: 1 });
            for reply in futures::future::join_all((0..together).map(|_| one())).await {
                assert!(matches!(reply, Ok(Reply::ProducerIds { .. })), "{reply:?}");
            }
        }
        let took = clock.elapsed().saturating_sub(began);
        println!("{rounds} x {together} commands in {took:?}");
    };
    propose(1, 100).await;
    propose(64, 20).await;
    end(running).await;
}

use common::metrics::Counter;
use object_store::path::Path;

use super::*;
use crate::config::SinkConfig;
use crate::ledger::{AccessError, Ledger};
use crate::record::Piece;
use crate::source::{Chunk, Source, View};
use crate::testing::{self, Memory, Rig};
use crate::verify::{Outcome, verify};

/// Opens over a rig; the first `faults` openings fail.
struct Open {
    rig: Arc<Rig>,
    keys: &'static [(&'static str, &'static str)],
    faults: Counter,
    error: Error,
}

#[async_trait]
impl Opener for Open {
    async fn open(&self) -> Result<Executor, Error> {
        if self.faults.get() > 0 {
            self.faults.inner().fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            return Err(self.error.clone());
        }
        Ok(testing::executor(&self.rig.memory, &self.rig.store, self.keys, 0))
    }
}

struct Started {
    rig: Arc<Rig>,
    status: Arc<Mutex<PartitionStatus>>,
    shutdown: Shutdown,
    join: tokio::task::JoinHandle<()>,
}

fn start(
    keys: &'static [(&'static str, &'static str)],
    origin: Option<i64>,
    faults: u64,
    error: Error,
) -> Started {
    let rig = Arc::new(Rig::new(keys));
    let raw = keys.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let (status, shutdown) = (Arc::default(), Shutdown::new());
    let counter = Counter::default();
    counter.inc_by(faults);
    let task = Task {
        opener: Box::new(Open { rig: Arc::clone(&rig), keys, faults: counter, error }),
        rules: SinkConfig::parse(&raw).expect("valid").rules,
        limits: Limits::default(),
        origin,
        floor: 0,
        clock: Clock::simulated(1_700_000_000_000),
        poll: Duration::from_millis(100),
        budget: Budget::new(64 << 20),
        writers: Arc::new(Semaphore::new(2)),
        metrics: Metrics::default(),
        status: Arc::clone(&status),
        shutdown: shutdown.clone(),
    };
    Started { rig, status, shutdown, join: tokio::spawn(task.run()) }
}

fn passing() -> Error {
    Error::Retry("out of reach".to_owned())
}

async fn rows(started: &Started) -> u64 {
    let store = Arc::clone(&started.rig.store);
    let report = verify(store, &Path::from("p"), "topics", "s", None).await;
    if report.partitions.is_empty() {
        return 0;
    }
    assert_eq!(report.outcome, Outcome::Proved, "{:?}", report.findings);
    report.partitions[0].rows
}

#[tokio::test(start_paused = true)]
async fn idle_data_is_closed_by_the_wall_clock() {
    let started = start(&[("rotate.interval.ms", "60000")], None, 0, passing());
    started.rig.memory.flights(5);
    sleep(Duration::from_secs(59)).await;
    assert_eq!(rows(&started).await, 0);
    let status = started.status.lock().clone();
    assert_eq!(
        (status.state, status.boundary, status.lag, status.open_records),
        (State::Running, Some(0), 5, 5)
    );
    assert!(status.freshness_ms > 58_000, "{status:?}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(rows(&started).await, 5);
    let status = started.status.lock().clone();
    assert_eq!((status.boundary, status.lag, status.freshness_ms, status.rows), (Some(5), 0, 0, 5));
    started.shutdown.cancel();
    started.join.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn a_schedule_closes_on_the_hour() {
    let keys = &[("rotate.schedule.interval.ms", "3600000"), ("timezone", "Europe/Berlin")];
    let started = start(keys, None, 0, passing());
    // 22:13:20 UTC.
    started.rig.memory.flights(5);
    sleep(Duration::from_secs(46 * 60)).await;
    assert_eq!(rows(&started).await, 0);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rows(&started).await, 5);
    started.shutdown.cancel();
    started.join.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn faults_that_pass_are_tried_again_and_shown() {
    let started = start(&[("flush.size", "5")], None, 3, passing());
    started.rig.memory.flights(12);
    sleep(Duration::from_millis(50)).await;
    let status = started.status.lock().clone();
    assert_eq!((status.state, status.problem.as_deref()), (State::Retrying, Some("out of reach")));
    sleep(Duration::from_secs(5)).await;
    let status = started.status.lock().clone();
    assert_eq!((status.state, status.problem), (State::Running, None));
    assert_eq!(rows(&started).await, 10);
    started.shutdown.cancel();
    started.join.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn a_fault_that_stays_stops_with_its_remedy() {
    let error = Error::Stop { reason: "foreign".to_owned(), remedy: "move it".to_owned() };
    let started = start(&[("flush.size", "5")], None, 1, error);
    sleep(Duration::from_secs(600)).await;
    let status = started.status.lock().clone();
    assert_eq!(
        (status.state, status.problem.as_deref()),
        (State::Stopped, Some("foreign; move it"))
    );
    started.shutdown.cancel();
    started.join.await.expect("ends");
}

#[tokio::test(start_paused = true)]
async fn a_sink_begins_where_it_was_told() {
    let started = start(&[("flush.size", "5")], Some(4), 0, passing());
    started.rig.memory.flights(12);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(rows(&started).await, 5);
    assert_eq!(started.status.lock().boundary, Some(9));
    started.shutdown.cancel();
    started.join.await.expect("ends");
}

/// A log that claims more than it gives.
struct Short(Memory);

#[async_trait]
impl Source for Short {
    fn view(&self) -> View {
        View { readable_end: 10, ..self.0.view() }
    }

    async fn read(&self, from: i64, until: i64, bytes: u64) -> Result<Chunk, AccessError> {
        self.0.read(from, until, bytes).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_gives_nothing_is_a_fault_and_no_busy_loop() {
    struct Once(Arc<Short>);
    #[async_trait]
    impl Opener for Once {
        async fn open(&self) -> Result<Executor, Error> {
            let rig = Rig::new(&[("flush.size", "5")]);
            let ledger = Arc::clone(&rig.memory) as Arc<dyn Ledger>;
            Ok(Executor { source: Arc::clone(&self.0) as Arc<dyn Source>, ledger, ..rig.executor })
        }
    }
    let mut started = start(&[("flush.size", "5")], None, 0, passing());
    started.shutdown.cancel();
    started.join.await.expect("ends");
    let short = Arc::new(Short(Memory::default()));
    assert!(short.0.pieces.lock().iter().all(|piece| matches!(piece, Piece::Record(_))));
    let (status, shutdown) = (Arc::<Mutex<PartitionStatus>>::default(), Shutdown::new());
    let task = Task {
        opener: Box::new(Once(short)),
        rules: SinkConfig::parse(&std::collections::BTreeMap::new()).expect("valid").rules,
        limits: Limits::default(),
        origin: None,
        floor: 0,
        clock: Clock::simulated(0),
        poll: Duration::from_millis(100),
        budget: Budget::new(64 << 20),
        writers: Arc::new(Semaphore::new(2)),
        metrics: Metrics::default(),
        status: Arc::clone(&status),
        shutdown: shutdown.clone(),
    };
    started.join = tokio::spawn(task.run());
    sleep(Duration::from_millis(50)).await;
    let problem = status.lock().problem.clone().expect("shown");
    assert!(problem.contains("offset 0"), "{problem}");
    shutdown.cancel();
    started.join.await.expect("ends");
}

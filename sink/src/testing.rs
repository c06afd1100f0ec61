//! A log and a ledger in memory, and a rig around them, for tests of the executor and of `verify`.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use common::Rng;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use parking_lot::Mutex;

use crate::config::SinkConfig;
use crate::executor::{Boundary, Error, Executor, Identity};
use crate::ledger::{AccessError, Cut, Ledger};
use crate::metrics::Metrics;
use crate::planner::{Limits, Planner, RATIO_START_PPM};
use crate::record::{Hole, HoleKind, Piece, Record};
use crate::source::{Chunk, Source, View};

/// Log, ledger and floors of one partition.
#[derive(Default)]
pub(crate) struct Memory {
    pub pieces: Mutex<Vec<Piece>>,
    pub cuts: Mutex<Vec<Bytes>>,
    pub floors: Mutex<BTreeMap<u64, i64>>,
    /// Appends that are durable and still answer with an error.
    pub ambiguous_appends: Mutex<u32>,
}

#[async_trait]
impl Source for Memory {
    fn view(&self) -> View {
        let end = self.pieces.lock().last().map_or(0, Piece::end);
        View { log_start: 0, readable_end: end, high_watermark: end }
    }

    async fn read(&self, from: i64, until: i64, bytes_max: u64) -> Result<Chunk, AccessError> {
        let mut chunk = Chunk { pieces: Vec::new(), next: from };
        let mut bytes = 0;
        for piece in self.pieces.lock().iter().filter(|piece| piece.end() > from) {
            if chunk.next >= until || bytes > bytes_max {
                break;
            }
            let piece = match piece {
                Piece::Hole(hole) => Piece::Hole(Hole {
                    start: hole.start.max(from),
                    end: hole.end.min(until),
                    ..*hole
                }),
                record => record.clone(),
            };
            if let Piece::Record(record) = &piece {
                bytes += record.raw_bytes();
            }
            chunk.next = piece.end();
            chunk.pieces.push(piece);
        }
        Ok(chunk)
    }
}

#[async_trait]
impl Ledger for Memory {
    async fn last(
        &self,
        sink_id: u64,
        generation: u32,
        _from: i64,
    ) -> Result<Option<Cut>, AccessError> {
        let cuts = self.cuts.lock();
        let cuts = cuts.iter().map(|bytes| Cut::decode(bytes).expect("our own"));
        Ok(cuts.filter(|cut| (cut.sink_id, cut.generation) == (sink_id, generation)).last())
    }

    async fn append(&self, cut: &Cut) -> Result<(), AccessError> {
        self.cuts.lock().push(Bytes::from(cut.encode()));
        let mut ambiguous = self.ambiguous_appends.lock();
        if *ambiguous > 0 {
            *ambiguous -= 1;
            return Err(AccessError::Retry("answer lost".to_owned()));
        }
        Ok(())
    }

    async fn move_floor(&self, sink_id: u64, floor: i64) -> Result<(), AccessError> {
        self.floors.lock().insert(sink_id, floor);
        Ok(())
    }
}

impl Memory {
    /// Appends a record with a JSON value, a key on two of three, a header on one of two.
    pub(crate) fn json(&self, value: &str) {
        self.record(Some(value.as_bytes()));
    }

    pub(crate) fn record(&self, value: Option<&[u8]>) {
        let mut pieces = self.pieces.lock();
        let offset = pieces.last().map_or(0, Piece::end);
        let key = (offset % 3 != 0).then(|| Bytes::from(format!("N{offset}")));
        let header =
            (Bytes::from_static(b"h"), (offset % 4 != 0).then(|| Bytes::from_static(b"\x00\xff")));
        pieces.push(Piece::Record(Record {
            offset,
            timestamp: 1_356_998_400_000 + offset * 1000,
            key,
            value: value.map(Bytes::copy_from_slice),
            headers: if offset % 2 == 0 { vec![header] } else { Vec::new() },
        }));
    }

    pub(crate) fn hole(&self, span: i64, kind: HoleKind) {
        let mut pieces = self.pieces.lock();
        let start = pieces.last().map_or(0, Piece::end);
        pieces.push(Piece::Hole(Hole { start, end: start + span, kind }));
    }

    /// `count` flights, with a hole of each kind on the way.
    pub(crate) fn flights(&self, count: i64) {
        for n in 0..count {
            match n % 40 {
                13 => self.hole(1, HoleKind::Control),
                27 => self.hole(3, HoleKind::Compacted),
                _ => {}
            }
            let delay = if n % 7 == 0 { "null".to_owned() } else { format!("{}.5", n % 30) };
            self.json(&format!(
                r#"{{"row":{n},"carrier":"C{}","delay":{delay},"tags":["a",null],"o":{{"x":{n}}}}}"#,
                n % 5
            ));
        }
    }
}

/// Everything a sink of one partition needs.
pub(crate) struct Rig {
    pub memory: Arc<Memory>,
    pub store: Arc<dyn ObjectStore>,
    pub executor: Executor,
}

impl Rig {
    pub(crate) fn new(pairs: &[(&str, &str)]) -> Self {
        Self::over(Arc::new(InMemory::new()), pairs)
    }

    pub(crate) fn over(store: Arc<dyn ObjectStore>, pairs: &[(&str, &str)]) -> Self {
        let memory = Arc::new(Memory::default());
        let executor = executor(&memory, &store, pairs, 0);
        Self { memory, store, executor }
    }

    /// Opens and cuts until nothing more is due; the wall clock stands at `now_ms` and is moved on at the end.
    pub(crate) async fn run(&self) -> Result<Boundary, Error> {
        run(&self.executor, &self.memory).await
    }
}

pub(crate) fn executor(
    memory: &Arc<Memory>,
    store: &Arc<dyn ObjectStore>,
    pairs: &[(&str, &str)],
    partition: u32,
) -> Executor {
    let raw = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Executor {
        identity: Identity {
            sink_id: 7,
            sink: "s".to_owned(),
            generation: 0,
            topic: "flights".to_owned(),
            topic_id: "topic-1".to_owned(),
            partition,
        },
        config: SinkConfig::parse(&raw).expect("valid"),
        prefix: Path::from("p"),
        store: Arc::clone(store),
        source: Arc::clone(memory) as Arc<dyn Source>,
        ledger: Arc::clone(memory) as Arc<dyn Ledger>,
        rng: Rng::seeded(1),
        metrics: Metrics::default(),
        single_put_max: crate::store::SINGLE_PUT_MAX,
    }
}

pub(crate) async fn run(executor: &Executor, memory: &Memory) -> Result<Boundary, Error> {
    let mut boundary = executor.open(0, 0).await?;
    let rules = executor.config.rules.clone();
    let limits = Limits { cut_files_max: 4, ..Limits::default() };
    let mut planner =
        Planner::new(rules, limits, boundary.offset, boundary.closed_ms, RATIO_START_PPM);
    let end = memory.view().readable_end;
    loop {
        while planner.position() < end && !planner.is_full() {
            let at = planner.position();
            let step = end.min(at + 50);
            for piece in memory.read(at, step, 1000).await?.pieces {
                planner.push(&piece, 1_000_000);
            }
        }
        if planner.position() >= end {
            planner.tick(1_000_000 + 400 * 86_400_000);
        }
        let Some(plan) = planner.take() else { return Ok(boundary) };
        boundary = executor.execute(plan, &boundary).await?.0;
    }
}

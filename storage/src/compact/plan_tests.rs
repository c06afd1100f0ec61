use common::Rng;

use super::*;

fn limits() -> Limits {
    Limits { object_bytes_max: 1 << 30, ranges_max: 8192, age_min_ms: 60_000 }
}

fn info(id: u64, at: u64, bytes: u64, live: u32) -> Info {
    Info {
        id: ObjectId(id),
        wal: WalId(1),
        lsns: (Lsn(at), Lsn(at + 1)),
        live_bytes: bytes,
        payload_bytes: bytes,
        live,
        at_ms: 0,
        first: None,
    }
}

/// What a steady load comes to: requests per GB, objects and ranges left, by the planner alone.
struct Steady {
    infos: Vec<Info>,
    next: u64,
    now_ms: i64,
    allowance: Allowance,
    puts: u64,
    gets: u64,
    uploaded: u64,
    rewritten: u64,
    streams: u32,
    part_bytes: u64,
}

impl Steady {
    fn new(streams: u32, part_bytes: u64) -> Self {
        Self {
            infos: Vec::new(),
            next: 1,
            now_ms: 0,
            allowance: Allowance::default(),
            puts: 0,
            gets: 0,
            uploaded: 0,
            rewritten: 0,
            streams,
            part_bytes,
        }
    }

    fn add(&mut self, bytes: u64) {
        let id = self.next;
        self.next += 1;
        let at_ms = self.now_ms;
        self.infos.push(Info { at_ms, ..info(id, id, bytes, self.streams) });
        self.puts += 1;
        self.uploaded += bytes;
    }

    /// Ten seconds at `rate` bytes a second in rounds of `round` bytes, and what compaction does in them.
    fn tick(&mut self, rate: u64, round: u64, bandwidth: u64) {
        let rounds = rate * 10 / round;
        (0..rounds).for_each(|_| self.add(round));
        self.now_ms += 10_000;
        self.allowance.earn(10_000, rounds * round);
        let mut room = bandwidth * 10;
        while self.allowance.allows() && room > 0 {
            let choice = choose(&self.infos, &BTreeSet::new(), self.now_ms, &limits());
            let Some(choice) = choice else { return };
            room = room.saturating_sub(choice.bytes);
            self.run(&choice);
        }
    }

    fn run(&mut self, choice: &Choice) {
        let inputs: Vec<Info> =
            self.infos.iter().filter(|info| choice.objects.contains(&info.id)).copied().collect();
        self.infos.retain(|info| !choice.objects.contains(&info.id));
        let gets = 2 * inputs.len() as u64;
        let parts = choice.bytes / self.part_bytes;
        let puts = if parts == 0 { 1 } else { parts + 3 };
        self.allowance.spend(gets, puts);
        (self.gets, self.puts, self.rewritten) =
            (self.gets + gets, self.puts + puts, self.rewritten + choice.bytes);
        let lsns = (inputs[0].lsns.0, inputs[inputs.len() - 1].lsns.1);
        let outputs = if choice.goal == Goal::Split { choice.bytes.div_ceil(1 << 30) } else { 1 };
        let live = u32::try_from(u64::from(self.streams) / outputs).expect("small").max(1);
        for output in 0..outputs {
            let first = PartitionId { topic: output, index: 0 }.stream(common::StreamKind::Data);
            let first = (outputs > 1).then_some(first);
            let id = self.next;
            self.next += 1;
            let new = info(id, 0, choice.bytes / outputs, live);
            self.infos.push(Info { lsns, at_ms: self.now_ms, first, ..new });
        }
    }

    fn per_gb(&self, requests: u64) -> u64 {
        requests * 1_000_000_000 / self.uploaded
    }
}

#[test]
fn requests_per_gb_stay_in_their_budget_under_a_steady_load() {
    for streams in [16, 1000] {
        let mut steady = Steady::new(streams, 16 << 20);
        (0..360).for_each(|_| steady.tick(100_000_000, 32 << 20, 64 << 20));
        let (puts, gets) = (steady.per_gb(steady.puts), steady.per_gb(steady.gets));
        let rewritten = steady.rewritten * 100 / steady.uploaded;
        println!(
            "{streams} streams, 128 MiB of memory: {puts} PUT and {gets} GET per GB, {rewritten} % rewritten, {} objects",
            steady.infos.len()
        );
        assert!(puts <= 50 && gets <= 20, "{puts} PUT, {gets} GET per GB");
        assert!(rewritten >= 20, "compaction works: {rewritten} %");
        // A quiet night catches up.
        (0..6 * 3600).for_each(|_| steady.tick(0, 1, 64 << 20));
        println!("after a quiet time: {} objects", steady.infos.len());
    }
    let mut steady = Steady::new(16, 64 << 20);
    (0..360).for_each(|_| steady.tick(100_000_000, 64 << 20, 64 << 20));
    let (puts, gets) = (steady.per_gb(steady.puts), steady.per_gb(steady.gets));
    let rewritten = steady.rewritten * 100 / steady.uploaded;
    println!(
        "16 streams, 1 GiB of memory: {puts} PUT and {gets} GET per GB, {rewritten} % rewritten"
    );
    assert!(puts <= 50 && gets <= 20);
}

/// Each byte is rewritten once per step, and the row of objects stays short.
#[test]
fn small_rounds_are_rewritten_a_few_times_each() {
    let mut steady = Steady::new(50, 16 << 20);
    for _ in 0..20_000 {
        steady.add(1000);
        steady.now_ms += 10_000;
        steady.allowance.earn(10_000, 1000);
        while let Some(choice) = choose(&steady.infos, &BTreeSet::new(), steady.now_ms, &limits()) {
            steady.run(&choice);
        }
    }
    let times = steady.rewritten / steady.uploaded;
    println!("20000 rounds: {} objects, each byte rewritten {times} times", steady.infos.len());
    assert!(steady.infos.len() <= 64, "{} objects", steady.infos.len());
    assert!(times <= 5, "each byte was rewritten {times} times");
}

#[test]
fn the_end_of_the_log_and_what_is_done_are_left_alone() {
    let young: Vec<Info> =
        (1..40).map(|id| Info { at_ms: 1_000_000, ..info(id, id, 1 << 20, 3) }).collect();
    assert_eq!(choose(&young, &BTreeSet::new(), 1_050_000, &limits()), None);
    assert!(choose(&young, &BTreeSet::new(), 1_070_000, &limits()).is_some());
    let done: Vec<Info> = (1..40).map(|id| info(id, id, 1 << 30, 3)).collect();
    assert_eq!(choose(&done, &BTreeSet::new(), 1_000_000, &limits()), None);
    // Few of a size wait for more.
    let few: Vec<Info> = (1..8).map(|id| info(id, id, 1 << 20, 3)).collect();
    assert_eq!(choose(&few, &BTreeSet::new(), 1_000_000, &limits()), None);
}

#[test]
fn what_is_mostly_dead_goes_first_and_wide_finished_objects_are_split() {
    let mut infos: Vec<Info> = (1..20).map(|id| info(id, id, 1 << 20, 30)).collect();
    infos[7].payload_bytes = 5 << 20;
    let choice = choose(&infos, &BTreeSet::new(), 1_000_000, &limits()).expect("something");
    assert_eq!((choice.goal, choice.objects), (Goal::Free, vec![ObjectId(8)]));
    let wide: Vec<Info> = (1..20).map(|id| info(id, id, 1 << 30, 500)).collect();
    let choice = choose(&wide, &BTreeSet::new(), 1_000_000, &limits()).expect("something");
    assert_eq!((choice.goal, choice.objects.len()), (Goal::Split, 16));
}

fn live(stream: u64, object: u64, start: i64, end: i64) -> LiveRange {
    let range = meta::ObjectRange {
        object: ObjectId(object),
        facts: meta::command::ObjectFacts::default(),
        start,
        end,
        bytes: 10,
        records: 1,
        max_timestamp: 0,
        epoch: 0,
        lsns: (Lsn(object), Lsn(object + 1)),
    };
    let stream = PartitionId { topic: stream, index: 0 }.stream(common::StreamKind::Data);
    LiveRange { stream, log_start: 0, range }
}

/// Whatever is live where: parts are rows without a gap, of owned streams, above the log start, within the bounds.
#[test]
fn parts_are_rows_without_a_gap() {
    for seed in 0..300 {
        let rng = Rng::seeded(seed);
        let base =
            [0, (1 << 31) - 20, (1 << 62) - 20][usize::try_from(rng.below(3)).expect("three")];
        let (mut ranges, mut log_start) = (Vec::new(), BTreeMap::new());
        for stream in 0..4 {
            let mut at = base;
            log_start.insert(stream, base + i64::try_from(rng.below(10)).expect("small"));
            for object in 0..12 {
                let end = at + 1 + i64::try_from(rng.below(5)).expect("small");
                if !rng.one_in(4) {
                    ranges.push(LiveRange {
                        log_start: log_start[&stream],
                        ..live(stream, object, at, end)
                    });
                }
                at = end;
            }
        }
        let owned = |id: PartitionId| (id.topic != 2).then_some(StreamEpoch(1));
        let limits =
            Limits { ranges_max: 3 + usize::try_from(rng.below(20)).expect("small"), ..limits() };
        let found = parts(ranges, owned, &limits);
        let many: usize = found.parts.iter().map(|part| part.inputs.len()).sum();
        assert_eq!(many, found.ranges);
        assert!(many <= limits.ranges_max, "seed {seed}");
        for part in &found.parts {
            assert_ne!(part.stream.partition.topic, 2, "not owned");
            assert!(part.start() >= log_start[&part.stream.partition.topic], "seed {seed}");
            assert!(part.inputs.windows(2).all(|pair| pair[0].end == pair[1].start), "seed {seed}");
        }
    }
}

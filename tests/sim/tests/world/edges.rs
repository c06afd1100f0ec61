//! How often the runs met what they are there for.

use std::sync::atomic::Ordering;

use super::World;

/// Counts over one or more seeds.
#[derive(Clone, Debug, Default)]
pub struct Edges(Vec<(&'static str, u64)>);

impl Edges {
    pub fn add(&mut self, name: &'static str, count: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((name, count)),
        }
    }

    pub fn add_all(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add(name, *count);
        }
    }

    /// Prints all and demands that each was met.
    pub fn assert_all_met(&self) {
        for (name, count) in &self.0 {
            println!("met {count:>8} times: {name}");
        }
        let never: Vec<_> = self.0.iter().filter(|(_, count)| *count == 0).collect();
        assert!(never.is_empty(), "never met: {never:?}");
    }
}

/// Adds up a metric over its labels.
pub fn metric(text: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
    text.lines().filter_map(number).sum()
}

/// The counts of a run that has ended.
pub fn of(world: &World) -> Edges {
    let (disk, store, met) = (world.disk.met(), world.store.met(), &world.met);
    let checker = world.checker.lock();
    let mut edges = Edges::default();
    for (name, count) in [
        ("segment roll", disk.rolls),
        ("segment reuse", disk.reused),
        ("hole in the window at a crash", disk.holes),
        ("write torn by a crash", disk.torn),
        ("failed write of the log", disk.write_errors),
        ("disk full", disk.no_space),
        ("failed read in a start", met.reads_failed),
        ("metadata write torn by a crash", world.meta.cuts_torn()),
        ("put without an answer", store.lost_responses),
        ("conflict without an object", store.conflicts),
        ("store answered 503", store.errors),
        ("refused commit", met.commits_refused),
        ("topic deleted before its upload", met.deleted_early.load(Ordering::Acquire)),
        ("expired object id", met.ids_renewed),
        ("eviction before upload", met.read_back),
        ("start interrupted", met.starts_interrupted),
        ("start interrupted twice", met.starts_interrupted_twice),
        ("clean stop", met.stops),
        ("upload round", met.rounds),
        ("records acknowledged", checker.acked),
        ("repeats answered", checker.duplicates),
        ("records read", checker.read),
    ] {
        edges.add(name, count);
    }
    let fired = world.trigger.fired();
    for point in sim::trigger::POINTS {
        edges.add(point, fired.get(point).copied().unwrap_or(0));
    }
    edges
}

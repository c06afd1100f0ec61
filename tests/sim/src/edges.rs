//! What the simulation is there to meet, in one table, and how often it did.
//!
//! Each run counts on its own thread: the world names what it did or saw with [`met`] and [`add`], and a run that called
//! [`watch`] counts the product's own points (`common::failpoint::hit`) that stand in the table under their name. A suite
//! that has run all its seeds adds the counts up and calls [`Counts::assert_met`]: the table is printed, and an edge of
//! that suite which no seed has met fails the test.
//!
//! To add an edge: a line in [`TABLE`], and one `failpoint::hit("name")` in the product or `edges::met("name")` in
//! the world. A line `cut.<point>` also has the world cut the power at that point.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::rc::Rc;

use common::failpoint;

mod table;

pub use table::TABLE;

/// A file that gets a line `suite, count, name, what` for each edge; for adding up over suites.
pub const VARIABLE: &str = "SLUICE_EDGES";

/// Who meets an edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `tests/world.rs`: the engine over lives of a broker.
    World,
    /// `tests/storage.rs`: streams against a vector.
    Storage,
    /// `tests/wal_model.rs`: the log against a model.
    Log,
    /// The worlds with two brokers.
    Owners,
    /// No simulation can: a test of another kind, `path/of/file.rs::name_of_the_test`.
    Elsewhere(&'static str),
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::World => "world",
            Self::Storage => "storage",
            Self::Log => "log",
            Self::Owners => "owners",
            Self::Elsewhere(test) => test,
        }
    }
}

/// One thing to meet.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// Its name: words with dots, for a point of the product the point's own.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Who meets it.
    pub suite: Suite,
}

thread_local! {
    static MET: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

fn is_known(name: &str) -> bool {
    TABLE.iter().any(|edge| edge.name == name)
}

/// This run has met `name` once.
///
/// # Panics
/// When the table has no such edge.
pub fn met(name: &'static str) {
    add(name, 1);
}

/// This run has met `name` so many times.
///
/// # Panics
/// When the table has no such edge.
pub fn add(name: &'static str, count: u64) {
    assert!(is_known(name), "{name:?} has no line in tests/sim/src/edges/table.rs");
    MET.with_borrow_mut(|met| *met.entry(name).or_default() += count);
}

/// As [`add`], for `cut.` and the name of a point.
///
/// # Panics
/// When the table has no such edge.
pub fn add_cut(point: &str, count: u64) {
    let edge = TABLE.iter().find(|edge| edge.name.strip_prefix("cut.") == Some(point));
    add(edge.map_or("cut without a line", |edge| edge.name), count);
}

/// The points at which the world cuts the power: the names behind `cut.` in the table.
pub fn cuts() -> impl Iterator<Item = &'static str> {
    let world = TABLE.iter().filter(|edge| edge.suite == Suite::World);
    world.filter_map(|edge| edge.name.strip_prefix("cut."))
}

/// Counts the product's points on this thread until the guard is dropped, and passes each name to `also`.
pub fn watch(also: impl Fn(&'static str) + 'static) -> Watching {
    failpoint::watch(Some(Rc::new(move |name| {
        if is_known(name) {
            add(name, 1);
        }
        also(name);
    })));
    Watching
}

/// Ends [`watch`].
#[derive(Debug)]
pub struct Watching;

impl Drop for Watching {
    fn drop(&mut self) {
        failpoint::watch(None);
    }
}

/// What this thread has met since the last call.
#[must_use]
pub fn take() -> Counts {
    Counts(MET.with_borrow_mut(std::mem::take))
}

/// How often each edge was met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// Adds those of another run.
    pub fn add_all(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }

    /// Prints the lines of `suite` and demands that each was met.
    ///
    /// # Panics
    /// When one was not.
    pub fn assert_met(&self, suite: Suite) {
        let mine = || TABLE.iter().filter(|edge| edge.suite == suite);
        let count = |edge: &Edge| self.0.get(edge.name).copied().unwrap_or(0);
        let (mut lines, mut record) = (String::new(), String::new());
        for edge in mine() {
            let (count, Edge { name, what, .. }) = (count(edge), edge);
            writeln!(lines, "met {count:>9} times: {name:<34} {what}").expect("a string");
            writeln!(record, "{}\t{count}\t{name}\t{what}", suite.name()).expect("a string");
        }
        print!("{lines}");
        if let Some(path) = std::env::var_os(VARIABLE) {
            record_in(&path, &record).expect("the file of the variable opens");
        }
        let never: Vec<_> = mine().filter(|edge| count(edge) == 0).map(|edge| edge.name).collect();
        assert!(never.is_empty(), "met in no seed: {never:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own report")]
fn record_in(path: &std::ffi::OsStr, record: &str) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(record.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_name_stands_once_and_each_test_elsewhere_exists() {
        let mut names: Vec<_> = TABLE.iter().map(|edge| edge.name).collect();
        names.sort_unstable();
        names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "stands twice"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for edge in TABLE {
            let Suite::Elsewhere(test) = edge.suite else { continue };
            let (path, name) = test.split_once("::").expect("path::name");
            let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
            let found = ["fn ", "def "].iter().any(|word| text.contains(&format!("{word}{name}(")));
            assert!(found, "{}: {test} does not exist", edge.name);
        }
    }

    #[test]
    fn an_edge_that_no_seed_met_fails_and_points_are_counted() {
        let watching = watch(|_| {});
        failpoint::hit("storage.commit");
        failpoint::hit("no.such.line");
        drop(watching);
        failpoint::hit("storage.commit");
        let counts = take();
        assert_eq!(counts.0.get("storage.commit"), Some(&1));
        assert_eq!(counts.0.len(), 1);
        assert_eq!(take(), Counts::default());
        let failed = std::panic::catch_unwind(|| counts.assert_met(Suite::World));
        assert!(failed.is_err(), "most edges were not met");
        assert!(std::panic::catch_unwind(|| met("no.such.line")).is_err());
    }
}

//! Bugs planted on purpose, one at a time with every other guard in place: the simulation has to find each.
//!
//! A bug that no seed finds means that the worlds have lost an eye, and fails the test.

#[expect(dead_code, reason = "traces and edges are for the test of the world itself")]
#[path = "world/mod.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::failpoint;

/// Within so many seeds each bug has to be found.
const SEEDS_MAX: u64 = 200;

/// What a world says against the product under a seed, if anything.
type World = fn(u64) -> Option<String>;

fn engine(seed: u64) -> Option<String> {
    world::run(seed).violation
}

/// Each bug and the world that has to find it.
const BUGS: &[(&str, World)] = &[
    ("ack-before-sync", engine),
    ("duplicate-early", engine),
    ("lost-last-frame", engine),
    ("trim-before-durable", engine),
    ("compaction-bound", engine),
    ("revive-behind-cut", engine),
    ("early-delete", engine),
];

fn finds(bug: &'static str, world: World) -> Result<String, String> {
    let _planted = failpoint::plant(bug);
    for seed in 0..SEEDS_MAX {
        let found = catch_unwind(AssertUnwindSafe(|| world(seed)));
        match found {
            Ok(None) => {}
            Ok(Some(violation)) => return Ok(format!("{bug}: seed {seed}: {violation}")),
            Err(_) => return Ok(format!("{bug}: seed {seed}: a panic, see above")),
        }
    }
    Err(format!("{bug}: no seed below {SEEDS_MAX} finds it"))
}

#[test]
fn each_planted_bug_is_found() {
    let half = |half: usize| {
        let bugs = BUGS.iter().skip(half).step_by(2);
        bugs.map(|(bug, world)| finds(bug, *world)).collect::<Vec<_>>()
    };
    let other = common::threads::spawn("odd-bugs", move || half(1)).expect("spawns");
    let mut missed = Vec::new();
    for found in half(0).into_iter().chain(other.join().expect("its panics are caught")) {
        match found {
            Ok(line) => println!("found {line}"),
            Err(line) => missed.push(line),
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

//! Ownership under one seed: two whole engines over one object store and one metadata group, each with its own disk and on
//! its own runtime, so that one can be stopped as a whole and go on after its successor has written. Partitions move
//! under load, logs are taken over, losses declared, lost disks come back, and each step is interrupted; the store fails
//! meanwhile.
//!
//! `SLUICE_OWNER_SEEDS` is the number of seeds (50), `SLUICE_SEED=n` runs one. A failing seed prints how to repeat it; nearly always that is the
//! same run: the order in which tokio wakes several waiters of one `watch` channel is not the seed's.

#[path = "ownership_world/mod.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::failpoint;
use sim::edges::{Counts, Suite};
use world::Outcome;

/// Within so many seeds a planted bug has to be found.
const PLANTED_SEEDS_MAX: u64 = 60;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

/// A panic is a finding like any other.
fn run(seed: u64) -> Result<Outcome, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(seed)));
    let outcome = outcome.map_err(|_| "a panic, see above".to_owned())?;
    match &outcome.violation {
        None => Ok(outcome),
        Some(violation) => {
            if number("SLUICE_SEED").is_some() {
                println!("{}", outcome.trace.join("\n"));
            }
            Err(violation.clone())
        }
    }
}

#[test]
fn what_clients_were_told_stays_true_whoever_owns_it() {
    let seeds = match number("SLUICE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SLUICE_OWNER_SEEDS").unwrap_or(50),
    };
    let (mut met, mut failed) = (Counts::default(), Vec::new());
    for seed in seeds {
        match run(seed) {
            Ok(outcome) => met.add_all(&outcome.met),
            Err(violation) => failed.push(format!(
                "seed {seed}: {violation}\nrepeat with: SLUICE_SEED={seed} cargo test --release -p sim \
                 --test ownership whoever_owns_it -- --nocapture"
            )),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    if number("SLUICE_SEED").is_none() {
        met.assert_met(Suite::Owners);
    }
}

fn finds(bug: &'static str) {
    let planted = failpoint::plant(bug);
    let found = (0..PLANTED_SEEDS_MAX).find_map(|seed| Some((seed, run(seed).err()?)));
    drop(planted);
    match found {
        Some((seed, violation)) => println!("{bug} is found by seed {seed}: {violation}"),
        None => panic!("no seed below {PLANTED_SEEDS_MAX} finds the planted bug {bug}"),
    }
}

#[test]
fn a_medium_that_is_not_fenced_is_found() {
    finds("skip-fence");
}

#[test]
fn an_answer_of_a_zombie_is_found() {
    finds("zombie-read");
}

#[test]
fn an_offset_given_twice_is_found() {
    finds("reused-offset");
}

//! One partition against a reference model: random appends by several producers with repeats, gaps and epochs, reads
//! and look-ups, crashes and clean closes.
//!
//! Each life runs on a runtime of its own, so a crash ends every task. A failing seed is named; repeat it with
//! `SLUICE_SEED=<seed> cargo test --release -p sim --test partition`.

mod partition_world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Rng, failpoint};
use partition_world::World;

/// Seeds of one run of the test.
const SEEDS: u64 = 40;
/// Within so many seeds a planted bug has to be found.
const PLANTED_SEEDS_MAX: u64 = 200;

fn run(seed: u64) {
    let mut world = World::new(Rng::seeded(seed));
    for _ in 0..6 {
        world.live();
    }
    world.finish();
}

fn fails(seed: u64) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(seed))).is_err()
}

#[test]
fn the_partition_agrees_with_its_model() {
    let seeds = match std::env::var("SLUICE_SEED") {
        Ok(text) => {
            let seed = text.parse().expect("SLUICE_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    for seed in seeds {
        assert!(
            !fails(seed),
            "seed {seed}: repeat with SLUICE_SEED={seed} cargo test --release -p sim --test partition"
        );
    }
}

#[test]
fn a_repeat_that_is_answered_early_is_found() {
    let _bug = failpoint::plant("duplicate-early");
    let found = (0..PLANTED_SEEDS_MAX).find(|seed| fails(*seed));
    assert!(found.is_some(), "no seed below {PLANTED_SEEDS_MAX} found the planted bug");
}

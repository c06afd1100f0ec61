//! Ownership as a small model, every order of its steps: lease, append, seal, commit, move, fence, takeover, loss, of two
//! brokers and one partition, within bounds. A breadth-first search, so a counterexample is a shortest one.
//!
//! What has to hold in every state: what clients were told is in objects or in the one log that the partition is
//! assigned to, at its offset, or in a named lost range; no other open log holds un-uploaded bytes; and nothing is
//! answered under an epoch that a successor has replaced. Each guard is taken away alone to see the search find it.

#[path = "ownership_model/state.rs"]
mod state;
#[path = "ownership_model/steps.rs"]
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use state::{Left, State};
use steps::{Rules, next};

/// More states than any search here has.
const STATES_MAX: usize = 3_000_000;

struct Search {
    states: usize,
    steps: usize,
    /// What is wrong and the steps that lead there.
    found: Option<(String, Vec<String>)>,
    /// How often each kind of step was taken.
    met: BTreeMap<&'static str, usize>,
}

fn search(rules: Rules, left: Left) -> Search {
    let first = State::new(left);
    let mut known = BTreeSet::from([fingerprint(&first)]);
    let mut order: Vec<(State, usize, String)> = vec![(first, 0, String::new())];
    let mut waiting = VecDeque::from([0_usize]);
    let (mut steps, mut met) = (0, BTreeMap::new());
    while let Some(at) = waiting.pop_front() {
        let now = order[at].0.clone();
        for step in next(&now, rules) {
            steps += 1;
            *met.entry(step.kind).or_default() += 1;
            let label = format!("{} {}", step.kind, step.what);
            if let Err(wrong) = step.told.and_then(|()| step.state.check()) {
                let mut trace = trace(&order, at);
                trace.push(label);
                return Search { states: order.len(), steps, found: Some((wrong, trace)), met };
            }
            if known.insert(fingerprint(&step.state)) {
                waiting.push_back(order.len());
                order.push((step.state, at, label));
                assert!(order.len() < STATES_MAX, "the bounds do not bound");
            }
        }
    }
    Search { states: order.len(), steps, found: None, met }
}

/// 128 bits that stand for a state: two of them in a few million do not meet.
fn fingerprint(state: &State) -> (u64, u64) {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, state).hash(&mut hasher);
        hasher.finish()
    };
    (half(0), half(1))
}

fn trace(order: &[(State, usize, String)], at: usize) -> Vec<String> {
    let (mut at, mut trace) = (at, Vec::new());
    while at != 0 {
        let (_, before, label) = &order[at];
        trace.push(label.clone());
        at = *before;
    }
    trace.reverse();
    trace
}

/// What may happen in each search: everything together has too many orders.
const BOUNDS: [Left; 4] = [
    Left { kills: 0, fences: 0, moves: 1, losses: 1, uploads: 1 },
    Left { kills: 1, fences: 0, moves: 1, losses: 0, uploads: 1 },
    Left { kills: 1, fences: 1, moves: 0, losses: 0, uploads: 1 },
    Left { kills: 1, fences: 0, moves: 0, losses: 1, uploads: 1 },
];

fn holds(name: &str, rules: Rules) {
    let mut met: BTreeMap<&'static str, usize> = BTreeMap::new();
    for left in BOUNDS {
        let search = search(rules, left);
        println!("{name}, {left:?}: {} states, {} steps", search.states, search.steps);
        if let Some((wrong, trace)) = search.found {
            panic!("{name}: {wrong}\n  {}", trace.join("\n  "));
        }
        search.met.into_iter().for_each(|(kind, times)| *met.entry(kind).or_default() += times);
    }
    println!("{met:?}");
    for kind in steps::KINDS {
        assert!(met.contains_key(kind), "{name}: no {kind} was ever taken");
    }
}

fn breaks(name: &str, rules: Rules) {
    let found = BOUNDS.into_iter().find_map(|left| search(rules, left).found);
    let (wrong, trace) = found.unwrap_or_else(|| panic!("{name}: nothing was found"));
    println!("{name}: {wrong}\n  {}", trace.join("\n  "));
}

#[test]
fn every_order_of_steps_keeps_what_was_told() {
    holds("honest clocks", Rules::default());
}

#[test]
fn a_clock_that_stands_still_loses_nothing() {
    holds("standing clocks", Rules { honest_clock: false, ..Rules::default() });
}

#[test]
fn without_the_fence_of_the_medium_a_record_is_lost() {
    breaks("no fence", Rules { fence: false, honest_clock: false, ..Rules::default() });
}

#[test]
fn without_the_lease_a_zombie_answers() {
    breaks("no lease", Rules { lease: false, ..Rules::default() });
}

#[test]
fn without_the_span_of_a_loss_an_offset_has_two_meanings() {
    breaks("no span", Rules { span: false, ..Rules::default() });
}

#[test]
fn an_opening_by_an_old_image_answers_for_a_successor() {
    breaks("no owner", Rules { read_owner: false, honest_clock: false, ..Rules::default() });
}

#[test]
fn a_seal_taken_back_while_its_command_is_under_way_loses_a_record() {
    breaks("no kept seal", Rules { keep_seal: false, ..Rules::default() });
}

#[test]
fn a_seal_forgotten_at_the_close_loses_a_record() {
    breaks("no remembered seal", Rules { remember_seal: false, ..Rules::default() });
}

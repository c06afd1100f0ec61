//! What the seams and the clients of a run have counted, as lines of the table.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use sim::edges::{add, add_cut, met, take};

pub use sim::edges::cuts;

use super::World;

thread_local! {
    static SOURCE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Remembers where the bytes of a read came from.
pub fn note_source(point: &'static str) {
    if ["read.tail", "read.log", "read.object"].contains(&point) {
        SOURCE.set(Some(point));
    }
}

/// Where the last read was answered from.
pub fn last_source() -> Option<&'static str> {
    SOURCE.take()
}

/// A reader that goes on where it stopped has been handed from one tier to another.
pub fn handed_over(from: &str, to: &str) {
    match (from, to) {
        ("read.tail", "read.log") => met("hand.tail.log"),
        ("read.tail", "read.object") => met("hand.tail.object"),
        ("read.log", "read.tail") => met("hand.log.tail"),
        ("read.log", "read.object") => met("hand.log.object"),
        ("read.object", "read.tail") => met("hand.object.tail"),
        ("read.object", "read.log") => met("hand.object.log"),
        _ => {}
    }
}

/// Adds up a metric over its labels.
pub fn metric(text: &str, name: &str) -> u64 {
    let number = |line: &str| line.strip_prefix(name)?.trim().parse::<u64>().ok();
    text.lines().filter_map(number).sum()
}

/// The counts of a run that has ended.
pub fn of(world: &World) -> sim::edges::Counts {
    let (disk, store, met) = (world.disk.met(), world.store.met(), &world.met);
    let checker = world.checker.lock();
    for (name, count) in [
        ("disk.roll", disk.rolls),
        ("disk.reuse", disk.reused),
        ("disk.hole", disk.holes),
        ("disk.torn", disk.torn),
        ("disk.write.failed", disk.write_errors),
        ("disk.stalled", disk.stalls),
        ("disk.overtaking", disk.overtaking),
        ("disk.read.flipped", disk.read_flips),
        ("disk.full", disk.no_space),
        ("disk.read.failed", met.reads_failed),
        ("meta.torn", world.meta.cuts_torn()),
        ("store.response.lost", store.lost_responses),
        ("store.conflict", store.conflicts),
        ("store.error", store.errors),
        ("store.body.stuck", store.stuck_bodies),
        ("store.bytes.wrong", store.wrong_bytes),
        ("store.multipart", store.multiparts),
        ("commit.stale.epoch", met.commits_refused),
        ("commit.topic.deleted", met.deleted_early.load(Ordering::Acquire)),
        ("object.id.expired", met.ids_renewed),
        ("upload.read.back", met.read_back),
        ("upload.round", met.rounds),
        ("start.interrupted", met.starts_interrupted),
        ("start.interrupted.twice", met.starts_interrupted_twice),
        ("stop.clean", met.stops),
        ("client.acked", checker.acked),
        ("client.repeat", checker.duplicates),
        ("client.read", checker.read),
    ] {
        add(name, count);
    }
    for (point, count) in world.trigger.fired() {
        add_cut(point, count);
    }
    take()
}

//! What the seams and the clients of a run have counted, as lines of the table.

use std::sync::atomic::Ordering;

use sim::edges::{add, take};
use sim::trigger;

use super::World;

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
        ("disk.full", disk.no_space),
        ("disk.read.failed", met.reads_failed),
        ("meta.torn", world.meta.cuts_torn()),
        ("store.response.lost", store.lost_responses),
        ("store.conflict", store.conflicts),
        ("store.error", store.errors),
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
    let fired = world.trigger.fired();
    for (point, name) in [
        (trigger::DISK_DONE, "cut.disk.done"),
        (trigger::DISK_READ, "cut.disk.read"),
        (trigger::META_WRITTEN, "cut.meta.written"),
        (trigger::META_SYNCED, "cut.meta.synced"),
        (trigger::OBJECT_PUT, "cut.object.put"),
    ] {
        add(name, fired.get(point).copied().unwrap_or(0));
    }
    take()
}

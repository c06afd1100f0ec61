//! The table: first what the log's disk may do, then the object store, metadata, commits, tiers, lives.

use super::{Edge, Suite};

const fn world(name: &'static str, what: &'static str) -> Edge {
    Edge { name, what, suite: Suite::World }
}

const fn elsewhere(name: &'static str, what: &'static str, test: &'static str) -> Edge {
    Edge { name, what, suite: Suite::Elsewhere(test) }
}

/// Every edge.
pub const TABLE: &[Edge] = &[
    // The disk of the log.
    world("disk.torn", "a crash tears a write at sectors"),
    world("disk.hole", "a crash leaves a hole below a write that survives"),
    world("disk.write.failed", "a write fails, the process ends"),
    world("disk.read.failed", "a read fails in a start"),
    world("disk.full", "no space for a segment"),
    world("disk.roll", "the log goes on in the next segment"),
    world("disk.reuse", "a trimmed segment is used again"),
    // Starts and ends.
    world("start.interrupted", "a crash during a start"),
    world("start.interrupted.twice", "a crash during the start after one"),
    world("stop.clean", "a clean stop"),
    world("cut.disk.done", "power goes when a write has reached the disk"),
    world("cut.disk.read", "power goes during a read"),
    world("cut.meta.written", "power goes when metadata is written, not synced"),
    world("cut.meta.synced", "power goes when metadata is synced, not answered"),
    world("cut.object.put", "power goes when an object is put, not answered"),
    // The object store.
    world("store.error", "the store answers 503"),
    world("store.response.lost", "a put took effect and its answer is lost"),
    world("store.conflict", "a create-only put answers 409 and holds nothing"),
    // Metadata and its commits.
    world("meta.torn", "a crash tears a write of metadata"),
    world("commit.stale.epoch", "a commit of a former life is refused"),
    world("commit.topic.deleted", "a round holds a topic deleted meanwhile"),
    world("object.id.expired", "an object id expires before its commit"),
    // Tiers.
    world("upload.round", "a round of uploads"),
    world("upload.read.back", "a round reads groups back from the log"),
    // Points of the product.
    world("wal.group.written", "point: a group is written"),
    world("wal.recovery", "point: the log is recovered"),
    world("storage.object.put", "point: a round's object is put"),
    world("storage.commit", "point: a round is committed"),
    world("storage.trimmed", "point: the log is trimmed"),
    world("partition.snapshot.queued", "point: a partition's snapshot is queued"),
    // Clients.
    world("client.acked", "a record is acknowledged"),
    world("client.repeat", "a repeat is answered"),
    world("client.read", "a record is read"),
    // What no simulation can.
    elsewhere(
        "disk.entry.not.synced",
        "a new segment's name survives a power cut",
        "tests/crash/test_power.py::test_power_cuts_lose_nothing",
    ),
];

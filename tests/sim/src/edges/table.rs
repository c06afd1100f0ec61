//! The table: first what the log's disk may do, then the object store, metadata, commits, tiers, lives.

use super::{Edge, Suite};

const fn world(name: &'static str, what: &'static str) -> Edge {
    Edge { name, what, suite: Suite::World }
}

const fn storage(name: &'static str, what: &'static str) -> Edge {
    Edge { name, what, suite: Suite::Storage }
}

const fn elsewhere(name: &'static str, what: &'static str, test: &'static str) -> Edge {
    Edge { name, what, suite: Suite::Elsewhere(test) }
}

const fn owners(name: &'static str, what: &'static str) -> Edge {
    Edge { name, what, suite: Suite::Owners }
}

/// Every edge.
pub const TABLE: &[Edge] = &[
    // The disk of the log.
    world("disk.torn", "a crash tears a write at sectors"),
    world("disk.hole", "a crash leaves a hole below a write that survives"),
    world("disk.write.failed", "a write fails, the process ends"),
    world("disk.read.failed", "a read fails in a start"),
    world("disk.stalled", "an operation of the disk takes long"),
    world("disk.overtaking", "a write ends before an older one"),
    world("disk.read.flipped", "a read comes with a wrong bit"),
    world("disk.full", "no space for a segment"),
    world("disk.roll", "the log goes on in the next segment"),
    world("disk.reuse", "a trimmed segment is used again"),
    world("log.flipped", "a bit of an acknowledged group has rotted: the log is refused"),
    world("log.lied", "an acknowledged write never reached the disk: the log is refused"),
    world("log.misdirected", "a write went to the place of another: the log is refused"),
    world("log.full", "an append waits for room in the log"),
    world("log.full.in.outage", "an append waits for room while the store is down"),
    // Starts and ends.
    world("start.interrupted", "a crash during a start"),
    world("start.interrupted.twice", "a crash during the start after one"),
    world("stop.clean", "a clean stop"),
    world("cut.disk.done", "power goes when a write has reached the disk"),
    world("cut.disk.read", "power goes during a read"),
    world("cut.meta.written", "power goes when metadata is written, not synced"),
    world("cut.meta.synced", "power goes when metadata is synced, not answered"),
    world("cut.object.put", "power goes when an object is put, not answered"),
    world("cut.wal.group.written", "power goes when a group is written"),
    world("cut.wal.recovery", "power goes when the log is recovered"),
    world("cut.storage.object.put", "power goes between put and commit"),
    world("cut.storage.commit", "power goes between commit and trim"),
    world("cut.storage.trimmed", "power goes when the log is trimmed"),
    world("cut.partition.snapshot.queued", "power goes when a snapshot is queued"),
    // The object store.
    world("store.error", "the store answers 503"),
    world("store.response.lost", "a put took effect and its answer is lost"),
    world("store.conflict", "a create-only put answers 409 and holds nothing"),
    world("store.body.stuck", "a body never ends"),
    world("store.bytes.wrong", "a body has a wrong bit"),
    world("store.multipart", "an object is put in parts"),
    storage("store.outage", "a request meets an outage"),
    storage("store.throttled", "the store answers SlowDown"),
    storage("store.slow", "a request takes minutes"),
    storage("store.body.truncated", "a body ends half way"),
    storage("store.missing", "404 for an object that is there"),
    // Metadata and its commits.
    world("meta.torn", "a crash tears a write of metadata"),
    world("commit.stale.epoch", "a commit of a former life is refused"),
    world("commit.topic.deleted", "a round holds a topic deleted meanwhile"),
    world("object.id.expired", "an object id expires before its commit"),
    world("commit.again", "a commit whose answer was lost is repeated"),
    world("commit.refused.stale.epoch", "refused: the log was opened again since"),
    world("commit.refused.unknown.wal", "refused: no such log"),
    world("commit.refused.unknown.object", "refused: no such object id"),
    world("commit.refused.other.object", "refused: the object holds another round"),
    world(
        "commit.refused.round.start",
        "refused: the round does not begin at the committed position",
    ),
    world("commit.refused.round.empty", "refused: the round is empty"),
    world("commit.refused.stream.twice", "refused: a stream stands twice"),
    world("commit.refused.stream.kind", "refused: no such kind of stream"),
    world("commit.refused.never.created", "refused: the partition never was"),
    world("commit.refused.still.there", "refused: leaves out a partition that exists"),
    world("commit.refused.range.start", "refused: the range does not begin at the committed end"),
    world("commit.refused.range.length", "refused: the range has no length"),
    world("commit.refused.range.epoch", "refused: the stream's epoch was never issued"),
    // Rewrites, their swaps, and what is deleted behind them.
    world("rewrite.done", "a part of a stream moves into new objects"),
    world("rewrite.given.up", "a rewrite is given up: store down, wrong bytes, a lost race"),
    world("storage.sweep.deleted", "point: a released or expired object is deleted"),
    world("swap.refused.log.epoch", "refused: the log was opened again since"),
    world("swap.refused.stream.epoch", "refused: another owner"),
    world("swap.refused.partition", "refused: the partition is deleted"),
    world("swap.refused.object", "refused: the new object is not registered"),
    world("swap.refused.cover", "refused: other ranges lie there now"),
    world("storage.compact.put", "point: the objects of a rewrite are put"),
    world("storage.compact.commit", "point: a rewrite is committed"),
    world("cut.storage.compact.put", "power goes between a rewrite's put and its swap"),
    world("cut.storage.compact.commit", "power goes when a swap is committed"),
    // Tiers.
    world("read.tail", "a read from memory"),
    world("read.log", "a read from the log"),
    world("read.object", "a read from objects"),
    world("read.block", "a read from the block cache"),
    world("hand.tail.log", "a reader falls off the tail and goes on in the log"),
    world("hand.tail.object", "a reader falls off the tail and goes on in objects"),
    world("hand.log.tail", "a reader catches up from the log"),
    world("hand.log.object", "a reader in the log goes on in objects"),
    world("hand.object.log", "a reader in objects goes on in the log"),
    world("hand.object.tail", "a reader catches up from objects"),
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
    // Streams against a vector.
    storage("storage.rounds", "a round of uploads"),
    storage("storage.evictions", "a group leaves the tail cache"),
    storage("storage.read.back", "a round reads groups back from the log"),
    storage("storage.read.object", "a read from objects"),
    storage("storage.read.log", "a read from the log"),
    storage("storage.response.lost", "a put took effect and its answer is lost"),
    storage("storage.conflict", "a create-only put answers 409 and holds nothing"),
    storage("storage.multipart", "an object is put in parts"),
    storage("storage.bytes.wrong", "a body has a wrong bit"),
    storage("storage.body.stuck", "a body never ends"),
    storage("storage.missing", "an object that is there is answered with 404"),
    storage("storage.restart", "a crash and a start"),
    storage("storage.id.expired", "an object id expires before its commit"),
    // Two brokers.
    owners("owners.acked", "a batch is acknowledged by one of two brokers"),
    owners("owners.read", "a fetch is answered by one of two brokers"),
    owners("owners.repeat.elsewhere", "a retry is known to a broker that never got the original"),
    owners("owners.moved", "a partition moves under load"),
    owners("owners.taken.over", "a log is taken over and handed out"),
    owners("owners.taken.over.bytes", "a log taken over held groups that were in no object"),
    owners("owners.came.back", "a broker opens its log while another one takes it over"),
    owners("owners.fenced", "a plain disk's broker is fenced, nobody leads its partitions"),
    owners("owners.lost", "a loss is declared"),
    owners("owners.lost.disk", "a lost or taken disk comes back and is refused"),
    owners("owners.paused.jump", "a broker stops and goes on, its clock has run"),
    owners("owners.paused.still", "a broker stops and goes on, its clock has stood still"),
    owners("owners.zombie.lease", "a broker asks for a lease that has been ended"),
    owners("owners.zombie.commit", "an upload under a fenced epoch ends its broker"),
    owners("owners.append.refused", "an append is refused by the gate"),
    owners("owners.ack.dropped", "a queued append is not acknowledged: the partition is gone"),
    owners("owners.read.refused", "a read is refused by the gate at its end"),
    owners("owners.crash.sealed", "a broker dies between seal and move"),
    owners("owners.crash.fenced", "a broker dies in a takeover, before its uploads"),
    owners("owners.crash.uploaded", "a broker dies in a takeover, before the log is handed out"),
    owners("partition.sealed", "point: a partition is sealed"),
    owners("storage.takeover.fenced", "point: a log is fenced in metadata"),
    owners("storage.takeover.uploaded", "point: a taken log lies in objects"),
    // What no simulation can.
    elsewhere(
        "disk.write.short",
        "every byte at which a write may have ended",
        "tests/sim/tests/wal_bytes.rs::a_tail_cut_at_every_byte_gives_whole_groups_before_the_cut",
    ),
    elsewhere(
        "disk.bit.rot",
        "every byte that may rot",
        "tests/sim/tests/wal_bytes.rs::a_flip_of_every_byte_refuses_the_log_or_cuts_what_nobody_was_told_of",
    ),
    elsewhere(
        "disk.holes",
        "every hole that writes in flight may leave",
        "tests/sim/tests/wal_bytes.rs::every_hole_of_the_window_is_cut_and_what_is_below_it_kept",
    ),
    elsewhere(
        "disk.no.space",
        "a disk that a neighbour fills",
        "tests/crash/test_disks.py::test_a_full_disk_refuses_produce_serves_fetch_and_recovers",
    ),
    elsewhere(
        "disk.one.writer.fails",
        "EIO for one of the log's writers",
        "tests/crash/test_kills.py::test_an_error_in_one_writer_ends_the_process",
    ),
    elsewhere(
        "meta.sync.failed",
        "EIO for the metadata store",
        "tests/crash/test_disks.py::test_a_failing_sync_of_metadata_ends_the_process",
    ),
    elsewhere(
        "disk.slow",
        "writes that take a second and more",
        "tests/crash/test_disks.py::test_slow_writes_delay_answers_and_lose_nothing",
    ),
    elsewhere(
        "object.missing.or.damaged",
        "an object is missing, cut short or damaged for good",
        "tests/sim/tests/storage.rs::an_object_that_is_missing_or_damaged_refuses_its_range_only",
    ),
    elsewhere(
        "store.foreign",
        "a store or directory of another cluster",
        "tests/e2e/test_damage.py::test_stores_and_directories_that_cannot_be_used_are_refused",
    ),
    elsewhere(
        "disk.entry.not.synced",
        "a new segment's name survives a power cut",
        "tests/crash/test_power.py::test_power_cuts_lose_nothing",
    ),
];

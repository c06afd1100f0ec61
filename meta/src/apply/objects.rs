//! Objects: registered, expired, released, forgotten.
//!
//! ```text
//!            commit              last range released         deleted in the store
//! registered ------> committed ------------------> released ------> (forgotten)
//!     | time is over
//!     +----------> expired (tombstone; its delete is repeated for a day) -> (forgotten)
//! ```

use common::{ObjectId, StreamId, WalId};

use super::{Outcome, metadata_time, take_ids, wal_under};
use crate::command::{ExpireObjects, ObjectsDeleted, RegisterObject};
use crate::keys::{self, Counter};
use crate::record::{self, ObjectState};
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay, View, bad_key, read};

/// Ranges released by one command, at most.
pub(super) const RELEASE_MAX: usize = 4096;
/// Ranges of the backlog released by the way of each commit.
pub(super) const RELEASE_BY_THE_WAY: usize = 64;
/// The delete of an expired object is repeated for so long: a put may still have been under way.
const TOMBSTONE_MS: i64 = 24 * 3_600_000;
/// Time between two such deletes.
const TOMBSTONE_RETRY_MS: i64 = 3_600_000;
/// The longest life of a registration.
const TTL_MAX_MS: u64 = 7 * 24 * 3_600_000;

pub(super) fn register(state: &mut Overlay<'_>, command: &RegisterObject) -> Outcome {
    wal_under(state, WalId(command.wal), command.epoch)?;
    let now_ms = metadata_time(state, command.now_ms)?;
    let ttl_ms = i64::try_from(command.ttl_ms.clamp(1, TTL_MAX_MS)).expect("clamped");
    let expires_ms = now_ms.saturating_add(ttl_ms);
    let id = ObjectId(take_ids(state, Counter::Object, 1)?);
    let object = record::Object {
        state: ObjectState::Registered.into(),
        wal: command.wal,
        wal_epoch: command.epoch,
        at_ms: expires_ms,
        ..record::Object::default()
    };
    state.put(keys::object(id), &object);
    state.put(keys::expiry(expires_ms, id), &record::Number { value: id.0 });
    Ok(Reply::ObjectRegistered { object: id, expires_ms })
}

pub(super) fn expire(state: &mut Overlay<'_>, command: &ExpireObjects) -> Outcome {
    let now_ms = metadata_time(state, command.now_ms)?;
    let backlog = work_off(state, RELEASE_MAX, now_ms)?;
    let limit = usize::try_from(command.objects_max.clamp(1, 10_000)).expect("clamped");
    let (start, _) = keys::under(vec![keys::tag::EXPIRY]);
    let end = keys::expiry(now_ms.saturating_add(1), ObjectId(0));
    let due = state.scan(&start, &end, limit)?;
    let more = backlog || due.len() == limit;
    let mut objects = Vec::with_capacity(due.len());
    for (key, _) in due {
        let (id, _) = key.get(9..).and_then(keys::split_u64).ok_or_else(|| bad_key(&key))?;
        let id = ObjectId(id);
        state.remove(key);
        let Some(mut object) = state.load::<record::Object>(&keys::object(id))? else { continue };
        object.set_state(ObjectState::Expired);
        object.at_ms = now_ms;
        object.due_ms = now_ms;
        queue_deletion(state, id, &object);
        objects.push(id);
    }
    Ok(Reply::ObjectsExpired { objects, more })
}

fn queue_deletion(state: &mut Overlay<'_>, id: ObjectId, object: &record::Object) {
    state.put(keys::object(id), object);
    state.put(keys::deletion(object.due_ms, id), &record::Number { value: id.0 });
}

pub(super) fn deleted(state: &mut Overlay<'_>, command: &ObjectsDeleted) -> Outcome {
    let now_ms = metadata_time(state, command.now_ms)?;
    let mut forgotten = 0;
    for id in command.objects.iter().copied().map(ObjectId) {
        let Some(mut object) = state.load::<record::Object>(&keys::object(id))? else { continue };
        let over = match object.state() {
            ObjectState::Registered | ObjectState::Committed => continue,
            ObjectState::Released => true,
            ObjectState::Expired => now_ms.saturating_sub(object.at_ms) >= TOMBSTONE_MS,
        };
        state.remove(keys::deletion(object.due_ms, id));
        if over {
            state.remove(keys::object(id));
            forgotten += 1;
        } else {
            object.due_ms = now_ms.saturating_add(TOMBSTONE_RETRY_MS);
            queue_deletion(state, id, &object);
        }
    }
    Ok(Reply::ObjectsForgotten { forgotten })
}

/// Takes the live range of `stream` at `start` out of its object; without a live range the object is released.
pub(super) fn release_range(
    state: &mut Overlay<'_>,
    stream: StreamId,
    start: i64,
    range: &record::Range,
    now_ms: i64,
) -> Outcome<()> {
    let id = ObjectId(range.object);
    state.remove(keys::range(stream, start));
    state.remove(keys::live(id, stream, start));
    if let Some(mut object) = state.load::<record::Object>(&keys::object(id))? {
        object.live = object.live.saturating_sub(1);
        object.live_bytes = object.live_bytes.saturating_sub(range.bytes);
        settle_live(state, id, object, now_ms);
    }
    Ok(())
}

/// Writes a committed object, released when nothing in it is live.
pub(super) fn settle_live(
    state: &mut Overlay<'_>,
    id: ObjectId,
    mut object: record::Object,
    now_ms: i64,
) {
    if object.live > 0 {
        state.put(keys::object(id), &object);
        return;
    }
    object.set_state(ObjectState::Released);
    object.at_ms = now_ms;
    // The broker that deletes it adds the delay that readers need.
    object.due_ms = now_ms;
    queue_deletion(state, id, &object);
}

/// Releases ranges of deleted topics, at most `limit`. True when some are left.
pub(super) fn work_off(state: &mut Overlay<'_>, limit: usize, now_ms: i64) -> Outcome<bool> {
    let mut left = limit;
    loop {
        let (start, end) = keys::under(vec![keys::tag::RELEASE]);
        let Some((marker, _)) = state.scan(&start, &end, 1)?.pop() else { return Ok(false) };
        let (topic, _) = keys::split_u64(&marker[1..]).ok_or_else(|| bad_key(&marker))?;
        let (start, end) = keys::under(keys::ranges_of_topic(topic));
        let page = state.scan(&start, &end, left)?;
        for (key, value) in &page {
            let shape = || bad_key(key);
            let (stream, rest) = keys::split_stream(&key[1..]).ok_or_else(shape)?;
            let (start, _) = keys::split_i64(rest).ok_or_else(shape)?;
            release_range(state, stream, start, &read(key, value)?, now_ms)?;
        }
        if page.len() == left {
            return Ok(true);
        }
        left -= page.len();
        state.remove(marker);
    }
}

/// The record of a registered or once registered object.
pub(super) fn known(state: &Overlay<'_>, id: ObjectId) -> Outcome<record::Object> {
    Ok(state.load(&keys::object(id))?.ok_or(Reject::UnknownObject(id))?)
}

//! Sinks and their floors.

use std::collections::BTreeMap;

use super::{Outcome, metadata_time, take_ids, topics};
use crate::command::{AdvanceFloor, AlterSink, CreateSink, DeleteSink, SinkFloor, SinkState};
use crate::keys::{self, Counter};
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay, read};

pub(super) fn create(state: &mut Overlay<'_>, command: &CreateSink) -> Outcome {
    if command.name.is_empty() {
        return Err(Reject::Malformed("empty sink name").into());
    }
    let name_key = keys::sink_name(&command.name);
    if state.load::<record::Number>(&name_key)?.is_some() {
        return Err(Reject::SinkExists(command.name.clone()).into());
    }
    let (topic, topic_record) = topics::by_id(state, &command.topic)?;
    let mut starts = BTreeMap::new();
    for start in &command.starts {
        if start.partition >= topic_record.partitions || start.offset < 0 {
            return Err(Reject::Malformed("start of the sink").into());
        }
        starts.insert(start.partition, start.offset);
    }
    refuse_overlap(state, &command.root)?;
    let created_ms = metadata_time(state, command.now_ms)?;
    let id = take_ids(state, Counter::Sink, 1)?;
    for (partition, offset) in &starts {
        state.put(keys::sink_floor(id, *partition), &record::Floor { offset: *offset });
    }
    let sink = record::Sink {
        name: command.name.clone(),
        topic,
        topic_id: command.topic.clone(),
        topic_name: topic_record.name,
        config: command.config.clone(),
        starts,
        root: command.root.clone(),
        generation: 0,
        state: SinkState::Running.into(),
        created_ms,
    };
    state.put(keys::sink(id), &sink);
    state.put(name_key, &record::Number { value: id });
    Ok(Reply::SinkCreated { id })
}

/// One of the places lies in the other, or they are the same.
fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.trim_end_matches('/'), other.trim_end_matches('/'));
    let inside = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    one.is_empty() || other.is_empty() || inside(one, other) || inside(other, one)
}

fn refuse_overlap(state: &Overlay<'_>, root: &str) -> Outcome<()> {
    let mut there = None;
    state.each(vec![keys::tag::SINK], |key, value| {
        let sink: record::Sink = read(key, value)?;
        if there.is_none() && overlap(root, &sink.root) {
            there = Some(sink.name);
        }
        Ok(())
    })?;
    match there {
        None => Ok(()),
        Some(sink) => Err(Reject::SinkOverlaps { root: root.to_owned(), sink }.into()),
    }
}

fn by_name(state: &Overlay<'_>, name: &str) -> Outcome<(u64, record::Sink)> {
    let unknown = || Reject::UnknownSink(name.to_owned());
    let id: record::Number = state.load(&keys::sink_name(name))?.ok_or_else(unknown)?;
    Ok((id.value, state.load(&keys::sink(id.value))?.ok_or_else(unknown)?))
}

pub(super) fn alter(state: &mut Overlay<'_>, command: &AlterSink) -> Outcome {
    let (id, mut sink) = by_name(state, &command.name)?;
    for key in &command.unset {
        sink.config.remove(key);
    }
    sink.config.extend(command.set.iter().map(|(key, value)| (key.clone(), value.clone())));
    if let Some(wanted) = command.state {
        SinkState::try_from(wanted).map_err(|_| Reject::Malformed("sink state"))?;
        sink.state = wanted;
    }
    state.put(keys::sink(id), &sink);
    Ok(Reply::SinkAltered { id })
}

pub(super) fn delete(state: &mut Overlay<'_>, command: &DeleteSink) -> Outcome {
    let (id, _) = by_name(state, &command.name)?;
    state.remove(keys::sink(id));
    state.remove(keys::sink_name(&command.name));
    let mut floors = Vec::new();
    state.each(keys::sink_floors_of(id), |key, _| {
        floors.push(key.to_vec());
        Ok(())
    })?;
    floors.into_iter().for_each(|key| state.remove(key));
    Ok(Reply::SinkDeleted { id })
}

pub(super) fn advance_floor(state: &mut Overlay<'_>, command: &AdvanceFloor) -> Outcome {
    advance(state, &command.floors)?;
    Ok(Reply::FloorsAdvanced)
}

/// Moves floors forward; one that would go back stays, one of a sink that is gone is passed over.
pub(super) fn advance(state: &mut Overlay<'_>, floors: &[SinkFloor]) -> Outcome<()> {
    for floor in floors {
        let key = keys::sink_floor(floor.sink, floor.partition);
        let known: Option<record::Floor> = state.load(&key)?;
        let forward = known.is_none_or(|known| floor.floor > known.offset);
        if forward && state.load::<record::Sink>(&keys::sink(floor.sink))?.is_some() {
            state.put(key, &record::Floor { offset: floor.floor });
        }
    }
    Ok(())
}

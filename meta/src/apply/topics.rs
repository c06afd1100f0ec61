//! Topics and partitions.

use common::{NodeId, PartitionId};
use uuid::Uuid;

use super::objects::{self, RELEASE_MAX};
use super::{Outcome, Owner, PARTITIONS_MAX, metadata_time, owners, take_ids};
use crate::command::{Assignment, CreatePartitions, CreateTopic, DeleteTopic};
use crate::image::config_kind;
use crate::keys::{self, Counter};
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay};

pub(super) fn create(state: &mut Overlay<'_>, command: &CreateTopic) -> Outcome {
    let id = Uuid::from_slice(&command.id).map_err(|_| Reject::Malformed("topic id"))?;
    if command.name.is_empty() {
        return Err(Reject::Malformed("empty topic name").into());
    }
    let name_key = keys::topic_name(&command.name);
    match state.load::<record::TopicName>(&name_key)? {
        Some(there) if there.name == command.name => {
            return Err(Reject::TopicExists(there.name).into());
        }
        Some(there) => return Err(Reject::TopicCollides { other: there.name }.into()),
        None => {}
    }
    let id_key = keys::topic_id(&command.id);
    if state.load::<record::Number>(&id_key)?.is_some() {
        return Err(Reject::Malformed("topic id in use").into());
    }
    let plan = plan(state, 0, command.partitions, &command.assignments)?;
    let replication_factor = match command.assignments.first() {
        Some(first) => i32::try_from(first.replicas.len()).unwrap_or(i32::MAX),
        None => command.replication_factor,
    };
    let requested = i16::try_from(replication_factor).ok().filter(|factor| *factor >= 1);
    let requested = requested.ok_or(Reject::InvalidReplicationFactor(replication_factor))?;
    let partitions = u32::try_from(plan.len()).expect("below PARTITIONS_MAX");
    if command.validate_only {
        return Ok(created(0, id, partitions, requested));
    }
    let created_ms = metadata_time(state, command.now_ms)?;
    let number = take_ids(state, Counter::Topic, 1)?;
    let name = record::TopicName { number, name: command.name.clone() };
    state.put(name_key, &name);
    state.put(id_key, &record::Number { value: number });
    let topic = record::Topic {
        id: command.id.clone(),
        name: command.name.clone(),
        partitions,
        replication_factor,
        internal: command.internal,
        created_ms,
    };
    state.put(keys::topic(number), &topic);
    put_partitions(state, number, 0, &plan);
    if !command.configs.is_empty() {
        let config = record::Config { values: command.configs.clone() };
        state.put(topic_config(number), &config);
    }
    Ok(created(number, id, partitions, requested))
}

fn created(number: u64, id: Uuid, partitions: u32, replication_factor: i16) -> Reply {
    Reply::TopicCreated { number, id, partitions, replication_factor }
}

pub(super) fn topic_config(number: u64) -> Vec<u8> {
    keys::config(config_kind::TOPIC, &number.to_be_bytes())
}

/// The number and record of the topic with `id`.
pub(super) fn by_id(state: &Overlay<'_>, id: &[u8]) -> Outcome<(u64, record::Topic)> {
    let number: record::Number = state.load(&keys::topic_id(id))?.ok_or(Reject::UnknownTopic)?;
    let topic = state.load(&keys::topic(number.value))?.ok_or(Reject::UnknownTopic)?;
    Ok((number.value, topic))
}

pub(super) fn delete(state: &mut Overlay<'_>, command: &DeleteTopic) -> Outcome {
    let (number, topic) = by_id(state, &command.id)?;
    let now_ms = metadata_time(state, command.now_ms)?;
    state.remove(keys::topic_name(&topic.name));
    state.remove(keys::topic_id(&topic.id));
    state.remove(keys::topic(number));
    state.remove(topic_config(number));
    for prefix in [keys::partitions_of(number), keys::streams_of(number), keys::cleaning_of(number)]
    {
        let mut gone = Vec::new();
        state.each(prefix, |key, _| {
            gone.push(key.to_vec());
            Ok(())
        })?;
        gone.into_iter().for_each(|key| state.remove(key));
    }
    state.put(keys::release(number), &record::Number { value: number });
    objects::work_off(state, RELEASE_MAX, now_ms)?;
    Ok(Reply::TopicDeleted { number, name: topic.name })
}

pub(super) fn create_partitions(state: &mut Overlay<'_>, command: &CreatePartitions) -> Outcome {
    let (number, mut topic) = by_id(state, &command.id)?;
    let (asked, current) = (command.total, topic.partitions);
    if asked <= current || asked > PARTITIONS_MAX {
        return Err(Reject::InvalidPartitions { asked, current, max: PARTITIONS_MAX }.into());
    }
    let plan = plan(state, current, asked - current, &command.assignments)?;
    if plan.len() != usize::try_from(asked - current).expect("32 bits fit a usize") {
        let reason = "the assignment must name exactly the new partitions";
        return Err(Reject::InvalidAssignment { partition: current, reason }.into());
    }
    if !command.validate_only {
        topic.partitions = asked;
        state.put(keys::topic(number), &topic);
        put_partitions(state, number, current, &plan);
    }
    Ok(Reply::PartitionsCreated { total: asked })
}

fn put_partitions(state: &mut Overlay<'_>, topic: u64, first: u32, plan: &[Owner]) {
    for (index, owner) in (first..).zip(plan) {
        let record =
            record::Partition { leader: Some(owner.node.0), epoch: 0, wal: Some(owner.wal.0) };
        state.put(keys::partition(PartitionId { topic, index }), &record);
    }
}

/// The owners of `count` partitions from `first` on.
fn plan(state: &Overlay<'_>, first: u32, count: u32, manual: &[Assignment]) -> Outcome<Vec<Owner>> {
    let asked =
        if manual.is_empty() { count } else { u32::try_from(manual.len()).unwrap_or(u32::MAX) };
    if asked == 0 || asked > PARTITIONS_MAX {
        return Err(Reject::InvalidPartitions { asked, current: first, max: PARTITIONS_MAX }.into());
    }
    let owners = owners(state)?;
    if owners.is_empty() {
        return Err(Reject::NoBroker.into());
    }
    if !manual.is_empty() {
        return manual_plan(&owners, first, manual);
    }
    // The spread follows the topic's number, so that topics of one partition do not all meet on one broker.
    let shift = super::next_id(state, Counter::Topic)? + u64::from(first);
    let many = u64::try_from(owners.len()).expect("a count");
    let owner = |index: u64| {
        let position = usize::try_from((shift + index) % many).expect("below the count");
        owners[position]
    };
    Ok((0..u64::from(count)).map(owner).collect())
}

fn manual_plan(owners: &[Owner], first: u32, manual: &[Assignment]) -> Outcome<Vec<Owner>> {
    let refuse = |partition, reason| Reject::InvalidAssignment { partition, reason };
    let mut sorted: Vec<&Assignment> = manual.iter().collect();
    sorted.sort_by_key(|assignment| assignment.partition);
    let width = sorted[0].replicas.len();
    let mut plan = Vec::with_capacity(sorted.len());
    for (expected, assignment) in (first..).zip(sorted) {
        let partition = assignment.partition;
        if partition != expected {
            return Err(refuse(partition, "partitions must be consecutive, each once").into());
        }
        let mut replicas = assignment.replicas.clone();
        replicas.sort_unstable();
        replicas.dedup();
        if replicas.is_empty() || replicas.len() != assignment.replicas.len() {
            return Err(refuse(partition, "name at least one broker, each once").into());
        }
        if replicas.iter().any(|node| *node < 0) {
            return Err(refuse(partition, "a broker id is never negative").into());
        }
        if replicas.len() != width {
            return Err(refuse(partition, "all partitions must have as many replicas").into());
        }
        let known = |node: &i32| owners.iter().find(|owner| owner.node == NodeId(*node)).copied();
        let owner = assignment.replicas.iter().find_map(known);
        plan.push(owner.ok_or(refuse(partition, "none of its brokers is there"))?);
    }
    Ok(plan)
}

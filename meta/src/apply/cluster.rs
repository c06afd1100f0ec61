//! The cluster itself, its brokers, its feature level, producer ids.

use common::{IdSpace, NodeEpoch, NodeId, WalId};

use super::{Outcome, PRODUCER_BLOCK, take_ids};
use crate::command::{Bootstrap, RaiseFeatureLevel, StartNode};
use crate::keys::{self, Counter};
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay};

pub(super) fn bootstrap(state: &mut Overlay<'_>, command: &Bootstrap) -> Outcome {
    let incarnation = u16::try_from(command.incarnation).ok();
    let incarnation = incarnation.filter(|number| *number <= IdSpace::INCARNATION_MAX);
    let incarnation = incarnation.ok_or(Reject::Malformed("incarnation above 32767"))?;
    if command.cluster_id.is_empty() {
        return Err(Reject::Malformed("empty cluster id").into());
    }
    match state.load::<record::Cluster>(&keys::cluster())? {
        None => {
            let cluster = record::Cluster {
                cluster_id: command.cluster_id.clone(),
                incarnation: command.incarnation,
                feature_level: command.feature_level,
                rebuilding: false,
            };
            state.put(keys::cluster(), &cluster);
            Ok(Reply::Bootstrapped { incarnation })
        }
        Some(there) if there.cluster_id == command.cluster_id => {
            let incarnation = u16::try_from(there.incarnation).unwrap_or(incarnation);
            Ok(Reply::Bootstrapped { incarnation })
        }
        Some(there) => Err(Reject::OtherCluster { cluster_id: there.cluster_id }.into()),
    }
}

pub(super) fn start_node(state: &mut Overlay<'_>, command: &StartNode) -> Outcome {
    let node = NodeId(command.node);
    if command.node < 0 {
        return Err(Reject::Malformed("negative broker id").into());
    }
    if u16::try_from(command.port).is_err() {
        return Err(Reject::Malformed("port above 65535").into());
    }
    let before: Option<record::Broker> = state.load(&keys::broker(node))?;
    let wal = before.and_then(|broker| broker.wal);
    let epoch = take_ids(state, Counter::NodeEpoch, 1)?;
    let broker = record::Broker {
        host: command.host.clone(),
        port: command.port,
        rack: command.rack.clone(),
        epoch,
        wal,
        feature_level_max: command.feature_level_max,
    };
    state.put(keys::broker(node), &broker);
    Ok(Reply::NodeStarted { epoch: NodeEpoch(epoch), wal: wal.map(WalId) })
}

pub(super) fn raise_level(
    state: &mut Overlay<'_>,
    mut cluster: record::Cluster,
    command: &RaiseFeatureLevel,
) -> Outcome {
    let current = cluster.feature_level;
    let mut lacking = None;
    state.each(vec![keys::tag::BROKER], |key, value| {
        let broker: record::Broker = crate::view::read(key, value)?;
        if broker.feature_level_max < command.level && lacking.is_none() {
            lacking = keys::split_u32(&key[1..]).map(|(node, _)| NodeId(node.cast_signed()));
        }
        Ok(())
    })?;
    if command.level <= current || lacking.is_some() {
        return Err(Reject::FeatureLevel { asked: command.level, current, lacking }.into());
    }
    cluster.feature_level = command.level;
    state.put(keys::cluster(), &cluster);
    Ok(Reply::FeatureLevel { level: command.level })
}

pub(super) fn allocate_producer_ids(state: &mut Overlay<'_>) -> Outcome {
    let start = take_ids(state, Counter::Producer, u64::from(PRODUCER_BLOCK))?;
    let start = i64::try_from(start).map_err(|_| Reject::IdsExhausted("producer"))?;
    Ok(Reply::ProducerIds { start, len: PRODUCER_BLOCK })
}

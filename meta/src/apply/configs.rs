//! Dynamic configuration. What a key means and which values it takes is checked above; here is only what an operation
//! does.

use std::collections::{BTreeMap, BTreeSet};

use super::Outcome;
use super::topics::topic_config;
use crate::command::{AlterConfigs, ConfigOp, ConfigOpKind, ResourceKind};
use crate::image::config_kind;
use crate::keys;
use crate::record;
use crate::reply::{Reject, Reply};
use crate::view::{Load, Overlay};

pub(super) fn alter(state: &mut Overlay<'_>, command: &AlterConfigs) -> Outcome {
    let key = resource(state, command)?;
    let before: record::Config = state.load(&key)?.unwrap_or_default();
    let mut values = if command.replace { BTreeMap::new() } else { before.values };
    let mut seen = BTreeSet::new();
    for op in &command.ops {
        if !seen.insert(op.key.as_str()) {
            return Err(invalid(op, "the key stands twice in one request").into());
        }
        change(&mut values, op)?;
    }
    if command.validate_only {
        return Ok(Reply::ConfigsAltered);
    }
    if values.is_empty() {
        state.remove(key);
    } else {
        state.put(key, &record::Config { values });
    }
    Ok(Reply::ConfigsAltered)
}

fn resource(state: &Overlay<'_>, command: &AlterConfigs) -> Outcome<Vec<u8>> {
    match ResourceKind::try_from(command.kind) {
        Ok(ResourceKind::Topic) => {
            let name: Option<record::TopicName> = state.load(&keys::topic_name(&command.name))?;
            let topic = name.filter(|there| there.name == command.name);
            Ok(topic_config(topic.ok_or(Reject::UnknownTopic)?.number))
        }
        Ok(ResourceKind::Broker) if command.name.is_empty() => {
            Ok(keys::config(config_kind::BROKER, &[]))
        }
        Ok(ResourceKind::Broker) => {
            let node: Option<u32> = command.name.parse().ok().filter(|node| *node < 1 << 31);
            let node = node.ok_or(Reject::Malformed("broker id"))?;
            Ok(keys::config(config_kind::BROKER, &node.to_be_bytes()))
        }
        Ok(ResourceKind::Group) => Ok(keys::config(config_kind::GROUP, command.name.as_bytes())),
        Ok(ResourceKind::Unknown) | Err(_) => Err(Reject::Malformed("resource kind").into()),
    }
}

fn invalid(op: &ConfigOp, reason: &'static str) -> Reject {
    Reject::InvalidConfig { key: op.key.clone(), reason }
}

fn change(values: &mut BTreeMap<String, String>, op: &ConfigOp) -> Outcome<()> {
    let kind = ConfigOpKind::try_from(op.op).map_err(|_| invalid(op, "unknown operation"))?;
    if op.key.is_empty() {
        return Err(invalid(op, "empty key").into());
    }
    if kind == ConfigOpKind::Delete {
        values.remove(&op.key);
        return Ok(());
    }
    let value = op.value.as_deref().ok_or_else(|| invalid(op, "the operation needs a value"))?;
    if kind == ConfigOpKind::Set {
        values.insert(op.key.clone(), value.to_owned());
        return Ok(());
    }
    let current = values.get(&op.key).or(op.base.as_ref()).map_or("", String::as_str);
    let mut items: Vec<&str> = list(current).collect();
    if kind == ConfigOpKind::Append {
        for item in list(value) {
            if !items.contains(&item) {
                items.push(item);
            }
        }
    } else {
        let removed: Vec<&str> = list(value).collect();
        items.retain(|item| !removed.contains(item));
    }
    let joined = items.join(",");
    values.insert(op.key.clone(), joined);
    Ok(())
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

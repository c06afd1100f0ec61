//! Dynamic configuration: Kafka's topic and broker keys, their types, defaults, checks and the order in which values
//! override each other.
//!
//! A topic's value is the first of: the topic's own, the broker's dynamic one, the cluster's dynamic default, the static
//! setting, Kafka's default; a topic key falls back to its broker key (`retention.ms` to `log.retention.ms`).

mod check;
mod table;

use std::collections::BTreeMap;

use common::NodeId;

use crate::config::{Settings, nearest};
pub(crate) use check::check;
pub(crate) use table::{Key, Kind, TOPIC_KEYS, broker_keys};

/// Where a value came from, with Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefault = 3,
    Static = 4,
    Default = 5,
    Group = 8,
}

/// One value of a key, in the order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Synonym {
    pub name: String,
    pub value: String,
    pub source: Source,
}

/// The layers a value is looked up in.
pub(crate) struct Layers<'a> {
    pub topic: Option<&'a BTreeMap<String, String>>,
    pub broker: Option<&'a BTreeMap<String, String>>,
    pub cluster: Option<&'a BTreeMap<String, String>>,
    pub settings: &'a Settings,
}

impl<'a> Layers<'a> {
    /// The layers of a broker and, if given, one of its topics.
    pub(crate) fn of(
        image: &'a meta::Image,
        node: NodeId,
        settings: &'a Settings,
        topic: Option<&'a BTreeMap<String, String>>,
    ) -> Self {
        let broker = image.broker_configs.get(&Some(node));
        let cluster = image.broker_configs.get(&None);
        Self { topic, broker, cluster, settings }
    }

    /// All values of a topic key, the one in force first.
    pub(crate) fn topic_values(&self, key: &Key) -> Vec<Synonym> {
        let mut values = Vec::new();
        if let Some(value) = self.topic.and_then(|map| map.get(key.name)) {
            let (name, value) = (key.name.to_owned(), value.clone());
            values.push(Synonym { name, value, source: Source::Topic });
        }
        if let Some(broker) = key.broker {
            self.push_broker_values(broker, key, &mut values);
        } else {
            values.push(Synonym {
                name: key.name.to_owned(),
                value: key.default.to_owned(),
                source: Source::Default,
            });
        }
        values
    }

    /// All values of a broker key, the one in force first.
    pub(crate) fn broker_values(&self, key: &Key) -> Vec<Synonym> {
        let mut values = Vec::new();
        self.push_broker_values(key.name, key, &mut values);
        values
    }

    fn push_broker_values(&self, name: &str, key: &Key, values: &mut Vec<Synonym>) {
        let dynamic =
            [(self.broker, Source::DynamicBroker), (self.cluster, Source::DynamicDefault)];
        for (map, source) in dynamic {
            if let Some(value) = map.and_then(|map| map.get(name)) {
                values.push(Synonym { name: name.to_owned(), value: value.clone(), source });
            }
        }
        if let Some(value) = static_value(self.settings, name)
            && value != key.default
        {
            values.push(Synonym { name: name.to_owned(), value, source: Source::Static });
        }
        let (name, value) = (name.to_owned(), key.default.to_owned());
        values.push(Synonym { name, value, source: Source::Default });
    }

    /// The configuration that a topic's partitions act on: only what differs from Kafka's defaults.
    pub(crate) fn effective(&self) -> BTreeMap<String, String> {
        let mut out = BTreeMap::new();
        for key in TOPIC_KEYS {
            if let Some(first) = self.topic_values(key).into_iter().next()
                && first.source != Source::Default
            {
                out.insert(key.name.to_owned(), first.value);
            }
        }
        out
    }

    /// True when nothing above the topic's own configuration overrides a default.
    pub(crate) fn is_plain(&self) -> bool {
        let empty = |map: Option<&BTreeMap<String, String>>| map.is_none_or(BTreeMap::is_empty);
        empty(self.broker)
            && empty(self.cluster)
            && self.settings.topics.message_bytes_max == 1_048_588
            && self.settings.cleaning == crate::config::Cleaning::default()
    }
}

/// The settings that stand for a broker key of Kafka's.
fn static_value(settings: &Settings, name: &str) -> Option<String> {
    let value = match name {
        "message.max.bytes" => settings.topics.message_bytes_max.to_string(),
        "log.retention.ms" => settings.cleaning.effective_retention_ms().to_string(),
        "log.retention.minutes" => {
            settings.cleaning.retention_minutes.map_or_else(String::new, |set| set.to_string())
        }
        "log.retention.hours" => settings.cleaning.retention_hours.to_string(),
        "log.retention.bytes" => settings.cleaning.retention_bytes.to_string(),
        "log.retention.check.interval.ms" => settings.cleaning.check_interval_ms.to_string(),
        "log.cleanup.policy" => settings.cleaning.policy.clone(),
        "num.partitions" => settings.topics.partitions.to_string(),
        "default.replication.factor" => settings.topics.replication_factor.to_string(),
        "auto.create.topics.enable" => settings.topics.auto_create.to_string(),
        "node.id" | "broker.id" => settings.server.node_id.to_string(),
        "listeners" => format!("PLAINTEXT://{}", settings.server.listen),
        "max.connections" => settings.server.connections_max.to_string(),
        "connections.max.idle.ms" => settings.server.idle_ms.to_string(),
        "socket.request.max.bytes" => settings.server.request_bytes_max.to_string(),
        "offsets.topic.num.partitions" => settings.groups.offsets_partitions.to_string(),
        "group.initial.rebalance.delay.ms" => {
            settings.groups.initial_rebalance_delay_ms.to_string()
        }
        "group.min.session.timeout.ms" => settings.groups.session_timeout_ms_min.to_string(),
        "group.max.session.timeout.ms" => settings.groups.session_timeout_ms_max.to_string(),
        "group.max.size" => settings.groups.size_max.to_string(),
        "offset.metadata.max.bytes" => settings.groups.offset_metadata_bytes_max.to_string(),
        "offsets.retention.minutes" => settings.groups.offsets_retention_minutes.to_string(),
        _ => return None,
    };
    Some(value)
}

/// The topic key `name`, or one sentence with the nearest.
pub(crate) fn topic_key(name: &str) -> Result<&'static Key, String> {
    find(name, TOPIC_KEYS.iter()).ok_or_else(|| unknown(name, "topic", TOPIC_KEYS.iter()))
}

/// The broker key `name`, or one sentence with the nearest.
pub(crate) fn broker_key(name: &str) -> Result<&'static Key, String> {
    find(name, broker_keys()).ok_or_else(|| unknown(name, "broker", broker_keys()))
}

fn find(name: &str, mut keys: impl Iterator<Item = &'static Key>) -> Option<&'static Key> {
    keys.find(|key| key.name == name)
}

fn unknown(name: &str, of: &str, keys: impl Iterator<Item = &'static Key>) -> String {
    match nearest(name, keys.map(|key| key.name)) {
        Some(near) => format!("Unknown {of} config name: {name}; did you mean {near}?"),
        None => format!("Unknown {of} config name: {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn the_nearest_layer_wins_and_all_are_named() {
        let (topic, broker) = (map(&[("retention.ms", "5")]), map(&[("log.retention.ms", "6")]));
        let settings = Settings::default();
        let layers = Layers {
            topic: Some(&topic),
            broker: Some(&broker),
            cluster: None,
            settings: &settings,
        };
        let key = topic_key("retention.ms").expect("known");
        let values = layers.topic_values(key);
        let seen: Vec<_> = values.iter().map(|v| (v.value.as_str(), v.source)).collect();
        assert_eq!(
            seen,
            [("5", Source::Topic), ("6", Source::DynamicBroker), ("604800000", Source::Default)]
        );
        assert_eq!(layers.effective(), topic);
    }

    #[test]
    fn the_finest_unit_of_retention_counts() {
        let mut settings = Settings::default();
        settings.cleaning.retention_hours = 2;
        settings.cleaning.policy = "compact".to_owned();
        let of = |settings: &Settings| {
            let layers = Layers { topic: None, broker: None, cluster: None, settings };
            layers.effective()
        };
        let two_hours = [("cleanup.policy", "compact"), ("retention.ms", "7200000")];
        assert_eq!(of(&settings), map(&two_hours));
        settings.cleaning.retention_minutes = Some(3);
        assert_eq!(of(&settings)["retention.ms"], "180000");
        settings.cleaning.retention_ms = Some(-1);
        assert_eq!(of(&settings)["retention.ms"], "-1");
    }

    #[test]
    fn a_static_setting_stands_between_dynamic_and_default() {
        let mut settings = Settings::default();
        settings.topics.message_bytes_max = 2000;
        let layers = Layers { topic: None, broker: None, cluster: None, settings: &settings };
        assert_eq!(layers.effective(), map(&[("max.message.bytes", "2000")]));
        assert!(!layers.is_plain());
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = topic_key("retention.msx").expect_err("unknown");
        assert_eq!(error, "Unknown topic config name: retention.msx; did you mean retention.ms?");
    }
}

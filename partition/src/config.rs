//! The settings of a topic, as Kafka names and defaults them.

use std::collections::BTreeMap;

/// Which time a record carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, at append.
    LogAppendTime,
}

/// Settings of one topic that its partitions act on. Unset keys have Kafka 4.3's defaults. A value that cannot be read
/// (metadata refuses such values when they are set) counts as unset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `max.message.bytes`: largest batch, in bytes.
    pub message_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a record's time may lie in the past.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a record's time may lie in the future.
    pub timestamp_after_max_ms: i64,
    /// `cleanup.policy` has `compact`.
    pub compacted: bool,
    /// `cleanup.policy` has `delete`.
    pub deleted_by_age: bool,
    /// `retention.ms`; -1 is for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; -1 is unbounded.
    pub retention_bytes: i64,
    /// `min.insync.replicas`: kept for describing; durability does not come from replicas.
    pub min_insync_replicas: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            message_bytes_max: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            deleted_by_age: true,
            retention_ms: 604_800_000,
            retention_bytes: -1,
            min_insync_replicas: 1,
        }
    }
}

impl TopicConfig {
    /// The settings in `configs`, over the defaults.
    #[must_use]
    pub fn from_configs(configs: &BTreeMap<String, String>) -> Self {
        let base = Self::default();
        let policy = configs.get("cleanup.policy").map(String::as_str);
        let has = |word: &str| policy.map(|p| p.split(',').any(|part| part.trim() == word));
        Self {
            message_bytes_max: number(configs, "max.message.bytes", base.message_bytes_max),
            timestamp_type: match configs.get("message.timestamp.type").map(String::as_str) {
                Some("LogAppendTime") => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: number(
                configs,
                "message.timestamp.before.max.ms",
                base.timestamp_before_max_ms,
            ),
            timestamp_after_max_ms: number(
                configs,
                "message.timestamp.after.max.ms",
                base.timestamp_after_max_ms,
            ),
            compacted: has("compact").unwrap_or(base.compacted),
            deleted_by_age: has("delete").unwrap_or(base.deleted_by_age),
            retention_ms: number(configs, "retention.ms", base.retention_ms),
            retention_bytes: number(configs, "retention.bytes", base.retention_bytes),
            min_insync_replicas: number(configs, "min.insync.replicas", base.min_insync_replicas),
        }
    }
}

fn number<T: std::str::FromStr>(configs: &BTreeMap<String, String>, key: &str, base: T) -> T {
    configs.get(key).and_then(|text| text.trim().parse().ok()).unwrap_or(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kafkas_defaults_and_kafkas_keys() {
        assert_eq!(TopicConfig::from_configs(&BTreeMap::new()), TopicConfig::default());
        let set = [
            ("max.message.bytes", "2000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("message.timestamp.after.max.ms", "5"),
            ("cleanup.policy", "compact, delete"),
            ("retention.ms", "-1"),
            ("min.insync.replicas", "2"),
            ("retention.bytes", "rubbish"),
        ];
        let configs = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = TopicConfig::from_configs(&configs);
        assert_eq!((config.message_bytes_max, config.timestamp_after_max_ms), (2000, 5));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert!(config.compacted && config.deleted_by_age);
        assert_eq!((config.retention_ms, config.retention_bytes), (-1, -1));
        assert_eq!(config.min_insync_replicas, 2);
        let compacted = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        assert!(!TopicConfig::from_configs(&compacted).deleted_by_age);
    }
}

//! The settings of a topic, as Kafka names and defaults them.

use std::collections::BTreeMap;

use protocol::compression::Codec;

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
    /// `delete.retention.ms`: how long a tombstone stays once it was compacted.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`, in millionths.
    pub dirty_ratio_min_ppm: u32,
    /// `min.compaction.lag.ms`: a younger record is not compacted.
    pub compaction_lag_min_ms: i64,
    /// `max.compaction.lag.ms`: an older record makes a pass due whatever the ratio says.
    pub compaction_lag_max_ms: i64,
    /// `compression.type`: the codec that batches are stored in; `None` keeps the producer's.
    pub codec: Option<Codec>,
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
            delete_retention_ms: 86_400_000,
            dirty_ratio_min_ppm: 500_000,
            compaction_lag_min_ms: 0,
            compaction_lag_max_ms: i64::MAX,
            codec: None,
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
            delete_retention_ms: number(configs, "delete.retention.ms", base.delete_retention_ms),
            dirty_ratio_min_ppm: ppm(configs, "min.cleanable.dirty.ratio")
                .unwrap_or(base.dirty_ratio_min_ppm),
            compaction_lag_min_ms: number(
                configs,
                "min.compaction.lag.ms",
                base.compaction_lag_min_ms,
            ),
            compaction_lag_max_ms: number(
                configs,
                "max.compaction.lag.ms",
                base.compaction_lag_max_ms,
            ),
            codec: configs.get("compression.type").and_then(|name| Codec::from_name(name)),
            min_insync_replicas: number(configs, "min.insync.replicas", base.min_insync_replicas),
        }
    }
}

fn number<T: std::str::FromStr>(configs: &BTreeMap<String, String>, key: &str, base: T) -> T {
    configs.get(key).and_then(|text| text.trim().parse().ok()).unwrap_or(base)
}

/// A share between 0 and 1 in millionths.
fn ppm(configs: &BTreeMap<String, String>, key: &str) -> Option<u32> {
    let text = configs.get(key)?.trim();
    let share: f64 = text.parse().ok().filter(|share| (0.0..=1.0).contains(share))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0 and 10^6"
    )]
    let ppm = (share * 1_000_000.0).round() as u32;
    Some(ppm)
}

/// Gives the configuration of a topic: what of it is set, by the topic or by anything that stands behind it.
#[derive(Clone)]
pub struct Resolver(pub std::sync::Arc<ResolveFn>);

/// What a [`Resolver`] does.
pub type ResolveFn = dyn Fn(&meta::Image, &meta::Topic) -> BTreeMap<String, String> + Send + Sync;

impl Default for Resolver {
    /// The topic's own settings over Kafka's defaults, nothing between.
    fn default() -> Self {
        Self(std::sync::Arc::new(|_, topic| topic.configs.clone()))
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// The configuration in force.
    #[must_use]
    pub fn resolve(&self, image: &meta::Image, topic: &meta::Topic) -> TopicConfig {
        TopicConfig::from_configs(&(self.0)(image, topic))
    }
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
            ("min.cleanable.dirty.ratio", "0.25"),
        ];
        let configs = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = TopicConfig::from_configs(&configs);
        assert_eq!((config.message_bytes_max, config.timestamp_after_max_ms), (2000, 5));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert!(config.compacted && config.deleted_by_age);
        assert_eq!((config.retention_ms, config.retention_bytes), (-1, -1));
        assert_eq!(config.min_insync_replicas, 2);
        assert_eq!(config.dirty_ratio_min_ppm, 250_000);
        let compacted = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        assert!(!TopicConfig::from_configs(&compacted).deleted_by_age);
    }
}

//! Settings of a shard, with Kafka's names and defaults.

/// One value for all shards of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `group.min.session.timeout.ms`, milliseconds.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`, milliseconds.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`, milliseconds. 0 begins the first generation at once.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of one group.
    pub group_size_max: usize,
    /// `offset.metadata.max.bytes`: metadata of one committed offset, counted as Kafka does in UTF-16 code units.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes` in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`, milliseconds.
    pub offsets_check_interval_ms: i64,
    /// How long a member that has joined for the first time may wait for the rebalance to end, milliseconds.
    pub new_member_timeout_ms: i64,
    /// Member ids handed out by one group and not yet used; more are refused with GROUP_MAX_SIZE_REACHED.
    pub pending_members_max: usize,
    /// Writes under way in one shard; a request that needs one more is refused with COORDINATOR_NOT_AVAILABLE.
    pub writes_max: usize,
    /// Requests of one group that wait for its deletion; more are refused with COORDINATOR_NOT_AVAILABLE.
    pub deferred_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_size_max: usize::MAX,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 10_080 * 60_000,
            offsets_check_interval_ms: 600_000,
            new_member_timeout_ms: 300_000,
            pending_members_max: 10_000,
            writes_max: 10_000,
            deferred_max: 1_000,
        }
    }
}

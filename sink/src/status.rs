//! What a sink is doing in a partition, for `describe` and for metrics.

use serde::Serialize;

/// Where a task stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Looks for its boundary.
    #[default]
    Opening,
    /// Folds and cuts.
    Running,
    /// Met a fault that may pass and tries again.
    Retrying,
    /// Waits for an operator.
    Stopped,
}

/// One sink in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Topic.
    pub topic: String,
    /// Index of the partition.
    pub partition: u32,
    /// Where the task stands.
    pub state: State,
    /// Every offset below is in files or a named hole. `None` before the first look.
    pub boundary: Option<i64>,
    /// End of what consumers see.
    pub end: i64,
    /// Offsets that consumers see and no file holds yet.
    pub lag: i64,
    /// Milliseconds since records began to wait for a file; 0 when none waits.
    pub freshness_ms: i64,
    /// Since when, milliseconds since 1970.
    #[serde(skip)]
    pub waiting_since_ms: Option<i64>,
    /// Records folded into the open file.
    pub open_records: u64,
    /// Completed cuts since this process started.
    pub cuts: u64,
    /// Files of them.
    pub files: u64,
    /// Rows of them.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The last fault, until a step succeeds.
    pub problem: Option<String>,
}

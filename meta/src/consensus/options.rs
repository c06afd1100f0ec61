//! What a voter is started with.

use std::sync::Arc;
use std::time::Duration;

use common::{Clock, Rng, Shutdown};

use super::transport::Transport;
use crate::metrics::Metrics;
use crate::view::ViewError;

/// Settings of one voter.
#[derive(Clone, Debug)]
pub struct Options {
    /// This voter, not 0.
    pub voter: u64,
    /// All voters, this one among them. Fixed at the first start.
    pub voters: Vec<u64>,
    /// Length of one tick of raft's clock.
    pub tick: Duration,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before an election, at least; at most twice that.
    pub election_ticks: usize,
    /// Proposals in flight; more wait.
    pub proposals_max: usize,
    /// Reads waiting; more wait.
    pub reads_max: usize,
    /// How long a proposal may take.
    pub propose_timeout: Duration,
    /// Size of one command.
    pub command_bytes_max: usize,
    /// Entries of the log before it is compacted.
    pub log_entries_max: usize,
    /// Bytes of the log before it is compacted.
    pub log_bytes_max: usize,
    /// Applied entries kept by a compaction for voters that lag a little.
    pub log_entries_keep: u64,
}

impl Options {
    /// The embedded default: one voter.
    #[must_use]
    pub fn alone() -> Self {
        Self { log_entries_keep: 0, ..Self::group(1, vec![1]) }
    }

    /// Voter `voter` of a group.
    #[must_use]
    pub fn group(voter: u64, voters: Vec<u64>) -> Self {
        Self {
            voter,
            voters,
            tick: Duration::from_millis(100),
            heartbeat_ticks: 2,
            election_ticks: 10,
            proposals_max: 1024,
            reads_max: 1024,
            propose_timeout: Duration::from_secs(30),
            command_bytes_max: 16 << 20,
            log_entries_max: 2048,
            log_bytes_max: 4 << 20,
            log_entries_keep: 512,
        }
    }
}

/// What a voter works with.
pub struct Deps {
    /// Time.
    pub clock: Clock,
    /// Randomness, for election timeouts.
    pub rng: Rng,
    /// The way to the other voters.
    pub transport: Box<dyn Transport>,
    /// Ends the driver. To be cancelled after everything that still proposes.
    pub shutdown: Shutdown,
    /// Called with one line when the store has failed: ends the process.
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// Metrics of this voter.
    pub metrics: Metrics,
}

/// Why a voter does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be read or written.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The store belongs to another voter or another set of voters.
    #[error(
        "metadata store belongs to voter {found} of {found_voters:?}, \
         started as voter {voter} of {voters:?}; use its own data directory"
    )]
    OtherVoter {
        /// The voter in the store.
        found: u64,
        /// The voters in the store.
        found_voters: Vec<u64>,
        /// The voter in the options.
        voter: u64,
        /// The voters in the options.
        voters: Vec<u64>,
    },
    /// The state is older than the log reaches back.
    #[error(
        "metadata state is applied up to {applied}, its log begins behind {truncated} and ends at {last}; it is damaged"
    )]
    Torn {
        /// Applied index.
        applied: u64,
        /// The log begins behind it.
        truncated: u64,
        /// The log's last index.
        last: u64,
    },
    /// Raft refuses the settings.
    #[error("raft: {0}")]
    Raft(String),
}

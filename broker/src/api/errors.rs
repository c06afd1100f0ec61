//! The one place where errors of the rooms below become Kafka's codes. No match here has a wildcard arm, so a new error
//! asks for its code.

use meta::Reject;
use protocol::ErrorCode;

/// An error as it goes into a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub code: ErrorCode,
    pub message: String,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl From<Reject> for Failure {
    fn from(reject: Reject) -> Self {
        Self { code: of_reject(&reject), message: reject.to_string() }
    }
}

impl From<meta::ProposeError> for Failure {
    fn from(error: meta::ProposeError) -> Self {
        Self { code: of_propose(&error), message: error.to_string() }
    }
}

/// A reply that is none of those the command has.
pub(crate) fn unexpected(reply: &meta::Reply) -> Failure {
    Failure::new(ErrorCode::UnknownServerError, format!("unexpected reply of metadata: {reply:?}"))
}

fn of_propose(error: &meta::ProposeError) -> ErrorCode {
    match error {
        meta::ProposeError::NotLeader { .. } => ErrorCode::NotController,
        meta::ProposeError::TimedOut | meta::ProposeError::Unknown | meta::ProposeError::Closed => {
            ErrorCode::RequestTimedOut
        }
        meta::ProposeError::TooLarge { .. } => ErrorCode::InvalidRequest,
    }
}

fn of_reject(reject: &Reject) -> ErrorCode {
    match reject {
        Reject::TopicExists(_) => ErrorCode::TopicAlreadyExists,
        Reject::TopicCollides { .. } => ErrorCode::InvalidTopicException,
        Reject::UnknownTopic | Reject::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        Reject::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        Reject::InvalidReplicationFactor(_) => ErrorCode::InvalidReplicationFactor,
        Reject::InvalidAssignment { .. } => ErrorCode::InvalidReplicaAssignment,
        Reject::InvalidConfig { .. } => ErrorCode::InvalidConfig,
        Reject::UnknownNode(_) => ErrorCode::BrokerIdNotRegistered,
        Reject::NoBroker => ErrorCode::BrokerNotAvailable,
        Reject::Malformed(_) | Reject::UnknownCommand => ErrorCode::InvalidRequest,
        Reject::StaleStreamEpoch { .. } | Reject::StaleWalEpoch { .. } => {
            ErrorCode::NotLeaderOrFollower
        }
        Reject::NotBootstrapped
        | Reject::OtherCluster { .. }
        | Reject::IdsExhausted(_)
        | Reject::UnknownWal(_)
        | Reject::WalClosed(_)
        | Reject::WalExists { .. }
        | Reject::WalOfOther { .. }
        | Reject::RecoveredShort { .. }
        | Reject::UnknownObject(_)
        | Reject::ObjectExpired(_)
        | Reject::WalStays { .. }
        | Reject::CannotOwn(_)
        | Reject::NotUploaded { .. }
        | Reject::CoverChanged { .. }
        | Reject::BelowLogStart { .. }
        | Reject::Rebuilding
        | Reject::NotRebuilding
        | Reject::StaleIncarnation { .. }
        | Reject::NotContinuing(_)
        | Reject::SinkExists(_)
        | Reject::UnknownSink(_)
        | Reject::SinkOverlaps { .. }
        | Reject::FeatureLevel { .. }
        | Reject::BrokenInvariant(_) => ErrorCode::UnknownServerError,
    }
}

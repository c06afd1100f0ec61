//! One member of a group.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::effect::Token;
use crate::records::MemberMetadata;
use crate::request::JoinRequest;

/// A way to assign partitions that a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Name, such as `range`.
    pub name: String,
    /// Subscription of the member under this protocol; opaque but for `consumer` groups.
    pub metadata: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In order of preference.
    pub(crate) protocols: Vec<Protocol>,
    /// Of the last generation whose assignment is durable; empty once a rebalance has reset it.
    pub(crate) assignment: Bytes,
    pub(crate) awaiting_join: Option<Token>,
    pub(crate) awaiting_sync: Option<Token>,
    /// True until the member's first generation: only then may waiting for a join outlast its session.
    pub(crate) is_new: bool,
}

impl Member {
    pub(crate) fn joining(id: String, request: JoinRequest) -> Self {
        Self {
            id,
            instance: request.instance,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    /// The member as a committed generation holds it: with the one protocol of that generation.
    pub(crate) fn loaded(saved: &MemberMetadata, protocol: Option<&str>) -> Self {
        let protocol = Protocol {
            name: protocol.unwrap_or_default().to_owned(),
            metadata: saved.subscription.clone(),
        };
        Self {
            id: saved.member.clone(),
            instance: saved.instance.clone(),
            client_id: saved.client_id.clone(),
            client_host: saved.client_host.clone(),
            rebalance_timeout_ms: saved.rebalance_timeout_ms,
            session_timeout_ms: saved.session_timeout_ms,
            protocols: vec![protocol],
            assignment: saved.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        }
    }

    pub(crate) fn saved(&self, protocol: Option<&str>, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member: self.id.clone(),
            instance: self.instance.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: self.metadata(protocol),
            assignment,
        }
    }

    pub(crate) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|own| own.name == protocol)
    }

    /// The subscription under `protocol`; empty when the member does not know it.
    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let own = self.protocols.iter().find(|own| Some(own.name.as_str()) == protocol);
        own.map(|own| own.metadata.clone()).unwrap_or_default()
    }

    /// The candidate this member likes best.
    pub(crate) fn vote(&self, candidates: &BTreeSet<&str>) -> Option<&str> {
        self.protocols.iter().map(|own| own.name.as_str()).find(|name| candidates.contains(name))
    }

    /// A waiting member proves that it lives by the request it waits on.
    pub(crate) fn satisfies_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }
}

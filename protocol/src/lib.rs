//! Kafka's wire protocol as the broker needs it: error codes, the table of served APIs, frames, the guard that every
//! untrusted body passes before a decoder sees it, zero-copy Produce and Fetch, record batches and their compression.
//!
//! ```text
//! frame bytes -> frame::decode -> guard (table-driven) -> messages::decode     (control messages, kafka-protocol)
//!                             \-> produce::Request::decode / fetch::Request::decode   (own, records stay slices)
//! ```
//!
//! Nothing here knows topics, partitions of a broker, disks or sockets.

pub mod api;
pub mod batch;
pub mod client;
pub mod compression;
mod error_code;
pub mod fetch;
pub mod frame;
pub mod guard;
pub mod messages;
pub mod produce;
mod topic_name;
pub mod wire;

pub use api::ApiKey;
pub use error_code::ErrorCode;
pub use kafka_protocol::protocol::StrBytes;
pub use topic_name::{TOPIC_NAME_BYTES_MAX, TopicNameError, check_topic_name, collides};

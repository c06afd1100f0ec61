//! The records of `__consumer_offsets`, in Kafka's formats, big-endian.
//!
//! Every key and value begins with an i16 version; the version of the key names the kind of record:
//!
//! ```text
//! key 0, 1: offset commit    | i16 | group: string | topic: string | partition: i32 |
//! key 2:    group metadata   | i16 | group: string |
//! ```
//!
//! Written are the newest versions without flexible fields, as Apache Kafka does: offset values 3 (1 with an explicit
//! expiry), group values 3. Read are offset values 0 to 4 and group values 0 to 4. A null value is a tombstone.

mod codec;
mod key;
mod metadata;
mod offset;

pub use codec::DecodeError;
pub use key::Key;
pub use metadata::{GroupMetadata, MemberMetadata};
pub use offset::CommittedOffset;

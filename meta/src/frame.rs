//! The frame around every value, command and log entry: one version byte, then a prost message.
//!
//! ```text
//! 0         1                      n
//! +---------+----------------------+
//! | version |   prost message      |
//! +---------+----------------------+
//! ```

/// The frame version written and read by this build.
pub const VERSION: u8 = 1;

/// Bytes that are not a frame of this build.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No byte at all.
    #[error("empty frame")]
    Empty,
    /// A version that another build wrote.
    #[error("frame version {found}, this build reads {VERSION}; use the build that wrote it")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The message itself.
    #[error("damaged frame: {0}")]
    Damaged(String),
}

/// The frame of `message`.
#[must_use]
pub fn encode<M: prost::Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + message.encoded_len());
    out.push(VERSION);
    message.encode(&mut out).expect("a vector grows");
    out
}

/// Reads a frame.
///
/// # Errors
/// [`DecodeError`] for an unknown version or a message that cannot be read.
pub fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    M::decode(body(bytes)?).map_err(|error| DecodeError::Damaged(error.to_string()))
}

/// The bytes behind the version byte.
pub(crate) fn body(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&VERSION, body)) => Ok(body),
        Some((&found, _)) => Err(DecodeError::Version { found }),
    }
}

//! Control messages: the types of `kafka-protocol`, decoded behind the guard, encoded into one buffer.

use bytes::{Bytes, BytesMut};
pub use kafka_protocol::messages::*;
pub use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};

use crate::api;
use crate::guard::{self, GuardError};

/// A request body that is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// An API that is not served.
    #[error("API {0} is not served")]
    Unknown(i16),
    /// The guard refused it.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The codec refused it.
    #[error("request cannot be decoded: {0}")]
    Codec(String),
}

/// A response that its version cannot carry: a bug of the caller, such as a field set that the version lacks.
#[derive(Debug, thiserror::Error)]
#[error("{name} of version {version} cannot be encoded: {reason}")]
pub struct EncodeError {
    name: &'static str,
    version: i16,
    reason: String,
}

/// Decodes the body of a request after the guard has walked it. Strings and bytes are slices of `body`.
///
/// # Errors
/// See [`DecodeError`]; the connection must be closed.
pub fn decode<T: Request>(version: i16, body: &Bytes) -> Result<T, DecodeError> {
    let key = api::ApiKey::from_code(T::KEY).ok_or(DecodeError::Unknown(T::KEY))?;
    guard::check(key, version, body)?;
    let mut rest = body.clone();
    T::decode(&mut rest, version).map_err(|error| DecodeError::Codec(error.to_string()))
}

/// Encodes a message body.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode<T: Encodable>(message: &T, version: i16) -> Result<Bytes, EncodeError> {
    let fail = |reason: String| EncodeError { name: short_name::<T>(), version, reason };
    let size = message.compute_size(version).map_err(|error| fail(error.to_string()))?;
    let mut out = BytesMut::with_capacity(size);
    message.encode(&mut out, version).map_err(|error| fail(error.to_string()))?;
    Ok(out.freeze())
}

fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    name.rsplit("::").next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_count_never_reaches_the_codec() {
        let hostile = Bytes::from_static(&[0x0d, 0xff, 0xff, 0xff, 0]);
        let error = decode::<MetadataRequest>(0, &hostile).expect_err("refused");
        assert!(matches!(error, DecodeError::Guard(_)), "{error}");
    }

    #[test]
    fn strings_are_slices_of_the_body() {
        let body = Bytes::from_static(&[0, 0, 0, 1, 0, 2, b'a', b'b']);
        let request = decode::<MetadataRequest>(1, &body).expect("a request");
        let topics = request.topics.expect("topics");
        let name = topics[0].name.clone().expect("a name").0.into_bytes();
        assert!(body.as_ptr_range().contains(&name.as_ptr()));
    }

    #[test]
    fn a_field_that_the_version_lacks_is_named() {
        let request = DeleteTopicsRequest::default().with_topics(vec![Default::default()]);
        let error = encode(&request, 5).expect_err("version 5 has no such field");
        assert!(error.to_string().starts_with("DeleteTopicsRequest of version 5"), "{error}");
    }
}

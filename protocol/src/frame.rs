//! The frame around a message: size, header, body.
//!
//! ```text
//! request   | size i32 | key i16 | version i16 | correlation i32 | client id | [tags] | body |
//! response  | size i32 |                         correlation i32 |             [tags] | body |
//! ```

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;

use crate::api::{self, ApiKey};
use crate::wire::{self, Reader, Writer};

/// A request with its header taken off. Owns slices of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The API.
    pub key: ApiKey,
    /// Its version; one that is served.
    pub version: i16,
    /// What the response carries back.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<StrBytes>,
    /// The message, not checked yet.
    pub body: Bytes,
}

/// A frame that is not a served request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The header cannot be read. The connection must be closed.
    #[error("request header cannot be read: {0}")]
    Header(#[from] wire::Error),
    /// An API that is not served. The connection must be closed.
    #[error("request for API {key} version {version}, which is not served")]
    UnknownKey {
        /// Its number.
        key: i16,
        /// The version asked for.
        version: i16,
    },
    /// A version that is not served. ApiVersions is answered in the form of version 0 with `UNSUPPORTED_VERSION`; for
    /// any other API the connection must be closed.
    #[error("{key} request of version {version}, which is not served")]
    UnsupportedVersion {
        /// The API.
        key: ApiKey,
        /// The version asked for.
        version: i16,
        /// What the response carries back.
        correlation_id: i32,
    },
}

/// A frame size that is negative or above the limit. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {size} bytes, at most {max} are taken")]
pub struct SizeError {
    /// The size that was announced.
    pub size: i32,
    /// The limit.
    pub max: usize,
}

/// Reads the four bytes before a frame.
///
/// # Errors
/// When the size is negative or above `bytes_max`.
pub fn size(prefix: [u8; 4], bytes_max: usize) -> Result<usize, SizeError> {
    let size = i32::from_be_bytes(prefix);
    let refused = SizeError { size, max: bytes_max };
    let size = usize::try_from(size).map_err(|_| refused)?;
    if size > bytes_max { Err(refused) } else { Ok(size) }
}

/// Takes the header off `frame` (the bytes after the size). The body is a slice of it.
///
/// # Errors
/// See [`RequestError`].
pub fn decode(frame: &Bytes) -> Result<Request, RequestError> {
    let mut reader = Reader::new(frame);
    let code = reader.i16()?;
    let version = reader.i16()?;
    let correlation_id = reader.i32()?;
    let key = ApiKey::from_code(code).ok_or(RequestError::UnknownKey { key: code, version })?;
    if !key.serves(version) {
        return Err(RequestError::UnsupportedVersion { key, version, correlation_id });
    }
    // The client id keeps its two-byte length at every header version.
    let start = reader.position() + 2;
    let client_id = reader.string_bytes(false)?.map(|id| frame.slice(start..start + id.len()));
    let client_id = client_id
        .map(|id| StrBytes::from_utf8(id).map_err(|_| wire::Error::Utf8 { at: start }))
        .transpose()?;
    if api::request_header_version(key, version) >= 2 {
        reader.skip_tags()?;
    }
    let body = frame.slice(reader.position()..);
    Ok(Request { key, version, correlation_id, client_id, body })
}

/// The bytes before a response body of `body_bytes` bytes: size and header.
///
/// # Panics
/// When the frame would reach 2^31 bytes.
#[must_use]
pub fn response_head(key: ApiKey, version: i16, correlation_id: i32, body_bytes: usize) -> Bytes {
    let tagged = api::response_header_version(key, version) >= 1;
    let size = 4 + usize::from(tagged) + body_bytes;
    let mut writer = Writer::with_capacity(9);
    writer.i32(i32::try_from(size).expect("a response below 2^31 bytes"));
    writer.i32(correlation_id);
    writer.no_tags(tagged);
    writer.finish()
}

/// A whole response frame: size, header and the slices of `body`, to be written one after the other.
///
/// # Panics
/// When the frame would reach 2^31 bytes.
#[must_use]
pub fn response(key: ApiKey, version: i16, correlation_id: i32, body: Vec<Bytes>) -> Vec<Bytes> {
    let body_bytes = body.iter().map(Bytes::len).sum();
    let mut parts = Vec::with_capacity(1 + body.len());
    parts.push(response_head(key, version, correlation_id, body_bytes));
    parts.extend(body);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: i16, version: i16, rest: &[u8]) -> Bytes {
        let mut writer = Writer::default();
        writer.i16(key);
        writer.i16(version);
        writer.i32(7);
        writer.raw(rest);
        writer.finish()
    }

    #[test]
    fn both_header_versions_are_taken_off() {
        let plain = decode(&header(3, 8, &[0, 1, b'x', 9, 9])).expect("a request");
        assert_eq!((plain.key, plain.version, plain.correlation_id), (ApiKey::Metadata, 8, 7));
        assert_eq!(plain.client_id.as_deref(), Some("x"));
        assert_eq!(&plain.body[..], [9, 9]);
        let tags = [0xff, 0xff, 1, 5, 2, 0, 0, 9];
        let flexible = decode(&header(3, 9, &tags)).expect("a request");
        assert_eq!((flexible.client_id, &flexible.body[..]), (None, &[9][..]));
    }

    #[test]
    fn what_is_not_served_is_named() {
        let unknown = RequestError::UnknownKey { key: 4, version: 0 };
        assert_eq!(decode(&header(4, 0, &[])), Err(unknown));
        let newer = decode(&header(18, 5, &[])).expect_err("not served");
        let wanted = RequestError::UnsupportedVersion {
            key: ApiKey::ApiVersions,
            version: 5,
            correlation_id: 7,
        };
        assert_eq!(newer, wanted);
        let older = decode(&header(0, 2, &[])).expect_err("not served");
        assert!(matches!(older, RequestError::UnsupportedVersion { .. }));
    }

    #[test]
    fn every_prefix_of_a_header_is_refused() {
        let whole = header(3, 9, &[0, 2, b'a', b'b', 1, 0, 1, 0xff]);
        assert!(decode(&whole).is_ok());
        for end in 0..whole.len() {
            assert!(decode(&whole.slice(..end)).is_err(), "{end}");
        }
        assert!(decode(&header(3, 9, &[0, 1, 0xff, 0])).is_err(), "client id is not UTF-8");
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size([0, 0, 0, 9], 9), Ok(9));
        assert_eq!(size([0, 0, 0, 10], 9), Err(SizeError { size: 10, max: 9 }));
        assert_eq!(size([0xff; 4], 9), Err(SizeError { size: -1, max: 9 }));
    }

    #[test]
    fn only_flexible_responses_but_apiversions_carry_tags() {
        let plain = [0, 0, 0, 7, 0, 0, 0, 5];
        let tagged = [0, 0, 0, 8, 0, 0, 0, 5, 0];
        assert_eq!(&response_head(ApiKey::Metadata, 8, 5, 3)[..], plain);
        assert_eq!(&response_head(ApiKey::Metadata, 9, 5, 3)[..], tagged);
        assert_eq!(&response_head(ApiKey::ApiVersions, 3, 5, 3)[..], plain);
    }
}

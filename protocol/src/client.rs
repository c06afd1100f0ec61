//! The client's side of a request, for the command line and tests. Responses are decoded without the guard: the broker
//! spoken to is one's own.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Message, Request};

use crate::wire::{self, Reader, Writer};

/// A request that cannot be encoded, or a response that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The message cannot be encoded at this version.
    #[error("request cannot be encoded: {0}")]
    Encode(String),
    /// The response header cannot be read.
    #[error("response header cannot be read: {0}")]
    Header(#[from] wire::Error),
    /// The response belongs to another request.
    #[error("response to request {found}, to {wanted} expected")]
    Correlation {
        /// Id of the request that was sent.
        wanted: i32,
        /// Id in the response.
        found: i32,
    },
    /// The body cannot be decoded.
    #[error("response cannot be decoded: {0}")]
    Decode(String),
}

/// The whole frame of a request, its size included.
///
/// # Errors
/// [`Error::Encode`] when the version cannot carry the message.
pub fn encode_request<T: Request>(
    request: &T,
    version: i16,
    correlation_id: i32,
    client_id: &str,
) -> Result<Bytes, Error> {
    let body = request.compute_size(version).map_err(|error| Error::Encode(error.to_string()))?;
    let mut header = Writer::default();
    header.i16(T::KEY);
    header.i16(version);
    header.i32(correlation_id);
    header.string(false, Some(client_id));
    header.no_tags(T::header_version(version) >= 2);
    let size = header.len() + body;
    let size = i32::try_from(size).map_err(|_| Error::Encode("2^31 bytes or more".to_owned()))?;
    let mut frame = BytesMut::with_capacity(4 + header.len() + body);
    frame.extend_from_slice(&size.to_be_bytes());
    frame.extend_from_slice(&header.finish());
    request.encode(&mut frame, version).map_err(|error| Error::Encode(error.to_string()))?;
    Ok(frame.freeze())
}

/// Reads a response `frame` (the bytes after the size) to a request of type `T`.
///
/// # Errors
/// See [`Error`].
pub fn decode_response<T: Request>(
    frame: &Bytes,
    version: i16,
    correlation_id: i32,
) -> Result<T::Response, Error> {
    use kafka_protocol::protocol::HeaderVersion;
    let mut reader = Reader::new(frame);
    let found = reader.i32()?;
    if found != correlation_id {
        return Err(Error::Correlation { wanted: correlation_id, found });
    }
    if T::Response::header_version(version) >= 1 {
        reader.skip_tags()?;
    }
    let mut body = frame.slice(reader.position()..);
    <T::Response as Decodable>::decode(&mut body, version)
        .map_err(|error| Error::Decode(error.to_string()))
}

/// The highest version both sides have, given what the broker's ApiVersions response says of the API, both ends
/// inclusive; `None` when they share none.
#[must_use]
pub fn version_for<T: Request>(min: i16, max: i16) -> Option<i16> {
    let ours = <T as Message>::VERSIONS;
    let highest = max.min(ours.max);
    (highest >= min.max(ours.min)).then_some(highest)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{MetadataRequest, MetadataResponse};

    use super::*;
    use crate::{ApiKey, frame, messages};

    #[test]
    fn the_broker_reads_what_the_client_writes_and_back() {
        for version in 0..=13 {
            let request = MetadataRequest::default();
            let bytes = encode_request(&request, version, 5, "cli").expect("encodes");
            let size = frame::size(bytes[..4].try_into().expect("four"), 1000).expect("small");
            assert_eq!(size, bytes.len() - 4);
            let read = frame::decode(&bytes.slice(4..)).expect("a request");
            assert_eq!(
                (read.key, read.version, read.correlation_id),
                (ApiKey::Metadata, version, 5)
            );
            assert_eq!(
                messages::decode::<MetadataRequest>(version, &read.body).ok(),
                Some(request)
            );

            let answer = MetadataResponse::default();
            let body = messages::encode(&answer, version).expect("encodes");
            let head = frame::response_head(ApiKey::Metadata, version, 5, body.len());
            let whole = Bytes::from([&head[4..], &body[..]].concat());
            let read = decode_response::<MetadataRequest>(&whole, version, 5).expect("decodes");
            assert_eq!(read.topics, answer.topics);
            assert!(decode_response::<MetadataRequest>(&whole, version, 6).is_err());
        }
    }

    #[test]
    fn the_highest_shared_version_is_used() {
        assert_eq!(version_for::<MetadataRequest>(0, 20), Some(13));
        assert_eq!(version_for::<MetadataRequest>(0, 4), Some(4));
        assert_eq!(version_for::<MetadataRequest>(14, 20), None);
    }
}

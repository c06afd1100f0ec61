//! ApiVersions: what is served. Every client opens with it, at its newest version.

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use protocol::ErrorCode;
use protocol::api::{ApiKey, SERVED};

use super::{Request, Response};
use crate::Context;

pub(crate) async fn handle(ctx: &Context, request: Request) -> Response {
    let body: ApiVersionsRequest = match request.decode() {
        Ok(body) => body,
        Err(close) => return close,
    };
    let mut response = ApiVersionsResponse::default();
    let named = request.header.version >= 3;
    let names = [&body.client_software_name, &body.client_software_version];
    if named && !names.iter().all(|name| is_software_name(name)) {
        ctx.metrics.failed(ApiKey::ApiVersions, ErrorCode::InvalidRequest);
        response.error_code = ErrorCode::InvalidRequest.code();
        return request.answer(&response);
    }
    response.api_keys = SERVED.iter().map(row).collect();
    request.answer(&response)
}

/// The answer to a version that is not served: always in the form of version 0, naming the versions of this API, so that
/// the client asks again.
pub(crate) fn unsupported() -> Response {
    let mut response = ApiVersionsResponse::default();
    response.error_code = ErrorCode::UnsupportedVersion.code();
    response.api_keys =
        SERVED.iter().filter(|row| row.key == ApiKey::ApiVersions).map(row).collect();
    Response::message(0, &response)
}

fn row(row: &protocol::api::ApiVersions) -> ApiVersion {
    ApiVersion::default()
        .with_api_key(row.key.code())
        .with_min_version(row.advertised_min)
        .with_max_version(row.max)
}

/// KIP-511: letters and digits, `-` and `.` inside.
fn is_software_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names() {
        for good in ["apache-kafka-java", "4.4.0", "a"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "caf\u{e9}"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn an_unserved_version_is_answered_in_the_oldest_form() {
        let Response::Body(parts) = unsupported() else { panic!("a body") };
        // Error 35, one key: 18, from 0 to the newest.
        assert_eq!(parts.concat()[..10], [0, 35, 0, 0, 0, 1, 0, 18, 0, 0]);
    }
}

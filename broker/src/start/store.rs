//! The object store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, S3CopyIfNotExists};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use super::StartError;
use crate::config::Store;
use crate::place::DataDir;

/// Longest time for one request, large uploads included.
const REQUEST_MAX: Duration = Duration::from_secs(120);
/// Longest time to reach the store.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest that one request is tried again inside the client; the rooms above have their own patience.
const RETRY_MAX: Duration = Duration::from_secs(20);

/// An open store.
#[derive(Clone)]
pub struct OpenStore {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Prefix of everything of ours, before the cluster's id.
    pub prefix: Path,
    /// How a person would call it.
    pub name: String,
}

/// Opens the store of the settings; without one, `objects/` of the data directory.
///
/// # Errors
/// One sentence with the remedy.
pub fn open(settings: &Store, place: &DataDir) -> Result<OpenStore, StartError> {
    match &settings.object_store {
        Some(url) => open_url(settings, url),
        None => open_local(&place.objects()?),
    }
}

/// Opens a local directory as a store. Puts are durable: files and their directories are synced.
///
/// # Errors
/// The directory is not there.
pub fn open_local(path: &std::path::Path) -> Result<OpenStore, StartError> {
    let refused = |error: object_store::Error| StartError::Store {
        store: path.display().to_string(),
        reason: error.to_string(),
    };
    let local = LocalFileSystem::new_with_prefix(path).map_err(refused)?.with_fsync(true);
    Ok(OpenStore {
        store: Arc::new(local),
        prefix: Path::default(),
        name: path.display().to_string(),
    })
}

/// Opens `s3://bucket/prefix`; endpoint, region and credentials come from the settings, else from the usual AWS
/// variables.
///
/// # Errors
/// One sentence with the remedy.
pub fn open_url(settings: &Store, url: &str) -> Result<OpenStore, StartError> {
    let refused = |reason: String| StartError::Store { store: url.to_owned(), reason };
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(refused("write s3://bucket/prefix".to_owned()));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(refused("name a bucket: s3://bucket/prefix".to_owned()));
    }
    let prefix =
        Path::parse(prefix.trim_matches('/')).map_err(|error| refused(error.to_string()))?;
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 8, retry_timeout: RETRY_MAX };
    let client = ClientOptions::new().with_timeout(REQUEST_MAX).with_connect_timeout(CONNECT_MAX);
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    let endpoint = settings.endpoint.clone().or_else(endpoint_from_environment);
    if let Some(endpoint) = endpoint {
        let plain = endpoint.starts_with("http://");
        builder = builder.with_endpoint(endpoint).with_allow_http(plain);
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(key) = &settings.access_key_id {
        builder = builder.with_access_key_id(key);
    }
    if let Some(secret) = &settings.secret_access_key {
        builder = builder.with_secret_access_key(secret);
    }
    let store = builder.build().map_err(|error| refused(error.to_string()))?;
    Ok(OpenStore { store: Arc::new(store), prefix, name: url.to_owned() })
}

fn endpoint_from_environment() -> Option<String> {
    ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|value| !value.is_empty())
}

impl From<storage::ProbeError> for StartError {
    fn from(error: storage::ProbeError) -> Self {
        use storage::ProbeError::Unreachable;
        Self::Probe(match error {
            Unreachable { store, reason } => Unreachable { store, reason: plain(&reason) },
            other => other,
        })
    }
}

/// One line: of an answer in XML, its code and message.
fn plain(reason: &str) -> String {
    let of = |tag: &str| {
        let (_, rest) = reason.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(text, _)| text)
    };
    match (of("Code"), of("Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        _ => reason.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_a_store_becomes_one_line() {
        let xml =
            "404: <?xml?>\n<Error><Code>NoSuchBucket</Code><Message>Not there</Message></Error>";
        assert_eq!(plain(xml), "NoSuchBucket: Not there");
        assert_eq!(plain("a\n  b"), "a b");
    }
}

//! The object store that the settings name.

use std::sync::Arc;
use std::time::Duration;

use common::metrics::Registry;
use common::{Clock, Rng, Shutdown};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3CopyIfNotExists};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use storage::{Remote, RemoteOptions, StoreState};

use super::StartError;
use crate::config::Store;
use crate::place::DataDir;

/// Longest time for one request, large uploads included.
const REQUEST_MAX: Duration = Duration::from_secs(120);
/// Longest time to reach the store.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How often a store that is not healthy is looked at.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// How long one request to a local directory may take: a disk is slow for long before it is stuck.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(60);

/// An open store.
#[derive(Clone)]
pub struct OpenStore {
    /// The store, as every room uses it: with deadlines, retries and metering.
    pub store: Arc<dyn ObjectStore>,
    /// The same, for its state and for other buckets beside it.
    pub remote: Remote,
    /// Prefix of everything of ours, before the cluster's id.
    pub prefix: Path,
    /// How a person would call it.
    pub name: String,
    /// The S3 client below, for what `object_store` has no call for.
    pub(super) s3: Option<Arc<AmazonS3>>,
}

/// What the wrapper around a store needs.
pub(super) struct Around<'a> {
    pub clock: &'a Clock,
    pub rng: &'a Rng,
    pub registry: &'a Registry,
}

/// Opens the store of the settings; without one, `objects/` of the data directory.
///
/// # Errors
/// One sentence with the remedy.
pub(super) fn open(
    settings: &Store,
    place: &DataDir,
    around: &Around<'_>,
) -> Result<OpenStore, StartError> {
    match &settings.object_store {
        Some(url) => url_around(settings, url, around),
        None => local(&place.objects()?, around),
    }
}

fn wrapped(
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    name: String,
    options: RemoteOptions,
    around: &Around<'_>,
) -> OpenStore {
    let (clock, rng) = (around.clock.clone(), around.rng.fork());
    let remote = Remote::new(store, options, clock, rng, around.registry);
    OpenStore { store: Arc::new(remote.clone()), remote, prefix, name, s3: None }
}

/// For tools that work without a broker: nothing is registered.
fn alone<T>(open: impl FnOnce(&Around<'_>) -> T) -> T {
    let (clock, rng, registry) = (Clock::system(), Rng::from_entropy(), Registry::default());
    open(&Around { clock: &clock, rng: &rng, registry: &registry })
}

/// Opens a local directory as a store. Puts are durable: files and their directories are synced.
///
/// # Errors
/// The directory is not there.
pub fn open_local(path: &std::path::Path) -> Result<OpenStore, StartError> {
    alone(|around| local(path, around))
}

fn local(path: &std::path::Path, around: &Around<'_>) -> Result<OpenStore, StartError> {
    let refused = |error: object_store::Error| StartError::Store {
        store: path.display().to_string(),
        reason: error.to_string(),
    };
    let local = LocalFileSystem::new_with_prefix(path).map_err(refused)?.with_fsync(true);
    // Gaps cost nothing here, and a second read of a slow disk makes it slower.
    let options = RemoteOptions {
        attempt_timeout: LOCAL_TIMEOUT,
        hedge_one_in: 0,
        gap_bytes_max: u64::MAX,
        ..RemoteOptions::default()
    };
    let name = path.display().to_string();
    Ok(wrapped(Arc::new(local), Path::default(), name, options, around))
}

/// Opens `s3://bucket/prefix`, or `file:///path`, a directory that is there. Endpoint, region and credentials come from
/// the settings, else from the usual AWS variables.
///
/// # Errors
/// One sentence with the remedy.
pub fn open_url(settings: &Store, url: &str) -> Result<OpenStore, StartError> {
    alone(|around| url_around(settings, url, around))
}

fn url_around(settings: &Store, url: &str, around: &Around<'_>) -> Result<OpenStore, StartError> {
    if let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        return local(std::path::Path::new(path), around);
    }
    let (s3, prefix) = s3(settings, url)?;
    let store: Arc<dyn ObjectStore> = s3.clone();
    let open = wrapped(store, prefix, url.to_owned(), RemoteOptions::default(), around);
    Ok(OpenStore { s3: Some(s3), ..open })
}

/// A client without retries of its own: [`Remote`] makes them, within one budget.
pub(super) fn s3(settings: &Store, url: &str) -> Result<(Arc<AmazonS3>, Path), StartError> {
    let refused = |reason: String| StartError::Store { store: url.to_owned(), reason };
    let Some(rest) = url.strip_prefix("s3://") else {
        return Err(refused("write s3://bucket/prefix or file:///path".to_owned()));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(refused("name a bucket: s3://bucket/prefix".to_owned()));
    }
    let prefix =
        Path::parse(prefix.trim_matches('/')).map_err(|error| refused(error.to_string()))?;
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
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
    Ok((Arc::new(store), prefix))
}

/// Looks after a store that is not healthy every few seconds, so that its state is renewed when nobody uses it.
pub(super) async fn watch(remote: Remote, key: Path, shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(WATCH_EVERY) => {}
        }
        if remote.state() != StoreState::Healthy {
            remote.look(&key).await;
        }
    }
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

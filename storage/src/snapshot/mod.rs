//! Snapshots of metadata in the bucket: put again and again by a keeper, and what a rebuild makes of them.
//!
//! ```text
//! <prefix>/meta/<incarnation>-<applied>-<nonce>/<part>    parts, each create-only
//! <prefix>/meta/<incarnation>-<applied>-<nonce>.head      put last: it makes them a snapshot
//! ```

mod adopt;
mod keeper;
mod restore;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::timeout;

pub(crate) use adopt::id_of;
pub use adopt::{AdoptError, Adopted, Left, adopt};
pub use keeper::{KeeperDeps, KeeperOptions, SnapshotKeeper};
pub use restore::{RestoreError, Restored, restore};

/// Longest time of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The name of a snapshot. Names sort by incarnation, then by the index of the last command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub incarnation: u16,
    pub applied: u64,
    pub nonce: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:05}-{:020}-{:08x}", self.incarnation, self.applied, self.nonce)
    }
}

impl Name {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split('-');
        let name = Self {
            incarnation: words.next()?.parse().ok()?,
            applied: words.next()?.parse().ok()?,
            nonce: u32::from_str_radix(words.next()?, 16).ok()?,
        };
        (words.next().is_none() && name.to_string() == text).then_some(name)
    }

    fn head(self, prefix: &Path) -> Path {
        root(prefix).join(format!("{self}.head"))
    }

    fn part(self, prefix: &Path, number: usize) -> Path {
        root(prefix).join(self.to_string()).join(format!("{number:06}"))
    }
}

fn root(prefix: &Path) -> Path {
    prefix.clone().join("meta")
}

/// What lies below `meta/`: a head, or a part of the snapshot.
enum Found {
    Head(Name),
    Part(Name),
}

fn name_of(prefix: &Path, key: &Path) -> Option<Found> {
    let mut rest = key.prefix_match(&root(prefix))?;
    let first = rest.next()?;
    match first.as_ref().strip_suffix(".head") {
        Some(name) => Name::parse(name).map(Found::Head),
        None => Name::parse(first.as_ref()).map(Found::Part),
    }
}

/// Puts what nobody else puts under this name. "Already exists" may be our own put whose answer got lost.
async fn put_once(store: &dyn ObjectStore, key: &Path, bytes: Bytes) -> Result<(), String> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let put = store.put_opts(key, PutPayload::from_bytes(bytes.clone()), options);
    match timeout(REQUEST_TIMEOUT, put).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::AlreadyExists { .. })) => match get(store, key).await {
            Ok(found) if found == bytes => Ok(()),
            Ok(_) => Err(format!("{key} exists with another content")),
            Err(error) => Err(format!("{key} cannot be compared: {error}")),
        },
        Ok(Err(error)) => Err(format!("{key} cannot be put: {error}")),
        Err(_) => Err(format!("putting {key} took too long")),
    }
}

async fn get(store: &dyn ObjectStore, key: &Path) -> Result<Bytes, Error> {
    let body = async { store.get(key).await?.bytes().await };
    timeout(REQUEST_TIMEOUT, body).await.unwrap_or_else(|_| {
        Err(Error::Generic { store: "object store", source: format!("{key}: no answer").into() })
    })
}

#[cfg(test)]
mod tests;

//! Filling a store from the newest snapshot in the bucket that is whole.

use std::sync::Arc;

use futures::TryStreamExt;
use meta::{Filler, Head, MetaStore, SnapshotError};
use object_store::path::Path;
use object_store::{Error, ObjectStore};

use super::{Found, Name, get, name_of, root};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is none.
    #[error(
        "no snapshot of metadata lies below {prefix}/meta in this store; name the right store, prefix and cluster"
    )]
    None {
        /// Where one should be.
        prefix: Path,
    },
    /// None of those that are there can be used.
    #[error("no snapshot of metadata can be used: {0}")]
    Unusable(String),
    /// The object store does not answer.
    #[error("the object store cannot be read: {0}")]
    Store(#[from] Error),
    /// The local store.
    #[error(transparent)]
    Local(#[from] SnapshotError),
}

/// A store that holds the state of a snapshot and no voter's log.
pub struct Restored {
    /// The store.
    pub store: Box<dyn MetaStore>,
    /// The snapshot.
    pub head: Head,
    /// Its name.
    pub name: String,
    /// Newer ones that are damaged, and why.
    pub skipped: Vec<String>,
}

/// Fills `local` from the newest good snapshot of `cluster` below `prefix`; a damaged one is passed over for the one
/// before it.
///
/// # Errors
/// [`RestoreError`].
pub async fn restore(
    bucket: &Arc<dyn ObjectStore>,
    prefix: &Path,
    cluster: &str,
    local: Box<dyn MetaStore>,
) -> Result<Restored, RestoreError> {
    let listed: Vec<_> = bucket.list(Some(&root(prefix))).try_collect().await?;
    let head = |key: &Path| match name_of(prefix, key)? {
        Found::Head(name) => Some(name),
        Found::Part(_) => None,
    };
    let mut names: Vec<Name> = listed.iter().filter_map(|meta| head(&meta.location)).collect();
    names.sort_unstable();
    if names.is_empty() {
        return Err(RestoreError::None { prefix: prefix.clone() });
    }
    let (mut skipped, mut store) = (Vec::new(), local);
    for name in names.into_iter().rev() {
        match one(&**bucket, prefix, cluster, name, store).await? {
            Ok((store, head)) => {
                let name = name.to_string();
                return Ok(Restored { store, head, name, skipped });
            }
            Err((given_back, reason)) => {
                skipped.push(format!("{name}: {reason}"));
                store = given_back;
            }
        }
    }
    Err(RestoreError::Unusable(skipped.join("; ")))
}

type Attempt = Result<(Box<dyn MetaStore>, Head), (Box<dyn MetaStore>, String)>;

async fn one(
    bucket: &dyn ObjectStore,
    prefix: &Path,
    cluster: &str,
    name: Name,
    local: Box<dyn MetaStore>,
) -> Result<Attempt, RestoreError> {
    let head = match get(bucket, &name.head(prefix)).await {
        Ok(bytes) => Head::parse(&bytes),
        Err(Error::NotFound { .. }) => return Ok(Err((local, "it is gone".to_owned()))),
        Err(error) => return Err(error.into()),
    };
    let head = match head {
        Ok(head) if head.cluster_id == cluster => head,
        Ok(head) => return Ok(Err((local, format!("it is of cluster {}", head.cluster_id)))),
        Err(error) => return Ok(Err((local, error.to_string()))),
    };
    let mut filler = Filler::begin(local).await?;
    for (number, said) in head.parts.iter().enumerate() {
        let part = match get(bucket, &name.part(prefix, number)).await {
            Ok(part) => part,
            Err(Error::NotFound { .. }) => {
                return Ok(Err((filler.into_store(), format!("part {number} is missing"))));
            }
            Err(error) => return Err(error.into()),
        };
        match filler.part(&part, said).await {
            Ok(()) => {}
            Err(SnapshotError::Store(error)) => return Err(SnapshotError::Store(error).into()),
            Err(error) => return Ok(Err((filler.into_store(), format!("part {number}: {error}")))),
        }
    }
    match filler.check(&head) {
        Ok(()) => Ok(Ok((filler.finish().await?, head))),
        Err(error) => Ok(Err((filler.into_store(), error.to_string()))),
    }
}

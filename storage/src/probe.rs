//! Checks of the object store at start, and the claim of a cluster's incarnation.

use bytes::Bytes;
use common::Rng;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::key::incarnation_key;

/// Why the object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The store does not answer, or refuses the request.
    #[error(
        "object store {store} is not usable ({reason}); check that the bucket exists, and endpoint, region and credentials"
    )]
    Unreachable {
        /// The store.
        store: String,
        /// What it said.
        reason: String,
    },
    /// A second create of one key succeeded: every fence would be void.
    #[error(
        "object store {store} overwrites an object on a create-only put; use a store that honours If-None-Match: *"
    )]
    Overwrites {
        /// The store.
        store: String,
    },
    /// The store returns something else than what was put.
    #[error("object store {store} returned other bytes than were put to {key}; do not use it")]
    WrongBytes {
        /// The store.
        store: String,
        /// The key.
        key: String,
    },
}

fn create_only() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

/// Puts a small object below `<prefix>/cluster/`, create-only, twice: the store must answer, refuse the second put and
/// keep the first content. The object is deleted again.
///
/// # Errors
/// [`ProbeError`] in one sentence with the remedy.
pub async fn probe(store: &dyn ObjectStore, prefix: &Path, rng: &Rng) -> Result<(), ProbeError> {
    let unreachable = |error: Error| ProbeError::Unreachable {
        store: store.to_string(),
        reason: error.to_string(),
    };
    let key = prefix.clone().join("cluster").join(format!("probe-{:016x}", rng.next_u64()));
    let content = Bytes::from(format!("sluice probe {:016x}\n", rng.next_u64()));
    let first = PutPayload::from_bytes(content.clone());
    match store.put_opts(&key, first, create_only()).await {
        // A retried put of ours looks like a conflict; the comparison below decides.
        Ok(_) | Err(Error::AlreadyExists { .. }) => {}
        Err(error) => return Err(unreachable(error)),
    }
    let second = store.put_opts(&key, PutPayload::from_static(b"second"), create_only()).await;
    let overwrites = match second {
        Err(Error::AlreadyExists { .. }) => false,
        Ok(_) => true,
        Err(error) => return Err(unreachable(error)),
    };
    let found = async { store.get(&key).await?.bytes().await }.await.map_err(unreachable)?;
    // Best effort: a probe that stays behind is a few bytes.
    let _ = store.delete(&key).await;
    if overwrites {
        return Err(ProbeError::Overwrites { store: store.to_string() });
    }
    if found != content {
        return Err(ProbeError::WrongBytes { store: store.to_string(), key: key.to_string() });
    }
    Ok(())
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The incarnation is ours, now or since an earlier try.
    Ours,
    /// Another claimed it: what its object says.
    Taken(Bytes),
}

/// Claims incarnation `number` of the cluster below `prefix` by a create-only put of `claim`, which names the claimant
/// uniquely (a random id in it). An ambiguous answer is settled by comparing the object's content.
///
/// # Errors
/// When the store does not answer.
pub async fn claim_incarnation(
    store: &dyn ObjectStore,
    prefix: &Path,
    number: u16,
    claim: Bytes,
) -> Result<Claim, ProbeError> {
    let unreachable = |error: Error| ProbeError::Unreachable {
        store: store.to_string(),
        reason: error.to_string(),
    };
    let key = incarnation_key(prefix, number);
    let payload = PutPayload::from_bytes(claim.clone());
    match store.put_opts(&key, payload, create_only()).await {
        Ok(_) => Ok(Claim::Ours),
        Err(Error::AlreadyExists { .. }) => {
            let found = async { store.get(&key).await?.bytes().await }.await;
            let found = found.map_err(unreachable)?;
            Ok(if found == claim { Claim::Ours } else { Claim::Taken(found) })
        }
        Err(error) => Err(unreachable(error)),
    }
}

/// The highest incarnation claimed below `prefix`, or `None`. Incarnations are few and claimed one after the other, so
/// they are looked up one by one and never listed.
///
/// # Errors
/// When the store does not answer.
pub async fn highest_incarnation(
    store: &dyn ObjectStore,
    prefix: &Path,
    from: u16,
) -> Result<Option<u16>, ProbeError> {
    let mut highest = None;
    for number in from..=common::IdSpace::INCARNATION_MAX {
        match store.head(&incarnation_key(prefix, number)).await {
            Ok(_) => highest = Some(number),
            Err(Error::NotFound { .. }) => break,
            Err(error) => {
                let (store, reason) = (store.to_string(), error.to_string());
                return Err(ProbeError::Unreachable { store, reason });
            }
        }
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_good_store_passes_and_keeps_nothing() {
        let (store, prefix) = (InMemory::new(), Path::from("p/c"));
        probe(&store, &prefix, &Rng::seeded(1)).await.expect("usable");
        assert!(store.list_with_delimiter(Some(&prefix)).await.expect("lists").objects.is_empty());
    }

    #[tokio::test]
    async fn one_of_two_claimants_gets_an_incarnation() {
        let (store, prefix) = (InMemory::new(), Path::from("p/c"));
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let claim = |who: &Bytes| claim_incarnation(&store, &prefix, 1, who.clone());
        assert_eq!(claim(&a).await.expect("answers"), Claim::Ours);
        assert_eq!(claim(&b).await.expect("answers"), Claim::Taken(a.clone()));
        assert_eq!(claim(&a).await.expect("answers"), Claim::Ours);
        assert_eq!(highest_incarnation(&store, &prefix, 1).await.expect("answers"), Some(1));
        assert_eq!(highest_incarnation(&store, &prefix, 2).await.expect("answers"), None);
    }
}

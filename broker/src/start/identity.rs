//! Which cluster this is: claimed in the store at the first start, checked at every other one.

use bytes::Bytes;
use common::{NodeEpoch, NodeId, Rng, WalId};
use meta::{Reject, Reply};
use object_store::path::Path;
use storage::{Claim, claim_incarnation, highest_incarnation, probe};

use super::StartError;
use super::store::OpenStore;
use crate::place::DataDir;

/// The feature level of this build.
pub(super) const FEATURE_LEVEL: u32 = 1;

/// Who this broker is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub cluster_id: String,
    /// `<prefix>/<cluster id>` in the store.
    pub prefix: Path,
    pub wal: WalId,
    pub epoch: NodeEpoch,
}

/// What is asked for.
pub(super) struct Wanted<'a> {
    pub node: NodeId,
    pub host: &'a str,
    pub port: u16,
}

/// Finds or founds the cluster, starts this node's next life and makes sure that it has a log.
///
/// # Errors
/// One sentence with the remedy.
pub(super) async fn establish(
    meta: &meta::Handle,
    place: &mut DataDir,
    store: &OpenStore,
    rng: &Rng,
    wanted: &Wanted<'_>,
) -> Result<Identity, StartError> {
    let known = meta.image().cluster.clone();
    let (cluster_id, prefix) = match known {
        Some(cluster) => {
            place.belongs_to(&cluster.id)?;
            let prefix = store.prefix.clone().join(cluster.id.clone());
            check_store(store, &prefix, cluster.incarnation, rng).await?;
            (cluster.id, prefix)
        }
        None => {
            if let Some(found) = place.cluster() {
                return Err(StartError::MetaEmpty { cluster: found.to_owned() });
            }
            found(meta, store, rng).await?
        }
    };
    let command = meta::command::StartNode {
        node: wanted.node.0,
        host: wanted.host.to_owned(),
        port: u32::from(wanted.port),
        rack: None,
        feature_level_max: FEATURE_LEVEL,
    };
    let (epoch, wal) = match propose(meta, command).await? {
        Reply::NodeStarted { epoch, wal } => (epoch, wal),
        other => return Err(StartError::Metadata(format!("unexpected reply {other:?}"))),
    };
    let wal = match wal {
        Some(wal) => wal,
        None => {
            let command = meta::command::CreateWal {
                node: wanted.node.0,
                salt: rng.next_u64(),
                survives: false,
            };
            match propose(meta, command).await? {
                Reply::WalCreated { wal } => wal,
                other => return Err(StartError::Metadata(format!("unexpected reply {other:?}"))),
            }
        }
    };
    place.belongs_to(&cluster_id)?;
    Ok(Identity { cluster_id, prefix, wal, epoch })
}

/// Founds a cluster: probes the store, claims incarnation 1 there, then bootstraps metadata.
async fn found(
    meta: &meta::Handle,
    store: &OpenStore,
    rng: &Rng,
) -> Result<(String, Path), StartError> {
    let cluster_id = cluster_id(rng);
    let prefix = store.prefix.clone().join(cluster_id.clone());
    probe(&*store.store, &prefix, rng).await?;
    let claim = format!("{{\"cluster\":\"{cluster_id}\",\"claim\":\"{:016x}\"}}\n", rng.next_u64());
    match claim_incarnation(&*store.store, &prefix, 1, Bytes::from(claim)).await? {
        Claim::Ours => {}
        Claim::Taken(_) => return Err(StartError::Fenced { cluster: cluster_id, incarnation: 1 }),
    }
    let command = meta::command::Bootstrap {
        cluster_id: cluster_id.clone(),
        incarnation: 1,
        feature_level: FEATURE_LEVEL,
    };
    match propose(meta, command).await? {
        Reply::Bootstrapped { .. } => Ok((cluster_id, prefix)),
        other => Err(StartError::Metadata(format!("unexpected reply {other:?}"))),
    }
}

/// The store must be the one that holds this cluster, and no later life of it.
async fn check_store(
    store: &OpenStore,
    prefix: &Path,
    incarnation: u16,
    rng: &Rng,
) -> Result<(), StartError> {
    probe(&*store.store, prefix, rng).await?;
    let cluster = prefix.filename().unwrap_or_default().to_owned();
    match highest_incarnation(&*store.store, prefix, incarnation).await? {
        Some(found) if found > incarnation => {
            Err(StartError::Fenced { cluster, incarnation: found })
        }
        Some(_) => Ok(()),
        None => Err(StartError::OtherStore { store: store.name.clone(), cluster }),
    }
}

async fn propose(
    meta: &meta::Handle,
    command: impl Into<meta::Command>,
) -> Result<Reply, StartError> {
    match meta.propose(command).await {
        Ok(Reply::Rejected(reject)) => Err(StartError::Refused(reject)),
        Ok(reply) => Ok(reply),
        Err(error) => Err(StartError::Metadata(error.to_string())),
    }
}

impl From<Reject> for StartError {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

/// 22 characters of base64url over a random UUID, as Kafka's tools make them; none that begins with `-`, which a shell
/// would take for a flag.
fn cluster_id(rng: &Rng) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        // 22 digits of 6 bits hold 132 bits: the last digit carries the lowest two and four zeros.
        let value = rng.uuid().as_u128();
        let digit = |place: u32| {
            let bits = if place < 21 { value >> (122 - 6 * place) } else { value << 4 };
            let index = usize::try_from(bits & 63).expect("six bits");
            char::from(DIGITS[index])
        };
        let id: String = (0..22).map(digit).collect();
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_look_like_kafkas() {
        let rng = Rng::seeded(1);
        for _ in 0..1000 {
            let id = cluster_id(&rng);
            assert_eq!(id.len(), 22);
            assert!(!id.starts_with('-'));
            assert!(matches!(id.as_bytes()[21], b'A' | b'Q' | b'g' | b'w'), "{id}");
        }
    }
}

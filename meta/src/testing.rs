//! For tests of the rooms above: a store in memory and a voter over it. Nothing in the product makes one.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{Clock, NodeId, Rng, Shutdown, StreamId, WalEpoch, WalId};
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::command::{Bootstrap, CreateWal, OpenWal, StartNode};
use crate::consensus::{Alone, Deps, Driver, Options, StartError, start};
use crate::handle::{Handle, ProposeError};
use crate::metrics::Metrics;
use crate::reply::Reply;
use crate::store::{Batch, Change, Frozen, MetaStore, Pair, Space, StoreError};
use crate::view::View;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store in memory. Clones share their content, so that a test can reopen it; a crash is [`Self::power_cut`].
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    image: Arc<Mutex<Content>>,
}

#[derive(Debug, Default)]
struct Content {
    log: Map,
    state: Map,
    synced: (Map, Map),
    failing: bool,
    volatile: bool,
}

impl MemoryStore {
    /// A store that keeps no copy for a power cut: for long lives, where the copy would take all the time.
    #[must_use]
    pub fn volatile() -> Self {
        let store = Self::default();
        store.image.lock().volatile = true;
        store
    }

    /// Loses every write since the last synced one.
    pub fn power_cut(&self) {
        let mut content = self.image.lock();
        (content.log, content.state) = content.synced.clone();
    }

    /// Has a stream that nothing was committed to yet begin at `offset`, as if all below had been deleted.
    pub fn begin_stream(&self, stream: StreamId, offset: i64) {
        let record = crate::record::Stream {
            start: offset,
            committed_end: offset,
            version: 1,
            ..crate::record::Stream::default()
        };
        let (key, value) = (crate::keys::stream(stream), crate::frame::encode(&record));
        let mut content = self.image.lock();
        content.synced.1.insert(key.clone(), value.clone());
        content.state.insert(key, value);
    }

    /// From now on every write fails.
    pub fn fail_writes(&self) {
        self.image.lock().failing = true;
    }

    /// A copy of the state.
    #[must_use]
    pub fn state(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.image.lock().state.clone()
    }
}

impl Content {
    fn map(&self, space: Space) -> &Map {
        match space {
            Space::Log => &self.log,
            Space::State => &self.state,
        }
    }

    fn map_mut(&mut self, space: Space) -> &mut Map {
        match space {
            Space::Log => &mut self.log,
            Space::State => &mut self.state,
        }
    }

    fn write(&mut self, batch: Batch) {
        for change in batch.into_changes() {
            match change {
                Change::Put(space, key, value) => drop(self.map_mut(space).insert(key, value)),
                Change::Delete(space, key) => drop(self.map_mut(space).remove(&key)),
                Change::DeleteRange(space, start, end) => {
                    self.map_mut(space).retain(|key, _| *key < start || *key >= end);
                }
            }
        }
    }
}

fn as_store_error(error: impl ToString) -> StoreError {
    StoreError::new("read", error)
}

impl MetaStore for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.image.lock().map(space).get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        View::scan(self.image.lock().map(space), start, end, limit).map_err(as_store_error)
    }

    fn scan_back(
        &self,
        space: Space,
        start: &[u8],
        end: &[u8],
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        View::scan_back(self.image.lock().map(space), start, end, limit).map_err(as_store_error)
    }

    fn freeze(&self) -> Result<Box<dyn Frozen>, StoreError> {
        Ok(Box::new(self.image.lock().state.clone()))
    }

    fn write(&mut self, batch: Batch, sync: bool) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut content = self.image.lock();
        let result = if content.failing {
            Err(StoreError::new("write", "input/output error"))
        } else {
            content.write(batch);
            if sync && !content.volatile {
                content.synced = (content.log.clone(), content.state.clone());
            }
            Ok(())
        };
        drop(content);
        Box::pin(std::future::ready(result))
    }
}

/// A single voter over `store`; the driver is to be spawned by the caller.
///
/// # Errors
/// When the store cannot be opened.
pub async fn voter(
    store: impl MetaStore,
    clock: Clock,
    rng: Rng,
    shutdown: Shutdown,
) -> Result<(Handle, Driver), StartError> {
    let deps = Deps {
        clock,
        rng,
        transport: Box::new(Alone),
        shutdown,
        on_fatal: Arc::new(|line| tracing::error!("{line}")),
        metrics: Metrics::default(),
    };
    start(Box::new(store), Options::alone(), deps).await
}

/// What [`begin`] made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The broker.
    pub node: NodeId,
    /// Its log.
    pub wal: WalId,
    /// The log's epoch.
    pub epoch: WalEpoch,
}

/// Bootstraps a cluster with one broker (node 1) and opens its log at LSN 0, for tests that need topics to have owners.
///
/// # Errors
/// When a proposal has no reply.
///
/// # Panics
/// When a command is refused.
pub async fn begin(handle: &Handle) -> Result<Begun, ProposeError> {
    let node = 1;
    let cluster_id = "tests".to_owned();
    let bootstrap = Bootstrap { cluster_id, incarnation: 1, feature_level: 1 };
    handle.propose(bootstrap).await?;
    let start = StartNode { node, host: "localhost".to_owned(), port: 9092, ..Default::default() };
    handle.propose(start).await?;
    let Reply::WalCreated { wal } =
        handle.propose(CreateWal { node, salt: 7, survives: false }).await?
    else {
        panic!("the broker has a log already");
    };
    let open = OpenWal { wal: wal.0, node, recovered_end: 0, cut: false };
    let Reply::WalOpened { epoch, .. } = handle.propose(open).await? else {
        panic!("the log does not open");
    };
    Ok(Begun { node: NodeId(node), wal, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn holds_what_a_metadata_store_must() {
        let store = MemoryStore::default();
        let mut reopen = |cut: bool| -> Box<dyn MetaStore> {
            if cut {
                store.power_cut();
            }
            Box::new(store.clone())
        };
        crate::conformance::run(&mut reopen).await;
    }
}

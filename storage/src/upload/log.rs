//! The log that rounds are made from: the open one of this broker, or one that was taken over.

use std::sync::Arc;

use common::Lsn;

#[derive(Clone)]
pub(crate) enum Log {
    Open(wal::Wal),
    /// Only read: it is closed once all of it is uploaded.
    Recovered(Arc<wal::Recovered>),
}

impl Log {
    pub async fn read_group(&self, first: Lsn) -> Result<Arc<wal::Group>, wal::ReadError> {
        match self {
            Self::Open(wal) => wal.read_group(first).await,
            Self::Recovered(recovered) => recovered.read_group(first).await,
        }
    }

    pub fn trim(&self, committed: Lsn) {
        if let Self::Open(wal) = self {
            wal.trim(committed);
        }
    }
}

//! Create-only files over an object store that has create-only single puts and create-only copies.
//!
//! A small file is one create-only put. A larger one is a multipart upload to a temporary key of this attempt's own and
//! then a create-only copy to its final key (`docs/decisions/0006-create-only-files.md`). Every outcome other than a
//! clean success is followed by a look at what stands under the key: our own success may answer like a conflict.

use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt,
    PutMode, PutOptions, PutPayload,
};
use sha2::{Digest, Sha256};

use crate::hash::Hash;

/// Largest file that is one put, in bytes.
pub const SINGLE_PUT_MAX: usize = 16 << 20;
/// Size of the parts of a larger one.
const PART_SIZE: usize = 8 << 20;

/// How a create-only write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is ours.
    Ours,
    /// Something stands under the key: ours after all, or another's.
    Exists,
}

/// Puts `bytes` under `key` unless something is there.
pub(crate) async fn create(
    store: &dyn ObjectStore,
    key: &Path,
    bytes: Bytes,
) -> Result<Created, StoreError> {
    let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match store.put_opts(key, PutPayload::from_bytes(bytes), options).await {
        Ok(_) => Ok(Created::Ours),
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
            Ok(Created::Exists)
        }
        Err(error) => Err(error),
    }
}

/// The object under `key`, or `None`. For small objects.
pub(crate) async fn get(store: &dyn ObjectStore, key: &Path) -> Result<Option<Bytes>, StoreError> {
    match store.get(key).await {
        Ok(found) => found.bytes().await.map(Some),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Collects a file: in memory while it is small, in a multipart upload to a temporary key when it grows.
pub(crate) struct Spool {
    store: Arc<dyn ObjectStore>,
    temporary: Path,
    single_put_max: usize,
    buffer: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    digest: Sha256,
    length: u64,
}

/// A collected file that is not visible yet.
pub(crate) struct Spooled {
    body: Body,
    /// Size in bytes.
    pub length: u64,
    /// Its hash.
    pub sha256: Hash,
}

enum Body {
    Memory(Bytes),
    Temporary(Path),
}

impl Spool {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, temporary: Path, single_put_max: usize) -> Self {
        Self {
            store,
            temporary,
            single_put_max,
            buffer: Vec::new(),
            upload: None,
            digest: Sha256::new(),
            length: 0,
        }
    }

    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.digest.update(bytes);
        self.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.buffer.extend_from_slice(bytes);
        if self.upload.is_none() && self.buffer.len() > self.single_put_max {
            self.upload = Some(self.store.put_multipart(&self.temporary).await?);
        }
        if let Some(upload) = &mut self.upload {
            while self.buffer.len() > PART_SIZE {
                let rest = self.buffer.split_off(PART_SIZE);
                let part = std::mem::replace(&mut self.buffer, rest);
                upload.put_part(PutPayload::from(part)).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn finish(mut self) -> Result<Spooled, StoreError> {
        let rest = std::mem::take(&mut self.buffer);
        let body = match self.upload.take() {
            None => Body::Memory(Bytes::from(rest)),
            Some(mut upload) => {
                upload.put_part(PutPayload::from(rest)).await?;
                upload.complete().await?;
                Body::Temporary(self.temporary)
            }
        };
        Ok(Spooled { body, length: self.length, sha256: Hash::from_digest(self.digest) })
    }
}

impl Spooled {
    /// Makes the file visible under `key` unless something is there. The temporary object is gone afterwards, or left
    /// to the bucket's rule for `_sluice/tmp/`.
    pub(crate) async fn publish(
        &self,
        store: &dyn ObjectStore,
        key: &Path,
    ) -> Result<Created, StoreError> {
        let temporary = match &self.body {
            Body::Memory(bytes) => return create(store, key, bytes.clone()).await,
            Body::Temporary(path) => path,
        };
        let options = CopyOptions::new().with_mode(CopyMode::Create);
        let copied = match store.copy_opts(temporary, key, options).await {
            Ok(()) => Ok(Created::Ours),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                Ok(Created::Exists)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = store.delete(temporary).await {
            tracing::debug!(%temporary, %error, "temporary object stays");
        }
        copied
    }
}

/// Size and SHA-256 of an object, streamed; `None` when it is not there.
pub(crate) async fn digest(
    store: &dyn ObjectStore,
    key: &Path,
) -> Result<Option<(u64, Hash)>, StoreError> {
    let found = match store.get(key).await {
        Ok(found) => found,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut digest, mut length) = (Sha256::new(), 0u64);
    let mut stream = found.into_stream();
    while let Some(bytes) = stream.try_next().await? {
        digest.update(&bytes);
        length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    }
    Ok(Some((length, Hash::from_digest(digest))))
}

/// Why a store cannot hold a sink's files.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// A second create-only put succeeded.
    #[error(
        "the store overwrites on a create-only {what}: it cannot hold a sink's files; use one that honours If-None-Match"
    )]
    Overwrites {
        /// `put` or `copy`.
        what: &'static str,
    },
    /// It could not be tried.
    #[error("the store could not be tried for create-only writes at {key}: {source}")]
    Store {
        /// Where.
        key: Path,
        /// Why.
        source: StoreError,
    },
}

/// Tries that the store refuses a second create-only put and a second create-only copy. `key` is used and removed.
///
/// # Errors
/// [`Unfit::Overwrites`] when it does not; [`Unfit::Store`] when that cannot be found out.
pub async fn probe(store: &dyn ObjectStore, key: &Path) -> Result<(), Unfit> {
    let failed = |source| Unfit::Store { key: key.clone(), source };
    let copy = Path::from(format!("{key}-copy"));
    let mut outcome = Ok(());
    for (attempt, bytes) in ["one", "two"].into_iter().enumerate() {
        let created = create(store, key, Bytes::from_static(bytes.as_bytes())).await;
        if created.map_err(failed)? == Created::Ours && attempt == 1 {
            outcome = Err(Unfit::Overwrites { what: "put" });
        }
    }
    for attempt in 0..2 {
        let options = CopyOptions::new().with_mode(CopyMode::Create);
        match store.copy_opts(key, &copy, options).await {
            Ok(()) if attempt == 1 => outcome = Err(Unfit::Overwrites { what: "copy" }),
            Ok(()) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(source) => outcome = outcome.and(Err(failed(source))),
        }
    }
    for path in [key, &copy] {
        if let Err(error) = store.delete(path).await {
            tracing::debug!(%path, %error, "probe object stays");
        }
    }
    outcome
}

//! Single puts. A create that is answered as a conflict after a try of ours may be our own.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, Result,
};

use super::Inner;
use super::cause::Cause;
use super::meter::Kind;

/// What stands under a key.
enum Stands {
    Nothing,
    Ours(PutResult),
    Another,
}

impl Inner {
    /// See [`object_store::ObjectStore::put_opts`].
    pub(super) async fn put(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        let create = matches!(options.mode, PutMode::Create);
        let mut attempts = self.begin();
        // True once a try of ours may have taken effect.
        let mut landed = false;
        loop {
            let put = self.store.put_opts(location, payload.clone(), options.clone());
            let error = match self.attempt(Kind::Put, bytes, put).await {
                Ok(result) => {
                    self.meter.bytes(Kind::Put, bytes);
                    return Ok(result);
                }
                Err(error) => error,
            };
            let cause = Cause::of(&error);
            landed |= cause.may_have_landed();
            if create && (cause == Cause::Conflict || (cause == Cause::Exists && landed)) {
                match self.stands(location, &payload, landed).await? {
                    // It was refused for a moment: again.
                    Stands::Nothing => {}
                    Stands::Ours(result) => {
                        self.meter.own_writes.inc();
                        self.meter.bytes(Kind::Put, bytes);
                        return Ok(result);
                    }
                    Stands::Another => return Err(error),
                }
                if !self.again(&mut attempts, Cause::Conflict).await {
                    let text = format!("{location} was refused as existing, but is not there");
                    return Err(Error::Generic { store: "Remote", source: text.into() });
                }
                continue;
            }
            if !self.again(&mut attempts, cause).await {
                return Err(super::plain(error));
            }
        }
    }

    /// Looks what stands under `location`. It is ours when it may be and holds the same bytes.
    async fn stands(&self, location: &Path, payload: &PutPayload, landed: bool) -> Result<Stands> {
        let head = match self.repeat(Kind::Head, 0, || self.store.head(location)).await {
            Ok(head) => head,
            Err(error) if Cause::of(&error) == Cause::NotFound => return Ok(Stands::Nothing),
            Err(error) => return Err(error),
        };
        let bytes = payload.content_length() as u64;
        if !landed || head.size != bytes {
            return Ok(Stands::Another);
        }
        let same = self.repeat(Kind::Get, bytes, || self.same(location, payload)).await?;
        if !same {
            return Ok(Stands::Another);
        }
        let (e_tag, version) = (head.e_tag, head.version);
        Ok(Stands::Ours(PutResult { e_tag, version, extensions: Default::default() }))
    }

    async fn same(&self, location: &Path, payload: &PutPayload) -> Result<bool> {
        let found = self.store.get_opts(location, GetOptions::default()).await?;
        let mut body = found.into_stream();
        let mut wanted = payload.iter();
        let mut rest = Bytes::new();
        while let Some(mut chunk) = body.try_next().await? {
            self.meter.bytes(Kind::Get, chunk.len() as u64);
            while !chunk.is_empty() {
                if rest.is_empty() {
                    match wanted.next() {
                        Some(next) => rest = next.clone(),
                        None => return Ok(false),
                    }
                    continue;
                }
                let length = chunk.len().min(rest.len());
                if chunk.split_to(length) != rest.split_to(length) {
                    return Ok(false);
                }
            }
        }
        Ok(rest.is_empty() && wanted.all(Bytes::is_empty))
    }
}

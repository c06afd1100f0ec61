//! Multipart uploads. A part is sent again inside the store's client, by the rules of here; a completion whose answer got
//! lost is looked up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::FutureExt;
use object_store::client::HttpErrorKind;
use object_store::path::Path;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{
    MultipartUpload, ObjectStoreExt, PutMultipartOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::cause::Cause;
use super::meter::Kind;
use super::{Attempts, Inner};

pub(super) async fn begin(
    inner: &Arc<Inner>,
    location: &Path,
    options: PutMultipartOptions,
) -> Result<Box<dyn MultipartUpload>> {
    let options = options.with_retry_policy(Arc::new(Policy(Arc::clone(inner))));
    let begin = || inner.store.put_multipart_opts(location, options.clone());
    let upload = inner.repeat(Kind::Multipart, 0, begin).await?;
    let (inner, location) = (Arc::clone(inner), location.clone());
    Ok(Box::new(Upload { upload, inner, location, bytes: Arc::default() }))
}

/// Sends a part again: the store's client asks after each failure.
struct Policy(Arc<Inner>);

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Policy")
    }
}

#[async_trait]
impl RetryPolicy for Policy {
    async fn retry(&self, context: RetryContext) -> bool {
        let cause = match context.failure {
            RetryFailure::Status(status) => match status.as_u16() {
                // S3 throttles with 503; 200 is an error in the body of a success.
                429 | 503 => Cause::Throttled,
                401 | 403 => Cause::Denied,
                408 => Cause::TimedOut,
                200 | 500..=599 => Cause::Unavailable,
                _ => Cause::Unsupported,
            },
            RetryFailure::Transport(HttpErrorKind::Timeout) => Cause::TimedOut,
            _ => Cause::Unavailable,
        };
        self.0.failed(Kind::Part, cause);
        let made = u32::try_from(context.attempt).unwrap_or(u32::MAX).saturating_sub(1);
        let began = self.0.clock.elapsed().saturating_sub(context.elapsed);
        let again = self.0.again(&mut Attempts { made, began }, cause).await;
        if again {
            self.0.meter.sent(Kind::Part);
        }
        again
    }
}

#[derive(Debug)]
struct Upload {
    upload: Box<dyn MultipartUpload>,
    inner: Arc<Inner>,
    location: Path,
    // Bytes of the parts that were put.
    bytes: Arc<AtomicU64>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        let (inner, sum) = (Arc::clone(&self.inner), Arc::clone(&self.bytes));
        let part = self.upload.put_part(data);
        async move {
            // The deadline covers the tries that the policy allows.
            let patience = inner.options.patience.as_secs().saturating_mul(inner.options.rate_min);
            inner.attempt(Kind::Part, bytes.saturating_mul(2) + patience, part).await?;
            inner.meter.bytes(Kind::Part, bytes);
            sum.fetch_add(bytes, Ordering::AcqRel);
            Ok(())
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let bytes = self.bytes.load(Ordering::Acquire);
        let (inner, location) = (Arc::clone(&self.inner), self.location.clone());
        // Once: the client forgets the parts with the first try.
        let error = match inner.attempt(Kind::Multipart, bytes, self.upload.complete()).await {
            Ok(result) => return Ok(result),
            Err(error) => error,
        };
        if !Cause::of(&error).may_have_landed() {
            return Err(error);
        }
        match inner.repeat(Kind::Head, 0, || inner.store.head(&location)).await {
            // Only this upload writes under its key, and always the same bytes: the size tells whether it landed.
            Ok(found) if found.size == bytes => {
                inner.meter.own_writes.inc();
                let (e_tag, version) = (found.e_tag, found.version);
                Ok(PutResult { e_tag, version, extensions: Default::default() })
            }
            _ => Err(error),
        }
    }

    async fn abort(&mut self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        inner.attempt(Kind::Multipart, 0, self.upload.abort()).await
    }
}

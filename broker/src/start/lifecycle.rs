//! Rules of the bucket that would expire or move the objects of the log, found at start by one signed request.
//!
//! `object_store` has no call for it, but signs; the answer is a small document of which a few elements count.

use std::time::Duration;

use common::metrics::{Gauge, Registry};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use tracing::{error, info, warn};

/// Longest that a start waits for the rules.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A rule that will take objects away.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    id: String,
    prefix: String,
    does: &'static str,
}

/// Looks for rules that hit what lies below `<prefix>/<cluster id>`. Says what it finds; a start goes on all the same:
/// to refuse it would save no object. Other stores than S3 have no such rules.
pub(super) async fn check(s3: Option<&AmazonS3>, prefix: &Path, registry: &Registry) {
    let rules = Gauge::<i64>::default();
    registry.room("broker", |room| {
        let help = "Lifecycle rules of the bucket that will take objects of the log away";
        room.register("bucket_rules_harmful", help, rules.clone());
    });
    let Some(s3) = s3 else { return };
    let found = look(s3, prefix).await.unwrap_or(0);
    rules.set(i64::try_from(found).unwrap_or(i64::MAX));
}

/// The number of such rules, or `None` when it could not be found out.
async fn look(s3: &AmazonS3, prefix: &Path) -> Option<usize> {
    let text = match tokio::time::timeout(PATIENCE, rules(s3)).await {
        Ok(Ok(text)) => text,
        Ok(Err(reason)) => {
            info!(
                reason,
                "the bucket's lifecycle rules cannot be read; keep them off the log's objects"
            );
            return None;
        }
        Err(_) => {
            info!(
                "the bucket's lifecycle rules did not come in time; keep them off the log's objects"
            );
            return None;
        }
    };
    let found = harmful(&text, prefix.as_ref());
    for Rule { id, prefix: hit, does } in &found {
        error!(
            rule = id,
            prefix = hit,
            does,
            remedy = "end the rule, or give it a prefix outside of the cluster's; \
                      aborting unfinished multipart uploads is fine",
            "a lifecycle rule of the bucket will take objects of the log away: data will be lost"
        );
    }
    if !text.contains("<AbortIncompleteMultipartUpload>") {
        warn!(
            "the bucket has no rule that aborts unfinished multipart uploads; a crash may leave parts behind"
        );
    }
    Some(found.len())
}

/// The rules as the store writes them; empty when there are none.
async fn rules(s3: &AmazonS3) -> Result<String, String> {
    let options = SignedUrlOptions::default().with_query([("lifecycle", "")]);
    let signed = s3
        .signed_url_opts(reqwest::Method::GET, &Path::default(), PATIENCE * 2, &options)
        .await
        .map_err(|error| error.to_string())?;
    // The URL is a secret while it lasts: errors are told without it.
    let plain = |error: reqwest::Error| error.without_url().to_string();
    let mut answer = reqwest::get(signed).await.map_err(plain)?;
    let status = answer.status();
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(plain)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err("the answer is too long".to_owned());
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() {
        return Ok(text);
    }
    if text.contains("NoSuchLifecycleConfiguration") {
        return Ok(String::new());
    }
    Err(format!("{status} {}", element(&text, "Code").unwrap_or_default()))
}

/// The enabled rules of `text` that expire or move objects whose keys may begin with `ours`, sinks left aside.
fn harmful(text: &str, ours: &str) -> Vec<Rule> {
    let kept = ["data/", "cluster/", "meta/", "wal/"].map(|area| format!("{ours}/{area}"));
    let hits = |prefix: &str| {
        kept.iter().any(|area| area.starts_with(prefix) || prefix.starts_with(area.as_str()))
    };
    let rule = |body: &str| {
        let enabled = element(body, "Status").is_some_and(|status| status == "Enabled");
        // Objects of the log have no tags.
        let tagged = element(body, "Tag").is_some();
        let expires = element(body, "Expiration")
            .is_some_and(|inside| inside.contains("<Days>") || inside.contains("<Date>"));
        let moves = element(body, "Transition").is_some();
        let prefix = element(body, "Prefix").unwrap_or_default();
        let does = if expires { "expires objects" } else { "moves objects to another class" };
        (enabled && !tagged && (expires || moves) && hits(&prefix)).then(|| Rule {
            id: element(body, "ID").unwrap_or_default(),
            prefix,
            does,
        })
    };
    elements(text, "Rule").filter_map(rule).collect()
}

fn element(text: &str, name: &str) -> Option<String> {
    elements(text, name).next().map(unescaped)
}

/// The insides of all elements `name`, which do not nest in themselves.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (inside, after) = after.split_once(&close)?;
        rest = after;
        Some(inside)
    })
}

fn unescaped(text: &str) -> String {
    let pairs = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: &str, prefix: &str, status: &str, action: &str) -> String {
        format!(
            "<Rule><ID>{id}</ID><Filter><Prefix>{prefix}</Prefix></Filter><Status>{status}</Status>{action}</Rule>"
        )
    }

    #[test]
    fn rules_that_take_objects_of_the_log_are_found_and_others_are_not() {
        let expire = "<Expiration><Days>30</Days></Expiration>";
        let cold = "<Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>";
        let abort = "<AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>";
        let marker =
            "<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>";
        let text = [
            "<LifecycleConfiguration>",
            &rule("all", "", "Enabled", expire),
            &rule("above", "p", "Enabled", cold),
            &rule("inside", "p/c/data/ff", "Enabled", expire),
            &rule("off", "", "Disabled", expire),
            &rule("sinks", "p/c/sinks/", "Enabled", expire),
            &rule("other", "q/", "Enabled", expire),
            &rule("wanted", "", "Enabled", abort),
            &rule("markers", "", "Enabled", marker),
            "<Rule><ID>tags</ID><Filter><Tag><Key>a</Key><Value>b</Value></Tag></Filter>",
            "<Status>Enabled</Status><Expiration><Days>1</Days></Expiration></Rule>",
            "</LifecycleConfiguration>",
        ];
        let found = harmful(&text.concat(), "p/c");
        let ids: Vec<_> = found.iter().map(|rule| (rule.id.as_str(), rule.does)).collect();
        let (expires, moves) = ("expires objects", "moves objects to another class");
        assert_eq!(ids, [("all", expires), ("above", moves), ("inside", expires)]);
        assert!(harmful("", "p/c").is_empty());
        assert!(harmful("<Rule><ID>cut off", "p/c").is_empty());
    }
}

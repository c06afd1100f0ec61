//! What an error of the object store means, and what to do about it.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// Why a request to the store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// There is no such object. The store works.
    NotFound,
    /// The key is taken, or another precondition does not hold (412). The store works.
    Exists,
    /// The store refused a create because of another request on the same key (409): nothing was written.
    Conflict,
    /// The object is shorter than the range asked for. The store works.
    Short,
    /// The store asks for fewer requests (503 SlowDown, 429).
    Throttled,
    /// No connection, a broken one, or an answer of the 5xx kind.
    Unavailable,
    /// No answer in time, or a body that stopped.
    TimedOut,
    /// The credentials do not allow the request.
    Denied,
    /// The credentials are unknown, expired or wrong.
    Credentials,
    /// The clocks of this machine and of the store are too far apart.
    ClockSkew,
    /// The bucket is not there.
    NoBucket,
    /// The store has no room.
    Full,
    /// The store or this client cannot do what was asked: no try helps.
    Unsupported,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 13] = [
        Cause::NotFound,
        Cause::Exists,
        Cause::Conflict,
        Cause::Short,
        Cause::Throttled,
        Cause::Unavailable,
        Cause::TimedOut,
        Cause::Denied,
        Cause::Credentials,
        Cause::ClockSkew,
        Cause::NoBucket,
        Cause::Full,
        Cause::Unsupported,
    ];

    /// The cause of `error`.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::NotFound { source, .. } => {
                if source.to_string().contains("NoSuchBucket") {
                    Self::NoBucket
                } else {
                    Self::NotFound
                }
            }
            Error::AlreadyExists { source, .. } => exists(source.as_ref()),
            Error::Precondition { .. } | Error::NotModified { .. } => Self::Exists,
            Error::PermissionDenied { source, .. } | Error::Unauthenticated { source, .. } => {
                let text = source.to_string();
                coded(&text).unwrap_or(Self::Denied)
            }
            Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::InvalidPath { .. }
            | Error::UnknownConfigurationKey { .. } => Self::Unsupported,
            Error::Generic { source, .. } => generic(source.as_ref()),
            _ => Self::Unavailable,
        }
    }

    /// True when the same request may succeed later.
    #[must_use]
    pub fn is_passing(self) -> bool {
        match self {
            Self::Conflict
            | Self::Throttled
            | Self::Unavailable
            | Self::TimedOut
            | Self::Denied
            | Self::Credentials
            | Self::ClockSkew
            | Self::NoBucket
            | Self::Full => true,
            Self::NotFound | Self::Exists | Self::Short | Self::Unsupported => false,
        }
    }

    /// True when the store answered as it should: nothing is wrong with it.
    #[must_use]
    pub fn is_answer(self) -> bool {
        matches!(self, Self::NotFound | Self::Exists | Self::Conflict | Self::Short)
    }

    /// True when a write that failed so may have taken effect all the same.
    #[must_use]
    pub fn may_have_landed(self) -> bool {
        matches!(self, Self::Unavailable | Self::TimedOut)
    }

    /// The word for metrics, logs and `/v1`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Exists => "exists",
            Self::Conflict => "conflict",
            Self::Short => "short",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::TimedOut => "timed_out",
            Self::Denied => "denied",
            Self::Credentials => "credentials",
            Self::ClockSkew => "clock_skew",
            Self::NoBucket => "no_bucket",
            Self::Full => "full",
            Self::Unsupported => "unsupported",
        }
    }

    /// What a person can do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NotFound | Self::Exists | Self::Conflict | Self::Short => "nothing to do",
            Self::Throttled => {
                "requests are slowed down; ask for a higher limit or raise upload.size.max if it lasts"
            }
            Self::Unavailable => {
                "check the network, the endpoint and the store's own health; it heals by itself"
            }
            Self::TimedOut => "check the network and the load of the store; it heals by itself",
            Self::Denied => "allow these credentials to get, put, list and delete in the bucket",
            Self::Credentials => {
                "renew or correct the access key, then restart if it is in settings"
            }
            Self::ClockSkew => "set the clock of this machine (NTP)",
            Self::NoBucket => "create the bucket again, or correct its name",
            Self::Full => "make room in the store",
            Self::Unsupported => "use another store, or correct the settings of object.store",
        }
    }
}

/// `object_store` answers 409 and 412 of a create alike; only the second says that something stands under the key.
fn exists(source: &(dyn StdError + Send + Sync + 'static)) -> Cause {
    let precondition = matches!(
        source.downcast_ref::<Error>(),
        Some(Error::Precondition { .. } | Error::NotModified { .. })
    );
    let text = source.to_string();
    if !precondition && (text.contains("409") || text.contains("ConditionalRequestConflict")) {
        Cause::Conflict
    } else {
        Cause::Exists
    }
}

fn generic(source: &(dyn StdError + Send + Sync + 'static)) -> Cause {
    let mut next: Option<&(dyn StdError + 'static)> = Some(source);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return match http.kind() {
                HttpErrorKind::Timeout => Cause::TimedOut,
                _ => Cause::Unavailable,
            };
        }
        if let Some(system) = error.downcast_ref::<std::io::Error>() {
            return match system.kind() {
                std::io::ErrorKind::StorageFull => Cause::Full,
                std::io::ErrorKind::PermissionDenied => Cause::Denied,
                std::io::ErrorKind::TimedOut => Cause::TimedOut,
                _ => Cause::Unavailable,
            };
        }
        if error.is::<TooLong>() {
            return Cause::TimedOut;
        }
        if error.is::<TooShort>() {
            return Cause::Short;
        }
        next = error.source();
    }
    let text = source.to_string();
    if let Some(cause) = coded(&text) {
        return cause;
    }
    match status(&text) {
        Some(429) => Cause::Throttled,
        Some(408) => Cause::TimedOut,
        Some(401) => Cause::Credentials,
        Some(416) => Cause::Short,
        Some(507) => Cause::Full,
        Some(400 | 405 | 411 | 501) => Cause::Unsupported,
        _ => Cause::Unavailable,
    }
}

/// The cause that the error code inside an answer names.
fn coded(text: &str) -> Option<Cause> {
    const CODES: [(&str, Cause); 16] = [
        ("SlowDown", Cause::Throttled),
        ("slow down", Cause::Throttled),
        ("TooManyRequests", Cause::Throttled),
        ("RequestLimitExceeded", Cause::Throttled),
        ("Throttling", Cause::Throttled),
        ("RequestTimeTooSkewed", Cause::ClockSkew),
        ("ExpiredToken", Cause::Credentials),
        ("TokenRefreshRequired", Cause::Credentials),
        ("InvalidAccessKeyId", Cause::Credentials),
        ("SignatureDoesNotMatch", Cause::Credentials),
        ("NoSuchBucket", Cause::NoBucket),
        ("StorageFull", Cause::Full),
        ("No space left", Cause::Full),
        ("RequestTimeout", Cause::TimedOut),
        ("InvalidRange", Cause::Short),
        ("Wanted range starting at", Cause::Short),
    ];
    CODES.iter().find(|(code, _)| text.contains(code)).map(|(_, cause)| *cause)
}

/// The status that `object_store` writes into the text of its errors, whose types it keeps to itself.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// A request or body took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("the object store took longer than {seconds} s to {what}")]
pub(super) struct TooLong {
    pub seconds: u64,
    pub what: &'static str,
}

/// The object ends before the range that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("the object is {size} bytes long, bytes up to {end} were asked for")]
pub(super) struct TooShort {
    pub size: u64,
    pub end: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    fn non_2xx(answer: &str) -> Error {
        generic(&format!(
            "Error performing PUT in 1ms - Server returned non-2xx status code: {answer}"
        ))
    }

    #[test]
    fn each_answer_has_its_cause() {
        for (answer, cause) in [
            ("503 Service Unavailable: <Code>SlowDown</Code>", Cause::Throttled),
            ("503 Service Unavailable: ", Cause::Unavailable),
            ("429 Too Many Requests: ", Cause::Throttled),
            ("500 Internal Server Error: <Code>InternalError</Code>", Cause::Unavailable),
            ("400 Bad Request: <Code>ExpiredToken</Code>", Cause::Credentials),
            ("400 Bad Request: <Code>RequestTimeout</Code>", Cause::TimedOut),
            ("400 Bad Request: <Code>EntityTooSmall</Code>", Cause::Unsupported),
            ("416 Range Not Satisfiable: ", Cause::Short),
            ("507 Insufficient Storage: <Code>XMinioStorageFull</Code>", Cause::Full),
        ] {
            assert_eq!(Cause::of(&non_2xx(answer)), cause, "{answer}");
        }
        let denied = |text: &str| Error::PermissionDenied {
            path: "k".to_owned(),
            source: text.to_owned().into(),
        };
        assert_eq!(Cause::of(&denied("403: <Code>RequestTimeTooSkewed</Code>")), Cause::ClockSkew);
        assert_eq!(Cause::of(&denied("403: <Code>AccessDenied</Code>")), Cause::Denied);
        let missing =
            |text: &str| Error::NotFound { path: "k".to_owned(), source: text.to_owned().into() };
        assert_eq!(Cause::of(&missing("404: <Code>NoSuchBucket</Code>")), Cause::NoBucket);
        assert_eq!(Cause::of(&missing("404: <Code>NoSuchKey</Code>")), Cause::NotFound);
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let full = Error::Generic { store: "LocalFileSystem", source: Box::new(full) };
        assert_eq!(Cause::of(&full), Cause::Full);
    }

    #[test]
    fn a_conflict_is_told_from_a_key_that_is_taken() {
        let path = || "k".to_owned();
        let precondition = Error::Precondition { path: path(), source: "412 409".into() };
        let taken = Error::AlreadyExists { path: path(), source: Box::new(precondition) };
        assert_eq!(Cause::of(&taken), Cause::Exists);
        let conflict = "Server returned non-2xx status code: 409 Conflict: ";
        let conflict = Error::AlreadyExists { path: path(), source: conflict.into() };
        assert_eq!(Cause::of(&conflict), Cause::Conflict);
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<_> = Cause::ALL.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), Cause::ALL.len());
    }
}

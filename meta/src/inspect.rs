//! Reading a store that nobody runs, or that a running broker holds: for `sluice meta dump`.

use serde::Serialize;

use crate::command::SinkState;
use crate::consensus::{applied, dump as whole, entries_held};
use crate::image::config_kind;
use crate::keys::{self, tag};
use crate::record;
use crate::store::MetaStore;
use crate::view::{Load, StoreView, ViewError, bad_key, read};

/// The state in a few numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Index of the last command applied.
    pub applied: u64,
    /// Its term.
    pub term: u64,
    /// Entries in raft's log.
    pub log_entries: usize,
    /// Keys in the state.
    pub keys: u64,
    /// CRC-32C of the state.
    pub checksum: u32,
}

/// One key of the state, readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What the key names.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The state in a few numbers.
///
/// # Errors
/// When the store cannot be read.
pub fn summary(store: &dyn MetaStore) -> Result<Summary, ViewError> {
    let view = StoreView(store);
    let at = applied(store)?;
    let mut keys = 0;
    for first in tag::CLUSTER..=tag::LAST {
        view.each(vec![first], |_, _| {
            keys += 1;
            Ok(())
        })?;
    }
    let log_entries = entries_held(store)?;
    let checksum = whole::checksum(&view)?;
    Ok(Summary { applied: at.index, term: at.term, log_entries, keys, checksum })
}

/// Calls `body` with every key of the state, in order. A value that this build cannot read is shown as such.
///
/// # Errors
/// When the store cannot be read.
pub fn dump(store: &dyn MetaStore, mut body: impl FnMut(Line)) -> Result<(), ViewError> {
    let view = StoreView(store);
    for first in tag::CLUSTER..=tag::LAST {
        view.each(vec![first], |key, value| {
            let damaged = |error: ViewError| Line {
                kind: "unreadable",
                name: format!("{key:02x?}"),
                value: error.to_string(),
            };
            body(line(key, value).unwrap_or_else(damaged));
            Ok(())
        })?;
    }
    Ok(())
}

fn line(key: &[u8], value: &[u8]) -> Result<Line, ViewError> {
    let (tag, rest) = key.split_first().ok_or_else(|| bad_key(key))?;
    let (kind, name) = (kind(*tag), name(*tag, rest).ok_or_else(|| bad_key(key))?);
    Ok(Line { kind, name, value: shown(*tag, key, value)? })
}

fn kind(tag: u8) -> &'static str {
    match tag {
        tag::CLUSTER => "cluster",
        tag::TIME => "time",
        tag::COUNTER => "counter",
        tag::BROKER => "broker",
        tag::WAL => "wal",
        tag::TOPIC_NAME => "topic-name",
        tag::TOPIC => "topic",
        tag::PARTITION => "partition",
        tag::TOPIC_ID => "topic-id",
        tag::CONFIG => "config",
        tag::SINK => "sink",
        tag::SINK_NAME => "sink-name",
        tag::SINK_FLOOR => "sink-floor",
        tag::STREAM => "stream",
        tag::RANGE => "range",
        tag::OBJECT => "object",
        tag::LIVE => "live",
        tag::EXPIRY => "expiry",
        tag::DELETION => "deletion",
        tag::RELEASE => "release",
        tag::RETENTION => "retention",
        tag::CLEANING => "cleaning",
        _ => "unknown",
    }
}

fn name(tag: u8, rest: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let number = |bytes| keys::split_u64(bytes).map(|(number, _)| number.to_string());
    Some(match tag {
        tag::CLUSTER | tag::TIME => String::new(),
        tag::COUNTER => rest.first()?.to_string(),
        tag::BROKER | tag::RETENTION => keys::split_u32(rest)?.0.to_string(),
        tag::TOPIC_NAME | tag::SINK_NAME => text(rest)?,
        tag::TOPIC_ID => uuid::Uuid::from_slice(rest).ok()?.to_string(),
        tag::PARTITION | tag::SINK_FLOOR | tag::CLEANING => {
            let (first, rest) = keys::split_u64(rest)?;
            format!("{first}-{}", keys::split_u32(rest)?.0)
        }
        tag::CONFIG => match rest.split_first()? {
            (&config_kind::TOPIC, rest) => format!("topic {}", number(rest)?),
            (&config_kind::BROKER, []) => "cluster".to_owned(),
            (&config_kind::BROKER, rest) => format!("broker {}", keys::split_u32(rest)?.0),
            (_, rest) => format!("group {}", text(rest)?),
        },
        tag::STREAM => keys::split_stream(rest)?.0.to_string(),
        tag::RANGE => {
            let (stream, rest) = keys::split_stream(rest)?;
            format!("{stream} from {}", keys::split_i64(rest)?.0)
        }
        tag::LIVE => {
            let (object, rest) = keys::split_u64(rest)?;
            let (stream, rest) = keys::split_stream(rest)?;
            format!("{object} {stream} from {}", keys::split_i64(rest)?.0)
        }
        tag::EXPIRY | tag::DELETION => {
            let (at, rest) = keys::split_u64(rest)?;
            format!("{at} {}", keys::split_u64(rest)?.0)
        }
        _ => number(rest)?,
    })
}

fn shown(tag: u8, key: &[u8], value: &[u8]) -> Result<String, ViewError> {
    Ok(match tag {
        tag::CLUSTER => format!("{:?}", read::<record::Cluster>(key, value)?),
        tag::BROKER => format!("{:?}", read::<record::Broker>(key, value)?),
        tag::WAL => format!("{:?}", read::<record::Wal>(key, value)?),
        tag::TOPIC_NAME => format!("{:?}", read::<record::TopicName>(key, value)?),
        tag::TOPIC => format!("{:?}", read::<record::Topic>(key, value)?),
        tag::PARTITION => format!("{:?}", read::<record::Partition>(key, value)?),
        tag::CONFIG => format!("{:?}", read::<record::Config>(key, value)?.values),
        tag::SINK => {
            let sink = read::<record::Sink>(key, value)?;
            let state = SinkState::try_from(sink.state);
            format!("{sink:?} ({state:?})")
        }
        tag::SINK_FLOOR | tag::LIVE => read::<record::Floor>(key, value)?.offset.to_string(),
        tag::STREAM => format!("{:?}", read::<record::Stream>(key, value)?),
        tag::RANGE => format!("{:?}", read::<record::Range>(key, value)?),
        tag::OBJECT => format!("{:?}", read::<record::Object>(key, value)?),
        tag::CLEANING => format!("{:?}", read::<record::Cleaning>(key, value)?),
        _ => read::<record::Number>(key, value)?.value.to_string(),
    })
}

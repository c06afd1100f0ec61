//! The configuration of a sink: Connect's keys and value syntax, and a few of ours beside them.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::hash::Hash;

mod nearest;

/// Every key, with what it means. The CLI prints it.
pub const KEYS: &[Key] = &[
    Key {
        name: "file.size.bytes",
        text: "close a file at this estimated size, 1024 to 1073741824",
    },
    Key {
        name: "filename.offset.zero.pad.width",
        text: "digits of the offset in a name, 0 to 20 (10)",
    },
    Key { name: "flush.size", text: "close a file at this many records" },
    Key { name: "format", text: "parquet" },
    Key { name: "idle.ms", text: "close a file when no record has come for this long" },
    Key { name: "parquet.codec", text: "none, snappy, gzip or zstd (snappy)" },
    Key {
        name: "rotate.interval.ms",
        text: "close a file at this span of record timestamps, or when its first record has waited this long",
    },
    Key {
        name: "rotate.schedule.interval.ms",
        text: "close files at this interval of wall clock, aligned to midnight of `timezone`",
    },
    Key { name: "s3.bucket.name", text: "bucket for the files (the cluster's own store)" },
    Key { name: "sink.protect", text: "keep records in the topic until they are in files (true)" },
    Key { name: "sink.protect.age.max.ms", text: "longest time protected, -1 for no bound (-1)" },
    Key { name: "sink.protect.size.max.bytes", text: "most bytes protected, -1 for no bound (-1)" },
    Key {
        name: "store.prefix",
        text: "prefix of all keys (sinks/<name> in the cluster's own store)",
    },
    Key {
        name: "timezone",
        text: "IANA time zone of the schedule, for example Europe/Berlin (UTC)",
    },
    Key { name: "topics.dir", text: "folder above the topics (topics)" },
    Key { name: "value", text: "json: values are JSON objects, typed by inference over the cut" },
];

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// One line on what it does; the default in brackets.
    pub text: &'static str,
}

/// A key or value that cannot be taken. All faults of a configuration are reported together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No such key.
    #[error("unknown sink key {key:?}; did you mean {nearest:?}?")]
    UnknownKey {
        /// What was given.
        key: String,
        /// The valid key that looks most like it.
        nearest: &'static str,
    },
    /// A value outside its range or syntax.
    #[error("{key}={value:?}: {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be taken.
        wanted: String,
    },
}

/// All that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct Faults(pub Vec<Fault>);

/// Compression of Parquet pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// None.
    None,
    /// Snappy.
    Snappy,
    /// Gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Codec {
    /// The extension of a file, as users of S3 sinks know it.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Codec::None => "parquet",
            Codec::Snappy => "snappy.parquet",
            Codec::Gzip => "gz.parquet",
            Codec::Zstd => "zstd.parquet",
        }
    }
}

/// A wall-clock schedule.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    /// Interval in milliseconds, 1 or more.
    pub interval_ms: i64,
    /// Whose midnight the ticks are aligned to.
    pub zone: TimeZone,
}

/// When a file is closed. The first rule that is met closes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// At this many records.
    pub records: Option<u64>,
    /// At this many estimated bytes of the file.
    pub bytes: Option<u64>,
    /// At this span of record timestamps in milliseconds, or when the first record has waited this long.
    pub span_ms: Option<i64>,
    /// On ticks of the wall clock.
    pub schedule: Option<Schedule>,
    /// When no record has come for this many milliseconds.
    pub idle_ms: Option<i64>,
    /// When the first record has waited this many milliseconds. Only the default sets it.
    pub age_ms: Option<i64>,
}

/// What retention owes a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protect {
    /// Whether retention stops at the sink's boundary.
    pub enabled: bool,
    /// Bytes protected at most.
    pub bytes_max: Option<u64>,
    /// Milliseconds protected at most.
    pub age_max_ms: Option<i64>,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct SinkConfig {
    /// When files are closed.
    pub rules: Rules,
    /// The folder above the topics, without slashes at its ends.
    pub topics_dir: String,
    /// Compression of pages.
    pub codec: Codec,
    /// Digits of the offset in a file's name.
    pub pad_width: usize,
    /// The bucket, when it is not the cluster's own store.
    pub bucket: Option<String>,
    /// The prefix of all keys, when it is not the default.
    pub prefix: Option<String>,
    /// What retention owes the sink.
    pub protect: Protect,
    raw: BTreeMap<String, String>,
}

/// The size and age at which a file is closed when no rotation key is set.
pub const DEFAULT_FILE_BYTES: u64 = 128 << 20;
/// See [`DEFAULT_FILE_BYTES`].
pub const DEFAULT_FILE_AGE_MS: i64 = 60_000;
/// The largest `file.size.bytes`.
pub const FILE_SIZE_BYTES_MAX: u64 = 1 << 30;

impl SinkConfig {
    /// Checks a configuration as a user wrote it.
    ///
    /// # Errors
    /// All faults, each with the key and the remedy.
    pub fn parse(raw: &BTreeMap<String, String>) -> Result<Self, Faults> {
        let mut reader = Reader { raw, faults: Vec::new() };
        reader.unknown_keys();
        reader.word("format", "parquet", &["parquet"]);
        reader.word("value", "json", &["json"]);
        let config = Self {
            rules: reader.rules(),
            topics_dir: reader.folder("topics.dir").unwrap_or_else(|| "topics".to_owned()),
            codec: reader.codec(),
            pad_width: reader
                .number("filename.offset.zero.pad.width", 0, 20)
                .map_or(10, |width| usize::try_from(width).unwrap_or(20)),
            bucket: reader.bucket(),
            prefix: reader.folder("store.prefix"),
            protect: reader.protect(),
            raw: raw.clone(),
        };
        match reader.faults.is_empty() {
            true => Ok(config),
            false => Err(Faults(reader.faults)),
        }
    }

    /// What was parsed.
    #[must_use]
    pub fn raw(&self) -> &BTreeMap<String, String> {
        &self.raw
    }

    /// A hash over keys and values, each with its length, in the order of keys.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut digest = Sha256::new();
        for text in self.raw.iter().flat_map(|(key, value)| [key, value]) {
            digest.update(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            digest.update(text.as_bytes());
        }
        Hash::from_digest(digest)
    }
}

/// Checks the name of a sink: it becomes a folder.
///
/// # Errors
/// One sentence with what is allowed.
pub fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good = !name.is_empty() && name.len() <= 100 && name.chars().all(allowed);
    match good && name != "tmp" && !name.starts_with(['.', '_']) {
        true => Ok(()),
        false => Err(format!(
            "sink name {name:?} must be 1 to 100 of a-z A-Z 0-9 . _ - and not begin with . or _"
        )),
    }
}

struct Reader<'a> {
    raw: &'a BTreeMap<String, String>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn unknown_keys(&mut self) {
        for key in self.raw.keys().filter(|key| KEYS.iter().all(|known| known.name != **key)) {
            let nearest = nearest::nearest(key, KEYS.iter().map(|known| known.name));
            self.faults.push(Fault::UnknownKey { key: key.clone(), nearest });
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.raw.get(key).map(|value| value.trim())
    }

    fn fault(&mut self, key: &'static str, wanted: impl Into<String>) {
        let value = self.raw.get(key).cloned().unwrap_or_default();
        self.faults.push(Fault::Value { key, value, wanted: wanted.into() });
    }

    /// A number in `[low, high]`; -1 stands for "not set", as in Connect.
    fn number(&mut self, key: &'static str, low: i64, high: i64) -> Option<i64> {
        let text = self.get(key)?;
        match text.parse::<i64>() {
            Ok(-1) => None,
            Ok(number) if (low..=high).contains(&number) => Some(number),
            _ => {
                self.fault(key, format!("must be a whole number from {low} to {high}, or -1"));
                None
            }
        }
    }

    fn word(&mut self, key: &'static str, default: &'static str, words: &[&str]) -> String {
        let word = self.get(key).unwrap_or(default).to_ascii_lowercase();
        if !words.contains(&word.as_str()) {
            self.fault(key, format!("must be {}", words.join(", ")));
        }
        word
    }

    fn codec(&mut self) -> Codec {
        let words = ["none", "uncompressed", "snappy", "gzip", "zstd"];
        match self.word("parquet.codec", "snappy", &words).as_str() {
            "none" | "uncompressed" => Codec::None,
            "gzip" => Codec::Gzip,
            "zstd" => Codec::Zstd,
            _ => Codec::Snappy,
        }
    }

    fn rules(&mut self) -> Rules {
        const MS_MAX: i64 = 366 * 86_400_000;
        let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
        let mut rules = Rules {
            records: self.number("flush.size", 1, i64::from(i32::MAX)).map(unsigned),
            bytes: self.number("file.size.bytes", 1024, 1 << 30).map(unsigned),
            span_ms: self.number("rotate.interval.ms", 1, MS_MAX),
            schedule: self.schedule(MS_MAX),
            idle_ms: self.number("idle.ms", 1, MS_MAX),
            age_ms: None,
        };
        let none = rules.records.is_none() && rules.bytes.is_none() && rules.span_ms.is_none();
        if none && rules.schedule.is_none() && rules.idle_ms.is_none() {
            rules.bytes = Some(DEFAULT_FILE_BYTES);
            rules.age_ms = Some(DEFAULT_FILE_AGE_MS);
        }
        rules
    }

    fn schedule(&mut self, ms_max: i64) -> Option<Schedule> {
        let name = self.get("timezone").unwrap_or("UTC").to_owned();
        let zone = if name.eq_ignore_ascii_case("UTC") {
            TimeZone::UTC
        } else {
            match TimeZone::get(&name) {
                Ok(zone) => zone,
                Err(_) => {
                    self.fault("timezone", "must be an IANA name such as Europe/Berlin or UTC");
                    TimeZone::UTC
                }
            }
        };
        let interval_ms = self.number("rotate.schedule.interval.ms", 1, ms_max)?;
        Some(Schedule { interval_ms, zone })
    }

    fn folder(&mut self, key: &'static str) -> Option<String> {
        let text = self.get(key)?.trim_matches('/').to_owned();
        let part_is_good = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=');
            !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
        };
        let empty_prefix = key == "store.prefix" && text.is_empty();
        if !empty_prefix && (!text.split('/').all(part_is_good) || text.len() > 500) {
            self.fault(key, "must be folders of a-z A-Z 0-9 . _ - = with / between them");
            return None;
        }
        if text.split('/').any(|part| part == "_sluice") {
            self.fault(key, "must not name the folder _sluice");
        }
        Some(text)
    }

    fn bucket(&mut self) -> Option<String> {
        let text = self.get("s3.bucket.name")?.to_owned();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if text.is_empty() || text.len() > 255 || !text.chars().all(allowed) {
            self.fault("s3.bucket.name", "must be the name of a bucket");
        }
        Some(text)
    }

    fn protect(&mut self) -> Protect {
        let enabled = self.word("sink.protect", "true", &["true", "false"]) == "true";
        let bytes = self.number("sink.protect.size.max.bytes", 0, i64::MAX);
        Protect {
            enabled,
            bytes_max: bytes.and_then(|number| u64::try_from(number).ok()),
            age_max_ms: self.number("sink.protect.age.max.ms", 0, i64::MAX),
        }
    }
}

#[cfg(test)]
mod tests;

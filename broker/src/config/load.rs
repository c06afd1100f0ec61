//! Layers of settings into one, with the origin of each value and all faults at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::components::Settings;
use super::nearest;

/// Prefix of environment variables: `SLUICE__UPLOAD__SIZE__MAX` is `upload.size.max`.
const PREFIX: &str = "SLUICE__";
/// The file that is read when no other is named.
const FILE: &str = "sluice.toml";

/// What the process was given.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file named by `--config` or `SLUICE_CONFIG`; must exist.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// Keys set by flags, with the flag's name for `config show`.
    pub flags: Vec<(String, String, String)>,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing set it.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong with what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {what}")]
pub struct Fault {
    /// Who said it.
    pub origin: Origin,
    /// What is wrong and what to write instead.
    pub what: String,
}

/// All that is wrong with what was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

/// The settings and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    origins: BTreeMap<String, Origin>,
}

/// One line of `config show`.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Dotted key.
    pub key: String,
    /// Value in force; empty when unset, `(hidden)` for a secret.
    pub value: String,
    /// Where it came from.
    pub origin: String,
}

impl Loaded {
    /// Every key with its value and origin, by key.
    #[must_use]
    pub fn shown(&self) -> Vec<Shown> {
        let table = flat(&self.settings);
        table
            .iter()
            .map(|(key, value)| {
                let secret = Settings::SECRET.contains(&key.as_str()) && !value.is_null();
                let value = if secret { "(hidden)".to_owned() } else { text(value) };
                let origin = self.origins.get(key).unwrap_or(&Origin::Default).to_string();
                Shown { key: key.clone(), value, origin }
            })
            .collect()
    }
}

/// Reads all layers.
///
/// # Errors
/// Every unknown key, unreadable value and value out of range, together.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let mut faults = Vec::new();
    let mut given: Vec<(String, Value, Origin)> = Vec::new();
    read_file(sources, &mut given, &mut faults);
    for (name, value) in &sources.environment {
        if let Some(rest) = name.strip_prefix(PREFIX) {
            let key = rest.replace("__", ".").to_lowercase();
            given.push((key, Value::String(value.clone()), Origin::Environment(name.clone())));
        }
    }
    for (key, value, flag) in &sources.flags {
        given.push((key.clone(), Value::String(value.clone()), Origin::Flag(flag.clone())));
    }
    let mut table = flat(&Settings::default());
    let mut origins = BTreeMap::new();
    for (key, value, origin) in given {
        match accept(&table, &key, value) {
            Ok(next) => {
                table = next;
                origins.insert(key, origin);
            }
            Err(what) => faults.push(Fault { origin, what }),
        }
    }
    let settings: Settings =
        serde_json::from_value(Value::Object(table)).expect("each key was accepted alone");
    for (key, rule) in settings.faults() {
        let origin = origins.get(key).cloned().unwrap_or(Origin::Default);
        faults.push(Fault { origin, what: format!("{key} {rule}") });
    }
    if faults.is_empty() { Ok(Loaded { settings, origins }) } else { Err(Faults(faults)) }
}

/// The table with `key` set, if that can be read.
fn accept(
    table: &Map<String, Value>,
    key: &str,
    value: Value,
) -> Result<Map<String, Value>, String> {
    let Some(old) = table.get(key) else {
        let hint = nearest(key, table.keys().map(String::as_str))
            .map(|name| format!("did you mean {name:?}?"))
            .unwrap_or_else(|| "`sluice config show` lists the keys".to_owned());
        return Err(format!("unknown key {key:?}; {hint}"));
    };
    let mut next = table.clone();
    next.insert(key.to_owned(), coerced(old, value));
    match serde_json::from_value::<Settings>(Value::Object(next.clone())) {
        Ok(_) => Ok(next),
        Err(error) => Err(format!("{key}: {error}")),
    }
}

/// Text from the environment or a flag in the type of the value it replaces.
fn coerced(old: &Value, new: Value) -> Value {
    let Value::String(text) = &new else { return new };
    let parsed = match old {
        Value::Number(_) => text.trim().parse::<i64>().ok().map(Value::from),
        Value::Bool(_) => text.trim().parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    parsed.unwrap_or(new)
}

fn read_file(sources: &Sources, given: &mut Vec<(String, Value, Origin)>, faults: &mut Vec<Fault>) {
    let named = sources.file.clone();
    let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE));
    let origin = Origin::File(path.clone());
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            faults.push(Fault { origin, what: format!("cannot be read: {error}") });
            return;
        }
    };
    match text.parse::<toml::Table>() {
        Ok(table) => {
            let json = serde_json::to_value(table).expect("TOML without odd types is JSON");
            flatten("", json, &mut |key, value| {
                given.push((key, value, Origin::File(Path::to_path_buf(&path))));
            });
        }
        Err(error) => {
            let what = format!("is not TOML: {}", error.to_string().replace('\n', " "));
            faults.push(Fault { origin, what });
        }
    }
}

fn flatten(prefix: &str, value: Value, found: &mut impl FnMut(String, Value)) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&key, value, found);
            }
        }
        value => found(prefix.to_owned(), value),
    }
}

fn flat(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("settings are a table of values: {other:?}"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Sources {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        Sources { environment: pairs.iter().map(own).collect(), ..Sources::default() }
    }

    fn with_file(text: &str) -> (tempfile::TempDir, Sources) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("sluice.toml");
        #[expect(clippy::disallowed_methods, reason = "the file of this test")]
        std::fs::write(&path, text).expect("written");
        (dir, Sources { file: Some(path), ..Sources::default() })
    }

    #[test]
    fn layers_override_each_other_and_say_where_a_value_came_from() {
        let (_dir, mut sources) = with_file(
            "listen = \"127.0.0.1:1\"\n[upload]\nsize.max = \"2MiB\"\nage.max = \"3s\"\n",
        );
        sources.environment = vec![("SLUICE__UPLOAD__AGE__MAX".to_owned(), "4s".to_owned())];
        sources.flags =
            vec![("listen".to_owned(), "127.0.0.1:2".to_owned(), "--listen".to_owned())];
        let loaded = load(&sources).expect("valid");
        assert_eq!(loaded.settings.server.listen, "127.0.0.1:2");
        assert_eq!(loaded.settings.upload.size_max.to_string(), "2MiB");
        assert_eq!(loaded.settings.upload.age_max.to_string(), "4s");
        let shown = loaded.shown();
        let of =
            |key: &str| shown.iter().find(|line| line.key == key).map(|line| line.origin.clone());
        assert_eq!(of("listen").as_deref(), Some("flag --listen"));
        assert_eq!(of("upload.age.max").as_deref(), Some("environment SLUICE__UPLOAD__AGE__MAX"));
        assert!(of("upload.size.max").expect("shown").starts_with("file "));
        assert_eq!(of("memory.max").as_deref(), Some("default"));
    }

    #[test]
    fn all_faults_come_together_with_the_nearest_key() {
        let sources = environment(&[
            ("SLUICE__MEMORY__MAKS", "1GiB"),
            ("SLUICE__NUM__PARTITIONS", "0"),
            ("SLUICE__UPLOAD__SIZE__MAX", "64"),
        ]);
        let faults = load(&sources).expect_err("three faults");
        assert_eq!(faults.0.len(), 3, "{faults}");
        let text = faults.to_string();
        assert!(text.contains("did you mean \"memory.max\"?"), "{text}");
        assert!(text.contains("num.partitions must be 1"), "{text}");
        assert!(text.contains("a size such as 64MiB"), "{text}");
    }

    #[test]
    fn numbers_and_truths_are_read_from_text() {
        let sources = environment(&[
            ("SLUICE__NUM__PARTITIONS", "3"),
            ("SLUICE__AUTO__CREATE__TOPICS__ENABLE", "false"),
            ("SLUICE__OBJECT__STORE__SECRET__ACCESS__KEY", "hush"),
        ]);
        let loaded = load(&sources).expect("valid");
        assert_eq!(loaded.settings.topics.partitions, 3);
        assert!(!loaded.settings.topics.auto_create);
        assert!(loaded.shown().iter().all(|line| line.value != "hush"));
    }

    #[test]
    fn a_named_file_must_exist() {
        let sources = Sources { file: Some(PathBuf::from("/nowhere.toml")), ..Sources::default() };
        assert!(load(&sources).expect_err("missing").to_string().contains("cannot be read"));
    }
}

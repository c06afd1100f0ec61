//! Where everything of a sink lies.
//!
//! ```text
//! [<prefix>/]<topics.dir>/<topic>/partition=<n>/<topic>+<n>+<first offset>[.g<generation>].<ext>
//! [<prefix>/]<topics.dir>/_sluice/<sink>/<topic>/<n>/<start, 20 digits>.g<generation>.json      manifests
//! [<prefix>/]<topics.dir>/_sluice/<sink>/<topic>/schemas/<hash>.json                             schemas
//! [<prefix>/]<topics.dir>/_sluice/tmp/<sink>-<...>                                               unfinished uploads
//! ```

use object_store::path::Path;

use crate::config::SinkConfig;
use crate::hash::Hash;

/// The folder of everything that is not data.
pub(crate) const OURS: &str = "_sluice";

/// The keys of one sink and topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    root: String,
    sink: String,
    topic: String,
    extension: &'static str,
    pad_width: usize,
    generation: u32,
}

impl Layout {
    /// The layout of `sink` under `prefix` (which may be empty).
    #[must_use]
    pub fn new(
        prefix: &Path,
        config: &SinkConfig,
        sink: &str,
        topic: &str,
        generation: u32,
    ) -> Self {
        Self {
            root: join(prefix.as_ref(), &config.topics_dir),
            sink: sink.to_owned(),
            topic: topic.to_owned(),
            extension: config.codec.extension(),
            pad_width: config.pad_width,
            generation,
        }
    }

    /// The folder that holds the topics: `[<prefix>/]<topics.dir>`.
    #[must_use]
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The folder of the topic's data.
    #[must_use]
    pub fn data_folder(&self) -> Path {
        Path::from(join(&self.root, &self.topic))
    }

    /// A data file's key relative to [`Self::root`]; `first` is the offset of its first row.
    #[must_use]
    pub fn file_name(&self, partition: u32, first: i64) -> String {
        let Self { topic, extension, pad_width: width, .. } = self;
        let generation = match self.generation {
            0 => String::new(),
            number => format!(".g{number}"),
        };
        format!(
            "{topic}/partition={partition}/{topic}+{partition}+{first:0width$}{generation}.{extension}"
        )
    }

    /// The full key of a name from [`Self::file_name`].
    #[must_use]
    pub fn file(&self, name: &str) -> Path {
        Path::from(join(&self.root, name))
    }

    /// The folder of a partition's manifests.
    #[must_use]
    pub fn manifests(&self, partition: u32) -> Path {
        Path::from(format!("{}/{OURS}/{}/{}/{partition}", self.root, self.sink, self.topic))
    }

    /// The key of the manifest of the cut that begins at `start`.
    #[must_use]
    pub fn manifest(&self, partition: u32, start: i64) -> Path {
        self.manifests(partition).join(manifest_name(start, self.generation))
    }

    /// The key of a schema.
    #[must_use]
    pub fn schema(&self, hash: &Hash) -> Path {
        schema_path(&self.root, &self.sink, &self.topic, hash)
    }

    /// A key for an upload that is not finished; `unique` makes it this attempt's own.
    #[must_use]
    pub fn temporary(&self, partition: u32, first: i64, unique: u64) -> Path {
        let Self { root, sink, topic, .. } = self;
        Path::from(format!("{root}/{OURS}/tmp/{sink}-{topic}-{partition}-{first}-{unique:016x}"))
    }

    /// A key to try the store's create-only writes on.
    #[must_use]
    pub fn probe(&self, unique: u64) -> Path {
        Path::from(format!("{}/{OURS}/tmp/probe-{}-{unique:016x}", self.root, self.sink))
    }
}

/// `<start, 20 digits>.g<generation>.json`.
pub(crate) fn manifest_name(start: i64, generation: u32) -> String {
    format!("{start:020}.g{generation}.json")
}

/// Reads [`manifest_name`]; `None` for anything else.
pub(crate) fn parse_manifest_name(name: &str) -> Option<(i64, u32)> {
    let (start, rest) = name.split_once(".g")?;
    let generation = rest.strip_suffix(".json")?.parse().ok()?;
    let parsed = (start.parse().ok()?, generation);
    (manifest_name(parsed.0, parsed.1) == name).then_some(parsed)
}

pub(crate) fn schema_path(root: &str, sink: &str, topic: &str, hash: &Hash) -> Path {
    Path::from(format!("{root}/{OURS}/{sink}/{topic}/schemas/{hash}.json"))
}

/// `a/b`, or the one that is not empty.
pub(crate) fn join(a: &str, b: &str) -> String {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.to_owned(),
        (_, true) => a.to_owned(),
        _ => format!("{a}/{b}"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn names_are_those_that_users_of_s3_sinks_know() {
        let config = SinkConfig::parse(&BTreeMap::new()).expect("valid");
        let layout = Layout::new(&Path::from(""), &config, "s", "flights", 0);
        let name = layout.file_name(3, 42);
        assert_eq!(
            layout.file(&name).as_ref(),
            "topics/flights/partition=3/flights+3+0000000042.snappy.parquet"
        );
        assert_eq!(
            layout.manifest(3, 40).as_ref(),
            "topics/_sluice/s/flights/3/00000000000000000040.g0.json"
        );
        let layout = Layout::new(&Path::from("a/b"), &config, "s", "flights", 2);
        assert_eq!(
            layout.file(&layout.file_name(0, 12_345_678_901)).as_ref(),
            "a/b/topics/flights/partition=0/flights+0+12345678901.g2.snappy.parquet"
        );
    }

    #[test]
    fn only_exact_manifest_names_are_read() {
        assert_eq!(parse_manifest_name("00000000000000000040.g0.json"), Some((40, 0)));
        for bad in ["40.g0.json", "00000000000000000040.json", "00000000000000000040.g0.json.x"] {
            assert_eq!(parse_manifest_name(bad), None, "{bad}");
        }
    }
}

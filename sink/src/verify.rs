//! Proves from the bucket alone that below the boundary every offset stands exactly once in a file or in a named hole.
//!
//! For each partition the chain of manifests is walked: each names the hash of the one before, begins where that ended,
//! and accounts for every offset. Each file is hashed whole and then read row by row: partition, offset and content of
//! every row are compared with what the manifest says. Last, every object beside the data is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;

use crate::hash::Hash;
use crate::layout::{self, OURS};
use crate::manifest::Manifest;
use crate::schema::Schema;
use crate::store;

mod rows;
mod strays;

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Everything up to the boundaries is proved.
    Proved,
    /// Something is not as the manifests say.
    Disproved,
    /// The bucket could not be read, or holds nothing of this sink.
    Unchecked,
}

impl Outcome {
    /// Exit code of the command: 0, 1 or 3.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Proved => 0,
            Outcome::Disproved => 1,
            Outcome::Unchecked => 3,
        }
    }
}

/// What is wrong with an object or a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A manifest was changed, or cannot be read as one.
    ManifestChanged,
    /// A manifest is not there although its neighbours are.
    ManifestMissing,
    /// A manifest is of another sink, topic, partition or range than its key says.
    ManifestForeign,
    /// A schema is missing or was changed.
    SchemaDamaged,
    /// A file is not there.
    FileMissing,
    /// A file has other bytes than its manifest says.
    FileChanged,
    /// A file cannot be read as Parquet, or has other columns.
    FileUnreadable,
    /// A file is of another cut.
    FileSwapped,
    /// An object that no manifest names.
    FileForeign,
    /// Rows that should be there and are not.
    RowsMissing,
    /// Rows that stand there again.
    RowsDoubled,
    /// Rows with other content.
    RowsChanged,
    /// Rows that do not belong there.
    RowsForeign,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub fault: Fault,
    /// Topic.
    pub topic: String,
    /// Partition, when it is known.
    pub partition: Option<u32>,
    /// Offsets concerned, `[start, end)`, when they are known.
    pub offsets: Option<(i64, i64)>,
    /// Key of the object.
    pub object: String,
    /// One sentence.
    pub detail: String,
}

/// One partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// Topic.
    pub topic: String,
    /// Id of the topic.
    pub topic_id: String,
    /// Index of the partition.
    pub partition: u32,
    /// Output lineage.
    pub generation: u32,
    /// Where the sink began.
    pub start: i64,
    /// Everything in `[start, boundary)` is proved. Below the last manifest's end when something is wrong.
    pub boundary: i64,
    /// End of the last manifest.
    pub end: i64,
    /// Manifests.
    pub cuts: u64,
    /// Files.
    pub files: u64,
    /// Rows that the manifests name.
    pub rows: u64,
    /// Offsets in named holes.
    pub holes: i64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files of a cut that is not complete yet; nothing is said about them.
    pub unfinished: u64,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The sink.
    pub sink: String,
    /// The verdict.
    pub outcome: Outcome,
    /// Partitions, by topic, partition, generation.
    pub partitions: Vec<PartitionReport>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What could not be checked.
    pub unchecked: Vec<String>,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Manifests there are.
    pub manifests: u64,
    /// Manifests done.
    pub manifests_done: u64,
    /// Bytes of files read.
    pub bytes: u64,
}

/// Hears of progress after each file.
pub type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

/// Most findings kept; more are counted in a last line.
const FINDINGS_MAX: usize = 10_000;

/// Verifies `sink` under `prefix` with the given `topics.dir`. Reads the store and nothing else.
pub async fn verify(
    store: Arc<dyn ObjectStore>,
    prefix: &Path,
    topics_dir: &str,
    sink: &str,
    on_progress: Option<OnProgress>,
) -> Report {
    let root = layout::join(prefix.as_ref(), topics_dir.trim_matches('/'));
    let mut run = Run {
        store,
        root,
        sink: sink.to_owned(),
        sink_id: None,
        partitions: Vec::new(),
        findings: Vec::new(),
        findings_more: 0,
        unchecked: Vec::new(),
        known: BTreeSet::new(),
        schema: None,
        progress: Progress::default(),
        on_progress,
    };
    run.all().await;
    run.report()
}

struct Run {
    store: Arc<dyn ObjectStore>,
    root: String,
    sink: String,
    sink_id: Option<u64>,
    partitions: Vec<PartitionReport>,
    findings: Vec<Finding>,
    findings_more: u64,
    unchecked: Vec<String>,
    /// Names of files that manifests hold.
    known: BTreeSet<String>,
    schema: Option<(Hash, Schema)>,
    progress: Progress,
    on_progress: Option<OnProgress>,
}

/// A chain: topic, partition, generation.
type Lineage = (String, u32, u32);

/// Where a walk stands in a chain.
struct Walk {
    lineage: Lineage,
    report: PartitionReport,
    first: bool,
    /// Hash of the manifest before, and where the next one begins; `None` after one that could not be read.
    previous: Option<Hash>,
    expected: Option<i64>,
    /// Range of the manifest before.
    before: Option<(i64, i64)>,
    /// Lowest offset that is not proved.
    bad_from: Option<i64>,
}

impl Run {
    async fn all(&mut self) {
        let chains = match self.list().await {
            Ok(chains) => chains,
            Err(error) => {
                return self.unchecked.push(format!("{} cannot be listed: {error}", self.root));
            }
        };
        if chains.is_empty() {
            let place = format!("{}/{OURS}/{}", self.root, self.sink);
            return self.unchecked.push(format!(
                "no manifest under {place}: check the sink's name, the store, its prefix and topics.dir"
            ));
        }
        self.progress.manifests = chains.values().map(|starts| starts.len() as u64).sum();
        for (lineage, starts) in chains {
            self.chain(lineage, &starts).await;
        }
        strays::check(self).await;
    }

    fn report(mut self) -> Report {
        if self.findings_more > 0 {
            self.unchecked.push(format!("{} more findings are not listed", self.findings_more));
        }
        let outcome = match (self.findings.is_empty(), self.unchecked.is_empty()) {
            (false, _) => Outcome::Disproved,
            (true, false) => Outcome::Unchecked,
            (true, true) => Outcome::Proved,
        };
        Report {
            sink: self.sink,
            outcome,
            partitions: self.partitions,
            findings: self.findings,
            unchecked: self.unchecked,
        }
    }

    /// Starts of manifests by chain, ascending. Anything else in the sink's folder is a finding.
    async fn list(&mut self) -> Result<BTreeMap<Lineage, Vec<i64>>, object_store::Error> {
        let folder = Path::from(format!("{}/{OURS}/{}", self.root, self.sink));
        let mut chains: BTreeMap<Lineage, Vec<i64>> = BTreeMap::new();
        let mut objects = self.store.list(Some(&folder));
        let mut strangers = Vec::new();
        while let Some(object) = objects.try_next().await? {
            let key = object.location.as_ref();
            let inside = key.strip_prefix(folder.as_ref()).unwrap_or(key).trim_start_matches('/');
            match lineage_of(inside) {
                Some((lineage, start)) => chains.entry(lineage).or_default().push(start),
                None if is_schema(inside) => {}
                None => strangers.push(key.to_owned()),
            }
        }
        drop(objects);
        for key in strangers {
            let topic = String::new();
            self.find(
                Fault::FileForeign,
                &topic,
                None,
                None,
                &key,
                "is nothing that a sink writes",
            );
        }
        chains.values_mut().for_each(|starts| starts.sort_unstable());
        Ok(chains)
    }

    async fn chain(&mut self, lineage: Lineage, starts: &[i64]) {
        let (topic, partition, generation) = lineage.clone();
        let report = PartitionReport { topic, partition, generation, ..PartitionReport::default() };
        let mut walk = Walk {
            lineage,
            report,
            first: true,
            previous: None,
            expected: None,
            before: None,
            bad_from: None,
        };
        for (index, start) in starts.iter().enumerate() {
            self.link(&mut walk, *start, starts.get(index + 1).copied()).await;
            self.progress.manifests_done += 1;
            self.tell();
        }
        let bad = walk.bad_from.unwrap_or(i64::MAX);
        walk.report.boundary = walk.report.end.min(bad).max(walk.report.start);
        self.partitions.push(walk.report);
    }

    async fn link(&mut self, walk: &mut Walk, start: i64, next: Option<i64>) {
        let (topic, partition, generation) = walk.lineage.clone();
        let name = layout::manifest_name(start, generation);
        let key = format!("{}/{OURS}/{}/{topic}/{partition}/{name}", self.root, self.sink);
        let bytes = match store::get(self.store.as_ref(), &Path::from(key.as_str())).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return self.unchecked.push(format!("{key} went while it was read")),
            Err(error) => {
                walk.bad(start);
                return self.unchecked.push(format!("{key} cannot be read: {error}"));
            }
        };
        if walk.first {
            walk.report.start = start;
        }
        let range = (start, next.unwrap_or(start + 1).max(start + 1));
        let found = Manifest::from_bytes(&bytes);
        let hash = Hash::of(&bytes);
        let manifest = match found {
            Ok(manifest) => manifest,
            Err(wrong) => {
                walk.bad(start);
                self.find(
                    Fault::ManifestChanged,
                    &topic,
                    Some(partition),
                    Some(range),
                    &key,
                    &wrong,
                );
                // Files that it still names are no strangers.
                let names =
                    serde_json::from_slice::<Manifest>(&bytes).map(|manifest| manifest.files);
                self.known.extend(names.unwrap_or_default().into_iter().map(|file| file.name));
                walk.after(Some(hash), None, range);
                return;
            }
        };
        if let Some(wrong) = self.mismatch(&manifest, walk, start) {
            walk.bad(start);
            self.find(Fault::ManifestForeign, &topic, Some(partition), Some(range), &key, &wrong);
            walk.after(Some(hash), None, range);
            return;
        }
        self.continuity(walk, &manifest, &key);
        self.tally(walk, &manifest);
        for file in &manifest.files {
            let faults = self.findings.len() + self.unchecked.len();
            rows::check(self, &manifest, file).await;
            if self.findings.len() + self.unchecked.len() > faults {
                walk.bad(file.start);
            }
            self.progress.bytes += file.bytes;
            self.tell();
        }
        walk.after(Some(hash), Some(manifest.end), (start, manifest.end));
    }

    /// Whether `manifest` is what its key promises.
    fn mismatch(&mut self, manifest: &Manifest, walk: &Walk, start: i64) -> Option<String> {
        let (topic, partition, generation) = &walk.lineage;
        let sink_id = *self.sink_id.get_or_insert(manifest.sink_id);
        let known_topic = &walk.report.topic_id;
        if (&manifest.sink, manifest.sink_id) != (&self.sink, sink_id) {
            return Some(format!("is of sink {:?}, id {}", manifest.sink, manifest.sink_id));
        }
        if (&manifest.topic, manifest.partition) != (topic, *partition) {
            return Some(format!("is of {}-{}", manifest.topic, manifest.partition));
        }
        if (manifest.start, manifest.generation) != (start, *generation) {
            return Some(format!(
                "begins at {}, generation {}",
                manifest.start, manifest.generation
            ));
        }
        if !walk.first && !known_topic.is_empty() && *known_topic != manifest.topic_id {
            return Some(format!("is of a topic with id {}, not {known_topic}", manifest.topic_id));
        }
        None
    }

    /// The chain: the hash of the manifest before, and no gap or overlap of offsets.
    fn continuity(&mut self, walk: &mut Walk, manifest: &Manifest, key: &str) {
        let (topic, partition) = (manifest.topic.clone(), Some(manifest.partition));
        let start = manifest.start;
        if walk.first && manifest.previous.is_some() {
            walk.bad(start);
            let offsets = Some((0, start));
            let detail = "names a manifest before it, which is missing";
            self.find(Fault::ManifestMissing, &topic, partition, offsets, key, detail);
        }
        if let Some(expected) = walk.expected
            && expected != start
        {
            let (low, high) = (expected.min(start), expected.max(start));
            walk.bad(low);
            let detail = format!("begins at {start}, the manifest before it ends at {expected}");
            let fault =
                if expected < start { Fault::ManifestMissing } else { Fault::ManifestForeign };
            self.find(fault, &topic, partition, Some((low, high)), key, &detail);
        } else if !walk.first && manifest.previous != walk.previous {
            let offsets = walk.before.unwrap_or((start, manifest.end));
            walk.bad(offsets.0);
            let detail = "does not name the manifest before it: that one was changed or replaced";
            let offsets = Some(offsets);
            self.find(Fault::ManifestChanged, &topic, partition, offsets, key, detail);
        }
    }

    fn tally(&mut self, walk: &mut Walk, manifest: &Manifest) {
        let report = &mut walk.report;
        if report.topic_id.is_empty() {
            report.topic_id.clone_from(&manifest.topic_id);
        }
        report.end = report.end.max(manifest.end);
        report.cuts += 1;
        report.files += manifest.files.len() as u64;
        report.rows += manifest.rows;
        report.holes += crate::record::holes_span(&manifest.holes);
        report.bytes += manifest.files.iter().map(|file| file.bytes).sum::<u64>();
        for file in &manifest.files {
            if !self.known.insert(file.name.clone()) {
                let (topic, offsets) = (manifest.topic.clone(), Some((file.start, file.end)));
                let detail = "is named by two manifests";
                let partition = Some(manifest.partition);
                self.find(Fault::RowsDoubled, &topic, partition, offsets, &file.name, detail);
            }
        }
    }

    /// The schema of a manifest, or a finding.
    async fn schema(&mut self, manifest: &Manifest) -> Option<Schema> {
        if let Some((hash, schema)) = &self.schema
            && *hash == manifest.schema
        {
            return Some(schema.clone());
        }
        let key = layout::schema_path(&self.root, &self.sink, &manifest.topic, &manifest.schema);
        let wrong = match store::get(self.store.as_ref(), &key).await {
            Err(error) => {
                self.unchecked.push(format!("{key} cannot be read: {error}"));
                return None;
            }
            Ok(None) => "is missing".to_owned(),
            Ok(Some(bytes)) if Hash::of(&bytes) != manifest.schema => "was changed".to_owned(),
            Ok(Some(bytes)) => match Schema::from_bytes(&bytes) {
                Ok(schema) => {
                    self.schema = Some((manifest.schema, schema.clone()));
                    return Some(schema);
                }
                Err(error) => error,
            },
        };
        let offsets = Some((manifest.start, manifest.end));
        let partition = Some(manifest.partition);
        self.find(Fault::SchemaDamaged, &manifest.topic, partition, offsets, key.as_ref(), &wrong);
        None
    }

    fn find(
        &mut self,
        fault: Fault,
        topic: &str,
        partition: Option<u32>,
        offsets: Option<(i64, i64)>,
        object: &str,
        detail: &str,
    ) {
        if self.findings.len() >= FINDINGS_MAX {
            self.findings_more += 1;
            return;
        }
        let (topic, object, detail) = (topic.to_owned(), object.to_owned(), detail.to_owned());
        self.findings.push(Finding { fault, topic, partition, offsets, object, detail });
    }

    fn tell(&self) {
        if let Some(hear) = &self.on_progress {
            hear(self.progress);
        }
    }
}

impl Walk {
    fn bad(&mut self, offset: i64) {
        self.bad_from = Some(self.bad_from.map_or(offset, |known| known.min(offset)));
    }

    fn after(&mut self, hash: Option<Hash>, end: Option<i64>, range: (i64, i64)) {
        (self.first, self.previous, self.expected) = (false, hash, end);
        self.before = Some(range);
    }
}

/// Reads `<topic>/<partition>/<manifest>`.
fn lineage_of(inside: &str) -> Option<(Lineage, i64)> {
    let mut parts = inside.split('/');
    let (topic, partition, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (start, generation) = layout::parse_manifest_name(name)?;
    let number: u32 = partition.parse().ok()?;
    let exact = parts.next().is_none() && number.to_string() == partition;
    exact.then(|| ((topic.to_owned(), number, generation), start))
}

fn is_schema(inside: &str) -> bool {
    let parts: Vec<&str> = inside.split('/').collect();
    let name = match parts.as_slice() {
        [_, "schemas", name] => name.strip_suffix(".json"),
        _ => None,
    };
    name.is_some_and(|name| name.parse::<Hash>().is_ok())
}

#[cfg(test)]
mod tests;

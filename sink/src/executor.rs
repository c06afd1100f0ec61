//! Makes a cut durable and turns it into files: the act behind the planner's decisions.
//!
//! ```text
//!  schema put -> cut + range in objects -> file puts -> manifest put -> floor moved
//!                (ledger, forces a round)               (completes)     (a copy)
//! ```
//! Every step is create-only or idempotent, so a cut that was interrupted anywhere is done again from its record in the
//! ledger: what stands already and is the same is adopted, anything else stops the sink with both names.

use std::sync::Arc;

use bytes::Bytes;
use common::{Rng, failpoint};
use object_store::ObjectStore;
use object_store::path::Path;

use crate::config::SinkConfig;
use crate::file::{self, FileWriter, Spec, Written};
use crate::hash::Hash;
use crate::layout::Layout;
use crate::ledger::{AccessError, Cut, Ledger, WRITER};
use crate::manifest::{self, Manifest};
use crate::metrics::Metrics;
use crate::parquet_file;
use crate::planner::{CutPlan, FilePlan};
use crate::record::{self, Hole, Piece};
use crate::schema::Schema;
use crate::source::Source;
use crate::store::{self, Created};

/// Bytes read from the log at a time.
pub(crate) const READ_BYTES: u64 = 1 << 20;

/// Whose cuts these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the sink.
    pub sink_id: u64,
    /// Its name.
    pub sink: String,
    /// Its output lineage.
    pub generation: u32,
    /// Name of the topic.
    pub topic: String,
    /// Id of the topic.
    pub topic_id: String,
    /// Index of the partition.
    pub partition: u32,
}

/// What a cut could not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A fault that may pass: the same step is tried again.
    #[error("{0}")]
    Retry(String),
    /// The sink stops until an operator acts.
    #[error("{reason}; {remedy}")]
    Stop {
        /// What is wrong, with the names.
        reason: String,
        /// What to do.
        remedy: String,
    },
}

/// Where a sink goes on in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boundary {
    /// Every offset below is in files or a named hole.
    pub offset: i64,
    /// Hash of the last manifest.
    pub manifest: Option<Hash>,
    /// When the last file was closed, milliseconds since 1970.
    pub closed_ms: Option<i64>,
    /// The last schema.
    pub schema: Option<Schema>,
    /// File bytes and raw bytes of the last cut.
    pub observed: Option<(u64, u64)>,
}

/// What one completed cut added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
}

/// Executes cuts of one sink in one partition.
pub struct Executor {
    /// Whose cuts.
    pub identity: Identity,
    /// The configuration of new cuts.
    pub config: SinkConfig,
    /// Prefix of the keys in `store`.
    pub prefix: Path,
    /// Where the files go.
    pub store: Arc<dyn ObjectStore>,
    /// The log.
    pub source: Arc<dyn Source>,
    /// The ledger.
    pub ledger: Arc<dyn Ledger>,
    /// For names of temporary objects.
    pub rng: Rng,
    /// Counters.
    pub metrics: Metrics,
    /// Largest file that is one put.
    pub single_put_max: usize,
}

/// The remedy for names that are taken.
const REMEDY_FOREIGN: &str = "move the named object away, or delete the sink and create one with another topics.dir or \
                              store.prefix";

fn stop(reason: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::Stop { reason: reason.into(), remedy: remedy.into() }
}

impl From<AccessError> for Error {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Retry(reason) => Error::Retry(reason),
            AccessError::Stop(reason) => stop(reason, "see the broker's log for the damaged range"),
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        Error::Retry(format!("object store: {error}"))
    }
}

impl From<file::Error> for Error {
    fn from(error: file::Error) -> Self {
        match error {
            file::Error::Store(error) => error.into(),
            other => stop(other.to_string(), "report this: the range and its schema disagree"),
        }
    }
}

impl Executor {
    /// Finds the boundary: the end of the last cut of the ledger, which is completed first when its manifest is not
    /// there. Without a cut it is `origin`. `floor` is a bound from below for the search.
    ///
    /// # Errors
    /// [`Error::Stop`] when foreign manifests stand where this sink's would.
    pub async fn open(&self, origin: i64, floor: i64) -> Result<Boundary, Error> {
        let Identity { sink_id, generation, .. } = self.identity;
        if self.identity.topic == crate::layout::OURS {
            let reason = "a topic called _sluice would lie among the manifests";
            return Err(stop(reason, "choose another topic"));
        }
        let Some(cut) = self.ledger.last(sink_id, generation, floor).await? else {
            self.expect_no_manifests().await?;
            return Ok(Boundary { offset: origin, ..Boundary::default() });
        };
        self.check_lineage(&cut)?;
        let (layout, _) = self.layout_of(&cut)?;
        let key = layout.manifest(cut.partition, cut.start);
        let manifest = match store::get(self.store.as_ref(), &key).await? {
            Some(bytes) => self.ours(&cut, &key, &bytes)?,
            None => {
                tracing::info!(
                    sink = cut.sink,
                    topic = cut.topic,
                    partition = cut.partition,
                    start = cut.start,
                    end = cut.end,
                    "redoing the open cut"
                );
                self.files_and_manifest(&cut).await?
            }
        };
        self.floor(cut.end).await;
        let schema = self.schema(&layout, &cut.schema).await?;
        Ok(boundary(&manifest, schema))
    }

    /// Makes `plan` a durable cut and completes it. On [`Error::Retry`] call [`Self::open`] before anything else: the
    /// cut may be durable.
    ///
    /// # Errors
    /// [`Error::Stop`] when a name is taken by something else.
    pub async fn execute(&self, plan: CutPlan, at: &Boundary) -> Result<(Boundary, Done), Error> {
        let (schema, conflicts) = Schema::resolve(&plan.facts, at.schema.as_ref());
        let cut = self.cut(&plan, at, &schema);
        let (layout, _) = self.layout_of(&cut)?;
        self.put_schema(&layout, &schema).await?;
        self.ledger.append(&cut).await?;
        failpoint::hit("sink.cut.committed");
        let manifest = self.files_and_manifest(&cut).await?;
        self.floor(cut.end).await;
        if conflicts > 0 {
            self.metrics.conflicts.inc_by(conflicts);
            tracing::warn!(
                sink = cut.sink,
                topic = cut.topic,
                partition = cut.partition,
                start = cut.start,
                end = cut.end,
                conflicts,
                "values without a common type are text"
            );
        }
        let done = Done {
            files: manifest.files.len().try_into().unwrap_or(u64::MAX),
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
            rows: manifest.rows,
        };
        Ok((boundary(&manifest, schema), done))
    }

    fn cut(&self, plan: &CutPlan, at: &Boundary, schema: &Schema) -> Cut {
        let Identity { sink_id, sink, generation, topic, topic_id, partition } =
            self.identity.clone();
        let zone = self.config.raw().get("timezone");
        Cut {
            sink_id,
            sink,
            generation,
            topic,
            topic_id,
            partition,
            start: plan.start,
            end: plan.end,
            isolation: "read_committed".to_owned(),
            schema: schema.hash(),
            config_hash: self.config.hash(),
            config: self.config.raw().clone(),
            time_zone: zone.map_or_else(|| "UTC".to_owned(), Clone::clone),
            files: plan.files.clone(),
            previous: at.manifest,
            writer: WRITER.to_owned(),
        }
    }

    /// The layout and configuration under which a cut was made.
    fn layout_of(&self, cut: &Cut) -> Result<(Layout, SinkConfig), Error> {
        let config = SinkConfig::parse(&cut.config).map_err(|faults| {
            stop(
                format!(
                    "the cut [{}, {}) was made by keys unknown here: {faults}",
                    cut.start, cut.end
                ),
                "run the newer sluice that wrote it",
            )
        })?;
        let layout = Layout::new(&self.prefix, &config, &cut.sink, &cut.topic, cut.generation);
        Ok((layout, config))
    }

    fn check_lineage(&self, cut: &Cut) -> Result<(), Error> {
        if cut.writer != WRITER {
            return Err(stop(
                format!("the cut [{}, {}) needs the writer {:?}", cut.start, cut.end, cut.writer),
                format!("run the sluice that has it; this one has {WRITER:?}"),
            ));
        }
        let place = |config: &std::collections::BTreeMap<String, String>| {
            ["s3.bucket.name", "store.prefix"].map(|key| config.get(key).cloned())
        };
        if place(&cut.config) != place(self.config.raw()) {
            return Err(stop(
                format!(
                    "the place of the files was changed after the cut [{}, {})",
                    cut.start, cut.end
                ),
                "put s3.bucket.name and store.prefix back; a new place needs a new sink",
            ));
        }
        if cut.topic_id == self.identity.topic_id {
            return Ok(());
        }
        Err(stop(
            format!(
                "topic {:?} was recreated: the ledger is of id {}, the topic has id {}",
                cut.topic, cut.topic_id, self.identity.topic_id
            ),
            "delete the sink and create one with another name and topics.dir",
        ))
    }

    /// A sink without cuts must not find manifests where it would put its own.
    async fn expect_no_manifests(&self) -> Result<(), Error> {
        let Identity { sink, topic, generation, partition, .. } = &self.identity;
        let layout = Layout::new(&self.prefix, &self.config, sink, topic, *generation);
        let folder = layout.manifests(*partition);
        let listed = self.store.list_with_delimiter(Some(&folder)).await?;
        match listed.objects.first() {
            None => Ok(()),
            Some(object) => Err(stop(
                format!("sink {sink:?} has made no cut, yet {} is there", object.location),
                "an older sink or topic of this name wrote it: choose another sink name, topics.dir or store.prefix, \
                 or move the old files away",
            )),
        }
    }

    async fn put_schema(&self, layout: &Layout, schema: &Schema) -> Result<(), Error> {
        let key = layout.schema(&schema.hash());
        store::create(self.store.as_ref(), &key, Bytes::from(schema.to_bytes())).await?;
        Ok(())
    }

    async fn schema(&self, layout: &Layout, hash: &Hash) -> Result<Schema, Error> {
        let key = layout.schema(hash);
        let lost = |what: String| {
            stop(format!("schema {key} {what}"), "restore it from a copy of the bucket")
        };
        let bytes = store::get(self.store.as_ref(), &key).await?;
        let bytes = bytes.ok_or_else(|| lost("is missing".to_owned()))?;
        if Hash::of(&bytes) != *hash {
            return Err(lost("was changed".to_owned()));
        }
        Schema::from_bytes(&bytes).map_err(lost)
    }

    async fn files_and_manifest(&self, cut: &Cut) -> Result<Manifest, Error> {
        let (layout, config) = self.layout_of(cut)?;
        let schema = self.schema(&layout, &cut.schema).await?;
        let (mut files, mut holes) = (Vec::new(), Vec::new());
        for (index, plan) in cut.files.iter().enumerate() {
            files.push(self.file(cut, plan, &layout, &config, &schema, &mut holes).await?);
            if index == 0 {
                failpoint::hit("sink.file.first");
            }
        }
        failpoint::hit("sink.file.last");
        let manifest = Manifest {
            version: manifest::VERSION,
            sink: cut.sink.clone(),
            sink_id: cut.sink_id,
            generation: cut.generation,
            topic: cut.topic.clone(),
            topic_id: cut.topic_id.clone(),
            partition: cut.partition,
            start: cut.start,
            end: cut.end,
            rows: files.iter().map(|file: &manifest::File| file.rows).sum(),
            isolation: cut.isolation.clone(),
            schema: cut.schema,
            config_hash: cut.config_hash,
            time_zone: cut.time_zone.clone(),
            writer: cut.writer.clone(),
            cut: cut.id(),
            files,
            holes,
            previous: cut.previous,
            checksum: String::new(),
        };
        let bytes = Bytes::from(manifest.to_bytes());
        let manifest = Manifest::from_bytes(&bytes).map_err(|wrong| {
            stop(format!("the manifest of cut {} {wrong}", cut.id()), "report this")
        })?;
        let key = layout.manifest(cut.partition, cut.start);
        if store::create(self.store.as_ref(), &key, bytes.clone()).await? == Created::Exists {
            let found = store::get(self.store.as_ref(), &key).await?;
            let found = found.ok_or_else(|| Error::Retry(format!("{key} came and went")))?;
            self.ours(cut, &key, &found)?;
        }
        failpoint::hit("sink.manifest.put");
        Ok(manifest)
    }

    /// A manifest that stands under the key of `cut`, if it is of that very cut.
    fn ours(&self, cut: &Cut, key: &Path, bytes: &[u8]) -> Result<Manifest, Error> {
        let manifest = Manifest::from_bytes(bytes)
            .map_err(|wrong| stop(format!("manifest {key} {wrong}"), REMEDY_FOREIGN))?;
        if manifest.cut == cut.id() && manifest.previous == cut.previous {
            return Ok(manifest);
        }
        let reason =
            format!("{key} is of cut {}, the ledger has cut {} there", manifest.cut, cut.id());
        Err(stop(reason, REMEDY_FOREIGN))
    }

    /// Pass 2 for one file: re-reads its range, writes it, puts it, or adopts what stands there.
    async fn file(
        &self,
        cut: &Cut,
        plan: &FilePlan,
        layout: &Layout,
        config: &SinkConfig,
        schema: &Schema,
        holes: &mut Vec<Hole>,
    ) -> Result<manifest::File, Error> {
        let cut_id = cut.id();
        let partition = i32::try_from(cut.partition).unwrap_or(i32::MAX);
        let spec =
            Spec { schema, codec: config.codec, partition, records: plan.records, cut_id: &cut_id };
        let temporary = layout.temporary(cut.partition, plan.first, self.rng.next_u64());
        let store = Arc::clone(&self.store);
        let mut writer = FileWriter::new(&spec, store, temporary, self.single_put_max)?;
        let first = self.read_into(plan, &mut writer, holes).await?;
        let written = writer.finish().await?;
        if written.facts.rows != plan.records || first != Some(plan.first) {
            return Err(stop(
                format!(
                    "cut {cut_id} planned {} records from {} on, the log now has {} from {first:?} on",
                    plan.records, plan.first, written.facts.rows
                ),
                "report this: committed records have changed",
            ));
        }
        let name = layout.file_name(cut.partition, plan.first);
        let key = layout.file(&name);
        let (bytes, sha256) = match written.spooled.publish(self.store.as_ref(), &key).await? {
            Created::Ours => (written.spooled.length, written.spooled.sha256),
            Created::Exists => self.adopt(&key, &cut_id, &written).await?,
        };
        Ok(manifest::File {
            name,
            start: plan.start,
            end: plan.end,
            first: plan.first,
            rows: plan.records,
            bytes,
            raw_bytes: plan.raw_bytes,
            sha256,
            rows_sha256: written.facts.sha256,
            blocks: written.facts.blocks,
            rule: plan.rule,
            reading: plan.reading,
            closed_ms: plan.closed_ms,
            skipped_ticks: plan.skipped_ticks,
        })
    }

    /// Feeds the records of a file's range; returns the first one's offset.
    async fn read_into(
        &self,
        plan: &FilePlan,
        writer: &mut FileWriter,
        holes: &mut Vec<Hole>,
    ) -> Result<Option<i64>, Error> {
        let (mut at, mut first) = (plan.start, None);
        while at < plan.end {
            let chunk = self.source.read_cut(at, plan.end, READ_BYTES).await?;
            for piece in &chunk.pieces {
                match piece {
                    Piece::Hole(hole) => record::push_hole(holes, *hole),
                    Piece::Record(record) => {
                        first = first.or(Some(record.offset));
                        writer.push(record).await?;
                    }
                }
            }
            if chunk.next <= at {
                return Err(Error::Retry(format!("the log gave nothing at offset {at}")));
            }
            at = chunk.next;
        }
        Ok(first)
    }

    /// Takes what stands under `key` as ours when it holds the same rows of the same cut.
    async fn adopt(
        &self,
        key: &Path,
        cut_id: &str,
        written: &Written,
    ) -> Result<(u64, Hash), Error> {
        let store = self.store.as_ref();
        let found = store::digest(store, key).await?;
        let (length, sha256) = found.ok_or_else(|| Error::Retry(format!("{key} came and went")))?;
        if sha256 == written.spooled.sha256 {
            self.metrics.adopted.inc();
            return Ok((length, sha256));
        }
        let foreign = |what: String| {
            stop(format!("{key} is there and is not of cut {cut_id}: {what}"), REMEDY_FOREIGN)
        };
        let rows = parquet_file::read_all(&self.store, key, length, written.facts.rows).await;
        let rows = match rows {
            Ok(rows) => rows,
            Err(parquet_file::Error::Store(error)) => return Err(error.into()),
            Err(other) => return Err(foreign(other.to_string())),
        };
        if rows.cut.as_deref() != Some(cut_id) {
            return Err(foreign(format!("it carries cut {:?}", rows.cut.unwrap_or_default())));
        }
        if rows.facts != written.facts {
            return Err(foreign("its rows differ".to_owned()));
        }
        self.metrics.adopted.inc();
        tracing::info!(%key, "adopted a file of the same rows");
        Ok((length, sha256))
    }

    /// The floor is a copy: when it cannot be moved now, the next cut moves it.
    async fn floor(&self, end: i64) {
        match self.ledger.move_floor(self.identity.sink_id, end).await {
            Ok(()) => failpoint::hit("sink.floor.moved"),
            Err(error) => tracing::debug!(%error, end, "floor stays behind"),
        }
    }
}

fn boundary(manifest: &Manifest, schema: Schema) -> Boundary {
    let sum = |of: fn(&manifest::File) -> u64| manifest.files.iter().map(of).sum::<u64>();
    Boundary {
        offset: manifest.end,
        manifest: Some(manifest.hash()),
        closed_ms: manifest.files.last().map(|file| file.closed_ms),
        schema: Some(schema),
        observed: Some((sum(|file| file.bytes), sum(|file| file.raw_bytes))),
    }
}

#[cfg(test)]
mod tests;

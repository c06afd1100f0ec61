use arrow::array::{BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::{concat_batches, filter_record_batch};
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::testing::{Rig, executor, run};

const KEYS: &[(&str, &str)] = &[("flush.size", "30"), ("idle.ms", "1000")];
/// The second file; it holds offsets from 34 on.
const FILE: &str = "p/topics/flights/partition=0/flights+0+0000000034.snappy.parquet";

async fn rig() -> Rig {
    let rig = Rig::new(KEYS);
    rig.memory.flights(400);
    rig.run().await.expect("works");
    assert_eq!(check(&rig).await.outcome, Outcome::Proved);
    rig
}

async fn check(rig: &Rig) -> Report {
    verify(Arc::clone(&rig.store), &Path::from("p"), "topics", "s", None).await
}

async fn get(rig: &Rig, key: &str) -> Bytes {
    rig.store.get(&Path::from(key)).await.expect("there").bytes().await.expect("readable")
}

async fn put(rig: &Rig, key: &str, bytes: impl Into<PutPayload>) {
    rig.store.put(&Path::from(key), bytes.into()).await.expect("put");
}

async fn keys(rig: &Rig, part: &str) -> Vec<String> {
    let objects: Vec<_> = rig.store.list(None).try_collect().await.expect("lists");
    let mut keys: Vec<String> = objects.into_iter().map(|o| o.location.to_string()).collect();
    keys.retain(|key| key.contains(part));
    keys.sort();
    keys
}

/// Expects exit 1, the fault, the offsets, and a boundary not above the first offset concerned.
fn disproved(report: &Report, fault: Fault, offsets: Option<(i64, i64)>) {
    assert_eq!(report.outcome.exit_code(), 1);
    let findings = || report.findings.iter().filter(|finding| finding.fault == fault);
    assert!(findings().next().is_some(), "{fault:?} in {:?}", report.findings);
    let Some(offsets) = offsets else { return };
    assert!(findings().any(|f| f.offsets == Some(offsets)), "{offsets:?} in {:?}", report.findings);
    let partition = &report.partitions[0];
    assert!(partition.boundary <= offsets.0.max(partition.start), "{partition:?}");
}

/// Rewrites a file as another tool would, with its rows changed by `change`.
async fn rewrite(rig: &Rig, key: &str, change: impl Fn(RecordBatch) -> RecordBatch) {
    let bytes = get(rig, key).await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).expect("opens");
    let metadata = reader.metadata().file_metadata().key_value_metadata().cloned();
    let batches: Vec<_> = reader.build().expect("reads").map(|b| b.expect("decodes")).collect();
    let whole = change(concat_batches(&batches[0].schema(), &batches).expect("joins"));
    let mut out = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut out, whole.schema(), None).expect("writer");
    for pair in metadata.unwrap_or_default() {
        if pair.key.starts_with("sluice") {
            writer.append_key_value_metadata(pair);
        }
    }
    writer.write(&whole).expect("writes");
    writer.close().expect("closes");
    put(rig, key, out).await;
}

fn offset(batch: &RecordBatch, row: usize) -> i64 {
    let column = batch.column_by_name("offset").expect("there");
    column.as_any().downcast_ref::<Int64Array>().expect("integers").value(row)
}

#[tokio::test]
async fn a_file_deleted_truncated_or_replaced() {
    let rig = rig().await;
    let good = get(&rig, FILE).await;
    let range = Some((34, 65));
    rig.store.delete(&Path::from(FILE)).await.expect("deleted");
    disproved(&check(&rig).await, Fault::FileMissing, range);
    put(&rig, FILE, good.slice(..good.len() / 2)).await;
    disproved(&check(&rig).await, Fault::FileUnreadable, range);
    put(&rig, FILE, Bytes::from_static(b"")).await;
    disproved(&check(&rig).await, Fault::FileUnreadable, range);
    let mut bent = good.to_vec();
    let at = bent.len() / 3;
    bent[at] ^= 1;
    put(&rig, FILE, bent).await;
    assert_eq!(check(&rig).await.outcome, Outcome::Disproved);
    put(&rig, FILE, good).await;
    assert_eq!(check(&rig).await.outcome, Outcome::Proved);
}

#[tokio::test]
async fn one_row_dropped_doubled_or_changed() {
    let rig = rig().await;
    let good = get(&rig, FILE).await;
    rewrite(&rig, FILE, |batch| {
        let keep: Vec<bool> = (0..batch.num_rows()).map(|row| row != 7).collect();
        assert_eq!(offset(&batch, 7), 41);
        filter_record_batch(&batch, &BooleanArray::from(keep)).expect("filters")
    })
    .await;
    disproved(&check(&rig).await, Fault::RowsMissing, Some((41, 42)));

    put(&rig, FILE, good.clone()).await;
    rewrite(&rig, FILE, |batch| {
        let parts = [batch.slice(0, 8), batch.slice(7, batch.num_rows() - 7)];
        concat_batches(&batch.schema(), &parts).expect("joins")
    })
    .await;
    disproved(&check(&rig).await, Fault::RowsDoubled, Some((41, 42)));

    put(&rig, FILE, good.clone()).await;
    rewrite(&rig, FILE, |batch| {
        let keys: StringArray = (0..batch.num_rows())
            .map(|row| Some(if row == 7 { "N0" } else { "" }).filter(|_| row == 7))
            .zip(batch.column(0).as_any().downcast_ref::<StringArray>().expect("text").iter())
            .map(|(new, old)| new.or(old))
            .collect();
        let mut columns = batch.columns().to_vec();
        columns[0] = Arc::new(keys);
        RecordBatch::try_new(batch.schema(), columns).expect("same types")
    })
    .await;
    disproved(&check(&rig).await, Fault::RowsChanged, Some((41, 42)));

    put(&rig, FILE, good.clone()).await;
    rewrite(&rig, FILE, |batch| {
        let parts = [batch.slice(5, batch.num_rows() - 5), batch.slice(0, 5)];
        concat_batches(&batch.schema(), &parts).expect("joins")
    })
    .await;
    disproved(&check(&rig).await, Fault::RowsMissing, Some((34, 39)));

    put(&rig, FILE, good).await;
    rewrite(&rig, FILE, |batch| batch).await;
    disproved(&check(&rig).await, Fault::FileChanged, Some((34, 65)));
}

#[tokio::test]
async fn two_files_swapped() {
    let rig = rig().await;
    let files = keys(&rig, ".parquet").await;
    let (one, two) = (&files[2], &files[3]);
    let (a, b) = (get(&rig, one).await, get(&rig, two).await);
    put(&rig, one, b).await;
    put(&rig, two, a).await;
    let report = check(&rig).await;
    disproved(&report, Fault::RowsForeign, None);
    disproved(&report, Fault::RowsMissing, None);
    for file in [one, two] {
        assert!(report.findings.iter().any(|finding| finding.object == **file), "{file}");
    }
}

#[tokio::test]
async fn a_manifest_edited_or_removed() {
    let rig = rig().await;
    let manifests = keys(&rig, ".g0.json").await;
    assert!(manifests.len() >= 3, "{manifests:?}");
    let middle = &manifests[1];
    let good = get(&rig, middle).await;
    let manifest = Manifest::from_bytes(&good).expect("ours");
    let range = (manifest.start, manifest.end);

    let text = String::from_utf8(good.to_vec()).expect("text");
    put(&rig, middle, text.replacen("\"rows\": 1", "\"rows\": 2", 1)).await;
    assert_ne!(get(&rig, middle).await, good);
    disproved(&check(&rig).await, Fault::ManifestChanged, Some(range));

    // With its own checksum mended, the next one still names the old hash.
    let mut mended = manifest.clone();
    mended.files[0].closed_ms += 1;
    put(&rig, middle, mended.to_bytes()).await;
    disproved(&check(&rig).await, Fault::ManifestChanged, Some(range));

    rig.store.delete(&Path::from(middle.as_str())).await.expect("deleted");
    let report = check(&rig).await;
    disproved(&report, Fault::ManifestMissing, Some(range));
    assert_eq!(report.partitions[0].boundary, range.0);

    put(&rig, middle, good).await;
    let first = get(&rig, &manifests[0]).await;
    rig.store.delete(&Path::from(manifests[0].as_str())).await.expect("deleted");
    disproved(&check(&rig).await, Fault::ManifestMissing, Some((0, range.0)));
    put(&rig, &manifests[0], first).await;
    assert_eq!(check(&rig).await.outcome, Outcome::Proved);

    let schema = &keys(&rig, "/schemas/").await[0];
    put(&rig, schema, Bytes::from_static(b"{}")).await;
    disproved(&check(&rig).await, Fault::SchemaDamaged, Some((0, range.0)));
}

#[tokio::test]
async fn foreign_objects_are_named_and_unfinished_cuts_are_not_foreign() {
    let rig = rig().await;
    let last = keys(&rig, ".g0.json").await.pop().expect("some");
    let manifest = get(&rig, &last).await;
    rig.store.delete(&Path::from(last.as_str())).await.expect("deleted");
    let report = check(&rig).await;
    assert_eq!(report.outcome, Outcome::Proved, "{:?}", report.findings);
    assert!(report.partitions[0].unfinished > 0);
    put(&rig, &last, manifest).await;

    for key in ["p/topics/flights/partition=0/mine.parquet", "p/topics/flights/readme"] {
        put(&rig, key, Bytes::from_static(b"hello")).await;
        let report = check(&rig).await;
        disproved(&report, Fault::FileForeign, None);
        assert!(report.findings.iter().any(|finding| finding.object == key));
        rig.store.delete(&Path::from(key)).await.expect("deleted");
    }
    let copy = "p/topics/flights/partition=0/flights+0+0000099999.snappy.parquet";
    put(&rig, copy, get(&rig, FILE).await).await;
    disproved(&check(&rig).await, Fault::FileForeign, None);
}

#[tokio::test]
async fn nothing_to_read_is_unchecked_and_says_where_it_looked() {
    let report = check(&Rig::new(KEYS)).await;
    assert_eq!(report.outcome.exit_code(), 3);
    assert!(report.unchecked[0].contains("p/topics/_sluice/s"), "{:?}", report.unchecked);
}

#[tokio::test]
async fn each_partition_is_proved_by_itself() {
    let rig = rig().await;
    let memory = Arc::new(crate::testing::Memory::default());
    memory.flights(50);
    let second = executor(&memory, &rig.store, KEYS, 1);
    run(&second, &memory).await.expect("works");
    let report = check(&rig).await;
    assert_eq!(report.outcome, Outcome::Proved, "{:?}", report.findings);
    assert_eq!(report.partitions.len(), 2);
    assert_eq!((report.partitions[1].partition, report.partitions[1].rows), (1, 50));
}

//! Reading one engine object whole: every block, every checksum.

use anyhow::Context as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use storage::object::{Block, BlockInfo, FOOTER_BYTES, Footer, HEADER_BYTES, Header, ObjectIndex};

pub const COLUMNS: [&str; 8] =
    ["stream", "start", "end", "records", "entries", "position", "bytes", "state"];

/// One row a block; a damaged block is a row that says so.
pub async fn rows(store: &dyn ObjectStore, path: &Path) -> anyhow::Result<Vec<Vec<Value>>> {
    let facts = store.head(path).await.with_context(|| format!("{path} cannot be read"))?;
    let size = facts.size;
    let tail = u64::try_from(FOOTER_BYTES).unwrap_or(0);
    let footer = store.get_range(path, size.saturating_sub(tail)..size).await?;
    let footer = Footer::parse(&footer).with_context(|| format!("{path} is damaged"))?;
    let head = store.get_range(path, 0..u64::try_from(HEADER_BYTES).unwrap_or(0).min(size)).await?;
    Header::parse(&head).with_context(|| format!("{path} is damaged"))?;
    let index = store.get_range(path, footer.index_at.min(size)..size).await?;
    let index = ObjectIndex::parse(&index).with_context(|| format!("{path} is damaged"))?;
    let mut rows = Vec::with_capacity(index.blocks().len());
    for info in index.blocks() {
        let bytes = store.get_range(path, info.position..info.position + info.length).await?;
        let state = match Block::parse(&bytes, info) {
            Ok(_) => "good".to_owned(),
            Err(damage) => format!("damaged: {damage}"),
        };
        rows.push(row(info, state));
    }
    Ok(rows)
}

fn row(info: &BlockInfo, state: String) -> Vec<Value> {
    vec![
        info.stream.to_string().into(),
        info.start.into(),
        info.end.into(),
        info.records.into(),
        info.entries.into(),
        info.position.into(),
        info.length.into(),
        state.into(),
    ]
}

//! The format of engine objects: what an upload round puts into the store, and what readers, `sluice object dump` and
//! a rebuild from the bucket read back. `docs/formats/object.md` draws it; every number is little-endian.
//!
//! Pure: bytes in, bytes out. [`Writer`] produces an object piece by piece without copying payloads; [`Footer`],
//! [`ObjectIndex`] and [`Block`] read one and check every part against its CRC-32C.

mod layout;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

pub use layout::{
    BLOCK_HEAD_BYTES, BlockInfo, Codec, ENTRY_ROW_BYTES, EntryMeta, FOOTER_BYTES, HEADER_BYTES,
    Header, INDEX_ROW_BYTES, Kind, VERSION,
};
pub use reader::{Block, Damage, Footer, ObjectIndex};
pub use writer::{BLOCK_BYTES_TARGET, EntryPart, StreamSummary, Summary, WriteError, Writer};

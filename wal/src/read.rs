//! Reads of the open log: for the uploader and for readers whose group is out of memory.

use bytes::Bytes;
use common::{Lsn, Reservation, crc32c};

use crate::disk::wait;
use crate::error::ReadError;
use crate::format::{BLOCK_SIZE, Header};
use crate::group::Group;
use crate::scan::{self, Bad};
use crate::state::Inner;

/// Bytes read back, with their share of the budget.
struct Counted {
    bytes: Bytes,
    _memory: Reservation,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

enum Trouble {
    Io(std::io::Error),
    Bad(Bad),
}

impl Inner {
    pub async fn read_group(&self, first: Lsn) -> Result<Group, ReadError> {
        let read = async |segment, at, room| {
            let (header, bytes) = self.whole(first, segment, at, room).await?;
            let group = scan::group(self.stamp, &header, bytes).map_err(Trouble::Bad)?;
            Ok(Group { counted: true, ..group })
        };
        self.checked(first, read).await
    }

    pub async fn read(&self, first: Lsn, frame: u32) -> Result<Bytes, ReadError> {
        let read = async |segment, at, room| {
            let (header, bytes) = self.whole(first, segment, at, room).await?;
            let frames = scan::frames(self.stamp, &header, &bytes).map_err(Trouble::Bad)?;
            let index = usize::try_from(frame).expect("32 bits fit a usize");
            let meta = frames.get(index).ok_or(Trouble::Bad(Bad::Table))?;
            let at = |position: u32| usize::try_from(position).expect("32 bits fit a usize");
            let payload = bytes.slice(at(meta.range.start)..at(meta.range.end));
            if crc32c(&payload) != meta.crc {
                return Err(Trouble::Bad(Bad::Payload(Vec::new())));
            }
            Ok(payload)
        };
        self.checked(first, read).await
    }

    /// Runs `read` on the place of the group at `first`. Where it fails, a trim meanwhile makes that "moved".
    async fn checked<T>(
        &self,
        first: Lsn,
        read: impl AsyncFnOnce(u64, u64, u64) -> Result<T, Trouble>,
    ) -> Result<T, ReadError> {
        let moved = ReadError::Moved { lsn: first };
        let place = {
            let state = self.state.lock();
            if first.0 >= state.durable {
                return Err(ReadError::Corrupt { lsn: first, what: "the position is not durable" });
            }
            state.segments.locate(first.0)
        };
        let Some((segment, at, room)) = place else { return Err(moved) };
        let _permit = self.reads.acquire().await.expect("the semaphore is never closed");
        let trouble = match read(segment, at, room).await {
            Ok(value) => return Ok(value),
            Err(trouble) => trouble,
        };
        if self.state.lock().segments.locate(first.0) != place {
            return Err(moved);
        }
        self.metrics.read_errors.inc();
        Err(match trouble {
            Trouble::Io(source) => ReadError::Io { lsn: first, source },
            Trouble::Bad(bad) => ReadError::Corrupt { lsn: first, what: bad.what() },
        })
    }

    async fn whole(
        &self,
        first: Lsn,
        segment: u64,
        at: u64,
        room: u64,
    ) -> Result<(Header, Bytes), Trouble> {
        let head = self.bytes(segment, at, BLOCK_SIZE).await?;
        let (header, _) =
            scan::header_at(self.stamp, &self.epochs, first, room, &head).map_err(Trouble::Bad)?;
        let len = usize::try_from(header.bytes).expect("32 bits fit a usize");
        if len == BLOCK_SIZE {
            return Ok((header, head));
        }
        let bytes = self.bytes(segment, at, len).await?;
        // The second read may have met a segment in reuse: the header must be the same.
        let (again, _) =
            scan::header_at(self.stamp, &self.epochs, first, room, &bytes).map_err(Trouble::Bad)?;
        if again != header {
            return Err(Trouble::Bad(Bad::Position));
        }
        Ok((header, bytes))
    }

    async fn bytes(&self, segment: u64, at: u64, len: usize) -> Result<Bytes, Trouble> {
        self.metrics.read_bytes.inc_by(len as u64);
        // Counted for as long as any slice of it lives: an upload may hold parts when it has let go of the group.
        let memory = self.options.budget.force(len as u64);
        let bytes = wait(|done| self.disk.read(segment, at, len, done)).await;
        let bytes = bytes.map_err(Trouble::Io)?;
        Ok(Bytes::from_owner(Counted { bytes, _memory: memory }))
    }
}

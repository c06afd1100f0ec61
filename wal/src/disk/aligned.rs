//! Memory that direct I/O can use.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::format::BLOCK_SIZE;

/// From here on memory is mapped: it goes back to the system when it is freed, and costs no rounding to a size class.
const MAP_BYTES_MIN: usize = 256 << 10;

/// A byte buffer aligned to a block, with a length that is a multiple of it. Parts of one allocation can be owned apart;
/// it is freed with the last of them.
pub struct AlignedBuf {
    memory: Arc<Memory>,
    start: usize,
    len: usize,
}

/// Where memory goes when nobody holds a part of it any more.
pub(crate) trait Home: Send + Sync {
    /// Takes it over, with whatever content it has.
    fn take_back(&self, block: Block);
}

/// One allocation, owned alone.
pub(crate) struct Block {
    pointer: NonNull<u8>,
    len: usize,
    mapped: bool,
}

struct Memory {
    // Taken only by drop.
    block: Option<Block>,
    pointer: NonNull<u8>,
    home: Option<Arc<dyn Home>>,
}

// SAFETY: a block owns its memory alone, like a `Box<[u8]>`.
#[expect(unsafe_code, reason = "aligned memory for direct I/O")]
unsafe impl Send for Block {}
// SAFETY: shared access to a block gives no access to its bytes.
#[expect(unsafe_code, reason = "aligned memory for direct I/O")]
unsafe impl Sync for Block {}
// SAFETY: the bytes are reached only through buffers, which own disjoint parts of them.
#[expect(unsafe_code, reason = "aligned memory for direct I/O")]
unsafe impl Send for Memory {}
// SAFETY: as for `Send`.
#[expect(unsafe_code, reason = "aligned memory for direct I/O")]
unsafe impl Sync for Memory {}

impl Block {
    /// At least `len` zero bytes, rounded up to whole blocks, at least one.
    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    pub fn zeroed(len: usize) -> Self {
        let len = len.max(1).next_multiple_of(BLOCK_SIZE);
        let layout = Self::layout(len);
        if len >= MAP_BYTES_MIN {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that is there.
            let mapped =
                unsafe { mmap_anonymous(std::ptr::null_mut(), len, access, MapFlags::PRIVATE) };
            let pointer = mapped.ok().and_then(|pointer| NonNull::new(pointer.cast()));
            let pointer = pointer.unwrap_or_else(|| handle_alloc_error(layout));
            return Self { pointer, len, mapped: true };
        }
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        let pointer = NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout));
        Self { pointer, len, mapped: false }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK_SIZE).expect("a buffer is far below the address space")
    }

    /// The whole of it as a buffer, which goes to `home` in the end, if there is one.
    pub fn into_buffer(self, home: Option<Arc<dyn Home>>) -> AlignedBuf {
        let (pointer, len) = (self.pointer, self.len);
        let memory = Memory { block: Some(self), pointer, home };
        AlignedBuf { memory: Arc::new(memory), start: 0, len }
    }
}

impl Drop for Block {
    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: mapped in `zeroed` with this very length, unmapped once.
            let unmapped = unsafe { munmap(self.pointer.as_ptr().cast(), self.len) };
            debug_assert!(unmapped.is_ok(), "a mapping of our own is unmapped whole");
            return;
        }
        // SAFETY: allocated in `zeroed` with this very layout, freed once.
        unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.len)) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let (Some(block), Some(home)) = (self.block.take(), &self.home) {
            home.take_back(block);
        }
    }
}

impl AlignedBuf {
    /// A buffer of at least `len` zero bytes, rounded up to whole blocks, at least one.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Block::zeroed(len).into_buffer(None)
    }

    /// Splits off the first `at` bytes, a multiple of the block; this buffer keeps the rest, which may be empty.
    ///
    /// # Panics
    /// When `at` is no multiple of the block or above the length.
    #[must_use]
    pub(crate) fn split_to(&mut self, at: usize) -> Self {
        assert!(at.is_multiple_of(BLOCK_SIZE) && at <= self.len, "split at a block inside");
        let first = Self { memory: self.memory.clone(), start: self.start, len: at };
        self.start += at;
        self.len -= at;
        first
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory lives as long as `self`, was initialised (zeroed) at the allocation, and
        // [start, start + len) lies inside and belongs to this buffer alone.
        unsafe {
            std::slice::from_raw_parts(self.memory.pointer.as_ptr().add(self.start), self.len)
        }
    }
}

impl DerefMut for AlignedBuf {
    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` is the only access to this part.
        unsafe {
            std::slice::from_raw_parts_mut(self.memory.pointer.as_ptr().add(self.start), self.len)
        }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zero_and_whole_blocks() {
        for len in [0, 1, 4096, 4097, 1 << 20] {
            let mut buffer = AlignedBuf::zeroed(len);
            assert!(buffer.len() >= len && buffer.len().is_multiple_of(BLOCK_SIZE));
            assert!(!buffer.is_empty());
            assert_eq!(buffer.as_ptr().align_offset(BLOCK_SIZE), 0);
            assert!(buffer.iter().all(|byte| *byte == 0));
            buffer[0] = 7;
            assert_eq!(buffer.as_ref()[0], 7);
        }
    }

    #[test]
    fn parts_are_owned_apart_and_outlive_each_other() {
        for len in [3 * BLOCK_SIZE, MAP_BYTES_MIN] {
            let mut rest = AlignedBuf::zeroed(len);
            let mut first = rest.split_to(BLOCK_SIZE);
            first.fill(1);
            rest.fill(2);
            assert_eq!((first.len(), rest.len()), (BLOCK_SIZE, len - BLOCK_SIZE));
            let mut middle = rest.split_to(BLOCK_SIZE);
            middle.fill(3);
            drop(rest);
            assert!(first.iter().all(|byte| *byte == 1) && middle.iter().all(|byte| *byte == 3));
            assert!(middle.split_to(BLOCK_SIZE).len() == BLOCK_SIZE && middle.is_empty());
        }
    }
}

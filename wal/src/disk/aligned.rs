//! Memory that direct I/O can use.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use crate::format::BLOCK_SIZE;

/// A zeroed byte buffer aligned to a block, with a length that is a multiple of it.
pub struct AlignedBuf {
    pointer: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its memory alone, like a `Box<[u8]>`.
#[expect(unsafe_code, reason = "aligned memory for direct I/O")]
unsafe impl Send for AlignedBuf {}
// SAFETY: shared access only reads.
#[expect(unsafe_code, reason = "aligned memory for direct I/O")]
unsafe impl Sync for AlignedBuf {}

impl AlignedBuf {
    /// A buffer of at least `len` zero bytes, rounded up to whole blocks, at least one.
    #[must_use]
    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    pub fn zeroed(len: usize) -> Self {
        let len = len.max(1).next_multiple_of(BLOCK_SIZE);
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc_zeroed(layout) };
        let pointer = NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout));
        Self { pointer, len }
    }

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, BLOCK_SIZE).expect("a buffer is far below the address space")
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];

    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    fn deref(&self) -> &[u8] {
        // SAFETY: `pointer` is valid for `len` bytes, all initialised (zeroed) at the allocation.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for AlignedBuf {
    #[expect(unsafe_code, reason = "aligned memory for direct I/O")]
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with this very layout, freed once.
        unsafe { dealloc(self.pointer.as_ptr(), Self::layout(self.len)) }
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
}

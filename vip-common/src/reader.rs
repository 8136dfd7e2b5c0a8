//! How a frame is read and written: a few bytes at a place, or not at all.

/// A frame that can be read.
pub trait Reader {
    /// The `N` bytes at `offset`; `None` where the frame ends before.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// A frame that can be changed in place, but not in length.
pub trait Writer: Reader {
    /// Puts `bytes` at `offset`; `None`, and nothing is changed, where the frame ends before.
    #[must_use = "a frame that was not written whole must not be sent"]
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()>;
}

impl Reader for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

impl Writer for [u8] {
    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        *self.get_mut(offset..)?.first_chunk_mut()? = bytes;
        Some(())
    }
}

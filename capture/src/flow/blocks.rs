//! An array by slot number that grows in blocks: nothing moves when it grows, and at most one block is unused.

/// Items in a block.
const BLOCK: usize = 1024;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Blocks<T> {
    blocks: Vec<Vec<T>>,
}

impl<T> Blocks<T> {
    pub(super) const fn new() -> Self {
        Self { blocks: Vec::new() }
    }

    pub(super) fn len(&self) -> u32 {
        match self.blocks.split_last() {
            Some((last, full)) => (full.len() * BLOCK + last.len()) as u32,
            None => 0,
        }
    }

    #[inline]
    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.blocks.get(slot as usize / BLOCK)?.get(slot as usize % BLOCK)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.blocks.get_mut(slot as usize / BLOCK)?.get_mut(slot as usize % BLOCK)
    }

    /// Adds an item; its slot.
    pub(super) fn push(&mut self, item: T) -> u32 {
        let slot = self.len();
        if self.blocks.last().is_none_or(|block| block.len() == BLOCK) {
            self.blocks.push(Vec::with_capacity(BLOCK));
        }
        if let Some(block) = self.blocks.last_mut() {
            block.push(item);
        }
        slot
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// Bytes by which it grows with one more item.
    pub(super) fn growth(&self) -> usize {
        if (self.len() as usize).is_multiple_of(BLOCK) { BLOCK * size_of::<T>() } else { 0 }
    }

    /// Bytes of memory held, without what the items own.
    pub(super) fn memory_bytes(&self) -> usize {
        self.blocks.capacity() * size_of::<Vec<T>>() + self.blocks.len() * BLOCK * size_of::<T>()
    }
}

//! Segments of a stream that arrived before their turn, in the order of the stream.
//!
//! What is in flight behind a lost segment comes before its repetition: as much as the window of a connection allows, in packets of
//! up to 64 KB where the kernel puts segments together.
//!
//! Limits: [`MAX_SEGMENTS`], [`MAX_CUT`], [`MAX_BYTES`], and [`PATIENCE`], which is for captures that see one direction only: elsewhere the
//! other end acknowledges what the capture missed.

use std::collections::VecDeque;

use crate::memory;

/// Most segments that are kept for a direction.
pub(super) const MAX_SEGMENTS: usize = 1024;

/// Most of them while the snap length has left nothing of any: there is little to wait for.
const MAX_CUT: usize = 32;

/// Most bytes of memory that their payload takes.
pub(super) const MAX_BYTES: usize = 512 * 1024;

/// Longest time that a segment waits while others come: more than two repetitions take (RFC 6298).
pub(super) const PATIENCE: i64 = 5_000_000_000;

/// A segment that arrived before its turn.
#[derive(Debug)]
pub(super) struct Early {
    pub(super) seq: u32,
    /// Length on the wire.
    pub(super) length: u32,
    pub(super) time: i64,
    pub(super) bytes: Box<[u8]>,
}

impl Early {
    /// The number of the byte after it.
    pub(super) const fn end(&self) -> u32 {
        self.seq.wrapping_add(self.length)
    }
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Queue {
    segments: VecDeque<Early>,
    /// Bytes of memory that their payload takes.
    payload: usize,
    /// The last one that is so far ahead that it may be garbage; it is none of the others.
    pub(super) far: Option<Early>,
}

impl Queue {
    /// Adds a segment, unless the same is there; `next` is the number of the stream's next byte.
    pub(super) fn add(&mut self, next: u32, segment: Early) {
        // Those of which all was seen meanwhile are behind.
        let place = |seq: u32| seq.wrapping_sub(next).wrapping_add(1 << 31);
        let at = self.segments.partition_point(|kept| place(kept.seq) <= place(segment.seq));
        let before = at.checked_sub(1).and_then(|at| self.segments.get(at));
        if before.is_some_and(|kept| kept.seq == segment.seq && kept.length >= segment.length) {
            return;
        }
        self.payload += memory::of_bytes(segment.bytes.len());
        self.segments.insert(at, segment);
    }

    /// The first segment of the stream.
    pub(super) fn first(&self) -> Option<&Early> {
        self.segments.front()
    }

    /// Takes that out.
    pub(super) fn take_first(&mut self) -> Option<Early> {
        let first = self.segments.pop_front()?;
        self.payload -= memory::of_bytes(first.bytes.len());
        Some(first)
    }

    /// Whether what is missing before the first is to be given up.
    pub(super) fn is_overdue(&self, now: i64) -> bool {
        let most = if self.payload == 0 { MAX_CUT } else { MAX_SEGMENTS };
        self.segments.len() > most
            || self.payload > MAX_BYTES
            || self.first().is_some_and(|first| now.saturating_sub(first.time) > PATIENCE)
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        let far = self.far.as_ref().map_or(0, |far| memory::of_bytes(far.bytes.len()));
        memory::of_queue(&self.segments) + self.payload + far
    }
}

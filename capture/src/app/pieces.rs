//! Pieces of a byte string that arrive in any order, repeated or overlapping: CRYPTO frames (RFC 9000, 19.6) and DTLS
//! handshake fragments (RFC 9147, 5.5).
//!
//! Memory is bounded by what was received and by [`MAX_BYTES`]; an offset alone claims nothing. Where pieces overlap, any
//! of them is used: they are equal, or the sender lies to its peer too.

use super::tls::MAX_HELLO;
use crate::memory;

/// Most bytes that are kept, and the greatest end of a piece.
const MAX_BYTES: usize = MAX_HELLO + 4;

/// Most pieces that are kept; senders that shuffle their ClientHello make about twenty.
const MAX_PIECES: usize = 64;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Offset and length of each piece; their bytes follow each other in `bytes`.
    places: Vec<(u16, u16)>,
}

impl Pieces {
    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_vec(&self.bytes) + memory::of_vec(&self.places)
    }

    /// Keeps a piece; one that breaks a limit, and one that is there already, is dropped. Whether it was kept: else there is nothing more
    /// to be made of them than before.
    pub(super) fn add(&mut self, offset: usize, piece: &[u8]) -> bool {
        let Some(end) = offset.checked_add(piece.len()) else { return false };
        let known = self
            .places
            .iter()
            .any(|(at, length)| usize::from(*at) <= offset && end <= usize::from(*at) + usize::from(*length));
        let full = self.places.len() == MAX_PIECES || self.bytes.len() + piece.len() > MAX_BYTES;
        if piece.is_empty() || end > MAX_BYTES || known || full {
            return false;
        }
        self.places.push((offset as u16, piece.len() as u16));
        self.bytes.extend_from_slice(piece);
        true
    }

    /// The first `count` bytes of the string, once they are all there.
    pub(super) fn prefix(&self, count: usize) -> Option<Vec<u8>> {
        if self.bytes.len() < count {
            return None;
        }
        let mut whole = Vec::new();
        while whole.len() < count {
            let more = self.at(whole.len())?;
            whole.extend_from_slice(more);
        }
        whole.truncate(count);
        Some(whole)
    }

    /// The longest run of bytes from `offset` that one piece has.
    fn at(&self, offset: usize) -> Option<&[u8]> {
        let mut bytes = self.bytes.as_slice();
        let mut longest: &[u8] = &[];
        for (at, length) in &self.places {
            let (piece, rest) = bytes.split_at_checked(usize::from(*length))?;
            bytes = rest;
            let run = offset.checked_sub(usize::from(*at)).and_then(|skip| piece.get(skip..)).unwrap_or_default();
            if run.len() > longest.len() {
                longest = run;
            }
        }
        Some(longest).filter(|run| !run.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_hold() {
        let mut pieces = Pieces::default();
        assert!(!pieces.add(usize::MAX, b"x"));
        assert!(!pieces.add(MAX_BYTES, b"x"));
        assert!(!pieces.add(1, &vec![0; MAX_BYTES]));
        assert!(pieces.places.is_empty());
        assert_eq!((0..1000).filter(|at| pieces.add(2 * at, b"x")).count(), MAX_PIECES);
        assert!(!pieces.add(2, b"x"), "it is there");
        assert_eq!(pieces.places.len(), MAX_PIECES);
        assert_eq!(pieces.prefix(2), None);
    }

    proptest! {
        #[test]
        fn any_order_gives_the_same_string(
            string in prop::collection::vec(any::<u8>(), 1..400),
            order in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..40), 0..40),
        ) {
            let mut pieces = Pieces::default();
            let mut seen = vec![false; string.len()];
            for (start, length) in order {
                let start = start.index(string.len());
                let end = (start + length).min(string.len());
                pieces.add(start, &string[start..end]);
                seen[start..end].fill(true);
                for count in [1, string.len() / 2, string.len()] {
                    let whole = seen[..count].iter().all(|seen| *seen);
                    prop_assert_eq!(pieces.prefix(count), whole.then(|| string[..count].to_vec()));
                }
            }
        }
    }
}

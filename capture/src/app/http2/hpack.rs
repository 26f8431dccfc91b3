//! HPACK (RFC 7541): a decoder that keeps what is asked for.
//!
//! Of fields whose name nobody asks for only the length is kept, because it decides what is evicted from the dynamic
//! table. The newest entry has the lowest index, so a decoder that missed the beginning, or lost a block ([`Decoder::forget`]),
//! still resolves whatever was added since; a reference to something older is an unknown field, never a wrong one.
//!
//! Limits: a table of at most [`MAX_TABLE`] bytes, values of at most [`MAX_VALUE`]. An encoder that announces a larger table
//! is followed, but its oldest entries are unknown.

use std::collections::VecDeque;

use super::huffman;
use crate::memory;

/// Largest dynamic table that is kept.
const MAX_TABLE: usize = 16 * 1024;

/// Size before any update (RFC 7540, 6.5.2).
const DEFAULT_TABLE: usize = 4096;

/// How much of a value is kept.
const MAX_VALUE: usize = 1024;

/// What an entry costs beside its text (RFC 7541, 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// Names of fields that are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Method,
    Path,
    Authority,
    Status,
    ContentType,
    GrpcStatus,
    Host,
    /// A reference to an entry that was lost; without a value.
    Lost,
    /// Any other, or unknown.
    Other,
}

impl Name {
    fn of(text: &[u8]) -> Self {
        match text {
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":authority" => Self::Authority,
            b":status" => Self::Status,
            b"content-type" => Self::ContentType,
            b"grpc-status" => Self::GrpcStatus,
            b"host" => Self::Host,
            _ => Self::Other,
        }
    }
}

/// Name and length of the name of each static entry (RFC 7541, appendix A), and its value where it is asked for.
#[rustfmt::skip]
const STATIC: [(Name, u8, &[u8]); 61] = [
    (Name::Authority, 10, b""), (Name::Method, 7, b"GET"), (Name::Method, 7, b"POST"), (Name::Path, 5, b"/"),
    (Name::Path, 5, b"/index.html"), (Name::Other, 7, b""), (Name::Other, 7, b""), (Name::Status, 7, b"200"),
    (Name::Status, 7, b"204"), (Name::Status, 7, b"206"), (Name::Status, 7, b"304"), (Name::Status, 7, b"400"),
    (Name::Status, 7, b"404"), (Name::Status, 7, b"500"), (Name::Other, 14, b""), (Name::Other, 15, b""),
    (Name::Other, 15, b""), (Name::Other, 13, b""), (Name::Other, 6, b""), (Name::Other, 27, b""),
    (Name::Other, 3, b""), (Name::Other, 5, b""), (Name::Other, 13, b""), (Name::Other, 13, b""),
    (Name::Other, 19, b""), (Name::Other, 16, b""), (Name::Other, 16, b""), (Name::Other, 14, b""),
    (Name::Other, 16, b""), (Name::Other, 13, b""), (Name::ContentType, 12, b""), (Name::Other, 6, b""),
    (Name::Other, 4, b""), (Name::Other, 4, b""), (Name::Other, 6, b""), (Name::Other, 7, b""),
    (Name::Other, 4, b""), (Name::Host, 4, b""), (Name::Other, 8, b""), (Name::Other, 17, b""),
    (Name::Other, 13, b""), (Name::Other, 8, b""), (Name::Other, 19, b""), (Name::Other, 13, b""),
    (Name::Other, 4, b""), (Name::Other, 8, b""), (Name::Other, 12, b""), (Name::Other, 18, b""),
    (Name::Other, 19, b""), (Name::Other, 5, b""), (Name::Other, 7, b""), (Name::Other, 7, b""),
    (Name::Other, 11, b""), (Name::Other, 6, b""), (Name::Other, 10, b""), (Name::Other, 25, b""),
    (Name::Other, 17, b""), (Name::Other, 10, b""), (Name::Other, 4, b""), (Name::Other, 3, b""),
    (Name::Other, 16, b""),
];

/// An entry of the dynamic table.
#[derive(Debug)]
struct Entry {
    name: Name,
    name_len: u32,
    size: u32,
    /// Empty where the name is not asked for.
    value: Box<[u8]>,
}

/// State of one direction.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    /// Bytes of memory that the values take.
    values: usize,
    scratch: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, max_size: DEFAULT_TABLE, values: 0, scratch: Vec::new() }
    }
}

/// The name of a field: what it is called and how long that is, if known.
#[derive(Debug, Clone, Copy)]
struct Named {
    name: Name,
    length: u32,
}

impl Decoder {
    /// Decodes a block, and calls `each` with the fields that are asked for. `None` if it is malformed; then later blocks
    /// are decoded as after [`Self::forget`].
    pub(super) fn decode(&mut self, block: &[u8], each: &mut impl FnMut(Name, &[u8])) -> Option<()> {
        let mut rest = block;
        while let Some(first) = rest.first() {
            let next = match first {
                0x80.. => self.indexed(rest, each),
                0x40.. => self.literal(rest, 6, each),
                0x20.. => self.resize(rest),
                0x00.. => self.literal(rest, 4, each),
            };
            let Some(next) = next else {
                self.forget();
                return None;
            };
            rest = next;
        }
        if self.scratch.capacity() > MAX_VALUE {
            self.scratch = Vec::new();
        }
        Some(())
    }

    /// A block was lost, and with it what it added.
    pub(super) fn forget(&mut self) {
        self.entries.clear();
        (self.size, self.values) = (0, 0);
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        memory::of_queue(&self.entries) + memory::of_vec(&self.scratch) + self.values
    }

    /// RFC 7541, 6.1.
    fn indexed<'b>(&self, rest: &'b [u8], each: &mut impl FnMut(Name, &[u8])) -> Option<&'b [u8]> {
        let (index, rest) = integer(rest, 7)?;
        let place = index.checked_sub(1)?;
        if let Some((name, _, value)) = STATIC.get(place) {
            if *name != Name::Other {
                each(*name, value);
            }
        } else {
            match self.entries.get(place - STATIC.len()) {
                Some(Entry { name: Name::Other, .. }) => {}
                Some(entry) => each(entry.name, &entry.value),
                None => each(Name::Lost, &[]),
            }
        }
        Some(rest)
    }

    /// RFC 7541, 6.2; six bits of index: with incremental indexing.
    fn literal<'b>(&mut self, rest: &'b [u8], prefix: u32, each: &mut impl FnMut(Name, &[u8])) -> Option<&'b [u8]> {
        let (index, rest) = integer(rest, prefix)?;
        let (named, rest) = match index.checked_sub(1) {
            Some(place) => (self.name_at(place), rest),
            None => self.name(rest)?,
        };
        let (huffman, bytes, rest) = string(rest)?;
        // What nobody asks for is decoded only to know how long it is in the table.
        let indexing = prefix == 6;
        self.scratch.clear();
        let mut value_len = bytes.len();
        if huffman && (named.name != Name::Other || indexing) {
            huffman::decode(bytes, MAX_TABLE, &mut self.scratch)?;
            value_len = self.scratch.len();
        }
        let value = if huffman { &self.scratch } else { bytes };
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        if named.name != Name::Other {
            each(named.name, value);
        }
        if indexing {
            let value = if named.name == Name::Other { Box::default() } else { value.into() };
            let size = named.length as usize + value_len + ENTRY_OVERHEAD;
            self.add(Entry { name: named.name, name_len: named.length, size: size as u32, value });
        }
        Some(rest)
    }

    fn name_at(&self, place: usize) -> Named {
        if let Some((name, length, _)) = STATIC.get(place) {
            return Named { name: *name, length: (*length).into() };
        }
        let entry = self.entries.get(place - STATIC.len());
        // The length of an unknown name is a guess; at worst something is forgotten too early or kept too long, and
        // an encoder never refers to what it evicted.
        entry.map_or(Named { name: Name::Other, length: 0 }, |entry| Named { name: entry.name, length: entry.name_len })
    }

    fn name<'b>(&mut self, rest: &'b [u8]) -> Option<(Named, &'b [u8])> {
        let (huffman, bytes, rest) = string(rest)?;
        self.scratch.clear();
        let text = if huffman {
            huffman::decode(bytes, MAX_TABLE, &mut self.scratch)?;
            &self.scratch
        } else {
            bytes
        };
        Some((Named { name: Name::of(text), length: text.len() as u32 }, rest))
    }

    /// RFC 7541, 6.3.
    fn resize<'b>(&mut self, rest: &'b [u8]) -> Option<&'b [u8]> {
        let (size, rest) = integer(rest, 5)?;
        self.max_size = size.min(MAX_TABLE);
        self.evict(0);
        Some(rest)
    }

    fn add(&mut self, entry: Entry) {
        let size = entry.size as usize;
        self.evict(size);
        // What does not fit empties the table (RFC 7541, 4.4).
        if size <= self.max_size {
            self.size += size;
            self.values += memory::of_bytes(entry.value.len());
            self.entries.push_front(entry);
        }
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size as usize;
            self.values -= memory::of_bytes(entry.value.len());
        }
    }
}

/// An integer with so many bits in its first byte (RFC 7541, 5.1).
fn integer(bytes: &[u8], prefix: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let mask = (1_usize << prefix) - 1;
    let mut value = usize::from(*first) & mask;
    if value < mask {
        return Some((value, rest));
    }
    // Four more bytes are 28 bits: more than any length or index that fits a block.
    for shift in [0, 7, 14, 21] {
        let (byte, after) = rest.split_first()?;
        rest = after;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

/// A string (RFC 7541, 5.2): whether it is Huffman code, its bytes, and the rest.
fn string(bytes: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let huffman = bytes.first()? & 0x80 != 0;
    let (length, rest) = integer(bytes, 7)?;
    let (text, rest) = rest.split_at_checked(length)?;
    Some((huffman, text, rest))
}

#[cfg(test)]
mod tests;

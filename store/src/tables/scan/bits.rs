//! Numbers as pages of Parquet have them (the format's `Encodings.md`): runs of bit-packed or repeated ones, and differences of
//! neighbours. What is not so is `None`: the library reads it then, and says what is wrong.

use datafusion::arrow::buffer::BooleanBuffer;

use super::packed::{Packed, WORD, last, word};

/// Numbers of a block of differences at most: what writers make has some hundreds.
const MOST: u64 = 1 << 16;

/// Numbers of a hybrid of bit-packed and repeated ones.
pub(super) enum Run<'a> {
    /// One number so many times.
    Repeated(u64, usize),
    /// So many numbers.
    Packed(Packed<'a>, usize),
}

/// The runs of `rows` numbers; nothing more where the bytes are not that.
pub(super) struct Runs<'a> {
    bytes: &'a [u8],
    width: u32,
    left: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(bytes: &'a [u8], width: u32, rows: usize) -> Self {
        Self { bytes, width, left: rows }
    }

    /// Whether all numbers have come.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for Runs<'a> {
    type Item = Run<'a>;

    fn next(&mut self) -> Option<Run<'a>> {
        if self.left == 0 || self.width > u32::BITS {
            return None;
        }
        let head = usize::try_from(varint(&mut self.bytes)?).ok()?;
        if head & 1 == 0 {
            let (number, rest) = self.bytes.split_at_checked((self.width as usize).div_ceil(8))?;
            self.bytes = rest;
            let rows = (head >> 1).min(self.left);
            self.left -= rows;
            return (rows > 0).then(|| Run::Repeated(last(number), rows));
        }
        // The last group may end with the numbers.
        let groups = head >> 1;
        let bytes = groups.checked_mul(self.width as usize)?.min(self.bytes.len());
        let packed = Packed::new(self.bytes, self.width)?;
        self.bytes = self.bytes.get(bytes..)?;
        let rows = groups.checked_mul(8)?.min(self.left);
        if bytes * 8 < rows * self.width as usize {
            return None;
        }
        self.left -= rows;
        (rows > 0).then_some(Run::Packed(packed, rows))
    }
}

/// An unsigned number in LEB128.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn zigzag(bytes: &mut &[u8]) -> Option<i64> {
    let number = varint(bytes)?;
    Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

/// Numbers of which the differences are packed (`DELTA_BINARY_PACKED`).
struct Differences<'a> {
    bytes: &'a [u8],
    /// Differences that are packed alike, and how many of these parts a block has.
    each: usize,
    parts: usize,
    /// The widths of the rest of the block, and the difference that all of its differences have in common.
    widths: &'a [u8],
    least: i64,
    /// Numbers of the page, and those that have come.
    all: usize,
    come: usize,
    first: i64,
}

/// Differences that are packed alike: each is so much more.
struct Part<'a> {
    least: i64,
    more: Packed<'a>,
    rows: usize,
}

impl<'a> Differences<'a> {
    fn new(mut bytes: &'a [u8]) -> Option<Self> {
        let (block, parts) = (varint(&mut bytes)?, varint(&mut bytes)?);
        let all = usize::try_from(varint(&mut bytes)?).ok()?;
        let first = zigzag(&mut bytes)?;
        if parts == 0 || block > MOST || !block.is_multiple_of(parts) || !(block / parts).is_multiple_of(8) {
            return None;
        }
        let (parts, each) = (parts as usize, (block / parts) as usize);
        Some(Self { bytes, each, parts, widths: &[], least: 0, all, come: all.min(1), first })
    }
}

impl<'a> Iterator for Differences<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        let rows = self.each.min(self.all - self.come);
        if rows == 0 {
            return None;
        }
        if self.widths.is_empty() {
            self.least = zigzag(&mut self.bytes)?;
            (self.widths, self.bytes) = self.bytes.split_at_checked(self.parts)?;
        }
        let (width, widths) = self.widths.split_first()?;
        let length = (self.each * usize::from(*width) / 8).min(self.bytes.len());
        let more = Packed::new(self.bytes, u32::from(*width))?;
        if length * 8 < rows * usize::from(*width) {
            return None;
        }
        self.bytes = self.bytes.get(length..)?;
        self.widths = widths;
        self.come += rows;
        Some(Part { least: self.least, more, rows })
    }
}

/// Numbers of which the differences are packed, the first `wanted` of them at least.
pub(super) fn differences(bytes: &[u8], wanted: usize, numbers: &mut Vec<i64>) -> Option<()> {
    numbers.clear();
    let mut parts = Differences::new(bytes)?;
    let mut number = parts.first;
    numbers.extend((parts.all > 0).then_some(number));
    while numbers.len() < wanted {
        let part = parts.next()?;
        numbers.reserve(part.rows);
        part.more.chunks(part.rows, |more| {
            numbers.extend(more.iter().map(|more| {
                number = number.wrapping_add(part.least).wrapping_add(more.cast_signed());
                number
            }));
        });
    }
    Some(())
}

/// Of numbers of which the differences are packed those at some places, in order: what lies between is added up.
pub(super) fn some_differences(bytes: &[u8], places: &[usize], numbers: &mut Vec<i64>) -> Option<()> {
    let mut parts = Differences::new(bytes)?;
    let (mut number, mut rest) = (parts.first, places);
    if let Some((0, later)) = rest.split_first() {
        if parts.all == 0 {
            return None;
        }
        numbers.push(number);
        rest = later;
    }
    while !rest.is_empty() {
        let first = parts.come;
        let part = parts.next()?;
        let (here, later) = before(rest, first + part.rows);
        let Some(last) = here.last() else {
            let all = part.least.wrapping_mul(part.rows as i64);
            number = number.wrapping_add(all).wrapping_add(part.more.sum(part.rows).cast_signed());
            continue;
        };
        rest = later;
        let (mut here, mut at) = (here.iter().peekable(), first);
        part.more.each(if later.is_empty() { last - first + 1 } else { part.rows }, |more| {
            number = number.wrapping_add(part.least).wrapping_add(more.cast_signed());
            numbers.extend(here.next_if_eq(&&at).map(|_| number));
            at += 1;
        });
    }
    Some(())
}

/// Of places in order those before `end`, and the others. One after the other: most stretches have none or few.
#[inline]
pub(super) fn before(places: &[usize], end: usize) -> (&[usize], &[usize]) {
    places.split_at(places.iter().take_while(|place| **place < end).count())
}

/// Which rows have a value.
pub(super) enum Present {
    All,
    Some(BooleanBuffer),
}

/// What a hybrid of numbers of one bit says.
pub(super) fn present(bytes: &[u8], rows: usize) -> Option<Present> {
    let (mut runs, mut written) = (Runs::new(bytes, 1, rows), BitWriter::with_capacity(rows));
    for run in runs.by_ref() {
        match run {
            Run::Repeated(1, some) if some == rows => return Some(Present::All),
            Run::Repeated(bit, some) => written.repeat(bit == 1, some),
            Run::Packed(packed, some) => written.append(packed.bytes(), some),
        }
    }
    runs.is_over().then(|| Present::Some(written.finish()))
}

/// Bits one after the other, a word at a time.
pub(super) struct BitWriter {
    words: Vec<u64>,
    word: u64,
    filled: u32,
}

impl BitWriter {
    pub(super) fn with_capacity(bits: usize) -> Self {
        Self { words: Vec::with_capacity(bits.div_ceil(u64::BITS as usize) + 1), word: 0, filled: 0 }
    }

    /// Bits by their number, from 0.
    #[inline]
    pub(super) fn extend(&mut self, bits: usize, mut bit: impl FnMut(usize) -> bool) {
        let mut at = 0;
        while at < bits {
            let end = bits.min(at + (u64::BITS - self.filled) as usize);
            for at in at..end {
                self.word |= u64::from(bit(at)) << self.filled;
                self.filled += 1;
            }
            at = end;
            self.flush();
        }
    }

    /// The first bits of some bytes, lowest bit first.
    pub(super) fn append(&mut self, mut bytes: &[u8], mut bits: usize) {
        while bits > 0 {
            let some = bits.min(u64::BITS as usize) as u32;
            self.append_word(word(bytes), some);
            bytes = bytes.get(WORD..).unwrap_or_default();
            bits -= some as usize;
        }
    }

    /// The lowest bits of a word, one at least.
    #[inline]
    pub(super) fn append_word(&mut self, word: u64, bits: u32) {
        let word = word & u64::MAX >> (u64::BITS - bits);
        self.word |= word << self.filled;
        if self.filled + bits < u64::BITS {
            self.filled += bits;
            return;
        }
        self.words.push(self.word);
        let written = u64::BITS - self.filled;
        self.word = word.checked_shr(written).unwrap_or_default();
        self.filled = bits - written;
    }

    pub(super) fn push(&mut self, bit: bool) {
        self.extend(1, |_| bit);
    }

    pub(super) fn repeat(&mut self, bit: bool, mut times: usize) {
        while times > 0 {
            let some = times.min((u64::BITS - self.filled) as usize);
            if bit {
                self.word |= u64::MAX >> (u64::BITS - some as u32) << self.filled;
            }
            self.filled += some as u32;
            times -= some;
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.filled == u64::BITS {
            self.words.push(std::mem::take(&mut self.word));
            self.filled = 0;
        }
    }

    pub(super) fn finish(mut self) -> BooleanBuffer {
        let bits = self.words.len() * u64::BITS as usize + self.filled as usize;
        self.words.push(self.word);
        BooleanBuffer::new(self.words.into(), 0, bits)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_are_written_in_order(parts in prop::collection::vec((0..3, any::<bool>(), prop::collection::vec(any::<u8>(), 0..20), 0_usize..8), 0..20)) {
            let (mut bits, mut wanted) = (BitWriter::with_capacity(0), Vec::new());
            for (how, bit, bytes, less) in &parts {
                let count = (bytes.len() * 8).saturating_sub(*less);
                let of = |at: usize| bytes[at / 8] >> (at % 8) & 1 == 1;
                match how {
                    0 => bits.extend(count, of),
                    1 => bits.append(bytes, count),
                    _ => bits.repeat(*bit, count),
                }
                wanted.extend((0..count).map(|at| if *how == 2 { *bit } else { of(at) }));
            }
            let wanted: BooleanBuffer = wanted.into_iter().collect();
            prop_assert_eq!(bits.finish(), wanted);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60), rows in 0_usize..10_000, width in 0_u32..70) {
            let mut numbers = Vec::new();
            let _ = differences(&bytes, rows, &mut numbers);
            let _ = some_differences(&bytes, &[rows], &mut numbers);
            let _ = present(&bytes, rows);
            let all: usize = Runs::new(&bytes, width, rows)
                .map(|run| match run {
                    Run::Repeated(_, some) | Run::Packed(_, some) => some,
                })
                .sum();
            prop_assert!(all <= rows);
        }
    }
}

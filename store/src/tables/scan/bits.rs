//! Numbers as pages of Parquet pack them (the format's `Encodings.md`): runs of bit-packed or repeated ones, and differences of
//! neighbours. What is not so is `None`: the library reads it then, and says what is wrong.

use datafusion::arrow::buffer::BooleanBuffer;

/// Bytes are looked at so many at a time.
const WORD: usize = size_of::<u64>();
/// Numbers of a block of differences at most: what writers make has some hundreds.
const MOST: u64 = 1 << 16;

/// Numbers of `width` bits each, at most 64, lowest bit first.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    width: u32,
}

impl<'a> Packed<'a> {
    pub(super) fn new(bytes: &'a [u8], width: u32) -> Option<Self> {
        (width <= u64::BITS).then_some(Self { bytes, width })
    }

    /// A number; behind the end there are zeros.
    #[inline]
    pub(super) fn get(self, at: usize) -> u64 {
        let bit = at * self.width as usize;
        let (rest, shift) = (self.bytes.get(bit / 8..).unwrap_or_default(), (bit % 8) as u32);
        let mask = u64::MAX.checked_shr(u64::BITS - self.width).unwrap_or_default();
        let low = rest.first_chunk().map_or_else(|| last(rest), |word| u64::from_le_bytes(*word));
        let number = low >> shift;
        if shift + self.width <= u64::BITS {
            return number & mask;
        }
        (number | u64::from(rest.get(WORD).copied().unwrap_or_default()) << (u64::BITS - shift)) & mask
    }
}

#[cold]
fn last(bytes: &[u8]) -> u64 {
    let mut word = [0; WORD];
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    u64::from_le_bytes(word)
}

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
        let (packed, rest) = self.bytes.split_at_checked(bytes)?;
        self.bytes = rest;
        let rows = groups.checked_mul(8)?.min(self.left);
        if packed.len() * 8 < rows * self.width as usize {
            return None;
        }
        self.left -= rows;
        (rows > 0).then_some(Run::Packed(Packed { bytes: packed, width: self.width }, rows))
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

/// Numbers of which the differences are packed (`DELTA_BINARY_PACKED`), the first `wanted` of them at least.
pub(super) fn differences(mut bytes: &[u8], wanted: usize, numbers: &mut Vec<i64>) -> Option<()> {
    numbers.clear();
    let (block, parts) = (varint(&mut bytes)?, varint(&mut bytes)?);
    let all = usize::try_from(varint(&mut bytes)?).ok()?;
    let mut number = zigzag(&mut bytes)?;
    if wanted > all || parts == 0 || block > MOST || !block.is_multiple_of(parts) || !(block / parts).is_multiple_of(8)
    {
        return None;
    }
    if wanted == 0 {
        return Some(());
    }
    let (parts, each) = (parts as usize, (block / parts) as usize);
    numbers.push(number);
    while numbers.len() < wanted {
        let least = zigzag(&mut bytes)?;
        let (widths, rest) = bytes.split_at_checked(parts)?;
        bytes = rest;
        for width in widths.iter().map(|width| u32::from(*width)) {
            let left = all - numbers.len();
            if left == 0 {
                break;
            }
            let length = (each * width as usize / 8).min(bytes.len());
            let (packed, rest) = bytes.split_at_checked(length)?;
            bytes = rest;
            let rows = each.min(left);
            if length * 8 < rows * width as usize {
                return None;
            }
            let packed = Packed::new(packed, width)?;
            numbers.extend((0..rows).map(|at| {
                number = number.wrapping_add(least).wrapping_add(packed.get(at).cast_signed());
                number
            }));
        }
    }
    Some(())
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
            Run::Packed(packed, some) => written.extend(some, |at| packed.get(at) == 1),
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
        fn packed_numbers_are_found_at_their_places(width in 0_u32..=64, numbers in prop::collection::vec(any::<u64>(), 0..40)) {
            let mut bits = BitWriter::with_capacity(0);
            for number in &numbers {
                bits.extend(width as usize, |bit| number >> bit & 1 == 1);
            }
            let bits = bits.finish();
            let packed = Packed::new(&bits.values()[..bits.len().div_ceil(8)], width).unwrap();
            for (at, number) in numbers.iter().enumerate() {
                let kept = number & u64::MAX.checked_shr(64 - width).unwrap_or_default();
                prop_assert_eq!(packed.get(at), kept);
            }
            prop_assert_eq!(packed.get(numbers.len()), 0);
        }

        #[test]
        fn bits_are_written_in_order(runs in prop::collection::vec((any::<bool>(), 0_usize..200), 0..20), one_by_one in any::<bool>()) {
            let mut bits = BitWriter::with_capacity(0);
            for (bit, times) in &runs {
                if one_by_one {
                    bits.extend(*times, |_| *bit);
                } else {
                    bits.repeat(*bit, *times);
                }
            }
            let wanted: BooleanBuffer = runs.iter().flat_map(|(bit, times)| vec![*bit; *times]).collect();
            prop_assert_eq!(bits.finish(), wanted);
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..60), rows in 0_usize..10_000, width in 0_u32..70) {
            let mut numbers = Vec::new();
            let _ = differences(&bytes, rows, &mut numbers);
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

//! Numbers of some bits each, one after the other, as Parquet packs them (the format's `Encodings.md`, bit packing: lowest bit first).

/// Bytes are looked at so many at a time.
pub(super) const WORD: usize = size_of::<u64>();
/// Numbers that are unpacked together: they end with a byte, whatever their width.
const MANY: usize = 32;

/// Numbers of `width` bits each, at most 64; what follows them may be behind them.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    bytes: &'a [u8],
    width: usize,
    mask: u64,
}

impl<'a> Packed<'a> {
    pub(super) fn new(bytes: &'a [u8], width: u32) -> Option<Self> {
        let mask = u64::MAX.checked_shr(u64::BITS - width.min(u64::BITS)).unwrap_or_default();
        (width <= u64::BITS).then_some(Self { bytes, width: width as usize, mask })
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// A number; behind the end there are zeros.
    #[inline]
    pub(super) fn get(self, at: usize) -> u64 {
        bits_at(self.bytes, at * self.width) & self.mask
    }

    /// The first `count` numbers, some at a time: 32, but for the last.
    #[inline]
    pub(super) fn chunks(self, count: usize, mut some: impl FnMut(&[u64])) {
        let (mut numbers, mut done) = ([0; MANY], 0);
        if let Some(unrolled) = UNROLLED.get(self.width) {
            for bytes in self.many(count) {
                (unrolled.unpack)(bytes, &mut numbers);
                some(&numbers);
                done += MANY;
            }
        }
        while done < count {
            let rows = MANY.min(count - done);
            let (numbers, _) = numbers.split_at_mut(rows);
            for (at, number) in numbers.iter_mut().enumerate() {
                *number = self.get(done + at);
            }
            some(numbers);
            done += rows;
        }
    }

    /// The first `count` numbers.
    #[inline]
    pub(super) fn each(self, count: usize, mut number: impl FnMut(u64)) {
        self.chunks(count, |numbers| numbers.iter().for_each(|one| number(*one)));
    }

    /// What the first `count` numbers are together, without what is beyond 64 bits.
    pub(super) fn sum(self, count: usize) -> u64 {
        let (mut sum, mut done) = (0_u64, 0);
        if let Some(unrolled) = UNROLLED.get(self.width) {
            for bytes in self.many(count) {
                sum = sum.wrapping_add((unrolled.sum)(bytes));
                done += MANY;
            }
        }
        (done..count).fold(sum, |sum, at| sum.wrapping_add(self.get(at)))
    }

    /// Where each [`MANY`] of the first `count` numbers begin, as long as a word can be read wherever one of them does.
    fn many(self, count: usize) -> impl Iterator<Item = &'a [u8]> {
        let length = self.width * MANY / 8;
        let readable = self.bytes.len().saturating_sub(WORD).checked_div(length).unwrap_or(usize::MAX);
        (0..readable.min(count / MANY)).map_while(move |at| self.bytes.get(at * length..))
    }
}

/// What is done with [`MANY`] numbers of the same width. Where each shift is known to the compiler it takes less than half of the time to unpack
/// them, and a sixth to add them up.
struct Unrolled {
    unpack: fn(&[u8], &mut [u64; MANY]),
    sum: fn(&[u8]) -> u64,
}

/// The number at a place among those of `WIDTH` bits. The bytes are as many as [`Packed::many`] says, or it is 0.
#[inline]
fn unrolled<const WIDTH: usize>(bytes: &[u8], at: usize) -> u64 {
    let mask = if WIDTH == 0 { 0 } else { u64::MAX >> (u64::BITS as usize - WIDTH) };
    let word = bytes.get(at * WIDTH / 8..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word));
    word >> (at * WIDTH % 8) & mask
}

fn unpack<const WIDTH: usize>(bytes: &[u8], numbers: &mut [u64; MANY]) {
    let Some(bytes) = bytes.get(..WIDTH * MANY / 8 + WORD) else { return };
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = unrolled::<WIDTH>(bytes, at);
    }
}

fn sum<const WIDTH: usize>(bytes: &[u8]) -> u64 {
    let Some(bytes) = bytes.get(..WIDTH * MANY / 8 + WORD) else { return 0 };
    (0..MANY).fold(0, |sum, at| sum.wrapping_add(unrolled::<WIDTH>(bytes, at)))
}

macro_rules! unrolled {
    ($($width:literal)*) => { [$(Unrolled { unpack: unpack::<$width>, sum: sum::<$width> }),*] };
}

/// By width: all that lie in one word wherever they begin.
static UNROLLED: [Unrolled; 58] = unrolled![
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44 45
    46 47 48 49 50 51 52 53 54 55 56 57
];

/// A word of bits, from one on; behind the end there are zeros.
#[inline]
pub(super) fn bits_at(bytes: &[u8], bit: usize) -> u64 {
    let (rest, shift) = (bytes.get(bit / 8..).unwrap_or_default(), bit % 8);
    let low = word(rest) >> shift;
    if shift == 0 {
        return low;
    }
    low | u64::from(rest.get(WORD).copied().unwrap_or_default()) << (u64::BITS as usize - shift)
}

/// The first bytes as a number; behind the end there are zeros.
#[inline]
pub(super) fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or_else(|| last(bytes), |word| u64::from_le_bytes(*word))
}

/// Bytes, less than a word, as a number.
#[cold]
pub(super) fn last(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bits::BitWriter;
    use super::*;

    proptest! {
        #[test]
        fn packed_numbers_are_found_at_their_places(width in 0_u32..=64, numbers in prop::collection::vec(any::<u64>(), 0..150), less in 0_usize..40) {
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
            let count = numbers.len().saturating_sub(less);
            let mut each = Vec::new();
            packed.each(count, |number| each.push(number));
            prop_assert_eq!(&each, &(0..count).map(|at| packed.get(at)).collect::<Vec<_>>());
            prop_assert_eq!(packed.sum(count), each.into_iter().fold(0, u64::wrapping_add));
            prop_assert_eq!(packed.get(numbers.len()), 0);
        }
    }
}

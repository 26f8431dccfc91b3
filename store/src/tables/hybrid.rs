//! Small numbers as Parquet has them in its pages: the hybrid of runs of one number, and of groups of eight packed in bits. Keys of
//! dictionaries are stored so, and levels: which rows have a value, and of maps where each begins.

use std::ops::Range;

use datafusion::arrow::buffer::NullBuffer;

/// Packed numbers of a group.
const GROUP: usize = 8;
/// Bits that are better told as a run: it has a length and a number, and so have the packed ones behind it.
const RUN: usize = 40;

/// Appends numbers of `width` bits as runs and packed groups.
pub(super) fn hybrid(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    let (mut packed, mut at) = (0, 0);
    let least = GROUP.max(RUN.checked_div(usize::from(width)).unwrap_or_default());
    while let Some(first) = numbers.get(at) {
        let same = numbers[at..].iter().take_while(|number| *number == first).count();
        if same >= least || at + same == numbers.len() {
            pack(&numbers[packed..at], width, out);
            run(*first, width, same, out);
            at += same;
            packed = at;
        } else {
            at = numbers.len().min(at + GROUP);
        }
    }
    pack(&numbers[packed..], width, out);
}

/// Appends one number that comes `count` times.
fn run(number: u32, width: u8, count: usize, out: &mut Vec<u8>) {
    varint(count << 1, out);
    out.extend(&number.to_le_bytes()[..usize::from(width.div_ceil(8))]);
}

/// Appends numbers one after the other, the least bits first; the last group is filled with zeros.
fn pack(numbers: &[u32], width: u8, out: &mut Vec<u8>) {
    if numbers.is_empty() {
        return;
    }
    let groups = numbers.len().div_ceil(GROUP);
    varint(groups << 1 | 1, out);
    let end = out.len() + groups * usize::from(width);
    let (mut bits, mut filled) = (0_u64, 0);
    for number in numbers {
        bits |= u64::from(*number) << filled;
        filled += width;
        if filled >= 32 {
            out.extend((bits as u32).to_le_bytes());
            bits >>= 32;
            filled -= 32;
        }
    }
    out.extend((bits as u32).to_le_bytes());
    out.resize(end, 0);
}

/// Numbers of at most two bits that come a few at a time.
#[derive(Debug)]
pub(super) struct Levels {
    width: u8,
    packed: Vec<u8>,
    bits: u64,
    filled: u8,
    count: usize,
    /// As long as all are alike.
    alike: Option<u8>,
}

impl Levels {
    pub(super) fn new(width: u8) -> Self {
        Self { width, packed: Vec::new(), bits: 0, filled: 0, count: 0, alike: None }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// One level that comes `times` times.
    pub(super) fn push(&mut self, level: u8, times: usize) {
        if times == 0 {
            return;
        }
        self.alike = Some(level).filter(|_| self.count == 0 || self.alike == Some(level));
        self.count += times;
        let each = u64::MAX / ((1 << self.width) - 1) * u64::from(level);
        let most = 32 / usize::from(self.width);
        let mut left = times;
        while left > 0 {
            let width = self.width * left.min(most) as u8;
            self.bits |= (each & ((1 << width) - 1)) << self.filled;
            self.filled += width;
            if self.filled >= 32 {
                self.packed.extend((self.bits as u32).to_le_bytes());
                self.bits >>= 32;
                self.filled -= 32;
            }
            left = left.saturating_sub(most);
        }
    }

    /// Appends all of them, behind the length of what they take.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        let begin = out.len();
        out.extend([0; 4]);
        if let Some(level) = self.alike {
            run(u32::from(level), self.width, self.count, out);
        } else {
            let groups = self.count.div_ceil(GROUP);
            varint(groups << 1 | 1, out);
            self.packed.extend(self.bits.to_le_bytes());
            self.packed.resize(groups * usize::from(self.width), 0);
            out.extend(self.packed);
        }
        end(begin, out);
    }
}

/// Appends which of some rows have a value, behind the length of that; returns how many have.
pub(super) fn presence(nulls: Option<&NullBuffer>, rows: &Range<usize>, out: &mut Vec<u8>) -> usize {
    let begin = out.len();
    out.extend([0; 4]);
    let part = nulls.map(|nulls| nulls.slice(rows.start, rows.len()));
    let present = rows.len() - part.as_ref().map_or(0, NullBuffer::null_count);
    match part {
        Some(part) if present > 0 && present < rows.len() => {
            let groups = rows.len().div_ceil(GROUP);
            varint(groups << 1 | 1, out);
            out.extend(part.inner().sliced().iter().take(groups));
        }
        Some(_) | None => run(u32::from(present > 0), 1, rows.len(), out),
    }
    end(begin, out);
    present
}

/// Says in the four bytes at `begin` how many there are behind them.
fn end(begin: usize, out: &mut [u8]) {
    let length = (out.len() - begin - 4) as u32;
    out[begin..begin + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends a number in groups of seven bits, the least first.
fn varint(mut number: usize, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

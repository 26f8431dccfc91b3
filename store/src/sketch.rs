//! A sketch of a distribution of numbers, for quantiles within 1 %.
//!
//! Log-linear buckets, as in HdrHistogram: numbers below 128 have a bucket each; every power of two above has 64 of equal width, so
//! a bucket is at most 1/64 of its numbers wide, and its middle is at most 0.8 % from any of them. The buckets are the same for all sketches
//! and counts are whole, so merging adds counts: any order and grouping of the same numbers gives the same sketch, and the
//! same quantiles. All of `u64` is covered by 3,776 buckets, of which only those are kept that have numbers.

/// Numbers below have buckets of their own.
const EXACT: u64 = 128;
/// Buckets of a power of two, as a power of two.
const BITS: u32 = 6;
/// All buckets.
const BUCKETS: usize = 3_776;
/// First byte of an encoded sketch.
const VERSION: u8 = 1;

/// A part of all numbers, in millionths: a rank is made of whole numbers, since a fraction such as 0.999 has no exact one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quantile(u32);

impl Quantile {
    /// Half of them.
    pub(crate) const MEDIAN: Self = Self(Self::ALL / 2);
    /// All of them.
    const ALL: u32 = 1_000_000;
    /// Digits behind the point of a percentage at most.
    const DIGITS: usize = 4;

    /// Of a percentage as it is written: `99.9`.
    pub(crate) fn of_percent(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > Self::DIGITS {
            return None;
        }
        let millionths: u32 = format!("{whole}{fraction:0<width$}", width = Self::DIGITS).parse().ok()?;
        (millionths <= Self::ALL).then_some(Self(millionths))
    }

    /// The number of so many, in order, that this part is not greater than: `ceil(part × count)`, from 1.
    pub(crate) fn rank(self, count: u64) -> u64 {
        let rank = (u128::from(count) * u128::from(self.0)).div_ceil(Self::ALL.into());
        // The part is at most all.
        (rank as u64).max(1)
    }
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sketch {
    /// Sorted by bucket; no count is zero.
    buckets: Vec<Bucket>,
    count: u64,
}

/// A bucket and its count in one word, the bucket above: an answer can have a hundred thousand sketches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket(u64);

impl Bucket {
    /// Bits of a count.
    const COUNT: u32 = 52;
    /// What a count is at most: four thousand million million.
    const MOST: u64 = (1 << Self::COUNT) - 1;

    fn new(number: u16, count: u64) -> Self {
        Self(u64::from(number) << Self::COUNT | count.min(Self::MOST))
    }

    fn number(self) -> u16 {
        (self.0 >> Self::COUNT) as u16
    }

    fn count(self) -> u64 {
        self.0 & Self::MOST
    }

    fn with(self, count: u64) -> Self {
        Self::new(self.number(), self.count().saturating_add(count))
    }
}

/// The bucket of a number.
pub(crate) fn bucket_of(number: u64) -> u16 {
    if number < EXACT {
        return number as u16;
    }
    let power = number.ilog2();
    let within = (number >> (power - BITS)) & ((1 << BITS) - 1);
    (EXACT + u64::from(power - EXACT.ilog2()) * (1 << BITS) + within) as u16
}

/// The middle of a bucket.
pub(crate) fn middle(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < EXACT {
        return bucket;
    }
    let (octave, within) = ((bucket - EXACT) >> BITS, (bucket - EXACT) & ((1 << BITS) - 1));
    let shift = octave as u32 + EXACT.ilog2() - BITS;
    let first = ((1 << BITS) + within) << shift;
    first + ((1_u64 << shift) >> 1)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if (part << shift) >> shift != part {
            return None;
        }
        number |= part << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

impl Sketch {
    /// Adds a number.
    pub(crate) fn add(&mut self, number: u64) {
        self.add_bucket(bucket_of(number), 1);
    }

    fn add_bucket(&mut self, number: u16, count: u64) {
        self.count = self.count.saturating_add(count);
        match self.buckets.binary_search_by_key(&number, |bucket| bucket.number()) {
            Ok(at) => {
                if let Some(known) = self.buckets.get_mut(at) {
                    *known = known.with(count);
                }
            }
            Err(at) => self.buckets.insert(at, Bucket::new(number, count)),
        }
    }

    /// Adds a number of each of these buckets, which are in order.
    pub(crate) fn add_sorted(&mut self, buckets: &[u16]) {
        if buckets.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.buckets);
        let mut before = before.into_iter().peekable();
        for same in buckets.chunk_by(|a, b| a == b) {
            let (number, count) = (same.first().copied().unwrap_or_default(), same.len() as u64);
            while let Some(lower) = before.next_if(|bucket| bucket.number() < number) {
                self.buckets.push(lower);
            }
            let own = before.next_if(|bucket| bucket.number() == number);
            self.buckets.push(own.map_or_else(|| Bucket::new(number, count), |own| own.with(count)));
        }
        self.buckets.extend(before);
        self.count = self.count.saturating_add(buckets.len() as u64);
    }

    /// Adds all numbers of another sketch.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.clone_from(other);
            return;
        }
        for bucket in &other.buckets {
            self.add_bucket(bucket.number(), bucket.count());
        }
    }

    /// The number that this part of all are not greater than: about the one of that rank.
    pub(crate) fn quantile(&self, quantile: Quantile) -> Option<u64> {
        let rank = quantile.rank(self.count);
        let mut before = 0;
        let bucket = self.buckets.iter().find(|bucket| {
            before += bucket.count();
            before >= rank
        });
        bucket.map(|bucket| middle(bucket.number()))
    }

    /// In bytes: the version, the number of buckets, and of each the distance from the one before and the count; numbers as in
    /// LEB128.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, self.buckets.len() as u64);
        let mut before = 0;
        for bucket in &self.buckets {
            put(&mut bytes, u64::from(bucket.number() - before));
            put(&mut bytes, bucket.count());
            before = bucket.number();
        }
        bytes
    }

    /// Of bytes that [`Self::encode`] made; `None` for all others.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        if *version != VERSION {
            return None;
        }
        let length = usize::try_from(take(&mut rest)?).ok().filter(|length| *length <= BUCKETS)?;
        let mut sketch = Self { buckets: Vec::with_capacity(length), count: 0 };
        let mut before = 0_u64;
        for number in 0..length {
            let (distance, count) = (take(&mut rest)?, take(&mut rest)?);
            let bucket = before.checked_add(distance).filter(|bucket| *bucket < BUCKETS as u64)?;
            if (distance == 0 && number > 0) || count == 0 || count > Bucket::MOST {
                return None;
            }
            sketch.count = sketch.count.checked_add(count)?;
            sketch.buckets.push(Bucket::new(bucket as u16, count));
            before = bucket;
        }
        rest.is_empty().then_some(sketch)
    }

    /// Whether no number was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(numbers: &[u64]) -> Sketch {
        let mut sketch = Sketch::default();
        for number in numbers {
            sketch.add(*number);
        }
        sketch
    }

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let any_size = (0_u32..64, any::<u64>()).prop_map(|(shift, number)| number >> shift);
        prop::collection::vec(any_size, 1..200)
    }

    #[test]
    fn buckets_follow_each_other() {
        assert_eq!(
            (bucket_of(127), bucket_of(128), bucket_of(130), bucket_of(255), bucket_of(256)),
            (127, 128, 129, 191, 192)
        );
        assert_eq!(bucket_of(u64::MAX), 3_775);
        assert_eq!(Sketch::default().quantile(Quantile::MEDIAN), None);
    }

    #[test]
    fn ranks_are_those_of_whole_numbers() {
        let rank = |percent: &str, count: u64| Quantile::of_percent(percent).map(|quantile| quantile.rank(count));
        for (percent, count, expected) in [
            ("99.9", 1_000, 999),
            ("99.9", 1_001, 1_000),
            ("55", 100, 55),
            ("99.9999", 1_000_000, 999_999),
            ("50", 3, 2),
            ("050.0", 3, 2),
            ("50.", 4, 2),
            ("0", 10, 1),
            ("100", 10, 10),
            ("100", u64::MAX, u64::MAX),
        ] {
            assert_eq!(rank(percent, count), Some(expected), "p{percent} of {count}");
        }
        for wrong in ["", ".", ".5", "1.2.3", "100.1", "101", "-1", "+1", "1e1", "99.99999", "99999999999"] {
            assert_eq!(rank(wrong, 1), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn the_middle_of_a_bucket_is_near(number in (0_u32..64, any::<u64>()).prop_map(|(shift, number)| number >> shift)) {
            let middle = middle(bucket_of(number));
            prop_assert!(middle.abs_diff(number) as f64 <= number as f64 * 0.01, "{number} {middle}");
        }

        #[test]
        fn merging_is_adding(left in numbers(), right in numbers()) {
            let (mut there, mut back) = (of(&left), of(&right));
            there.merge(&of(&right));
            back.merge(&of(&left));
            let all = of(&[left, right].concat());
            prop_assert_eq!(&there, &all);
            prop_assert_eq!(&back, &all);
        }

        #[test]
        fn bytes_are_read_as_they_were_written(numbers in numbers(), at in any::<prop::sample::Index>(), wrong in any::<u8>()) {
            let sketch = of(&numbers);
            let mut bytes = sketch.encode();
            prop_assert_eq!(Sketch::decode(&bytes), Some(sketch));
            prop_assert_eq!(Sketch::decode(&bytes[..at.index(bytes.len())]), None);
            let at = at.index(bytes.len());
            bytes[at] = wrong;
            // Whatever it is read as, it is a sketch.
            if let Some(read) = Sketch::decode(&bytes) {
                prop_assert_eq!(Sketch::decode(&read.encode()), Some(read));
            }
        }

        #[test]
        fn quantiles_are_near(mut numbers in numbers(), part in 0..=Quantile::ALL) {
            let told = of(&numbers).quantile(Quantile(part)).unwrap_or_default();
            numbers.sort_unstable();
            let rank = (numbers.len() as u64 * u64::from(part)).div_ceil(1_000_000).max(1);
            let exact = numbers[rank as usize - 1];
            prop_assert!(told.abs_diff(exact) as f64 <= exact as f64 * 0.01, "{told} for {exact}");
        }
    }
}

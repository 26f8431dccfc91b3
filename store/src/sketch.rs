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

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sketch {
    /// Bucket and count, sorted by bucket; no count is zero.
    buckets: Vec<(u16, u64)>,
    count: u64,
}

fn bucket_of(number: u64) -> u16 {
    if number < EXACT {
        return number as u16;
    }
    let power = number.ilog2();
    let within = (number >> (power - BITS)) & ((1 << BITS) - 1);
    (EXACT + u64::from(power - EXACT.ilog2()) * (1 << BITS) + within) as u16
}

/// The middle of a bucket.
fn middle(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    if bucket < EXACT {
        return bucket;
    }
    let (octave, within) = ((bucket - EXACT) >> BITS, (bucket - EXACT) & ((1 << BITS) - 1));
    let shift = octave as u32 + EXACT.ilog2() - BITS;
    let first = ((1 << BITS) + within) << shift;
    first + ((1_u64 << shift) >> 1)
}

impl Sketch {
    /// Adds a number.
    pub(crate) fn add(&mut self, number: u64) {
        self.add_bucket(bucket_of(number), 1);
    }

    fn add_bucket(&mut self, bucket: u16, count: u64) {
        self.count += count;
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => {
                if let Some((_, known)) = self.buckets.get_mut(at) {
                    *known += count;
                }
            }
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }

    /// Adds all numbers of another sketch.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.clone_from(other);
            return;
        }
        for (bucket, count) in &other.buckets {
            self.add_bucket(*bucket, *count);
        }
    }

    /// The number that this part of all (from 0 to 1) are not greater than: about the one of rank `ceil(quantile × count)`.
    pub(crate) fn quantile(&self, quantile: f64) -> Option<u64> {
        let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut before = 0;
        let bucket = self.buckets.iter().find(|(_, count)| {
            before += count;
            before >= rank
        });
        bucket.map(|(bucket, _)| middle(*bucket))
    }

    /// Bytes on the heap.
    pub(crate) fn memory(&self) -> usize {
        self.buckets.capacity() * size_of::<(u16, u64)>()
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
        assert_eq!(Sketch::default().quantile(0.5), None);
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
        fn quantiles_are_near(mut numbers in numbers(), quantile in 0.0..=1.0) {
            let told = of(&numbers).quantile(quantile).unwrap_or_default();
            numbers.sort_unstable();
            let exact = numbers[((quantile * numbers.len() as f64).ceil() as usize).clamp(1, numbers.len()) - 1];
            prop_assert!(told.abs_diff(exact) as f64 <= exact as f64 * 0.01, "{told} for {exact}");
        }
    }
}

//! Coarse packet time in four bytes: about a millisecond (2²⁰ ns), wrapping after 52 days.
//!
//! Timers and "how long ago" need no more, and a flow holds several. Ages of more than half the range are read as zero
//! (a packet older than what it is compared with), so whoever compares sees to it that nothing grows that old.

/// Nanoseconds in a unit, as a shift.
pub(super) const UNIT: u32 = 20;

/// A point in packet time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Moment(u32);

impl Moment {
    pub(super) const fn of(time: i64) -> Self {
        Self((time >> UNIT) as u32)
    }

    /// Units from `earlier` to here.
    pub(super) const fn since(self, earlier: Self) -> u32 {
        let age = self.0.wrapping_sub(earlier.0);
        if age < 1 << 31 { age } else { 0 }
    }
}

/// Longest span that timers work with: 3 days.
const LONGEST: u32 = 1 << 28;

/// A timeout in units, at least one.
pub(super) fn units(nanoseconds: i64) -> u32 {
    (nanoseconds >> UNIT).clamp(1, i64::from(LONGEST)) as u32
}

/// Microseconds between two times of packets; `None` if the capture reordered them.
pub(crate) fn micros(from: i64, to: i64) -> Option<u64> {
    u64::try_from(to.checked_sub(from)?).ok().map(|nanos| nanos / 1000)
}

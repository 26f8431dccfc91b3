//! Round trip times from data to its acknowledgement, for the data of one direction.
//!
//! One segment is timed at a time (RFC 6298, 3): the next new one after the last measurement, if the receiver waits for
//! nothing before it that was not seen. By Karn's rule a segment is not timed once it, or anything that is acknowledged
//! with it, was sent again or came late, unless timestamps (RFC 7323) show that the acknowledgement answers the first
//! transmission: it must not echo a later value than the segment's. That also excludes what the capture did not see
//! sent again. What is measured is the capture point → receiver → capture point half, with the receiver's delay of
//! acknowledgements.
//!
//! Measurements do not overlap, so their sum in microseconds fits where an hour does.

/// A time or a span in microseconds; a time wraps after 71 minutes.
pub(super) type Micros = u32;

/// Which 2³¹ µs a time is in; wraps after 6 days.
pub(super) type Turn = u8;

/// Microseconds of a packet's time, and its turn.
#[inline]
pub(super) const fn micros(time: i64) -> (Micros, Turn) {
    let micros = time.div_euclid(1000);
    (micros as Micros, (micros >> 31) as Turn)
}

/// Microseconds between; `None` if the capture reordered the two, or if they are 2³¹ µs (36 minutes) apart or more.
#[inline]
pub(super) const fn elapsed(from: (Micros, Turn), to: (Micros, Turn)) -> Option<Micros> {
    let span = to.0.wrapping_sub(from.0);
    if span < 1 << 31 && to.1.wrapping_sub(from.1) <= 1 { Some(span) } else { None }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Timing {
    /// No segment is timed.
    #[default]
    Idle,
    /// One is.
    Clear,
    /// One is, and something was sent again since: its timestamp must be echoed.
    Ambiguous,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    /// Number after the segment that is timed.
    end: u32,
    sent: Micros,
    sum: u32,
    greatest: u32,
    count: u32,
    /// Low bits of its timestamp value.
    stamp: u16,
    turn: Turn,
    timing: Timing,
}

impl RoundTrips {
    /// New data that ends before `end` was sent.
    #[inline]
    pub(super) fn sent(&mut self, time: i64, end: u32, timestamp: Option<u32>) {
        if self.timing == Timing::Idle {
            (self.end, self.timing) = (end, Timing::Clear);
            (self.sent, self.turn) = micros(time);
            self.stamp = timestamp.unwrap_or_default() as u16;
        }
    }

    /// Something was sent again or came late, with this timestamp.
    pub(super) fn disturbed(&mut self, timestamp: Option<u32>) {
        self.timing = match (self.timing, timestamp) {
            (Timing::Clear | Timing::Ambiguous, Some(value)) if self.is_stamped_later(value) => Timing::Ambiguous,
            // Sent in the same tick of the sender's clock, or so much later that the low bits mislead, the echo says nothing.
            (Timing::Idle | Timing::Clear | Timing::Ambiguous, _) => Timing::Idle,
        };
    }

    /// Whether the low bits show that this timestamp is later than that of the segment that is timed.
    fn is_stamped_later(&self, value: u32) -> bool {
        let later = (value as u16).wrapping_sub(self.stamp);
        later > 0 && later < 1 << 15
    }

    /// The other side acknowledged everything before `ack`.
    #[inline]
    pub(super) fn acknowledged(&mut self, time: i64, ack: u32, echo: Option<u32>) {
        if self.timing == Timing::Idle || ack.wrapping_sub(self.end) >= 1 << 31 {
            return;
        }
        // A receiver echoes the first of the segments that it acknowledges at once (RFC 7323, 4.3).
        let not_later = echo.map(|echo| self.stamp.wrapping_sub(echo as u16) < 1 << 15);
        let answers = not_later.unwrap_or(self.timing == Timing::Clear);
        self.timing = Timing::Idle;
        if let Some(span) = elapsed((self.sent, self.turn), micros(time)).filter(|_| answers) {
            self.sum = self.sum.saturating_add(span);
            self.greatest = self.greatest.max(span);
            self.count += 1;
        }
    }

    /// Mean and greatest, µs.
    pub(super) fn figures(&self) -> Option<(Micros, Micros)> {
        let mean = self.sum.checked_div(self.count)?;
        Some((mean, self.greatest))
    }

    /// Begins the next slice: the segment that is timed goes on.
    pub(super) fn restart(&mut self) {
        (self.sum, self.greatest, self.count) = (0, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_has_no_length() {
        const LIMIT: i64 = 1 << 31;
        let between = |from: i64, to: i64| elapsed(micros(from * 1000), micros(to * 1000));
        for from in [0, 5, LIMIT - 1, LIMIT, 3 * LIMIT + 7, 255 * LIMIT + 9, -3] {
            for span in [0, 1, LIMIT - 1] {
                assert_eq!(between(from, from + span), Some(span as Micros), "{from} {span}");
            }
            for span in [-1, LIMIT, 2 * LIMIT, 2 * LIMIT + 5, 3 * LIMIT + 5, 7 * LIMIT] {
                assert_eq!(between(from, from + span), None, "{from} {span}");
            }
        }
    }
}

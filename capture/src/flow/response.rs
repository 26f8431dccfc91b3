//! Response times: the last byte of a request to the first byte of its answer, at the capture point.
//!
//! Whatever the client sends until the server answers is one request, whether in one segment or many, pipelined or not.
//! Only new payload counts: a repetition neither starts nor stops the clock, and of the server's a late segment does not if
//! payload behind it was seen (it belongs to an answer that has begun). An answer that was lost before the capture, of which
//! just the number of a later acknowledgement was seen, comes late and is one; of a longer answer whose first segment was
//! lost the next one stops the clock. A greeting of the server answers nothing. The flights of a TLS handshake are exchanges
//! too. For UDP a request is whatever the client sends, a repetition restarts the clock.
//! An ICMP echo is answered by the one with its identifier and sequence number, while no other was asked for since.
//! An answer after 36 minutes or more has no time: subscriptions are no requests.

use std::num::NonZeroU32;

use super::rtt::{Turn, elapsed, micros};
use crate::record::Responses;

/// Most times of a slice; more are not looked at.
const MOST: u32 = (1 << 24) - 1;

/// Response times of a slice, and the request that waits for its answer.
#[derive(Debug, Default)]
pub(super) struct ResponseTimes {
    asked: Option<NonZeroU32>,
    first: u32,
    /// Times do not overlap, so their sum fits.
    sum: u32,
    greatest: u32,
    /// How many, in the lower 24 bits; above them the turn of `asked`.
    count_and_turn: u32,
}

impl ResponseTimes {
    const fn count(&self) -> u32 {
        self.count_and_turn & MOST
    }

    const fn turn(&self) -> Turn {
        (self.count_and_turn >> 24) as Turn
    }

    /// The client sent new payload.
    #[inline]
    pub(super) fn asked(&mut self, time: i64) {
        let (asked, turn) = micros(time);
        self.asked = Some(NonZeroU32::new(asked).unwrap_or(NonZeroU32::MIN));
        self.count_and_turn = self.count() | u32::from(turn) << 24;
    }

    /// The server sent new payload.
    #[inline]
    pub(super) fn answered(&mut self, time: i64) {
        let Some(asked) = self.asked.take() else { return };
        let Some(span) = elapsed((asked.get(), self.turn()), micros(time)) else { return };
        match self.count() {
            0 => self.first = span,
            1..MOST => {}
            MOST.. => return,
        }
        self.count_and_turn += 1;
        self.sum = self.sum.saturating_add(span);
        self.greatest = self.greatest.max(span);
    }

    /// The figures of the slice.
    pub(super) fn figures(&self) -> Option<Responses> {
        let mean = self.sum.checked_div(self.count())?;
        Some(Responses { first_us: self.first, avg_us: mean, max_us: self.greatest, count: self.count() })
    }

    /// Begins the next slice: a request still waits for its answer.
    pub(super) fn restart(&mut self) {
        *self = Self { asked: self.asked, count_and_turn: self.count_and_turn & !MOST, ..Self::default() };
    }
}

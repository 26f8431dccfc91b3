//! Response times: the last byte of a request to the first byte of its answer, at the capture point.
//!
//! Whatever the client sends until the server answers is one request, whether in one segment or many, pipelined or not.
//! Only new payload counts: a repetition neither starts nor stops the clock, and of the server's only what advances the
//! stream (a late segment belongs to an answer that has begun). A greeting of the server answers nothing. The flights of
//! a TLS handshake are exchanges too. For UDP a request is whatever the client sends, a repetition restarts the clock.

use std::num::NonZeroU32;

use super::rtt::{elapsed, micros};
use crate::record::Responses;

/// Response times of a slice, and the request that waits for its answer.
#[derive(Debug, Default)]
pub(super) struct ResponseTimes {
    asked: Option<NonZeroU32>,
    first: u32,
    /// Times do not overlap, so their sum fits.
    sum: u32,
    greatest: u32,
    count: u32,
}

impl ResponseTimes {
    /// The client sent new payload.
    #[inline]
    pub(super) fn asked(&mut self, time: i64) {
        self.asked = Some(NonZeroU32::new(micros(time)).unwrap_or(NonZeroU32::MIN));
    }

    /// The server sent new payload.
    #[inline]
    pub(super) fn answered(&mut self, time: i64) {
        let Some(asked) = self.asked.take() else { return };
        let Some(span) = elapsed(asked.get(), micros(time)) else { return };
        if self.count == 0 {
            self.first = span;
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(span);
        self.greatest = self.greatest.max(span);
    }

    /// The figures of the slice.
    pub(super) fn figures(&self) -> Option<Responses> {
        let mean = self.sum.checked_div(self.count)?;
        Some(Responses { first_us: self.first, avg_us: mean, max_us: self.greatest, count: self.count })
    }

    /// Begins the next slice: a request still waits for its answer.
    pub(super) fn restart(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }
}

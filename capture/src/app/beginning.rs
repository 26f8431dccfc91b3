//! The beginning of a direction, kept until it is recognised.

use super::exchange::Passed;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Beginning {
    pub(super) bytes: Vec<u8>,
    pub(super) passed: Passed,
}

impl Beginning {
    pub(super) const NOTHING: Self = Self { bytes: Vec::new(), passed: Passed::at(0) };

    /// Keeps a piece that passed at this time.
    pub(super) fn extend(&mut self, bytes: &[u8], time: i64) {
        if self.bytes.is_empty() {
            self.passed.first = time;
        }
        self.passed.last = time;
        self.bytes.extend_from_slice(bytes);
    }

    /// What there is, of which nothing is kept then.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::NOTHING)
    }
}

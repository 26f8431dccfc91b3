//! Cells of stored rows, by column, as the vocabulary means them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use datafusion::arrow::array::ArrayRef;
use wiretag_capture::Value;

use super::rows::value_at;

/// Columns of the same rows, by name. What a column does not hold, or as something else, is not there.
pub(super) struct Cells(HashMap<&'static str, ArrayRef>);

impl Cells {
    pub(super) fn new(columns: impl IntoIterator<Item = (&'static str, ArrayRef)>) -> Self {
        Self(columns.into_iter().collect())
    }

    fn value(&self, column: &str, row: usize) -> Value<'_> {
        self.0.get(column).map_or(Value::Null, |array| value_at(array, row))
    }

    pub(super) fn text(&self, column: &str, row: usize) -> Option<&str> {
        if let Value::Text(Cow::Borrowed(text)) = self.value(column, row) { Some(text) } else { None }
    }

    pub(super) fn number(&self, column: &str, row: usize) -> Option<u64> {
        if let Value::Number(number) = self.value(column, row) { Some(number) } else { None }
    }

    /// A number that fits.
    pub(super) fn small<T: TryFrom<u64>>(&self, column: &str, row: usize) -> Option<T> {
        self.number(column, row).and_then(|number| T::try_from(number).ok())
    }

    pub(super) fn time(&self, column: &str, row: usize) -> Option<i64> {
        if let Value::Time(time) = self.value(column, row) { Some(time) } else { None }
    }

    pub(super) fn ip(&self, column: &str, row: usize) -> Option<IpAddr> {
        self.text(column, row)?.parse().ok()
    }

    pub(super) fn mac(&self, column: &str, row: usize) -> Option<[u8; 6]> {
        let mut bytes = self.text(column, row)?.split(':').map(|byte| u8::from_str_radix(byte, 16));
        let mut mac = [0; 6];
        for byte in &mut mac {
            *byte = bytes.next()?.ok()?;
        }
        bytes.next().is_none().then_some(mac)
    }

    /// The word of a vocabulary that is spelled so.
    pub(super) fn word<T: Copy>(
        &self,
        column: &str,
        row: usize,
        all: &[T],
        spell: impl Fn(T) -> &'static str,
    ) -> Option<T> {
        word(all, spell, self.text(column, row)?)
    }
}

/// The word of a vocabulary that is spelled so.
pub(super) fn word<T: Copy>(all: &[T], spell: impl Fn(T) -> &'static str, text: &str) -> Option<T> {
    all.iter().copied().find(|word| spell(*word) == text)
}

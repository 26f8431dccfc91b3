//! The query over one row in memory: the definition of what a query means. The store answers from this for rows that are
//! not in a file yet; tests prove that its answers from files are the same.

use std::borrow::Cow;
use std::cell::OnceCell;

use wiretag_capture::Value;
use wiretag_enrich::{Record, Tagged};

use super::ast::{Field, Node, Test};

impl<R: Record> Node<R> {
    pub(crate) fn matches(&self, row: &Tagged<R>) -> bool {
        match self {
            Self::All => true,
            Self::And(nodes) => nodes.iter().all(|node| node.matches(row)),
            Self::Or(nodes) => nodes.any(row),
            Self::Not(node) => !node.matches(row),
            Self::Test(field, test) => field.any(row, |value| value_passes(test, value)),
        }
    }
}

impl<R: Record> Field<R> {
    /// Whether its value in the row passes; of a map, that of the key.
    pub(super) fn any(&self, row: &Tagged<R>, passes: impl Fn(&Seen<'_>) -> bool) -> bool {
        match (self.column.get(row), &self.key) {
            (Value::Map(pairs), Some(key)) => pairs
                .iter()
                .filter(|(name, _)| name == key)
                .any(|(_, text)| passes(&Seen::new(Value::Text(Cow::Borrowed(text))))),
            (value, _) => passes(&Seen::new(value)),
        }
    }
}

/// A value, and its text as soon as a test needs that.
pub(super) struct Seen<'a> {
    value: Value<'a>,
    text: OnceCell<String>,
}

impl<'a> Seen<'a> {
    fn new(value: Value<'a>) -> Self {
        Self { value, text: OnceCell::new() }
    }

    pub(super) fn value(&self) -> &Value<'a> {
        &self.value
    }

    /// Addresses in their one spelling; empty for what is no text.
    pub(super) fn text(&self) -> &str {
        match &self.value {
            Value::Text(text) => text,
            Value::Ip(ip) => self.text.get_or_init(|| ip.to_string()),
            Value::Mac(mac) => self.text.get_or_init(|| Value::mac_text(*mac)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Time(_) | Value::Map(_) => "",
        }
    }
}

pub(super) fn value_passes(test: &Test, seen: &Seen<'_>) -> bool {
    match (test, seen.value()) {
        (_, Value::Null) => false,
        (Test::Exists, _) => true,
        (Test::Bool(wanted), Value::Bool(value)) => wanted == value,
        (Test::Number(compare, wanted), Value::Number(value)) => compare.holds(value, wanted),
        (Test::Time(compare, wanted), Value::Time(value)) => compare.holds(value, wanted),
        (Test::Text(test), Value::Ip(ip)) => test.admits(*ip).unwrap_or_else(|| test.matches(seen.text())),
        (Test::NotText(test), Value::Ip(ip)) => !test.admits(*ip).unwrap_or_else(|| test.matches(seen.text())),
        (_, Value::Text(_) | Value::Ip(_) | Value::Mac(_)) => text_passes(test, seen.text()),
        (_, Value::Bool(_) | Value::Number(_) | Value::Time(_) | Value::Map(_)) => false,
    }
}

/// Whether a text passes.
pub(crate) fn text_passes(test: &Test, text: &str) -> bool {
    match test {
        Test::Exists => true,
        Test::Text(test) => test.matches(text),
        Test::NotText(test) => !test.matches(text),
        Test::Bool(_) | Test::Number(..) | Test::Time(..) => false,
    }
}

//! The query over one row in memory: the definition of what a query means. The store answers from this for rows that are
//! not in a file yet; tests prove that its answers from files are the same.

use wiretag_capture::Value;
use wiretag_enrich::{Record, Tagged};

use super::ast::{Field, Node, Test};

impl<R: Record> Node<R> {
    pub(crate) fn matches(&self, row: &Tagged<R>) -> bool {
        match self {
            Self::All => true,
            Self::And(nodes) => nodes.iter().all(|node| node.matches(row)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(row)),
            Self::Not(node) => !node.matches(row),
            Self::Test(field, test) => field.passes(row, test),
        }
    }
}

impl<R: Record> Field<R> {
    fn passes(&self, row: &Tagged<R>, test: &Test) -> bool {
        match (self.column.get(row), &self.key) {
            (Value::Map(pairs), Some(key)) => pairs.iter().any(|(name, text)| name == key && text_passes(test, text)),
            (value, _) => value_passes(test, &value),
        }
    }
}

fn value_passes(test: &Test, value: &Value<'_>) -> bool {
    match (test, value) {
        (_, Value::Null) => false,
        (Test::Exists, _) => true,
        (Test::Bool(wanted), Value::Bool(value)) => wanted == value,
        (Test::Number(compare, wanted), Value::Number(value)) => compare.holds(value, wanted),
        (Test::Time(compare, wanted), Value::Time(value)) => compare.holds(value, wanted),
        (_, Value::Text(text)) => text_passes(test, text),
        (_, Value::Ip(ip)) => text_passes(test, &ip.to_string()),
        (_, Value::Mac(mac)) => text_passes(test, &Value::mac_text(*mac)),
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

//! The query over one flow in memory: the definition of what a query means. The flow store answers from this for rows
//! that are not in a file yet; tests prove that its answers from files are the same.

use wiretag_capture::Value;
use wiretag_enrich::TaggedFlow;

use super::ast::{Field, Node, Test};

impl Node {
    pub(crate) fn matches(&self, flow: &TaggedFlow) -> bool {
        match self {
            Self::All => true,
            Self::And(nodes) => nodes.iter().all(|node| node.matches(flow)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(flow)),
            Self::Not(node) => !node.matches(flow),
            Self::Test(field, test) => field.passes(flow, test),
        }
    }
}

impl Field {
    fn passes(&self, flow: &TaggedFlow, test: &Test) -> bool {
        match (self.column.get(flow), &self.key) {
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

fn text_passes(test: &Test, text: &str) -> bool {
    match test {
        Test::Exists => true,
        Test::Text(test) => test.matches(text),
        Test::NotText(test) => !test.matches(text),
        Test::Bool(_) | Test::Number(..) | Test::Time(..) => false,
    }
}

//! Rows as CSV, RFC 4180; ends of lines are up to the writer.

use serde_json::{Map, Value};

/// A row's cells in the order of `names`; null is empty.
pub fn line(names: &[&str], row: &Map<String, Value>) -> String {
    let cells = names.iter().map(|name| cell(&text(row.get(*name).unwrap_or(&Value::Null))));
    cells.collect::<Vec<_>>().join(",")
}

fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_must_be() {
        assert_eq!(cell("web"), "web");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(cell("two\nlines"), "\"two\nlines\"");
    }
}

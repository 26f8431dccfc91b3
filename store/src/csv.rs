//! Rows as CSV (RFC 4180).

use serde_json::{Map, Value};

/// One row, without the end of the line: the columns with these names.
pub fn line<'a>(names: impl IntoIterator<Item = &'a str>, row: &Map<String, Value>) -> String {
    let cells = names.into_iter().map(|name| cell(&text_of(row.get(name).unwrap_or(&Value::Null))));
    cells.collect::<Vec<_>>().join(",")
}

/// The names of columns as the first line.
pub fn header<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(cell).collect::<Vec<_>>().join(",")
}

fn cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn only_what_needs_it_is_quoted() {
        assert_eq!(cell("web"), "web");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"hi\""), "\"say \"\"hi\"\"\"");
    }
}

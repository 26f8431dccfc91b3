//! Rows as CSV (RFC 4180).
//!
//! Values are what they are: who reads the file with a program gets what was in the packets. Spreadsheets take some of them for formulas, which
//! `docs/query-language.md` says.

use serde_json::{Map, Value};

/// One row, without the end of the line: the columns with these names.
pub fn line<'a>(names: impl IntoIterator<Item = &'a str>, row: &Map<String, Value>) -> String {
    let cells = names.into_iter().map(|name| match row.get(name) {
        // Not the same as no value, which is nothing at all.
        Some(Value::String(text)) if text.is_empty() => "\"\"".to_owned(),
        value => cell(&text_of(value.unwrap_or(&Value::Null))),
    });
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
    use serde_json::json;

    use super::{cell, line};

    #[test]
    fn an_empty_text_is_not_no_value() {
        let row = json!({"a": "", "b": null, "c": "x"});
        assert_eq!(line(["a", "b", "c", "d"], row.as_object().expect("an object")), "\"\",,x,");
    }

    #[test]
    fn only_what_needs_it_is_quoted() {
        assert_eq!(cell("web"), "web");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"hi\""), "\"say \"\"hi\"\"\"");
    }
}

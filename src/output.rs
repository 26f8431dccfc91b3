//! Rows to the terminal: a table that fits, JSON lines, CSV. Nothing but data goes to stdout.

use std::io::{self, BufWriter, Write};

use comfy_table::{ContentArrangement, Table};
use serde_json::{Map, Value};

/// A row as the store hands it out, columns in the order of the vocabulary.
pub(crate) type Row = Map<String, Value>;

/// Whether the reader of our stdout went away, which is no error for a command in a pipe.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// An error and its causes; what one of them has said already is not said again.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

/// Locked, buffered stdout.
pub(crate) fn stdout() -> BufWriter<io::StdoutLock<'static>> {
    BufWriter::with_capacity(1 << 16, io::stdout().lock())
}

/// One JSON object a line.
pub(crate) fn json_lines<'a>(rows: impl IntoIterator<Item = &'a Row>) -> anyhow::Result<()> {
    let mut out = stdout();
    for row in rows {
        serde_json::to_writer(&mut out, row)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// The first line of RFC 4180.
pub(crate) fn csv_header(names: &[&str]) -> anyhow::Result<()> {
    let mut out = stdout();
    writeln!(out, "{}", names.join(","))?;
    Ok(out.flush()?)
}

/// RFC 4180 without a header.
pub(crate) fn csv(names: &[&str], rows: &[Row]) -> anyhow::Result<()> {
    let mut out = stdout();
    for row in rows {
        let cells: Vec<String> =
            names.iter().map(|name| csv_cell(&text_of(row.get(*name).unwrap_or(&Value::Null)))).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(out.flush()?)
}

fn csv_cell(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Prints `rows` under `header`, as wide as the terminal.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(terminal_width());
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let mut out = stdout();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out.flush()?)
}

/// Columns of the terminal; 200 where stdout is none.
fn terminal_width() -> u16 {
    console::Term::stdout().size_checked().map_or(200, |(_, width)| width)
}

/// A time in ns since the epoch as RFC 3339, UTC.
pub(crate) fn time(nanoseconds: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(nanoseconds).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

/// Microseconds in the unit that reads best.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}µs"),
        1_000..1_000_000 => format!("{:.1}ms", us as f64 / 1e3),
        _ => format!("{:.1}s", us as f64 / 1e6),
    }
}

/// Bytes in the unit that reads best.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => bytes.to_string(),
        10_000..10_000_000 => format!("{:.0}k", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.0}M", bytes as f64 / 1e6),
        _ => format!("{:.0}G", bytes as f64 / 1e9),
    }
}

/// Time between two RFC 3339 times.
pub(crate) fn duration_between(start: &str, end: &str) -> String {
    let parse = |text| chrono::DateTime::parse_from_rfc3339(text).ok();
    let (Some(start), Some(end)) = (parse(start), parse(end)) else { return String::new() };
    (end - start).num_microseconds().and_then(|us| u64::try_from(us).ok()).map_or(String::new(), micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_each_cause_once() {
        let inner = std::io::Error::other("disk full");
        let error = anyhow::Error::new(inner).context("cannot write `x`: disk full; hint: y").context("at the end");
        assert_eq!(error_text(&error), "at the end: cannot write `x`: disk full; hint: y");
    }

    #[test]
    fn csv_quotes_only_what_needs_it() {
        assert_eq!(csv_cell("web"), "web");
        assert_eq!(csv_cell("a,b"), "\"a,b\"");
        assert_eq!(csv_cell("say \"hi\""), "\"say \"\"hi\"\"\"");
    }
}

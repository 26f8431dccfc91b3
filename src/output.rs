//! Rows to the terminal: a table that fits, JSON lines, CSV. Nothing but data goes to stdout.

use std::io::{self, BufWriter, Write};

use comfy_table::{ContentArrangement, Table};
use serde_json::{Map, Value};
use wiretag_store::StoreError;

/// A line to stderr. Whoever read it may be gone: that must not end what is being told about.
macro_rules! tell {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{}\n", format_args!($($words)*)));
    }};
}
pub(crate) use tell;

/// A row as the store hands it out, columns in the order of the vocabulary.
pub(crate) type Row = Map<String, Value>;

/// Whether the reader of our stdout went away, which is no error for a command in a pipe.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| {
        let json = || cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        cause.downcast_ref::<io::Error>().map(io::Error::kind).or_else(json)
    };
    error.chain().any(|cause| {
        let receiver_gone = matches!(cause.downcast_ref(), Some(StoreError::Closed));
        receiver_gone || kind(cause) == Some(io::ErrorKind::BrokenPipe)
    })
}

/// An error and its causes in one sentence, each once, the hints last.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let (mut text, mut hints) = (String::new(), String::new());
    for cause in error.chain().map(ToString::to_string) {
        let (what, hint) = cause.split_once("; hint: ").unwrap_or((&cause, ""));
        if !text.contains(what) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(what);
        }
        if !hint.is_empty() && !hints.contains(hint) {
            hints.push_str("; hint: ");
            hints.push_str(hint);
        }
    }
    text + &hints
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
    writeln!(out, "{}", wiretag_store::csv::header(names.iter().copied()))?;
    Ok(out.flush()?)
}

/// RFC 4180 without a header.
pub(crate) fn csv(names: &[&str], rows: &[Row]) -> anyhow::Result<()> {
    let mut out = stdout();
    for row in rows {
        writeln!(out, "{}", wiretag_store::csv::line(names.iter().copied(), row))?;
    }
    Ok(out.flush()?)
}

/// How a table is made to fit a narrow terminal, by column.
#[derive(Clone, Copy)]
pub(crate) struct Fit<'a> {
    /// Its texts are cut.
    pub(crate) cut: usize,
    /// These are left out, first to last, if that is not enough.
    pub(crate) drop: &'a [usize],
}

/// Prints `rows` under `header`, as wide as the terminal; what does not fit even so is wrapped.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>, fit: Option<Fit<'_>>) -> anyhow::Result<()> {
    let (header, rows) = match fit {
        Some(fit) => fitted(header, rows, fit, terminal_width().into()),
        None => (header.to_vec(), rows),
    };
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(terminal_width());
    table.set_header(&header);
    for row in rows {
        table.add_row(row);
    }
    let mut out = stdout();
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(out.flush()?)
}

/// The columns that have room in `width`, with the one that may be cut in what the others leave.
fn fitted<'a>(
    header: &[&'a str],
    rows: Vec<Vec<String>>,
    fit: Fit<'_>,
    width: usize,
) -> (Vec<&'a str>, Vec<Vec<String>>) {
    const LEAST: usize = 12;
    const PADDING: usize = 2;
    let widest = |(column, name): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| console::measure_text_width(cell));
        PADDING + cells.chain([console::measure_text_width(name)]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = header.iter().enumerate().map(widest).collect();
    let mut others = widths.iter().enumerate().filter(|(at, _)| *at != fit.cut).map(|(_, width)| width).sum::<usize>();
    let mut dropped = Vec::new();
    for column in fit.drop {
        if others + PADDING + LEAST <= width {
            break;
        }
        others -= widths.get(*column).copied().unwrap_or(0);
        dropped.push(*column);
    }
    let room = width.saturating_sub(others + PADDING).max(LEAST);
    let keep = |at: &usize| !dropped.contains(at);
    let header = header.iter().enumerate().filter(|(at, _)| keep(at)).map(|(_, name)| *name).collect();
    let row = |cells: Vec<String>| {
        let kept = cells.into_iter().enumerate().filter(|(at, _)| keep(at));
        kept.map(|(at, text)| if at == fit.cut { console::truncate_str(&text, room, "…").into_owned() } else { text })
            .collect()
    };
    (header, rows.into_iter().map(row).collect())
}

/// What a peer wrote, so that it does not control the terminal.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Columns of the terminal; 200 where stdout is none.
fn terminal_width() -> u16 {
    console::Term::stdout().size_checked().map_or(200, |(_, width)| width)
}

/// A time in ns since the epoch as RFC 3339, UTC.
pub(crate) fn time(nanoseconds: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(nanoseconds).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}

/// A time of a row in a table, to the millisecond; the year only if it is not that of `now`, ns.
pub(crate) fn moment(text: &str, now: i64) -> String {
    let year = time(now);
    let from = if text.get(..5) == year.get(..5) { 5 } else { 0 };
    text.get(from..23).unwrap_or_default().replace('T', " ")
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
    fn causes_are_told_once_and_hints_last() {
        let cause = io::Error::from_raw_os_error(21);
        let error = anyhow::Error::new(StoreError::io("read", std::path::Path::new("/tmp"))(cause));
        let told = sentence(&error.context("the catalog; hint: look at it"));
        assert_eq!(told, "the catalog: cannot read `/tmp`: Is a directory (os error 21); hint: look at it");
    }

    #[test]
    fn a_time_has_its_year_unless_it_is_this_one() {
        let now = 1_772_323_200_000_000_000; // 2026-03-01
        assert_eq!(moment("2026-01-31T14:05:12.345678901Z", now), "01-31 14:05:12.345");
        assert_eq!(moment("2025-12-31T23:59:59.999999999Z", now), "2025-12-31 23:59:59.999");
        assert_eq!(moment("", now), "");
    }

    #[test]
    fn a_closed_pipe_is_known_wherever_it_was_noticed() {
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let json = serde_json::Error::io(pipe());
        assert!([anyhow::Error::new(json), pipe().into(), StoreError::Closed.into()].iter().all(is_closed_pipe));
        assert!(!is_closed_pipe(&anyhow::anyhow!("something else")));
    }

    #[test]
    fn a_table_fits_a_narrow_terminal() {
        let rows =
            || vec![vec!["a".repeat(10), "b".repeat(50), "c".repeat(6)], vec!["a".into(), "short".into(), "c".into()]];
        let table = |width| fitted(&["one", "two", "three"], rows(), Fit { cut: 1, drop: &[2] }, width);
        assert_eq!(table(200).1, rows());
        let (header, cut) = table(40);
        assert_eq!((header.len(), &cut[0][1], &cut[1][1]), (3, &format!("{}…", "b".repeat(17)), &"short".to_owned()));
        let (header, cut) = table(30);
        assert_eq!((header, cut[0].len(), cut[0][1].chars().count()), (vec!["one", "two"], 2, 16));
        assert_eq!(table(5).1[0][1].chars().count(), 12, "never nothing");
    }
}

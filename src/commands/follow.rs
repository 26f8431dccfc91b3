//! `wiretag flows --follow`: flows of the running appliance as they are stored (`/api/v1/flows/tail`).
//!
//! Rows come one by one, so the widths of a table are chosen beforehand. What this reader was too slow for is said on stderr.

use std::io::{BufRead, BufReader, Write};

use anyhow::Context;
use serde_json::Value;
use wiretag_capture::FlowRecord;
use wiretag_enrich::tagged::{AnyColumn, all_columns};

use super::WrongUsage;
use super::flows::{HEADER, cells};
use super::search::Search;
use crate::cli::{FlowsArguments, Format};
use crate::client::Appliance;
use crate::output::tell;
use crate::output::{self, Row};

/// Widths of the columns of a table.
const WIDTHS: [usize; HEADER.len()] = [18, 22, 22, 6, 8, 36, 16, 8, 8, 6, 4, 8];

pub(super) fn run(arguments: &FlowsArguments) -> anyhow::Result<()> {
    let search = Search::<FlowRecord>::new(&arguments.search)?;
    let Some(format) = arguments.format.printed().filter(|_| arguments.output.is_none()) else {
        let why =
            "`--follow` has no end, and a file has one; hint: leave out `--follow`, or use `--format json` on stdout";
        return Err(WrongUsage(why.into()).into());
    };
    let Some(appliance) = Appliance::find(&arguments.search.data.data)? else {
        let data = arguments.search.data.data.display();
        return Err(WrongUsage(format!(
            "no appliance runs on `{data}`; hint: `--follow` asks a running `wiretag run`"
        ))
        .into());
    };
    let parameters = [("q", search.text), ("all_observations", search.all_observations.to_string())];
    let body = BufReader::new(appliance.stream("/api/v1/flows/tail", &parameters)?);
    let names: Vec<&str> = all_columns::<FlowRecord>().map(AnyColumn::name).collect();
    let mut out = output::stdout();
    match format {
        Format::Table => writeln!(out, "{}", line(&HEADER.map(str::to_owned)))?,
        Format::Csv => writeln!(out, "{}", names.join(","))?,
        Format::Json => {}
    }
    out.flush()?;
    let mut events = Events::default();
    for text in body.lines() {
        let Some((event, data)) = events.line(&text.context("the appliance stopped answering")?) else { continue };
        let row: Row = serde_json::from_str(&data).context("the appliance's answer is not JSON")?;
        match (event.as_str(), format) {
            ("lost", _) => {
                let rows = row.get("rows").and_then(Value::as_u64).unwrap_or_default();
                tell!("warning: {rows} rows are not shown: they came faster than they were read");
            }
            ("flow", Format::Table) => writeln!(out, "{}", line(&cells(&row, crate::host::now())))?,
            ("flow", Format::Csv) => writeln!(out, "{}", wiretag_store::csv::line(names.iter().copied(), &row))?,
            ("flow", Format::Json) => writeln!(out, "{data}")?,
            _ => {}
        }
        out.flush()?;
    }
    tell!("the appliance stopped");
    Ok(())
}

fn line(cells: &[String]) -> String {
    let padded = cells
        .iter()
        .zip(WIDTHS)
        .map(|(cell, width)| console::pad_str(cell, width, console::Alignment::Left, Some("…")).into_owned());
    padded.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// Server-sent events, line by line (WHATWG HTML, 9.2.6), as far as our server uses them.
#[derive(Default)]
struct Events {
    event: String,
    data: String,
}

impl Events {
    /// Takes a line; gives the event that ends with it.
    fn line(&mut self, line: &str) -> Option<(String, String)> {
        if let Some(event) = line.strip_prefix("event:") {
            event.trim_start().clone_into(&mut self.event);
        } else if let Some(data) = line.strip_prefix("data:") {
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
        } else if line.is_empty() {
            let Self { event, data } = std::mem::take(self);
            return (!data.is_empty()).then_some((event, data));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Events;

    #[test]
    fn events_are_what_stands_between_empty_lines() {
        let mut events = Events::default();
        let text = ":\n\nevent: flow\ndata: {\"a\":1}\n\nevent: lost\ndata: {\"rows\":2}\n\n";
        let found: Vec<_> = text.lines().filter_map(|line| events.line(line)).collect();
        let expected = [("flow", "{\"a\":1}"), ("lost", "{\"rows\":2}")];
        assert_eq!(found, expected.map(|(event, data)| (event.to_owned(), data.to_owned())));
    }
}

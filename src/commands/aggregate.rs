//! Groups and their figures: asked of a running appliance or of the data directory, and printed.

use std::path::Path;

use serde_json::{Map, Value};
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::Aggregate;
use wiretag_store::tables::{AggregateRequest, GroupRow};
use wiretag_store::{Store, Table};

use super::WrongUsage;
use super::search::{Has, Of, Search, warn_of_loss, warn_of_losses};
use crate::cli::Format;
use crate::client::Appliance;
use crate::output::tell;
use crate::output::{self, Row};

/// How the question goes to the appliance: as it was typed, or as a top list.
pub(super) enum Route {
    /// The whole text is the query.
    Typed,
    /// Fields, figures, and how many groups.
    Top { field: String, by: String, limit: u32 },
}

/// What is wanted of the answer.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) compare: bool,
    pub(super) format: Format,
}

/// A column of the answer.
struct Column {
    name: String,
    kind: String,
    key: bool,
}

/// An answer, wherever it came from.
struct Answer {
    columns: Vec<Column>,
    rows: Vec<Row>,
    groups: u64,
}

/// Asks and prints.
pub(super) async fn run<R: Table>(
    search: &Search<R>,
    aggregate: Aggregate<R>,
    route: Route,
    way: Way,
    data: &Path,
) -> anyhow::Result<()>
where
    Store: Has<R>,
{
    if way.compare && search.range.from == 0 {
        return Err(
            WrongUsage("`--compare` needs to know where the period begins; hint: add `--from -1h`".into()).into()
        );
    }
    let answer = answer(search, aggregate, route, way.compare, data).await?;
    print(&answer, way, R::NAME.as_str())
}

/// How many rows there are.
pub(super) async fn count<R: Table>(search: &Search<R>, aggregate: Aggregate<R>, data: &Path) -> anyhow::Result<u64>
where
    Store: Has<R>,
{
    let answer = answer(search, aggregate, Route::Typed, false, data).await?;
    Ok(answer.rows.first().and_then(|row| row.get("count")).and_then(Value::as_u64).unwrap_or_default())
}

async fn answer<R: Table>(
    search: &Search<R>,
    aggregate: Aggregate<R>,
    route: Route,
    compare: bool,
    data: &Path,
) -> anyhow::Result<Answer>
where
    Store: Has<R>,
{
    match Appliance::find(data)? {
        Some(appliance) => asked(&appliance, search, route, compare),
        None => read(search, aggregate, compare, data).await,
    }
}

fn asked<R: Table>(appliance: &Appliance, search: &Search<R>, route: Route, compare: bool) -> anyhow::Result<Answer> {
    let mut parameters = search.parameters();
    parameters.push(("compare", compare.to_string()));
    let path = match route {
        Route::Typed => "aggregate",
        Route::Top { field, by, limit } => {
            parameters.extend([("field", field), ("by", by), ("limit", limit.to_string())]);
            "top"
        }
    };
    let mut answer = appliance.json(&format!("/api/v1/{}/{path}", R::NAME), &parameters)?;
    warn_of_loss(&answer, (search.range, Of::Rows));
    let mut list =
        |name: &str| answer.get_mut(name).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let text = |column: &Value, name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let columns = list("columns").into_iter().map(|column| Column {
        name: text(&column, "name"),
        kind: text(&column, "kind"),
        key: column.get("key").and_then(Value::as_bool).unwrap_or_default(),
    });
    let columns = columns.collect();
    let rows = list("rows").into_iter().filter_map(|row| match row {
        Value::Object(row) => Some(row),
        _ => None,
    });
    let rows = rows.collect();
    Ok(Answer { columns, rows, groups: answer.get("groups").and_then(Value::as_u64).unwrap_or_default() })
}

async fn read<R: Table>(
    search: &Search<R>,
    aggregate: Aggregate<R>,
    compare: bool,
    data: &Path,
) -> anyhow::Result<Answer>
where
    Store: Has<R>,
{
    let store = Store::open_read_only(data).await?;
    let request = AggregateRequest {
        filter: search.query.clone(),
        aggregate,
        range: search.range,
        all_observations: search.all_observations,
        compare,
        memory: DEFAULT_MEMORY,
    };
    let answer = Has::<R>::table(&store).aggregate(&request).await?;
    warn_of_losses(&store, (request.time(), Of::Rows), answer.served_by.rollable).await?;
    let columns = answer.columns.into_iter().map(|column| Column {
        name: column.name,
        kind: column.kind.name(),
        key: column.is_key,
    });
    let rows = answer.rows.iter().map(GroupRow::to_map).collect();
    Ok(Answer { columns: columns.collect(), rows, groups: answer.groups })
}

fn print(answer: &Answer, way: Way, table: &str) -> anyhow::Result<()> {
    let names: Vec<&str> = answer.columns.iter().map(|column| column.name.as_str()).collect();
    match way.format {
        Format::Json => output::json_lines(&answer.rows),
        Format::Csv => {
            output::csv_header(&names)?;
            output::csv(&names, &answer.rows)
        }
        Format::Table => {
            if answer.rows.is_empty() {
                tell!("no {table} match");
                return Ok(());
            }
            let (header, rows) = cells(answer, way.compare);
            output::table(&header.iter().map(String::as_str).collect::<Vec<_>>(), rows, None)?;
            let more = answer.groups.saturating_sub(answer.rows.len() as u64);
            if more > 0 {
                tell!("{more} more groups");
            }
            Ok(())
        }
    }
}

/// Cells of a table; with a comparison each figure is followed by how much it changed.
fn cells(answer: &Answer, compare: bool) -> (Vec<String>, Vec<Vec<String>>) {
    let is_before = |column: &Column| compare && !column.key && column.name.starts_with("previous_");
    let shown: Vec<&Column> = answer.columns.iter().filter(|column| !is_before(column)).collect();
    let mut header = Vec::new();
    for column in &shown {
        header.push(column.name.clone());
        if compare && !column.key {
            header.push("change".to_owned());
        }
    }
    let row = |row: &Row| {
        let mut cells = Vec::new();
        for column in &shown {
            let value = row.get(&column.name).unwrap_or(&Value::Null);
            cells.push(cell(value, &column.kind, column.key));
            if compare && !column.key {
                cells.push(change(row.get(&format!("previous_{}", column.name)), value));
            }
        }
        cells
    };
    (header, answer.rows.iter().map(row).collect())
}

fn cell(value: &Value, kind: &str, key: bool) -> String {
    match (value, kind) {
        (Value::Null, _) => if key { "(none)" } else { "-" }.to_owned(),
        (Value::String(text), "time") => text.get(..19).unwrap_or(text).replace('T', " "),
        (Value::String(text), _) => output::harmless(text),
        (Value::Number(number), "size") => output::bytes(number.as_f64().unwrap_or_default() as u64),
        (Value::Number(number), "duration") => output::micros(number.as_f64().unwrap_or_default() as u64),
        (Value::Number(number), "size_per_second") => {
            format!("{}/s", output::bytes(number.as_f64().unwrap_or_default() as u64))
        }
        (Value::Number(number), _) if number.is_f64() => format!("{:.2}", number.as_f64().unwrap_or_default()),
        (value, _) => value.to_string(),
    }
}

/// `+12 %`, `-3 %`, `new`, `gone`.
fn change(before: Option<&Value>, now: &Value) -> String {
    let number = |value: &Value| value.as_f64().filter(|value| *value != 0.0);
    match (before.and_then(number), number(now)) {
        (None, None) => String::new(),
        (None, Some(_)) => "new".to_owned(),
        (Some(_), None) => "gone".to_owned(),
        (Some(before), Some(now)) => format!("{:+.0} %", (now / before - 1.0) * 100.0),
    }
}

/// Rows of any names, as tables print them.
pub(super) fn plain(names: &[&str], rows: &[Map<String, Value>]) -> anyhow::Result<()> {
    let row = |row: &Map<String, Value>| {
        let cells = names.iter().map(|name| match row.get(*name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => output::harmless(text),
            Some(other) => other.to_string(),
        });
        cells.collect()
    };
    output::table(names, rows.iter().map(row).collect(), None)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_in_words_of_a_terminal() {
        for (value, kind, key, expected) in [
            (json!(null), "text", true, "(none)"),
            (json!(null), "duration", false, "-"),
            (json!("2026-03-01T00:01:00.000000000Z"), "time", true, "2026-03-01 00:01:00"),
            (json!("a\u{1b}[2J"), "text", true, "a\u{fffd}[2J"),
            (json!(7), "number", false, "7"),
            (json!(1.5), "number_per_second", false, "1.50"),
        ] {
            assert_eq!(cell(&value, kind, key), expected);
        }
        assert!(cell(&json!(2_000_000), "size_per_second", false).ends_with("/s"));
    }

    #[test]
    fn changes() {
        for (before, now, expected) in [
            (json!(100), json!(112), "+12 %"),
            (json!(100), json!(50.0), "-50 %"),
            (json!(null), json!(1), "new"),
            (json!(0), json!(0), ""),
            (json!(3), json!(null), "gone"),
        ] {
            assert_eq!(change(Some(&before), &now), expected);
        }
    }
}

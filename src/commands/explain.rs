//! `wiretag flows --explain`: how a query is answered.

use std::time::Instant;

use serde_json::{Map, Value, json};
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::query::Aggregate;
use wiretag_store::tables::{ExplainRequest, Explanation};
use wiretag_store::{Store, Table, query::Statement};

use super::search::{Has, Search};
use crate::cli::{FlowsArguments, RowsFormat};
use crate::client::Appliance;
use crate::output::{self, Row};

/// Asks and prints.
pub(super) async fn run<R: Table>(
    search: &Search<R>,
    aggregate: Option<Aggregate<R>>,
    arguments: &FlowsArguments,
) -> anyhow::Result<()>
where
    Store: Has<R>,
{
    let data = &arguments.search.data.data;
    let answer = match Appliance::find(data)? {
        Some(appliance) => asked(&appliance, search, arguments.page())?,
        None => read(search, aggregate, arguments).await?,
    };
    if arguments.format == RowsFormat::Json {
        return output::json_lines([&answer]);
    }
    print(&answer)
}

fn asked<R: Table>(appliance: &Appliance, search: &Search<R>, limit: u32) -> anyhow::Result<Row> {
    let question = json!({
        "q": search.text,
        "table": R::NAME.as_str(),
        "from": output::time(search.range.from),
        "to": output::time(search.range.to),
        "all_observations": search.all_observations,
        "limit": limit.min(10_000),
    });
    Ok(appliance.post("/api/v1/explain", &question)?.as_object().cloned().unwrap_or_default())
}

#[allow(clippy::disallowed_methods, reason = "how long it took is what is asked")]
async fn read<R: Table>(
    search: &Search<R>,
    aggregate: Option<Aggregate<R>>,
    arguments: &FlowsArguments,
) -> anyhow::Result<Row>
where
    Store: Has<R>,
{
    let store = Store::open_read_only(&arguments.search.data.data).await?;
    let request = ExplainRequest {
        statement: Statement { filter: search.query.clone(), aggregate },
        range: search.range,
        all_observations: search.all_observations,
        limit: arguments.page() as usize,
        after: None,
        memory: DEFAULT_MEMORY,
    };
    let begin = Instant::now();
    let Explanation { steps, answer_rows, files, rows, work, plans } =
        Has::<R>::table(&store).explain(&request).await?;
    let numbers = [
        ("answer_rows", answer_rows),
        ("elapsed_us", begin.elapsed().as_micros() as u64),
        ("files", files),
        ("rows", rows),
        ("memory_rows", work.memory_rows),
        ("files_in_range", work.files_in_range),
        ("files_candidates", work.files_candidates),
        ("files_opened", work.files_opened),
        ("rows_found", work.rows_found),
        ("bytes_read", work.bytes_read),
        ("row_groups", work.row_groups),
        ("row_groups_pruned", work.row_groups_pruned),
        ("row_groups_pruned_by_bloom", work.row_groups_pruned_by_bloom),
        ("rollups", work.rollups),
        ("rolled_rows", work.rolled_rows),
    ];
    let mut answer: Map<String, Value> = Map::new();
    answer.insert("steps".into(), steps.into());
    answer.extend(numbers.into_iter().map(|(name, number)| (name.to_owned(), number.into())));
    answer.insert("plans".into(), plans.into());
    Ok(answer)
}

fn print(answer: &Row) -> anyhow::Result<()> {
    use std::io::Write;
    let number = |name: &str| answer.get(name).and_then(Value::as_u64).unwrap_or_default();
    let texts = |name: &str| {
        let list = answer.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut out = output::stdout();
    for step in texts("steps") {
        writeln!(out, "* {step}")?;
    }
    writeln!(out, "\nanswer      {} rows in {}", number("answer_rows"), output::micros(number("elapsed_us")))?;
    writeln!(out, "memory      {} rows looked at", number("memory_rows"))?;
    writeln!(
        out,
        "files       {} of {} opened; {} in the range, {} of these could not be left out",
        number("files_opened"),
        number("files"),
        number("files_in_range"),
        number("files_candidates")
    )?;
    writeln!(
        out,
        "row groups  {}; {} left out by statistics, {} by bloom filters",
        number("row_groups"),
        number("row_groups_pruned"),
        number("row_groups_pruned_by_bloom")
    )?;
    if number("rollups") > 0 {
        writeln!(
            out,
            "roll-ups    {} read in place of rows, {} of their rows added up",
            number("rollups"),
            number("rolled_rows")
        )?;
    }
    writeln!(
        out,
        "read        {} bytes, {} rows found of {} that the table has in files",
        number("bytes_read"),
        number("rows_found"),
        number("rows")
    )?;
    for plan in texts("plans") {
        writeln!(out, "\n{}", plan.trim_end())?;
    }
    Ok(out.flush()?)
}

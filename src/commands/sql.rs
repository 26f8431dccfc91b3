//! `wiretag sql`: questions in SQL to a running appliance or to the data directory.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use wiretag_store::limits::DEFAULT_MEMORY;
use wiretag_store::sql::{SqlAnswer, SqlRequest};
use wiretag_store::tables::Range;
use wiretag_store::{QueryLimits, Store, StoreError};

use super::search::{Of, warn_of_loss, warn_of_losses};
use super::{WrongUsage, aggregate};
use crate::cli::{Format, SqlArguments};
use crate::client::Appliance;
use crate::output;
use crate::output::tell;

/// What a question in SQL is about is not known.
const ALWAYS: Range = Range { from: 0, to: i64::MAX };

pub(crate) async fn run(arguments: &SqlArguments) -> anyhow::Result<()> {
    let mut text = arguments.query.clone();
    if text == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
    }
    let answer = match Appliance::find(&arguments.data.data)? {
        Some(appliance) => asked(&appliance, &text, arguments.limit)?,
        None => read(arguments, text).await?,
    };
    let names: Vec<&str> = answer.columns.iter().map(|(name, _)| name.as_str()).collect();
    match arguments.format {
        Format::Json => output::json_lines(&answer.rows)?,
        Format::Csv => {
            output::csv_header(&names)?;
            output::csv(&names, &answer.rows)?;
        }
        Format::Table => aggregate::plain(&names, &answer.rows)?,
    }
    if answer.truncated {
        tell!("only the first {} rows; hint: `--limit` shows more", answer.rows.len());
    }
    Ok(())
}

fn asked(appliance: &Appliance, text: &str, limit: u32) -> anyhow::Result<SqlAnswer> {
    let answer = appliance.post("/api/v1/sql", &json!({"query": text, "limit": limit}))?;
    warn_of_loss(&answer, (ALWAYS, Of::Rows));
    let list = |name: &str| answer.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let word = |column: &Value, name: &str| column.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(SqlAnswer {
        columns: list("columns").iter().map(|column| (word(column, "name"), word(column, "kind"))).collect(),
        rows: list("rows").into_iter().filter_map(|row| row.as_object().cloned()).collect(),
        truncated: answer.get("truncated").and_then(Value::as_bool).unwrap_or_default(),
    })
}

async fn read(arguments: &SqlArguments, text: String) -> anyhow::Result<SqlAnswer> {
    let store = Store::open_read_only(&arguments.data.data).await?;
    let identities = Arc::new(store.catalog.timeline().await?.view());
    let request = SqlRequest { text, limit: arguments.limit as usize, memory: DEFAULT_MEMORY, rows: None };
    let limit = QueryLimits::default().time;
    let Ok(answer) = tokio::time::timeout(limit, store.sql(&request, identities)).await else {
        bail!(
            "the query took longer than {} s; hint: ask for a shorter time or less, or ask while `wiretag run` has the data: `queries.seconds` in its \
             configuration is the limit then",
            limit.as_secs()
        );
    };
    let answer = answer.map_err(|error| match error {
        StoreError::Sql(sentence) => WrongUsage(sentence).into(),
        error => anyhow::Error::from(error),
    })?;
    warn_of_losses(&store, (ALWAYS, Of::Rows), false).await?;
    Ok(answer)
}

//! What searches have in common: the question, checked, and the answer of a running appliance or of the data directory.

use anyhow::Context;
use serde_json::Value;
use wiretag_store::query::{self, Query};
use wiretag_store::tables::{Range, SearchOptions, TableStore};
use wiretag_store::{Store, Table};

use crate::cli::SearchArguments;
use crate::client::Appliance;
use crate::commands::WrongUsage;
use crate::output::Row;

/// A search over a table, checked.
pub(crate) struct Search<R: 'static> {
    pub(crate) text: String,
    pub(crate) query: Query<R>,
    pub(crate) range: Range,
    pub(crate) all_observations: bool,
}

impl<R: Table> Search<R> {
    pub(crate) fn new(arguments: &SearchArguments) -> anyhow::Result<Self> {
        let now = crate::host::now();
        let query = query::parse_at(&arguments.query, now).map_err(|error| WrongUsage(error.to_string()))?;
        let from = arguments.from.as_deref().map_or(Ok(0), |text| parse_time(text, now))?;
        let to = arguments.to.as_deref().map_or(Ok(now), |text| parse_time(text, now))?;
        if from >= to {
            let message = match arguments.to {
                Some(_) => "the time range is empty: `--from` is not before `--to`; hint: swap them",
                None => {
                    "the time range is empty: `--from` is not before now; hint: what is over has a minus, as in `--from -1h`"
                }
            };
            return Err(WrongUsage(message.into()).into());
        }
        let all_observations = arguments.all_observations;
        Ok(Self { text: arguments.query.clone(), query, range: Range { from, to }, all_observations })
    }

    /// As parameters of the HTTP interface.
    pub(crate) fn parameters(&self) -> Vec<(&'static str, String)> {
        vec![
            ("q", self.text.clone()),
            ("from", crate::output::time(self.range.from)),
            ("to", crate::output::time(self.range.to)),
            ("all_observations", self.all_observations.to_string()),
        ]
    }

    /// Pages through the running appliance's answer.
    pub(crate) fn ask(&self, appliance: &Appliance, limit: u32) -> anyhow::Result<Vec<Row>> {
        const PAGE: usize = 10_000;
        let table = R::NAME.as_str();
        let mut rows = Vec::new();
        let mut after: Option<String> = None;
        while rows.len() < limit as usize {
            let mut parameters = self.parameters();
            parameters.push(("limit", PAGE.min(limit as usize - rows.len()).to_string()));
            parameters.extend(after.map(|cursor| ("after", cursor)));
            let mut answer = appliance.json(&format!("/api/v1/{table}"), &parameters)?;
            if rows.is_empty() {
                warn_of_loss(&answer);
            }
            let page = answer.get_mut(table).and_then(Value::as_array_mut);
            let page = page.with_context(|| format!("the answer has no `{table}`"))?;
            rows.extend(page.drain(..).filter_map(|row| match row {
                Value::Object(row) => Some(row),
                _ => None,
            }));
            after = answer.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() {
                break;
            }
        }
        Ok(rows)
    }

    /// Reads the data directory.
    pub(crate) async fn read(&self, store: &Store, table: &TableStore<R>, limit: u32) -> anyhow::Result<Vec<Row>> {
        for loss in store.completeness(self.range.from, self.range.to).await? {
            loss_sentence(&loss.node, loss.kernel_drops, loss.queue_drops);
        }
        let options = SearchOptions { limit: limit as usize, all_observations: self.all_observations, after: None };
        Ok(table.search(&self.query, self.range, options).await?.rows)
    }
}

/// A time as users write it; a wrong one is wrong usage.
pub(crate) fn parse_time(text: &str, now: i64) -> anyhow::Result<i64> {
    query::parse_time(text, now).map_err(|error| WrongUsage(error.to_string()).into())
}

/// Loss in the range goes to stderr: stdout holds nothing but data.
fn warn_of_loss(answer: &Value) {
    let nodes = answer.pointer("/completeness/nodes").and_then(Value::as_array);
    for node in nodes.into_iter().flatten() {
        let count = |name: &str| node.get(name).and_then(Value::as_u64).unwrap_or(0);
        loss_sentence(
            node.get("node").and_then(Value::as_str).unwrap_or(""),
            count("kernel_drops"),
            count("queue_drops"),
        );
    }
}

fn loss_sentence(node: &str, kernel: u64, queue: u64) {
    if kernel + queue > 0 {
        eprintln!("warning: incomplete on node `{node}`: {kernel} packets dropped by the kernel, {queue} not kept");
    }
}

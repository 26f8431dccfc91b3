//! What searches have in common: the question, checked, and the answer of a running appliance or of the data directory.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_store::query::{self, Aggregate, Query, Statement};
use wiretag_store::tables::{self, Missing, Range, SearchOptions, TableStore};
use wiretag_store::{Loss, MissingPackets, RetiredItems, Store, Table};

use crate::cli::SearchArguments;
use crate::client::{Appliance, holder};
use crate::commands::WrongUsage;
use crate::output::Row;
use crate::output::tell;

/// Rows that are in memory at once.
const PAGE: usize = 5_000;
/// Rows that are turned into what is printed at once.
const PORTION: usize = 256;
const SECOND: u64 = 1_000_000_000;

/// A search over a table, checked.
pub(crate) struct Search<R: 'static> {
    pub(crate) text: String,
    pub(crate) query: Query<R>,
    pub(crate) range: Range,
    pub(crate) all_observations: bool,
}

impl<R: Table> Search<R> {
    pub(crate) fn new(arguments: &SearchArguments) -> anyhow::Result<Self> {
        let query = query::parse_at(&arguments.query, crate::host::now());
        Self::with(arguments, query.map_err(|error| WrongUsage(error.to_string()))?, i64::MAX)
    }

    /// As [`Self::new`], of what is added up so.
    pub(crate) fn of_groups(
        arguments: &SearchArguments,
        aggregate: &Aggregate<R>,
        compare: bool,
    ) -> anyhow::Result<Self> {
        let query = query::parse_at(&arguments.query, crate::host::now());
        Self::with(arguments, query.map_err(|error| WrongUsage(error.to_string()))?, end_of(aggregate, compare))
    }

    /// As [`Self::new`], where an aggregation may follow the condition.
    pub(crate) fn or_aggregate(
        arguments: &SearchArguments,
        compare: bool,
    ) -> anyhow::Result<(Self, Option<Aggregate<R>>)> {
        let statement = query::parse_statement(&arguments.query, crate::host::now());
        let Statement { filter, aggregate } = statement.map_err(|error| WrongUsage(error.to_string()))?;
        let until = aggregate.as_ref().map_or(i64::MAX, |aggregate| end_of(aggregate, compare));
        Ok((Self::with(arguments, filter, until)?, aggregate))
    }

    /// Without an end it is `until`.
    fn with(arguments: &SearchArguments, query: Query<R>, until: i64) -> anyhow::Result<Self> {
        let now = crate::host::now();
        let from = arguments.from.as_deref().map_or(Ok(0), |text| parse_time(text, now))?;
        let to = arguments.to.as_deref().map_or(Ok(until), |text| parse_time(text, now))?;
        if from >= to || arguments.to.is_none() && from >= now {
            let message = match arguments.to {
                Some(_) if arguments.from.is_none() => {
                    "the time range is empty: `--to` is before 1970; hint: add `--from`"
                }
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

    /// Pages through the answer: at most `limit` rows, a page at a time, so that memory is bounded. Gives whether there are more.
    pub(crate) async fn pages(
        &self,
        data: &Path,
        limit: u32,
        each: &mut dyn FnMut(Vec<Row>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool>
    where
        Store: Has<R>,
    {
        if let Some(appliance) = Appliance::find(data)? {
            return self.ask(&appliance, limit, each);
        }
        let store = Store::open_read_only(data).await?;
        self.read(&store, store.table(), limit, each).await
    }

    /// From the running appliance.
    fn ask(
        &self,
        appliance: &Appliance,
        limit: u32,
        each: &mut dyn FnMut(Vec<Row>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let table = R::NAME.as_str();
        let mut after: Option<String> = None;
        let mut left = limit as usize;
        while left > 0 {
            let mut parameters = self.parameters();
            parameters.push(("limit", PAGE.min(left).to_string()));
            parameters.extend(after.map(|cursor| ("after", cursor)));
            let mut answer = appliance.json(&format!("/api/v1/{table}"), &parameters)?;
            let page = answer.get_mut(table).and_then(Value::as_array_mut);
            let page = page.with_context(|| format!("the answer has no `{table}`"))?;
            left = left.saturating_sub(page.len());
            let rows = page.drain(..).filter_map(|row| match row {
                Value::Object(row) => Some(row),
                _ => None,
            });
            each(rows.collect())?;
            after = answer.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() || left == 0 {
                // By then it is known which files cannot be read.
                warn_of_loss(&answer, (self.range, Of::Rows));
                break;
            }
        }
        Ok(after.is_some())
    }

    /// From the data directory.
    async fn read(
        &self,
        store: &Store,
        table: &TableStore<R>,
        limit: u32,
        each: &mut dyn FnMut(Vec<Row>) -> anyhow::Result<()>,
    ) -> anyhow::Result<bool> {
        let (mut after, mut left) = (None, limit as usize);
        while left > 0 {
            let options = SearchOptions { limit: PAGE.min(left), all_observations: self.all_observations, after };
            let page = table.search(&self.query, self.range, options).await?;
            left = left.saturating_sub(page.rows.len());
            for rows in page.rows.chunks(PORTION) {
                each(rows.iter().map(tables::Row::to_map).collect())?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        warn_of_losses(store, (self.range, Of::Rows), false).await?;
        Ok(after.is_some())
    }
}

/// Where groups end that have no end: rows of other clocks may be later than now, but rates and a comparison are of a length of time.
fn end_of<R: Table>(aggregate: &Aggregate<R>, compare: bool) -> i64 {
    if compare || aggregate.has_rates() { crate::host::now() } else { i64::MAX }
}

/// Where the rows of a type are.
pub(crate) trait Has<R: 'static> {
    fn table(&self) -> &TableStore<R>;
}

impl Has<FlowRecord> for Store {
    fn table(&self) -> &TableStore<FlowRecord> {
        &self.flows
    }
}

impl Has<Transaction> for Store {
    fn table(&self) -> &TableStore<Transaction> {
        &self.transactions
    }
}

/// A time as users write it; a wrong one is wrong usage.
pub(crate) fn parse_time(text: &str, now: i64) -> anyhow::Result<i64> {
    query::parse_time(text, now).map_err(|error| WrongUsage(error.to_string()).into())
}

/// What an answer has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// Rows, or what is made of them.
    Rows,
    /// Packets of rows. They are not kept as long as these.
    Packets,
}

/// Loss in the range goes to stderr: stdout holds nothing but data.
pub(super) async fn warn_of_losses(store: &Store, (range, of): (Range, Of), rollable: bool) -> anyhow::Result<()> {
    let completeness = store.completeness(range.from, range.to, rollable).await?;
    completeness.nodes.iter().for_each(|loss| loss_sentence(loss, range));
    unreadable_sentence(completeness.unreadable);
    missing_sentence(completeness.missing_packets);
    unfinished_sentence(completeness.unfinished_imports);
    tell_retired(completeness.retired, (range, of));
    let (unrecovered, ended) = (store.has_unrecovered(), store.catalog.accounted_until().await?);
    // Whoever asks for no time wants what there is.
    let ended = ended.filter(|end| range.from > 0 && *end < range.to.min(crate::host::now()));
    if (unrecovered || ended.is_some()) && Appliance::find(store.data_dir())?.is_none() {
        if let Some(pid) = holder(store.data_dir()) {
            tell!(
                "warning: incomplete: the appliance runs (process {pid}), and does not answer here: what it has not stored yet is missing; hint: ask in its network namespace: `nsenter --net -t {pid} wiretag …`"
            );
            return Ok(());
        }
        if unrecovered {
            tell!(
                "warning: incomplete: the last run was killed, or this is a copy that was made while it ran: what it had not stored is missing until `wiretag run` starts again"
            );
        }
        if let Some(end) = ended {
            let end = crate::output::time(end);
            tell!(
                "warning: incomplete: nobody is known to have captured since {end}; hint: `wiretag run` does not run"
            );
        }
    }
    Ok(())
}

/// As [`warn_of_losses`], from an answer.
pub(super) fn warn_of_loss(answer: &Value, (range, of): (Range, Of)) {
    let told = |name: &str| answer.pointer(&format!("/completeness/{name}")).and_then(Value::as_u64).unwrap_or(0);
    unreadable_sentence(Missing { files: told("unreadable_files"), rows: told("unreadable_rows") });
    missing_sentence(MissingPackets { segments: told("missing_segments"), packets: told("missing_packets") });
    unfinished_sentence(told("unfinished_imports"));
    let retired = RetiredItems {
        flow_rows: told("retired_flow_rows"),
        transaction_rows: told("retired_transactions"),
        packets: told("retired_packets"),
    };
    tell_retired(retired, (range, of));
    let nodes = answer.pointer("/completeness/nodes").and_then(Value::as_array);
    for node in nodes.into_iter().flatten() {
        let count = |name: &str| node.get(name).and_then(Value::as_u64).unwrap_or(0);
        let loss = Loss {
            node: node.get("node").and_then(Value::as_str).unwrap_or_default().to_owned(),
            kernel_drops: count("kernel_drops"),
            queue_drops: count("queue_drops"),
            unwritten: count("unwritten"),
            flow_rows: count("flow_rows_lost"),
            transaction_rows: count("transactions_lost"),
            interruptions: count("interruptions"),
            not_captured: count("not_captured_seconds").saturating_mul(SECOND),
            ..Loss::default()
        };
        loss_sentence(&loss, range);
    }
}

/// As [`warn_of_loss`], after an answer that has no room for it.
pub(super) fn warn_of_missing<R: Table>(appliance: &Appliance, search: &Search<R>, of: Of) -> anyhow::Result<()> {
    let mut parameters = search.parameters();
    parameters.push(("limit", "1".into()));
    warn_of_loss(&appliance.json(&format!("/api/v1/{}", R::NAME), &parameters)?, (search.range, of));
    Ok(())
}

fn unreadable_sentence(missing: Missing) {
    let Missing { files, rows } = missing;
    if files > 0 {
        let what = if files == 1 { "a file".to_owned() } else { format!("{files} files") };
        tell!(
            "warning: incomplete: {what} cannot be read, up to {rows} rows of this time are missing; hint: the log names what to restore from a backup"
        );
    }
}

fn missing_sentence(missing: MissingPackets) {
    let MissingPackets { segments, packets } = missing;
    if segments > 0 {
        let what = if segments == 1 { "a segment is".to_owned() } else { format!("{segments} segments are") };
        tell!(
            "warning: incomplete: {what} gone from the disk, {packets} packets of this time are missing; hint: restore them from a backup"
        );
    }
}

fn unfinished_sentence(imports: u64) {
    if imports > 0 {
        let what = if imports == 1 { "an import".to_owned() } else { format!("{imports} imports") };
        tell!(
            "warning: incomplete: {what} of files of this time did not come to the end; hint: `wiretag import` takes such a file again as a whole"
        );
    }
}

fn tell_retired(retired: RetiredItems, asked: (Range, Of)) {
    if let Some(parts) = retired_parts(retired, asked) {
        tell!("note: retention has deleted {parts} of the hours asked for");
    }
}

/// Whoever asks for rows of no time wants what there is, and has rows whose packets are gone.
fn retired_parts(retired: RetiredItems, (range, of): (Range, Of)) -> Option<String> {
    let rows = if range.from > 0 { retired } else { RetiredItems::default() };
    let packets = if range.from > 0 || of == Of::Packets { retired.packets } else { 0 };
    let parts = [(rows.flow_rows, "flows"), (rows.transaction_rows, "transactions"), (packets, "packets")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Whoever asks for no time wants what there is: there was a start in it, or many.
fn loss_sentence(loss: &Loss, range: Range) {
    let not_captured = if range.from > 0 { loss.not_captured } else { 0 };
    let parts = [
        (loss.kernel_drops, "packets dropped by the kernel"),
        (loss.queue_drops + loss.unwritten, "packets not kept"),
        (loss.flow_rows, "flow rows lost"),
        (loss.transaction_rows, "transactions lost"),
        (loss.interruptions, "times killed or unable to capture (the seconds around are missing)"),
        (not_captured.div_ceil(SECOND), "s in which nothing was captured"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if !parts.is_empty() {
        tell!("warning: incomplete on node `{}`: {}", loss.node, parts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_retention_took_are_told_also_of_all_time() {
        let retired = RetiredItems { flow_rows: 1, transaction_rows: 0, packets: 3 };
        let told = |from, of| retired_parts(retired, (Range { from, to: i64::MAX }, of));
        assert_eq!(told(0, Of::Rows), None);
        assert_eq!(told(0, Of::Packets).as_deref(), Some("3 packets"));
        for of in [Of::Rows, Of::Packets] {
            assert_eq!(told(1, of).as_deref(), Some("1 flows, 3 packets"));
        }
    }
}

//! `wiretag flows`: search.

use anyhow::Context;
use serde_json::Value;

use crate::cli::{FlowsArguments, Format, SearchArguments};
use crate::client::Appliance;
use crate::commands::WrongUsage;
use crate::output::{self, Row};
use wiretag_enrich::tagged::all_columns;
use wiretag_store::Store;
use wiretag_store::flows::{Range, SearchOptions};
use wiretag_store::query::{self, Query};

pub(crate) async fn run(arguments: &FlowsArguments) -> anyhow::Result<()> {
    let search = Search::new(&arguments.search)?;
    let rows = match Appliance::find(&arguments.search.data.data)? {
        Some(appliance) => ask(&appliance, &search, arguments.limit)?,
        None => read(&search, arguments).await?,
    };
    match arguments.format {
        Format::Json => output::json_lines(&rows),
        Format::Csv => {
            output::csv(&all_columns().map(wiretag_enrich::tagged::AnyColumn::name).collect::<Vec<_>>(), &rows)
        }
        Format::Table => table(&rows),
    }
}

/// A search, checked.
pub(crate) struct Search {
    pub(crate) text: String,
    pub(crate) query: Query,
    pub(crate) range: Range,
    pub(crate) all_observations: bool,
}

impl Search {
    pub(crate) fn new(arguments: &SearchArguments) -> anyhow::Result<Self> {
        let query = query::parse(&arguments.query).map_err(|error| WrongUsage(error.to_string()))?;
        let now = crate::host::now();
        let from = arguments.from.as_deref().map_or(Ok(0), |text| parse_time(text, now))?;
        let to = arguments.to.as_deref().map_or(Ok(now), |text| parse_time(text, now))?;
        if from >= to {
            return Err(
                WrongUsage("the time range is empty: `--from` is not before `--to`; hint: swap them".into()).into()
            );
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
}

/// A time as users write it; a wrong one is wrong usage.
pub(crate) fn parse_time(text: &str, now: i64) -> anyhow::Result<i64> {
    query::parse_time(text, now).map_err(|error| WrongUsage(error.to_string()).into())
}

/// Pages through the running appliance's answer.
fn ask(appliance: &Appliance, search: &Search, limit: u32) -> anyhow::Result<Vec<Row>> {
    const PAGE: usize = 10_000;
    let mut rows = Vec::new();
    let mut after: Option<String> = None;
    while rows.len() < limit as usize {
        let mut parameters = search.parameters();
        parameters.push(("limit", PAGE.min(limit as usize - rows.len()).to_string()));
        parameters.extend(after.map(|cursor| ("after", cursor)));
        let mut answer = appliance.json("/api/v1/flows", &parameters)?;
        if rows.is_empty() {
            warn_of_loss(&answer);
        }
        let page = answer.get_mut("flows").and_then(Value::as_array_mut).context("the answer has no `flows`")?;
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

async fn read(search: &Search, arguments: &FlowsArguments) -> anyhow::Result<Vec<Row>> {
    let store = Store::open_read_only(&arguments.search.data.data).await?;
    for loss in store.completeness(search.range.from, search.range.to).await? {
        loss_sentence(&loss.node, loss.kernel_drops, loss.queue_drops);
    }
    let options =
        SearchOptions { limit: arguments.limit as usize, all_observations: search.all_observations, after: None };
    Ok(store.flows.search(&search.query, search.range, options).await?.flows)
}

/// The columns that matter, in the width of a terminal.
fn table(rows: &[Row]) -> anyhow::Result<()> {
    if rows.is_empty() {
        eprintln!("no flows match");
        return Ok(());
    }
    let header =
        ["start", "client", "server", "proto", "state", "rtt c+s", "bytes →", "bytes ←", "pkts", "retr", "duration"];
    output::table(&header, rows.iter().map(cells).collect())
}

fn cells(row: &Row) -> Vec<String> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let number = |name: &str| row.get(name).and_then(Value::as_u64);
    let sum = |name: &str| {
        let sides = [number(&format!("client_{name}")), number(&format!("server_{name}"))];
        sides.into_iter().flatten().reduce(|a, b| a + b).map_or(String::new(), |sum| sum.to_string())
    };
    let rtt = match (number("client_rtt_us"), number("server_rtt_us")) {
        (None, None) => number("dns_latency_us").map_or(String::new(), output::micros),
        (client, server) => {
            let half = |rtt: Option<u64>| rtt.map_or("?".to_owned(), output::micros);
            format!("{}+{}", half(client), half(server))
        }
    };
    let app = text("app");
    let protocol = if app.is_empty() { text("protocol") } else { app };
    let state = [text("tcp_state"), text("dns_rcode")].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    vec![
        text("start").get(5..23).unwrap_or_default().replace('T', " "),
        end(row, "client"),
        end(row, "server"),
        protocol,
        state,
        rtt,
        number("client_bytes").map_or(String::new(), output::bytes),
        number("server_bytes").map_or(String::new(), output::bytes),
        sum("packets"),
        sum("retransmits"),
        output::duration_between(&text("start"), &text("end")),
    ]
}

/// `name:port` if there is a name, else `address:port`.
fn end(row: &Row, side: &str) -> String {
    let text = |name: &str| row.get(&format!("{side}_{name}")).and_then(Value::as_str);
    let ip = text("ip").unwrap_or("?");
    let name = match text("pod").or(text("container")) {
        Some(name) => name.to_owned(),
        None if text("tagged_by") == Some("ambiguous") => format!("{ip}?"),
        None if ip.contains(':') => format!("[{ip}]"),
        None => ip.to_owned(),
    };
    match row.get(&format!("{side}_port")).and_then(Value::as_u64) {
        Some(port) => format!("{name}:{port}"),
        None => name,
    }
}

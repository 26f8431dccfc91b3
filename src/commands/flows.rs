//! `wiretag flows`: search in flows, or with `--transactions` in transactions.

use serde_json::Value;
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_enrich::tagged::{AnyColumn, all_columns};
use wiretag_store::{Store, Table};

use super::search::{Has, Search};
use super::{WrongUsage, aggregate, explain, export, follow, transactions};
use crate::cli::{FlowsArguments, Format};
use crate::output::tell;
use crate::output::{self, Fit, Row};

pub(crate) async fn run(arguments: &FlowsArguments) -> anyhow::Result<()> {
    if arguments.follow {
        return follow::run(arguments);
    }
    if arguments.transactions {
        return print::<Transaction>(arguments, transactions::table).await;
    }
    print::<FlowRecord>(arguments, table).await
}

async fn print<R: Table>(arguments: &FlowsArguments, table: fn(&[Row]) -> anyhow::Result<()>) -> anyhow::Result<()>
where
    Store: Has<R>,
{
    let (search, aggregate) = Search::<R>::or_aggregate(&arguments.search, arguments.compare)?;
    if arguments.explain {
        return explain::run(&search, aggregate, arguments).await;
    }
    if let Some(aggregate) = aggregate {
        if arguments.limit.is_some() {
            let hint = "end the query with one, as in `| count by app | limit 3`";
            return Err(WrongUsage(format!("`--limit` is of rows, and not of groups; hint: {hint}")).into());
        }
        let format = export::of_aggregation(arguments)?;
        let way = aggregate::Way { compare: arguments.compare, format };
        return aggregate::run(&search, aggregate, aggregate::Route::Typed, way, &arguments.search.data.data).await;
    }
    if arguments.compare {
        let hint = "end the query with one, as in `| top server_workload`";
        return Err(WrongUsage(format!("`--compare` is for aggregations; hint: {hint}")).into());
    }
    let format = match export::way(arguments)? {
        export::Way::Export(format) => return export::run(&search, arguments, format).await,
        export::Way::Print(format) => format,
    };
    let (limit, data) = (arguments.page(), &arguments.search.data.data);
    let more = match format {
        Format::Json => search.pages(data, limit, &mut |rows| output::json_lines(&rows)).await?,
        Format::Csv => {
            let names: Vec<&str> = all_columns::<R>().map(AnyColumn::name).collect();
            let mut header = false;
            let print = &mut |rows: Vec<Row>| {
                if !std::mem::replace(&mut header, true) {
                    output::csv_header(&names)?;
                }
                output::csv(&names, &rows)
            };
            let more = search.pages(data, limit, print).await?;
            if !header {
                output::csv_header(&names)?;
            }
            more
        }
        Format::Table => {
            let mut all = Vec::new();
            let keep = &mut |rows: Vec<Row>| {
                all.extend(rows);
                Ok(())
            };
            let more = search.pages(data, limit, keep).await?;
            if all.is_empty() {
                tell!("no {} match", R::NAME);
                return Ok(());
            }
            table(&all)?;
            more
        }
    };
    if more && arguments.limit.is_none() {
        tell!("only the newest {limit} {}; hint: `--limit` shows more", R::NAME);
    }
    Ok(())
}

/// The columns that matter, in the width of a terminal.
pub(super) const HEADER: [&str; 12] = [
    "start",
    "client",
    "server",
    "proto",
    "state",
    "what",
    "rtt c+s",
    "bytes →",
    "bytes ←",
    "pkts",
    "retr",
    "duration",
];
/// In a narrow terminal `what` is cut; if need be packets, retransmissions, duration, protocol and bytes are left out.
const FIT: Fit<'static> = Fit { cut: 5, drop: &[9, 10, 11, 3, 7, 8] };

fn table(rows: &[Row]) -> anyhow::Result<()> {
    let now = crate::host::now();
    output::table(&HEADER, rows.iter().map(|row| cells(row, now)).collect(), Some(FIT))
}

/// A row of a table; `now` is in ns.
pub(super) fn cells(row: &Row, now: i64) -> Vec<String> {
    let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or("").to_owned();
    let number = |name: &str| row.get(name).and_then(Value::as_u64);
    let sum = |name: &str| {
        let sides = [number(&format!("client_{name}")), number(&format!("server_{name}"))];
        sides.into_iter().flatten().reduce(u64::saturating_add).map_or(String::new(), |sum| sum.to_string())
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
    // A slice that goes on: its figures may still grow.
    let open = row.get("end_reason") == Some(&Value::Null);
    let state = if open { format!("{state} open").trim_start().to_owned() } else { state };
    vec![
        output::moment(&text("start"), now),
        end(row, "client"),
        end(row, "server"),
        protocol,
        state,
        what(row),
        rtt,
        number("client_bytes").map_or(String::new(), output::bytes),
        number("server_bytes").map_or(String::new(), output::bytes),
        sum("packets"),
        sum("retransmits"),
        output::duration_between(&text("start"), &text("end")),
    ]
}

/// What the flow was about: the name asked for, the first request and what came of it, the server's name.
fn what(row: &Row) -> String {
    let request = transactions::request(row);
    let status = row.get("http_status").and_then(Value::as_u64);
    match (request.is_empty(), status) {
        (false, Some(status)) => format!("{request} → {status}"),
        (true, Some(status)) => format!("→ {status}"),
        (false, None) => request,
        (true, None) => output::harmless(row.get("tls_sni").and_then(Value::as_str).unwrap_or_default()),
    }
}

/// `name:port` if there is a name, of a machine if of nothing nearer, else `address:port`.
pub(super) fn end(row: &Row, side: &str) -> String {
    let text = |name: &str| row.get(&format!("{side}_{name}")).and_then(Value::as_str);
    let ip = text("ip").unwrap_or("?");
    let name = match text("pod").or(text("container")).or(text("host")) {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_flow_was_about() {
        for (row, expected) in [
            (json!({"dns_query": "web.demo", "dns_type": "A", "dns_rcode": "NXDOMAIN"}), "A web.demo"),
            (
                json!({"http_method": "GET", "http_host": "shop", "http_path": "/cart", "http_status": 503}),
                "GET shop/cart → 503",
            ),
            (json!({"http_status": 200}), "→ 200"),
            (json!({"tls_sni": "shop.example", "http_method": null}), "shop.example"),
            (json!({"tls_sni": "a\u{1b}[2J"}), "a\u{fffd}[2J"),
            (json!({"protocol": "tcp"}), ""),
        ] {
            assert_eq!(what(row.as_object().expect("a row")), expected);
        }
    }
}

//! Transactions in a terminal: who asked whom for what, and what came of it.

use serde_json::Value;

use super::flows::end;
use crate::output::{self, Fit, Row};

/// The columns that matter, in the width of a terminal.
pub(super) fn table(rows: &[Row]) -> anyhow::Result<()> {
    let header = ["start", "client", "server", "app", "request", "status", "latency"];
    let now = crate::host::now();
    output::table(&header, rows.iter().map(|row| cells(row, now)).collect(), Some(Fit { cut: 4, drop: &[3] }))
}

fn cells(row: &Row, now: i64) -> Vec<String> {
    vec![
        output::moment(text(row, "start"), now),
        end(row, "client"),
        end(row, "server"),
        text(row, "app").to_owned(),
        request(row),
        status(row),
        number(row, "latency_us").map_or(String::new(), output::micros),
    ]
}

fn text<'a>(row: &'a Row, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(row: &Row, name: &str) -> Option<u64> {
    row.get(name).and_then(Value::as_u64)
}

/// `GET host/path`, or `A name`.
pub(super) fn request(row: &Row) -> String {
    let path = text(row, "http_path");
    // The target may be absolute already (RFC 9112, 3.2.2).
    let host = if path.is_empty() || path.starts_with('/') { text(row, "http_host") } else { "" };
    let (verb, what) = match text(row, "dns_query") {
        "" => (text(row, "http_method"), format!("{host}{path}")),
        name => (text(row, "dns_type"), name.to_owned()),
    };
    output::harmless(format!("{verb} {what}").trim())
}

/// Status or response code; a gRPC call has two.
fn status(row: &Row) -> String {
    let answer = match (number(row, "http_status"), number(row, "grpc_status")) {
        (Some(http), Some(grpc)) => format!("{http} grpc {grpc}"),
        (Some(http), None) => http.to_string(),
        (None, Some(grpc)) => format!("grpc {grpc}"),
        (None, None) => text(row, "dns_rcode").to_owned(),
    };
    if answer.is_empty() && row.get("complete") == Some(&Value::Bool(false)) { "no answer".to_owned() } else { answer }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(row: &Value, expected: (&str, &str)) {
        let row = row.as_object().expect("a row");
        assert_eq!((request(row).as_str(), status(row).as_str()), expected);
    }

    #[test]
    fn a_request_and_what_came_of_it() {
        check(
            &json!({"http_method": "GET", "http_host": "shop", "http_path": "/cart", "http_status": 200}),
            ("GET shop/cart", "200"),
        );
        check(
            &json!({"http_method": "GET", "http_host": "a", "http_path": "http://a/b", "http_status": 404}),
            ("GET http://a/b", "404"),
        );
        check(&json!({"dns_query": "web.demo", "dns_type": "A", "dns_rcode": "NXDOMAIN"}), ("A web.demo", "NXDOMAIN"));
        check(
            &json!({"http_method": "POST", "http_path": "/p.S/M", "http_status": 200, "grpc_status": 5}),
            ("POST /p.S/M", "200 grpc 5"),
        );
        check(&json!({"dns_query": "a\u{1b}[2J", "dns_type": "A", "complete": false}), ("A a\u{fffd}[2J", "no answer"));
    }
}

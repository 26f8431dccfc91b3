//! The query language from outside: what parses, what it means, where mistakes are.

use crate::rows::{self, flow, transaction};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_store::query::{self, QueryError, parse_time};

fn parse(text: &str) -> Result<query::Query<FlowRecord>, QueryError> {
    query::parse(text)
}

#[test]
fn conditions_and_what_they_match() {
    let mut sample = flow(1);
    sample.record.server.port = Some(443);
    sample.record.client.retransmits = Some(5);
    sample.record.server.rtt_us = Some(20_001);
    rows::name(&mut sample.client, "checkout-7d9", &[("app", "Shop"), ("app.kubernetes.io/name", "shop")]);
    for (text, expected) in [
        ("", true),
        ("*", true),
        ("pod == checkout-*", true),
        ("pod == Checkout-*", false),
        ("pod = checkout-7d9 && server_port in {443, 8443}", true),
        ("port in {400..450}", true),
        ("port not in {443}", false),
        ("client_pod not in {x, y}", true),
        ("server_pod not in {x, y}", false),
        ("not server_pod in {x, y}", true),
        ("pod not in {x, y}", true),
        ("client_retransmits > 3 and not namespace == kube-system", true),
        ("server_rtt_us > 20ms", true),
        ("server_rtt_us > 20.001ms", false),
        ("ip in 10.0.0.0/8", true),
        ("ip == 10.0.0.0/8", true),
        ("ip in {192.168.0.0/16, 10.0.0.1}", true),
        ("10.0.0.1", true),
        ("not 10.0.0.0/8", false),
        ("labels.app == Shop", true),
        ("client_labels.\"app.kubernetes.io/name\" ~ '^sh'", true),
        ("labels.app.kubernetes.io/name exists", true),
        ("server_labels exists", false),
        ("client_pod != x", true),
        ("server_pod != x", false),
        ("not server_pod == x", true),
        ("pod != checkout-7d9", false),
        ("pod != other", true),
        ("CHECKOUT", true),
        ("\"nothing like it\"", false),
        ("protocol == TCP", true),
        ("protocol == 6", true),
        ("primary", true),
        ("primary == false", false),
        ("tls_sni exists or (client_pod ~ \"(?i)CHECK\" and ! tls_sni exists)", true),
    ] {
        let query = parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(query.matches(&sample), expected, "{text}");
    }
}

#[test]
fn mistakes_have_a_place_and_a_hint() {
    for (text, column, hint) in [
        ("clent_pod == x", 1, "client_pod"),
        ("pod == x and prt == 1", 14, "port"),
        ("port == abc", 9, ""),
        ("server_rtt_us > 20parsecs", 19, "ms"),
        ("ip == 10.0.0.0/33", 7, "10.0.0.0/8"),
        ("pod ~ \"(\"", 7, "RE2"),
        ("(pod == x", 10, ")"),
        ("pod == x )", 10, ""),
        ("pod == \"x", 8, "close"),
        ("pod ==", 7, "quotes"),
        ("pod", 4, "exists"),
        ("tcp_state == SX", 14, "REJ"),
        ("pod & x", 5, "&&"),
        ("é and prt == 1", 7, "port"),
        ("pod < x", 7, "exists"),
        ("port ~ 4", 8, "=="),
        ("labels == x", 11, "labels.app"),
        ("start > -15m", 9, "RFC 3339"),
        ("server_port == 70000", 16, "65535"),
        ("protocol == tpc", 13, "`tcp`"),
        ("protocol in {udp, 300}", 19, "255"),
        ("port in {1..70000}", 13, "65535"),
        ("NXDOMAIN", 1, "dns_rcode == NXDOMAIN"),
        ("pod == x and SF", 14, "tcp_state == SF"),
        ("tcp", 1, "protocol == tcp"),
        ("server_bytes > 1e40", 17, "kib"),
        ("start > 2026-03-01 25:00", 9, "(UTC)"),
        ("start in {\"2026-03-01\"..\"2026-03-02\"}", 23, "both ends"),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error.column, column, "{error}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error}");
        let caret = error.to_string().lines().nth(2).map(|line| line.chars().count());
        assert_eq!(caret, Some(column + 2), "{error}");
    }
}

#[test]
fn two_columns_of_one_name_have_a_hint_that_helps() {
    for (text, hint) in [
        ("| count by 1m, 1h", "one width"),
        ("| count by pod, 1m, pod", "leave one of them out"),
        ("| count, count by pod", "`as`"),
        ("| count as pod by pod", "`as`"),
    ] {
        let error = query::parse_statement::<FlowRecord>(text, rows::START).expect_err(text);
        assert!(error.message.contains("two columns"), "{error}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error}");
    }
    query::parse_statement::<FlowRecord>("| count as flows_of_pod by pod, 1h", rows::START).unwrap();
}

#[test]
fn names_of_the_period_before_are_its_own() {
    for text in ["| count, sum(bytes) as previous_count", "| top pod by sum(bytes) as previous_"] {
        let error = query::parse_statement::<FlowRecord>(text, rows::START).expect_err(text);
        assert!(error.message.contains("the period before"), "{error}");
        assert_eq!(text.chars().nth(error.column - 1), Some('p'), "{error}");
    }
    query::parse_statement::<FlowRecord>("| count as previous, sum(bytes) as my_previous_bytes", rows::START).unwrap();
}

/// What tables and other tools print is understood.
#[test]
fn numbers_and_times_as_they_are_printed() {
    let mut sample = flow(1);
    sample.record.server.bytes = 25_500;
    sample.record.server.rtt_us = Some(1_500_000);
    sample.record.start = 1_772_323_200_000_000_000;
    let minute = 60_000_000_000;
    for (text, expected) in [
        ("server_bytes > 25k", true),
        ("server_bytes > 26K", false),
        ("server_bytes < 1M and server_bytes < 1e9", true),
        ("server_bytes == 2.55e4", true),
        ("server_bytes == 25.5e+0k", true),
        ("server_bytes in {1e3..25.5k}", true),
        ("start > -5m", true),
        ("start > now", false),
        ("start > now-30s", false),
        ("start < +1h", true),
        ("start >= 2026-03-01 00:00:00 and start < 2026-03-01 00:00:00.5", true),
        ("start > \"2026-03-01 00:00:00\"", false),
        ("start == 2026-03-01T00:00", true),
        ("start in {-2m..now}", true),
        ("start in {2026-02-28 23:59..2026-03-01 00:01}", true),
        ("start in {2026-02-28..2026-03-01 00:00, 2026-03-02 10:00}", true),
        ("start in {2026-03-01 00:00:01..2026-03-02}", false),
        ("start in {2026-02-28 10:00}", false),
        ("server_rtt_us > 1m30s", false),
        ("server_rtt_us < 1m30s", true),
        ("server_rtt_us == 1s500ms", true),
        ("\"NXDOMAIN\"", false),
    ] {
        let query = query::parse_at::<FlowRecord>(text, sample.record.start + minute);
        let query = query.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(query.matches(&sample), expected, "{text}");
    }
    // Transactions have no TCP state: there `SF` is a name like any other.
    assert!(query::parse::<Transaction>("SF").is_ok());
}

#[test]
fn transactions_have_their_own_columns() {
    let mut sample = transaction(1, 2);
    sample.record.exchange.status = Some(503);
    rows::name(&mut sample.server, "checkout-7d9", &[("app", "shop")]);
    for (text, expected) in [
        ("", true),
        ("http_status >= 500 and pod == checkout-*", true),
        ("port == 80 and ip in 10.0.0.0/8", true),
        ("latency_us > 1ms and latency_us <= 1.5ms", true),
        ("http_method == get", true),
        ("dns_rcode exists", false),
        ("labels.app == shop and not client_pod exists", true),
        ("web.demo", true),
        ("exchange == 2 and complete", true),
        ("response_bytes > 3KB", true),
        ("start < 2026-03-02", true),
    ] {
        let query = query::parse::<Transaction>(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(query.matches(&sample), expected, "{text}");
    }
    for (text, hint) in [
        ("http_stauts == 200", "did you mean `http_status`?"),
        ("tcp_state == S0", "`tcp_state` is a column of flows, and this searches transactions"),
        ("retransmits > 1", "is a column of flows"),
        ("quite_unlike_it == 1", "wiretag fields --transactions"),
        ("observed_at == clinet", "did you mean `client`?"),
    ] {
        let error = query::parse::<Transaction>(text).expect_err(text);
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error}");
    }
    let error = parse("latency_us > 1ms").expect_err("not of flows");
    assert!(error.to_string().contains("is a column of transactions"), "{error}");
}

#[test]
fn depth_and_length_are_limited() {
    assert!(parse(&"(".repeat(10_000)).is_err());
    assert!(parse(&"not ".repeat(100)).is_err());
    assert!(parse(&"a".repeat(20_000)).is_err());
    assert!(parse(&format!("port in {{{}1}}", "1,".repeat(600))).is_err());
}

#[test]
fn times() {
    let now = 1_000_000 * 1_000_000_000;
    for (text, expected) in [
        ("now", now),
        ("-15m", now - 900_000_000_000),
        ("now-1h30m", now - 5_400_000_000_000),
        ("2026-03-01", 1_772_323_200_000_000_000),
        ("2026-03-01T00:00:00Z", 1_772_323_200_000_000_000),
        ("2026-03-01T01:00:00.5+01:00", 1_772_323_200_500_000_000),
        ("1772323200", 1_772_323_200_000_000_000),
        ("1772323200000", 1_772_323_200_000_000_000),
        ("2026-03-01 00:00:00", 1_772_323_200_000_000_000),
        ("2026-03-01 00:01", 1_772_323_260_000_000_000),
    ] {
        assert_eq!(parse_time(text, now), Ok(expected), "{text}");
    }
    for text in ["", "yesterday", "-", "-15", "-15x", "2026-13-01", "now1h"] {
        assert!(parse_time(text, now).is_err(), "{text}");
    }
}

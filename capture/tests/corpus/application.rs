//! DNS, TLS and HTTP of a conversation: what was asked first, what was answered, how long it took.

use serde_json::Value as Json;

use crate::answers::{Capture, Flow, list, number, text};
use crate::judge::{Conversation, Of, Verdict};
use crate::rows::Row;

pub(crate) fn judge(capture: &Capture, of: &Of<'_>, conversation: &Conversation<'_>, verdict: &mut Verdict) {
    let mut pairs = conversation.pairs();
    if pairs.is_empty() && conversation.theirs[0].protocol() == "udp" {
        // Idle timeouts split an exchange; the first question is in our first flow.
        pairs = vec![(conversation.theirs[0], conversation.ours[0])];
    }
    for (flow, row) in pairs {
        if capture.may_check("dns_exact") {
            dns(of, &capture.of_stream("dns", flow), row, verdict);
        }
        if capture.may_check("tls_exact") {
            tls(of, &capture.of_stream("tls", flow), row, verdict);
        }
        if capture.may_check("http_exact") {
            http(capture, of, flow, row, verdict);
            http2(of, &capture.of_stream("http2", flow), row, verdict);
        }
    }
}

/// Compares a column with a value of the answers; `None` there is null here.
fn column(of: &Of<'_>, row: &Row, figure: &'static str, theirs: Option<&str>, verdict: &mut Verdict) {
    let ours = match row.get(figure) {
        Json::Null => "null".to_owned(),
        Json::String(value) => value.clone(),
        other => other.to_string(),
    };
    verdict.compare(of, figure, &theirs.unwrap_or("null").to_owned(), &ours);
}

/// Compares a duration; the answers are decimal fractions of a second, so one microsecond is rounding.
fn duration(of: &Of<'_>, row: &Row, figure: &'static str, seconds: f64, verdict: &mut Verdict) {
    let theirs = (seconds * 1e6).round() as u64;
    let ours = row.get(figure).as_u64();
    let near = ours.is_some_and(|ours| ours.abs_diff(theirs) <= 1);
    let ours = if near { Some(theirs) } else { ours };
    verdict.compare(of, figure, &theirs.to_string(), &ours.map_or("null".to_owned(), |ours| ours.to_string()));
}

fn first(value: &Json) -> &str {
    list(value).first().map_or("", text)
}

fn dns(of: &Of<'_>, entries: &[&Json], row: &Row, verdict: &mut Verdict) {
    let is_response = |entry: &&&Json| first(&entry["response"]) == "1";
    let Some(asked) = entries.iter().find(|entry| !is_response(entry)).or(entries.first()) else { return };
    let name = match first(&asked["qname"]) {
        "<Root>" => ".".to_owned(),
        name => name.to_ascii_lowercase(),
    };
    column(of, row, "dns_query", Some(&name).filter(|name| !name.is_empty()).map(String::as_str), verdict);
    let kind = first(&asked["qtype"]).parse().ok().map(type_name);
    column(of, row, "dns_type", kind.as_deref(), verdict);
    let same =
        |entry: &&&Json| ["id", "qname", "qtype"].iter().all(|field| first(&entry[*field]) == first(&asked[*field]));
    let answer = entries.iter().filter(is_response).find(same);
    let rcode = answer.map(|answer| rcode_name(first(&answer["rcode"])));
    column(of, row, "dns_rcode", rcode.as_deref(), verdict);
    let (queries, responses): (Vec<_>, Vec<_>) = entries.iter().copied().partition(|entry| !is_response(&entry));
    let asked_once = matches!(queries.as_slice(), [only] if list(&only["id"]).len() == 1);
    if asked_once
        && let [response] = responses.as_slice()
        && let Some(time) = list(&response["time"]).first().and_then(Json::as_f64)
    {
        duration(of, row, "dns_latency_us", time, verdict);
    }
}

/// IANA's mnemonics.
fn type_name(kind: u16) -> String {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        13 => "HINFO",
        15 => "MX",
        16 => "TXT",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        41 => "OPT",
        43 => "DS",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        50 => "NSEC3",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        249 => "TKEY",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        other => return format!("TYPE{other}"),
    };
    name.to_owned()
}

fn rcode_name(code: &str) -> String {
    let name = match code {
        "0" => "NOERROR",
        "1" => "FORMERR",
        "2" => "SERVFAIL",
        "3" => "NXDOMAIN",
        "4" => "NOTIMP",
        "5" => "REFUSED",
        "9" => "NOTAUTH",
        other => return format!("RCODE{other}"),
    };
    name.to_owned()
}

fn tls(of: &Of<'_>, entries: &[&Json], row: &Row, verdict: &mut Verdict) {
    let message = |name: &str| entries.iter().copied().find(|entry| text(&entry["msg"]) == name);
    let Some(client) = message("client_hello") else { return };
    let server = message("server_hello");
    column(of, row, "tls_sni", client["sni"].as_str(), verdict);
    column(of, row, "tls_ja4", client["own_ja4"].as_str(), verdict);
    let selected = server.and_then(|server| list(&server["alpn_selected"]).first());
    let alpn = selected.or_else(|| list(&client["alpn_offered"]).first());
    column(of, row, "tls_alpn", alpn.and_then(Json::as_str), verdict);
    let offered = list(&client["supported_versions"]).iter().map(text).filter(|version| !is_grease(version));
    let highest = offered.max().or(client["legacy_version"].as_str());
    let version = server.and_then(|server| server["version"].as_str()).or(highest).map(version_name);
    column(of, row, "tls_version", version, verdict);
}

/// Values that mean nothing, RFC 8701.
fn is_grease(version: &str) -> bool {
    version.ends_with('a') && version.get(3..4) == Some("a")
}

fn version_name(version: &str) -> &str {
    match version {
        "0x0300" => "3.0",
        "0x0301" => "1.0",
        "0x0302" => "1.1",
        "0x0303" => "1.2",
        "0x0304" => "1.3",
        other => other,
    }
}

fn http(capture: &Capture, of: &Of<'_>, flow: Flow<'_>, row: &Row, verdict: &mut Verdict) {
    let mut entries = capture.of_stream("http", flow);
    entries.retain(|entry| text(&entry["kind"]) != "ssdp");
    let all = |field: &str| entries.iter().flat_map(|entry| list(&entry[field])).map(text).collect::<Vec<_>>();
    let Some(asked) = entries.iter().find(|entry| !list(&entry["method"]).is_empty()) else { return };
    let one = |field: &str| list(&asked[field]).first().and_then(Json::as_str);
    column(of, row, "http_method", one("method"), verdict);
    column(of, row, "http_host", one("host"), verdict);
    column(of, row, "http_path", one("uri"), verdict);
    let passes = capture.of_stream("http_headers_pass", flow);
    // A response whose body never ends is in the pass over headers only.
    let after = entries.iter().chain(&passes).filter(|entry| number(&entry["frame"]) >= number(&asked["frame"]));
    let mut statuses = after.flat_map(|entry| list(&entry["status"])).map(text);
    // RFC 9110, 15.2: interim responses are not the response; 101 ends HTTP on the connection and is.
    let status = statuses.find(|status| !status.starts_with('1') || *status == "101");
    column(of, row, "http_status", status, verdict);
    column(of, row, "http_requests", Some(&all("method").len().to_string()), verdict);
    let errors = all("status").into_iter().filter(|status| *status >= "400").count();
    column(of, row, "http_errors", Some(&errors.to_string()), verdict);
    let answers = passes.iter().filter(|entry| first(&entry["request_in"]).parse().ok() == asked["frame"].as_u64());
    let final_one = answers.clone().find(|entry| !first(&entry["status"]).starts_with('1'));
    if let Some(time) = final_one.and_then(|entry| list(&entry["time_to_header"]).first()).and_then(Json::as_f64) {
        duration(of, row, "http_latency_us", time, verdict);
    }
}

fn http2(of: &Of<'_>, entries: &[&Json], row: &Row, verdict: &mut Verdict) {
    let Some(asked) = entries.iter().find(|entry| !list(&entry["method"]).is_empty()) else { return };
    let one = |field: &str| list(&asked[field]).first().and_then(Json::as_str);
    column(of, row, "http_method", one("method"), verdict);
    column(of, row, "http_host", one("authority"), verdict);
    column(of, row, "http_path", one("path"), verdict);
}

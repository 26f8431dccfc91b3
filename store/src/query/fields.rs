//! Names in queries to columns: exact names, names that mean either side, labels.

use wiretag_capture::{FlowRecord, Kind, ObservedAt, TcpState, Transaction, record};
use wiretag_enrich::Record;
use wiretag_enrich::tagged::{AnyColumn, all_columns};

use super::ast::Field;
use crate::tables::Table;

/// The fields that a name stands for: one, or the client's and the server's.
pub(super) fn resolve<R: Record>(name: &str) -> Option<Vec<Field<R>>> {
    let (base, key) = match name.split_once('.') {
        Some((base, key)) => (base, Some(key)),
        None => (name, None),
    };
    let columns = columns(base)?;
    let is_map = columns.iter().all(|column| column.kind() == Kind::Map);
    // A dot asks for a key; only maps have keys.
    (key.is_none() || is_map)
        .then(|| columns.into_iter().map(|column| Field { column, key: key.map(str::to_owned) }).collect())
}

fn columns<R: Record>(name: &str) -> Option<Vec<AnyColumn<R>>> {
    if let Some(column) = all_columns::<R>().find(|column| column.name() == name) {
        return Some(vec![column]);
    }
    let side = |side: &str| {
        all_columns::<R>().find(|column| column.name().strip_prefix(side).is_some_and(|rest| rest == name))
    };
    Some(vec![side("client_")?, side("server_")?])
}

/// Columns that a bare word searches.
pub(super) fn searched<R: Record>() -> Vec<Field<R>> {
    const SIDES: &[&str] = &["pod", "container", "workload", "service", "host", "namespace"];
    const PLAIN: &[&str] = &["dns_query", "tls_sni", "http_host"];
    SIDES.iter().chain(PLAIN).filter_map(|name| resolve(name)).flatten().collect()
}

/// What to write instead of a name that no column of the table has.
pub(super) fn hint<R: Table>(name: &str) -> String {
    let own = R::NAME.as_str();
    if resolve::<FlowRecord>(name).is_some() || resolve::<Transaction>(name).is_some() {
        let other = if own == "flows" { "transactions" } else { "flows" };
        return format!("`{name}` is a column of {other}, and this searches {own}");
    }
    match nearest::<R>(name) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if own == "flows" => "`wiretag fields` lists all columns".to_owned(),
        None => format!("`wiretag fields --{own}` lists all columns"),
    }
}

/// The known name that `name` was probably meant to be.
fn nearest<R: Record>(name: &str) -> Option<String> {
    let names = all_columns::<R>().flat_map(|column| {
        let full = column.name();
        let short =
            full.strip_prefix("client_").filter(|short| columns::<R>(short).is_some_and(|both| both.len() == 2));
        [Some(full), short].into_iter().flatten()
    });
    nearest_of(name, names)
}

/// The candidate within a few edits.
pub(super) fn nearest_of<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    if name.chars().count() > 40 {
        return None;
    }
    let lower = name.to_lowercase();
    let distances = candidates.map(|candidate| (distance(&lower, &candidate.to_lowercase()), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    let tolerated = (name.chars().count() / 3).clamp(1, 3);
    (distance <= tolerated).then(|| candidate.to_owned())
}

/// Levenshtein distance, where exchanging two neighbours also is one edit.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut older: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    let mut before = None;
    for (row, a) in left.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let substituted = previous[column] + usize::from(a != *b);
            let mut best = substituted.min(previous[column + 1] + 1).min(current[column] + 1);
            if column > 0 && before == Some(*b) && right[column - 1] == a {
                best = best.min(older[column - 1] + 1);
            }
            current.push(best);
        }
        before = Some(a);
        older = std::mem::replace(&mut previous, current);
    }
    previous.last().copied().unwrap_or_default()
}

/// The column that a bare word is surely meant for: a TCP state, a DNS response code, or a transport protocol. Values that
/// are also good names (`client`, `static`, `GET`) are not among them.
pub(super) fn column_of_value<R: Record>(word: &str) -> Option<&'static str> {
    const PROTOCOLS: &[&str] = &["tcp", "udp", "icmp", "icmp6", "igmp", "sctp"];
    const RCODES: &[&str] =
        &["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "NXRRSET", "NOTAUTH"];
    let is_state = TcpState::ALL.iter().any(|state| state.as_str() == word);
    let column = match word {
        _ if is_state => "tcp_state",
        _ if RCODES.contains(&word) => "dns_rcode",
        _ if PROTOCOLS.contains(&word) => "protocol",
        _ => return None,
    };
    resolve::<R>(column).is_some().then_some(column)
}

/// The greatest number that a column can hold, where the protocol says so.
pub(super) fn greatest(column: &str) -> Option<u64> {
    match column {
        "vlan" | "vlan_inner" => Some(4095),
        "dscp" => Some(63),
        "client_port" | "server_port" => Some(u64::from(u16::MAX)),
        _ => None,
    }
}

/// The values of a column whose set is closed.
pub(super) fn closed_set(column: &str) -> Option<Vec<&'static str>> {
    Some(match column {
        "end_reason" => record::EndReason::ALL.iter().map(|value| value.as_str()).collect(),
        "source" => record::Source::ALL.iter().map(|value| value.as_str()).collect(),
        "observed_at" => ObservedAt::ALL.iter().map(|value| value.as_str()).collect(),
        "oriented_by" => record::OrientedBy::ALL.iter().map(|value| value.as_str()).collect(),
        "tcp_state" => TcpState::ALL.iter().map(|value| value.as_str()).collect(),
        "client_tagged_by" | "server_tagged_by" => {
            vec!["interface", "socket", "mac", "ip", "service", "static", "ambiguous", "none"]
        }
        _ => return None,
    })
}

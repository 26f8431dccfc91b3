//! `wiretag identities`: who had a key, and when; the history of a pod or workload; and who said so.

use std::collections::HashMap;

use anyhow::Context;
use serde_json::Value;
use wiretag_capture::ring::links::{self, Link};
use wiretag_enrich::timeline::query::Query;
use wiretag_store::Store;

use crate::cli::IdentitiesArguments;
use crate::client::Appliance;
use crate::commands::WrongUsage;
use crate::commands::search::parse_time;
use crate::output::tell;
use crate::output::{self, Row};

/// Rows, and whether there are more.
async fn rows(arguments: &IdentitiesArguments, query: Query) -> anyhow::Result<(Vec<Row>, bool)> {
    let limit = arguments.limit;
    if let Some(appliance) = Appliance::find(&arguments.data.data)? {
        let mut parameters = parameters(&query);
        parameters.push(("limit", limit.to_string()));
        let mut answer = appliance.json("/api/v1/identities", &parameters)?;
        let is_more = answer.get("truncated").and_then(Value::as_bool).unwrap_or(false);
        let rows = answer.get_mut("identities").and_then(Value::as_array_mut).map(std::mem::take);
        return Ok((
            rows.unwrap_or_default().into_iter().filter_map(|row| row.as_object().cloned()).collect(),
            is_more,
        ));
    }
    let store = Store::open_read_only(&arguments.data.data).await?;
    let known = store.catalog.timeline().await?.query(&query);
    Ok((known.iter().take(limit).map(wiretag_web::identity_row).collect(), known.len() > limit))
}

/// What is asked, checked.
fn query(arguments: &IdentitiesArguments) -> anyhow::Result<Query> {
    let now = crate::host::now();
    let moment = |text: Option<&str>| text.map(|text| parse_time(text, now)).transpose();
    let mac = arguments.mac.as_deref().map(|text| {
        let wrong = || format!("`{text}` is not a link-layer address; hint: as in `02:42:ac:11:00:02`");
        wiretag_web::parse_mac(text).ok_or_else(|| WrongUsage(wrong()))
    });
    let at = if arguments.now { Some(now) } else { moment(arguments.at.as_deref())? };
    let query = Query {
        at,
        known_at: moment(arguments.known_at.as_deref())?,
        ip: arguments.ip,
        mac: mac.transpose()?,
        interface: arguments.interface.as_deref().map(interface).transpose()?,
        network: arguments.network.clone(),
        name: arguments.name.clone(),
        namespace: arguments.namespace.clone(),
        workload: arguments.workload.clone(),
        service: arguments.service.clone(),
        identity: arguments.identity.clone(),
        source: arguments.source.clone(),
    };
    if query.known_at.is_some() && !query.is_selective() {
        let what =
            "`--known-at` needs to know of whom; hint: add a key or a name, as in `--ip 10.1.4.7` or `--name 'web-*'`";
        return Err(WrongUsage(what.into()).into());
    }
    Ok(query)
}

/// The number of an interface.
fn interface(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let links = links::list().context("cannot list the interfaces")?;
    let found = links.iter().find(|link| link.name == name).map(|link| link.index);
    let wrong = || format!("there is no interface `{name}` now; hint: ask for its number");
    Ok(found.ok_or_else(|| WrongUsage(wrong()))?)
}

/// The same for the HTTP interface.
fn parameters(query: &Query) -> Vec<(&'static str, String)> {
    let mac = query.mac.map(wiretag_capture::Value::mac_text);
    [
        ("at", query.at.map(output::time)),
        ("known_at", query.known_at.map(output::time)),
        ("ip", query.ip.map(|ip| ip.to_string())),
        ("mac", mac),
        ("interface", query.interface.map(|index| index.to_string())),
        ("network", query.network.clone()),
        ("name", query.name.clone()),
        ("namespace", query.namespace.clone()),
        ("workload", query.workload.clone()),
        ("service", query.service.clone()),
        ("identity", query.identity.clone()),
        ("source", query.source.clone()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

pub(crate) async fn run(arguments: &IdentitiesArguments) -> anyhow::Result<()> {
    let (rows, is_more) = rows(arguments, query(arguments)?).await?;
    if is_more {
        // A running appliance has a bound of its own.
        let more = if rows.len() < arguments.limit {
            "ask for one key, pod or workload, or `--now`"
        } else {
            "`--limit` shows more"
        };
        tell!("only the first {}; hint: {more}", rows.len());
    }
    if arguments.json {
        return output::json_lines(&rows);
    }
    if rows.is_empty() {
        tell!("nobody known");
        return Ok(());
    }
    let links = links::list().unwrap_or_default();
    let cells = |row: &Row| {
        let name =
            ["identity.pod", "identity.container", "identity.service", "identity.host"].map(|path| text(row, path));
        let from = match text(row, "valid_from").get(..19) {
            // The static file says nothing about time.
            Some("1970-01-01T00:00:00") => "always".to_owned(),
            from => from.unwrap_or_default().to_owned(),
        };
        let to = match (text(row, "valid_to").get(..19), &*text(row, "ending")) {
            // It is only known that it lasted until then.
            (Some(to), "unheard") => format!("{to}?"),
            (Some(to), _) => to.to_owned(),
            (None, _) => "now".to_owned(),
        };
        vec![
            key(row, &links),
            short(text(row, "network")),
            name.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
            text(row, "identity.namespace"),
            text(row, "identity.workload"),
            text(row, "identity.image"),
            from,
            to,
            text(row, "source"),
            text(row, "learned_at").get(..19).unwrap_or_default().to_owned(),
            short(text(row, "identity.identity")),
        ]
    };
    let header =
        ["key", "network", "name", "namespace", "workload", "image", "from", "to", "source", "learned", "identity"];
    output::table(&header, joined(rows).iter().map(cells).collect(), None)
}

/// A text in a row, which may be within an object: `identity.pod`.
fn text(row: &Row, path: &str) -> String {
    let (outer, inner) = path.split_once('.').map_or((path, None), |(outer, inner)| (outer, Some(inner)));
    let value = match inner {
        Some(inner) => row.get(outer).and_then(|value| value.get(inner)),
        None => row.get(outer),
    };
    output::harmless(value.and_then(Value::as_str).unwrap_or(""))
}

/// One row for what goes on under all the same names: of a change that no column shows (a container of a pod began) a reader sees nothing.
fn joined(rows: Vec<Row>) -> Vec<Row> {
    const SHOWN: [&str; 11] = [
        "key",
        "network",
        "source",
        "identity.pod",
        "identity.container",
        "identity.service",
        "identity.host",
        "identity.namespace",
        "identity.workload",
        "identity.image",
        "identity.identity",
    ];
    let mut last: HashMap<[String; 11], usize> = HashMap::new();
    let mut joined: Vec<Row> = Vec::new();
    for row in rows {
        let before = last.entry(SHOWN.map(|path| text(&row, path))).or_insert(usize::MAX);
        match joined.get_mut(*before) {
            Some(own)
                if own.get("valid_to").is_some_and(Value::is_string)
                    && own.get("valid_to") == row.get("valid_from") =>
            {
                for name in ["valid_to", "ending"] {
                    own.insert(name.to_owned(), row.get(name).cloned().unwrap_or_default());
                }
            }
            Some(_) | None => {
                *before = joined.len();
                joined.push(row);
            }
        }
    }
    joined
}

/// The address; of an interface its number, and its name if it is still that interface.
fn key(row: &Row, links: &[Link]) -> String {
    let text = |name: &str| row.get(name).and_then(Value::as_str);
    let key = text("key").unwrap_or_default();
    let lasts = text("valid_to").is_none() && text("boot") == Some(&*crate::host::boot_id());
    let link = if text("key_kind") == Some("interface") && lasts {
        // Of another namespace it is `INDEX@NAMESPACE`, which is no number.
        key.parse().ok().and_then(|index: u32| links.iter().find(|link| link.index == index))
    } else {
        None
    };
    link.map_or_else(|| key.to_owned(), |link| format!("{} ({key})", link.name))
}

/// Ids of containers, networks and pods are long; their beginning tells them apart, as in Docker's own tables.
fn short(text: String) -> String {
    const LENGTH: usize = 12;
    let is_id = text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if is_id { text.chars().take(LENGTH).collect() } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wiretag_capture::ring::links::LinkKind;

    use super::*;

    #[test]
    fn what_goes_on_under_the_same_names_is_one_row() {
        let row = |source: &str, pod: &str, from: i32, to: Option<i32>| {
            let time = |second: i32| format!("2026-01-01T00:00:0{second}.5Z");
            let row = json!({
                "key": "10.0.0.1", "source": source, "identity": { "pod": pod, "containers": from },
                "valid_from": time(from), "valid_to": to.map(time), "ending": to.map(|_| "told"),
            });
            row.as_object().cloned().expect("an object")
        };
        let rows = vec![
            row("cni", "a", 1, Some(2)),
            row("cri", "a", 1, Some(3)),
            row("cni", "a", 2, Some(4)),
            row("cni", "b", 4, None),
            row("cri", "a", 5, Some(6)),
            row("cri", "a", 6, None),
        ];
        let spans = |row: &Row| {
            [text(row, "source"), text(row, "identity.pod"), text(row, "valid_from"), text(row, "valid_to")].join(" ")
        };
        let shown: Vec<String> = joined(rows).iter().map(spans).collect();
        assert_eq!(
            shown,
            [
                "cni a 2026-01-01T00:00:01.5Z 2026-01-01T00:00:04.5Z",
                "cri a 2026-01-01T00:00:01.5Z 2026-01-01T00:00:03.5Z",
                "cni b 2026-01-01T00:00:04.5Z ",
                "cri a 2026-01-01T00:00:05.5Z ",
            ]
        );
    }

    #[test]
    fn names_control_no_terminal() {
        let row = json!({"identity": {"pod": "web\u{1b}[2J"}});
        assert_eq!(text(row.as_object().expect("a row"), "identity.pod"), "web\u{fffd}[2J");
    }

    #[test]
    fn interfaces_have_names_only_while_they_are_the_same() {
        let link = Link {
            index: 7,
            name: "veth7".into(),
            kind: LinkKind::Veth,
            mac: None,
            up: true,
            master: None,
            peer: None,
            peer_namespace: None,
        };
        let boot = crate::host::boot_id();
        for (row, expected) in [
            (json!({"key_kind": "interface", "key": "7", "boot": *boot, "valid_to": null}), "veth7 (7)"),
            (json!({"key_kind": "interface", "key": "8", "boot": *boot, "valid_to": null}), "8"),
            (json!({"key_kind": "interface", "key": "7", "boot": "another", "valid_to": null}), "7"),
            (json!({"key_kind": "interface", "key": "7", "boot": *boot, "valid_to": "2026-01-01T00:00:00Z"}), "7"),
            (json!({"key_kind": "interface", "key": "7@99", "boot": *boot, "valid_to": null}), "7@99"),
            (json!({"key_kind": "ip", "key": "10.0.0.7", "valid_to": null}), "10.0.0.7"),
        ] {
            assert_eq!(key(row.as_object().expect("a row"), std::slice::from_ref(&link)), expected);
        }
        assert_eq!(short("0123456789abcdef0123456789abcdef".into()), "0123456789ab");
        assert_eq!(short("static:billing-database-of-the-shop".into()), "static:billing-database-of-the-shop");
    }
}

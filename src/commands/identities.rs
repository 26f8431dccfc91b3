//! `wiretag identities`: who had an address, and when.

use serde_json::Value;
use wiretag_capture::ring::links::{self, Link};
use wiretag_store::Store;

use crate::cli::IdentitiesArguments;
use crate::client::Appliance;
use crate::commands::search::parse_time;
use crate::output::{self, Row};

pub(crate) async fn run(arguments: &IdentitiesArguments) -> anyhow::Result<()> {
    let at = arguments.at.as_deref().map(|text| parse_time(text, crate::host::now())).transpose()?;
    let rows: Vec<Row> = if let Some(appliance) = Appliance::find(&arguments.data.data)? {
        let at = at.map(|at| ("at", output::time(at)));
        let ip = arguments.ip.map(|ip| ("ip", ip.to_string()));
        let mut answer = appliance.json("/api/v1/identities", &at.into_iter().chain(ip).collect::<Vec<_>>())?;
        let rows = answer.get_mut("identities").and_then(Value::as_array_mut).map(std::mem::take);
        rows.unwrap_or_default().into_iter().filter_map(|row| row.as_object().cloned()).collect()
    } else {
        let store = Store::open_read_only(&arguments.data.data).await?;
        let mut intervals = store.catalog.intervals().await?;
        intervals.retain(|interval| crate::identities::matches(interval, at, arguments.ip));
        intervals.iter().map(wiretag_web::identity_row).collect()
    };
    if arguments.json {
        return output::json_lines(&rows);
    }
    if rows.is_empty() {
        eprintln!("nobody known");
        return Ok(());
    }
    let text = |row: &Row, path: &str| {
        let (outer, inner) = path.split_once('.').map_or((path, None), |(outer, inner)| (outer, Some(inner)));
        let value = match inner {
            Some(inner) => row.get(outer).and_then(|value| value.get(inner)),
            None => row.get(outer),
        };
        value.and_then(Value::as_str).unwrap_or("").to_owned()
    };
    let links = links::list().unwrap_or_default();
    let cells = |row: &Row| {
        let name = [text(row, "identity.pod"), text(row, "identity.container")];
        let from = match text(row, "valid_from").get(..19) {
            // The static file says nothing about time.
            Some("1970-01-01T00:00:00") => "always".to_owned(),
            from => from.unwrap_or_default().to_owned(),
        };
        let to = text(row, "valid_to").get(..19).unwrap_or("now").to_owned();
        vec![
            key(row, &links),
            short(text(row, "network")),
            name.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
            text(row, "identity.workload"),
            text(row, "identity.image"),
            from,
            to,
            text(row, "source"),
            short(text(row, "identity.identity")),
        ]
    };
    let header = ["key", "network", "name", "workload", "image", "from", "to", "source", "identity"];
    output::table(&header, rows.iter().map(cells).collect(), None)
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

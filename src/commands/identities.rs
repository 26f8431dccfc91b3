//! `wiretag identities`: who had an address, and when.

use serde_json::Value;
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
    let cells = |row: &Row| {
        let name = [text(row, "identity.pod"), text(row, "identity.container")];
        let from = match text(row, "valid_from").get(..19) {
            // The static file says nothing about time.
            Some("1970-01-01T00:00:00") => "always".to_owned(),
            from => from.unwrap_or_default().to_owned(),
        };
        let to = text(row, "valid_to").get(..19).unwrap_or("now").to_owned();
        vec![
            text(row, "key"),
            name.into_iter().find(|name| !name.is_empty()).unwrap_or_default(),
            text(row, "identity.workload"),
            text(row, "identity.image"),
            from,
            to,
            text(row, "source"),
            text(row, "identity.identity").chars().take(12).collect(),
        ]
    };
    let header = ["key", "name", "workload", "image", "from", "to", "source", "identity"];
    output::table(&header, rows.iter().map(cells).collect())
}

//! `wiretag erase` and `wiretag erasures`: removal of what concerns somebody, and the record of it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use wiretag_capture::{FlowRecord, Transaction};
use wiretag_store::tables::Range;
use wiretag_store::{
    ErasureRequest, ErasureState, Role, Store, StoreConfig, StoreError, Table, TableName, erasure_row, preview_row,
    query, retention,
};

use super::search::{Has, Search, parse_time};
use super::{WrongUsage, aggregate};
use crate::cli::{EraseArguments, ErasedTable, ErasuresArguments};
use crate::client::Appliance;
use crate::output::tell;
use crate::output::{self, Row};

/// How often a running appliance is asked how far it is.
const ASK: Duration = Duration::from_millis(500);
/// How often it is looked whether an appliance that has the data directory answers by now.
const PATIENCE: usize = 20;

pub(crate) async fn run(arguments: &EraseArguments) -> anyhow::Result<()> {
    let now = crate::host::now();
    let request = request(arguments, now)?;
    let row = match Appliance::find(&arguments.data.data)? {
        Some(appliance) => asked(&appliance, arguments, &request).await?,
        None if arguments.dry_run => {
            let store = Store::open_read_only(&arguments.data.data).await?;
            preview_row(&store.preview_erasure(&request).await.map_err(refused)?)
        }
        None => by_whoever_can(arguments, &request).await?,
    };
    if arguments.json {
        output::json_lines(std::slice::from_ref(&row))?;
    } else {
        show(&row)?;
    }
    if request.to == now {
        tell_of_later_rows(&request, &arguments.data.data).await?;
    }
    match row.get("problem").and_then(Value::as_str) {
        Some(problem) => bail!("the erasure is not at its end, the appliance goes on with it: {problem}"),
        None => incomplete(&row),
    }
}

fn request(arguments: &EraseArguments, now: i64) -> anyhow::Result<ErasureRequest> {
    let time = |text: &Option<String>, default| text.as_deref().map_or(Ok(default), |text| parse_time(text, now));
    let uid = std::fs::metadata("/proc/self").map(|about| about.uid()).context("cannot read `/proc/self`")?;
    let request = ErasureRequest {
        filter: arguments.filter.clone(),
        from: time(&arguments.from, 0)?,
        to: time(&arguments.to, now)?.min(now),
        only: arguments.only.map(|only| match only {
            ErasedTable::Flows => TableName::Flows,
            ErasedTable::Transactions => TableName::Transactions,
        }),
        who: match &arguments.by {
            Some(name) => format!("{name}, user {uid} at the command line"),
            None => format!("user {uid} at the command line"),
        },
        reason: arguments.reason.clone().unwrap_or_else(|| "a dry run".into()),
    };
    request.check().map_err(refused)?;
    Ok(request)
}

fn refused(error: StoreError) -> anyhow::Error {
    match error {
        StoreError::Erasure(sentence) => WrongUsage(sentence).into(),
        error => error.into(),
    }
}

/// By the running appliance.
async fn asked(appliance: &Appliance, arguments: &EraseArguments, request: &ErasureRequest) -> anyhow::Result<Row> {
    let question = json!({
        "filter": request.filter,
        "from": output::time(request.from),
        "to": output::time(request.to),
        "only": request.only.map(TableName::as_str),
        "reason": request.reason,
        "by": request.who,
        "dry_run": arguments.dry_run,
    });
    let mut answer = appliance.post("/api/v1/erasures", &question)?;
    loop {
        let Value::Object(row) = answer else { bail!("the appliance's answer is not an erasure") };
        let goes_on = row.get("state").and_then(Value::as_str) == Some(ErasureState::Running.as_str());
        let id = row.get("id").and_then(Value::as_i64);
        let (true, Some(id), Some(Value::Null)) = (goes_on, id, row.get("problem")) else { return Ok(row) };
        tokio::time::sleep(ASK).await;
        answer = appliance.json(&format!("/api/v1/erasures/{id}"), &[])?;
    }
}

/// An appliance that begins, or ends, has the data directory and does not answer: in a moment it does, or it is gone.
async fn by_whoever_can(arguments: &EraseArguments, request: &ErasureRequest) -> anyhow::Result<Row> {
    for _ in 0..PATIENCE {
        match done(arguments, request).await {
            Err(error) if matches!(error.downcast_ref(), Some(StoreError::InUse { .. })) => {}
            outcome => return outcome,
        }
        tokio::time::sleep(ASK).await;
        if let Some(appliance) = Appliance::find(&arguments.data.data)? {
            return asked(&appliance, arguments, request).await;
        }
    }
    done(arguments, request).await
}

/// Here, in the place of an appliance.
async fn done(arguments: &EraseArguments, request: &ErasureRequest) -> anyhow::Result<Row> {
    // It makes nothing: where there is no data there is nothing to erase.
    Store::open_read_only(&arguments.data.data).await?.close().await?;
    let (store, recovery) = Store::open(StoreConfig::new(&arguments.data.data, Role::Eraser)).await?;
    for repair in recovery.repairs {
        tell!("repaired: {repair}");
    }
    let id = store.begin_erasure(request, crate::host::now()).await.map_err(refused)?;
    let worked = store.continue_erasures(&crate::host::now).await;
    if worked.is_ok() {
        if !arguments.at_once {
            tell!("waiting {} s for searches that began before", retention::GRACE.as_secs());
            tokio::time::sleep(retention::GRACE).await;
        }
        store.settle_erasures().await?;
    }
    let erasure = store.erasures().await?.into_iter().find(|erasure| erasure.id == id);
    let erasure = erasure.context("the catalog lost the record of the erasure")?;
    let row = erasure_row(&erasure, Some(&store.catalog.erased_files(id).await?));
    store.close().await?;
    Ok(row)
}

/// What begins after the end, which nobody chose, stays: rows of clocks that are ahead, and traffic that goes on.
async fn tell_of_later_rows(request: &ErasureRequest, data: &Path) -> anyhow::Result<()> {
    let (mut flows, mut transactions) = (0, 0);
    if request.only != Some(TableName::Transactions) {
        flows = later::<FlowRecord>(request, data).await?;
    }
    if request.only != Some(TableName::Flows) {
        transactions = later::<Transaction>(request, data).await?;
    }
    if flows + transactions > 0 {
        tell!(
            "warning: {flows} flows and {transactions} transactions that the filter finds begin after {}, the time of the \
             request, and stay; hint: docs/erasure.md",
            output::time(request.to)
        );
    }
    Ok(())
}

/// Rows that the filter finds and that begin after the end.
async fn later<R: Table>(request: &ErasureRequest, data: &Path) -> anyhow::Result<u64>
where
    Store: Has<R>,
{
    let text = format!("{} | count", request.filter);
    let statement = query::parse_statement::<R>(&text, request.to).map_err(|error| WrongUsage(error.to_string()))?;
    let range = Range { from: request.to, to: i64::MAX };
    let search = Search { text, query: statement.filter, range, all_observations: true };
    match statement.aggregate {
        Some(aggregate) => aggregate::count(&search, aggregate, data).await,
        None => Ok(0),
    }
}

fn number(row: &Row, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or_default()
}

fn text<'a>(row: &'a Row, name: &str) -> &'a str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What an erasure did, file by file.
fn show_files(row: &Row) -> anyhow::Result<()> {
    let files = row.get("files").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let cells = files.iter().filter_map(Value::as_object).map(|file| {
        let became = match file.get("became") {
            Some(Value::String(became)) => became.clone(),
            Some(_) if text(file, "path") != "memory" => "deleted".into(),
            Some(_) | None => String::new(),
        };
        vec![text(file, "kind").into(), number(file, "items").to_string(), text(file, "path").into(), became]
    });
    output::table(&["kind", "removed", "from", "the rest is in"], cells.collect(), None)
}

/// The same, and in all.
fn show(row: &Row) -> anyhow::Result<()> {
    show_files(row)?;
    let [flows, transactions, packets, rolled] =
        ["flows", "transactions", "packets", "rollup_rows"].map(|name| number(row, name));
    match row.get("id") {
        Some(id) => tell!(
            "erasure {id}, {}: removed {flows} flows, {transactions} transactions, {packets} packets, {rolled} rows of roll-ups",
            text(row, "state")
        ),
        None => tell!("would remove {flows} flows with their packets, {transactions} transactions"),
    }
    if let Some(id) = row.get("id")
        && text(row, "state") != ErasureState::Done.as_str()
    {
        tell!("flows that were open are counted within about a minute; hint: `wiretag erasures {id}`");
    }
    Ok(())
}

/// What an erasure could not look at goes to stderr; a file that could not be read is a failure.
fn incomplete(row: &Row) -> anyhow::Result<()> {
    let minutes = number(row, "minutes_unchecked");
    if minutes > 0 {
        tell!(
            "warning: up to {minutes} minutes of roll-ups could not be checked: their flows are gone, and roll-ups do not have \
             what the filter asks for; hint: docs/erasure.md"
        );
    }
    let packets = number(row, "packets_unchecked");
    if packets > 0 {
        tell!(
            "warning: {packets} packets of the seconds around a kill are of flows without a row, and stay; hint: docs/erasure.md"
        );
    }
    match number(row, "files_unread") {
        0 => Ok(()),
        unread => bail!("{unread} files could not be read, and have what they had; hint: the log names them"),
    }
}

pub(crate) async fn list(arguments: &ErasuresArguments) -> anyhow::Result<()> {
    let rows = records(arguments).await?;
    if arguments.json {
        return output::json_lines(&rows);
    }
    if let (Some(_), [row]) = (arguments.id, rows.as_slice()) {
        let told = row.iter().filter(|(name, value)| *name != "files" && !value.is_null());
        let cells = told.map(|(name, value)| {
            vec![name.clone(), value.as_str().map_or_else(|| value.to_string(), output::harmless)]
        });
        output::table(&["field", "value"], cells.collect(), None)?;
        return show_files(row);
    }
    let cells = rows.iter().map(|row| {
        let mut cells = vec![number(row, "id").to_string(), text(row, "at").chars().take(19).collect()];
        cells.extend(["state", "filter", "reason", "who"].map(|name| output::harmless(text(row, name))));
        cells.extend(["flows", "transactions", "packets"].map(|name| number(row, name).to_string()));
        cells
    });
    let header = ["id", "at", "state", "filter", "reason", "who", "flows", "transactions", "packets"];
    output::table(&header, cells.collect(), None)
}

async fn records(arguments: &ErasuresArguments) -> anyhow::Result<Vec<Row>> {
    if let Some(appliance) = Appliance::find(&arguments.data.data)? {
        let answer = appliance.json("/api/v1/erasures", &[])?;
        let rows = answer.get("erasures").and_then(Value::as_array).into_iter().flatten();
        let rows: Vec<Row> = rows.filter_map(|row| row.as_object().cloned()).collect();
        let Some(id) = arguments.id else { return Ok(rows) };
        if !rows.iter().any(|row| row.get("id").and_then(Value::as_i64) == Some(id)) {
            return Err(unknown(id));
        }
        let row = appliance.json(&format!("/api/v1/erasures/{id}"), &[])?;
        return Ok(row.as_object().cloned().into_iter().collect());
    }
    let store = Store::open_read_only(&arguments.data.data).await?;
    let erasures = store.erasures().await?;
    let Some(id) = arguments.id else {
        return Ok(erasures.iter().map(|erasure| erasure_row(erasure, None)).collect());
    };
    let Some(erasure) = erasures.iter().find(|erasure| erasure.id == id) else {
        return Err(unknown(id));
    };
    Ok(vec![erasure_row(erasure, Some(&store.catalog.erased_files(id).await?))])
}

fn unknown(id: i64) -> anyhow::Error {
    WrongUsage(format!("there is no erasure {id}; hint: `wiretag erasures` lists them")).into()
}

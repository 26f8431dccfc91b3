//! `wiretag flows` into a file: everything that matches, streamed, in the order of a search.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use wiretag_enrich::ipfix::Numbers;
use wiretag_store::tables::{ExportFormat, ExportOptions};
use wiretag_store::{Store, Table};

use super::search::{Has, Of, Search, warn_of_losses, warn_of_missing};
use crate::cli::{FlowsArguments, Format, Limit, RowsFormat};
use crate::client::Appliance;
use crate::commands::WrongUsage;
use crate::output::tell;

/// What becomes of rows.
pub(super) enum Way {
    /// A page for a terminal or a pipe.
    Print(Format),
    /// A file, or everything.
    Export(ExportFormat),
}

pub(super) fn way(arguments: &FlowsArguments) -> anyhow::Result<Way> {
    let is_export = arguments.output.is_some() || arguments.limit == Some(Limit::All);
    match arguments.format {
        RowsFormat::Parquet => Ok(Way::Export(ExportFormat::Parquet)),
        RowsFormat::Ipfix if arguments.transactions => {
            Err(WrongUsage("IPFIX tells of flows; hint: transactions are `--format parquet`, `csv` or `json`".into())
                .into())
        }
        // A running appliance has numbers of its own.
        RowsFormat::Ipfix => {
            Ok(Way::Export(ExportFormat::Ipfix { numbers: Numbers::default(), now: crate::host::now() }))
        }
        RowsFormat::Csv if is_export => Ok(Way::Export(ExportFormat::Csv)),
        RowsFormat::Json if is_export => Ok(Way::Export(ExportFormat::JsonLines)),
        RowsFormat::Csv => Ok(Way::Print(Format::Csv)),
        RowsFormat::Json => Ok(Way::Print(Format::Json)),
        RowsFormat::Table if is_export => Err(WrongUsage(
            "a table is for a terminal; hint: choose what is written with `--format parquet`, `csv`, `json` or `ipfix`"
                .into(),
        )
        .into()),
        RowsFormat::Table => Ok(Way::Print(Format::Table)),
    }
}

/// How an aggregation is printed.
pub(super) fn of_aggregation(arguments: &FlowsArguments) -> anyhow::Result<Format> {
    let is_export = arguments.output.is_some() || arguments.limit == Some(Limit::All);
    match arguments.format.printed() {
        Some(format) if !is_export => Ok(format),
        _ => Err(WrongUsage(
            "an aggregation is short, and printed; hint: `--format csv` or `json`, without `--output` and `--limit all`".into(),
        )
        .into()),
    }
}

pub(super) async fn run<R: Table>(
    search: &Search<R>,
    arguments: &FlowsArguments,
    format: ExportFormat,
) -> anyhow::Result<()>
where
    Store: Has<R>,
{
    let path = arguments.output.as_deref().unwrap_or(Path::new("-"));
    let is_text = matches!(format, ExportFormat::Csv | ExportFormat::JsonLines);
    if !is_text && path.as_os_str() == "-" && io::IsTerminal::is_terminal(&io::stdout()) {
        let text = format!("`{}` is not for a terminal; hint: name a file with `--output`", name(format));
        return Err(WrongUsage(text).into());
    }
    let limit = match arguments.limit {
        Some(Limit::Rows(rows)) => Some(u64::from(rows)),
        Some(Limit::All) | None => None,
    };
    let data = &arguments.search.data.data;
    let bytes = if let Some(appliance) = Appliance::find(data)? {
        ask(&appliance, search, (format, limit), path)?
    } else {
        let store = Store::open_read_only(data).await?;
        let options = ExportOptions { format, range: search.range, all_observations: search.all_observations, limit };
        let out = Counted { out: create(path)?, bytes: 0 };
        let exported = store.table().export(&search.query, options, out).await;
        let bytes = exported.with_context(|| not_whole(path))?.1.bytes;
        warn_of_losses(&store, (search.range, Of::Rows), false).await?;
        bytes
    };
    if path.as_os_str() != "-" {
        tell!("{bytes} bytes written to `{}`", path.display());
    }
    Ok(())
}

fn ask<R: Table>(
    appliance: &Appliance,
    search: &Search<R>,
    (format, limit): (ExportFormat, Option<u64>),
    path: &Path,
) -> anyhow::Result<u64> {
    let table = R::NAME.as_str();
    let mut parameters = search.parameters();
    parameters.push(("format", name(format).into()));
    parameters.extend(limit.map(|limit| ("limit", limit.to_string())));
    let mut body = appliance.stream(&format!("/api/v1/{table}/export"), &parameters)?;
    let mut out = create(path)?;
    let bytes = io::copy(&mut body, &mut out).with_context(|| not_whole(path))?;
    out.flush().with_context(|| not_whole(path))?;
    // A page tells what is missing; by now it is known which files cannot be read.
    warn_of_missing(appliance, search, Of::Rows)?;
    Ok(bytes)
}

/// In the HTTP interface.
const fn name(format: ExportFormat) -> &'static str {
    match format {
        ExportFormat::Parquet => "parquet",
        ExportFormat::Csv => "csv",
        ExportFormat::JsonLines => "jsonl",
        ExportFormat::Ipfix { .. } => "ipfix",
    }
}

fn not_whole(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "what was written is not whole".to_owned(),
        _ => format!("`{}` is not whole", path.display()),
    }
}

fn create(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufWriter::new(io::stdout())));
    }
    let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

/// Counts what passes.
struct Counted {
    out: Box<dyn Write + Send>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

//! `wiretag pcap`: packets of matching flows as pcapng.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use wiretag_capture::FlowRecord;
use wiretag_store::{Selection, Store};

use crate::cli::PcapArguments;
use crate::client::Appliance;
use crate::commands::search::Search;

/// Most flows whose packets go into one file.
const MOST_FLOWS: usize = 1_000_000;

pub(crate) async fn run(arguments: &PcapArguments) -> anyhow::Result<()> {
    let search = Search::<FlowRecord>::new(&arguments.search)?;
    let data = &arguments.search.data.data;
    if let Some(appliance) = Appliance::find(data)? {
        let mut body = appliance.get("/api/v1/pcap", &search.parameters())?;
        let mut out = create(&arguments.output)?;
        let length = io::copy(&mut body, &mut out).context("the appliance stopped answering")?;
        out.flush()?;
        eprintln!("{length} bytes written to `{}`", arguments.output.display());
        return Ok(());
    }
    let store = Store::open_read_only(data).await?;
    let flows = store.flows.refs(&search.query, search.range, search.all_observations, MOST_FLOWS).await?;
    let everything = search.text.trim().is_empty();
    if flows.is_empty() && !everything {
        bail!("no flows match; hint: `wiretag flows` shows what is there");
    }
    let out = create(&arguments.output)?;
    let packets = if everything { Selection::All(flows) } else { Selection::Flows(flows) };
    let (packets, mut out) = store.write_pcap(packets, search.range.from, search.range.to, out).await?;
    out.flush()?;
    eprintln!("{packets} packets written to `{}`", arguments.output.display());
    Ok(())
}

fn create(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

//! `wiretag replay`: a capture file to flow records, or to transactions, nothing stored.
//!
//! Timeouts run on packet time and rows are sorted by `start`, then `flow_id`, then `slice` or `exchange`: the same bytes
//! on every run. Rows that can still be preceded by others wait: a row leaves when every flow in the table began after it, which
//! for a file means at its end, so memory grows with the number of rows, not of packets.

use std::io::Write;

use anyhow::Context;
use wiretag_capture::file::{CaptureFile, FileInterface};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{CaptureCounters, EndReason, Source};
use wiretag_store::{Table, json};

use crate::cli::ReplayArguments;

/// Flows that are ended at once where their rows are not kept.
const AT_ONCE: usize = 8192;

/// Packets between two looks at their transactions: these may hold more of them than wait for us.
const FEW: usize = 4;

pub(crate) fn run(arguments: &ReplayArguments) -> anyhow::Result<()> {
    let mut file = open(&arguments.file)?;
    let config = FlowConfig { transactions: arguments.transactions, ..FlowConfig::new("file", Source::File) };
    let mut engine = Engine::new(config);
    let (mut records, mut transactions) = (Vec::new(), Vec::new());
    let mut slices = 0_u64;
    let mut names = Vec::new();
    let damage = loop {
        let mut describe = |number, interface: &FileInterface| names.push((number, interface.name.clone()));
        let burst = match file.next_burst(&mut describe) {
            Ok(burst) if burst.is_empty() => break None,
            Ok(burst) => burst,
            Err(error) => break Some(error),
        };
        name_interfaces(&mut engine, &mut names);
        for packets in burst.chunks(if arguments.transactions { FEW } else { burst.len() }) {
            engine.burst(packets, &mut records, |_, _| {});
            engine.take_transactions(&mut transactions);
        }
        if arguments.null || arguments.transactions {
            slices += records.len() as u64;
            records.clear();
        }
        if arguments.null {
            transactions.clear();
        }
    };
    while arguments.null && engine.finish_some(EndReason::EndOfInput, AT_ONCE, &mut records) {
        slices += records.len() as u64;
        records.clear();
        engine.take_transactions(&mut transactions);
        transactions.clear();
    }
    engine.finish(EndReason::EndOfInput, &mut records);
    engine.take_transactions(&mut transactions);
    slices += records.len() as u64;
    let counters = engine.counters();
    if arguments.null || !counters.refused.is_empty() {
        summary(counters, slices, arguments.transactions);
    }
    if arguments.null {
        // That was all.
    } else if arguments.transactions {
        print(transactions)?;
    } else {
        print(records)?;
    }
    match damage {
        Some(error) => Err(error).context("the capture file is damaged; what was read before is complete"),
        None => Ok(()),
    }
}

/// What messages call stdin, and the interface of what comes from it.
pub(super) const STDIN: &str = "stdin";

/// Opens a capture file; `-` is stdin.
pub(super) fn open(path: &std::path::Path) -> anyhow::Result<CaptureFile> {
    if path.as_os_str() == "-" {
        return Ok(CaptureFile::new(Box::new(std::io::stdin()), STDIN)?);
    }
    Ok(CaptureFile::open(path)?)
}

/// Tells the engine the names of new interfaces. Classic pcap has none.
pub(super) fn name_interfaces(engine: &mut Engine, names: &mut Vec<(u32, Option<String>)>) {
    for (number, name) in names.drain(..) {
        if let Some(name) = name {
            engine.name_interface(number, &name);
        }
    }
}

fn print<R: Table>(mut records: Vec<R>) -> anyhow::Result<()> {
    records.sort_by_key(|record| {
        let key = record.key();
        (key.start, key.flow_id, key.number)
    });
    let mut out = crate::output::stdout();
    for record in &records {
        serde_json::to_writer(&mut out, &json::record(record))?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Everything that went in and where it ended.
fn summary(counters: &CaptureCounters, slices: u64, transactions: bool) {
    eprintln!("packets {}, bytes {}", counters.packets, counters.bytes);
    eprintln!("in flows {}, flows {}, rows {slices}", counters.decoded, counters.flows_started);
    if transactions {
        eprintln!("transactions {}, lost {}", counters.transactions, counters.transactions_lost);
    }
    for (reason, count) in &counters.refused {
        eprintln!("not in flows, {reason}: {count}");
    }
}

//! `wiretag replay`: a capture file to flow records, or to transactions, nothing stored.
//!
//! Timeouts run on packet time and rows are sorted by `start`, then `flow_id`, then `slice` or `exchange`: the same bytes
//! on every run, however many threads share the flows. Rows that can still be preceded by others wait: a row leaves when every
//! flow in the table began after it, which for a file means at its end, so memory grows with the number of rows, not of packets.

use std::collections::BTreeSet;
use std::io::Write;
use std::num::NonZeroUsize;

use anyhow::Context;
use wiretag_capture::decode::reads;
use wiretag_capture::engines::{Engines, Keep, Outcome};
use wiretag_capture::file::{CaptureFile, FileError, FileInterface};
use wiretag_capture::flow::FlowConfig;
use wiretag_capture::{CaptureCounters, Source};
use wiretag_store::{Table, json};

use super::capture_file;
use crate::cli::ReplayArguments;
use crate::output::tell;

pub(crate) fn run(arguments: &ReplayArguments) -> anyhow::Result<()> {
    let mut file = open(&arguments.file)?;
    let config = FlowConfig {
        transactions: arguments.transactions,
        flow_memory: arguments.memory.bytes(),
        ..FlowConfig::new("file", Source::File)
    };
    let keep = match (arguments.null, arguments.transactions) {
        (true, _) => Keep::Counts,
        (false, true) => Keep::Transactions,
        (false, false) => Keep::Records,
    };
    let workers = NonZeroUsize::new(arguments.workers.into()).unwrap_or(NonZeroUsize::MIN);
    let engines = Engines::start(&config, workers, keep).context("cannot start threads")?;
    let (outcome, damage, unknown) = read(&mut file, engines);
    let Outcome { records, transactions, slices, counters } = outcome;
    if arguments.null || !counters.refused.is_empty() || counters.flows_evicted > 0 {
        summary(&counters, slices, arguments.transactions);
    }
    if !unknown.is_empty() {
        let types = unknown.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        tell!("hint: packets of link type {types} (tcpdump.org/linktypes.html) are not read");
    }
    tell_times(&file);
    match keep {
        Keep::Counts => {}
        Keep::Transactions => print(transactions)?,
        Keep::Records => print(records)?,
    }
    match damage {
        Some(error) => Err(error).context("the capture file is damaged; what was read before is complete"),
        None => Ok(()),
    }
}

/// Reads to the end, or to where the file is damaged; and link types of packets that have no decoder.
fn read(file: &mut CaptureFile, mut engines: Engines) -> (Outcome, Option<FileError>, BTreeSet<u16>) {
    let (mut names, mut any_unread, mut unknown) = (Vec::new(), false, BTreeSet::new());
    let damage = loop {
        let mut describe = |number, interface: &FileInterface| {
            names.push((number, interface.name.clone()));
            any_unread |= !reads(interface.link_type);
        };
        let burst = match file.next_burst(&mut describe) {
            Ok(burst) if burst.is_empty() => break None,
            Ok(burst) => burst,
            Err(error) => break Some(error),
        };
        // Classic pcap names none.
        for (number, name) in names.drain(..) {
            if let Some(name) = name {
                engines.name_interface(number, &name);
            }
        }
        // An interface may have no packets.
        if any_unread {
            let types = burst.iter().map(|packet| packet.link_type);
            unknown.extend(types.filter(|link_type| !reads(*link_type)).map(|link_type| link_type.0));
        }
        engines.burst(&burst);
    };
    (engines.finish(), damage, unknown)
}

/// Times of some packets are not theirs, or such that they are left out.
pub(super) fn tell_times(file: &CaptureFile) {
    let misdated = file.misdated();
    if misdated > 0 {
        tell!(
            "warning: {misdated} packets are before 1970 or after 2262, and are left out; hint: `editcap -t` moves times"
        );
    }
    if file.has_untimed() {
        tell!("hint: packets without a time (pcapng's simple packets) have that of the packet before");
    }
}

/// What messages call stdin, and the interface of what comes from it.
pub(super) const STDIN: &str = "stdin";

/// Opens a capture file; `-` is stdin.
pub(super) fn open(path: &std::path::Path) -> anyhow::Result<CaptureFile> {
    if path.as_os_str() == "-" {
        return Ok(capture_file::read(Box::new(std::io::stdin()), STDIN)?);
    }
    Ok(capture_file::open(path)?)
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
    tell!("packets {}, bytes {}", counters.packets, counters.bytes);
    tell!("in flows {}, flows {}, rows {slices}", counters.decoded, counters.flows_started);
    if transactions {
        tell!("transactions {}", counters.transactions);
    }
    for (reason, count) in &counters.refused {
        tell!("not in flows, {reason}: {count}");
    }
    for (value, count) in &counters.evicted {
        tell!("flows ended early for want of memory, {value}: {count}");
    }
}

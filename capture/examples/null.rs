//! What `wiretag replay --null` does, without the rest of the binary, which takes long to build: for profiles. With
//! `--rows` it prints what came of the file, sorted, so that two builds can be compared.
//!
//! usage: null FILE [--rows | --transactions]

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::Path;

use wiretag_capture::Source;
use wiretag_capture::engines::{Engines, Keep, Outcome};
use wiretag_capture::file::CaptureFile;
use wiretag_capture::flow::FlowConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, keep) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [path] => (*path, Keep::Counts),
        [path, "--rows"] => (*path, Keep::Records),
        [path, "--transactions"] => (*path, Keep::Transactions),
        _ => return Err("usage: null FILE [--rows | --transactions]".into()),
    };
    let mut file = CaptureFile::open(Path::new(path))?;
    let config = FlowConfig { transactions: keep == Keep::Transactions, ..FlowConfig::new("file", Source::File) };
    let mut engines = Engines::start(&config, NonZeroUsize::MIN, keep)?;
    let damage = loop {
        match file.next_burst(&mut |_, _| {}) {
            Ok(burst) if burst.is_empty() => break None,
            Ok(burst) => engines.burst(&burst),
            Err(error) => break Some(error),
        }
    };
    let Outcome { mut records, mut transactions, slices, counters } = engines.finish();
    records.sort_by_key(|record| (record.start, record.flow_id, record.slice));
    transactions.sort_by_key(|transaction| (transaction.exchange.start, transaction.flow_id, transaction.number));
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for record in records {
        writeln!(out, "{record:?}")?;
    }
    for transaction in transactions {
        writeln!(out, "{transaction:?}")?;
    }
    writeln!(out, "rows {slices}, {counters:?}, damage {damage:?}")?;
    Ok(out.flush()?)
}

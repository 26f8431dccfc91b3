//! `wiretag import`: capture files into the store, through the same pipeline, streaming.

use std::path::Path;
use std::sync::{Arc, RwLock};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use wiretag_capture::file::{CaptureFile, FileInterface};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, FlowRecord, Source, Transaction};
use wiretag_enrich::static_file;
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_store::{PacketLog, PacketLogConfig, Retention, Role, Store, StoreConfig};

use super::WrongUsage;
use super::replay::STDIN;
use crate::cli::ImportArguments;
use crate::identities::apply_static;

/// Interfaces of files are no interfaces of this host.
const FILE_NAMESPACE: u64 = u64::MAX;
/// Rows that are tagged and stored at once.
const BATCH: usize = 8192;

pub(crate) async fn run(arguments: &ImportArguments) -> anyhow::Result<()> {
    // Before anything is stored; stdin can be opened only once.
    for file in arguments.files.iter().filter(|file| !is_stdin(file)) {
        drop(CaptureFile::open(file)?);
    }
    if arguments.files.iter().filter(|file| is_stdin(file)).count() > 1 {
        return Err(WrongUsage("`-` is given twice; hint: there is one stdin".into()).into());
    }
    let data = &arguments.data.data;
    std::fs::create_dir_all(data).with_context(|| {
        format!("cannot make the data directory `{}`; hint: choose another with `--data`", data.display())
    })?;
    let (store, recovery) = Store::open(importer(data)).await?;
    for repair in &recovery.repairs {
        eprintln!("repaired: {repair}");
    }
    let mut timeline = Timeline::new();
    timeline.load(store.catalog.intervals().await?);
    let timeline = Arc::new(RwLock::new(timeline));
    if let Some(path) = &arguments.static_file {
        let file = static_file::load(path, crate::host::now())?;
        store.catalog.append_intervals(&apply_static(&timeline, &file)).await?;
    }
    let mut import = Import {
        log: store.packet_log(PacketLogConfig { node: "import".into(), ..PacketLogConfig::default() })?,
        store,
        timeline,
    };
    let mut damaged = 0;
    for file in &arguments.files {
        damaged += usize::from(!import.file(file, arguments.quiet).await?);
    }
    import.log.seal()?;
    import.store.close().await?;
    if damaged > 0 {
        bail!("{damaged} of {} files are damaged; what could be read is stored", arguments.files.len());
    }
    Ok(())
}

/// An importer keeps everything: retention is the appliance's.
fn importer(data: &Path) -> StoreConfig {
    let (flows, packets) = (Retention::default(), Retention::default());
    StoreConfig { data_dir: data.to_owned(), role: Role::Importer, flows, packets }
}

struct Import {
    store: Store,
    log: PacketLog,
    timeline: crate::identities::SharedTimeline,
}

impl Import {
    /// Imports one file; false if it is damaged.
    async fn file(&mut self, path: &Path, quiet: bool) -> anyhow::Result<bool> {
        let mut file = super::replay::open(path)?;
        let progress = progress(path, quiet || is_stdin(path));
        let name =
            if is_stdin(path) { Some(STDIN.into()) } else { path.file_name().map(std::ffi::OsStr::to_string_lossy) };
        let name = name.map_or_else(|| "file".to_owned(), std::borrow::Cow::into_owned);
        let config = FlowConfig { transactions: true, ..FlowConfig::new(crate::host::node_name(), Source::File) };
        let mut engine = Engine::new(config);
        let mut tagging = Tagging::new();
        let (mut described, mut names) = (Vec::new(), Vec::new());
        let damage = loop {
            let mut describe = |number, interface: &FileInterface| described.push((number, interface.name.clone()));
            let packet = match file.next_packet_naming(&mut describe) {
                Ok(Some(packet)) => packet,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            names.extend(described.iter().map(|(_, own)| own.clone().unwrap_or_else(|| name.clone())));
            super::replay::name_interfaces(&mut engine, &mut described);
            let flow_id = engine.packet(&packet, &mut tagging.records);
            engine.take_transactions(&mut tagging.transactions);
            let interface = names.get(packet.interface as usize).unwrap_or(&name);
            self.log.append(interface, &packet, flow_id)?;
            if engine.counters().packets.is_multiple_of(1024) {
                progress.set_position(file.position());
            }
            if tagging.records.len().max(tagging.transactions.len()) >= BATCH {
                self.store(&mut tagging).await?;
            }
        };
        engine.finish(EndReason::EndOfInput, &mut tagging.records);
        engine.take_transactions(&mut tagging.transactions);
        self.store(&mut tagging).await?;
        progress.finish_and_clear();
        let counters = engine.counters();
        eprintln!(
            "{}: {} packets, {} in flows, {} flows, {} rows, {} transactions",
            path.display(),
            counters.packets,
            counters.decoded,
            counters.flows_started,
            counters.slices,
            counters.transactions
        );
        for (reason, count) in &counters.refused {
            eprintln!("  not in flows, {reason}: {count}");
        }
        if let Some(error) = &damage {
            eprintln!("warning: {error}");
        }
        Ok(damage.is_none())
    }

    /// Tags and stores a batch. Time is the packets': nothing is waited for.
    async fn store(&self, tagging: &mut Tagging) -> anyhow::Result<()> {
        let tagged = tagging.batch(&self.timeline.read().unwrap_or_else(std::sync::PoisonError::into_inner));
        self.store.flows.append(tagged.flows).await?;
        self.store.transactions.append(tagged.transactions).await?;
        Ok(())
    }
}

/// The tagger of one file, and what waits for it: what was decided in one batch holds in the next.
struct Tagging {
    tagger: Tagger,
    records: Vec<FlowRecord>,
    transactions: Vec<Transaction>,
}

impl Tagging {
    fn new() -> Self {
        let tagger = Tagger::new(TaggerConfig { boot: crate::host::boot_id(), ..TaggerConfig::default() });
        Self { tagger, records: Vec::new(), transactions: Vec::new() }
    }

    fn batch(&mut self, timeline: &Timeline) -> TaggedRows {
        let mut tagged = TaggedRows::default();
        let mut latest = i64::MIN;
        for record in self.records.drain(..) {
            let end = record.end;
            latest = latest.max(end);
            self.tagger.push(FILE_NAMESPACE, record, end);
        }
        for transaction in self.transactions.drain(..) {
            let end = transaction.exchange.end;
            self.tagger.push_transaction(FILE_NAMESPACE, transaction, end);
        }
        self.tagger.drain(latest, timeline, &mut tagged);
        self.tagger.flush(timeline, &mut tagged);
        tagged
    }
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn progress(path: &Path, quiet: bool) -> ProgressBar {
    let length = std::fs::metadata(path).map_or(0, |data| data.len());
    let bar = ProgressBar::new(length);
    if quiet {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

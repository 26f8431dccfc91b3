//! `wiretag import`: capture files into the store, through the same pipeline, streaming.
//!
//! Each file is an import with a number in the catalog, and its rows and segments bear it. So a file counts once (by its
//! content), and what an import that was interrupted or killed left behind is replaced by the next one of the same content.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use sha2::{Digest, Sha256};
use wiretag_capture::file::FileInterface;
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{CaptureCounters, EndReason, FlowRecord, Packet, Source, Transaction};
use wiretag_enrich::static_file;
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_store::packets::import_node;
use wiretag_store::{
    Compression, Import as KnownImport, ImportState, Origin, PacketLog, PacketLogConfig, Role, Store, StoreConfig,
    Stored, private,
};

use super::{Interrupted, WrongUsage, capture_file};
use crate::cli::ImportArguments;
use crate::identities::persist;
use crate::output::tell;
use crate::static_identities::apply_static;

/// Interfaces of files are no interfaces of this host.
const FILE_NAMESPACE: u64 = u64::MAX;
/// Rows that are tagged and stored at once.
const BATCH: usize = 8192;
/// Bursts of packets between two looks at whether to go on.
const BURSTS_A_LOOK: u64 = 16;

pub(crate) async fn run(arguments: &ImportArguments) -> anyhow::Result<()> {
    for file in &arguments.files {
        if file.as_os_str() == "-" {
            let why = "`import` reads a file twice, to know whether its content was imported before; hint: save stdin to a \
                       file, or look at it with `wiretag replay -`";
            return Err(WrongUsage(why.into()).into());
        }
        let about = std::fs::metadata(file).with_context(|| format!("cannot open `{}`", file.display()))?;
        if about.is_dir() {
            let why = format!("`{}` is a directory; hint: name the files in it", file.display());
            return Err(WrongUsage(why).into());
        }
        if !about.is_file() {
            let why = format!(
                "`{}` is no file, and `import` reads one twice; hint: save it first, or look at it with `wiretag replay`",
                file.display()
            );
            return Err(WrongUsage(why).into());
        }
        drop(capture_file::open(file)?);
    }
    let data = &arguments.data.data;
    private::create_dir_all(data).with_context(|| {
        format!("cannot make the data directory `{}`; hint: choose another with `--data`", data.display())
    })?;
    let (store, recovery) = Store::open(importer(data)).await?;
    for repair in &recovery.repairs {
        tell!("repaired: {repair}");
    }
    let mut timeline = store.catalog.timeline().await?;
    if let Some(path) = &arguments.static_file {
        let file = static_file::load(path, crate::host::now())?;
        apply_static(&mut timeline, &file);
        persist(&mut timeline, &store).await?;
    }
    let importer = Importer {
        store,
        timeline,
        stop: stop_signal()?,
        again: arguments.again,
        quiet: arguments.quiet,
        flow_memory: arguments.memory.bytes(),
    };
    let outcome = importer.files(&arguments.files).await;
    importer.store.close().await?;
    outcome
}

/// An importer keeps everything: retention is the appliance's.
fn importer(data: &Path) -> StoreConfig {
    StoreConfig::new(data, Role::Importer)
}

/// Set by ctrl-c and SIGTERM.
fn stop_signal() -> anyhow::Result<Arc<AtomicBool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        set.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}

struct Importer {
    store: Store,
    timeline: Timeline,
    stop: Arc<AtomicBool>,
    again: bool,
    quiet: bool,
    flow_memory: usize,
}

/// What became of a file.
enum Outcome {
    Whole,
    Damaged,
    Refused,
    Interrupted,
}

impl Importer {
    async fn files(&self, files: &[std::path::PathBuf]) -> anyhow::Result<()> {
        let (mut damaged, mut refused) = (0, 0);
        for file in files {
            match self.file(file).await? {
                Outcome::Whole => {}
                Outcome::Damaged => damaged += 1,
                Outcome::Refused => refused += 1,
                Outcome::Interrupted => return Err(Interrupted.into()),
            }
        }
        if damaged > 0 {
            bail!("{damaged} of {} files are damaged; what could be read is stored", files.len());
        }
        if refused > 0 {
            bail!(
                "{refused} of {} files were imported before; hint: `--again` imports them all the same, and their \
                 packets and flows count twice",
                files.len()
            );
        }
        Ok(())
    }

    async fn file(&self, path: &Path) -> anyhow::Result<Outcome> {
        let Some((content, bytes)) = self.content(path)? else { return Ok(Outcome::Interrupted) };
        // Held while the file is read: two imports of one content at the same time are one too many.
        let lock = self.store.import_lock(&content)?;
        for known in self.store.catalog.imports_of(&content).await? {
            let done = known.state == ImportState::Done;
            if done && !self.again {
                tell!("{}: {}", path.display(), said_before(&known));
                return Ok(Outcome::Refused);
            }
            if !done {
                tell!("{}: an import of it that ended early is replaced", path.display());
                self.store.retire_import(known.id, crate::host::now()).await?;
            }
        }
        let now = crate::host::now();
        let name = path.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned());
        let id = self.store.catalog.begin_import(&content, &name, bytes, now).await?;
        let origin = Origin { import: Some(id), stored_at: now };
        let outcome = Import::new(self, origin, name)?.run(path, id).await;
        lock.release();
        outcome.with_context(|| format!("`{}` is not imported to its end", path.display()))
    }

    /// SHA-256 and length of a file; `None` if it was interrupted.
    fn content(&self, path: &Path) -> anyhow::Result<Option<(String, u64)>> {
        let failed = || format!("cannot read `{}`", path.display());
        let mut file = File::open(path).with_context(failed)?;
        let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            let count = file.read(&mut buffer).with_context(failed)?;
            if count == 0 {
                let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or_default();
                let hash = hash.finalize();
                let text = hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
                return Ok(Some((text, length)));
            }
            if self.stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            hash.update(buffer.get(..count).unwrap_or_default());
            length += count as u64;
        }
    }
}

fn said_before(known: &KnownImport) -> String {
    let Stored { packets, flows, .. } = known.stored;
    let time = crate::output::time(known.started_at);
    format!("imported before, as `{}` at {time}: {packets} packets, {flows} flow rows", known.name)
}

/// One file on its way into the store.
struct Import<'a> {
    importer: &'a Importer,
    log: PacketLog,
    tagging: Tagging,
    engine: Engine,
    /// Of the file: the name of interfaces that have none.
    name: String,
    names: Vec<String>,
    /// Rows that were in the store before.
    before: (u64, u64),
}

impl<'a> Import<'a> {
    fn new(importer: &'a Importer, origin: Origin, name: String) -> anyhow::Result<Self> {
        let node = import_node(origin.import.unwrap_or_default());
        // Nobody waits for each packet of an import: a little slower, and a little smaller.
        let compression = Compression::Level(-3);
        let log =
            importer.store.packet_log(PacketLogConfig { node, origin, compression, ..PacketLogConfig::default() })?;
        importer.store.flows.set_origin(origin);
        importer.store.transactions.set_origin(origin);
        let config = FlowConfig {
            transactions: true,
            flow_memory: importer.flow_memory,
            ..FlowConfig::new(crate::host::node_name(), Source::File)
        };
        let before = rows_received(&importer.store);
        let (tagging, engine) = (Tagging::new(), Engine::new(config));
        Ok(Self { importer, log, tagging, engine, name, names: Vec::new(), before })
    }

    /// Reads the file, and ends the import however it goes.
    async fn run(mut self, path: &Path, id: i64) -> anyhow::Result<Outcome> {
        let catalog = &self.importer.store.catalog;
        let read = self.read(path).await;
        let finished = self.finish().await;
        let outcome = match (read, finished) {
            (Ok(outcome), Ok(())) => outcome,
            (Err(error), _) | (_, Err(error)) => {
                // The cause is reported; the catalog may be what fails.
                let _ = catalog.end_import(id, ImportState::Partial, self.stored()).await;
                return Err(error);
            }
        };
        let state = match outcome {
            Outcome::Whole | Outcome::Damaged => ImportState::Done,
            Outcome::Refused | Outcome::Interrupted => ImportState::Partial,
        };
        catalog.end_import(id, state, self.stored()).await?;
        self.say(path, &outcome);
        Ok(outcome)
    }

    async fn read(&mut self, path: &Path) -> anyhow::Result<Outcome> {
        let mut file = capture_file::open(path)?;
        let progress = progress(path, self.importer.quiet);
        let (mut described, mut bursts) = (Vec::new(), 0_u64);
        let outcome = loop {
            let mut describe = |number, interface: &FileInterface| described.push((number, interface.name.clone()));
            let burst = match file.next_burst(&mut describe) {
                Ok(burst) if burst.is_empty() => break Outcome::Whole,
                Ok(burst) => burst,
                Err(error) => {
                    tell!("warning: {error}");
                    break Outcome::Damaged;
                }
            };
            let name = &self.name;
            self.names.extend(described.iter().map(|(_, own)| own.clone().unwrap_or_else(|| name.clone())));
            name_interfaces(&mut self.engine, &mut described);
            self.burst(&burst)?;
            drop(burst);
            bursts += 1;
            if bursts % BURSTS_A_LOOK == 0 {
                progress.set_position(file.position());
                if self.importer.stop.load(Ordering::Relaxed) {
                    break Outcome::Interrupted;
                }
            }
            if self.tagging.records.len().max(self.tagging.transactions.len()) >= BATCH {
                self.store().await?;
            }
        };
        progress.finish_and_clear();
        super::replay::tell_times(&file);
        Ok(outcome)
    }

    /// Counts packets in their flows, and puts them into the packet log.
    fn burst(&mut self, burst: &[Packet<'_>]) -> anyhow::Result<()> {
        let Self { engine, log, tagging, name, names, .. } = self;
        let mut appended = Ok(());
        engine.burst(burst, &mut tagging.records, |packet, flow_id| {
            if appended.is_ok() {
                let interface = names.get(packet.interface as usize).unwrap_or(name);
                appended = log.append(interface, packet, flow_id);
            }
        });
        engine.take_transactions(&mut tagging.transactions);
        Ok(appended?)
    }

    /// Ends the open flows and writes everything.
    async fn finish(&mut self) -> anyhow::Result<()> {
        let mut stored = Ok(());
        while stored.is_ok() && self.engine.finish_some(EndReason::EndOfInput, BATCH, &mut self.tagging.records) {
            self.engine.take_transactions(&mut self.tagging.transactions);
            stored = self.store().await;
        }
        if stored.is_ok() {
            self.engine.take_transactions(&mut self.tagging.transactions);
            stored = self.store().await;
        }
        self.log.seal()?;
        stored?;
        let store = &self.importer.store;
        store.flush().await?;
        store.record_segments().await?;
        let lost = self.log.counters().lost;
        let rows = store.flows.counters().dropped + store.transactions.counters().dropped;
        if lost + rows > 0 {
            bail!("{lost} packets and {rows} rows could not be written");
        }
        Ok(())
    }

    /// Tags and stores a batch; waits while the store writes. Time is the packets'.
    async fn store(&mut self) -> anyhow::Result<()> {
        let store = &self.importer.store;
        let tagged = self.tagging.batch(&self.importer.timeline);
        let before = store.flows.counters().written;
        store.flows.append(tagged.flows).await?;
        store.transactions.append(tagged.transactions).await?;
        if store.flows.counters().written > before {
            store.record_segments().await?;
        }
        Ok(())
    }

    fn stored(&self) -> Stored {
        let (flows, transactions) = rows_received(&self.importer.store);
        let packets = self.log.counters().written;
        Stored { packets, flows: flows - self.before.0, transactions: transactions - self.before.1 }
    }

    fn say(&self, path: &Path, outcome: &Outcome) {
        let counters = self.engine.counters();
        let Stored { packets, flows, transactions } = self.stored();
        let end = match outcome {
            Outcome::Interrupted => "interrupted; stored so far: ",
            Outcome::Whole | Outcome::Damaged | Outcome::Refused => "",
        };
        tell!(
            "{}: {end}{packets} packets, {} in flows, {} flows, {flows} rows, {transactions} transactions",
            path.display(),
            counters.decoded,
            counters.flows_started,
        );
        for (reason, count) in refused(counters) {
            tell!("  not in flows, {reason}: {count}");
        }
        for (value, count) in &counters.evicted {
            tell!("  flows ended early for want of memory, {value}: {count}");
        }
    }
}

/// Tells the engine the names of new interfaces. Classic pcap has none.
fn name_interfaces(engine: &mut Engine, names: &mut Vec<(u32, Option<String>)>) {
    for (number, name) in names.drain(..) {
        if let Some(name) = name {
            engine.name_interface(number, &name);
        }
    }
}

fn refused(counters: &CaptureCounters) -> BTreeMap<&str, u64> {
    counters.refused.iter().map(|(reason, count)| (*reason, *count)).collect()
}

/// Flow rows and transactions that the store has written or will write.
fn rows_received(store: &Store) -> (u64, u64) {
    let (flows, transactions) = (store.flows.counters(), store.transactions.counters());
    (flows.received - flows.dropped, transactions.received - transactions.dropped)
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

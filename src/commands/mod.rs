//! One module a command; this one chooses.

mod aggregate;
mod capture_file;
pub(crate) mod cni;
mod doctor;
mod erase;
mod explain;
mod export;
mod fields;
mod flows;
mod follow;
mod identities;
mod import;
mod move_catalog;
mod pcap;
mod replay;
mod run;
mod search;
mod sql;
mod top;
mod transactions;

use anyhow::Context;

use crate::cli::{Arguments, Command};

/// What a command needs at least: the runtime, connections to the catalog, a search.
const THREADS: usize = 16;

/// The user asked for something that cannot be: exit code 2.
#[derive(Debug)]
pub(crate) struct WrongUsage(pub(crate) String);

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// The user ended it with ctrl-c: exit code 130.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; what was read before is stored")
    }
}

impl std::error::Error for Interrupted {}

/// Runs the command.
pub(crate) fn dispatch(arguments: Arguments) -> anyhow::Result<()> {
    match arguments.command {
        Command::Run(arguments) => runtime()?.block_on(run::run(&arguments)),
        Command::Import(arguments) => runtime()?.block_on(import::run(&arguments)),
        Command::Flows(arguments) => runtime()?.block_on(flows::run(&arguments)),
        Command::Top(arguments) => runtime()?.block_on(top::run(&arguments)),
        Command::Sql(arguments) => runtime()?.block_on(sql::run(&arguments)),
        Command::Erase(arguments) => runtime()?.block_on(erase::run(&arguments)),
        Command::Erasures(arguments) => runtime()?.block_on(erase::list(&arguments)),
        Command::MoveCatalog(arguments) => runtime()?.block_on(move_catalog::run(&arguments)),
        Command::Pcap(arguments) => runtime()?.block_on(pcap::run(&arguments)),
        Command::Replay(arguments) => replay::run(&arguments),
        Command::Identities(arguments) => runtime()?.block_on(identities::run(&arguments)),
        Command::Fields(arguments) => fields::run(&arguments),
        Command::Cni => cni::run(),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Openapi => {
            use std::io::Write;
            let mut out = crate::output::stdout();
            writeln!(out, "{}", wiretag_web::openapi_json())?;
            Ok(out.flush()?)
        }
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    crate::host::try_threads(THREADS).context(
        "cannot start threads; hint: raise the limit of processes and threads (`ulimit -u`, `pids.max`, `TasksMax`)",
    )?;
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build()?)
}

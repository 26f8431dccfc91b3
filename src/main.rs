//! The `wiretag` binary: arguments, configuration, and the one function that wires the pipeline ([`pipeline`]).

mod account;
mod appliance;
mod checkpoint;
mod cli;
mod client;
mod commands;
mod config;
mod demo;
mod erasures;
mod health;
mod host;
mod identities;
mod metrics;
mod outbox;
mod output;
mod peers;
mod pipeline;
mod retag;
mod sources;
mod stage_numbers;
mod static_identities;
mod trouble;
mod upkeep;
mod worker;
mod workers;

use std::process::ExitCode;

use clap::Parser;

use self::output::tell;

/// Exit codes, made here and nowhere else: 0 done, 1 failed, 2 wrong usage (clap exits with 2 by itself), 130
/// interrupted.
fn main() -> ExitCode {
    if let Some(code) = commands::cni::answer() {
        return code;
    }
    let arguments = cli::Arguments::parse();
    host::start_logging(arguments.verbose);
    match commands::dispatch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {}", output::sentence(&error));
            if error.is::<commands::WrongUsage>() {
                ExitCode::from(2)
            } else if error.is::<commands::Interrupted>() {
                ExitCode::from(130)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

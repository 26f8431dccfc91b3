//! `wiretag run`: the appliance in the foreground.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::appliance::Appliance;
use crate::cli::RunArguments;
use crate::config::RunConfig;
use crate::output::tell;

pub(crate) async fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let config = RunConfig::new(arguments)?;
    // Before anything is there that has to be stopped in order.
    let mut stop = Stop::new()?;
    let appliance = tokio::select! {
        biased;
        started = Appliance::start(config) => started?,
        () = stop.told() => {
            tell!("stopped before it had started");
            return Ok(());
        }
    };
    let is_settled = tokio::select! {
        () = appliance.settle() => true,
        () = stop.told() => false,
    };
    if is_settled {
        appliance.greet();
        stop.told().await;
    }
    tell!("stopping: writing what is still in memory");
    appliance.stop().await
}

/// SIGINT and SIGTERM.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for either.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

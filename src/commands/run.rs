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

/// SIGINT, SIGTERM, and SIGHUP: a terminal that closes.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    /// `None` under `nohup`: it is to go on without its terminal.
    hangup: Option<Signal>,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        let hangup = SignalKind::hangup();
        let is_ignored = crate::host::ignores(hangup.as_raw_value());
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: if is_ignored { None } else { Some(signal(hangup)?) },
        })
    }

    /// Waits for one of them.
    async fn told(&mut self) {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = hangup => {}
        }
    }
}

//! `wiretag run`: the appliance in the foreground.

use crate::appliance::Appliance;
use crate::cli::RunArguments;
use crate::config::RunConfig;

pub(crate) async fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let config = RunConfig::new(arguments)?;
    let appliance = Appliance::start(config).await?;
    appliance.greet();
    stop_signal().await?;
    eprintln!("stopping: writing what is still in memory");
    appliance.stop().await
}

/// SIGINT or SIGTERM.
async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

//! The appliance from outside: start, greet, stop; the pipeline itself is in [`crate::pipeline`].

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use crate::client::{RunFile, token_path};
use crate::config::RunConfig;
use crate::demo::Demo;
use crate::pipeline::Pipeline;

/// A running appliance.
pub(crate) struct Appliance {
    config: RunConfig,
    url: String,
    token: String,
    pipeline: Pipeline,
    demo: Option<Demo>,
}

impl Appliance {
    /// Starts everything; when this returns, it captures and answers.
    pub(crate) async fn start(mut config: RunConfig) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(config.listen).await.with_context(|| {
            format!(
                "cannot listen on `{}`; hint: another process may have the port, choose one with `--listen`",
                config.listen
            )
        })?;
        let url = format!("http://{}", listener.local_addr()?);
        std::fs::create_dir_all(&config.data).with_context(|| {
            format!("cannot make the data directory `{}`; hint: choose another with `--data`", config.data.display())
        })?;
        let token = token(&token_path(&config.data))?;
        let demo = config.demo.then(Demo::start).transpose()?;
        if demo.is_some() && config.static_file.is_none() {
            let path = config.data.join("demo-identities.yaml");
            std::fs::write(&path, Demo::identities()).with_context(|| format!("cannot write `{}`", path.display()))?;
            config.static_file = Some(path);
        }
        let pipeline = Pipeline::start(&config, listener, token.clone()).await?;
        let run = RunFile { url: url.clone(), pid: std::process::id() };
        write_private(&RunFile::path(&config.data), &serde_json::to_string(&run)?)?;
        // So that the greeting says more than "connecting".
        pipeline.wait_for_docker(Duration::from_secs(1)).await;
        Ok(Self { config, url, token, pipeline, demo })
    }

    /// Says where it is and what it does.
    pub(crate) fn greet(&self) {
        let interfaces = self.pipeline.interfaces();
        eprintln!("wiretag {} on node `{}`", env!("CARGO_PKG_VERSION"), self.config.node);
        eprintln!("  open      {}", self.url);
        if crate::host::stderr_is_journal() {
            // Secrets do not belong in logs.
            eprintln!("  token     in `{}`", token_path(&self.config.data).display());
        } else {
            eprintln!("  token     {}", self.token);
        }
        eprintln!("  data      {}", self.config.data.display());
        eprintln!("  docker    {}", self.pipeline.docker());
        if interfaces.is_empty() {
            eprintln!("  capture   no container-facing interface yet: each is captured as soon as it appears");
        } else {
            eprintln!("  capture   {}", interfaces.join(", "));
        }
        for repair in self.pipeline.repairs() {
            eprintln!("  repaired  {repair}");
        }
    }

    /// Stops capture first, then everything that follows it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(RunFile::path(&self.config.data));
        let result = self.pipeline.stop().await;
        drop(self.demo);
        result
    }
}

/// The token of the data directory, made at the first start.
fn token(path: &Path) -> anyhow::Result<String> {
    if let Ok(text) = std::fs::read_to_string(path)
        && !text.trim().is_empty()
    {
        return Ok(text.trim().to_owned());
    }
    let token = wiretag_web::random_secret().context("cannot read `/dev/urandom`")?;
    write_private(path, &token)?;
    Ok(token)
}

/// Writes a file that only its owner reads.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let _ = std::fs::remove_file(path);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write `{}`; hint: choose another directory with `--data`", path.display()))
}

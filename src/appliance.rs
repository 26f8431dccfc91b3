//! The appliance from outside: start, greet, stop; the pipeline itself is in [`crate::pipeline`].

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::task::JoinHandle;
use wiretag_capture::ring::links;
use wiretag_enrich::SourceStatus;
use wiretag_store::DirectoryId;

use crate::client::{RunFile, token_path};
use crate::config::{ReaderConfig, RunConfig, SHORTEST};
use crate::demo::Demo;
use crate::output::tell;
use crate::pipeline::Pipeline;

/// When what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// A running appliance.
pub(crate) struct Appliance {
    config: RunConfig,
    url: String,
    token: String,
    pipeline: Pipeline,
    demo: Option<Demo>,
    /// Ends when commands know where it is.
    announcing: JoinHandle<()>,
}

impl Appliance {
    /// Starts everything; when this returns, it captures and answers.
    pub(crate) async fn start(mut config: RunConfig) -> anyhow::Result<Self> {
        // Rings, files and requests of a busy node are more than the thousand that a process may open unless it asks for more.
        match wiretag_capture::ring::raise_descriptor_limit() {
            Ok(limit) => tracing::info!("{limit} files and sockets may be open"),
            Err(error) => tracing::warn!("no more files and sockets than usual may be open: {error}"),
        }
        let listener = wiretag_web::listen(config.listen);
        let listener = listener.map_err(|error| cannot_listen(config.listen, &error))?;
        let url = format!("http://{}", listener.local_addr()?);
        wiretag_store::private::create_dir_all(&config.data).with_context(|| {
            format!("cannot make the data directory `{}`; hint: choose another with `--data`", config.data.display())
        })?;
        let token = token(&token_path(&config.data))?;
        let readers = config.readers.iter().map(ReaderConfig::read).collect::<anyhow::Result<_>>()?;
        let keys = wiretag_web::Keys { token: token.clone(), readers, open_metrics: config.open_metrics };
        keys.check()?;
        // From here on the directory is ours, and nothing is touched that another appliance may use.
        let opened = crate::pipeline::open_store(&config).await?;
        let demo = config.demo.then(Demo::start).transpose()?;
        if demo.is_some() && config.static_file.is_none() {
            let path = config.data.join("demo-identities.yaml");
            std::fs::write(&path, Demo::identities()).with_context(|| format!("cannot write `{}`", path.display()))?;
            config.static_file = Some(path);
        }
        let secret = wiretag_web::random_secret().context("cannot read `/dev/urandom`")?;
        let directory = DirectoryId::of(&config.data).context("cannot look at `appliance.lock`")?;
        let run = RunFile { url: url.clone(), pid: std::process::id(), secret, directory };
        let pipeline = Pipeline::start(&config, opened, listener, (keys, run.secret.clone())).await?;
        let announcing = announce(RunFile::path(&config.data), serde_json::to_string(&run)?);
        Ok(Self { config, url, token, pipeline, demo, announcing })
    }

    /// Waits a moment, so that the greeting says more than "connecting".
    pub(crate) async fn settle(&self) {
        self.pipeline.wait_for_sources(Duration::from_secs(1)).await;
    }

    /// Says where it is and what it does.
    pub(crate) fn greet(&self) {
        let interfaces = self.pipeline.interfaces();
        tell!("wiretag {} on node `{}`", env!("CARGO_PKG_VERSION"), self.config.node);
        tell!("  open      {}", self.url);
        if crate::host::stderr_is_terminal() {
            tell!("  token     {}", self.token);
        } else {
            // Secrets do not belong in logs.
            tell!("  token     in `{}`", token_path(&self.config.data).display());
        }
        tell!("  data      {}", self.config.data.display());
        tell!("  docker    {}", self.pipeline.docker());
        for (name, state) in self.pipeline.sources().states() {
            match state {
                // What nobody uses here needs no line.
                SourceStatus::Off | SourceStatus::Waiting { .. } => {}
                SourceStatus::Starting
                | SourceStatus::Connected
                | SourceStatus::Partial { .. }
                | SourceStatus::Absent { .. }
                | SourceStatus::Unusable { .. } => tell!("  {name:<9} {state}"),
            }
        }
        tell!("  kernel    {}", self.pipeline.sources().kernel());
        if interfaces.is_empty() && !self.config.interfaces.is_empty() {
            tell!("  capture   nothing yet");
        } else if interfaces.is_empty() {
            tell!("  capture   no container-facing interface yet: each is captured as soon as it appears");
        } else {
            tell!("  capture   {}", interfaces.join(", "));
        }
        for pattern in unmatched(&self.config.interfaces) {
            tell!("  waiting   for an interface `{pattern}`: there is none yet");
        }
        for repair in self.pipeline.repairs() {
            tell!("  repaired  {repair}");
        }
    }

    /// Stops capture first, then everything that follows it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.announcing.abort();
        let _ = self.announcing.await;
        let _ = std::fs::remove_file(RunFile::path(&self.config.data));
        let result = self.pipeline.stop().await;
        drop(self.demo);
        result
    }
}

/// Why the address cannot be had, and what helps against that.
fn cannot_listen(address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    use std::io::ErrorKind;
    let hint = match error.kind() {
        ErrorKind::AddrInUse => "another process has the port, choose one with `--listen`",
        ErrorKind::AddrNotAvailable => "no interface of this host has that address; `ip addr` lists those there are",
        ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE, choose another with `--listen`"
        }
        _ => "choose another address with `--listen`",
    };
    anyhow!("cannot listen on `{address}`: {error}; hint: {hint}")
}

/// Tells commands where the appliance is. On a full disk that waits until there is room; capture and retention do not.
fn announce(path: PathBuf, text: String) -> JoinHandle<()> {
    let mut written = write_private(&path, &text);
    if let Err(error) = &written {
        tracing::warn!("commands do not find this appliance yet: {}", crate::output::sentence(error));
    }
    tokio::spawn(async move {
        while written.is_err() {
            tokio::time::sleep(AGAIN).await;
            written = write_private(&path, &text);
        }
    })
}

/// The patterns that no interface matches now.
fn unmatched(patterns: &[String]) -> impl Iterator<Item = &String> {
    let links = links::list().unwrap_or_default();
    patterns.iter().filter(move |pattern| links::select(&links, std::slice::from_ref(pattern)).is_empty())
}

/// The token of the data directory, made at the first start. One that was put there is nothing for others either. One that cannot be read stays:
/// whoever has it would be locked out.
fn token(path: &Path) -> anyhow::Result<String> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text.with_context(|| {
            format!("cannot read the token `{}`; hint: restore it, or remove it, and a new one is made", path.display())
        })?,
    };
    if !text.trim().is_empty() {
        if text.trim().len() < SHORTEST {
            let path = path.display();
            bail!("`{path}` holds no token of at least {SHORTEST} characters; hint: remove it, and a new one is made");
        }
        if let Err(error) = wiretag_store::private::close(path) {
            tracing::warn!("others may read the token `{}`: {error}; hint: give it the mode 0600", path.display());
        }
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
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    if written.is_err() {
        // A part of it is worse than nothing.
        let _ = std::fs::remove_file(path);
    }
    written.with_context(|| format!("cannot write `{}`; hint: choose another directory with `--data`", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_that_was_put_there_is_closed_and_long() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let made = token(&path).expect("a new one");
        assert_eq!((made.len() >= SHORTEST, token(&path).expect("the same")), (true, made.clone()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("opened");
        assert_eq!(token(&path).expect("still the same"), made);
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "guess").expect("written");
        let error = token(&path).expect_err("too short").to_string();
        assert!(error.contains("32 characters; hint: remove it"), "{error}");
        std::fs::write(&path, [0xff; 64]).expect("written");
        let error = crate::output::sentence(&token(&path).expect_err("no text"));
        assert!(error.contains("cannot read the token") && error.contains("hint: restore it"), "{error}");
        assert_eq!(std::fs::read(&path).expect("it stays"), [0xff; 64]);
    }
}

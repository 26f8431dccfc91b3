//! Where search commands find the data: a running appliance over HTTP, else the data directory itself.
//!
//! A running appliance writes `run.json` (its address, and a secret) and keeps `token` in the data directory, both mode 0600. It is asked
//! first, because it also knows what is still in memory. A stale `run.json` is noticed because nobody answers, or somebody who
//! cannot prove to know its secret; the token is sent to who can. A copied one is noticed because it names another directory: who asks a
//! copy, or erases in it, does not mean the original.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wiretag_store::DirectoryId;

use crate::commands::WrongUsage;

/// Contents of `run.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunFile {
    /// Base URL of the HTTP interface.
    pub(crate) url: String,
    /// Process id.
    pub(crate) pid: u32,
    /// What this run alone knows: another one, or anybody, may have the port by now.
    pub(crate) secret: String,
    /// Where it runs: a copy of the data directory has this file, too.
    pub(crate) directory: DirectoryId,
}

impl RunFile {
    /// Where it is in a data directory.
    pub(crate) fn path(data: &Path) -> std::path::PathBuf {
        data.join("run.json")
    }
}

/// Where the token of a data directory is.
pub(crate) fn token_path(data: &Path) -> std::path::PathBuf {
    data.join("token")
}

/// A running appliance.
pub(crate) struct Appliance {
    agent: ureq::Agent,
    url: String,
    token: String,
}

impl Appliance {
    /// The appliance that runs on `data`, if one answers.
    pub(crate) fn find(data: &Path) -> anyhow::Result<Option<Self>> {
        if !data.is_dir() {
            bail!(
                "there is no data directory `{}`; hint: `wiretag run` or `wiretag import` makes it, `--data` names another",
                data.display()
            );
        }
        let Ok(text) = std::fs::read_to_string(RunFile::path(data)) else { return Ok(None) };
        let Ok(run) = serde_json::from_str::<RunFile>(&text) else { return Ok(None) };
        let is_copy = DirectoryId::of(data).ok() != Some(run.directory);
        if is_copy && !data.join("catalog.json").exists() {
            return Ok(None);
        }
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(Duration::from_mins(10)))
            .http_status_as_error(false)
            // The appliance is on this machine: its token is nothing for a proxy of the environment.
            .proxy(None)
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let number = wiretag_web::random_secret().context("cannot read `/dev/urandom`")?;
        if proof(&agent, &run.url, &number).is_none_or(|told| told != wiretag_web::proof(&run.secret, &number)) {
            return Ok(None);
        }
        if is_copy {
            // What is done here would change the original's catalog behind its back.
            bail!(
                "`{}` is a copy of a directory on which an appliance runs, and both have one catalog, in PostgreSQL; hint: name the \
                 original with `--data`",
                data.display()
            );
        }
        let path = token_path(data);
        let token = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read the token `{}`; hint: run as the user of the appliance", path.display())
        })?;
        Ok(Some(Self { agent, url: run.url, token: token.trim().to_owned() }))
    }

    /// GET that answers JSON.
    pub(crate) fn json(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Value> {
        let mut text = String::new();
        let mut body = self.send(self.agent.get(format!("{}{path}", self.url)), parameters)?;
        body.read_to_string(&mut text).context("the appliance stopped answering")?;
        serde_json::from_str(&text).context("the appliance's answer is not JSON")
    }

    /// POST of JSON that answers JSON.
    pub(crate) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let request = request
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json");
        let response = request.send(body.to_string()).with_context(|| format!("no answer from `{}`", self.url))?;
        let mut text = String::new();
        answer(response)?.read_to_string(&mut text).context("the appliance stopped answering")?;
        serde_json::from_str(&text).context("the appliance's answer is not JSON")
    }

    /// GET whose answer takes as long as it is read, or goes on for as long as the appliance runs.
    pub(crate) fn stream(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<impl Read + use<>> {
        let request = self.agent.get(format!("{}{path}", self.url)).config().timeout_global(None).build();
        self.send(request, parameters)
    }

    fn send(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        parameters: &[(&str, String)],
    ) -> anyhow::Result<ureq::BodyReader<'static>> {
        let mut request = request.header("authorization", format!("Bearer {}", self.token));
        for (name, value) in parameters {
            request = request.query(*name, value);
        }
        answer(request.call().with_context(|| format!("no answer from `{}`", self.url))?)
    }
}

/// The process that has the directory, though it does not answer here: it may listen in another network namespace. `/proc` says so: to try its
/// lock could refuse an appliance that starts at this moment.
pub(crate) fn holder(data: &Path) -> Option<u32> {
    let path = data.join("appliance.lock");
    let pid = std::fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let file = |path: &Path| std::fs::metadata(path).ok().map(|own| (own.dev(), own.ino()));
    let lock = file(&path)?;
    let mut open = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.filter_map(Result::ok);
    open.any(|own| file(&own.path()) == Some(lock)).then_some(pid)
}

/// The body of an answer, unless it is a refusal.
fn answer(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<ureq::BodyReader<'static>> {
    let status = response.status();
    let mut body = response.into_body().into_reader();
    if status.is_success() {
        return Ok(body);
    }
    let mut text = String::new();
    let _ = body.read_to_string(&mut text);
    Err(refusal(status.as_u16(), &text))
}

/// What is told at `url` to prove that it is the appliance.
fn proof(agent: &ureq::Agent, url: &str, number: &str) -> Option<String> {
    let request = agent.get(format!("{url}/api/v1/health?number={number}"));
    let response = request.config().timeout_global(Some(Duration::from_secs(5))).build().call().ok()?;
    let mut text = String::new();
    response.into_body().into_reader().take(1 << 16).read_to_string(&mut text).ok()?;
    Some(serde_json::from_str::<Value>(&text).ok()?.get("proof")?.as_str()?.to_owned())
}

/// The appliance's error in its own words.
fn refusal(status: u16, body: &str) -> anyhow::Error {
    let error = serde_json::from_str::<Value>(body).unwrap_or_default();
    let part = |name: &str| error.pointer(&format!("/error/{name}")).and_then(Value::as_str).map(str::to_owned);
    let message = part("message").unwrap_or_else(|| format!("the appliance answered with status {status}"));
    let text = match part("hint") {
        Some(hint) => format!("{message}; hint: {hint}"),
        None => message,
    };
    if status == 400 { WrongUsage(text).into() } else { anyhow!(text) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// Answers each request, and says the rest of it when it is told to.
    fn slow(listener: &TcpListener, rest: &std::sync::mpsc::Receiver<()>) {
        for connection in listener.incoming() {
            let mut connection = connection.expect("a request");
            let mut request = [0; 1024];
            let _ = connection.read(&mut request).expect("read");
            connection.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n1").expect("begun");
            if rest.recv().is_err() {
                return;
            }
            let _ = connection.write_all(b"2");
        }
    }

    #[test]
    fn a_stream_may_take_longer_than_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a server");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let (more, rest) = std::sync::mpsc::channel();
        let server = std::thread::spawn(move || slow(&listener, &rest));
        let patience = Duration::from_millis(300);
        let config = ureq::Agent::config_builder().timeout_global(Some(patience)).build();
        let appliance = Appliance { agent: ureq::Agent::new_with_config(config), url, token: "token".into() };
        let mut stream = appliance.stream("/", &[]).expect("begun");
        std::thread::park_timeout(2 * patience);
        more.send(()).expect("the server waits");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the rest");
        assert_eq!(text, "12");
        let error = appliance.json("/", &[]).expect_err("nobody says the rest");
        assert!(format!("{error:#}").contains("timeout"), "{error:#}");
        drop(more);
        server.join().expect("it ends");
    }
}

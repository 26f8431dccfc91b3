//! A Docker daemon's answers and events, as the test sets them, on a unix socket.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Default)]
struct State {
    /// By path, without the version; of what is `None` there is no answer until there is one, and a `message` is an error.
    answers: HashMap<String, Option<Value>>,
    asked: HashSet<String>,
    events: Vec<Value>,
}

/// See the module documentation.
pub(crate) struct Daemon {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
    task: tokio::task::JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"))
    }

    /// With its socket in this directory.
    pub(crate) fn start_in(directory: tempfile::TempDir) -> Self {
        let listener = UnixListener::bind(socket(&directory)).expect("a socket");
        let (state, changed) = (Arc::<Mutex<State>>::default(), watch::Sender::new(()));
        let (own, changes) = (state.clone(), changed.clone());
        let task = tokio::spawn(async move {
            // Connections end with the daemon.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, own.clone(), changes.subscribe()));
            }
        });
        let daemon = Self { state, changed, task, directory };
        daemon.answer("/version", Some(json!({ "ApiVersion": "1.44", "Version": "25.0.0" })));
        daemon.answer("/networks", Some(json!([])));
        daemon.answer("/containers/json", Some(json!([])));
        daemon
    }

    pub(crate) fn url(&self) -> String {
        format!("unix://{}", socket(&self.directory).display())
    }

    pub(crate) fn answer(&self, path: &str, answer: Option<Value>) {
        self.state.lock().expect("state").answers.insert(path.to_owned(), answer);
        self.changed.send_replace(());
    }

    /// Whether somebody has asked for a path.
    pub(crate) fn was_asked(&self, path: &str) -> bool {
        self.state.lock().expect("state").asked.contains(path)
    }

    pub(crate) fn event(&self, (kind, action): (&str, &str), id: &str, container: Option<&str>, at: i64) {
        let attributes = container.map_or(json!({}), |container| json!({ "container": container }));
        let actor = json!({ "ID": id, "Attributes": attributes });
        let event = json!({ "Type": kind, "Action": action, "Actor": actor, "timeNano": at });
        self.state.lock().expect("state").events.push(event);
        self.changed.send_replace(());
    }
}

/// Where a daemon in this directory listens.
pub(crate) fn socket(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("sock")
}

async fn serve(stream: UnixStream, state: Arc<Mutex<State>>, mut changed: watch::Receiver<()>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        stream.read_line(&mut first).await.ok().filter(|length| *length > 0)?;
        let mut line = String::new();
        while stream.read_line(&mut line).await.ok()? > 2 {
            line.clear();
        }
        let path = first.split_whitespace().nth(1)?.split('?').next()?.to_owned();
        let path =
            path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned())).unwrap_or(path);
        state.lock().expect("state").asked.insert(path.clone());
        if path == "/events" {
            return events(&mut stream, &state, &mut changed).await;
        }
        let (code, body) = loop {
            changed.mark_unchanged();
            let known = state.lock().expect("state").answers.get(&path).cloned();
            match known {
                Some(Some(body)) if !body["message"].is_null() => break ("500 Internal Server Error", body),
                Some(Some(body)) => break ("200 OK", body),
                None => break ("404 Not Found", json!({ "message": "no such thing" })),
                Some(None) => changed.changed().await.ok()?,
            }
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).await.ok()?;
    }
}

/// What happened since the source asks, and what happens.
async fn events(
    stream: &mut BufReader<UnixStream>,
    state: &Mutex<State>,
    changed: &mut watch::Receiver<()>,
) -> Option<()> {
    let mut told = state.lock().expect("state").events.len();
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head).await.ok()?;
    loop {
        changed.mark_unchanged();
        let news = state.lock().expect("state").events[told..].to_vec();
        told += news.len();
        for event in news {
            let line = format!("{event}\n");
            stream.write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await.ok()?;
        }
        changed.changed().await.ok()?;
    }
}

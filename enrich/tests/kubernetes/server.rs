//! A small API server: lists in pages, watches, and everything that goes wrong with them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Objects of one path.
#[derive(Default)]
struct Objects {
    by_name: BTreeMap<String, Value>,
    /// Lines of watches, with the version of each.
    log: Vec<(u64, String)>,
    /// Older versions than this are forgotten.
    compacted: u64,
}

/// What becomes of watches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Watches {
    #[default]
    Last,
    /// They end as soon as they begin.
    End,
    /// Whatever version is asked for is too old.
    Forget,
}

struct Api {
    version: u64,
    watches: Watches,
    paths: HashMap<String, Objects>,
    forbidden: Vec<String>,
    token: String,
    delay: Duration,
    requests: Vec<String>,
    /// It answers nobody any more.
    closed: bool,
}

/// Watches of an earlier generation end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Generation {
    number: u64,
    /// As their time is over, and not as a connection breaks off.
    in_order: bool,
}

/// See the module documentation.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    api: Arc<Mutex<Api>>,
    /// Changed when there is something new.
    changed: watch::Sender<Generation>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) const PODS: &str = "/api/v1/pods";
pub(crate) const NODES: &str = "/api/v1/nodes";
pub(crate) const NAMESPACES: &str = "/api/v1/namespaces";
pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const ENDPOINTS: &str = "/api/v1/endpoints";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
pub(crate) const SLICES_BETA: &str = "/apis/discovery.k8s.io/v1beta1/endpointslices";
pub(crate) const REPLICA_SETS: &str = "/apis/apps/v1/replicasets";
pub(crate) const JOBS: &str = "/apis/batch/v1/jobs";

impl Server {
    /// Serves these paths to whoever has the token `good`.
    pub(crate) async fn start(paths: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        Self::start_when(address, std::future::ready(listener), paths)
    }

    /// The same, once there is this listener; what it has is put there before.
    pub(crate) fn start_when(
        address: SocketAddr,
        listener: impl Future<Output = TcpListener> + Send + 'static,
        paths: &[&str],
    ) -> Self {
        let paths = paths.iter().map(|path| ((*path).to_owned(), Objects::default())).collect();
        let (token, delay) = ("good".into(), Duration::ZERO);
        let watches = Watches::default();
        let (forbidden, requests, closed) = (Vec::new(), Vec::new(), false);
        let api = Api { version: 100, watches, paths, forbidden, token, delay, requests, closed };
        let api = Arc::new(Mutex::new(api));
        let changed = watch::Sender::new(Generation::default());
        let (shared, news) = (api.clone(), changed.clone());
        let task = tokio::spawn(async move {
            let listener = listener.await;
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone(), news.subscribe()));
            }
        });
        Self { address, api, changed, task }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Api) -> T) -> T {
        let answer = act(&mut self.api.lock().expect("no panic before"));
        self.changed.send_modify(|_| {});
        answer
    }

    /// Creates or changes an object.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        self.with(|api| {
            api.version += 1;
            object["metadata"]["resourceVersion"] = json!(api.version.to_string());
            let version = api.version;
            let objects = api.paths.get_mut(path).expect("a path that is served");
            let name = object["metadata"]["uid"].as_str().expect("a uid").to_owned();
            let kind = if objects.by_name.contains_key(&name) { "MODIFIED" } else { "ADDED" };
            objects.log.push((version, json!({ "type": kind, "object": object }).to_string()));
            objects.by_name.insert(name, object);
        });
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, path: &str, uid: &str) {
        self.with(|api| {
            api.version += 1;
            let version = api.version;
            let objects = api.paths.get_mut(path).expect("a path that is served");
            let mut object = objects.by_name.remove(uid).expect("an object");
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            objects.log.push((version, json!({ "type": "DELETED", "object": object }).to_string()));
        });
    }

    /// Says only that time has passed.
    pub(crate) fn bookmark(&self, path: &str) {
        self.with(|api| {
            api.version += 1;
            let version = api.version;
            let object = json!({ "kind": "Pod", "metadata": { "resourceVersion": version.to_string() } });
            let objects = api.paths.get_mut(path).expect("a path that is served");
            objects.log.push((version, json!({ "type": "BOOKMARK", "object": object }).to_string()));
        });
    }

    /// Forgets every version before now.
    pub(crate) fn compact(&self) {
        self.with(|api| {
            api.version += 1;
            for objects in api.paths.values_mut() {
                objects.compacted = api.version;
                objects.log.clear();
            }
        });
    }

    /// Cuts every watch off.
    pub(crate) fn cut(&self) {
        self.changed.send_modify(|last| *last = Generation { number: last.number + 1, in_order: false });
    }

    /// Breaks every connection off.
    pub(crate) fn close(&self) {
        self.with(|api| api.closed = true);
        self.cut();
        self.task.abort();
    }

    /// Ends every watch as the server does when its time is over.
    pub(crate) fn end(&self) {
        self.changed.send_modify(|last| *last = Generation { number: last.number + 1, in_order: true });
    }

    /// What becomes of watches that begin from now on.
    pub(crate) fn set_watches(&self, watches: Watches) {
        self.with(|api| api.watches = watches);
    }

    /// Has a path from now on.
    pub(crate) fn serve(&self, path: &str) {
        self.with(|api| drop(api.paths.insert(path.to_owned(), Objects::default())));
    }

    /// Has a path no longer.
    pub(crate) fn withdraw(&self, path: &str) {
        self.with(|api| drop(api.paths.remove(path)));
    }

    pub(crate) fn set_token(&self, token: &str) {
        self.with(|api| token.clone_into(&mut api.token));
    }

    pub(crate) fn forbid(&self, path: &str) {
        self.with(|api| api.forbidden.push(path.to_owned()));
    }

    /// Each answer to a list takes so long.
    pub(crate) fn slow(&self, delay: Duration) {
        self.with(|api| api.delay = delay);
    }

    /// Targets that were asked for.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.api.lock().expect("no panic before").requests.clone()
    }

    /// How often a path was watched.
    pub(crate) fn watched(&self, path: &str) -> usize {
        let of_path = |target: &&String| target.split('?').next() == Some(path) && target.contains("watch=true");
        self.requests().iter().filter(of_path).count()
    }

    /// How often a path was listed from its beginning.
    pub(crate) fn lists(&self, path: &str) -> usize {
        let of_path = |target: &&String| target.split('?').next() == Some(path);
        let is_first = |target: &&String| !target.contains("watch=true") && !target.contains("continue=");
        self.requests().iter().filter(of_path).filter(is_first).count()
    }
}

async fn serve(stream: TcpStream, api: Arc<Mutex<Api>>, changed: watch::Receiver<Generation>) {
    let mut stream = BufReader::new(stream);
    while let Some((target, authorization, body)) = request(&mut stream).await {
        let (status, answer) = {
            let mut api = api.lock().expect("no panic before");
            if api.closed {
                return;
            }
            api.requests.push(target.clone());
            if authorization == format!("Bearer {}", api.token) {
                answer(&mut api, &target, &body)
            } else {
                (401, failure(401))
            }
        };
        if status == 0 {
            let _ = follow(&mut stream, &target, &api, changed).await;
            return;
        }
        let delay = api.lock().expect("no panic before").delay;
        tokio::time::sleep(delay).await;
        let text = answer.to_string();
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        if stream.write_all(format!("{head}{text}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, String, String)> {
    let (mut target, mut authorization, mut length) = (None, String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = value.to_owned(),
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => target = line.split(' ').nth(1).map(str::to_owned),
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((target?, authorization, String::from_utf8(body).ok()?))
}

fn failure(code: u16) -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": code, "message": format!("status {code}"), "reason": "X" })
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let query = target.split_once('?')?.1;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// Status 0: a watch is to be followed.
fn answer(api: &mut Api, target: &str, body: &str) -> (u16, Value) {
    let path = target.split('?').next().unwrap_or_default();
    if path.ends_with("selfsubjectaccessreviews") {
        let review: Value = serde_json::from_str(body).expect("a review");
        let asked = &review["spec"]["resourceAttributes"];
        let end = format!("/{}", asked["resource"].as_str().expect("a resource"));
        let allowed = !api.forbidden.iter().any(|path| path.ends_with(&end));
        return (201, json!({ "status": { "allowed": allowed } }));
    }
    if api.forbidden.iter().any(|own| own == path) {
        return (403, failure(403));
    }
    let version = api.version;
    let Some(objects) = api.paths.get(path) else {
        // One object: `…/namespaces/NAMESPACE/RESOURCE/NAME`.
        let name = path.rsplit('/').next().unwrap_or_default();
        let all = api.paths.values().flat_map(|objects| objects.by_name.values());
        let found = all.filter(|_| path.contains("/namespaces/")).find(|own| own["metadata"]["name"] == *name);
        return found.map_or_else(|| (404, failure(404)), |found| (200, found.clone()));
    };
    if target.contains("watch=true") {
        return (0, Value::Null);
    }
    let limit: usize = parameter(target, "limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
    let (from, at) = match parameter(target, "continue").as_deref().and_then(|more| more.split_once('-')) {
        Some((from, at)) => (from.parse().expect("our own token"), at.parse().expect("our own token")),
        None => (0_usize, version),
    };
    if at < objects.compacted && from > 0 {
        return (410, failure(410));
    }
    let items: Vec<&Value> = objects.by_name.values().skip(from).take(limit).collect();
    let next = from + items.len();
    let more = if next < objects.by_name.len() { format!("{next}-{at}") } else { String::new() };
    let list =
        json!({ "kind": "List", "metadata": { "resourceVersion": at.to_string(), "continue": more }, "items": items });
    (200, list)
}

async fn follow(
    stream: &mut BufReader<TcpStream>,
    target: &str,
    api: &Arc<Mutex<Api>>,
    mut changed: watch::Receiver<Generation>,
) -> std::io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let mut seen: u64 = parameter(target, "resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let generation = *changed.borrow_and_update();
    if api.lock().expect("no panic before").watches == Watches::End {
        return stream.write_all(b"0\r\n\r\n").await;
    }
    loop {
        let lines: Vec<String> = {
            let api = api.lock().expect("no panic before");
            let Some(objects) = api.paths.get(&path) else { return Ok(()) };
            if seen < objects.compacted || api.watches == Watches::Forget {
                seen = u64::MAX;
                vec![json!({ "type": "ERROR", "object": failure(410) }).to_string()]
            } else {
                let new: Vec<_> = objects.log.iter().filter(|(version, _)| *version > seen).cloned().collect();
                seen = new.last().map_or(seen, |(version, _)| *version);
                new.into_iter().map(|(_, line)| line).collect()
            }
        };
        for line in lines {
            stream.write_all(format!("{:x}\r\n{line}\n\r\n", line.len() + 1).as_bytes()).await?;
        }
        let news = changed.changed().await.map(|()| *changed.borrow_and_update());
        match news {
            Ok(now) if now == generation => {}
            Ok(now) if now.in_order => return stream.write_all(b"0\r\n\r\n").await,
            // Without the last chunk: the connection broke off.
            Ok(_) | Err(_) => return Ok(()),
        }
    }
}

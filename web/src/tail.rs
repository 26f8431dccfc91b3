//! Flows as they are stored, as server-sent events (WHATWG HTML, 9.2).
//!
//! * publishing never waits, and looks at no query: it puts a copy of the rows, if anybody follows, into a queue to a thread of lower
//!   priority than capture, which asks the queries and writes the rows. What that has no room for, [`MOST_WAITING`] rows behind, counts as
//!   lost for all whose query it was not held against;
//! * each client has a queue of [`QUEUE`] rows, and what a slow one has no room for is counted and told it (event `lost`);
//! * a client that went is forgotten when rows were published or another one comes. One whose session ends is told no more;
//! * [`Tail::close`] ends every stream behind the last rows, so that an appliance can stop.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as threads;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Interval, interval};
use wiretag_capture::FlowRecord;
use wiretag_enrich::TaggedFlow;
use wiretag_store::query::Query;

use crate::Shared;
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::params::Params;

/// Rows that wait for one client; about three kilobytes each.
const QUEUE: usize = 1024;
/// Clients of one caller at the same time. Those who have tokens are few, and none takes another's places.
const MOST_EACH: usize = 8;
/// Rows that wait for the thread, unless they came at once; about one kilobyte each.
const MOST_WAITING: usize = 16_384;
/// Publications that wait for the thread.
const BATCHES: usize = 1024;
/// How often it is looked whether a client may still be told.
const CHECK: Duration = Duration::from_secs(5);

/// Where new flows are published; clones share the clients.
#[derive(Clone, Default)]
pub struct Tail {
    clients: Arc<Mutex<Clients>>,
}

#[derive(Default)]
struct Clients {
    open: Vec<Arc<Client>>,
    /// To the thread, which begins with the first client.
    batches: Option<threads::SyncSender<Arc<[TaggedFlow]>>>,
    /// Rows that the thread has not looked at.
    waiting: usize,
    closed: bool,
}

struct Client {
    /// Name of the reader; `None`: the owner.
    reader: Option<String>,
    query: Query<FlowRecord>,
    all_observations: bool,
    rows: mpsc::Sender<String>,
    lost: Arc<Lost>,
}

/// Rows that a client was not told.
#[derive(Default)]
struct Lost {
    rows: AtomicU64,
    more: Notify,
}

/// The other end of a client's queue.
struct Follower {
    rows: mpsc::Receiver<String>,
    lost: Arc<Lost>,
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Row(String),
    Lost(u64),
}

impl Tail {
    /// Hands flows on to those who follow. Never waits.
    pub fn publish(&self, flows: &[TaggedFlow]) {
        let mut clients = locked(&self.clients);
        if flows.is_empty() || clients.open.is_empty() {
            return;
        }
        let Some(batches) = &clients.batches else { return };
        let has_room = clients.waiting == 0 || clients.waiting + flows.len() <= MOST_WAITING;
        if has_room && batches.try_send(flows.into()).is_ok() {
            clients.waiting += flows.len();
        } else {
            for client in &clients.open {
                client.lose(flows);
            }
        }
    }

    /// Ends all streams; there will be no more flows.
    pub fn close(&self) {
        let mut clients = locked(&self.clients);
        clients.closed = true;
        // The thread hands on what waits, and then ends them.
        clients.batches = None;
    }

    /// A new client, unless its caller has too many.
    fn join(
        &self,
        reader: Option<&str>,
        query: Query<FlowRecord>,
        all_observations: bool,
    ) -> std::io::Result<Option<Follower>> {
        let (sender, rows) = mpsc::channel(QUEUE);
        let lost = Arc::<Lost>::default();
        let mut clients = locked(&self.clients);
        clients.open.retain(|client| !client.rows.is_closed());
        if clients.open.iter().filter(|client| client.reader.as_deref() == reader).count() >= MOST_EACH {
            return Ok(None);
        }
        if !clients.closed {
            if clients.batches.is_none() {
                clients.batches = Some(start(Arc::downgrade(&self.clients))?);
            }
            let reader = reader.map(str::to_owned);
            let client = Client { reader, query, all_observations, rows: sender, lost: lost.clone() };
            clients.open.push(Arc::new(client));
        }
        Ok(Some(Follower { rows, lost }))
    }
}

fn locked(clients: &Mutex<Clients>) -> MutexGuard<'_, Clients> {
    clients.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread, which ends when nothing can be published any more.
fn start(clients: Weak<Mutex<Clients>>) -> std::io::Result<threads::SyncSender<Arc<[TaggedFlow]>>> {
    let (sender, batches) = threads::sync_channel(BATCHES);
    std::thread::Builder::new().name("tail".into()).spawn(move || {
        wiretag_store::lower_priority();
        tell(&batches, &clients);
    })?;
    Ok(sender)
}

/// Tells clients of rows; none of them, and nobody who publishes, waits for a query of another.
fn tell(batches: &threads::Receiver<Arc<[TaggedFlow]>>, clients: &Weak<Mutex<Clients>>) {
    while let Ok(flows) = batches.recv() {
        let Some(clients) = clients.upgrade() else { return };
        let open = locked(&clients).open.clone();
        for client in &open {
            client.take(&flows);
        }
        drop(open);
        let mut clients = locked(&clients);
        clients.open.retain(|client| !client.rows.is_closed());
        clients.waiting = clients.waiting.saturating_sub(flows.len());
    }
    if let Some(clients) = clients.upgrade() {
        locked(&clients).open.clear();
    }
}

impl Client {
    fn counts(&self, flow: &TaggedFlow) -> bool {
        self.all_observations || flow.record.primary
    }

    /// Takes what matches, while somebody reads.
    fn take(&self, flows: &[TaggedFlow]) {
        for flow in flows.iter().filter(|flow| self.counts(flow) && self.query.matches(flow)) {
            match self.rows.try_reserve() {
                Ok(place) => place.send(serde_json::Value::Object(wiretag_store::json::row(flow)).to_string()),
                Err(TrySendError::Full(())) => self.lost.add(1),
                Err(TrySendError::Closed(())) => return,
            }
        }
    }

    /// Counts what nobody has held against the query.
    fn lose(&self, flows: &[TaggedFlow]) {
        self.lost.add(flows.iter().filter(|flow| self.counts(flow)).count() as u64);
    }
}

impl Lost {
    fn add(&self, rows: u64) {
        if rows > 0 {
            self.rows.fetch_add(rows, Ordering::Relaxed);
            self.more.notify_one();
        }
    }
}

impl Follower {
    /// What is next; a loss before the rows that wait.
    async fn next(&mut self) -> Option<Told> {
        loop {
            let lost = self.lost.rows.swap(0, Ordering::Relaxed);
            if lost > 0 {
                return Some(Told::Lost(lost));
            }
            tokio::select! {
                row = self.rows.recv() => return row.map(Told::Row),
                () = self.lost.more.notified() => {}
            }
        }
    }
}

/// A follower at the end of a connection, while it may be told.
struct Listener<M> {
    follower: Follower,
    check: Interval,
    may: M,
}

impl<M: Fn() -> bool> Listener<M> {
    async fn event(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let told = loop {
            tokio::select! {
                biased;
                _ = self.check.tick() => if !(self.may)() { return None },
                told = self.follower.next() => break told?,
            }
        };
        let event = match told {
            Told::Row(row) => Event::default().event("flow").data(row),
            Told::Lost(rows) => Event::default().event("lost").data(json!({ "rows": rows }).to_string()),
        };
        Some((Ok(event), self))
    }
}

/// Parameters.
#[derive(serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TailParameters {
    /// Query; empty means everything. Relative times in it count from the request.
    q: Option<String>,
    /// Also observations that are not primary.
    all_observations: Option<bool>,
}

/// New flows as they are stored: an event `flow` for each, with the columns of `/api/v1/fields`; an event `lost` with the
/// number of `rows` that it, or the appliance, was too slow for. It ends with the session.
#[utoipa::path(get, path = "/api/v1/flows/tail", params(TailParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "Server-sent events"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 503, body = ErrorBody, description = "Too many clients")))]
pub(crate) async fn tail(
    State(shared): State<Shared>,
    caller: Caller,
    headers: HeaderMap,
    Params(parameters): Params<TailParameters>,
) -> Result<Response, ApiError> {
    let query = caller.query(parameters.q.as_deref())?;
    let follower = shared.tail.join(caller.who.reader(), query, parameters.all_observations.unwrap_or(false));
    let follower = follower.map_err(|error| ApiError::internal(&error))?;
    let follower = follower.ok_or_else(|| ApiError::busy("too many clients follow at the same time"))?;
    let may = move || shared.auth.caller(&headers).is_some();
    let listener = Listener { follower, check: interval(CHECK), may };
    Ok(Sse::new(stream::unfold(listener, Listener::event)).keep_alive(KeepAlive::default()).into_response())
}

#[cfg(test)]
mod tests {
    use wiretag_capture::flow::{Engine, FlowConfig};
    use wiretag_capture::{EndReason, LinkType, Packet, Source};
    use wiretag_enrich::EndTag;

    use super::*;

    /// A flow of one datagram to port 53.
    fn flow() -> TaggedFlow {
        let mut data = vec![0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        data.extend([0x9c, 0x40, 0, 53, 0, 12, 0, 0, 7, 7, 7, 7]);
        let (time, wire_len, link_type) = (1_000_000_000, 32, LinkType(101));
        let packet = Packet { time, data: &data, wire_len, link_type, interface: 0, direction: None, vlan: None };
        let mut engine = Engine::new(FlowConfig::new("node", Source::File));
        let mut records = Vec::new();
        engine.packet(&packet, &mut records);
        engine.finish(EndReason::EndOfInput, &mut records);
        let mut record = records.pop().expect("a flow");
        record.primary = true;
        TaggedFlow { record, client: EndTag::NONE, server: EndTag::NONE }
    }

    fn query(text: &str) -> Query<FlowRecord> {
        wiretag_store::query::parse(text).expect("a query")
    }

    /// Waits until the thread has looked at everything.
    async fn told(tail: &Tail) {
        while locked(&tail.clients).waiting > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn join(tail: &Tail, text: &str) -> Option<Follower> {
        tail.join(None, query(text), false).expect("a thread")
    }

    #[tokio::test]
    async fn a_slow_client_is_told_what_it_lost() {
        let tail = Tail::default();
        let mut slow = join(&tail, "server_port == 53").expect("room");
        let mut other = join(&tail, "server_port == 80").expect("room");
        let mut hidden = flow();
        hidden.record.primary = false;
        tail.publish(&[hidden]);
        tail.publish(&vec![flow(); QUEUE + 5]);
        told(&tail).await;
        assert_eq!(slow.next().await, Some(Told::Lost(5)));
        for _ in 0..QUEUE {
            assert!(matches!(slow.next().await, Some(Told::Row(row)) if row.contains("\"server_port\":53")));
        }
        tail.publish(&[flow()]);
        tail.close();
        assert!(matches!(slow.next().await, Some(Told::Row(_))), "it goes on, and ends behind the last row");
        assert_eq!((slow.next().await, other.next().await), (None, None));
        let mut late = join(&tail, "").expect("room");
        assert_eq!(late.next().await, None, "nothing comes any more");
    }

    #[tokio::test]
    async fn publishing_waits_for_no_query_and_what_was_not_looked_at_is_lost() {
        let tail = Tail::default();
        // Nobody takes what waits: the thread is as slow as can be.
        let (sender, batches) = threads::sync_channel(BATCHES);
        locked(&tail.clients).batches = Some(sender);
        let mut follower = join(&tail, "server_port == 80").expect("room");
        let mut hidden = flow();
        hidden.record.primary = false;
        let rows: Vec<_> = std::iter::repeat_n(flow(), MOST_WAITING - 1).chain([hidden]).collect();
        tail.publish(&rows);
        let early = tokio::time::timeout(Duration::from_millis(50), follower.next()).await;
        assert!(early.is_err(), "there is room: {early:?}");
        tail.publish(&rows);
        assert_eq!(follower.next().await, Some(Told::Lost(MOST_WAITING as u64 - 1)), "told at once, without a row");
        drop(tail);
        assert_eq!(batches.into_iter().count(), 1);
        assert_eq!(follower.next().await, None, "with the last of those who publish it ends");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_session() {
        let tail = Tail::default();
        let follower = join(&tail, "").expect("room");
        let may = std::sync::atomic::AtomicBool::new(true);
        let listener =
            Listener { follower, check: interval(Duration::from_millis(10)), may: || may.load(Ordering::Relaxed) };
        tail.publish(&[flow()]);
        let (event, listener) = listener.event().await.expect("a row");
        assert!(event.is_ok());
        may.store(false, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
        tail.publish(&[flow()]);
        assert!(listener.event().await.is_none(), "it may no longer be told");
    }

    #[test]
    fn clients_are_bounded_and_forgotten() {
        let tail = Tail::default();
        let of_reader = || tail.join(Some("shop"), query(""), false).expect("a thread");
        let readers: Vec<_> = (0..=MOST_EACH).filter_map(|_| of_reader()).collect();
        assert_eq!(readers.len(), MOST_EACH);
        let mut followers: Vec<_> = (0..MOST_EACH).filter_map(|_| join(&tail, "")).collect();
        assert_eq!(followers.len(), MOST_EACH, "a reader takes nobody else's places");
        assert!(join(&tail, "").is_none());
        followers.pop();
        assert!(join(&tail, "").is_some(), "who went makes room");
    }
}

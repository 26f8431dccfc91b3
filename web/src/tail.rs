//! Flows as they are stored, as server-sent events (WHATWG HTML, 9.2).
//!
//! * publishing never waits: each client has a queue of [`QUEUE`] rows, and what a slow one has no room for is counted and told it
//!   (event `lost`) before its next row;
//! * a client that went is forgotten at the next publication, or when its connection ends;
//! * [`Tail::close`] ends every stream, so that an appliance can stop.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use wiretag_capture::FlowRecord;
use wiretag_enrich::TaggedFlow;
use wiretag_store::query::Query;

use crate::Shared;
use crate::caller::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::params::Params;

/// Rows that wait for one client; about three kilobytes each.
const QUEUE: usize = 1024;
/// Clients at the same time.
const MOST_CLIENTS: usize = 16;

/// Where new flows are published; clones share the clients.
#[derive(Clone, Default)]
pub struct Tail {
    clients: Arc<Mutex<Clients>>,
}

#[derive(Default)]
struct Clients {
    open: Vec<Client>,
    closed: bool,
}

struct Client {
    query: Query<FlowRecord>,
    all_observations: bool,
    rows: mpsc::Sender<String>,
    lost: Arc<AtomicU64>,
}

/// The other end of a client's queue.
struct Follower {
    rows: mpsc::Receiver<String>,
    lost: Arc<AtomicU64>,
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Row(String),
    Lost(u64),
}

impl Tail {
    /// Hands flows to the clients whose query they match.
    pub fn publish(&self, flows: &[TaggedFlow]) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.open.retain(|client| client.take(flows));
    }

    /// Ends all streams; there will be no more flows.
    pub fn close(&self) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        *clients = Clients { open: Vec::new(), closed: true };
    }

    /// A new client, unless there are too many.
    fn join(&self, query: Query<FlowRecord>, all_observations: bool) -> Option<Follower> {
        let (sender, rows) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.open.retain(|client| !client.rows.is_closed());
        if clients.open.len() >= MOST_CLIENTS {
            return None;
        }
        if !clients.closed {
            clients.open.push(Client { query, all_observations, rows: sender, lost: lost.clone() });
        }
        Some(Follower { rows, lost })
    }
}

impl Client {
    /// Takes what matches; false if nobody reads any more.
    fn take(&self, flows: &[TaggedFlow]) -> bool {
        let counts = |flow: &&TaggedFlow| self.all_observations || flow.record.primary;
        for flow in flows.iter().filter(counts).filter(|flow| self.query.matches(flow)) {
            match self.rows.try_reserve() {
                Ok(place) => place.send(serde_json::Value::Object(wiretag_store::json::row(flow)).to_string()),
                Err(TrySendError::Full(())) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                }
                Err(TrySendError::Closed(())) => return false,
            }
        }
        !self.rows.is_closed()
    }
}

impl Follower {
    /// What is next. Rows are lost only while others wait, so a loss is told before one of those.
    async fn next(&mut self) -> Option<Told> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => self.rows.recv().await.map(Told::Row),
            lost => Some(Told::Lost(lost)),
        }
    }

    async fn event(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let event = match self.next().await? {
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
/// number of `rows` that the client was too slow for.
#[utoipa::path(get, path = "/api/v1/flows/tail", params(TailParameters), security(("token" = []), ("session" = [])),
    responses((status = 200, content_type = "text/event-stream", body = String, description = "Server-sent events"),
        (status = 400, body = ErrorBody, description = "A mistake in a parameter"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 503, body = ErrorBody, description = "Too many clients")))]
pub(crate) async fn tail(
    State(shared): State<Shared>,
    caller: Caller,
    Params(parameters): Params<TailParameters>,
) -> Result<Response, ApiError> {
    let query = caller.query(parameters.q.as_deref())?;
    let follower = shared.tail.join(query, parameters.all_observations.unwrap_or(false));
    let follower = follower.ok_or_else(|| ApiError::busy("too many clients follow at the same time"))?;
    Ok(Sse::new(stream::unfold(follower, Follower::event)).keep_alive(KeepAlive::default()).into_response())
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

    #[tokio::test]
    async fn a_slow_client_is_told_what_it_lost() {
        let tail = Tail::default();
        let mut slow = tail.join(query("server_port == 53"), false).expect("room");
        let mut other = tail.join(query("server_port == 80"), false).expect("room");
        let mut hidden = flow();
        hidden.record.primary = false;
        tail.publish(&[hidden]);
        for _ in 0..QUEUE + 5 {
            tail.publish(&[flow()]);
        }
        assert_eq!(slow.next().await, Some(Told::Lost(5)));
        for _ in 0..QUEUE {
            assert!(matches!(slow.next().await, Some(Told::Row(row)) if row.contains("\"server_port\":53")));
        }
        tail.publish(&[flow()]);
        assert!(matches!(slow.next().await, Some(Told::Row(_))), "it goes on");
        tail.close();
        assert_eq!((slow.next().await, other.next().await), (None, None));
        let mut late = tail.join(query(""), true).expect("room");
        assert_eq!(late.next().await, None, "nothing comes any more");
    }

    #[test]
    fn clients_are_bounded_and_forgotten() {
        let tail = Tail::default();
        let mut followers: Vec<_> = (0..MOST_CLIENTS).filter_map(|_| tail.join(query(""), true)).collect();
        assert_eq!(followers.len(), MOST_CLIENTS);
        assert!(tail.join(query(""), true).is_none());
        followers.pop();
        assert!(tail.join(query(""), true).is_some(), "who went makes room");
    }
}

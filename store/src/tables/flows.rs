//! What is asked of flows only: the slices and other observations of one flow, and references to packets.

use futures_util::future::BoxFuture;
use wiretag_capture::FlowRecord;

use super::engine::Condition;
use super::error::TableError;
use super::rows::Row;
use super::{FlowStore, Range};
use crate::error::StoreError;
use crate::query::{self, Query};

/// Rows of one flow, or its other observations, at most.
const MAX_SLICES: usize = 10_000;

/// What is needed to find and name the packets of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowRef {
    /// Flow.
    pub flow_id: u64,
    /// First packet, ns since the epoch.
    pub start: i64,
    /// Last packet.
    pub end: i64,
    /// The client's pod, else its container, service, workload or host.
    pub client_name: Option<String>,
    /// The server's.
    pub server_name: Option<String>,
}

/// Which of an end's names tells who it is, the first that it has.
const NAMES: [&str; 5] = ["pod", "container", "service", "workload", "host"];
#[rustfmt::skip]
const REF_COLUMNS: &[&str] = &[
    "start", "end", "flow_id", "slice", "client_pod", "client_container", "client_service", "client_workload", "client_host", "server_pod",
    "server_container", "server_service", "server_workload", "server_host",
];

impl FlowStore {
    /// References to the rows that pass, newest first.
    pub fn refs<'a>(
        &'a self,
        query: &'a Query<FlowRecord>,
        range: Range,
        all_observations: bool,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<FlowRef>, StoreError>> {
        Box::pin(self.refs_of(query, range, all_observations, limit))
    }

    async fn refs_of(
        &self,
        query: &Query<FlowRecord>,
        range: Range,
        all_observations: bool,
        limit: usize,
    ) -> Result<Vec<FlowRef>, StoreError> {
        let condition = Condition::new(query.node.clone(), range, all_observations);
        let rows = self.rows(&condition, limit, REF_COLUMNS).await?;
        let name = |row: &Row, side: &str| NAMES.iter().find_map(|name| row.text(&format!("{side}_{name}")));
        let reference = |row: &Row| FlowRef {
            flow_id: row.place.flow_id,
            start: row.place.start.0,
            end: row.end,
            client_name: name(row, "client"),
            server_name: name(row, "server"),
        };
        Ok(rows.iter().map(reference).collect())
    }

    /// All slices of a flow that are `permitted`, first to last.
    pub fn flow<'a>(
        &'a self,
        flow_id: u64,
        permitted: &'a Query<FlowRecord>,
    ) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        Box::pin(self.slices_of(flow_id, permitted))
    }

    async fn slices_of(&self, flow_id: u64, permitted: &Query<FlowRecord>) -> Result<Vec<Row>, StoreError> {
        let query = query::parse(&format!("flow_id == {flow_id:016x}")).map_err(TableError::from)?;
        let condition = Condition::new(query.within(permitted).node, Range::ALL, true);
        let mut rows = self.rows(&condition, MAX_SLICES, &[]).await?;
        rows.sort_by_key(|row| row.place.number);
        Ok(rows)
    }

    /// Rows of other flows with the same Community ID whose time overlaps: the same packets at other points, as far as
    /// they are `permitted`.
    pub fn observations<'a>(
        &'a self,
        flow_id: u64,
        permitted: &'a Query<FlowRecord>,
    ) -> BoxFuture<'a, Result<Vec<Row>, StoreError>> {
        Box::pin(self.observations_of(flow_id, permitted))
    }

    async fn observations_of(&self, flow_id: u64, permitted: &Query<FlowRecord>) -> Result<Vec<Row>, StoreError> {
        let slices = self.flow(flow_id, permitted).await?;
        let community_id = slices.iter().find_map(|row| row.text("community_id"));
        let from = slices.iter().map(|row| row.place.start.0).min();
        let to = slices.iter().map(|row| row.end).max();
        let (Some(community_id), Some(from), Some(to)) = (community_id, from, to) else { return Ok(Vec::new()) };
        let text = format!("community_id == \"{community_id}\" and flow_id != {flow_id:016x}");
        let query = query::parse(&text).map_err(TableError::from)?;
        let range = Range { from, to: to.saturating_add(1) };
        let condition = Condition::new(query.within(permitted).node, range, true);
        self.rows(&condition, MAX_SLICES, &[]).await
    }
}

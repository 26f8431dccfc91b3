//! What is asked of flows only: the slices and other observations of one flow, and references to packets.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use wiretag_capture::FlowRecord;

use super::engine::Condition;
use super::error::TableError;
use super::rows::Row;
use super::search::Page;
use super::{FlowStore, Range};
use crate::error::StoreError;
use crate::limits::{Budget, LimitReached};
use crate::query::{self, Query};

/// Rows of one flow, or its other observations, at most.
const MAX_SLICES: usize = 10_000;
/// What tells slices apart.
const KEY_COLUMNS: &[&str] = &["start", "end", "flow_id", "slice"];

/// The slices of a flow.
#[derive(Debug, Clone)]
pub struct Slices {
    /// First to last; of more than can be told as many of the first as of the last.
    pub rows: Vec<Row>,
    /// How many lie between these.
    pub left_out: u64,
    /// Memory that the rows take, bytes, about.
    pub memory: usize,
}

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

    /// The slices of a flow that are `permitted`, in so much memory, bytes.
    pub fn flow<'a>(
        &'a self,
        flow_id: u64,
        permitted: &'a Query<FlowRecord>,
        memory: usize,
    ) -> BoxFuture<'a, Result<Slices, StoreError>> {
        Box::pin(self.slices_of(flow_id, permitted, memory))
    }

    async fn slices_of(
        &self,
        flow_id: u64,
        permitted: &Query<FlowRecord>,
        memory: usize,
    ) -> Result<Slices, StoreError> {
        let of_flow = |further: &str| -> Result<Condition<FlowRecord>, StoreError> {
            let query = query::parse(&format!("flow_id == {flow_id:016x}{further}")).map_err(TableError::from)?;
            Ok(Condition::new(query.within(permitted).node, Range::ALL, true))
        };
        let mut most = MAX_SLICES;
        loop {
            let budget = Arc::new(Budget::new(memory));
            match self.first_and_last(&of_flow, most, &budget).await {
                Err(StoreError::Limit(LimitReached::Memory { .. })) if most > 2 => most /= 2,
                slices => return slices,
            }
        }
    }

    /// All slices, or the first and the last half of `most`.
    async fn first_and_last(
        &self,
        of_flow: &(dyn Fn(&str) -> Result<Condition<FlowRecord>, StoreError> + Sync),
        most: usize,
        budget: &Arc<Budget>,
    ) -> Result<Slices, StoreError> {
        let whole = Condition { budget: budget.clone(), ..of_flow("")? };
        let mut last = self.rows(&whole, most + 1, &[]).await?;
        last.sort_by_key(|row| row.place.number);
        if last.len() <= most {
            return Ok(Slices { rows: last, left_out: 0, memory: budget.used() });
        }
        last.drain(..last.len() - most / 2);
        let mut known: Vec<u64> =
            self.rows(&of_flow("")?, usize::MAX, KEY_COLUMNS).await?.iter().map(|row| row.place.number).collect();
        known.sort_unstable();
        let until = known.get(most / 2 - 1).copied().unwrap_or_default();
        let beginning = Condition { budget: budget.clone(), ..of_flow(&format!(" and slice <= {until}"))? };
        let mut rows = self.rows(&beginning, most, &[]).await?;
        rows.sort_by_key(|row| row.place.number);
        rows.append(&mut last);
        let left_out = known.len().saturating_sub(rows.len()) as u64;
        Ok(Slices { rows, left_out, memory: budget.used() })
    }

    /// Rows of other flows with the same Community ID whose time overlaps that of these slices: the same packets at other points, as far as
    /// they are `permitted` and there is memory for them, bytes.
    pub fn observations<'a>(
        &'a self,
        flow_id: u64,
        slices: &'a Slices,
        permitted: &'a Query<FlowRecord>,
        memory: usize,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(self.observations_of(flow_id, slices, permitted, memory))
    }

    async fn observations_of(
        &self,
        flow_id: u64,
        slices: &Slices,
        permitted: &Query<FlowRecord>,
        memory: usize,
    ) -> Result<Page, StoreError> {
        let slices = &slices.rows;
        let community_id = slices.iter().find_map(|row| row.text("community_id"));
        let from = slices.iter().map(|row| row.place.start.0).min();
        let to = slices.iter().map(|row| row.end).max();
        let (Some(community_id), Some(from), Some(to)) = (community_id, from, to) else {
            return Ok(Page { rows: Vec::new(), next: None, memory: 0 });
        };
        let text = format!("community_id == \"{community_id}\" and flow_id != {flow_id:016x}");
        let query = query::parse(&text).map_err(TableError::from)?;
        let range = Range { from, to: to.saturating_add(1) };
        let condition = Condition::new(query.within(permitted).node, range, true);
        self.fitting(None, &condition, MAX_SLICES, memory).await
    }
}

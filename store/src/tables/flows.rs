//! What is asked of flows only: the slices and other observations of one flow, references to packets, histograms.

use datafusion::arrow::array::RecordBatch;
use futures_util::TryStreamExt;
use serde_json::{Map, Value as Json};
use wiretag_capture::FlowRecord;
use wiretag_enrich::TaggedBy;

use super::engine::Condition;
use super::error::TableError;
use super::rows::{Row, number_at, time_at, word_at};
use super::search::FILES;
use super::{FlowStore, Range};
use crate::catalog::FlowFile;
use crate::error::StoreError;
use crate::query::{self, Query};

/// Rows of one flow, or its other observations, at most.
const MAX_SLICES: usize = 10_000;
/// Buckets of a histogram at most.
const MAX_BUCKETS: usize = 10_000;

/// Totals of the flows that start in one stretch of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// First ns.
    pub start: i64,
    /// Rows.
    pub flows: u64,
    /// Sum of `client_bytes`.
    pub client_bytes: u64,
    /// Sum of `server_bytes`.
    pub server_bytes: u64,
    /// Sum of `client_packets`.
    pub client_packets: u64,
    /// Sum of `server_packets`.
    pub server_packets: u64,
    /// Ends, two a row, that several could have been: no name.
    pub ambiguous_ends: u64,
    /// Ends that nobody known was.
    pub unnamed_ends: u64,
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
    /// Pod of the client, else its container.
    pub client_name: Option<String>,
    /// Pod of the server, else its container.
    pub server_name: Option<String>,
}

const REF_COLUMNS: &[&str] =
    &["start", "end", "flow_id", "slice", "client_pod", "client_container", "server_pod", "server_container"];
const HISTOGRAM_COLUMNS: &[&str] = &[
    "start",
    "client_bytes",
    "server_bytes",
    "client_packets",
    "server_packets",
    "client_tagged_by",
    "server_tagged_by",
];

impl FlowStore {
    /// References to the rows that pass, newest first.
    pub async fn refs(
        &self,
        query: &Query<FlowRecord>,
        range: Range,
        all_observations: bool,
        limit: usize,
    ) -> Result<Vec<FlowRef>, StoreError> {
        let condition = Condition { node: query.node.clone(), range, all_observations, after: None, not_before: None };
        let rows = self.rows(&condition, limit, REF_COLUMNS).await?;
        let name =
            |row: &Row, side: &str| row.text(&format!("{side}_pod")).or_else(|| row.text(&format!("{side}_container")));
        let reference = |row: &Row| FlowRef {
            flow_id: row.place.flow_id,
            start: row.place.start.0,
            end: row.end,
            client_name: name(row, "client"),
            server_name: name(row, "server"),
        };
        Ok(rows.iter().map(reference).collect())
    }

    /// All slices of a flow, first to last.
    pub async fn flow(&self, flow_id: u64) -> Result<Vec<Map<String, Json>>, StoreError> {
        Ok(self.slices(flow_id).await?.into_iter().map(|row| row.columns).collect())
    }

    /// Rows of other flows with the same Community ID whose time overlaps: the same packets at other points.
    pub async fn observations(&self, flow_id: u64) -> Result<Vec<Map<String, Json>>, StoreError> {
        let slices = self.slices(flow_id).await?;
        let community_id = slices.iter().find_map(|row| row.text("community_id"));
        let from = slices.iter().map(|row| row.place.start.0).min();
        let to = slices.iter().map(|row| row.end).max();
        let (Some(community_id), Some(from), Some(to)) = (community_id, from, to) else { return Ok(Vec::new()) };
        let text = format!("community_id == \"{community_id}\" and flow_id != {flow_id:016x}");
        let query = query::parse(&text).map_err(TableError::from)?;
        let range = Range { from, to: to.saturating_add(1) };
        let condition = Condition { node: query.node, range, all_observations: true, after: None, not_before: None };
        let rows = self.rows(&condition, MAX_SLICES, &[]).await?;
        Ok(rows.into_iter().map(|row| row.columns).collect())
    }

    async fn slices(&self, flow_id: u64) -> Result<Vec<Row>, StoreError> {
        let query = query::parse(&format!("flow_id == {flow_id:016x}")).map_err(TableError::from)?;
        let condition =
            Condition { node: query.node, range: Range::ALL, all_observations: true, after: None, not_before: None };
        let mut rows = self.rows(&condition, MAX_SLICES, &[]).await?;
        rows.sort_by_key(|row| row.place.number);
        Ok(rows)
    }

    /// Totals of the rows that pass, by start, in `buckets` stretches of equal length. Rows that start before the range
    /// and reach into it count in the first. Open slices count as they are by now: each slice is in an answer once.
    pub async fn histogram(
        &self,
        query: &Query<FlowRecord>,
        range: Range,
        buckets: usize,
        all_observations: bool,
    ) -> Result<Vec<Bucket>, StoreError> {
        let mut totals = Totals::new(range, buckets)?;
        let condition = Condition { node: query.node.clone(), range, all_observations, after: None, not_before: None };
        let snapshot = self.snapshot(range).await?;
        for flow in snapshot.memory().filter(|flow| condition.matches(flow)) {
            let (client, server) = (&flow.record.client, &flow.record.server);
            let tagged = [&flow.client, &flow.server].map(|end| end.tagged_by.as_str());
            totals.add(flow.record.start, [client.bytes, server.bytes, client.packets, server.packets], tagged);
        }
        let files: Vec<&FlowFile> = snapshot.files.iter().filter(|file| condition.touches(file)).collect();
        for group in files.chunks(*FILES.end()) {
            let before = totals.clone();
            if let Err(error) = self.add_files(&mut totals, group, &condition).await {
                totals = before;
                let rest = self.without_unreadable(group, error).await?;
                if !rest.is_empty() {
                    self.add_files(&mut totals, &rest, &condition).await?;
                }
            }
        }
        Ok(totals.buckets)
    }

    async fn add_files(
        &self,
        totals: &mut Totals,
        files: &[&FlowFile],
        on: &Condition<FlowRecord>,
    ) -> Result<(), TableError> {
        let mut stream = self.inner.engine.stream(files, on, HISTOGRAM_COLUMNS).await?;
        while let Some(batch) = stream.try_next().await? {
            totals.add_batch(&batch);
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
struct Totals {
    from: i64,
    width: i64,
    buckets: Vec<Bucket>,
}

impl Totals {
    fn new(range: Range, buckets: usize) -> Result<Self, TableError> {
        if buckets == 0 || buckets > MAX_BUCKETS {
            return Err(TableError::Range("a histogram has 1 to 10000 buckets"));
        }
        let Some(length) = range.to.checked_sub(range.from).filter(|length| *length > 0) else {
            return Err(TableError::Range("the range of a histogram ends after it begins, within 292 years"));
        };
        let width = (length as u64).div_ceil(buckets as u64) as i64;
        let start = |number: usize| range.from.saturating_add(width.saturating_mul(number as i64));
        let buckets = (0..buckets).map(|number| Bucket { start: start(number), ..Bucket::default() }).collect();
        Ok(Self { from: range.from, width, buckets })
    }

    fn add(&mut self, start: i64, sums: [u64; 4], tagged_by: [&str; 2]) {
        let [client_bytes, server_bytes, client_packets, server_packets] = sums;
        let number = start.saturating_sub(self.from).max(0) / self.width;
        let Some(bucket) = self.buckets.get_mut(number as usize) else { return };
        bucket.flows += 1;
        for (total, value) in [
            (&mut bucket.client_bytes, client_bytes),
            (&mut bucket.server_bytes, server_bytes),
            (&mut bucket.client_packets, client_packets),
            (&mut bucket.server_packets, server_packets),
        ] {
            *total = total.saturating_add(value);
        }
        let ends = |how: TaggedBy| tagged_by.iter().filter(|own| **own == how.as_str()).count() as u64;
        bucket.ambiguous_ends += ends(TaggedBy::Ambiguous);
        bucket.unnamed_ends += ends(TaggedBy::None);
    }

    fn add_batch(&mut self, batch: &RecordBatch) {
        let [start, values @ ..] = batch.columns() else { return };
        for row in 0..batch.num_rows() {
            let Some(start) = time_at(start, row) else { continue };
            let value = |at: usize| values.get(at).and_then(|array| number_at(array, row)).unwrap_or_default();
            let word = |at: usize| values.get(at).and_then(|array| word_at(array, row)).unwrap_or_default();
            self.add(start, [value(0), value(1), value(2), value(3)], [word(4), word(5)]);
        }
    }
}

//! What is missing in an answer: part of those in JSON, and a header of files and of CSV.

use std::collections::BTreeMap;

use axum::http::{HeaderName, HeaderValue};
use wiretag_store::tables::{Missing, Range};
use wiretag_store::{MissingPackets, RetiredItems};

use crate::Inner;
use crate::caller::Caller;
use crate::error::ApiError;

const SECOND: u64 = 1_000_000_000;

/// Of answers that have no room for it; the value is [`Completeness`] without its nodes, as JSON.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("wiretag-completeness");

/// What was lost in a time range.
#[derive(Default, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Completeness {
    /// No packet and no row was lost by a kernel, a queue, a full disk or a kill, somebody captured since the first start, all that is stored is there and can be read, and all imports
    /// came to their end.
    complete: bool,
    /// Files of this time that cannot be read.
    unreadable_files: u64,
    /// Rows of these: what they have is not part of answers.
    unreadable_rows: u64,
    /// Segments of packets of this time that are gone from the disk.
    missing_segments: u64,
    /// Packets of these, until they are restored.
    missing_packets: u64,
    /// Imports of files with rows or packets of this time that did not come to their end.
    unfinished_imports: u64,
    /// Flows that retention has deleted of the hours of this range; they were not lost. Of groups: those that no roll-up adds up.
    retired_flow_rows: u64,
    /// Transactions that retention has deleted of these hours.
    retired_transactions: u64,
    /// Packets that retention has deleted of these hours.
    retired_packets: u64,
    /// By node; for those who may see some rows only in one, without a name, with what was lost.
    nodes: Vec<NodeLoss>,
}

/// Packets of one node.
#[derive(Default, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct NodeLoss {
    /// Node.
    node: String,
    /// Packets captured.
    packets: u64,
    /// Dropped by the kernel.
    kernel_drops: u64,
    /// Dropped by a full queue.
    queue_drops: u64,
    /// Not decoded, for a counted reason.
    refused: u64,
    /// Captured, in flows, and not written to the packet log.
    unwritten: u64,
    /// Rows of flows that were lost.
    flow_rows_lost: u64,
    /// Transactions that were lost.
    transactions_lost: u64,
    /// Seconds of the range in which nobody captured: from an end, of whatever kind, to the next start.
    not_captured_seconds: u64,
    /// Times that the node was killed or crashed, so that what it saw in the seconds before is missing, or that it could not capture.
    interruptions: u64,
}

impl Completeness {
    /// As the value of [`HEADER`].
    pub(crate) fn header(&self) -> HeaderValue {
        let mut own = serde_json::to_value(self).unwrap_or_default();
        if let Some(own) = own.as_object_mut() {
            own.remove("nodes");
        }
        HeaderValue::from_str(&own.to_string()).unwrap_or_else(|_| HeaderValue::from_static("{}"))
    }
}

/// What is missing of a range, for somebody; `rollable`: roll-ups can answer what is asked.
pub(crate) async fn completeness(
    shared: &Inner,
    caller: &Caller,
    range: Range,
    rollable: bool,
) -> Result<Completeness, ApiError> {
    let sees_all = caller.rows().is_none();
    let mut nodes: BTreeMap<String, NodeLoss> = BTreeMap::new();
    let pending = (shared.pending_loss)();
    let pending = Some(pending).filter(|loss| loss.to > range.from && loss.from < range.to);
    let known = shared.store.completeness(range.from, range.to, rollable).await?;
    let Missing { files: unreadable_files, rows: unreadable_rows } = known.unreadable;
    let MissingPackets { segments: missing_segments, packets: missing_packets } = known.missing_packets;
    let unfinished_imports = known.unfinished_imports;
    let mut complete = unreadable_files == 0 && missing_segments == 0 && unfinished_imports == 0;
    for loss in known.nodes.into_iter().chain(pending) {
        complete &= loss.is_complete();
        let name = if sees_all { loss.node } else { String::new() };
        let node = nodes.entry(name.clone()).or_insert_with(|| NodeLoss { node: name, ..NodeLoss::default() });
        if sees_all {
            node.packets += loss.packets;
            node.refused += loss.refused;
        }
        node.kernel_drops += loss.kernel_drops;
        node.queue_drops += loss.queue_drops;
        node.unwritten += loss.unwritten;
        node.flow_rows_lost += loss.flow_rows;
        node.transactions_lost += loss.transaction_rows;
        node.interruptions += loss.interruptions;
        node.not_captured_seconds += loss.not_captured.div_ceil(SECOND);
    }
    let nodes = nodes.into_values().collect();
    // How many there were is nothing for those who may see some of them.
    let (retired, unreadable_rows, missing_packets) =
        if sees_all { (known.retired, unreadable_rows, missing_packets) } else { (RetiredItems::default(), 0, 0) };
    Ok(Completeness {
        complete,
        unreadable_files,
        unreadable_rows,
        missing_segments,
        missing_packets,
        unfinished_imports,
        retired_flow_rows: retired.flow_rows,
        retired_transactions: retired.transaction_rows,
        retired_packets: retired.packets,
        nodes,
    })
}

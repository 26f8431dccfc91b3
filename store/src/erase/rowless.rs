//! Packets that no row tells of.
//!
//! What began in the seconds before a kill, after the last look at what was open, has packets and no row. Whether a filter is about such a
//! flow cannot be told: its packets stay, and the record of an erasure says how many there are. The index of a segment tells the time of
//! blocks, and not of packets, so that some of the second before or after are among them.

use std::path::PathBuf;

use crate::Store;
use crate::error::StoreError;
use crate::packets::FlowPackets;
use crate::query::Query;
use crate::tables::Range;

/// How long after it is known of last a run may have been killed, and how long a slice lives at most, ns.
const MINUTE: i64 = 60_000_000_000;
/// Rows around one kill that are read at most: some hundred megabytes. Of more flows the packets of some count that have one.
const ROWS: usize = 1 << 20;

impl Store {
    /// Packets of flows without a row, of the seconds around each kill in `[from, to)`.
    pub(super) async fn packets_without_rows(&self, (from, to): (i64, i64)) -> Result<u64, StoreError> {
        let mut ranges: Vec<Range> = Vec::new();
        for (first, last) in self.catalog.kills(from.saturating_sub(MINUTE), to).await? {
            let range = Range { from: first.max(from), to: last.saturating_add(MINUTE).min(to) };
            match ranges.last_mut() {
                Some(before) if range.from <= before.to => before.to = before.to.max(range.to),
                Some(_) | None => ranges.push(range),
            }
        }
        let mut packets = 0;
        for range in ranges {
            packets += self.without_rows(range).await?;
        }
        Ok(packets)
    }

    async fn without_rows(&self, range: Range) -> Result<u64, StoreError> {
        let segments = self.catalog.segments(range.from, range.to).await?;
        // An import that was killed is replaced as a whole.
        let own = segments.into_iter().filter(|segment| segment.sealed && segment.origin.import.is_none());
        let paths: Vec<PathBuf> = own.map(|segment| self.data_dir.join(segment.path)).collect();
        let work = move || {
            let mut found = FlowPackets::default();
            for path in paths {
                // Of one that cannot be read only what can is counted.
                if let Err(error) = found.add(&path, (range.from, range.to)) {
                    tracing::warn!(%error, "packets without rows are not counted to the end of a segment");
                }
            }
            found
        };
        let found = tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Task(error.to_string()))?;
        let FlowPackets { mut flows, span: Some((first, last)) } = found else { return Ok(0) };
        // A row that was recovered may end before the packets of its flow do.
        let rows = Range { from: first.saturating_sub(MINUTE), to: last.saturating_add(1) };
        for row in self.flows.refs(&Query::everything(), rows, true, ROWS).await? {
            flows.remove(&row.flow_id);
        }
        Ok(flows.values().sum())
    }
}

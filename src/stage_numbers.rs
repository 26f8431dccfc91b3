//! Numbers of the later stages: written by their owners, read when Prometheus asks.

use crate::metrics::Sample;

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageNumbers {
    pub(crate) rows_stored: u64,
    pub(crate) rows_dropped: u64,
    /// Of flows and of transactions.
    pub(crate) rows_erased: [u64; 2],
    pub(crate) rows_retagged: [u64; 2],
    pub(crate) rollups: u64,
    pub(crate) failed_rollups: u64,
    pub(crate) flow_files_unreadable: u64,
    pub(crate) packet_blocks_damaged: u64,
    pub(crate) transaction_files_unreadable: u64,
    pub(crate) transactions_stored: u64,
    pub(crate) transactions_dropped: u64,
    pub(crate) flow_bytes: u64,
    pub(crate) transaction_bytes: u64,
    pub(crate) packet_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) open_slices: u64,
    pub(crate) hidden_slices: u64,
    pub(crate) packets_kept: u64,
    pub(crate) packets_dropped: u64,
    pub(crate) blocks_hurried: u64,
    pub(crate) blocks_opaque: u64,
    pub(crate) identities: Vec<(String, u64)>,
}

impl StageNumbers {
    /// Those of the store and the packet log.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let mut samples: Vec<Sample> = vec![
            ("wiretag_store_flow_rows_total", vec![], self.rows_stored as f64),
            ("wiretag_store_transaction_rows_total", vec![], self.transactions_stored as f64),
            ("wiretag_store_dropped_rows_total", vec!["full".into()], self.rows_dropped as f64),
            ("wiretag_store_rollup_files_total", vec![], self.rollups as f64),
            ("wiretag_store_failed_rollups_total", vec![], self.failed_rollups as f64),
            ("wiretag_store_unreadable_files_total", vec!["flows".into()], self.flow_files_unreadable as f64),
            (
                "wiretag_store_unreadable_files_total",
                vec!["transactions".into()],
                self.transaction_files_unreadable as f64,
            ),
            ("wiretag_store_bytes", vec!["flows".into()], self.flow_bytes as f64),
            ("wiretag_store_bytes", vec!["transactions".into()], self.transaction_bytes as f64),
            ("wiretag_store_bytes", vec!["packets".into()], self.packet_bytes as f64),
            ("wiretag_store_bytes", vec!["journal".into()], self.journal_bytes as f64),
            ("wiretag_packet_log_packets_total", vec![], self.packets_kept as f64),
            ("wiretag_packet_log_damaged_blocks_total", vec![], self.packet_blocks_damaged as f64),
            ("wiretag_packet_log_dropped_packets_total", vec!["write".into()], self.packets_dropped as f64),
            ("wiretag_packet_log_less_compressed_blocks_total", vec!["backlog".into()], self.blocks_hurried as f64),
            ("wiretag_packet_log_less_compressed_blocks_total", vec!["opaque".into()], self.blocks_opaque as f64),
        ];
        for (table, erased, retagged) in [
            ("flows", self.rows_erased[0], self.rows_retagged[0]),
            ("transactions", self.rows_erased[1], self.rows_retagged[1]),
        ] {
            samples.push(("wiretag_store_erased_rows_total", vec![table.into()], erased as f64));
            samples.push(("wiretag_store_retagged_rows_total", vec![table.into()], retagged as f64));
        }
        samples
    }
}

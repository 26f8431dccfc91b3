//! What a capture holds, known because it was made so: sums of the columns of its flow records.

use std::collections::BTreeMap;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Client = 0,
    Server = 1,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Sums over one side of all flows, at the capture point.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SideTruth {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) retransmits: u64,
    pub(crate) retransmit_bytes: u64,
    pub(crate) fast_retransmits: u64,
    pub(crate) timeout_retransmits: u64,
    pub(crate) out_of_order: u64,
    pub(crate) duplicate_acks: u64,
    pub(crate) zero_windows: u64,
    pub(crate) zero_window_us: u64,
    pub(crate) resets: u64,
    pub(crate) rtt_us: u64,
}

/// Sums over all flows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Truth {
    pub(crate) packets: u64,
    pub(crate) flows: u64,
    pub(crate) tcp_flows: u64,
    pub(crate) sides: [SideTruth; 2],
    pub(crate) syn_retries: u64,
    pub(crate) handshake_rtt_us: u64,
    pub(crate) dns_flows: u64,
    pub(crate) dns_latency_us: u64,
    pub(crate) dns_answers: u64,
    pub(crate) tls_flows: u64,
    pub(crate) http_requests: u64,
    pub(crate) http_errors: u64,
}

impl Truth {
    pub(crate) fn side(&mut self, end: End) -> &mut SideTruth {
        &mut self.sides[end as usize]
    }

    /// Sums by the names of the columns.
    pub(crate) fn columns(&self) -> BTreeMap<String, u64> {
        let mut columns = BTreeMap::new();
        for (side, truth) in ["client", "server"].into_iter().zip(&self.sides) {
            for (name, value) in [
                ("packets", truth.packets),
                ("bytes", truth.bytes),
                ("payload_bytes", truth.payload_bytes),
                ("retransmits", truth.retransmits),
                ("retransmit_bytes", truth.retransmit_bytes),
                ("fast_retransmits", truth.fast_retransmits),
                ("timeout_retransmits", truth.timeout_retransmits),
                ("out_of_order", truth.out_of_order),
                ("duplicate_acks", truth.duplicate_acks),
                ("zero_windows", truth.zero_windows),
                ("zero_window_us", truth.zero_window_us),
                ("resets", truth.resets),
                ("rtt_us", truth.rtt_us),
            ] {
                columns.insert(format!("{side}_{name}"), value);
            }
        }
        for (name, value) in [
            ("syn_retries", self.syn_retries),
            ("handshake_rtt_us", self.handshake_rtt_us),
            ("dns_latency_us", self.dns_latency_us),
            ("dns_answers", self.dns_answers),
            ("http_requests", self.http_requests),
            ("http_errors", self.http_errors),
        ] {
            columns.insert(name.to_owned(), value);
        }
        columns
    }

    /// As the truth file has it.
    #[allow(dead_code, reason = "the test that shares this module does not write it")]
    pub(crate) fn json(&self) -> String {
        let counts = [
            ("packets", self.packets),
            ("flows", self.flows),
            ("tcp_flows", self.tcp_flows),
            ("dns_flows", self.dns_flows),
            ("tls_flows", self.tls_flows),
        ];
        let line = |(name, value): (&str, u64)| format!("  \"{name}\": {value},\n");
        let sums: Vec<_> = self.columns().iter().map(|(name, value)| format!("    \"{name}\": {value}")).collect();
        let counts: String = counts.into_iter().map(line).collect();
        format!("{{\n{counts}  \"columns\": {{\n{}\n  }}\n}}\n", sums.join(",\n"))
    }
}

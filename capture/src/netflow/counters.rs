//! What became of what exporters sent.

use std::collections::BTreeMap;

/// Counts since the start, and what is there now. Records received = rows handed on + rows joined into others + records refused +
/// rows that wait.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetflowCounters {
    /// Datagrams from exporters that are heard, by version: 5, 9, 10 (IPFIX).
    pub datagrams: BTreeMap<u16, u64>,
    /// Datagrams, or parts of them, that were not read, by reason.
    pub malformed: BTreeMap<&'static str, u64>,
    /// Datagrams from addresses that are not among the exporters.
    pub strangers: u64,
    /// Records of flows that were read.
    pub records: u64,
    /// Of these, records without a row, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Of these, records whose counts were multiplied, because the exporter said that it samples.
    pub scaled: u64,
    /// Of these, records of a clock that is wrong, placed at the time of their arrival.
    pub replaced_times: u64,
    /// Records that were joined with the one of the other direction.
    pub joined: u64,
    /// Rows that did not wait for the other direction, because too many did.
    pub hurried: u64,
    /// Rows handed on.
    pub rows: u64,
    /// Sets whose template is not known: at least one record each.
    pub unknown_templates: u64,
    /// Records that did not arrive, by the exporter's sequence numbers.
    pub lost_records: u64,
    /// Datagrams that did not arrive, by the same: at least one record each.
    pub lost_datagrams: u64,
    /// Datagrams that were overtaken. Those before them were counted as lost.
    pub late: u64,
    /// Exporters that began to count anew.
    pub restarts: u64,
    /// Templates, exporters, and what options say of interfaces and samplers, forgotten or not taken, because there were too many.
    pub forgotten: u64,
    /// Exporters and observation domains heard of now.
    pub sessions: u64,
    /// Templates known now.
    pub templates: u64,
    /// Rows that wait now.
    pub waiting: u64,
}

impl NetflowCounters {
    /// Rows that are missing, at least: what was lost on the way, and what could not be read.
    pub fn missing(&self) -> u64 {
        self.lost_records + self.lost_datagrams + self.unknown_templates
    }

    pub(super) fn malformed(&mut self, reason: &'static str) {
        *self.malformed.entry(reason).or_default() += 1;
    }

    pub(super) fn refuse(&mut self, reason: &'static str) {
        *self.refused.entry(reason).or_default() += 1;
    }
}

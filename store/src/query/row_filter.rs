//! Which rows somebody may see: a condition in words that flows and transactions share.

use wiretag_capture::{FlowRecord, Transaction};

use super::{Query, QueryError, parse};

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct RowFilter {
    pub(crate) flows: Query<FlowRecord>,
    pub(crate) transactions: Query<Transaction>,
}

impl RowFilter {
    /// Reads a condition without relative times, which both tables must understand: what only one of them has would say
    /// nothing of the other's rows.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        Ok(Self { flows: parse(text)?, transactions: parse(text)? })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        self.flows.text()
    }
}

//! Our flows to others: rows as log records of OpenTelemetry's protocol (OTLP 1).
//!
//! ```text
//! request  resource (who tells) | scope `wiretag` | log records, one a row
//! ```
//!
//! * A record is an event `wiretag.flow` at the end of the row. Each column that has a value is an attribute: under the name of OpenTelemetry's
//!   conventions where there is one ([`SEMANTIC`]), else as `wiretag.` and its own name. What was not seen is left out.
//! * A flow has two ends, and the conventions have names for one resource: they bear the side in front, `client.k8s.pod.name`.
//! * Rows are encoded once, and batches of them are joined by appending: fields of a message may be written one after the other.
//!
//! The encoder is pure: the time is an argument, and who sends the requests decides what to do when nobody takes them.

mod attributes;
mod generated;

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

pub use self::attributes::{NETWORK_TYPE, SEMANTIC, name};
use self::generated::{ExportLogsServiceResponse, InstrumentationScope, LogRecord, Resource};
use crate::tagged::TaggedFlow;

/// The name of each event.
pub const EVENT: &str = "wiretag.flow";
/// Bytes of records after which no further one is added.
pub const ENOUGH: usize = 1 << 20;

/// `INFO` in OpenTelemetry's scale.
const SEVERITY: i32 = 9;

/// Encoded log records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Records {
    /// Records as fields of a scope, one after the other.
    pub bytes: Vec<u8>,
    /// How many.
    pub records: u32,
}

/// What a receiver did not take of a request that it accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partial {
    /// Log records that it refused.
    pub rejected: u64,
    /// Why, in its words; they may also be a warning about nothing refused.
    pub message: String,
}

/// The records of rows, in their order, in pieces of at most `most`.
pub fn encode<'a>(rows: impl IntoIterator<Item = &'a TaggedFlow>, most: u32, now: i64) -> Vec<Records> {
    let mut out = Vec::new();
    let mut piece = Records::default();
    for row in rows {
        let record = LogRecord {
            time_unix_nano: row.record.end as u64,
            severity_number: SEVERITY,
            attributes: attributes::attributes(row),
            observed_time_unix_nano: now as u64,
            event_name: EVENT.to_owned(),
        };
        prost::encoding::message::encode(2, &record, &mut piece.bytes);
        piece.records += 1;
        if piece.records >= most || piece.bytes.len() >= ENOUGH {
            out.push(std::mem::take(&mut piece));
        }
    }
    if piece.records > 0 {
        out.push(piece);
    }
    out
}

/// Makes requests of one resource.
#[derive(Debug, Clone)]
pub struct Encoder {
    /// The resource, as a field.
    resource: Vec<u8>,
    /// The scope, as a field.
    scope: Vec<u8>,
}

impl Encoder {
    /// `resource` are the attributes of who tells; those without a value are left out.
    pub fn new(resource: &[(&str, Option<&str>)], version: &str) -> Self {
        let attributes =
            resource.iter().filter_map(|(key, value)| Some(attributes::text(key, (*value)?.to_owned()))).collect();
        let scope = InstrumentationScope { name: "wiretag".to_owned(), version: version.to_owned() };
        let mut own = Self { resource: Vec::new(), scope: Vec::new() };
        prost::encoding::message::encode(1, &Resource { attributes }, &mut own.resource);
        prost::encoding::message::encode(1, &scope, &mut own.scope);
        own
    }

    /// The request with these [`Records::bytes`].
    pub fn request(&self, records: &[u8]) -> Vec<u8> {
        let mut lengths = Vec::new();
        begin(2, self.scope.len() + records.len(), &mut lengths);
        let inner = self.resource.len() + lengths.len() + self.scope.len() + records.len();
        let mut request = Vec::with_capacity(inner + 16);
        begin(1, inner, &mut request);
        for part in [&self.resource, &lengths, &self.scope, records] {
            request.extend_from_slice(part);
        }
        request
    }
}

/// Key and length of a field that is a message.
fn begin(field: u32, length: usize, bytes: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, bytes);
    encode_varint(length as u64, bytes);
}

/// What the answer to an accepted request says; an answer that makes no sense says nothing.
pub fn partial(answer: &[u8]) -> Partial {
    let said = ExportLogsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    said.map_or_else(Partial::default, |said| Partial {
        rejected: u64::try_from(said.rejected_log_records).unwrap_or_default(),
        message: said.error_message,
    })
}

#[cfg(test)]
mod tests;

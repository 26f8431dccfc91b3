//! Roll-ups: flows added up by minute and by hour, so that a month on a dashboard is read in milliseconds.
//!
//! ```text
//! rollups/1m/date=…/hour=…   flows of one hour by minute and DIMENSIONS    made when the hour is past   [build]
//! rollups/1h/date=…          these of one day by hour                      made when the day is past    [build]
//! ```
//!
//! * Rows are the partial groups of an aggregation, persisted: numbers of flows, sums, and sketches whose merge is exact. So an answer
//!   from roll-ups is the answer from rows. Only primary observations are in them.
//! * A roll-up is of certain flow files, which the catalog names, and never changes: rows that come later to its hour are read as
//!   rows, until they have a roll-up of their own. Files that are part of one are not merged any more.
//! * An aggregation uses them by itself ([`serve`]) if it asks for nothing that is not in them; the hours and minutes at the ends of its
//!   range that are not whole are read from rows.
//! * They outlive the rows. What then is asked for less than a minute, or an hour, counts if its minute or hour begins in the range,
//!   and the answer says so.
//!
//! The last hour or two are always read from rows: the files of an hour that is not past are few and change often.

mod build;
mod erase;
pub(super) mod serve;
mod write;

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef, TimeUnit};
use wiretag_capture::Kind;
use wiretag_enrich::Record;
use wiretag_enrich::tagged::all_columns;

pub(super) use self::build::Rolling;
pub(super) use self::serve::unreplaced;
use super::schema::UTC;
use crate::query::ast::Field;
use crate::query::plan::{Aggregate, Figure, Key, KeyOf, Measure};
use crate::sketch::Quantile;

/// A minute, ns.
pub(crate) const MINUTE: i64 = 60_000_000_000;
/// An hour.
pub(crate) const HOUR: i64 = 60 * MINUTE;
/// A day.
pub(crate) const DAY: i64 = 24 * HOUR;
/// In the data directory.
pub(crate) const FOLDER: &str = "rollups";

/// What makes a row, beside its time.
pub(super) const DIMENSIONS: [&str; 15] = [
    "client_cluster",
    "client_namespace",
    "client_workload",
    "client_workload_kind",
    "client_host",
    "client_tagged_by",
    "server_cluster",
    "server_namespace",
    "server_workload",
    "server_workload_kind",
    "server_host",
    "server_tagged_by",
    "server_port",
    "protocol",
    "app",
];
/// What is added up.
pub(super) const SUMS: [&str; 22] = [
    "client_packets",
    "server_packets",
    "client_bytes",
    "server_bytes",
    "client_payload_bytes",
    "server_payload_bytes",
    "client_packets_missed",
    "server_packets_missed",
    "client_retransmits",
    "server_retransmits",
    "client_out_of_order",
    "server_out_of_order",
    "client_zero_windows",
    "server_zero_windows",
    "client_resets",
    "server_resets",
    "syn_retries",
    "responses",
    "dns_answers",
    "dns_retries",
    "http_requests",
    "http_errors",
];
/// Whose distribution is kept.
pub(super) const SKETCHES: [&str; 8] = [
    "handshake_rtt_us",
    "client_rtt_us",
    "server_rtt_us",
    "response_time_first_us",
    "response_time_avg_us",
    "response_time_max_us",
    "dns_latency_us",
    "http_latency_us",
];
/// The column with the number of flows.
pub(super) const ROWS: &str = "rows";

/// The column with the number of values of a sum.
pub(super) fn values_of(sum: &str) -> String {
    format!("{sum}_values")
}

/// The column with a sketch.
pub(super) fn sketch_of(name: &str) -> String {
    format!("{name}_sketch")
}

/// The columns of a file.
fn schema<R: Record>() -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()));
    let mut fields = vec![ArrowField::new("start", time, false)];
    for field in fields_of::<R>(&DIMENSIONS) {
        let kind = if field.column.kind() == Kind::Number { DataType::UInt64 } else { DataType::Utf8 };
        fields.push(ArrowField::new(field.column.name(), kind, true));
    }
    fields.push(ArrowField::new(ROWS, DataType::UInt64, false));
    for sum in SUMS {
        fields.push(ArrowField::new(sum, DataType::UInt64, true));
        fields.push(ArrowField::new(values_of(sum), DataType::UInt64, false));
    }
    fields.extend(SKETCHES.map(|name| ArrowField::new(sketch_of(name), DataType::Binary, true)));
    Arc::new(Schema::new(fields))
}

fn fields_of<R: Record>(names: &[&str]) -> Vec<Field<R>> {
    let find = |name: &&str| all_columns::<R>().find(|column| column.name() == *name);
    names.iter().filter_map(find).map(|column| Field { column, key: None }).collect()
}

/// What a roll-up is: an aggregation of flows.
fn aggregate<R: Record>(width: i64) -> Aggregate<R> {
    let time = Key { name: "start".into(), of: KeyOf::Time { width, origin: 0 } };
    let dimension = |field: Field<R>| Key { name: field.column.name().into(), of: KeyOf::Column(field) };
    let measure =
        |figure| move |field: Field<R>| Measure { name: field.column.name().into(), figure, fields: vec![field] };
    let count = Measure { name: ROWS.into(), figure: Figure::Count, fields: Vec::new() };
    let sums = fields_of(&SUMS).into_iter().map(measure(Figure::Sum));
    let sketches = fields_of(&SKETCHES).into_iter().map(measure(Figure::Quantile(Quantile::MEDIAN)));
    Aggregate {
        by: [time].into_iter().chain(fields_of(&DIMENSIONS).into_iter().map(dimension)).collect(),
        measures: [count].into_iter().chain(sums).chain(sketches).collect(),
        order: Vec::new(),
        limit: None,
        shown: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use wiretag_capture::FlowRecord;

    use super::*;

    #[test]
    fn every_name_is_a_column_of_flows() {
        for names in [&DIMENSIONS[..], &SUMS[..], &SKETCHES[..]] {
            assert_eq!(fields_of::<FlowRecord>(names).len(), names.len());
        }
        let numbers =
            |field: &Field<FlowRecord>| matches!(field.column.kind(), Kind::Number | Kind::Size | Kind::Duration);
        assert!(fields_of(&SUMS).iter().chain(&fields_of(&SKETCHES)).all(numbers));
    }
}

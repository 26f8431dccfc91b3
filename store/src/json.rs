//! Rows as JSON: columns in the order of the vocabulary, nulls included, times in RFC 3339 with nanoseconds, UTC.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Map, Value as Json};
use wiretag_capture::Value;
use wiretag_enrich::tagged::all_columns;
use wiretag_enrich::{Record, Tagged};

/// A record without names.
pub fn record<R: Record>(record: &R) -> Map<String, Json> {
    R::columns().map(|column| (column.name.to_owned(), value((column.get)(record)))).collect()
}

/// A row with the identity columns.
pub fn row<R: Record>(row: &Tagged<R>) -> Map<String, Json> {
    all_columns().map(|column| (column.name().to_owned(), value(column.get(row)))).collect()
}

/// One value.
pub fn value(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => value.into(),
        Value::Number(value) => value.into(),
        Value::Time(value) => time(value).into(),
        Value::Ip(ip) => ip.to_string().into(),
        Value::Mac(mac) => Value::mac_text(mac).into(),
        Value::Text(text) => text.into_owned().into(),
        Value::Map(pairs) => {
            Json::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
        }
    }
}

/// ns since the epoch as `2026-03-01T14:05:12.000000000Z`.
pub fn time(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

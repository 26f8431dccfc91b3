//! Rows as JSON: columns in the order of the vocabulary, nulls included, times in RFC 3339 with nanoseconds, UTC.

use chrono::{DateTime, SecondsFormat};
use serde::ser::{Serialize, SerializeMap, Serializer};
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

/// Memory of an entry of a row, bytes, about.
pub(crate) fn memory(name: &str, value: &Json) -> usize {
    let own = size_of::<String>() + size_of::<Json>() + name.len();
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => own,
        Json::String(text) => own + text.len(),
        Json::Array(values) => values.iter().map(|value| memory("", value)).sum::<usize>() + own,
        Json::Object(pairs) => pairs.iter().map(|(name, value)| memory(name, value)).sum::<usize>() + own,
    }
}

/// A value that is written without a [`Json`] of its own, and as it would be.
pub(crate) struct Shown<'a>(pub(crate) Value<'a>);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(value) => serializer.serialize_u64(*value),
            Value::Time(value) => serializer.serialize_str(&time(*value)),
            Value::Ip(ip) => serializer.collect_str(ip),
            Value::Mac(mac) => serializer.serialize_str(&Value::mac_text(*mac)),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

/// ns since the epoch as `2026-03-01T14:05:12.000000000Z`.
pub fn time(nanos: i64) -> String {
    DateTime::from_timestamp_nanos(nanos).to_rfc3339_opts(SecondsFormat::Nanos, true)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Shown, Value, value};

    #[test]
    fn what_is_written_at_once_is_what_json_would_be() {
        for (written, made) in [
            || Value::Null,
            || Value::Bool(true),
            || Value::Number(u64::MAX),
            || Value::Time(-1),
            || Value::Ip([192, 0, 2, 1].into()),
            || Value::Mac([2, 0, 0, 0, 0, 255]),
            || Value::Text(Cow::Borrowed("\"ß\n")),
            || Value::Map(vec![("a", "1"), ("b\"", "2")]),
        ]
        .map(|one: fn() -> Value<'static>| (Shown(one()), value(one())))
        {
            assert_eq!(serde_json::to_string(&written).ok(), Some(made.to_string()));
        }
    }
}

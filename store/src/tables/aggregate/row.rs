//! A row of an aggregation's answer. Its names are those of all rows, its texts those of the groups: a hundred thousand rows as JSON
//! would take a hundred megabytes.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value as Json};

use super::values::KeyValue;
use crate::json;

/// The values of one group, under the names of the answer's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupRow {
    names: Arc<[String]>,
    key: Vec<KeyValue>,
    figures: Vec<Told>,
}

/// A figure of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Told {
    Whole(i128),
    Time(i64),
    Fraction(f64),
    Nothing,
}

/// A value as it is shown.
enum Cell<'a> {
    Key(&'a KeyValue),
    Figure(Told),
}

impl GroupRow {
    /// There is a name for each value.
    pub(super) fn new(names: &Arc<[String]>, key: Vec<KeyValue>, figures: Vec<Told>) -> Self {
        Self { names: names.clone(), key, figures }
    }

    fn cells(&self) -> impl Iterator<Item = (&String, Cell<'_>)> {
        let figures = self.figures.iter().copied().map(Cell::Figure);
        self.names.iter().zip(self.key.iter().map(Cell::Key).chain(figures))
    }

    /// The value in a column, null if it has none.
    pub fn get(&self, column: &str) -> Json {
        self.cells().find(|(name, _)| *name == column).map_or(Json::Null, |(_, cell)| cell.json())
    }

    /// All values, in the order of the columns.
    pub fn values(&self) -> impl Iterator<Item = Json> {
        self.cells().map(|(_, cell)| cell.json())
    }

    /// All columns, in their order.
    pub fn to_map(&self) -> Map<String, Json> {
        self.cells().map(|(name, cell)| (name.clone(), cell.json())).collect()
    }
}

/// An object, as [`GroupRow::to_map`] would be.
impl Serialize for GroupRow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.cells())
    }
}

impl Told {
    /// Figures of one column are of one kind.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Fraction(a), Self::Fraction(b)) => a.total_cmp(b),
            (Self::Whole(_) | Self::Time(_) | Self::Fraction(_) | Self::Nothing, _) => Ordering::Equal,
        }
    }
}

/// What does not fit into 64 bits is shown as the greatest number that does.
fn shown(whole: i128) -> u64 {
    u64::try_from(whole).unwrap_or(u64::MAX)
}

impl Cell<'_> {
    fn json(&self) -> Json {
        match self {
            Self::Key(KeyValue::Bool(value)) => (*value).into(),
            Self::Key(KeyValue::Number(value)) => (*value).into(),
            Self::Key(KeyValue::Text(text)) => (&**text).into(),
            Self::Figure(Told::Whole(value)) => shown(*value).into(),
            Self::Key(KeyValue::Time(value)) | Self::Figure(Told::Time(value)) => json::time(*value).into(),
            Self::Figure(Told::Fraction(value)) => (*value).into(),
            Self::Key(KeyValue::Null) | Self::Figure(Told::Nothing) => Json::Null,
        }
    }
}

/// As [`Cell::json`], without making it first.
impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Key(KeyValue::Text(text)) => serializer.serialize_str(text),
            Self::Figure(Told::Whole(value)) => serializer.serialize_u64(shown(*value)),
            other => other.json().serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_its_map_is() {
        let names: Arc<[String]> = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(str::to_owned).into();
        let text = KeyValue::Text("x\"".into());
        let key = vec![KeyValue::Bool(true), KeyValue::Number(u64::MAX), KeyValue::Time(1), text, KeyValue::Null];
        let figures = vec![Told::Whole(i128::MAX), Told::Time(1), Told::Fraction(0.5), Told::Nothing];
        let row = GroupRow::new(&names, key, figures);
        assert_eq!(serde_json::to_value(&row).unwrap(), Json::Object(row.to_map()));
        assert_eq!((row.get("f"), row.get("h"), row.get("z")), (u64::MAX.into(), 0.5.into(), Json::Null));
        assert_eq!(row.to_map().keys().cloned().collect::<Vec<_>>(), &*names);
        assert_eq!(row.values().filter(Json::is_null).count(), 2);
    }
}

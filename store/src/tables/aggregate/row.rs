//! A row of an aggregation's answer. Its names are those of all rows, its texts those of the groups: a hundred thousand rows as JSON
//! would take a hundred megabytes.

use std::cmp::Ordering;
use std::sync::Arc;

use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Number, Value as Json};

use super::values::KeyValue;
use crate::json;

/// The values of one group, under the names of the answer's columns.
#[derive(Clone)]
pub struct GroupRow {
    rows: Arc<GroupRows>,
    row: usize,
}

/// Rows of an answer, one behind the other: memory for each would take longer than the figures do.
#[derive(Debug, Default)]
pub(super) struct GroupRows {
    names: Vec<String>,
    /// Of each row so many.
    keys: Vec<KeyValue>,
    width: usize,
    /// Of each row so many.
    figures: Vec<Told>,
    figures_width: usize,
    len: usize,
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
#[derive(Debug)]
enum Cell<'a> {
    Key(&'a KeyValue),
    Figure(Told),
}

impl GroupRows {
    /// Room for so many rows with so many keys and figures.
    pub(super) fn new(rows: usize, width: usize, figures_width: usize) -> Self {
        let (keys, figures) = (Vec::with_capacity(rows * width), Vec::with_capacity(rows * figures_width));
        Self { names: Vec::new(), keys, width, figures, figures_width, len: 0 }
    }

    /// One more row, of as many values as the others have.
    pub(super) fn push(&mut self, key: impl Iterator<Item = KeyValue>, figures: impl Iterator<Item = Told>) {
        self.keys.extend(key);
        self.figures.extend(figures);
        self.len += 1;
    }

    pub(super) fn append(&mut self, mut other: Self) {
        self.keys.append(&mut other.keys);
        self.figures.append(&mut other.figures);
        self.len += other.len;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn key(&self, row: usize) -> &[KeyValue] {
        self.keys.get(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    pub(super) fn figures(&self, row: usize) -> &[Told] {
        self.figures.get(row * self.figures_width..(row + 1) * self.figures_width).unwrap_or_default()
    }

    /// These rows, in this order.
    pub(super) fn taken(&self, rows: &[usize]) -> Self {
        let mut taken = Self::new(rows.len(), self.width, self.figures_width);
        for row in rows {
            taken.push(self.key(*row).iter().cloned(), self.figures(*row).iter().copied());
        }
        taken
    }

    /// Each row, under these names.
    pub(super) fn named(mut self, names: Vec<String>) -> Vec<GroupRow> {
        self.names = names;
        let rows = Arc::new(self);
        (0..rows.len).map(|row| GroupRow { rows: rows.clone(), row }).collect()
    }
}

impl std::fmt::Debug for GroupRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.cells()).finish()
    }
}

impl PartialEq for GroupRow {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.rows, &other.rows);
        ours.names == theirs.names
            && ours.key(self.row) == theirs.key(other.row)
            && ours.figures(self.row) == theirs.figures(other.row)
    }
}

impl GroupRow {
    fn cells(&self) -> impl Iterator<Item = (&String, Cell<'_>)> {
        let figures = self.rows.figures(self.row).iter().copied().map(Cell::Figure);
        self.rows.names.iter().zip(self.rows.key(self.row).iter().map(Cell::Key).chain(figures))
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

/// What does not fit into 64 bits is a number with a fraction for whoever reads it: about as great.
fn shown(whole: i128) -> Number {
    u64::try_from(whole)
        .map_or_else(|_| Number::from_f64(whole as f64).unwrap_or_else(|| u64::MAX.into()), Number::from)
}

impl Cell<'_> {
    fn json(&self) -> Json {
        match self {
            Self::Key(KeyValue::Bool(value)) => (*value).into(),
            Self::Key(KeyValue::Number(value)) => (*value).into(),
            Self::Key(KeyValue::Text(text)) => (&**text).into(),
            Self::Figure(Told::Whole(value)) => Json::Number(shown(*value)),
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
            Self::Figure(Told::Whole(value)) => shown(*value).serialize(serializer),
            other => other.json().serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_its_map_is() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"].map(str::to_owned).to_vec();
        let text = KeyValue::Text("x\"".into());
        let key = vec![KeyValue::Bool(true), KeyValue::Number(u64::MAX), KeyValue::Time(1), text, KeyValue::Null];
        let figures = vec![Told::Whole(i128::MAX), Told::Time(1), Told::Fraction(0.5), Told::Nothing];
        let mut rows = GroupRows::new(1, key.len(), figures.len());
        rows.push(key.into_iter(), figures.into_iter());
        let row = rows.named(names.clone()).remove(0);
        assert_eq!(serde_json::to_value(&row).unwrap(), Json::Object(row.to_map()));
        assert_eq!((row.get("f"), row.get("h"), row.get("z")), ((i128::MAX as f64).into(), 0.5.into(), Json::Null));
        assert_eq!(row.to_map().keys().cloned().collect::<Vec<_>>(), names);
        assert_eq!(row.values().filter(Json::is_null).count(), 2);
    }
}

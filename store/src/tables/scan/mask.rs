//! Which rows of a row group pass a condition, column by column: a column is read when the first test needs it, and a
//! test of a text is made once for each distinct text. A label is a column, too.

use std::collections::{HashMap, HashSet};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::filter;
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, TimestampNanosecondType, UInt64Type};
use parquet::arrow::arrow_reader::RowSelection;
use wiretag_capture::Kind;

use super::super::Table;
use super::super::error::TableError;
use super::flat::{Asks, spread};
use super::footers::{FEW, OpenFile};
use super::outline::Group;
use super::parts::label;
use super::prune::may_hold;
use crate::query::ast::{self, Compare, Node, Test, TextTest};

/// A row group of which columns are read as they are needed.
pub(super) struct Columns<'a> {
    file: &'a OpenFile,
    group: usize,
    fields: &'a HashMap<String, Field>,
    read: HashMap<String, ArrayRef>,
    /// Values of labels, by column and key.
    labels: HashMap<(&'static str, Option<String>), ArrayRef>,
    /// Of which pages were asked, and no array was made.
    asked: HashSet<String>,
    rows: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn new(file: &'a OpenFile, group: usize, fields: &'a HashMap<String, Field>) -> Self {
        let rows = file.groups().get(group).map_or(0, Group::rows);
        Self { file, group, fields, read: HashMap::new(), labels: HashMap::new(), asked: HashSet::new(), rows }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// A column that was read already.
    pub(super) fn known(&self, name: &str) -> Option<&ArrayRef> {
        self.read.get(name)
    }

    pub(super) fn column(&mut self, name: &str) -> Result<ArrayRef, TableError> {
        if let Some(known) = self.read.get(name) {
            return Ok(known.clone());
        }
        let array = self.file.column(self.group, self.field(name)?, None)?;
        self.read.insert(name.to_owned(), array.clone());
        Ok(array)
    }

    fn field(&self, name: &str) -> Result<&'a Field, TableError> {
        let unknown = TableError::Range("a condition names a column that the table does not have");
        self.fields.get(name).ok_or(unknown)
    }

    /// The rows for which `node` is true.
    pub(super) fn passing<R: Table>(&mut self, node: &Node<R>) -> Result<BooleanBuffer, TableError> {
        Ok(match node {
            Node::All => BooleanBuffer::new_set(self.rows),
            Node::Not(inner) => !&self.passing(inner)?,
            Node::And(nodes) => {
                let mut all = BooleanBuffer::new_set(self.rows);
                for node in nodes {
                    all = self.still_passing(all, node)?;
                }
                all
            }
            Node::Or(nodes) => {
                let mut any = BooleanBuffer::new_unset(self.rows);
                for node in nodes {
                    any = &any | &self.passing(node)?;
                }
                any
            }
            Node::Test(field, test) => self.tested(field, test)?,
        })
    }

    /// Of the rows that passed so far those for which `node` is true, too: of few rows only their values are looked at.
    pub(super) fn still_passing<R: Table>(
        &mut self,
        so_far: BooleanBuffer,
        node: &Node<R>,
    ) -> Result<BooleanBuffer, TableError> {
        if so_far.count_set_bits() == 0 {
            return Ok(so_far);
        }
        if let Node::Test(field, test) = node
            && may_hold(self.file, self.group, field, test, true)
            && let Some(passing) = self.few_passing(&so_far, field, test)?
        {
            return Ok(spread(&passing, &so_far));
        }
        Ok(&so_far & &self.passing(node)?)
    }

    /// Of the rows that passed so far those for which a test is true, if these are few and what is tested was not read yet.
    fn few_passing<R: Table>(
        &mut self,
        so_far: &BooleanBuffer,
        field: &ast::Field<R>,
        test: &Test,
    ) -> Result<Option<BooleanBuffer>, TableError> {
        let name = field.column.name();
        if field.column.kind() != Kind::Map {
            return Ok(self.few(so_far, name)?.map(|values| answer(&values, test)));
        }
        if self.labels.contains_key(&(name, field.key.clone())) || !self.are_few(so_far) {
            return Ok(None);
        }
        self.labelled(field, test, Some(so_far)).map(Some)
    }

    /// The rows, of all or some, of which a label passes a test.
    fn labelled<R: Table>(
        &mut self,
        field: &ast::Field<R>,
        test: &Test,
        rows: Option<&BooleanBuffer>,
    ) -> Result<BooleanBuffer, TableError> {
        let place = (field.column.name(), field.key.clone());
        if let Some(known) = self.labels.get(&place).filter(|_| rows.is_none()) {
            return Ok(answer(known, test));
        }
        let values = match self.file.parts(self.group, self.field(place.0)?, rows)? {
            Some(parts) => label(parts, field.key.as_deref())?,
            None => new_null_array(&DataType::Utf8, rows.map_or(self.rows, BooleanBuffer::count_set_bits)),
        };
        let passing = answer(&values, test);
        if rows.is_none() {
            self.labels.insert(place, values);
        }
        Ok(passing)
    }

    fn are_few(&self, so_far: &BooleanBuffer) -> bool {
        (1..=self.rows / FEW).contains(&so_far.count_set_bits())
    }

    /// The values of the rows that passed so far, if these are few and the column was not read yet.
    fn few(&self, so_far: &BooleanBuffer, name: &str) -> Result<Option<ArrayRef>, TableError> {
        let unread = self.fields.get(name).filter(|_| self.known(name).is_none());
        let Some(field) = unread.filter(|_| self.are_few(so_far)) else { return Ok(None) };
        let selection = RowSelection::from_filters(&[BooleanArray::new(so_far.clone(), None)]);
        Ok(Some(self.file.column(self.group, field, Some(&selection))?))
    }

    /// The values of these rows.
    pub(super) fn of_rows(&mut self, rows: &BooleanBuffer, name: &str) -> Result<ArrayRef, TableError> {
        match self.few(rows, name)? {
            Some(values) => Ok(values),
            None => Ok(filter(&self.column(name)?, &BooleanArray::new(rows.clone(), None))?),
        }
    }

    /// Of the rows that passed so far those whose value passes, too; without an answer none does.
    pub(super) fn narrowed(
        &mut self,
        so_far: BooleanBuffer,
        name: &str,
        passes: impl Fn(&ArrayRef) -> Option<BooleanBuffer>,
    ) -> Result<BooleanBuffer, TableError> {
        if so_far.count_set_bits() == 0 {
            return Ok(so_far);
        }
        if let Some(values) = self.few(&so_far, name)? {
            let passing = passes(&values).unwrap_or_else(|| BooleanBuffer::new_unset(values.len()));
            return Ok(spread(&passing, &so_far));
        }
        let passing = passes(&self.column(name)?).unwrap_or_else(|| BooleanBuffer::new_unset(self.rows));
        Ok(&so_far & &passing)
    }

    fn tested<R: Table>(&mut self, field: &ast::Field<R>, test: &Test) -> Result<BooleanBuffer, TableError> {
        // One side of an address, say, of which the other may pass.
        if !may_hold(self.file, self.group, field, test, true) {
            return Ok(BooleanBuffer::new_unset(self.rows));
        }
        let name = field.column.name();
        if field.column.kind() == Kind::Map {
            return self.labelled(field, test, None);
        }
        // Who asks a column again is better off with its values.
        if self.known(name).is_none()
            && self.asked.insert(name.to_owned())
            && let Some(passing) = self.file.passing(self.group, name, &Asked::of(test))?
        {
            return Ok(passing);
        }
        let array = self.column(name)?;
        Ok(answer(&array, test))
    }
}

/// Which values pass.
fn answer(array: &ArrayRef, test: &Test) -> BooleanBuffer {
    let none = || BooleanBuffer::new_unset(array.len());
    match test {
        Test::Exists => match array.logical_nulls() {
            Some(nulls) => nulls.inner().clone(),
            None => BooleanBuffer::new_set(array.len()),
        },
        Test::Bool(wanted) => match array.as_boolean_opt() {
            Some(flags) => rows(flags, |row| flags.value(row) == *wanted),
            None => none(),
        },
        Test::Number(compare, wanted) => match array.as_primitive_opt::<UInt64Type>() {
            Some(numbers) => compared(numbers.values(), numbers.nulls(), *compare, *wanted),
            None => none(),
        },
        Test::Time(compare, wanted) => match array.as_primitive_opt::<TimestampNanosecondType>() {
            Some(times) => compared(times.values(), times.nulls(), *compare, *wanted),
            None => none(),
        },
        Test::Text(test) => texts(array, &Tester::new(test), true),
        Test::NotText(test) => texts(array, &Tester::new(test), false),
    }
}

/// Rows that are not null and pass.
fn rows(array: &dyn Array, passes: impl Fn(usize) -> bool) -> BooleanBuffer {
    match array.nulls() {
        None => BooleanBuffer::collect_bool(array.len(), passes),
        Some(nulls) => BooleanBuffer::collect_bool(array.len(), |row| nulls.is_valid(row) && passes(row)),
    }
}

/// Values that are not null and pass. 64 at a time without a branch: it is where most of a condition's time would go.
pub(super) fn values<T: Copy>(
    values: &[T],
    nulls: Option<&NullBuffer>,
    passes: impl Fn(T) -> bool + Copy,
) -> BooleanBuffer {
    let word = |values: &[T]| {
        let bits = values.iter().zip(0_u32..).map(|(value, at)| u64::from(passes(*value)) << at);
        bits.fold(0, std::ops::BitOr::bitor)
    };
    let words: Vec<u64> = values.chunks(64).map(word).collect();
    let passing = BooleanBuffer::new(words.into(), 0, values.len());
    nulls.map_or_else(|| passing.clone(), |nulls| &passing & nulls.inner())
}

fn compared<T: Copy + Ord>(numbers: &[T], nulls: Option<&NullBuffer>, compare: Compare, wanted: T) -> BooleanBuffer {
    // A loop for each: none asks for each number how it is compared.
    match compare {
        Compare::Equal => values(numbers, nulls, |number| number == wanted),
        Compare::NotEqual => values(numbers, nulls, |number| number != wanted),
        Compare::Less => values(numbers, nulls, |number| number < wanted),
        Compare::LessEqual => values(numbers, nulls, |number| number <= wanted),
        Compare::Greater => values(numbers, nulls, |number| number > wanted),
        Compare::GreaterEqual => values(numbers, nulls, |number| number >= wanted),
    }
}

/// A test that pages can be asked.
enum Asked<'a> {
    Any,
    Flag(bool),
    /// Numbers are signed in files; those that are not are compared with the other half first.
    Number {
        compare: Compare,
        wanted: i64,
        flip: i64,
    },
    Text(Tester<'a>, bool),
}

impl<'a> Asked<'a> {
    fn of(test: &'a Test) -> Self {
        match test {
            Test::Exists => Self::Any,
            Test::Bool(wanted) => Self::Flag(*wanted),
            Test::Number(compare, wanted) => {
                Self::Number { compare: *compare, wanted: wanted.cast_signed() ^ i64::MIN, flip: i64::MIN }
            }
            Test::Time(compare, wanted) => Self::Number { compare: *compare, wanted: *wanted, flip: 0 },
            Test::Text(test) => Self::Text(Tester::new(test), true),
            Test::NotText(test) => Self::Text(Tester::new(test), false),
        }
    }
}

impl Asks for Asked<'_> {
    fn flag(&self, flag: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Flag(wanted) => flag == *wanted,
            Self::Number { .. } | Self::Text(..) => false,
        }
    }

    #[inline]
    fn number(&self, number: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Number { compare, wanted, flip } => compare.holds(&(number ^ flip), wanted),
            Self::Flag(_) | Self::Text(..) => false,
        }
    }

    fn text(&self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Flag(_) | Self::Number { .. } => false,
            Self::Text(tester, wanted) => tester.passes(text) == *wanted,
        }
    }
}

/// A test of a text, ready for many.
enum Tester<'a> {
    Exact(String),
    Other(&'a TextTest),
}

impl<'a> Tester<'a> {
    fn new(test: &'a TextTest) -> Self {
        let exact = match test {
            TextTest::Pattern(pattern) => pattern.exact(),
            TextTest::Regex(_) | TextTest::Network(_) => None,
        };
        exact.map_or(Self::Other(test), Self::Exact)
    }

    fn passes(&self, text: &str) -> bool {
        match self {
            Self::Exact(wanted) => wanted == text,
            Self::Other(test) => test.matches(text),
        }
    }
}

/// Rows with a text of which the test says `wanted`.
fn texts(array: &ArrayRef, test: &Tester<'_>, wanted: bool) -> BooleanBuffer {
    if let Some(dictionary) = array.as_dictionary_opt::<Int32Type>()
        && let Some(words) = dictionary.values().as_string_opt::<i32>()
    {
        let good: Vec<bool> = words.iter().map(|text| text.is_some_and(|text| test.passes(text) == wanted)).collect();
        let (keys, mut those) = (dictionary.keys(), (0_i32..).zip(&good).filter(|(_, good)| **good));
        return match (those.next(), those.next()) {
            (None, _) => BooleanBuffer::new_unset(array.len()),
            (Some((only, _)), None) => values(keys.values(), keys.nulls(), |key| key == only),
            (Some(_), Some(_)) => {
                values(keys.values(), keys.nulls(), |key| good.get(key as usize).copied().unwrap_or_default())
            }
        };
    }
    match array.as_string_opt::<i32>() {
        Some(texts) => rows(texts, |row| test.passes(texts.value(row)) == wanted),
        None => BooleanBuffer::new_unset(array.len()),
    }
}

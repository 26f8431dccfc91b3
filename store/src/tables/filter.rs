//! Conditions as expressions of the query engine.
//!
//! Null passes no test and its negation does; the engine's logic has a third value. So negations are pushed down to the
//! tests, and only a negated test says `is not true`: the others stay in the form that file statistics and bloom filters
//! understand. Tests that the engine has no operator for (patterns, regular expressions, networks, labels) run the same
//! code as the evaluator in memory, in a function of the engine.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, ident, lit,
};
use wiretag_enrich::Record;

use super::schema::UTC;
use crate::query::ast::{Compare, Field, Node, Test, TextTest};

/// A literal of a time column.
pub(super) fn time(nanos: i64) -> Expr {
    lit(ScalarValue::TimestampNanosecond(Some(nanos), Some(UTC.into())))
}

/// `node` as a filter: rows for which it is true.
pub(super) fn filter<R: Record>(node: &Node<R>) -> Expr {
    expression(node, true)
}

fn expression<R: Record>(node: &Node<R>, wanted: bool) -> Expr {
    match node {
        Node::All => lit(wanted),
        Node::Not(inner) => expression(inner, !wanted),
        Node::And(nodes) | Node::Or(nodes) => {
            let parts = nodes.iter().map(|node| expression(node, wanted)).collect();
            if matches!(node, Node::And(_)) == wanted { balanced(parts, Expr::and) } else { balanced(parts, Expr::or) }
        }
        Node::Test(field, test) => {
            let passes = tested(field, test);
            if wanted { passes } else { passes.is_not_true() }
        }
    }
}

/// A tree of least depth: the engine walks expressions recursively.
fn balanced(mut parts: Vec<Expr>, join: fn(Expr, Expr) -> Expr) -> Expr {
    while parts.len() > 1 {
        let mut joined = Vec::with_capacity(parts.len().div_ceil(2));
        let mut rest = parts.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => join(left, right),
                None => left,
            });
        }
        parts = joined;
    }
    parts.pop().unwrap_or_else(|| lit(true))
}

fn tested<R: Record>(field: &Field<R>, test: &Test) -> Expr {
    let value = ident(field.column.name());
    if field.key.is_none() {
        match test {
            Test::Exists => return value.is_not_null(),
            Test::Bool(wanted) => return value.eq(lit(*wanted)),
            Test::Number(compare, wanted) => return compared(*compare, value, lit(*wanted)),
            Test::Time(compare, wanted) => return compared(*compare, value, time(*wanted)),
            Test::Text(TextTest::Pattern(pattern)) | Test::NotText(TextTest::Pattern(pattern)) => {
                if let Some(exact) = pattern.exact() {
                    let equal = matches!(test, Test::Text(_));
                    return if equal { value.eq(lit(exact)) } else { value.not_eq(lit(exact)) };
                }
            }
            Test::Text(_) | Test::NotText(_) => {}
        }
    }
    ScalarUDF::new_from_impl(RowTest::new(field.key.clone(), test.clone())).call(vec![value])
}

fn compared(compare: Compare, left: Expr, right: Expr) -> Expr {
    match compare {
        Compare::Equal => left.eq(right),
        Compare::NotEqual => left.not_eq(right),
        Compare::Less => left.lt(right),
        Compare::LessEqual => left.lt_eq(right),
        Compare::Greater => left.gt(right),
        Compare::GreaterEqual => left.gt_eq(right),
    }
}

/// A test of a text or of a label, never null.
#[derive(Debug)]
struct RowTest {
    signature: Signature,
    key: Option<String>,
    test: Test,
    /// Stands for key and test in comparisons.
    id: String,
}

impl RowTest {
    fn new(key: Option<String>, test: Test) -> Self {
        let id = format!("{key:?} {test:?}");
        Self { signature: Signature::any(1, Volatility::Immutable), key, test, id }
    }

    fn passes(&self, text: &str) -> bool {
        match &self.test {
            Test::Exists => true,
            Test::Text(test) => test.matches(text),
            Test::NotText(test) => !test.matches(text),
            Test::Bool(_) | Test::Number(..) | Test::Time(..) => false,
        }
    }

    fn label(&self, array: &ArrayRef, key: &str) -> Result<BooleanArray> {
        let Some(maps) = array.as_map_opt() else { return Ok(vec![false; array.len()].into()) };
        let keys = text(maps.keys())?;
        let values = text(maps.values())?;
        let passes = |row: usize| {
            let (Some(first), Some(last)) = (maps.value_offsets().get(row), maps.value_offsets().get(row + 1)) else {
                return false;
            };
            let mut entries = (*first as usize)..(*last as usize);
            maps.is_valid(row)
                && entries.any(|at| keys.value(at) == key && values.is_valid(at) && self.passes(values.value(at)))
        };
        Ok((0..maps.len()).map(|row| Some(passes(row))).collect())
    }
}

fn text(array: &ArrayRef) -> Result<StringArray> {
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

impl PartialEq for RowTest {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for RowTest {}

impl Hash for RowTest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl ScalarUDFImpl for RowTest {
    fn name(&self) -> &'static str {
        "wiretag_test"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let args: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
        Ok(format!("wiretag_test({}, {})", args.join(", "), self.id))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let Some(array) = arrays.first() else {
            return Ok(ColumnarValue::Scalar(ScalarValue::Boolean(Some(false))));
        };
        let passed: BooleanArray = match &self.key {
            Some(key) => self.label(array, key)?,
            None => text(array)?.iter().map(|text| Some(text.is_some_and(|text| self.passes(text)))).collect(),
        };
        Ok(ColumnarValue::Array(Arc::new(passed)))
    }
}

//! Functions whose values grow with what they are given: before one is called it is clear how much it can make of it, and if that is more than its
//! share of the question's memory, it is called for some rows at a time, and what it made counts.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::concat;
use datafusion::arrow::compute::kernels::concat_elements::concat_elements_utf8;
use datafusion::arrow::datatypes::{DataType, FieldRef, Int32Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Memory of a value besides its bytes, about.
const VALUE: usize = 16;
/// Characters of a number or a time at most.
const PRINTED: usize = 40;

/// How much a function can make of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Growth {
    /// So many times all that it is given.
    Sum(usize),
    /// All, and the first between each two.
    Joined,
    /// The elements of the first, and the others between each two.
    Listed,
    /// The third between each two characters of the first, or all of the first in its place.
    Replaced,
}

/// What one call may make, and one value of it, bytes; set when it is known how many calls a question has.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<[AtomicUsize; 2]>);

impl Share {
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new([bytes, bytes].map(AtomicUsize::new)))
    }

    pub(super) fn set(&self, (bytes, value): (usize, usize)) {
        let [all, one] = &*self.0;
        all.store(bytes, Ordering::Relaxed);
        one.store(value, Ordering::Relaxed);
    }

    fn bytes(&self) -> usize {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Refuses values that are too long.
    fn check(&self, made: ColumnarValue) -> Result<ColumnarValue> {
        let most = self.0[1].load(Ordering::Relaxed);
        if most >= self.bytes() {
            return Ok(made);
        }
        let given = Given::new(&made)?;
        let rows = if let ColumnarValue::Array(array) = &made { array.len() } else { 1 };
        if (0..rows).any(|row| given.size(row).bytes > most) { Err(exhausted()) } else { Ok(made) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bounded {
    inner: Arc<ScalarUDF>,
    growth: Growth,
    share: Share,
}

impl Bounded {
    pub(super) fn function(inner: Arc<ScalarUDF>, growth: Growth, share: &Share) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::from(Self { inner, growth, share: share.clone() }))
    }
}

impl PartialEq for Bounded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Bounded {}

impl Hash for Bounded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let most = self.share.bytes();
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { args.number_rows };
        let given = args.args.iter().map(Given::new).collect::<Result<Vec<_>>>()?;
        let bounds: Vec<usize> = (0..rows).map(|row| self.growth.most(&given, row)).collect();
        if bounds.iter().fold(0_usize, |sum, bound| sum.saturating_add(*bound)) <= most {
            return self.share.check(self.inner.invoke_with_args(args)?);
        }
        if constant {
            return Err(exhausted());
        }
        self.share.check(self.in_parts(&args, &bounds, most)?)
    }
}

impl Bounded {
    fn in_parts(&self, args: &ScalarFunctionArgs, bounds: &[usize], most: usize) -> Result<ColumnarValue> {
        let (mut made, mut taken, mut first) = (Vec::<ArrayRef>::new(), 0, 0);
        while first < bounds.len() {
            let mut left = most;
            let fits = |bound: &&usize| {
                let room = left.checked_sub(**bound);
                left = room.unwrap_or_default();
                room.is_some()
            };
            let rows = bounds.iter().skip(first).take_while(fits).count();
            if rows == 0 {
                return Err(exhausted());
            }
            let part = |arg: &ColumnarValue| match arg {
                ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(first, rows)),
                ColumnarValue::Scalar(value) => ColumnarValue::Scalar(value.clone()),
            };
            let call = ScalarFunctionArgs {
                args: args.args.iter().map(part).collect(),
                arg_fields: args.arg_fields.clone(),
                number_rows: rows,
                return_field: args.return_field.clone(),
                config_options: args.config_options.clone(),
            };
            let array = self.inner.invoke_with_args(call)?.into_array(rows)?;
            taken += (0..rows).map(|row| Size::of(&array, row).bytes).sum::<usize>();
            if taken > most {
                return Err(exhausted());
            }
            made.push(array);
            first += rows;
        }
        let parts: Vec<&dyn Array> = made.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

fn exhausted() -> DataFusionError {
    DataFusionError::ResourcesExhausted("a function would make too much".into())
}

impl Growth {
    fn most(self, given: &[Given], row: usize) -> usize {
        let size = |place: usize| given.get(place).map_or(Size::default(), |given| given.size(row));
        let all = || given.iter().fold(0_usize, |sum, given| sum.saturating_add(given.size(row).bytes));
        let bytes = match self {
            Self::Sum(times) => all().saturating_mul(times),
            Self::Joined => all().saturating_add(size(0).bytes.saturating_mul(given.len())),
            Self::Listed => {
                let between = size(1).bytes.saturating_add(size(2).bytes);
                let each = between.saturating_add(PRINTED).saturating_mul(size(0).items);
                all().saturating_add(each)
            }
            Self::Replaced => all().saturating_add(size(0).bytes.saturating_mul(2).saturating_mul(size(2).bytes)),
        };
        bytes.saturating_add(VALUE)
    }
}

/// An argument.
enum Given {
    Same(Size),
    Rows(ArrayRef),
}

impl Given {
    fn new(arg: &ColumnarValue) -> Result<Self> {
        Ok(match arg {
            ColumnarValue::Array(array) => Self::Rows(array.clone()),
            ColumnarValue::Scalar(value) => Self::Same(Size::of(&value.to_array_of_size(1)?, 0)),
        })
    }

    fn size(&self, row: usize) -> Size {
        match self {
            Self::Same(size) => *size,
            Self::Rows(array) => Size::of(array, row),
        }
    }
}

/// Of a value: bytes, a little more for each part, and elements of a list.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: usize,
    items: usize,
}

impl Size {
    fn of(array: &ArrayRef, row: usize) -> Self {
        if array.is_null(row) {
            return Self { bytes: VALUE, items: 0 };
        }
        let one = |bytes: usize| Self { bytes: bytes + VALUE, items: 0 };
        match array.data_type() {
            DataType::Utf8 => one(array.as_string::<i32>().value(row).len()),
            DataType::LargeUtf8 => one(array.as_string::<i64>().value(row).len()),
            DataType::Utf8View => one(array.as_string_view().value(row).len()),
            DataType::Binary => one(array.as_binary::<i32>().value(row).len()),
            DataType::LargeBinary => one(array.as_binary::<i64>().value(row).len()),
            DataType::BinaryView => one(array.as_binary_view().value(row).len()),
            DataType::List(_) => Self::elements(&array.as_list::<i32>().value(row)),
            DataType::LargeList(_) => Self::elements(&array.as_list::<i64>().value(row)),
            DataType::Dictionary(..) => match array.as_dictionary_opt::<Int32Type>() {
                Some(words) => words.key(row).map_or(one(0), |key| Self::of(words.values(), key)),
                None => one(array.get_array_memory_size()),
            },
            DataType::Map(..) => Self::parts(array.as_map().value(row).columns()),
            kind if kind.is_primitive() || *kind == DataType::Boolean || *kind == DataType::Null => one(0),
            _ => one(array.get_array_memory_size()),
        }
    }

    fn elements(list: &ArrayRef) -> Self {
        let bytes = (0..list.len()).map(|place| Self::of(list, place).bytes).sum::<usize>();
        Self { bytes: bytes + VALUE, items: list.len() }
    }

    fn parts(columns: &[ArrayRef]) -> Self {
        let parts = columns.iter().map(Self::elements);
        parts.fold(Self::default(), |sum, part| Self { bytes: sum.bytes + part.bytes, items: part.items })
    }
}

/// `||` of texts: null if one of them is.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Concatenation {
    signature: Signature,
}

impl Concatenation {
    pub(super) fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Concatenation {
    fn name(&self) -> &'static str {
        "||"
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect::<Vec<_>>().join(" || "))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(vec![DataType::Utf8; types.len()])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [left, right] = arrays.as_slice() else {
            return Err(DataFusionError::Plan("`||` has two sides".into()));
        };
        let (Some(left), Some(right)) = (left.as_string_opt::<i32>(), right.as_string_opt::<i32>()) else {
            return Err(DataFusionError::Plan("`||` joins texts".into()));
        };
        let joined = concat_elements_utf8(left, right)?;
        Ok(if constant {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?)
        } else {
            ColumnarValue::Array(Arc::new(joined))
        })
    }
}

//! Starts of rows no more exactly than they are asked for: who adds up by time wants to know in which stretch of time a row starts, who adds
//! up all rows does not want to know at all.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, TimestampNanosecondArray};
use datafusion::arrow::datatypes::Field;

/// How exactly the starts of rows have to be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Starts {
    Exact,
    /// In which stretch of `width` ns, of which one begins at `origin`.
    Within {
        width: i64,
        origin: i64,
    },
    Any,
}

impl Starts {
    /// Starts that stand for those of rows between these bounds; `None`: they have to be read.
    pub(super) fn of_rows(self, rows: usize, bounds: Option<(i64, i64)>, field: &Field) -> Option<ArrayRef> {
        let (least, greatest) = bounds?;
        let stands_for_all = match self {
            Self::Exact => false,
            Self::Within { width, origin } => {
                let stretch = |at: i64| (i128::from(at) - i128::from(origin)).div_euclid(i128::from(width.max(1)));
                stretch(least) == stretch(greatest)
            }
            Self::Any => true,
        };
        let starts = || TimestampNanosecondArray::from(vec![least; rows]).with_data_type(field.data_type().clone());
        stands_for_all.then(|| Arc::new(starts()) as ArrayRef)
    }
}

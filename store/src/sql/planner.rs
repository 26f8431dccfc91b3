//! Operators and literals become functions that have a limit ([`super::bounded`]), or are refused.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::DFSchema;
use datafusion::common::utils::list_ndims;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannerResult, RawBinaryExpr, RawDictionaryExpr, RawFieldAccessExpr, TypePlanner,
};
use datafusion::logical_expr::{Expr, ExprSchemable, GetFieldAccess, ScalarUDF, cast};
use datafusion::sql::sqlparser::ast::{ArrayElemTypeDef, BinaryOperator, DataType as SqlType};

use super::bounded::Share;
use super::functions::Functions;

/// See the module.
#[derive(Debug)]
pub(super) struct Operators {
    texts: Arc<ScalarUDF>,
    lists: Option<Arc<ScalarUDF>>,
    append: Option<Arc<ScalarUDF>>,
    prepend: Option<Arc<ScalarUDF>>,
    list: Option<Arc<ScalarUDF>>,
    slice: Option<Arc<ScalarUDF>>,
}

impl Operators {
    pub(super) fn new(functions: &Functions, share: &Share) -> Self {
        Self {
            texts: Functions::concatenation(share),
            lists: functions.scalar("array_concat"),
            append: functions.scalar("array_append"),
            prepend: functions.scalar("array_prepend"),
            list: functions.scalar("make_array"),
            slice: functions.scalar("array_slice"),
        }
    }
}

/// Amounts have no sign, the difference of two has one: as it is, what is less than nothing would be near 2⁶⁴.
fn difference(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    let is_amount = |side: &Expr| side.get_type(schema).map(|kind| kind.is_unsigned_integer());
    if !is_amount(&expr.left)? || !is_amount(&expr.right)? {
        return Ok(PlannerResult::Original(expr));
    }
    let signed = |side: Expr| cast(side, DataType::Int64);
    Ok(PlannerResult::Planned(signed(expr.left) - signed(expr.right)))
}

fn call(function: Option<&Arc<ScalarUDF>>, args: Vec<Expr>) -> Result<Expr> {
    function.map(|function| function.call(args)).ok_or_else(|| refused("an operator"))
}

fn refused(what: &str) -> DataFusionError {
    DataFusionError::Plan(format!("{what} is not there"))
}

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if expr.op == BinaryOperator::Minus {
            return difference(expr, schema);
        }
        if expr.op != BinaryOperator::StringConcat {
            return Ok(PlannerResult::Original(expr));
        }
        let RawBinaryExpr { left, right, .. } = expr;
        // As the engine does, which takes the functions without a limit.
        let depth = |side: &Expr| side.get_type(schema).map(|kind| list_ndims(&kind));
        let (before, behind) = (depth(&left)?, depth(&right)?);
        let function = match before.cmp(&behind) {
            _ if before + behind == 0 => Some(&self.texts),
            std::cmp::Ordering::Equal => self.lists.as_ref(),
            std::cmp::Ordering::Greater => self.append.as_ref(),
            std::cmp::Ordering::Less => self.prepend.as_ref(),
        };
        Ok(PlannerResult::Planned(call(function, vec![left, right])?))
    }

    fn plan_field_access(&self, access: RawFieldAccessExpr, _: &DFSchema) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let RawFieldAccessExpr { field_access, expr } = access;
        match field_access {
            GetFieldAccess::ListRange { start, stop, stride } => {
                Ok(PlannerResult::Planned(call(self.slice.as_ref(), vec![expr, *start, *stop, *stride])?))
            }
            one @ (GetFieldAccess::NamedStructField { .. } | GetFieldAccess::ListIndex { .. }) => {
                Ok(PlannerResult::Original(RawFieldAccessExpr { field_access: one, expr }))
            }
        }
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, _: &DFSchema) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(call(self.list.as_ref(), exprs)?))
    }

    fn plan_dictionary_literal(&self, _: RawDictionaryExpr, _: &DFSchema) -> Result<PlannerResult<RawDictionaryExpr>> {
        Err(refused("a map in braces"))
    }

    fn plan_struct_literal(&self, _: Vec<Expr>, _: bool) -> Result<PlannerResult<Vec<Expr>>> {
        Err(refused("a row as a value"))
    }

    fn plan_overlay(&self, _: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Err(refused("`overlay`"))
    }

    fn plan_make_map(&self, _: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Err(refused("`map`"))
    }
}

/// A null of `bigint[2000000000]` would have all these elements.
#[derive(Debug)]
pub(super) struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, kind: &SqlType) -> Result<Option<FieldRef>> {
        match kind {
            SqlType::Array(ArrayElemTypeDef::SquareBracket(_, Some(_))) => Err(refused("a list of a fixed length")),
            _ => Ok(None),
        }
    }
}

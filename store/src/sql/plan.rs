//! What a planned question may not contain, because it makes much of little and asks no limit; and what share of its memory
//! each call of a function may take.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan, Operator, WindowFunctionDefinition};

use crate::query::regexes::Regexes;

/// Calls of functions in a question at most.
const MOST_CALLS: usize = 1_000;
/// Of memory, the part that copies of one value in a batch may take: one in so many.
const COPIES: usize = 4;
/// Calls between which memory is shared at least: there are copies besides.
const LEAST_CALLS: usize = 4;

/// What was seen in a plan.
#[derive(Default)]
struct Seen {
    calls: usize,
    /// Bytes of the longest literal.
    longest: usize,
    regexes: Regexes,
    /// Rows have copies of values that others made: joins, and queries as values.
    copies: bool,
}

/// What each call may take of `memory`, and each value that it makes; in batches of `rows`.
pub(super) fn share(plan: &LogicalPlan, memory: usize, rows: usize) -> Result<(usize, usize)> {
    let mut seen = Seen::default();
    plan.apply_with_subqueries(|node| {
        if matches!(node, LogicalPlan::Unnest(_)) {
            return Err(refused("`unnest` is not there: it repeats a row for each element of a list"));
        }
        if matches!(node, LogicalPlan::Join(_)) && node.inputs().into_iter().any(gathers) {
            return Err(refused("a list of `array_agg` cannot be joined: each row would have a copy of it"));
        }
        seen.copies |= matches!(node, LogicalPlan::Join(_));
        node.apply_expressions(|expr| expr.apply(|expr| seen.expression(expr).map(|()| TreeNodeRecursion::Continue)))
    })?;
    if seen.calls > MOST_CALLS {
        return Err(refused(&format!("there are more than {MOST_CALLS} calls of functions")));
    }
    let calls = seen.calls.max(LEAST_CALLS);
    if seen.longest.saturating_mul(rows).saturating_mul(calls) > memory {
        return Err(DataFusionError::ResourcesExhausted("a long text in many calls".into()));
    }
    let share = memory / calls;
    Ok((share, if seen.copies { memory / COPIES / rows } else { share }))
}

/// Whether rows of a plan have lists that it gathered, or what was made of them.
fn gathers(plan: &LogicalPlan) -> bool {
    let is_list = |expr: &Expr| {
        expr.exists(|expr| match expr {
            Expr::AggregateFunction(call) => Ok(call.func.name() == "array_agg"),
            _ => Ok(false),
        })
    };
    plan.exists(|node| match node {
        LogicalPlan::Aggregate(aggregate) => Ok(aggregate.aggr_expr.iter().any(|expr| is_list(expr).unwrap_or(true))),
        _ => Ok(false),
    })
    .unwrap_or(true)
}

impl Seen {
    fn expression(&mut self, expr: &Expr) -> Result<()> {
        match expr {
            Expr::ScalarSubquery(inner) => {
                self.copies = true;
                if gathers(&inner.subquery) {
                    return Err(refused("a list of `array_agg` cannot be a value: each row would have a copy of it"));
                }
            }
            Expr::ScalarFunction(call) => {
                self.calls += 1;
                if call.name().starts_with("regexp_") {
                    self.regex(call.args.get(1))?;
                }
            }
            Expr::Case(_) | Expr::Cast(_) | Expr::TryCast(_) => self.calls += 1,
            Expr::SimilarTo(like) => self.regex(Some(&like.pattern))?,
            Expr::BinaryExpr(binary) => match binary.op {
                Operator::RegexMatch | Operator::RegexIMatch | Operator::RegexNotMatch | Operator::RegexNotIMatch => {
                    self.regex(Some(&binary.right))?;
                }
                _ => {}
            },
            Expr::WindowFunction(window) => {
                if let WindowFunctionDefinition::AggregateUDF(function) = &window.fun
                    && function.name() == "array_agg"
                {
                    return Err(refused(
                        "`array_agg` is not there with `over`: each row would have a list of the others",
                    ));
                }
            }
            Expr::Literal(value, _) => {
                self.longest = self.longest.max(text(value).map_or(0, str::len));
            }
            _ => {}
        }
        Ok(())
    }

    /// Each is compiled again by the engine, which has no limit for all of them.
    fn regex(&mut self, pattern: Option<&Expr>) -> Result<()> {
        let pattern = match pattern {
            Some(Expr::Literal(value, _)) => text(value),
            Some(Expr::Cast(cast)) => match &*cast.expr {
                Expr::Literal(value, _) => text(value),
                _ => None,
            },
            _ => None,
        };
        let Some(pattern) = pattern else {
            return Err(refused("a regular expression must be written in the query, and cannot come from a column"));
        };
        self.regexes.read(pattern).map_err(|sentence| refused(&sentence))
    }
}

fn text(value: &ScalarValue) -> Option<&str> {
    value.try_as_str().flatten()
}

fn refused(sentence: &str) -> DataFusionError {
    DataFusionError::Plan(sentence.to_owned())
}

//! How large conditions become when they are planned: the engine takes a condition down to the tables, and writes in the place of each column what the
//! column is made of. `a + a as a`, twenty times one within the other, is a million columns there.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Columns and operators of all conditions and orders at most, when they are written out.
const MOST: usize = 10_000;
/// Values of a list that count as one.
const VALUES: usize = 16;

/// Refuses conditions that become too large.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    columns(plan, &mut 0).map(|_| ())
}

/// Of each column of a plan, how much it is made of; `all` is that of the conditions so far.
fn columns(plan: &LogicalPlan, all: &mut usize) -> Result<Vec<usize>> {
    let mut below = Vec::new();
    for input in plan.inputs() {
        below.push(columns(input, all)?);
    }
    let mut sizes = Vec::new();
    plan.apply_expressions(|expr| {
        sizes.push(size(expr, plan, &below, all)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    let mut made = match plan {
        LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_) => sizes,
        LogicalPlan::Values(_) => Vec::new(),
        LogicalPlan::Union(_) => {
            let one = |place| below.iter().filter_map(|input| input.get(place)).copied().max().unwrap_or(1);
            (0..plan.schema().fields().len()).map(one).collect()
        }
        _ => {
            *all = sizes.into_iter().fold(*all, usize::saturating_add);
            below.concat()
        }
    };
    if *all > MOST {
        return Err(DataFusionError::Plan(format!(
            "conditions have more than {MOST} columns and operators, when each column is what it is made of"
        )));
    }
    made.resize(plan.schema().fields().len(), 1);
    Ok(made)
}

fn size(expr: &Expr, plan: &LogicalPlan, below: &[Vec<usize>], all: &mut usize) -> Result<usize> {
    let mut size = 0_usize;
    expr.apply(|expr| {
        size = size.saturating_add(match expr {
            Expr::Column(column) => {
                let inputs = plan.inputs().into_iter().zip(below);
                let made =
                    inputs.filter_map(|(input, made)| made.get(input.schema().maybe_index_of_column(column)?)).max();
                made.copied().unwrap_or(1)
            }
            Expr::ScalarSubquery(inner) => columns(&inner.subquery, all)?.into_iter().max().unwrap_or(1),
            Expr::InSubquery(inner) => columns(&inner.subquery.subquery, all)?.into_iter().max().unwrap_or(1),
            Expr::Exists(inner) => columns(&inner.subquery.subquery, all)?.into_iter().max().unwrap_or(1),
            Expr::Literal(..) => 0,
            Expr::InList(list) => 1 + list.list.len() / VALUES,
            _ => 1,
        });
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(size)
}

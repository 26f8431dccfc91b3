//! How broad a statement may be, before it is planned: what is written once and planned again and again counts as often.
//!
//! The engine takes a batch to all grouping sets before it asks for memory, plans a part of `with` wherever it is named, and holds each key of a sort
//! or a window against the others. Planning waits for nothing, so that it goes on behind the limit of time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Cte, Distinct, Expr, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, NamedWindowExpr,
    OrderByKind, PipeOperator, Query, Select, TableFactor, Visit, Visitor, WindowSpec, WindowType,
};

/// Expressions of one `select` at most; a table has some 130 columns.
const MOST_COLUMNS: usize = 500;
/// Keys of one `group by`, `order by` or `partition by` at most.
const MOST_KEYS: usize = 100;
/// Keys of grouping sets at most: each set has a place for those of all sets.
const MOST_PLACES: usize = 1_000;
/// Tables at most, those of a part of `with` for each time that it is named.
const MOST_TABLES: usize = 64;

/// What is too much in a statement, as a sentence.
pub(super) fn too_broad(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(ast) => ast.visit(&mut Counter::default()).break_value(),
        Statement::Explain(explain) => too_broad(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

/// Of a query, with all that is in it.
#[derive(Debug, Clone, Copy, Default)]
struct Breadth {
    tables: usize,
    places: usize,
}

impl Breadth {
    fn add(&mut self, other: Self) {
        self.tables = self.tables.saturating_add(other.tables);
        self.places = self.places.saturating_add(other.places);
    }

    fn check(self) -> ControlFlow<String> {
        if self.places > MOST_PLACES {
            return ControlFlow::Break(format!(
                "there are more than {MOST_PLACES} keys in all grouping sets; hint: give `cube` and `rollup` fewer, or write the sets: `grouping sets ((a, b), (a))`"
            ));
        }
        if self.tables > MOST_TABLES {
            return ControlFlow::Break(format!(
                "there are more than {MOST_TABLES} tables, those of a part of `with` for each time that it is named"
            ));
        }
        ControlFlow::Continue(())
    }
}

/// A query of which the end was not seen yet.
#[derive(Debug)]
struct Open {
    breadth: Breadth,
    /// Names of its parts of `with` that were not seen yet: they come before all else.
    parts: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Counter {
    open: Vec<Open>,
    /// Of parts of `with`; of those with the same name the broadest, wherever it is known.
    parts: HashMap<String, Breadth>,
}

impl Counter {
    fn add(&mut self, breadth: Breadth) {
        if let Some(open) = self.open.last_mut() {
            open.breadth.add(breadth);
        }
    }
}

impl Visitor for Counter {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let parts = query.with.iter().flat_map(|with| &with.cte_tables);
        let parts = parts.map(|Cte { alias, .. }| alias.name.value.to_lowercase()).collect();
        self.open.push(Open { breadth: Breadth::default(), parts });
        if let Some(OrderByKind::Expressions(keys)) = query.order_by.as_ref().map(|order| &order.kind) {
            at_most(MOST_KEYS, "order by", keys.len())?;
        }
        query.pipe_operators.iter().try_for_each(piped)
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<String> {
        let Some(Open { mut breadth, .. }) = self.open.pop() else { return ControlFlow::Continue(()) };
        breadth.tables = breadth.tables.max(1);
        breadth.check()?;
        match self.open.last_mut().map(|around| (around.parts.pop_front(), around)) {
            Some((Some(part), _)) => {
                let known = self.parts.entry(part).or_default();
                known.tables = known.tables.max(breadth.tables);
                known.places = known.places.max(breadth.places);
            }
            Some((None, around)) => around.breadth.add(breadth),
            None => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<String> {
        let one = Breadth { tables: 1, places: 0 };
        match table {
            TableFactor::Table { name, .. } => {
                let part = self.parts.get(&name.to_string().replace('"', "").to_lowercase());
                self.add(part.copied().unwrap_or(one));
            }
            // What is in them is visited by itself.
            TableFactor::Derived { .. } | TableFactor::NestedJoin { .. } => {}
            _ => self.add(one),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        at_most(MOST_COLUMNS, "select", select.projection.len())?;
        if let Some(Distinct::On(keys)) = &select.distinct {
            at_most(MOST_KEYS, "distinct on", keys.len())?;
        }
        for definition in &select.named_window {
            match &definition.1 {
                NamedWindowExpr::WindowSpec(window) => windowed(window)?,
                NamedWindowExpr::NamedWindow(_) => {}
            }
        }
        match &select.group_by {
            GroupByExpr::Expressions(exprs, _) => {
                at_most(MOST_KEYS, "group by", exprs.len())?;
                self.add(Breadth { tables: 0, places: places(exprs) });
            }
            GroupByExpr::All(_) => {}
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        let Expr::Function(Function { args, over, within_group, .. }) = expr else {
            return ControlFlow::Continue(());
        };
        at_most(MOST_KEYS, "order by", within_group.len())?;
        if let FunctionArguments::List(list) = args {
            for clause in &list.clauses {
                if let FunctionArgumentClause::OrderBy(keys) = clause {
                    at_most(MOST_KEYS, "order by", keys.len())?;
                }
            }
        }
        match over {
            Some(WindowType::WindowSpec(window)) => windowed(window),
            Some(WindowType::NamedWindow(_)) | None => ControlFlow::Continue(()),
        }
    }
}

fn at_most(most: usize, list: &str, elements: usize) -> ControlFlow<String> {
    if elements > most {
        return ControlFlow::Break(format!(
            "there are more than {most} elements in `{list}`; hint: leave out those that follow from the others"
        ));
    }
    ControlFlow::Continue(())
}

fn windowed(window: &WindowSpec) -> ControlFlow<String> {
    at_most(MOST_KEYS, "partition by", window.partition_by.len())?;
    at_most(MOST_KEYS, "order by", window.order_by.len())
}

fn piped(operator: &PipeOperator) -> ControlFlow<String> {
    match operator {
        PipeOperator::Select { exprs } | PipeOperator::Extend { exprs } => at_most(MOST_COLUMNS, "select", exprs.len()),
        PipeOperator::OrderBy { exprs } => at_most(MOST_KEYS, "order by", exprs.len()),
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
            at_most(MOST_COLUMNS, "aggregate", full_table_exprs.len())?;
            at_most(MOST_KEYS, "group by", group_by_expr.len())
        }
        // Of no lists, or of what is visited by itself.
        _ => ControlFlow::Continue(()),
    }
}

/// Keys of the grouping sets of a `group by`; none if it has no sets.
fn places(parts: &[Expr]) -> usize {
    let sets = parts.iter().map(sets).fold(1, usize::saturating_mul);
    let written = parts.iter().flat_map(keys).count();
    if written == parts.len() && sets == 1 {
        return 0;
    }
    let keys: HashSet<&Expr> = parts.iter().flat_map(keys).collect();
    sets.saturating_mul(keys.len()).max(written)
}

/// Keys of a part of `group by`, as they are written.
fn keys(part: &Expr) -> Vec<&Expr> {
    match part {
        Expr::Cube(lists) | Expr::Rollup(lists) | Expr::GroupingSets(lists) => lists.iter().flatten().collect(),
        _ => vec![part],
    }
}

/// Grouping sets of a part of `group by`.
fn sets(part: &Expr) -> usize {
    match part {
        Expr::Cube(lists) => {
            u32::try_from(lists.len()).ok().and_then(|keys| 2_usize.checked_pow(keys)).unwrap_or(usize::MAX)
        }
        Expr::Rollup(lists) => lists.len() + 1,
        Expr::GroupingSets(lists) => lists.len(),
        _ => 1,
    }
}

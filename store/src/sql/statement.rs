//! What a statement may be, before it is planned: one that asks, whose parts do not lie deeper in each other than the stack of
//! [`super::threads`] is for, and of which the engine leaves out nothing without a word.
//!
//! The engine works through a chain (`1 + 1 + 1 …`, `union all` …) as through parentheses, each link within the one before. So links are counted
//! in the text, which takes no stack.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Query, Select, SetExpr, Statement as Ast, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// Operators in a statement at most: a chain of them takes the engine a second.
const MOST_OPERATORS: usize = 800;
/// Operators that one `||` counts for. It is a function here, and what follows from a function in a function is found again for each that is around it.
const CONCATENATION: usize = 6;
/// Tables and parts that are statements of their own at most: each has the columns of those before again.
const MOST_PARTS: usize = 64;

/// What is wrong with the size of a statement, as a sentence. What cannot be read at all the parser refuses.
pub(super) fn too_deep(text: &str) -> Option<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().ok()?;
    let (mut operators, mut parts) = (0, 0);
    // Whether a comma is between tables, in each pair of parentheses.
    let mut tables = vec![false];
    for token in &tokens {
        match token {
            Token::LParen => tables.push(false),
            Token::RParen => {
                tables.pop();
            }
            Token::Comma => parts += usize::from(tables.last() == Some(&true)),
            Token::Word(word) => match word.keyword {
                Keyword::FROM => {
                    parts += 1;
                    tables.pop();
                    tables.push(true);
                }
                Keyword::SELECT | Keyword::WHERE | Keyword::GROUP | Keyword::HAVING | Keyword::ORDER => {
                    parts += usize::from(word.keyword == Keyword::SELECT);
                    tables.pop();
                    tables.push(false);
                }
                Keyword::JOIN
                | Keyword::APPLY
                | Keyword::VALUES
                | Keyword::TABLE
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::MINUS => parts += 1,
                Keyword::NoKeyword => {}
                // Most are operators, and those that are not are few in a statement.
                _ => operators += 1,
            },
            Token::Whitespace(_)
            | Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::SemiColon
            | Token::EOF => {}
            Token::StringConcat => operators += CONCATENATION,
            // Operators, also those behind a value: `::`, `[`, `.`.
            _ => operators += 1,
        }
    }
    if operators > MOST_OPERATORS {
        return Some(format!(
            "there are more than {MOST_OPERATORS} operators and keywords; hint: write `in (…)` instead of many `or`"
        ));
    }
    (parts > MOST_PARTS).then(|| format!("there are more than {MOST_PARTS} tables and statements in the statement"))
}

/// What the statement is, if it is not a question.
pub(super) fn refused(statement: &Statement) -> Option<String> {
    let word = |text: String| text.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_uppercase();
    match statement {
        Statement::Statement(ast) => match &**ast {
            Ast::Query(_) | Ast::ShowTables { .. } | Ast::ShowColumns { .. } | Ast::ExplainTable { .. } => None,
            Ast::Explain { statement, .. } => refused(&Statement::Statement(statement.clone())),
            other => Some(word(other.to_string())),
        },
        Statement::Explain(explain) => refused(&explain.statement),
        other @ (Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_)) => {
            Some(word(other.to_string()))
        }
    }
}

/// What the engine would leave out, or understand in another way than it is meant, as a sentence.
pub(super) fn misread(statement: &Statement) -> Option<String> {
    match statement {
        Statement::Statement(ast) => ast.visit(&mut Reader).break_value(),
        Statement::Explain(explain) => misread(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

struct Reader;

/// Goes on if none of these clauses is there.
fn without(clauses: &[(&str, bool)]) -> ControlFlow<String> {
    match clauses.iter().find(|(_, there)| *there) {
        Some((what, _)) => ControlFlow::Break(format!("`{what}` is not there")),
        None => ControlFlow::Continue(()),
    }
}

impl Visitor for Reader {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let Query { locks, for_clause, settings, format_clause, body, .. } = query;
        without(&[
            ("for update", !locks.is_empty() || for_clause.is_some()),
            ("settings", settings.is_some()),
            ("format", format_clause.is_some()),
        ])?;
        selects(body)
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<String> {
        match table {
            TableFactor::Table { with_hints, version, partitions, json_path, sample, index_hints, .. } => without(&[
                ("tablesample", sample.is_some()),
                ("a version of a table", version.is_some()),
                ("partition", !partitions.is_empty()),
                ("with (…)", !with_hints.is_empty() || !index_hints.is_empty()),
                ("a path in a table", json_path.is_some()),
            ]),
            TableFactor::Derived { sample, .. } => without(&[("tablesample", sample.is_some())]),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            // The parser takes all that follows for the right side.
            Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => match &**right {
                Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or | BinaryOperator::Xor, .. } => {
                    ControlFlow::Break(
                        "what follows `is distinct from` is read as its right side; hint: write `(a is distinct from b) and …`"
                            .to_owned(),
                    )
                }
                _ => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The clauses of the parts of a query that are not queries with an order of their own.
fn selects(body: &SetExpr) -> ControlFlow<String> {
    match body {
        SetExpr::Select(select) => clauses(select),
        SetExpr::SetOperation { left, right, .. } => {
            selects(left)?;
            selects(right)
        }
        // A query in parentheses is visited by itself.
        _ => ControlFlow::Continue(()),
    }
}

fn clauses(select: &Select) -> ControlFlow<String> {
    let with = match &select.group_by {
        GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) => !modifiers.is_empty(),
    };
    without(&[
        ("prewhere", select.prewhere.is_some()),
        ("connect by", !select.connect_by.is_empty()),
        ("distribute by", !select.distribute_by.is_empty()),
        ("group by … with …", with),
        ("select as", select.value_table_mode.is_some()),
        ("exclude", select.exclude.is_some()),
        ("a modifier of select", select.select_modifiers.is_some()),
    ])
}

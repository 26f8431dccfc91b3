//! The query language: text to a typed condition on the rows of a table, flows or transactions.
//!
//! * Every condition is true or false. A null passes no test (`exists` asks whether there is a value), so `not` of any
//!   test of a null is true. `client_pod != x` is a test and false for a null; `pod != x`, where the name means either
//!   side, is `not (pod == x)`.
//! * Names, kinds and units come from the vocabulary of the table that is asked
//!   ([`wiretag_enrich::tagged::all_columns`]): a query is for one table, and the compiler says so. Text compares by case,
//!   words of small sets (protocols, states, response codes) do not.
//! * Limits: [`MAX_LENGTH`] characters, 64 levels, 1,000 tests, regular expressions of 1 MiB compiled, and of 4 MiB all together.

pub(crate) mod ast;
mod error;
mod fields;
mod lexer;
pub(crate) mod matches;
mod parser;
pub(crate) mod pattern;
pub(crate) mod plan;
pub(crate) mod regexes;
mod row_filter;
mod sets;
mod stages;
mod time;
mod values;

pub use error::QueryError;
pub use plan::{Aggregate, AnswerColumn, AnswerKind};
pub use row_filter::RowFilter;
pub use time::{TimeError, parse_time};
use wiretag_enrich::Tagged;

use crate::tables::Table;

/// Characters in a query.
pub const MAX_LENGTH: usize = 16_384;

/// A checked query.
#[derive(Debug, Clone)]
pub struct Query<R: 'static> {
    pub(crate) node: ast::Node<R>,
    text: String,
    /// Whoever asks may not see every row.
    pub(crate) restricted: bool,
}

impl<R: Table> Query<R> {
    /// Every row.
    pub fn everything() -> Self {
        Self { node: ast::Node::All, text: String::new(), restricted: false }
    }

    /// As the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rows of `outer` that pass; the text stays.
    #[must_use]
    pub fn within(self, outer: &Self) -> Self {
        match outer.node.clone() {
            ast::Node::All => self,
            node @ (ast::Node::And(_) | ast::Node::Or(_) | ast::Node::Not(_) | ast::Node::Test(..)) => {
                Self { node: ast::Node::And(vec![node, self.node]), text: self.text, restricted: true }
            }
        }
    }

    /// Whether the row passes.
    pub fn matches(&self, row: &Tagged<R>) -> bool {
        self.node.matches(row)
    }
}

/// What was typed where both a condition and an aggregation can stand.
#[derive(Debug, Clone)]
pub struct Statement<R: 'static> {
    /// Which rows.
    pub filter: Query<R>,
    /// What to tell of them; without it, the rows themselves.
    pub aggregate: Option<Aggregate<R>>,
}

/// Reads a query without relative times; an empty one means every row.
pub fn parse<R: Table>(text: &str) -> Result<Query<R>, QueryError> {
    read(text, None)
}

/// Reads a query whose relative times (`start > -5m`) are those before or after `now`, ns since the epoch.
pub fn parse_at<R: Table>(text: &str, now: i64) -> Result<Query<R>, QueryError> {
    read(text, Some(now))
}

/// Reads a condition that an aggregation may follow, as in `port == 443 | top 20 client_workload by client_bytes`.
pub fn parse_statement<R: Table>(text: &str, now: i64) -> Result<Statement<R>, QueryError> {
    let (node, aggregate) = with_parser(text, Some(now), parser::Parser::statement)?;
    Ok(Statement { filter: Query { node, text: text.to_owned(), restricted: false }, aggregate })
}

/// `top`: the groups of `fields` that have the most of `by` (figures; empty: bytes and rows).
pub fn top<R: Table>(fields: &str, by: &str, limit: usize) -> Result<Aggregate<R>, QueryError> {
    let keys: Vec<plan::Key<R>> = with_parser(fields, None, parser::Parser::only_keys)?;
    let measures = match by.trim() {
        "" => stages::default_measures(),
        _ => with_parser(by, None, parser::Parser::only_measures)?,
    };
    let order = vec![plan::Order { column: keys.len(), descending: true }];
    let aggregate = Aggregate { by: keys, measures, order, limit: Some(limit), shown: Vec::new() };
    stages::check(&aggregate, 1).map_err(|mistake| mistake.with_text(fields))?;
    Ok(aggregate)
}

fn read<R: Table>(text: &str, now: Option<i64>) -> Result<Query<R>, QueryError> {
    let node = with_parser(text, now, parser::Parser::query)?;
    Ok(Query { node, text: text.to_owned(), restricted: false })
}

fn with_parser<R: Table, T>(
    text: &str,
    now: Option<i64>,
    parse: impl FnOnce(parser::Parser<R>) -> Result<T, error::Mistake>,
) -> Result<T, QueryError> {
    if text.chars().nth(MAX_LENGTH).is_some() {
        let mistake = error::Mistake::new(MAX_LENGTH + 1, format!("the query is longer than {MAX_LENGTH} characters"));
        return Err(mistake.with_text(text));
    }
    let parsed = lexer::tokens(text).and_then(|tokens| parse(parser::Parser::new(tokens, now)));
    parsed.map_err(|mistake| mistake.with_text(text))
}

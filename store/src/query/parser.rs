//! Recursive descent over the tokens:
//!
//! ```text
//! any    = all { ("or" | "||") all }
//! all    = unary { ("and" | "&&") unary }
//! unary  = ("not" | "!") unary | "(" any ")" | test
//! test   = name operator value | name ["not"] "in" ( "{" value { "," value } "}" | value )
//!        | name ["not"] "exists" | word
//! ```
//!
//! What follows a `|` is in [`super::stages`].
//!
//! Depth and number of tests are limited, so that no query exhausts the stack here or in the engine below.

use std::marker::PhantomData;

use wiretag_capture::Kind;

use super::ast::{Field, Node, Test, TextTest};
use super::error::Mistake;
use super::fields;
use super::lexer::{Operator, Positioned, Token};
use super::pattern::Pattern;
use super::plan::Aggregate;
use super::regexes::Regexes;
use super::sets::{self, Alternatives};
use super::values::{self, Reading, Written};
use crate::tables::Table;

/// Nesting of parentheses and `not`.
const MAX_DEPTH: usize = 64;
/// Tests in one query; each value of a set is one, and a name that means either side makes two.
const MAX_TESTS: usize = 1_000;

pub(super) struct Parser<R> {
    tokens: Vec<Positioned>,
    at: usize,
    depth: usize,
    tests: usize,
    reading: Reading,
    /// The table whose columns names mean.
    table: PhantomData<R>,
}

impl<R: Table> Parser<R> {
    pub(super) fn new(tokens: Vec<Positioned>, now: Option<i64>) -> Self {
        let is_regex =
            |token: &&Positioned| matches!(token.token, Token::Operator(Operator::Matches | Operator::MatchesNot));
        let regexes = Regexes::expecting(tokens.iter().filter(is_regex).count());
        Self { tokens, at: 0, depth: 0, tests: 0, reading: Reading { now, regexes }, table: PhantomData }
    }

    /// A condition and nothing else.
    pub(super) fn query(mut self) -> Result<Node<R>, Mistake> {
        let node = self.filter()?;
        self.whole(node)
    }

    /// `node`, if there is nothing behind it.
    fn whole(&self, node: Node<R>) -> Result<Node<R>, Mistake> {
        match self.peek() {
            Token::End => Ok(node),
            Token::Pipe => Err(Mistake::new(self.column(), "`|` begins an aggregation, and here is room for a condition only")
                .hint("`or` is written `||`; aggregations are for `wiretag flows`, `wiretag top` and `/api/v1/flows/aggregate`")),
            Token::Close => Err(Mistake::new(self.column(), "this `)` closes nothing")),
            other => Err(Mistake::new(self.column(), format!("{} was not expected here", other.name()))
                .hint("valid here: `and`, `or`, or the end of the query")),
        }
    }

    /// A condition, and an aggregation if one follows.
    pub(super) fn statement(mut self) -> Result<(Node<R>, Option<Aggregate<R>>), Mistake> {
        let node = self.filter()?;
        if self.symbol(&Token::Pipe) {
            return Ok((node, Some(self.stages()?)));
        }
        Ok((self.whole(node)?, None))
    }

    /// A condition, which may be empty.
    fn filter(&mut self) -> Result<Node<R>, Mistake> {
        if matches!(self.peek(), Token::End | Token::Pipe) {
            return Ok(Node::All);
        }
        self.any()
    }

    pub(super) fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |positioned| &positioned.token)
    }

    pub(super) fn column(&self) -> usize {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |positioned| positioned.column)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        // The last token is `End` and stays.
        self.at = (self.at + 1).min(self.tokens.len().saturating_sub(1));
        token
    }

    pub(super) fn keyword(&mut self, keyword: &str) -> bool {
        let found = matches!(self.peek(), Token::Word(word) if word.eq_ignore_ascii_case(keyword));
        if found {
            self.next();
        }
        found
    }

    pub(super) fn symbol(&mut self, token: &Token) -> bool {
        let found = self.peek() == token;
        if found {
            self.next();
        }
        found
    }

    fn any(&mut self) -> Result<Node<R>, Mistake> {
        let mut nodes = vec![self.all()?];
        while self.symbol(&Token::Or) || self.keyword("or") {
            nodes.push(self.all()?);
        }
        Ok(joined(nodes, alternatives))
    }

    fn all(&mut self) -> Result<Node<R>, Mistake> {
        let mut nodes = vec![self.unary()?];
        while self.symbol(&Token::And) || self.keyword("and") {
            nodes.push(self.unary()?);
        }
        Ok(joined(nodes, Node::And))
    }

    fn unary(&mut self) -> Result<Node<R>, Mistake> {
        let column = self.column();
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Mistake::new(column, format!("the query is nested more than {MAX_DEPTH} deep")));
        }
        let node = if self.symbol(&Token::Not) || self.keyword("not") {
            Node::Not(Box::new(self.unary()?))
        } else if self.symbol(&Token::Open) {
            let inner = self.any()?;
            if !self.symbol(&Token::Close) {
                let message = format!("expected `)` for the `(` in column {column}, found {}", self.peek().name());
                return Err(Mistake::new(self.column(), message).hint("valid here: `)`, `and`, `or`"));
            }
            inner
        } else {
            self.test()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn test(&mut self) -> Result<Node<R>, Mistake> {
        let column = self.column();
        match self.next() {
            Token::Quoted(text) => self.bare(&Written { text, column }, true),
            Token::Word(word) if is_keyword(&word) => {
                Err(Mistake::new(column, format!("expected a condition, found `{word}`"))
                    .hint("to search for this word put it in quotes"))
            }
            Token::Word(name) => self.condition(Written { text: name, column }),
            other => Err(Mistake::new(column, format!("expected a condition, found {}", other.name()))
                .hint("write `pod == checkout-*`, a name to search for, `not`, or `(`")),
        }
    }

    /// `labels."app.kubernetes.io/name"`: the quoted key belongs to the name.
    fn quoted_key(&mut self, mut name: Written) -> Written {
        if name.text.ends_with('.')
            && let Some(Positioned { token: Token::Quoted(key), adjacent: true, .. }) = self.tokens.get(self.at)
        {
            name.text.push_str(key);
            self.next();
        }
        name
    }

    /// A word where `expected` can stand.
    pub(super) fn name(&mut self, expected: &str) -> Result<Written, Mistake> {
        let column = self.column();
        match self.next() {
            Token::Word(text) => Ok(self.quoted_key(Written { text, column })),
            other => Err(Mistake::new(column, format!("expected {expected}, found {}", other.name()))),
        }
    }

    /// The columns that a written name means.
    #[allow(clippy::unused_self, reason = "names the table")]
    pub(super) fn fields_of(&self, name: &Written) -> Result<Vec<Field<R>>, Mistake> {
        columns_of(name)
    }

    fn condition(&mut self, name: Written) -> Result<Node<R>, Mistake> {
        let name = self.quoted_key(name);
        if let Token::Operator(operator) = *self.peek() {
            self.next();
            let fields = columns_of(&name)?;
            let mut value = self.value()?;
            self.time_of_day(&fields, &mut value);
            return self.compare(&fields, operator, &value);
        }
        if self.keyword("in") {
            return self.contained(&name);
        }
        if self.keyword("exists") {
            return self.exists(&name);
        }
        if self.negated("in") {
            return self.not_contained(&name);
        }
        if self.negated("exists") {
            return Ok(Node::Not(Box::new(self.exists(&name)?)));
        }
        self.bare(&name, false)
    }

    /// `not` and this keyword.
    fn negated(&mut self, keyword: &str) -> bool {
        let is = |token: Option<&Positioned>, keyword: &str| matches!(token, Some(Positioned { token: Token::Word(word), .. }) if word.eq_ignore_ascii_case(keyword));
        let found = is(self.tokens.get(self.at), "not") && is(self.tokens.get(self.at + 1), keyword);
        if found {
            self.next();
            self.next();
        }
        found
    }

    fn exists(&mut self, name: &Written) -> Result<Node<R>, Mistake> {
        let fields = columns_of(name)?;
        self.either(&fields, |field, _| Ok(Node::Test(field.clone(), Test::Exists)), name)
    }

    fn value(&mut self) -> Result<Written, Mistake> {
        let column = self.column();
        match self.next() {
            Token::Word(text) | Token::Quoted(text) => Ok(Written { text, column }),
            other => Err(Mistake::new(column, format!("expected a value, found {}", other.name()))
                .hint("put a value with spaces or operators in double quotes")),
        }
    }

    /// A time of day may follow the date of a time without quotes: `start > 2026-03-01 14:05`.
    fn time_of_day(&mut self, fields: &[Field<R>], value: &mut Written) {
        let is_time = fields.iter().all(|field| field.column.kind() == Kind::Time);
        if is_time
            && let Some(Positioned { token: Token::Word(word), .. }) = self.tokens.get(self.at)
            && word.contains(':')
            && word.starts_with(|c: char| c.is_ascii_digit())
        {
            value.text = format!("{} {word}", value.text);
            self.next();
        }
    }

    /// One test for each field, any of which suffices.
    fn either(
        &mut self,
        fields: &[Field<R>],
        mut make: impl FnMut(&Field<R>, &mut Reading) -> Result<Node<R>, Mistake>,
        value: &Written,
    ) -> Result<Node<R>, Mistake> {
        self.tests += fields.len();
        if self.tests > MAX_TESTS {
            return Err(Mistake::new(value.column, format!("the query has more than {MAX_TESTS} tests")));
        }
        let nodes = fields.iter().map(|field| make(field, &mut self.reading)).collect::<Result<_, _>>()?;
        Ok(joined(nodes, alternatives))
    }

    fn compare(&mut self, fields: &[Field<R>], operator: Operator, value: &Written) -> Result<Node<R>, Mistake> {
        let neither = match operator {
            Operator::NotEqual => Some(Operator::Equal),
            Operator::MatchesNot => Some(Operator::Matches),
            Operator::Equal
            | Operator::Less
            | Operator::LessEqual
            | Operator::Greater
            | Operator::GreaterEqual
            | Operator::Matches => None,
        };
        if let Some(operator) = neither.filter(|_| fields.len() > 1) {
            return Ok(Node::Not(Box::new(self.compare(fields, operator, value)?)));
        }
        let make = |field: &Field<R>, reading: &mut Reading| {
            Ok(Node::Test(field.clone(), values::test(field, operator, value, reading)?))
        };
        self.either(fields, make, value)
    }

    fn contained(&mut self, name: &Written) -> Result<Node<R>, Mistake> {
        let fields = columns_of(name)?;
        if !self.symbol(&Token::OpenSet) {
            let value =
                self.value().map_err(|mistake| mistake.hint("a set has braces, as in `{a, b}`; or a network"))?;
            let address = fields.iter().all(|field| field.column.kind() == Kind::Ip);
            if !address {
                return Err(Mistake::new(value.column, format!("expected `{{` after `in`, found `{}`", value.text))
                    .hint(format!("write `{} in {{{}, …}}`", name.text, value.text)));
            }
            return self.compare(&fields, Operator::Equal, &value);
        }
        let mut nodes = Vec::new();
        loop {
            let mut value = self.value()?;
            // Of a range either end may have one.
            self.time_of_day(&fields, &mut value);
            self.time_of_day(&fields, &mut value);
            nodes.push(self.member(&fields, &value)?);
            if self.symbol(&Token::CloseSet) {
                return Ok(joined(nodes, alternatives));
            }
            if !self.symbol(&Token::Comma) {
                let message = format!("expected `,` or `}}` in the set, found {}", self.peek().name());
                return Err(
                    Mistake::new(self.column(), message).hint("quotes are around both ends of a range: `\"a..b\"`")
                );
            }
        }
    }

    /// As `!=`: of one column, there is a value, and it is another.
    fn not_contained(&mut self, name: &Written) -> Result<Node<R>, Mistake> {
        let other = Node::Not(Box::new(self.contained(name)?));
        match columns_of::<R>(name)?.as_slice() {
            [_] => Ok(Node::And(vec![self.exists(name)?, other])),
            _ => Ok(other),
        }
    }

    fn member(&mut self, fields: &[Field<R>], value: &Written) -> Result<Node<R>, Mistake> {
        let Some((low, high)) = fields.first().and_then(|field| values::range(field, value)) else {
            return self.compare(fields, Operator::Equal, value);
        };
        let make = |field: &Field<R>, reading: &mut Reading| {
            let at_least = values::test(field, Operator::GreaterEqual, &low, reading)?;
            let at_most = values::test(field, Operator::LessEqual, &high, reading)?;
            if sets::is_reversed(&at_least, &at_most) {
                return Err(Mistake::new(low.column, format!("nothing is in `{}`", value.text))
                    .hint(format!("the smaller end comes first: `{}..{}`", high.text, low.text)));
            }
            let tests = [at_least, at_most].map(|test| Node::Test(field.clone(), test));
            Ok(Node::And(tests.into()))
        };
        self.either(fields, make, value)
    }

    /// A word alone: an address, a true or false column, `*` for everything, or a search in names and hosts.
    fn bare(&mut self, word: &Written, quoted: bool) -> Result<Node<R>, Mistake> {
        if word.text == "*" && !quoted {
            return Ok(Node::All);
        }
        if !quoted && let Some(test) = values::bare_address(word) {
            let fields = fields::resolve::<R>("ip").unwrap_or_default();
            return self.either(&fields, |field, _| Ok(Node::Test(field.clone(), Test::Text(test.clone()))), word);
        }
        if !quoted && let Some(fields) = fields::resolve::<R>(&word.text) {
            if let [field] = fields.as_slice()
                && field.column.kind() == Kind::Bool
            {
                return self.either(&fields, |field, _| Ok(Node::Test(field.clone(), Test::Bool(true))), word);
            }
            let message = format!("`{}` is a column: expected an operator, found {}", word.text, self.peek().name());
            return Err(Mistake::new(self.column(), message).hint(format!(
                "valid here: `==`, `!=`, `~`, `in`, `exists`, …; to search for the word write `\"{}\"`",
                word.text
            )));
        }
        if !quoted && let Some(column) = fields::column_of_value::<R>(&word.text) {
            let message = format!("`{}` is a value of `{column}`, not a name", word.text);
            let hint = format!("write `{column} == {0}`; to search for the name write `\"{0}\"`", word.text);
            return Err(Mistake::new(word.column, message).hint(hint));
        }
        if word.text.is_empty() {
            return Err(Mistake::new(word.column, "there is nothing to search for between the quotes"));
        }
        let pattern = TextTest::Pattern(Pattern::new(&word.text, true).anywhere());
        self.either(&fields::searched(), |field, _| Ok(Node::Test(field.clone(), Test::Text(pattern.clone()))), word)
    }
}

/// The columns that a written name means.
fn columns_of<R: Table>(name: &Written) -> Result<Vec<Field<R>>, Mistake> {
    fields::resolve(&name.text).ok_or_else(|| {
        Mistake::new(name.column, format!("there is no column `{}`", name.text)).hint(fields::hint::<R>(&name.text))
    })
}

fn is_keyword(word: &str) -> bool {
    ["and", "or", "in", "exists"].iter().any(|keyword| word.eq_ignore_ascii_case(keyword))
}

fn joined<R>(mut nodes: Vec<Node<R>>, join: fn(Vec<Node<R>>) -> Node<R>) -> Node<R> {
    match nodes.len() {
        1 => nodes.remove(0),
        _ => join(nodes),
    }
}

fn alternatives<R: Table>(nodes: Vec<Node<R>>) -> Node<R> {
    Node::Or(Alternatives::new(nodes))
}

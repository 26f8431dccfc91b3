//! What may follow a condition, each behind a `|`:
//!
//! ```text
//! aggregation = "top" [number] keys ["by" measures] | measures ["by" keys]
//! keys        = key { "," key }
//! key         = name | "time" "(" width ")" | width
//! measures    = measure { "," measure }
//! measure     = figure "(" name ")" ["as" name] | "count" | "rate" | name (its sum)
//! figure      = "sum" | "min" | "max" | "avg" | "median" | "p50" … "p99.9" | "distinct" | "rate"
//! further     = "sort" column ["asc" | "desc"] { "," … } | "limit" number
//! ```

use wiretag_capture::Kind;

use super::ast::Field;
use super::error::Mistake;
use super::fields;
use super::lexer::Token;
use super::parser::Parser;
use super::plan::{Aggregate, Figure, Key, KeyOf, Measure, Order, PREVIOUS};
use super::time;
use super::values::Written;
use crate::sketch::Quantile;
use crate::tables::Table;

/// Groups of `top` without a number.
pub(super) const DEFAULT_TOP: usize = 10;
/// Groups that can be asked for by number.
const MAX_LIMIT: usize = 100_000;
/// Keys, and measures, at most.
const MAX_COLUMNS: usize = 16;
/// Buckets of time are no narrower, ns.
const MIN_WIDTH: i64 = 1_000_000;
/// What can be written as a figure.
const FIGURES: &str =
    "`count`, `sum(…)`, `avg(…)`, `min(…)`, `max(…)`, `p50(…)` to `p99.9(…)`, `distinct(…)`, `rate(…)`";

impl<R: Table> Parser<R> {
    /// Everything behind the first `|`.
    pub(super) fn stages(&mut self) -> Result<Aggregate<R>, Mistake> {
        let column = self.column();
        let mut aggregate = if self.keyword("top") { self.top()? } else { self.measured()? };
        check(&aggregate, column)?;
        while self.symbol(&Token::Pipe) {
            if self.keyword("sort") {
                let order = self.sort(&aggregate)?;
                // Of what was chosen before it sorts only that.
                *(if aggregate.limit.is_some() { &mut aggregate.shown } else { &mut aggregate.order }) = order;
            } else if self.keyword("limit") {
                let (column, limit) = (self.column(), self.limit()?);
                if !aggregate.shown.is_empty() {
                    return Err(Mistake::new(column, "`limit` must stand before the `sort` of what was chosen")
                        .hint("choose once: `| sort … | limit …`, or `| top … | sort …`"));
                }
                aggregate.limit = Some(aggregate.limit.map_or(limit, |before| before.min(limit)));
            } else {
                let message = format!("expected `sort` or `limit`, found {}", self.peek().name());
                return Err(Mistake::new(self.column(), message).hint("one aggregation follows a condition"));
            }
        }
        match self.peek() {
            Token::End => Ok(aggregate),
            other => Err(Mistake::new(self.column(), format!("{} was not expected here", other.name()))
                .hint("valid here: `,`, `by`, `|`, or the end of the query")),
        }
    }

    fn top(&mut self) -> Result<Aggregate<R>, Mistake> {
        let number = matches!(self.peek(), Token::Word(word) if word.bytes().all(|byte| byte.is_ascii_digit()));
        let limit = if number { self.limit()? } else { DEFAULT_TOP };
        let by = self.keys()?;
        let measures = if self.keyword("by") { self.measures()? } else { default_measures() };
        let order = vec![Order { column: by.len(), descending: true }];
        Ok(Aggregate { order, by, measures, limit: Some(limit), shown: Vec::new() })
    }

    fn measured(&mut self) -> Result<Aggregate<R>, Mistake> {
        let measures = self.measures()?;
        let by = if self.keyword("by") { self.keys()? } else { Vec::new() };
        Ok(Aggregate { by, measures, order: Vec::new(), limit: None, shown: Vec::new() })
    }

    /// The keys alone, to the end: what `wiretag top` takes.
    pub(super) fn only_keys(mut self) -> Result<Vec<Key<R>>, Mistake> {
        let keys = self.keys()?;
        self.ended(keys)
    }

    /// The measures alone, to the end.
    pub(super) fn only_measures(mut self) -> Result<Vec<Measure<R>>, Mistake> {
        let measures = self.measures()?;
        self.ended(measures)
    }

    fn ended<T>(&self, parsed: T) -> Result<T, Mistake> {
        match self.peek() {
            Token::End => Ok(parsed),
            other => Err(Mistake::new(self.column(), format!("{} was not expected here", other.name()))
                .hint("separate names by `,`")),
        }
    }

    fn keys(&mut self) -> Result<Vec<Key<R>>, Mistake> {
        let mut keys = vec![self.key()?];
        while self.symbol(&Token::Comma) {
            keys.push(self.key()?);
        }
        Ok(keys)
    }

    fn key(&mut self) -> Result<Key<R>, Mistake> {
        let column = self.column();
        let name = self.name("a column to group by, or `time(1m)`")?;
        if name.text == "time" && self.symbol(&Token::Open) {
            let width = self.name("the width of a bucket, as in `1m`")?;
            self.close(column)?;
            return time_key(&width);
        }
        if name.text.starts_with(|c: char| c.is_ascii_digit()) {
            return time_key(&name);
        }
        let fields = self.fields_of(&name)?;
        if fields.iter().any(|field| field.kind() == Kind::Map) {
            return Err(Mistake::new(name.column, format!("`{}` needs a key", name.text))
                .hint("write `labels.app`, or `labels.\"app.kubernetes.io/name\"`"));
        }
        let of = match <[Field<R>; 2]>::try_from(fields) {
            Ok(ends) => KeyOf::Ends(ends),
            Err(mut one) => KeyOf::Column(one.remove(0)),
        };
        Ok(Key { name: name.text, of })
    }

    fn measures(&mut self) -> Result<Vec<Measure<R>>, Mistake> {
        let mut measures = vec![self.measure()?];
        while self.symbol(&Token::Comma) {
            measures.push(self.measure()?);
        }
        Ok(measures)
    }

    fn measure(&mut self) -> Result<Measure<R>, Mistake> {
        let name = self.name(&format!("a figure: {FIGURES}"))?;
        let mut measure = if self.symbol(&Token::Open) { self.figure_of(&name)? } else { self.plain_measure(&name)? };
        if self.keyword("as") {
            let name = self.name("a name for the figure")?;
            if name.text.starts_with(PREVIOUS) {
                let message = format!("`{}` begins as the figures of the period before do", name.text);
                return Err(Mistake::new(name.column, message).hint(format!("a name without `{PREVIOUS}` in front")));
            }
            measure.name = name.text;
        }
        Ok(measure)
    }

    /// `figure(` has been read.
    fn figure_of(&mut self, figure: &Written) -> Result<Measure<R>, Mistake> {
        let Some(read) = figure_named(&figure.text) else {
            return Err(Mistake::new(figure.column, format!("`{}` is not a figure", figure.text)).hint(FIGURES));
        };
        let counts_rows = matches!(read, Figure::Count | Figure::Rate);
        if counts_rows && self.symbol(&Token::Close) {
            return Ok(Measure { name: figure.text.to_lowercase(), figure: read, fields: Vec::new() });
        }
        let name = self.name("a column")?;
        self.close(figure.column)?;
        if read == Figure::Count {
            return Err(Mistake::new(name.column, "`count` counts rows and takes no column")
                .hint(format!("write `count`, `distinct({0})`, or count the rows where `{0} exists`", name.text)));
        }
        let fields = self.fields_of(&name)?;
        for field in &fields {
            fits(read, field, &name)?;
        }
        Ok(Measure { name: format!("{}({})", figure.text.to_lowercase(), name.text), figure: read, fields })
    }

    /// A word alone: the number of rows, or the sum of a column of amounts.
    fn plain_measure(&mut self, name: &Written) -> Result<Measure<R>, Mistake> {
        let lower = name.text.to_lowercase();
        if lower == "count" || lower == "rate" || lower == R::NAME.as_str() {
            let figure = if lower == "rate" { Figure::Rate } else { Figure::Count };
            return Ok(Measure { name: lower, figure, fields: Vec::new() });
        }
        if figure_named(&lower).is_some() {
            return Err(Mistake::new(self.column(), format!("expected `(` after `{}`", name.text))
                .hint(format!("write `{}(client_bytes)`", name.text)));
        }
        let fields = self.fields_of(name)?;
        if fields.iter().any(|field| field.kind() == Kind::Duration || !adds_up(field)) {
            let (text, kind) = (&name.text, fields.first().map_or(Kind::Text, Field::kind));
            let hint = if kind == Kind::Duration {
                format!("say which figure: `p95({text})`, `avg({text})`, `max({text})`")
            } else {
                format!("figures are {FIGURES}; `distinct({text})` counts its values")
            };
            return Err(Mistake::new(name.column, format!("`{text}` is not an amount that adds up")).hint(hint));
        }
        Ok(Measure { name: format!("sum({})", name.text), figure: Figure::Sum, fields })
    }

    fn sort(&mut self, aggregate: &Aggregate<R>) -> Result<Vec<Order>, Mistake> {
        let mut order = Vec::new();
        loop {
            let mut name = self.name("a column of the answer")?;
            if self.symbol(&Token::Open) {
                let inner = self.name("a column")?;
                self.close(name.column)?;
                name.text = format!("{}({})", name.text.to_lowercase(), inner.text);
            }
            let names: Vec<String> = aggregate.columns().into_iter().map(|column| column.name).collect();
            let same = |known: &String| *known == name.text || *known == format!("sum({})", name.text);
            let Some(column) = names.iter().position(same) else {
                let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
                return Err(Mistake::new(name.column, format!("the answer has no column `{}`", name.text))
                    .hint(format!("it has {}", names.join(", "))));
            };
            // Names and times upwards, figures downwards, unless it says otherwise.
            let descending =
                if self.keyword("asc") { false } else { self.keyword("desc") || column >= aggregate.by.len() };
            order.push(Order { column, descending });
            if !self.symbol(&Token::Comma) {
                return Ok(order);
            }
        }
    }

    fn limit(&mut self) -> Result<usize, Mistake> {
        let number = self.name("a number of groups")?;
        match number.text.parse() {
            Ok(limit @ 1..=MAX_LIMIT) => Ok(limit),
            _ => Err(Mistake::new(number.column, format!("`{}` is not a number of groups", number.text))
                .hint(format!("a number from 1 to {MAX_LIMIT}"))),
        }
    }

    fn close(&mut self, opened_after: usize) -> Result<(), Mistake> {
        if self.symbol(&Token::Close) {
            return Ok(());
        }
        let message = format!("expected `)` for what begins in column {opened_after}, found {}", self.peek().name());
        Err(Mistake::new(self.column(), message))
    }
}

/// What `top` tells without `by`.
pub(super) fn default_measures<R: Table>() -> Vec<Measure<R>> {
    let count = Measure { name: "count".into(), figure: Figure::Count, fields: Vec::new() };
    let bytes =
        fields::resolve::<R>("bytes").map(|fields| Measure { name: "sum(bytes)".into(), figure: Figure::Sum, fields });
    bytes.into_iter().chain([count]).collect()
}

fn time_key<R>(width: &Written) -> Result<Key<R>, Mistake> {
    let Some(nanos) = time::span(&width.text).filter(|width| *width >= MIN_WIDTH) else {
        return Err(Mistake::new(width.column, format!("`{}` is not the width of a bucket of time", width.text))
            .hint("write a length such as `10s`, `1m`, `1h`, `1d`"));
    };
    Ok(Key { name: "time".into(), of: KeyOf::Time { width: nanos, origin: 0 } })
}

fn figure_named(name: &str) -> Option<Figure> {
    let lower = name.to_lowercase();
    Some(match lower.as_str() {
        "count" => Figure::Count,
        "sum" => Figure::Sum,
        "min" => Figure::Min,
        "max" => Figure::Max,
        "avg" | "mean" => Figure::Avg,
        "median" => Figure::Quantile(Quantile::MEDIAN),
        "distinct" => Figure::Distinct,
        "rate" => Figure::Rate,
        other => Figure::Quantile(Quantile::of_percent(other.strip_prefix('p')?)?),
    })
}

/// Whether sums of the column mean something.
fn adds_up<R: Table>(field: &Field<R>) -> bool {
    const NAMES_IN_DIGITS: &[&str] = &[
        "port",
        "nat_port",
        "vlan",
        "vlan_inner",
        "dscp",
        "tunnel_id",
        "http_status",
        "grpc_status",
        "slice",
        "exchange",
        "mss",
        "window_max",
        "window_scale",
    ];
    let name = field.column.name();
    let plain = name.strip_prefix("client_").or_else(|| name.strip_prefix("server_")).unwrap_or(name);
    matches!(field.kind(), Kind::Number | Kind::Size | Kind::Duration) && !NAMES_IN_DIGITS.contains(&plain)
}

/// Whether the figure can be made of the column.
fn fits<R: Table>(figure: Figure, field: &Field<R>, name: &Written) -> Result<(), Mistake> {
    let kind = field.kind();
    let amount = matches!(kind, Kind::Number | Kind::Size | Kind::Duration);
    let possible = match figure {
        Figure::Count => false,
        Figure::Sum | Figure::Avg | Figure::Quantile(_) => amount,
        Figure::Rate => amount && adds_up(field),
        Figure::Min | Figure::Max => amount || kind == Kind::Time,
        Figure::Distinct => kind != Kind::Map,
    };
    if possible {
        return Ok(());
    }
    let mistake = Mistake::new(name.column, format!("`{}` is not a number that this can be made of", name.text));
    Err(match kind {
        Kind::Map => mistake.hint("write `labels.app`, or `labels.\"app.kubernetes.io/name\"`"),
        _ => mistake.hint(format!("`distinct({})` counts its values", name.text)),
    })
}

/// Refuses too much, and two columns of one name.
pub(super) fn check<R: Table>(aggregate: &Aggregate<R>, column: usize) -> Result<(), Mistake> {
    if aggregate.by.len() > MAX_COLUMNS || aggregate.measures.len() > MAX_COLUMNS {
        return Err(Mistake::new(column, format!("there are more than {MAX_COLUMNS} keys or figures")));
    }
    let names: Vec<String> = aggregate.columns().into_iter().map(|column| column.name).collect();
    for (at, name) in names.iter().enumerate() {
        if names.iter().take(at).any(|before| before == name) {
            // Only figures have names of their own: conditions are made of those of keys.
            let hint = match aggregate.by.get(at).map(|key| &key.of) {
                Some(KeyOf::Time { .. }) => "group by one width of time: the narrower tells the wider, too",
                Some(KeyOf::Column(_) | KeyOf::Ends(_)) => "leave one of them out",
                None => "name the figure with `as`, or leave it out",
            };
            return Err(Mistake::new(column, format!("the answer would have two columns `{name}`")).hint(hint));
        }
    }
    Ok(())
}

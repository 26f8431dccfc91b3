//! What an aggregation asks for: which rows make a group, and what is told of each group. Made by the parser
//! ([`super::stages`]); answered from rows in memory, from files, and from whatever else can give partial groups
//! ([`crate::tables::aggregate`]).

use wiretag_capture::Kind;

use super::ast::Field;
use crate::sketch::Quantile;

/// What the figures of the period before have in front of their names.
pub(crate) const PREVIOUS: &str = "previous_";

/// Groups, what is told of each, and in which order.
#[derive(Debug, Clone)]
pub struct Aggregate<R: 'static> {
    pub(crate) by: Vec<Key<R>>,
    pub(crate) measures: Vec<Measure<R>>,
    /// First the most important; empty: the usual order.
    pub(crate) order: Vec<Order>,
    /// Groups in the answer at most.
    pub(crate) limit: Option<usize>,
    /// The order in which the groups that were chosen so are told, if it is another.
    pub(crate) shown: Vec<Order>,
}

/// What rows of one group have in common.
#[derive(Debug, Clone)]
pub(crate) struct Key<R: 'static> {
    /// As the answer names it.
    pub(crate) name: String,
    pub(crate) of: KeyOf<R>,
}

/// Where the value of a key comes from.
#[derive(Debug, Clone)]
pub(crate) enum KeyOf<R: 'static> {
    Column(Field<R>),
    /// The client's and the server's: a row belongs to a group for each end, and to one group only once.
    Ends([Field<R>; 2]),
    /// Start of the row, rounded down to `origin` and a multiple of `width`, ns.
    Time {
        width: i64,
        origin: i64,
    },
}

/// A figure of each group.
#[derive(Debug, Clone)]
pub(crate) struct Measure<R: 'static> {
    /// As the answer names it.
    pub(crate) name: String,
    pub(crate) figure: Figure,
    /// Whose values count: none for a number of rows, two for a name that means either side.
    pub(crate) fields: Vec<Field<R>>,
}

/// How a figure is made of values. Nulls are no values; of no values all but `Count`, `Distinct` and the rate of rows are null.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Figure {
    Count,
    Sum,
    Min,
    Max,
    Avg,
    Quantile(Quantile),
    Distinct,
    /// Rows, or the sum of the field, per second.
    Rate,
}

/// One column of the order of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    /// Number of the column: keys first, then measures.
    pub(crate) column: usize,
    pub(crate) descending: bool,
}

impl<R: wiretag_enrich::Record> Aggregate<R> {
    /// The width of the groups' time, ns, if time is a key.
    pub fn width(&self) -> Option<i64> {
        self.by.iter().find_map(|key| match key.of {
            KeyOf::Time { width, .. } => Some(width),
            KeyOf::Column(_) | KeyOf::Ends(_) => None,
        })
    }

    /// The same with time counted from another moment.
    pub(crate) fn counted_from(&self, moment: i64) -> Self {
        let mut shifted = self.clone();
        for key in &mut shifted.by {
            match &mut key.of {
                KeyOf::Time { origin, .. } => *origin = moment,
                KeyOf::Column(_) | KeyOf::Ends(_) => {}
            }
        }
        shifted
    }

    /// The order of the answer: as it was asked for; else time, then the first figure with the greatest first.
    pub(crate) fn ordered(&self) -> Vec<Order> {
        if !self.order.is_empty() {
            return self.order.clone();
        }
        let time = self.by.iter().position(|key| matches!(key.of, KeyOf::Time { .. }));
        let time = time.map(|column| Order { column, descending: false });
        time.into_iter().chain([Order { column: self.by.len(), descending: true }]).collect()
    }

    /// Whether an answer has figures of a second.
    pub fn has_rates(&self) -> bool {
        self.measures.iter().any(|measure| measure.figure == Figure::Rate)
    }

    /// Name and kind of the columns of the answer.
    pub fn columns(&self) -> Vec<AnswerColumn> {
        let key = |key: &Key<R>| AnswerColumn { name: key.name.clone(), kind: key.kind().into(), is_key: true };
        let figure =
            |measure: &Measure<R>| AnswerColumn { name: measure.name.clone(), kind: measure.kind(), is_key: false };
        self.by.iter().map(key).chain(self.measures.iter().map(figure)).collect()
    }
}

/// A column of the answer of an aggregation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerColumn {
    /// As in the question, without white space.
    pub name: String,
    /// What it holds.
    pub kind: AnswerKind,
    /// One of the columns that make the group.
    pub is_key: bool,
}

/// What a column of an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// As a column of the table.
    Of(Kind),
    /// Something per second: a number with a fraction.
    PerSecond(Kind),
}

impl AnswerKind {
    /// As interfaces spell it.
    pub fn name(self) -> String {
        match self {
            Self::Of(kind) => format!("{kind:?}").to_lowercase(),
            Self::PerSecond(kind) => format!("{kind:?}_per_second").to_lowercase(),
        }
    }
}

impl From<Kind> for AnswerKind {
    fn from(kind: Kind) -> Self {
        Self::Of(kind)
    }
}

impl<R: wiretag_enrich::Record> Key<R> {
    fn kind(&self) -> Kind {
        match &self.of {
            KeyOf::Column(field) | KeyOf::Ends([field, _]) => field.kind(),
            KeyOf::Time { .. } => Kind::Time,
        }
    }
}

impl<R: wiretag_enrich::Record> Measure<R> {
    fn kind(&self) -> AnswerKind {
        let value = self.fields.first().map_or(Kind::Number, Field::kind);
        match self.figure {
            Figure::Count | Figure::Distinct => Kind::Number.into(),
            Figure::Sum | Figure::Min | Figure::Max | Figure::Avg | Figure::Quantile(_) => value.into(),
            Figure::Rate => AnswerKind::PerSecond(value),
        }
    }
}

impl<R: wiretag_enrich::Record> Field<R> {
    /// What its values are.
    pub(crate) fn kind(&self) -> Kind {
        if self.key.is_some() { Kind::Text } else { self.column.kind() }
    }

    /// Whether it is the same column, and key.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.column.name() == other.column.name() && self.key == other.key
    }
}

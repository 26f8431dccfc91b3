//! Which functions there are in SQL: those that are listed here, and no others.
//!
//! The engine asks its limit of memory for what it gathers (groups, sorts, joins), and not for what a function makes: `repeat('x', 2000000000)`
//! would just take it. So what makes much of a small number, or of a text again for each element of a list, is not there; and what can give more than it was
//! given is asked beforehand how much that may be ([`super::bounded`]).

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::catalog::TableFunction;
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

use super::bounded::{Bounded, Concatenation, Growth, Share};

/// Of values that are small whatever they are made of, or that choose one of what they are given.
#[rustfmt::skip]
const SMALL: &[&str] = &[
    "abs", "acos", "acosh", "array_any_value", "array_avg", "array_dims", "array_element", "array_has", "array_has_all", "array_has_any",
    "array_length", "array_max", "array_min", "array_ndims", "array_position", "array_sum", "arrow_typeof", "ascii", "asin", "asinh", "atan", "atan2",
    "atanh", "bit_length", "cardinality", "cbrt", "ceil", "character_length", "chr", "coalesce", "contains", "cos", "cosh", "cot", "current_date",
    "current_time", "date_bin", "date_part", "date_trunc", "degrees", "empty", "ends_with", "exp", "factorial", "find_in_set", "floor",
    "from_unixtime", "gcd", "get_field", "greatest", "isnan", "iszero", "lcm", "least", "ln", "log", "log10", "log2", "make_date", "make_time",
    "nanvl", "now", "nullif", "nvl", "nvl2", "octet_length", "pi", "power", "radians", "random", "regexp_count", "regexp_instr", "regexp_like",
    "round", "signum", "sin", "sinh", "sqrt", "starts_with", "strpos", "tan", "tanh", "to_date", "to_hex", "to_local_time", "to_time", "to_timestamp",
    "to_timestamp_micros", "to_timestamp_millis", "to_timestamp_nanos", "to_timestamp_seconds", "to_unixtime", "trunc", "uuid", "version",
];

/// Of values that grow with what they are given, and how; also of lists that have elements of another, for they are copied.
const GROWING: &[(&str, Growth)] = &[
    ("array_append", Growth::Sum(1)),
    ("array_compact", Growth::Sum(1)),
    ("array_concat", Growth::Sum(1)),
    ("array_distinct", Growth::Sum(1)),
    ("array_except", Growth::Sum(1)),
    ("array_intersect", Growth::Sum(1)),
    ("array_pop_back", Growth::Sum(1)),
    ("array_pop_front", Growth::Sum(1)),
    ("array_positions", Growth::Sum(1)),
    ("array_prepend", Growth::Sum(1)),
    ("array_remove", Growth::Sum(1)),
    ("array_remove_all", Growth::Sum(1)),
    ("array_remove_n", Growth::Sum(1)),
    ("array_reverse", Growth::Sum(1)),
    ("array_slice", Growth::Sum(1)),
    ("array_sort", Growth::Sum(1)),
    ("array_to_string", Growth::Listed),
    ("array_union", Growth::Sum(1)),
    ("btrim", Growth::Sum(1)),
    ("concat", Growth::Sum(1)),
    ("concat_ws", Growth::Joined),
    ("decode", Growth::Sum(1)),
    ("encode", Growth::Sum(2)),
    ("flatten", Growth::Sum(1)),
    ("initcap", Growth::Sum(3)),
    ("left", Growth::Sum(1)),
    ("lower", Growth::Sum(3)),
    ("ltrim", Growth::Sum(1)),
    ("make_array", Growth::Sum(1)),
    ("map_entries", Growth::Sum(1)),
    ("map_extract", Growth::Sum(1)),
    ("map_keys", Growth::Sum(1)),
    ("map_values", Growth::Sum(1)),
    ("regexp_match", Growth::Sum(256)),
    ("regexp_replace", Growth::Replaced),
    ("replace", Growth::Replaced),
    ("reverse", Growth::Sum(1)),
    ("right", Growth::Sum(1)),
    ("rtrim", Growth::Sum(1)),
    ("split_part", Growth::Sum(1)),
    ("string_to_array", Growth::Sum(20)),
    ("substr", Growth::Sum(1)),
    ("substr_index", Growth::Sum(1)),
    ("to_char", Growth::Sum(20)),
    ("translate", Growth::Sum(4)),
    ("upper", Growth::Sum(3)),
];

/// What they gather is asked of the limit of memory.
#[rustfmt::skip]
const AGGREGATES: &[&str] = &[
    "any_value", "approx_distinct", "approx_median", "approx_percentile_cont", "approx_percentile_cont_with_weight", "array_agg", "avg", "bit_and",
    "bit_or", "bit_xor", "bool_and", "bool_or", "corr", "count", "covar_pop", "covar_samp", "first_value", "grouping", "last_value", "max", "median",
    "min", "nth_value", "percentile_cont", "regr_avgx", "regr_avgy", "regr_count", "regr_intercept", "regr_r2", "regr_slope", "regr_sxx", "regr_sxy",
    "regr_syy", "stddev", "stddev_pop", "sum", "var", "var_pop",
];

#[rustfmt::skip]
const WINDOWS: &[&str] = &[
    "cume_dist", "dense_rank", "first_value", "lag", "last_value", "lead", "nth_value", "ntile", "percent_rank", "rank", "row_number",
];

/// Their rows are made as they are read.
const TABLES: &[&str] = &["generate_series", "range"];

/// The functions of a question.
pub(super) struct Functions {
    pub(super) scalars: Vec<Arc<ScalarUDF>>,
    pub(super) aggregates: Vec<Arc<AggregateUDF>>,
    pub(super) windows: Vec<Arc<WindowUDF>>,
    pub(super) tables: HashMap<String, Arc<TableFunction>>,
}

impl Functions {
    /// What grows may take a share of the question's memory.
    pub(super) fn new(share: &Share) -> Self {
        let scalars = SessionStateDefaults::default_scalar_functions().into_iter().filter_map(|known| {
            if SMALL.contains(&known.name()) {
                return Some(known);
            }
            let (_, growth) = GROWING.iter().find(|(name, _)| *name == known.name())?;
            Some(Bounded::function(known, *growth, share))
        });
        let (aggregates, windows, tables) = (
            SessionStateDefaults::default_aggregate_functions(),
            SessionStateDefaults::default_window_functions(),
            SessionStateDefaults::default_table_functions(),
        );
        Self {
            scalars: scalars.collect(),
            aggregates: aggregates.into_iter().filter(|known| AGGREGATES.contains(&known.name())).collect(),
            windows: windows.into_iter().filter(|known| WINDOWS.contains(&known.name())).collect(),
            tables: tables
                .into_iter()
                .filter(|known| TABLES.contains(&known.name()))
                .map(|known| (known.name().to_owned(), known))
                .collect(),
        }
    }

    pub(super) fn scalar(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        self.scalars.iter().find(|known| known.name() == name).cloned()
    }

    /// What `||` is of texts.
    pub(super) fn concatenation(share: &Share) -> Arc<ScalarUDF> {
        Bounded::function(Arc::new(ScalarUDF::from(Concatenation::new())), Growth::Sum(1), share)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Known, and not there: they make as much as a number says (`repeat`), take as long as two texts multiplied (`levenshtein`), the same for each element (`array_replace_all`), call an expression for each
    /// element (`array_transform`), double with each level and share the memory until they are written (`struct`), tell of files
    /// (`input_file_name`), or are of no use here (`cosine_distance`).
    #[rustfmt::skip]
    const LEFT_OUT: &[&str] = &[
        "array_add", "array_any_match", "array_distance", "array_filter", "array_first", "array_normalize", "array_product", "array_repeat",
        "array_replace", "array_replace_all", "array_replace_n", "array_resize", "array_scale", "array_subtract", "array_transform", "arrays_zip",
        "arrow_cast", "arrow_field", "arrow_metadata", "arrow_try_cast", "cast_to_type", "cosine_distance", "file_row_index", "generate_series",
        "inner_product", "input_file_name", "levenshtein", "lpad", "map", "named_struct", "overlay", "range", "repeat", "rpad", "string_agg", "struct",
        "try_cast_to_type", "union_extract", "union_tag", "with_metadata",
    ];

    /// Names in blocks of the documentation.
    fn documented() -> BTreeSet<&'static str> {
        let page = include_str!("../../../docs/query-language.md");
        let blocks = page.split("```functions").skip(1).filter_map(|rest| rest.split("```").next());
        blocks.flat_map(|block| block.split(',')).map(str::trim).collect()
    }

    #[test]
    fn the_documentation_has_every_function() {
        let names = [SMALL, AGGREGATES, WINDOWS].into_iter().flatten().chain(GROWING.iter().map(|(name, _)| name));
        assert_eq!(documented(), names.copied().collect());
    }

    /// A new release of the engine adds nothing unseen, and what is said to be there is.
    #[test]
    fn every_function_of_the_engine_is_decided_on() {
        let scalars = SessionStateDefaults::default_scalar_functions();
        let higher = SessionStateDefaults::default_higher_order_functions();
        let aggregates = SessionStateDefaults::default_aggregate_functions();
        let windows = SessionStateDefaults::default_window_functions();
        let tables = SessionStateDefaults::default_table_functions();
        let known: BTreeSet<&str> = scalars
            .iter()
            .map(|known| known.name())
            .chain(higher.iter().map(|known| known.name()))
            .chain(aggregates.iter().map(|known| known.name()))
            .chain(windows.iter().map(|known| known.name()))
            .chain(tables.iter().map(|known| known.name()))
            .collect();
        let growing = GROWING.iter().map(|(name, _)| name);
        let lists = [SMALL, AGGREGATES, WINDOWS, TABLES, LEFT_OUT].into_iter().flatten();
        let decided: BTreeSet<&str> = lists.chain(growing).copied().collect();
        let undecided: Vec<_> = known.difference(&decided).collect();
        let unknown: Vec<_> = decided.difference(&known).collect();
        assert!(undecided.is_empty() && unknown.is_empty(), "undecided: {undecided:?}; unknown: {unknown:?}");
        let there = Functions::new(&Share::of(1 << 20));
        assert_eq!(there.scalars.len(), SMALL.len() + GROWING.len());
        assert_eq!((there.aggregates.len(), there.windows.len()), (AGGREGATES.len(), WINDOWS.len()));
        assert_eq!(there.tables.len(), TABLES.len());
    }
}

//! Differences that are settled: `differences.toml`, data beside the test.
//!
//! Each entry names capture, figure and, unless it is for all of them, (a part of) the flow; what the answers say and what
//! we say; and why, with the paragraph that decides it. An entry that no longer meets a difference is a failure.

use toml::{Table, Value};

use crate::judge::Difference;

const SETTLED: &str = include_str!("differences.toml");

/// A settled difference.
#[derive(Debug)]
pub(crate) struct Settled {
    capture: String,
    figures: Vec<String>,
    /// What the flow contains; empty: every flow of the capture.
    flow: String,
    /// Empty: whatever they say.
    theirs: String,
    /// Empty: whatever we say.
    ours: String,
}

impl Settled {
    pub(crate) fn all() -> Vec<Self> {
        let table: Table = SETTLED.parse().expect("TOML");
        let entries = table.get("difference").and_then(Value::as_array).cloned().unwrap_or_default();
        entries.iter().map(Self::new).collect()
    }

    fn new(entry: &Value) -> Self {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let known = ["capture", "figure", "flow", "theirs", "ours", "why"];
        for name in entry.as_table().into_iter().flat_map(Table::keys) {
            assert!(known.contains(&name.as_str()), "differences.toml: unknown field `{name}` in {entry:?}");
        }
        assert!(!text("why").is_empty(), "differences.toml: no `why` in {entry:?}");
        let figures = match entry.get("figure") {
            Some(Value::String(figure)) => vec![figure.clone()],
            Some(Value::Array(figures)) => figures.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => panic!("differences.toml: no `figure` in {entry:?}"),
        };
        Self { capture: text("capture"), figures, flow: text("flow"), theirs: text("theirs"), ours: text("ours") }
    }

    pub(crate) fn settles(&self, difference: &Difference) -> bool {
        let any_or = |wanted: &str, value: &str| wanted.is_empty() || wanted == value;
        self.capture == difference.capture
            && self.figures.iter().any(|figure| figure == difference.figure)
            && difference.flow.contains(&self.flow)
            && any_or(&self.theirs, &difference.theirs)
            && any_or(&self.ours, &difference.ours)
    }
}

/// Differences that no entry settles, and entries (each figure by itself) that settle nothing.
pub(crate) fn unsettled(differences: Vec<Difference>) -> (Vec<Difference>, Vec<String>) {
    let settled = Settled::all();
    let mut stale = Vec::new();
    for entry in &settled {
        for figure in &entry.figures {
            if !differences.iter().any(|d| d.figure == figure && entry.settles(d)) {
                stale.push(format!("{}: {}: {figure}", entry.capture, entry.flow));
            }
        }
    }
    let open = differences.into_iter().filter(|d| !settled.iter().any(|entry| entry.settles(d))).collect();
    (open, stale)
}

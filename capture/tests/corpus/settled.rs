//! Differences that are settled: `differences.toml`, data beside the test.
//!
//! Each entry names capture, figure and, unless it is for all of them, (a part of) the flow; what the answers say and what
//! we say; and why, with the paragraph that decides it. An entry that no longer meets a difference is a failure, unless it
//! `awaits` a part of the engine that is not written yet.

use toml::{Table, Value};

use crate::judge::Difference;

const SETTLED: &str = include_str!("differences.toml");

/// Figures that parts of the engine which are not written yet make differ: `capture figure` a line; `*` is every capture.
const PENDING: &str = include_str!("pending.txt");

/// A settled difference.
#[derive(Debug)]
pub(crate) struct Settled {
    capture: String,
    figures: Vec<String>,
    /// What the flow contains; empty: every flow of the capture.
    flow: String,
    /// May settle nothing yet.
    awaits: bool,
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
        let known = ["capture", "figure", "flow", "theirs", "ours", "why", "awaits"];
        for name in entry.as_table().into_iter().flat_map(Table::keys) {
            assert!(known.contains(&name.as_str()), "differences.toml: unknown field `{name}` in {entry:?}");
        }
        assert!(!text("why").is_empty(), "differences.toml: no `why` in {entry:?}");
        let figures = match entry.get("figure") {
            Some(Value::String(figure)) => vec![figure.clone()],
            Some(Value::Array(figures)) => figures.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => panic!("differences.toml: no `figure` in {entry:?}"),
        };
        Self {
            capture: text("capture"),
            figures,
            flow: text("flow"),
            awaits: !text("awaits").is_empty(),
            theirs: text("theirs"),
            ours: text("ours"),
        }
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
    for entry in settled.iter().filter(|entry| !entry.awaits) {
        for figure in &entry.figures {
            if !differences.iter().any(|d| d.figure == figure && entry.settles(d)) {
                stale.push(format!("{}: {}: {figure}", entry.capture, entry.flow));
            }
        }
    }
    let open = differences.into_iter().filter(|d| !settled.iter().any(|entry| entry.settles(d))).collect();
    (open, stale)
}

pub(crate) fn is_pending(difference: &Difference) -> bool {
    PENDING.lines().any(|line| {
        let parts = line.split_once(' ');
        parts.is_some_and(|(capture, figure)| {
            figure == difference.figure && (capture == "*" || capture == difference.capture)
        })
    })
}

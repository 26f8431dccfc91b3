//! Captures that nobody here made, judged by answers of independent tools (`../shared/corpus`).
//!
//! Every capture is read as `wiretag replay` reads it, and every figure that its index allows is compared. Differences
//! that are settled by definition are in `differences.toml`. All differences as a table:
//! `cargo nextest run -p wiretag-capture --test corpus --run-ignored only --no-capture report`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a corpus that is not as its README says fails the test; the report is for people"
)]

mod answers;
mod application;
mod invariance;
mod judge;
mod parallel;
mod rows;
mod settled;
mod tcp;
mod volume;
mod whole;

use std::collections::BTreeMap;

use answers::{Capture, corpus};
use judge::{Verdict, judge};
use rows::Replay;

fn verdict() -> Option<Verdict> {
    let corpus = corpus()?;
    let mut verdict = Verdict::default();
    for capture in Capture::all(&corpus) {
        judge(&capture, &Replay::of(&capture.path), &mut verdict);
    }
    Some(verdict)
}

/// The least number of comparisons of a figure: a test that compares nothing passes always.
const COMPARED: [(&str, usize); 28] = [
    ("tcp_state", 5),
    ("packets of the file", 128),
    ("times of the file", 110),
    ("link types", 110),
    ("address pair", 300),
    ("tunnel ids", 1),
    ("conversation", 700),
    ("packets", 600),
    ("bytes", 600),
    ("payload_bytes", 600),
    ("community_id", 600),
    ("vlan", 600),
    ("connections", 300),
    ("retransmits yes/no", 300),
    ("retransmits + out_of_order", 300),
    ("retransmits", 20),
    ("keep_alives", 20),
    ("zero_windows", 300),
    ("handshake_rtt_us", 200),
    ("client", 200),
    ("mss", 400),
    ("window_scale", 400),
    ("dns_query", 100),
    ("dns_latency_us", 50),
    ("tls_sni", 20),
    ("tls_ja4", 20),
    ("http_path", 50),
    ("http_latency_us", 50),
];

#[test]
fn figures_are_those_of_independent_tools() {
    let Some(verdict) = verdict() else { return };
    for (figure, least) in COMPARED {
        let compared = verdict.compared.get(figure).copied().unwrap_or(0);
        assert!(compared >= least, "{figure}: only {compared} compared");
    }
    let (open, stale) = settled::unsettled(verdict.differences);
    let lines: Vec<_> = open.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{} figures differ:\n{}", lines.len(), lines.join("\n"));
    assert!(stale.is_empty(), "entries of differences.toml that no longer apply:\n{}", stale.join("\n"));
}

/// Prints what is compared, and all open differences.
#[test]
#[ignore = "a report for people"]
fn report() {
    let Some(verdict) = verdict() else { return };
    let compared = verdict.compared;
    let (open, stale) = settled::unsettled(verdict.differences);
    let mut counts = BTreeMap::<&str, usize>::new();
    for difference in &open {
        println!("{difference}");
        *counts.entry(difference.figure).or_default() += 1;
    }
    println!("\n| figure | compared | differ |\n| --- | ---: | ---: |");
    for (figure, number) in &compared {
        println!("| {figure} | {number} | {} |", counts.get(figure).unwrap_or(&0));
    }
    println!("\nentries that no longer apply: {stale:#?}");
}

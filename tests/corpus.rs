//! `wiretag replay` on captures that nobody here made.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::collections::BTreeMap;

use serde_json::Value;
use support::{corpus, rows, wiretag};

/// Each capture is read as far as possible: exit code 0 or 1, never a panic, and every packet is accounted for.
#[test]
fn every_capture_is_survived_and_accounted_for() {
    let Some(corpus) = corpus() else { return };
    let mut seen = 0;
    for entry in std::fs::read_dir(corpus.join("pcaps")).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let output = wiretag(&["replay".as_ref(), "--null".as_ref(), path.as_os_str()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}: {text}", path.display());
        seen += 1;
        if output.status.code() == Some(1) {
            assert!(text.contains("error:"), "{}: {text}", path.display());
            continue;
        }
        let number = |before: &str| -> u64 {
            let tail = text.split(before).nth(1).unwrap_or_else(|| panic!("no `{before}` in {text}"));
            tail.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect("a number")
        };
        let refused: u64 = text
            .lines()
            .filter(|line| line.starts_with("not in flows"))
            .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).expect("a count"))
            .sum();
        assert_eq!(number("packets "), number("in flows ") + refused, "{}", path.display());
    }
    assert!(seen > 100, "only {seen} captures");
}

/// Packets and IP bytes of a conversation, both directions in one, by Community ID.
type Volumes = BTreeMap<String, (u64, u64)>;

fn expected(answer: &Value) -> Volumes {
    let mut volumes = Volumes::new();
    for flow in answer["tshark"]["flows"].as_array().into_iter().flatten() {
        let Some(id) = flow["community_id"].as_str() else { continue };
        let sum = |name: &str| {
            flow[format!("{name}_ab")].as_u64().unwrap_or(0) + flow[format!("{name}_ba")].as_u64().unwrap_or(0)
        };
        let entry = volumes.entry(id.to_owned()).or_default();
        entry.0 += sum("packets");
        entry.1 += sum("ip_bytes");
    }
    volumes
}

fn ours(flows: &[Value]) -> Volumes {
    let mut volumes = Volumes::new();
    for flow in flows {
        let Some(id) = flow["community_id"].as_str() else { continue };
        let sum = |name: &str| {
            flow[format!("client_{name}")].as_u64().unwrap_or(0) + flow[format!("server_{name}")].as_u64().unwrap_or(0)
        };
        let entry = volumes.entry(id.to_owned()).or_default();
        entry.0 += sum("packets");
        entry.1 += sum("bytes");
    }
    volumes
}

/// Captures whose protocols this release reads in full: conversations, packets and IP bytes are those of the tools.
#[test]
fn conversations_are_those_of_independent_tools() {
    let Some(corpus) = corpus() else { return };
    let names = include_str!("corpus-volumes.txt").lines().map(str::trim).filter(|line| !line.is_empty());
    let mut compared = 0;
    for name in names {
        let answer = std::fs::read(corpus.join("expected").join(format!("{name}.json"))).expect(name);
        let answer: Value = serde_json::from_slice(&answer).expect(name);
        let path = corpus.join("pcaps").join(name);
        let output = wiretag(&["replay".as_ref(), path.as_os_str()]);
        let flows = rows(&String::from_utf8(output.stdout).expect("text"));
        assert_eq!(ours(&flows), expected(&answer), "{name}");
        compared += 1;
    }
    assert!(compared > 40, "only {compared} captures compared");
}

/// Threads share the flows; what comes out is the same byte for byte.
#[test]
fn any_number_of_workers_gives_the_same_output() {
    let Some(corpus) = corpus() else { return };
    let mut bytes = 0;
    for entry in std::fs::read_dir(corpus.join("pcaps")).expect("the corpus") {
        let path = entry.expect("an entry").path();
        for what in [&[][..], &["--transactions"], &["--null"]] {
            let by = |workers: &str| {
                let mut arguments = vec!["replay".as_ref(), "--workers".as_ref(), workers.as_ref()];
                arguments.extend(what.iter().map(std::ffi::OsStr::new));
                arguments.push(path.as_os_str());
                let output = wiretag(&arguments);
                (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
            };
            let one = by("1");
            assert!(by("3") == one, "{} {what:?}", path.display());
            bytes += one.1.len();
        }
    }
    assert!(bytes > 500_000, "only {bytes} bytes compared");
}

//! Rules about the tree, read from `cargo metadata`: which crate may know which, licences, and crates that must not be
//! there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform"])
        .arg("x86_64-unknown-linux-gnu")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn packages(metadata: &Value) -> Vec<&Value> {
    metadata["packages"].as_array().expect("packages").iter().collect()
}

#[test]
fn dependencies_run_one_way() {
    let allowed = BTreeMap::from([
        ("wiretag-capture", vec![]),
        ("wiretag-enrich", vec!["wiretag-capture"]),
        ("wiretag-store", vec!["wiretag-capture", "wiretag-enrich"]),
        ("wiretag-web", vec!["wiretag-capture", "wiretag-enrich", "wiretag-store"]),
        ("wiretag", vec!["wiretag-capture", "wiretag-enrich", "wiretag-store", "wiretag-web"]),
    ]);
    let metadata = metadata();
    let mut seen = BTreeSet::new();
    for package in packages(&metadata) {
        let name = package["name"].as_str().expect("name");
        if !name.starts_with("wiretag") {
            continue;
        }
        let known = allowed.get(name).unwrap_or_else(|| panic!("`{name}` has no place in the layers"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let dependency = dependency["name"].as_str().expect("name");
            if dependency.starts_with("wiretag") {
                assert!(known.contains(&dependency), "`{name}` must not know `{dependency}`");
            }
        }
        seen.insert(name.to_owned());
    }
    assert_eq!(seen.len(), allowed.len(), "{seen:?}");
}

#[test]
fn licences_are_permissive() {
    const ALLOWED: &[&str] = &[
        "Apache-2.0",
        "MIT",
        "MIT-0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "Zlib",
        "Unicode-3.0",
        "CC0-1.0",
        "0BSD",
        "BSL-1.0",
        "Unlicense",
        "CDLA-Permissive-2.0",
        "Apache-2.0 WITH LLVM-exception",
    ];
    let metadata = metadata();
    for package in packages(&metadata) {
        let name = package["name"].as_str().expect("name");
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("`{name}` says no licence"));
        // Every term of an AND must have an allowed choice; `/` is the old spelling of OR.
        let fits = licence.replace(['(', ')'], "").split(" AND ").all(|term| {
            term.split(" OR ").flat_map(|choice| choice.split('/')).any(|choice| ALLOWED.contains(&choice.trim()))
        });
        assert!(fits, "`{name}` has the licence `{licence}`");
    }
}

/// Of what is built: `cargo metadata` also lists what a feature would add to a dependency that is not there (`ring?/std`).
#[test]
fn one_tls_and_no_openssl() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--locked", "--offline", "--target", "x86_64-unknown-linux-gnu"])
        .args(["--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let names: BTreeSet<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains("rustls") && names.contains("aws-lc-rs"), "{names:?}");
    for name in ["openssl", "openssl-sys", "ring", "native-tls"] {
        assert!(!names.contains(name), "`{name}` must not be in the tree");
    }
}

/// Two versions of one crate cost compile time and size: each that is there is known, with the crate that asks for it.
#[test]
fn duplicate_versions_are_known() {
    let known: BTreeSet<&str> = include_str!("duplicate-versions.txt")
        .lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|name| !name.is_empty())
        .collect();
    let metadata = metadata();
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let resolved: BTreeSet<&str> =
        metadata["resolve"]["nodes"].as_array().expect("nodes").iter().filter_map(|node| node["id"].as_str()).collect();
    for package in packages(&metadata) {
        if resolved.contains(package["id"].as_str().expect("id")) {
            let name = package["name"].as_str().expect("name");
            versions.entry(name).or_default().insert(package["version"].as_str().expect("version"));
        }
    }
    let duplicates: BTreeSet<&str> =
        versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| *name).collect();
    let new: Vec<_> = duplicates.difference(&known).collect();
    let gone: Vec<_> = known.difference(&duplicates).collect();
    assert!(
        new.is_empty(),
        "new duplicates: {new:?}; hint: align the versions or list them in tests/duplicate-versions.txt"
    );
    assert!(gone.is_empty(), "no longer duplicates: {gone:?}; hint: remove them from tests/duplicate-versions.txt");
}

/// Small files: none over 500 lines.
#[test]
fn files_are_small() {
    let output = Command::new("git")
        .args(["ls-files", "*.rs"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("git runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let lines = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    };
    let long: Vec<_> = text.lines().filter(|name| lines(name) > 500).collect();
    assert!(text.lines().count() > 100 && long.is_empty(), "over 500 lines: {long:?}");
}

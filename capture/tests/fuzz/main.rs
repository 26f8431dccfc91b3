//! A fuzz loop without libFuzzer: seeds are mutated with a seeded generator, so that a run is the same everywhere.
//!
//! * Seeds are hand-made packets and, where `../shared/corpus` is, its packets; under `CI=true` its absence is a failure.
//! * `WIRETAG_FUZZ_ITERATIONS` says how many inputs each target gets, `WIRETAG_FUZZ_SEED` where the generator begins; the
//!   defaults suit a debug build.
//! * A crash prints its input in hex and writes it to a file in the temporary directory. Moved to `crashes/` under a name
//!   that says what it is (`tls-record-of-no-bytes.hex`), it is replayed for ever after.
//!
//! To add a target: a module with a [`Target`], a line in [`TARGETS`], a test that calls [`fuzz::run`].
#![allow(clippy::unwrap_used, clippy::panic, reason = "what cannot be set up fails the test")]
#![allow(clippy::print_stdout, reason = "a failing test says with what")]

mod corpus;
mod decode;
mod dns;
mod dtls;
mod engine;
mod fuzz;
mod mutate;
mod netflow;
mod pieces;
mod quic;
mod quic_frames;
mod tls;

use crate::corpus::Corpus;

/// What is fuzzed. The name begins the names of its crashes.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) seeds: fn(&Corpus) -> Vec<Vec<u8>>,
    /// Must survive any input; may assert what must hold.
    pub(crate) run: fn(&[u8]),
    /// Inputs of a default run: about a second in a debug build.
    pub(crate) iterations: u64,
}

const TARGETS: &[&Target] = &[
    &decode::TARGET,
    &dns::TARGET,
    &dtls::TARGET,
    &engine::TARGET,
    &netflow::TARGET,
    &quic::TARGET,
    &quic_frames::TARGET,
    &tls::TARGET,
];

/// Every file in `crashes/` is survived now.
#[test]
fn crashes_of_the_past() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fuzz/crashes");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        // The longest name: `quic_frames-…` is not of `quic`.
        let target =
            TARGETS.iter().filter(|target| name.starts_with(target.name)).max_by_key(|target| target.name.len());
        let target = target.unwrap_or_else(|| panic!("`{name}` begins with no target's name"));
        println!("{name}");
        (target.run)(&fuzz::from_hex(&std::fs::read_to_string(&path).unwrap()));
    }
}

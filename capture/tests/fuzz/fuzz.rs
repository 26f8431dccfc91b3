//! The loop.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::Target;
use crate::corpus::Corpus;
use crate::mutate::{Rng, mutate};

/// Greatest input.
const MAX_INPUT: usize = 1 << 16;

/// Runs a target over its seeds, then over mutations of them.
pub(crate) fn run(target: &Target) {
    let seeds = (target.seeds)(&Corpus::load());
    assert!(!seeds.is_empty());
    for seed in &seeds {
        attempt(target, seed);
    }
    let iterations = setting("WIRETAG_FUZZ_ITERATIONS").unwrap_or(target.iterations);
    let mut rng = Rng::new(setting("WIRETAG_FUZZ_SEED").unwrap_or(1));
    let mut input = Vec::new();
    for _ in 0..iterations {
        input.clear();
        input.extend_from_slice(rng.choose::<Vec<u8>>(&seeds));
        for _ in 0..=rng.below(6) {
            mutate(&mut input, rng.choose(&seeds).as_slice(), &mut rng);
        }
        input.truncate(MAX_INPUT);
        attempt(target, &input);
    }
}

fn attempt(target: &Target, input: &[u8]) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) else { return };
    let text = hex(input);
    let hash = input.iter().fold(0_u32, |hash, byte| hash.wrapping_mul(16_777_619) ^ u32::from(*byte));
    let path = std::env::temp_dir().join(format!("{}-{hash:08x}.hex", target.name));
    std::fs::write(&path, &text).unwrap();
    println!("`{}` fails with this input, written to {}:\n{text}", target.name, path.display());
    println!("hint: move it to capture/tests/fuzz/crashes under a name that says what it is");
    resume_unwind(panic);
}

fn setting(name: &str) -> Option<u64> {
    let (_, value) = std::env::vars_os().find(|(key, _)| key == name)?;
    Some(value.to_string_lossy().parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        write!(text, "{byte:02x}{}", if at % 32 == 31 { "\n" } else { "" }).unwrap();
    }
    text + "\n"
}

/// Hex digits; everything else is passed over.
pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect()
}

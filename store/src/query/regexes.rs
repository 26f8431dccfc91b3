//! Regular expressions of one query: what they take together is limited, because a query is read before it has a place among
//! those that run, and a short expression may be large when it is compiled (`\w{500}`).
//!
//! The engine does not tell how large an expression has become. Therefore it is compiled with a small limit, and with a greater one as long as
//! that does not suffice; it counts as the limit that did. That is at most twice the work.

use std::collections::HashMap;

use regex::{Error, Regex, RegexBuilder};

use super::error::Mistake;
use super::values::Written;

/// Of one expression, bytes.
const MAX_ONE: usize = 1 << 20;
/// Of all expressions of a query, bytes.
const MAX_ALL: usize = 4 << 20;
/// The first limit, bytes: as many as a query can have tests of this size are not too many.
const FIRST: usize = 4 << 10;
/// Memory in which expressions remember what they have seen, for each thread that matches and each direction, bytes: of all
/// of a query, and of one.
const CACHES: usize = 16 << 20;
const CACHE: usize = 2 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Regexes {
    /// How many the query has at most.
    expected: usize,
    /// Each is compiled once, for however many columns.
    known: HashMap<String, Regex>,
    taken: usize,
}

impl Regexes {
    pub(super) fn expecting(expected: usize) -> Self {
        Self { expected, ..Self::default() }
    }

    /// Whether it can be used next to those before it, and otherwise why not: for SQL, whose engine compiles it by itself.
    pub(crate) fn read(&mut self, text: &str) -> Result<(), String> {
        let read = self.regex(&Written { text: text.to_owned(), column: 1 });
        read.map(|_| ()).map_err(|mistake| mistake.message)
    }

    pub(super) fn regex(&mut self, value: &Written) -> Result<Regex, Mistake> {
        if let Some(known) = self.known.get(&value.text) {
            return Ok(known.clone());
        }
        let (regex, size) = self.compiled(value)?;
        self.taken += size;
        self.known.insert(value.text.clone(), regex.clone());
        Ok(regex)
    }

    fn compiled(&self, value: &Written) -> Result<(Regex, usize), Mistake> {
        let left = MAX_ALL - self.taken;
        let mut limit = FIRST.min(left);
        loop {
            let mut builder = RegexBuilder::new(&value.text);
            let cache = (CACHES / self.expected.max(1)).min(CACHE);
            match builder.size_limit(limit).dfa_size_limit(cache).build() {
                Ok(regex) => return Ok((regex, limit)),
                Err(Error::CompiledTooBig(_)) if limit < MAX_ONE.min(left) => limit = (2 * limit).min(left),
                Err(Error::CompiledTooBig(_)) if limit < MAX_ONE => return Err(too_many(value)),
                Err(error) => return Err(wrong(value, &error)),
            }
        }
    }
}

fn too_many(value: &Written) -> Mistake {
    let mib = MAX_ALL >> 20;
    let message = format!("the regular expressions up to this one need more than {mib} MiB when they are compiled");
    Mistake::new(value.column, message).hint(
        "use fewer of them, or patterns as in `pod == web-*`; `[0-9]` and `[a-z]` are far smaller than `\\d` and `\\w`",
    )
}

fn wrong(value: &Written, error: &Error) -> Mistake {
    let reason = error.to_string();
    let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Mistake::new(value.column, format!("not a regular expression: {last}"))
        .hint("the syntax is that of RE2; put it in double quotes")
}

#[cfg(test)]
mod tests {
    use wiretag_capture::FlowRecord;

    use crate::query::{QueryError, parse};

    fn read(tests: usize, one: impl Fn(usize) -> String) -> Result<(), QueryError> {
        let tests: Vec<String> = (0..tests).map(|at| format!("client_pod ~ '{}'", one(at))).collect();
        parse::<FlowRecord>(&tests.join(" or ")).map(|_| ())
    }

    #[test]
    fn what_all_of_a_query_take_is_limited() {
        read(3, |at| format!(r"^\w{{{}}}$", at + 3)).unwrap();
        let error = read(20, |at| format!(r"^\w{{{}}}$", at + 8)).unwrap_err();
        assert!(error.message.contains("up to this one need more than 4 MiB"), "{error}");
        assert!(error.column > 50, "not the first: {error}");
        let error = read(1, |_| r"\w{500}".into()).unwrap_err();
        assert!(error.message.contains("exceeds size limit of 1048576"), "{error}");
    }

    #[test]
    fn many_small_ones_and_the_same_one_again_are_no_trouble() {
        read(400, |at| format!("^web-{at}[0-9]$")).unwrap();
        read(400, |_| r"^\w{9}$".into()).unwrap();
    }
}

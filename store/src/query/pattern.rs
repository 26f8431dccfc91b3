//! Text patterns with `*` (any characters) and `?` (one character); `\` takes the meaning from the next character.

use std::net::IpAddr;

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    One(char),
    AnyOne,
    Any,
}

/// A pattern for a whole text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    parts: Vec<Part>,
    ignore_case: bool,
    /// The text that alone matches, if there is one.
    exact: Option<String>,
    /// The address whose one spelling this text is.
    address: Option<IpAddr>,
}

fn folded(character: char) -> char {
    // One to one, so that positions stay; the few characters that fold to several keep their case.
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => one,
        _ => character,
    }
}

fn literal(parts: &[Part]) -> Option<String> {
    let one = |part: &Part| match part {
        Part::One(character) => Some(*character),
        Part::AnyOne | Part::Any => None,
    };
    parts.iter().map(one).collect()
}

impl Pattern {
    /// Reads a pattern as a user wrote it.
    pub(crate) fn new(text: &str, ignore_case: bool) -> Self {
        let mut parts = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let part = match character {
                '*' if parts.last() == Some(&Part::Any) => continue,
                '*' => Part::Any,
                '?' => Part::AnyOne,
                '\\' => Part::One(characters.next().unwrap_or('\\')),
                other => Part::One(other),
            };
            parts.push(match part {
                Part::One(character) if ignore_case => Part::One(folded(character)),
                other => other,
            });
        }
        let exact = if ignore_case { None } else { literal(&parts) };
        let address = exact.as_ref().and_then(|text| text.parse().ok().filter(|ip: &IpAddr| ip.to_string() == *text));
        Self { parts, ignore_case, exact, address }
    }

    /// The same pattern anywhere in a text.
    pub(crate) fn anywhere(mut self) -> Self {
        if self.parts.first() != Some(&Part::Any) {
            self.parts.insert(0, Part::Any);
        }
        if self.parts.last() != Some(&Part::Any) {
            self.parts.push(Part::Any);
        }
        (self.exact, self.address) = (None, None);
        self
    }

    /// The text that alone matches, if there are no wildcards and case counts.
    pub(crate) fn exact(&self) -> Option<String> {
        self.exact.clone()
    }

    pub(super) fn is_exact(&self) -> bool {
        self.exact.is_some()
    }

    /// The address whose text alone matches.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The text without wildcards, if there are none.
    pub(crate) fn literal(&self) -> Option<String> {
        literal(&self.parts)
    }

    /// Whether the whole of `text` fits. Time is at most length of text × length of pattern.
    pub(crate) fn matches(&self, text: &str) -> bool {
        if let Some(exact) = &self.exact {
            return exact == text;
        }
        let (mut at, mut rest) = (0, text.chars());
        // Where to go on when a guess about the last `*` fails: it takes one character more.
        let mut retry: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            let next = rest.next();
            match (self.parts.get(at), next) {
                (Some(Part::Any), _) => {
                    at += 1;
                    rest = before.clone();
                    retry = Some((at, before));
                    continue;
                }
                (Some(Part::AnyOne), Some(_)) => {
                    at += 1;
                    continue;
                }
                (Some(Part::One(wanted)), Some(character)) if self.equal(*wanted, character) => {
                    at += 1;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            let Some((after_star, from)) = &mut retry else { return false };
            if from.next().is_none() {
                return false;
            }
            at = *after_star;
            rest = from.clone();
        }
    }

    fn equal(&self, wanted: char, character: char) -> bool {
        wanted == if self.ignore_case { folded(character) } else { character }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn wildcards() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("a", "", false),
            ("*", "", true),
            ("checkout-*", "checkout-7d9", true),
            ("checkout-*", "Checkout-7d9", false),
            ("*b*c", "abxbc", true),
            ("*b*c", "abxbcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            (r"a\*c", "a*c", true),
            (r"a\*c", "abc", false),
            ("**ü?", "grüß", true),
        ] {
            assert_eq!(Pattern::new(pattern, false).matches(text), fits, "{pattern} {text}");
        }
        assert!(Pattern::new("eckO", true).anywhere().matches("CHECKOUT"));
    }
}

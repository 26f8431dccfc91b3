//! Values in queries, read by the kind of the column that they are compared with.

use std::net::IpAddr;

use wiretag_capture::Kind;
use wiretag_capture::record::Protocol;
use wiretag_enrich::Record;

use super::ast::{Compare, Field, Network, Test, TextTest};
use super::error::Mistake;
use super::fields;
use super::lexer::Operator;
use super::pattern::Pattern;
use super::regexes::Regexes;
use super::time;

/// A value as written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) column: usize,
}

/// What values of one query are read with.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// What relative times count from; without it they are mistakes.
    pub(super) now: Option<i64>,
    pub(super) regexes: Regexes,
}

/// `field operator value`, as [`Reading`] says.
pub(super) fn test<R: Record>(
    field: &Field<R>,
    operator: Operator,
    value: &Written,
    reading: &mut Reading,
) -> Result<Test, Mistake> {
    let kind = if field.key.is_some() { Kind::Text } else { field.column.kind() };
    match (kind, operator) {
        (Kind::Number | Kind::Size | Kind::Duration, operator) => {
            let compare = compare(operator).ok_or_else(|| not_text(field, value))?;
            Ok(Test::Number(compare, possible(field, number(kind, value)?, value)?))
        }
        (Kind::Time, operator) => {
            let compare = compare(operator).ok_or_else(|| not_text(field, value))?;
            Ok(Test::Time(compare, point_in_time(value, reading.now)?))
        }
        (Kind::Bool, Operator::Equal | Operator::NotEqual) => {
            let wanted = match value.text.as_str() {
                "true" => true,
                "false" => false,
                other => return Err(Mistake::new(value.column, format!("`{other}` is neither `true` nor `false`"))),
            };
            Ok(Test::Bool(wanted == (operator == Operator::Equal)))
        }
        (Kind::Map, _) => Err(Mistake::new(value.column, format!("`{}` needs a key", field.column.name()))
            .hint("write `labels.app == checkout`, or `labels.\"app.kubernetes.io/name\"`")),
        (Kind::Ip | Kind::Mac | Kind::Text | Kind::Word, Operator::Equal) => Ok(Test::Text(text(field, value)?)),
        (Kind::Ip | Kind::Mac | Kind::Text | Kind::Word, Operator::NotEqual) => Ok(Test::NotText(text(field, value)?)),
        (Kind::Ip | Kind::Mac | Kind::Text | Kind::Word, Operator::Matches) => {
            Ok(Test::Text(TextTest::Regex(reading.regexes.regex(value)?)))
        }
        (Kind::Ip | Kind::Mac | Kind::Text | Kind::Word, Operator::MatchesNot) => {
            Ok(Test::NotText(TextTest::Regex(reading.regexes.regex(value)?)))
        }
        (Kind::Bool | Kind::Ip | Kind::Mac | Kind::Text | Kind::Word, _) => {
            Err(Mistake::new(value.column, format!("`{}` has no order", field.column.name()))
                .hint("`==`, `!=`, `in`, `exists` work here, and `~`, `!~` for text"))
        }
    }
}

/// `low..high` in a set: both included.
pub(super) fn range<R: Record>(field: &Field<R>, value: &Written) -> Option<(Written, Written)> {
    let numeric = matches!(field.column.kind(), Kind::Number | Kind::Size | Kind::Duration | Kind::Time);
    let (low, high) = value.text.split_once("..").filter(|_| numeric && field.key.is_none())?;
    let column = value.column + low.chars().count() + 2;
    Some((Written { text: low.into(), column: value.column }, Written { text: high.into(), column }))
}

fn point_in_time(value: &Written, now: Option<i64>) -> Result<i64, Mistake> {
    let time = match now {
        Some(now) => time::parse_time(&value.text, now),
        None => time::absolute(&value.text),
    };
    time.map_err(|error| {
        let error = error.to_string();
        let (what, hint) = error.split_once("; hint: ").unwrap_or((&error, time::FORMS));
        Mistake::new(value.column, what).hint(hint)
    })
}

/// Refuses a number that the column never holds: the condition would silently be always or never true.
fn possible<R: Record>(field: &Field<R>, number: u64, value: &Written) -> Result<u64, Mistake> {
    let name = field.column.name();
    match fields::greatest(name).filter(|greatest| number > *greatest) {
        Some(greatest) => Err(Mistake::new(value.column, format!("`{}` is out of range", value.text))
            .hint(format!("the greatest value of `{name}` is {greatest}"))),
        None => Ok(number),
    }
}

fn compare(operator: Operator) -> Option<Compare> {
    Some(match operator {
        Operator::Equal => Compare::Equal,
        Operator::NotEqual => Compare::NotEqual,
        Operator::Less => Compare::Less,
        Operator::LessEqual => Compare::LessEqual,
        Operator::Greater => Compare::Greater,
        Operator::GreaterEqual => Compare::GreaterEqual,
        Operator::Matches | Operator::MatchesNot => return None,
    })
}

fn not_text<R: Record>(field: &Field<R>, value: &Written) -> Mistake {
    Mistake::new(value.column, format!("`{}` is not text: `~` does not work here", field.column.name()))
        .hint("use `==`, `!=`, `<`, `<=`, `>`, `>=` or `in`")
}

/// Units by kind; a duration without a unit is µs, a size bytes.
fn units(kind: Kind) -> &'static [(&'static str, u128)] {
    match kind {
        Kind::Duration => &[
            ("", 1),
            ("us", 1),
            ("µs", 1),
            ("μs", 1),
            ("ms", 1_000),
            ("s", 1_000_000),
            ("m", 60_000_000),
            ("h", 3_600_000_000),
            ("d", 86_400_000_000),
        ],
        Kind::Size => &[
            ("", 1),
            ("b", 1),
            // As tables print them.
            ("k", 1_000),
            ("m", 1_000_000),
            ("g", 1_000_000_000),
            ("t", 1_000_000_000_000),
            ("kb", 1_000),
            ("mb", 1_000_000),
            ("gb", 1_000_000_000),
            ("tb", 1_000_000_000_000),
            ("kib", 1 << 10),
            ("mib", 1 << 20),
            ("gib", 1 << 30),
            ("tib", 1 << 40),
        ],
        _ => &[("", 1)],
    }
}

fn number(kind: Kind, value: &Written) -> Result<u64, Mistake> {
    let expected = match kind {
        Kind::Duration => "a duration such as `20ms`, `1.5s` or `250` (µs)",
        Kind::Size => "a size such as `1500`, `25k`, `10KB` or `1MiB`",
        _ => "a whole number",
    };
    let fail = || Mistake::new(value.column, format!("`{}` is not {expected}", value.text));
    let split = value.text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(value.text.len());
    let (digits, rest) = value.text.split_at(split);
    let (power, unit) = exponent(rest);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.contains('.') || whole.len() > 20 || fraction.len() > 12 {
        return Err(fail());
    }
    if kind == Kind::Duration
        && let Some(span) = time::span(&value.text).and_then(|span| u64::try_from(span).ok())
    {
        return Ok(span / 1_000);
    }
    let lower = unit.to_lowercase();
    let Some((_, scale)) = units(kind).iter().find(|(name, _)| *name == lower) else {
        let known: Vec<String> =
            units(kind).iter().filter(|(name, _)| !name.is_empty()).map(|(name, _)| format!("`{name}`")).collect();
        let mistake = Mistake::new(value.column + split, format!("`{rest}` is not a unit of this column"));
        return Err(if known.is_empty() { fail() } else { mistake.hint(format!("valid units: {}", known.join(", "))) });
    };
    let parse = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u128>() };
    let (Ok(whole), Ok(part)) = (parse(whole), parse(fraction)) else { return Err(fail()) };
    let ten = 10_u128.pow(fraction.len() as u32);
    let scaled = (whole * ten + part).checked_mul(*scale).and_then(|all| all.checked_mul(10_u128.pow(power)));
    let too_great = || fail().hint("the greatest value is 18446744073709551615");
    let scaled = scaled.ok_or_else(too_great)?;
    if !scaled.is_multiple_of(ten) {
        return Err(fail().hint("the column counts whole units; this has a fraction of one"));
    }
    u64::try_from(scaled / ten).map_err(|_| too_great())
}

/// `e9` at the beginning as a power of ten, and what follows it.
fn exponent(text: &str) -> (u32, &str) {
    let Some(rest) = text.strip_prefix(['e', 'E']) else { return (0, text) };
    let rest = rest.strip_prefix('+').unwrap_or(rest);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, unit) = rest.split_at(end);
    match digits.parse() {
        Ok(power @ 0..=18) => (power, unit),
        _ => (0, text),
    }
}

fn text<R: Record>(field: &Field<R>, value: &Written) -> Result<TextTest, Mistake> {
    if field.key.is_some() {
        return Ok(TextTest::Pattern(Pattern::new(&value.text, false)));
    }
    match field.column.kind() {
        Kind::Ip => address(value),
        Kind::Mac => link_address(value),
        Kind::Word => word(field.column.name(), value),
        _ => Ok(TextTest::Pattern(Pattern::new(&value.text, false))),
    }
}

fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?'])
}

fn address(value: &Written) -> Result<TextTest, Mistake> {
    if let Ok(ip) = value.text.parse::<IpAddr>() {
        return Ok(TextTest::Pattern(Pattern::new(&ip.to_string(), false)));
    }
    if let Some(network) = Network::parse(&value.text) {
        return Ok(TextTest::Network(network));
    }
    let plausible = value.text.chars().all(|c| c.is_ascii_hexdigit() || ".:*?".contains(c));
    if has_wildcard(&value.text) && plausible {
        return Ok(TextTest::Pattern(Pattern::new(&value.text, true)));
    }
    Err(Mistake::new(value.column, format!("`{}` is neither an address nor a network", value.text))
        .hint("write `10.1.2.3`, `10.0.0.0/8`, `fd00::/8` or `10.1.*`"))
}

fn link_address(value: &Written) -> Result<TextTest, Mistake> {
    let plain = value.text.to_lowercase().replace('-', ":");
    let bytes: Vec<&str> = plain.split(':').collect();
    let whole =
        bytes.len() == 6 && bytes.iter().all(|byte| byte.len() == 2 && byte.chars().all(|c| c.is_ascii_hexdigit()));
    if whole || (has_wildcard(&plain) && plain.chars().all(|c| c.is_ascii_hexdigit() || ":*?".contains(c))) {
        return Ok(TextTest::Pattern(Pattern::new(&plain, false)));
    }
    Err(Mistake::new(value.column, format!("`{}` is not a link-layer address", value.text))
        .hint("write `aa:bb:cc:dd:ee:ff` or `aa:bb:*`"))
}

/// An IP protocol by its name or number.
fn protocol(value: &Written) -> Result<TextTest, Mistake> {
    let names: Vec<String> = (0..=u8::MAX).map(|number| Protocol(number).name().into_owned()).collect();
    let named = || names.iter().find(|name| name.eq_ignore_ascii_case(&value.text)).cloned();
    let numbered = value.text.parse::<u8>().map(|number| Protocol(number).name().into_owned());
    if let Some(name) = numbered.ok().or_else(named) {
        return Ok(TextTest::Pattern(Pattern::new(&name, false)));
    }
    let meant = fields::nearest_of(&value.text, names.iter().map(String::as_str));
    let meant = meant.map_or_else(String::new, |word| format!("did you mean `{word}`? "));
    Err(Mistake::new(value.column, format!("`{}` is not a protocol", value.text))
        .hint(format!("{meant}valid: a name such as `tcp`, `udp`, `icmp6`, or a number up to 255")))
}

fn word(column: &str, value: &Written) -> Result<TextTest, Mistake> {
    let pattern = Pattern::new(&value.text, true);
    if pattern.literal().is_none() {
        return Ok(TextTest::Pattern(pattern));
    }
    if column == "protocol" {
        return protocol(value);
    }
    let Some(valid) = fields::closed_set(column) else { return Ok(TextTest::Pattern(pattern)) };
    if let Some(spelling) = valid.iter().find(|word| word.eq_ignore_ascii_case(&value.text)) {
        return Ok(TextTest::Pattern(Pattern::new(spelling, false)));
    }
    let mistake = Mistake::new(value.column, format!("`{}` is not a value of `{column}`", value.text));
    let list: Vec<String> = valid.iter().map(|word| format!("`{word}`")).collect();
    let meant = fields::nearest_of(&value.text, valid.iter().copied());
    let meant = meant.map_or_else(String::new, |word| format!("did you mean `{word}`? "));
    Err(mistake.hint(format!("{meant}valid: {}", list.join(", "))))
}

/// Whether a bare word is an address or network rather than a name.
pub(super) fn bare_address(value: &Written) -> Option<TextTest> {
    (value.text.parse::<IpAddr>().is_ok() || Network::parse(&value.text).is_some())
        .then(|| address(value).ok())
        .flatten()
}

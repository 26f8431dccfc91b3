//! The typed query over the rows of one table: what the parser hands to the evaluator and to the store.

use std::net::IpAddr;

use wiretag_enrich::tagged::AnyColumn;

use super::pattern::Pattern;
use super::sets::Alternatives;

/// A condition on a row. Every node is true or false, never unknown.
#[derive(Debug, Clone)]
pub(crate) enum Node<R: 'static> {
    /// Every row.
    All,
    And(Vec<Node<R>>),
    Or(Alternatives<R>),
    Not(Box<Node<R>>),
    /// False for a null, except that `Exists` asks just that.
    Test(Field<R>, Test),
}

/// What a test looks at.
#[derive(Debug, Clone)]
pub(crate) struct Field<R: 'static> {
    pub(crate) column: AnyColumn<R>,
    /// Key within a map.
    pub(crate) key: Option<String>,
}

/// Numeric comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Compare {
    pub(crate) fn holds<T: Ord>(self, left: &T, right: &T) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterEqual => left >= right,
        }
    }
}

/// A test of one value.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    Exists,
    Bool(bool),
    Number(Compare, u64),
    Time(Compare, i64),
    Text(TextTest),
    /// Not null, and the text does not pass.
    NotText(TextTest),
}

/// A test of a text (names, addresses and link-layer addresses in their one spelling).
#[derive(Debug, Clone)]
pub(crate) enum TextTest {
    Pattern(Pattern),
    Regex(regex::Regex),
    Network(Network),
}

impl TextTest {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(text),
            Self::Regex(regex) => regex.is_match(text),
            Self::Network(network) => text.parse().is_ok_and(|ip| network.contains(ip)),
        }
    }

    /// The same of an address; `None`: its text has to be asked.
    pub(super) fn admits(&self, ip: IpAddr) -> Option<bool> {
        match self {
            Self::Pattern(pattern) => pattern.is_exact().then(|| pattern.address() == Some(ip)),
            Self::Regex(_) => None,
            Self::Network(network) => Some(network.contains(ip)),
        }
    }
}

/// An address block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    base: IpAddr,
    bits: u8,
}

fn leading(ip: IpAddr, bits: u8) -> u128 {
    let (number, width) = match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    number.checked_shr(u32::from(width - bits.min(width))).unwrap_or(0)
}

impl Network {
    /// `10.0.0.0/8`; host bits are ignored.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/')?;
        let base: IpAddr = base.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if base.is_ipv4() { 32 } else { 128 }).then_some(Self { base, bits })
    }

    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        self.base.is_ipv4() == ip.is_ipv4() && leading(self.base, self.bits) == leading(ip, self.bits)
    }
}

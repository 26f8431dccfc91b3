//! What columns hold: one value, or the values of many rows.

use std::borrow::Cow;
use std::net::IpAddr;

/// What a column holds; decides its type in Parquet and in queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// True or false.
    Bool,
    /// A count or number.
    Number,
    /// Bytes; queries accept units (`10KB`, `1MiB`).
    Size,
    /// Microseconds; queries accept units (`20ms`, `1s`).
    Duration,
    /// Nanoseconds since the epoch, UTC; RFC 3339 in text.
    Time,
    /// IP address.
    Ip,
    /// Link-layer address, `aa:bb:cc:dd:ee:ff`.
    Mac,
    /// Text.
    Text,
    /// Text from a small closed set.
    Word,
    /// Text to text.
    Map,
}

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// Not seen.
    Null,
    /// [`Kind::Bool`].
    Bool(bool),
    /// [`Kind::Number`], [`Kind::Size`], [`Kind::Duration`].
    Number(u64),
    /// [`Kind::Time`].
    Time(i64),
    /// [`Kind::Ip`].
    Ip(IpAddr),
    /// [`Kind::Mac`].
    Mac([u8; 6]),
    /// [`Kind::Text`], [`Kind::Word`].
    Text(Cow<'a, str>),
    /// [`Kind::Map`], sorted by key.
    Map(Vec<(&'a str, &'a str)>),
}

impl Value<'_> {
    /// A link-layer address as users see it.
    pub fn mac_text(mac: [u8; 6]) -> String {
        mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// The values of one column in rows, in their order; `None`: not seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Values<'a> {
    /// [`Kind::Bool`].
    Bools(Vec<Option<bool>>),
    /// [`Kind::Number`], [`Kind::Size`], [`Kind::Duration`].
    Numbers(Vec<Option<u64>>),
    /// [`Kind::Time`].
    Times(Vec<Option<i64>>),
    /// [`Kind::Ip`].
    Ips(Vec<Option<IpAddr>>),
    /// [`Kind::Mac`].
    Macs(Vec<Option<[u8; 6]>>),
    /// [`Kind::Text`], [`Kind::Word`].
    Texts(Vec<Option<Cow<'a, str>>>),
    /// [`Kind::Map`].
    Maps(Vec<Option<Vec<(&'a str, &'a str)>>>),
}

impl<'a> Values<'a> {
    /// Collects values of `kind`; one of another kind is none. Where the compiler knows kind and iterator it leaves one loop, in
    /// which no [`Value`] is made.
    #[inline]
    pub fn of(kind: Kind, values: impl Iterator<Item = Value<'a>>) -> Self {
        match kind {
            Kind::Bool => {
                Self::Bools(values.map(|it| if let Value::Bool(it) = it { Some(it) } else { None }).collect())
            }
            Kind::Number | Kind::Size | Kind::Duration => {
                Self::Numbers(values.map(|it| if let Value::Number(it) = it { Some(it) } else { None }).collect())
            }
            Kind::Time => {
                Self::Times(values.map(|it| if let Value::Time(it) = it { Some(it) } else { None }).collect())
            }
            Kind::Ip => Self::Ips(values.map(|it| if let Value::Ip(it) = it { Some(it) } else { None }).collect()),
            Kind::Mac => Self::Macs(values.map(|it| if let Value::Mac(it) = it { Some(it) } else { None }).collect()),
            Kind::Text | Kind::Word => {
                Self::Texts(values.map(|it| if let Value::Text(it) = it { Some(it) } else { None }).collect())
            }
            Kind::Map => Self::Maps(values.map(|it| if let Value::Map(it) = it { Some(it) } else { None }).collect()),
        }
    }
}

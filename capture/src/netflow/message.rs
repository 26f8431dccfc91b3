//! Messages of the three formats: NetFlow v5 (Cisco, *NetFlow Services Solutions Guide*, appendix), v9 (RFC 3954), IPFIX (RFC 7011).
//!
//! ```text
//! v5     version count uptime seconds nanoseconds number engine(2) sampling(2) | record of 48 bytes …
//! v9     version count uptime seconds number source                          | set …
//! IPFIX  version length seconds number domain                                | set …
//! set    id length | template … or record …
//! ```

use super::element::{Element, Side, Way};
use super::template::{Dialect, Template};
use super::time::Clocks;
use super::wire::Reader;

const SECOND: i64 = 1_000_000_000;

/// Why a message, or the rest of one, is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// A version that is none of the three.
    Version,
    /// Shorter than its header, or than the header says.
    Cut,
    /// A set that is longer than the rest of the message, or shorter than its own header.
    Set,
    /// A template that contradicts itself.
    Template,
}

impl Malformed {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Cut => "cut",
            Self::Set => "set",
            Self::Template => "template",
        }
    }
}

/// The format of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    V5 {
        /// Records that follow.
        records: u16,
        /// One of so many packets was looked at.
        sampling: u16,
    },
    Sets(Dialect),
}

/// What its header says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) format: Format,
    pub(super) version: u16,
    pub(super) number: u32,
    /// Engine, source or observation domain.
    pub(super) domain: u32,
    pub(super) clocks: Clocks,
}

/// Reads the header; the rest of the message remains.
pub(super) fn header(message: &mut Reader<'_>) -> Result<Header, Malformed> {
    let whole = message.len();
    match message.u16().ok_or(Malformed::Cut)? {
        5 => v5(message).ok_or(Malformed::Cut),
        9 => v9(message).ok_or(Malformed::Cut),
        10 => ipfix(message, whole).ok_or(Malformed::Cut),
        _ => Err(Malformed::Version),
    }
}

fn v5(message: &mut Reader<'_>) -> Option<Header> {
    let records = message.u16()?;
    let (uptime, seconds, nanoseconds) = (message.u32()?, message.u32()?, message.u32()?);
    let (number, engine, sampling) = (message.u32()?, message.u16()?, message.u16()?);
    let is_whole = message.len() >= usize::from(records) * V5_RECORD;
    let exported = i64::from(seconds) * SECOND + i64::from(nanoseconds.min(999_999_999));
    is_whole.then_some(Header {
        // The upper two bits say how packets are chosen.
        format: Format::V5 { records, sampling: sampling & 0x3fff },
        version: 5,
        number,
        domain: engine.into(),
        clocks: Clocks { exported, uptime: Some(uptime), booted: None },
    })
}

fn v9(message: &mut Reader<'_>) -> Option<Header> {
    // The number of records, of templates too: sets say all that is needed.
    let _count = message.u16()?;
    let (uptime, seconds) = (message.u32()?, message.u32()?);
    let (number, domain) = (message.u32()?, message.u32()?);
    let exported = i64::from(seconds) * SECOND;
    let clocks = Clocks { exported, uptime: Some(uptime), booted: None };
    Some(Header { format: Format::Sets(Dialect::V9), version: 9, number, domain, clocks })
}

fn ipfix(message: &mut Reader<'_>, whole: usize) -> Option<Header> {
    const LENGTH: usize = 16;
    let length = usize::from(message.u16()?);
    let (seconds, number, domain) = (message.u32()?, message.u32()?, message.u32()?);
    if length > whole {
        return None;
    }
    // What comes after the message's end is none of it.
    *message = Reader::new(message.take(length.checked_sub(LENGTH)?)?);
    let clocks = Clocks { exported: i64::from(seconds) * SECOND, uptime: None, booted: None };
    Some(Header { format: Format::Sets(Dialect::Ipfix), version: 10, number, domain, clocks })
}

/// What a set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Templates,
    OptionsTemplates,
    /// Records of the template with this id.
    Data(u16),
    /// Of no meaning.
    Reserved,
}

/// The next set; `None` at the end of the message.
pub(super) fn set<'a>(dialect: Dialect, message: &mut Reader<'a>) -> Result<Option<(Kind, Reader<'a>)>, Malformed> {
    const HEADER: usize = 4;
    if message.len() < HEADER {
        return Ok(None);
    }
    let (id, length) = (message.u16().ok_or(Malformed::Set)?, message.u16().ok_or(Malformed::Set)?);
    let length = usize::from(length).checked_sub(HEADER).ok_or(Malformed::Set)?;
    let contents = Reader::new(message.take(length).ok_or(Malformed::Set)?);
    let kind = match (dialect, id) {
        (Dialect::V9, 0) | (Dialect::Ipfix, 2) => Kind::Templates,
        (Dialect::V9, 1) | (Dialect::Ipfix, 3) => Kind::OptionsTemplates,
        (_, 256..) => Kind::Data(id),
        (_, 0..256) => Kind::Reserved,
    };
    Ok(Some((kind, contents)))
}

/// Bytes of a record of NetFlow v5.
const V5_RECORD: usize = 48;

/// The records of NetFlow v5, which has no templates, as one.
pub(super) fn v5_template() -> Template {
    use super::element::Clock::Uptime;
    Template::of_flows(&[
        (Element::Address(Side::Source), 4),
        (Element::Address(Side::Destination), 4),
        // Next hop.
        (Element::Unknown, 4),
        (Element::Ingress, 2),
        (Element::Egress, 2),
        (Element::Packets(Way::Forward), 4),
        (Element::Bytes(Way::Forward), 4),
        (Element::Start(Uptime), 4),
        (Element::End(Uptime), 4),
        (Element::Port(Side::Source), 2),
        (Element::Port(Side::Destination), 2),
        (Element::Unknown, 1),
        (Element::TcpFlags(Way::Forward), 1),
        (Element::Protocol, 1),
        (Element::TypeOfService(Way::Forward), 1),
        // Autonomous systems, masks, padding.
        (Element::Unknown, 8),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_v5_has_48_bytes() {
        let template = v5_template();
        let bytes = [0; V5_RECORD];
        let mut set = Reader::new(&bytes);
        assert_eq!(template.read(&mut set, |_, _| {}), Some(()));
        assert!(set.is_empty());
    }
}

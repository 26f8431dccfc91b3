//! ClientHello and ServerHello: TLS 1.0 to 1.3 (RFC 8446, 4.1; RFC 5246, 7.4.1), DTLS (RFC 6347, 4.2.1; RFC 9147, 5.3).
//!
//! Both are views: [`ClientHello::parse`] and [`ServerHello::parse`] need the fixed part, extensions are read as far as
//! their lengths fit. Message headers are the carrier's and not part of the body.

use super::Carrier;
use crate::app::cursor::{Cursor, u16s};

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// The random of a HelloRetryRequest (RFC 8446, 4.1.3).
const HELLO_RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a client offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientHello<'a> {
    /// `legacy_version`.
    version: u16,
    ciphers: &'a [u8],
    extensions: Extensions<'a>,
}

impl<'a> ClientHello<'a> {
    pub(super) fn parse(body: &'a [u8], carrier: Carrier) -> Option<Self> {
        let mut body = Cursor::new(body);
        let version = body.u16()?;
        let _random = body.take(32)?;
        let _session = body.vec8()?;
        match carrier {
            Carrier::Dtls => drop(body.vec8()?),
            Carrier::Tls | Carrier::Quic => {}
        }
        let ciphers = body.vec16()?;
        let _compressions = body.vec8()?;
        Some(Self { version, ciphers, extensions: Extensions::read(&mut body) })
    }

    pub(super) const fn legacy_version(&self) -> u16 {
        self.version
    }

    pub(super) fn ciphers(&self) -> impl Iterator<Item = u16> {
        u16s(self.ciphers)
    }

    pub(super) fn extensions(&self) -> impl Iterator<Item = u16> {
        self.extensions.iter().map(|(kind, _)| kind)
    }

    pub(super) fn has_server_name(&self) -> bool {
        self.extensions.find(SERVER_NAME).is_some()
    }

    /// The first host name (RFC 6066, 3).
    pub(super) fn server_name(&self) -> Option<&'a [u8]> {
        let mut names = Cursor::new(Cursor::new(self.extensions.find(SERVER_NAME)?).vec16()?);
        loop {
            let kind = names.u8()?;
            let name = names.vec16()?;
            if kind == 0 && !name.is_empty() {
                return Some(name);
            }
        }
    }

    /// The protocol named first (RFC 7301, 3.1).
    pub(super) fn first_alpn(&self) -> Option<&'a [u8]> {
        first_protocol(self.extensions.find(ALPN)?)
    }

    /// All of `supported_versions`, if it is there (RFC 8446, 4.2.1).
    pub(super) fn supported_versions(&self) -> Option<impl Iterator<Item = u16>> {
        Cursor::new(self.extensions.find(SUPPORTED_VERSIONS)?).vec8().map(u16s)
    }

    /// RFC 8446, 4.2.3.
    pub(super) fn signature_algorithms(&self) -> impl Iterator<Item = u16> {
        let list = self.extensions.find(SIGNATURE_ALGORITHMS).and_then(|list| Cursor::new(list).vec16());
        u16s(list.unwrap_or_default())
    }
}

/// What a server chose.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServerHello<'a> {
    legacy_version: u16,
    retry: bool,
    extensions: Extensions<'a>,
}

impl<'a> ServerHello<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut body = Cursor::new(body);
        let legacy_version = body.u16()?;
        let random = body.take(32)?;
        let _session = body.vec8()?;
        let _cipher = body.u16()?;
        let _compression = body.u8()?;
        Some(Self { legacy_version, retry: random == HELLO_RETRY, extensions: Extensions::read(&mut body) })
    }

    /// A HelloRetryRequest: the client is asked again, nothing is chosen.
    pub(super) const fn is_retry(&self) -> bool {
        self.retry
    }

    pub(super) fn version(&self) -> u16 {
        let chosen = self.extensions.find(SUPPORTED_VERSIONS).and_then(|version| Cursor::new(version).u16());
        chosen.unwrap_or(self.legacy_version)
    }

    pub(super) fn alpn(&self) -> Option<&'a [u8]> {
        first_protocol(self.extensions.find(ALPN)?)
    }
}

fn first_protocol(list: &[u8]) -> Option<&[u8]> {
    Cursor::new(Cursor::new(list).vec16()?).vec8().filter(|name| !name.is_empty())
}

/// Kinds and bodies of extensions, in the order of the message.
#[derive(Debug, Clone, Copy)]
struct Extensions<'a>(Cursor<'a>);

impl<'a> Extensions<'a> {
    /// What follows the fixed part, as far as it is there; SSL 3.0 has nothing.
    fn read(body: &mut Cursor<'a>) -> Self {
        let length = usize::from(body.u16().unwrap_or_default());
        let rest = body.rest();
        Self(Cursor::new(rest.get(..length).unwrap_or(rest)))
    }

    fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || Some((rest.u16()?, rest.vec16()?)))
    }

    /// Body of the first extension of a kind.
    fn find(self, wanted: u16) -> Option<&'a [u8]> {
        self.iter().find_map(|(kind, body)| (kind == wanted).then_some(body))
    }
}

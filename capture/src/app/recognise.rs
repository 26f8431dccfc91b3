//! Which protocol a payload begins with. By content: a port only lowers the bar for DNS.
//!
//! Each check is strict enough to stand alone, and cheap: the first byte rules out nearly all of them. Protocols that are
//! only named (no fields are read from them) are told by a whole first message.

use super::dns::{self, Bar};
use super::{Name, Probe, dtls, http1, http2, quic, tls};

/// Longest beginning that is kept until a protocol is recognised or ruled out.
pub(super) const MAX_BEGINNING: usize = 1024;

/// A protocol with a parser, or one that is only named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Dns(Bar),
    Tls,
    Dtls,
    Quic,
    Named(Name),
    /// One that is only named, and may go over to TLS.
    Upgrading(Name),
}

/// What is known of a beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Yes(Protocol),
    No,
    More,
}

/// Looks at the beginning of a TCP direction, or of a segment midstream; `cut` says that the bytes that follow were not
/// captured.
pub(super) fn tcp(bytes: &[u8], ports: [u16; 2], cut: bool) -> Found {
    let mut more = bytes.is_empty();
    let mut is = |probe: Probe| {
        more |= probe == Probe::More;
        probe == Probe::Yes
    };
    if is(tls::probe(bytes)) {
        return Found::Yes(Protocol::Tls);
    }
    if is(http1::probe(bytes, cut)) {
        return Found::Yes(Protocol::Http1);
    }
    if is(http2::probe(bytes)) {
        return Found::Yes(Protocol::Http2);
    }
    let bar = if dns::is_expected(ports) { Bar::Port } else { Bar::Content };
    if is(dns::probe(bytes, bar, cut)) {
        return Found::Yes(Protocol::Dns(bar));
    }
    if is(magic(bytes, b"SSH-2.0-")) {
        return Found::Yes(Protocol::Named(Name::Ssh));
    }
    if let Some(protocol) = named(bytes) {
        return Found::Yes(protocol);
    }
    if more && !cut && bytes.len() < MAX_BEGINNING { Found::More } else { Found::No }
}

/// What a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Datagram<'a> {
    /// A message of DNS, which had to be read to be recognised.
    Dns(Bar, dns::Message<'a>),
    Other(Protocol),
    Unknown,
}

/// Looks at a UDP payload of so many bytes on the wire.
pub(super) fn udp(payload: &[u8], length: u32, ports: [u16; 2]) -> Datagram<'_> {
    if quic::probe(payload) == Probe::Yes {
        return Datagram::Other(Protocol::Quic);
    }
    if dtls::probe(payload) == Probe::Yes {
        return Datagram::Other(Protocol::Dtls);
    }
    let whole = payload.len() == length as usize;
    let bar = if dns::is_expected(ports) { Bar::Port } else { Bar::Content };
    // NetBIOS names (RFC 1002) look like DNS and are not.
    if (bar == Bar::Port || (whole && !ports.contains(&137)))
        && let Some(message) = dns::parse(payload, bar)
    {
        return Datagram::Dns(bar, message);
    }
    if payload.starts_with(b"M-SEARCH * HTTP/1.1\r\n") || payload.starts_with(b"NOTIFY * HTTP/1.1\r\n") {
        return Datagram::Other(Protocol::Named(Name::Ssdp));
    }
    Datagram::Unknown
}

/// What follows the header in which a proxy names its client (HAProxy's PROXY protocol), a line or the binary second version; the
/// bytes themselves where there is none.
pub(super) fn behind_proxy(bytes: &[u8]) -> &[u8] {
    const LINE: &[u8] = b"PROXY ";
    /// Longest line, with its end.
    const MAX_LINE: usize = 107;
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    let header = if bytes.starts_with(LINE) {
        bytes.iter().take(MAX_LINE).position(|byte| *byte == b'\n').map(|end| end + 1)
    } else if let Some([_, _, high, low, ..]) = bytes.strip_prefix(SIGNATURE) {
        Some(SIGNATURE.len() + 4 + usize::from(u16::from_be_bytes([*high, *low])))
    } else {
        None
    };
    header.and_then(|header| bytes.get(header..)).unwrap_or(bytes)
}

fn magic(bytes: &[u8], magic: &[u8]) -> Probe {
    let shown = bytes.len().min(magic.len());
    if bytes.get(..shown) != magic.get(..shown) {
        Probe::No
    } else if shown == magic.len() {
        Probe::Yes
    } else {
        Probe::More
    }
}

/// Protocols that are told by a whole first message in one piece.
fn named(bytes: &[u8]) -> Option<Protocol> {
    let [first, second, third, fourth, rest @ ..] = bytes else { return None };
    let big_endian = u32::from_be_bytes([*first, *second, *third, *fourth]) as usize;
    let little_endian = u32::from_le_bytes([*first, *second, *third, *fourth]) as usize;
    if is_mysql_greeting(little_endian, rest) {
        return Some(Protocol::Upgrading(Name::MySql));
    }
    if tds_payload(bytes).is_some_and(is_mssql_prelogin) && big_endian & 0xffff == bytes.len() {
        return Some(Protocol::Upgrading(Name::MsSql));
    }
    if big_endian == bytes.len() && is_postgres_request(rest) {
        return Some(Protocol::Upgrading(Name::Postgres));
    }
    let name = if big_endian == bytes.len() && is_postgres_startup(rest) {
        Name::Postgres
    } else if is_redis_command(bytes) {
        Name::Redis
    } else if matches!(bytes, [b'A', b'M', b'Q', b'P', 0 | 2 | 3, ..]) && bytes.len() == 8 {
        Name::Amqp
    } else if little_endian == bytes.len() && is_mongodb_request(rest) {
        Name::MongoDb
    } else if big_endian == rest.len() && is_kafka_request(rest) {
        Name::Kafka
    } else {
        return None;
    };
    Some(Protocol::Named(name))
}

/// The server's greeting: sequence 0, protocol 10, a version that begins with digits and a dot, and a thread id.
fn is_mysql_greeting(length: usize, rest: &[u8]) -> bool {
    let [10, version @ ..] = rest else { return false };
    let Some(end) = version.iter().take(64).position(|byte| *byte == 0) else { return false };
    let digits = version.iter().take_while(|byte| byte.is_ascii_digit()).count();
    length == rest.len()
        && (1..=2).contains(&digits)
        && version.get(digits) == Some(&b'.')
        && version.iter().take(end).all(u8::is_ascii_graphic)
}

/// The first message of Microsoft's SQL Server (MS-TDS, 2.2.6.5): options with offsets and lengths, the version first.
fn is_mssql_prelogin(payload: &[u8]) -> bool {
    let [0, 0, offset, 0, 6, options @ ..] = payload else { return false };
    let ends = options.iter().step_by(5).position(|token| *token > 7);
    ends.is_some_and(|more| usize::from(*offset) == 5 * (more + 1) + 1 && options.get(5 * more) == Some(&0xff))
}

/// What a packet of TDS for the time before login carries, if one begins here: kind, status, length, process, number, window.
/// TLS' handshake is in such packets, too.
pub(super) fn tds_payload(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [0x12, 0 | 1, _, _, _, _, _, 0, payload @ ..] => Some(payload),
        _ => None,
    }
}

/// The client's request for TLS, or for GSSAPI, after which that may follow.
fn is_postgres_request(rest: &[u8]) -> bool {
    matches!(rest, [0x04, 0xd2, 0x16, 0x2f | 0x30])
}

/// The client's startup message of protocol 3.
fn is_postgres_startup(rest: &[u8]) -> bool {
    match rest {
        [0, 3, 0, 0 | 2, parameters @ ..] => {
            parameters.ends_with(&[0, 0]) && parameters.split(|byte| *byte == 0).step_by(2).any(|name| name == b"user")
        }
        _ => false,
    }
}

/// An array of bulk strings: `*1\r\n$4\r\nPING\r\n`.
fn is_redis_command(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"*") else { return false };
    let Some((_, rest)) = redis_number(rest) else { return false };
    let Some((length, rest)) = rest.strip_prefix(b"$").and_then(redis_number) else { return false };
    let command = rest.get(..length).unwrap_or_default();
    !command.is_empty() && command.iter().all(u8::is_ascii_alphabetic) && rest.get(length..length + 2) == Some(b"\r\n")
}

fn redis_number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().take(5).position(|byte| *byte == b'\r')?;
    let number = str::from_utf8(bytes.get(..end)?).ok()?.parse().ok()?;
    Some((number, bytes.get(end..)?.strip_prefix(b"\r\n")?))
}

/// `OP_MSG`, or the `OP_QUERY` that older drivers begin with, that answers nothing.
fn is_mongodb_request(rest: &[u8]) -> bool {
    match rest {
        [_, _, _, _, 0, 0, 0, 0, 0xdd, 0x07, 0, 0, flags, 0, 0 | 1, 0, ..] => flags & !0x03 == 0,
        [_, _, _, _, 0, 0, 0, 0, 0xd4, 0x07, 0, 0, _, 0, 0, 0, name @ ..] => name
            .iter()
            .position(|byte| *byte == 0)
            .is_some_and(|end| name.get(..end).is_some_and(|n| n.ends_with(b".$cmd"))),
        _ => false,
    }
}

/// A request: key and version of an interface that exists, and a printable client id.
fn is_kafka_request(rest: &[u8]) -> bool {
    let [0, key @ 0..=80, 0, 0..=20, _, _, _, _, id @ ..] = rest else { return false };
    let Some((length, id)) = id.split_first_chunk() else { return false };
    let length = usize::from(u16::from_be_bytes(*length));
    // A client begins with `ApiVersions`, or with what older ones begin with: metadata or its broker's data.
    matches!(key, 0 | 1 | 3 | 10 | 18)
        && (1..=255).contains(&length)
        && id.get(..length).is_some_and(|id| id.iter().all(u8::is_ascii_graphic))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [u16; 2] = [40000, 40001];

    #[test]
    fn first_messages_are_told_apart() {
        let mysql = b"\x15\0\0\0\x0a8.0.33\0\x01\0\0\0abcdefgh\0";
        let mssql = b"\x12\x01\0\x1a\0\0\x01\0\0\0\x0b\0\x06\x01\0\x11\0\x01\xff\x0b\0\x06\x01\0\0\0";
        let postgres = b"\0\0\0\x14\0\x03\0\0user\0alice\0\0";
        let upgrades = |bytes: &[u8]| bytes == mysql || bytes == mssql || bytes.len() == 8 && bytes[4] == 0x04;
        for (bytes, name) in [
            (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], Name::Ssh),
            (mysql, Name::MySql),
            (mssql, Name::MsSql),
            (postgres, Name::Postgres),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Name::Postgres),
            (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", Name::Redis),
            (b"AMQP\0\0\x09\x01", Name::Amqp),
            (b"\x19\0\0\0\x01\0\0\0\0\0\0\0\xdd\x07\0\0\0\0\0\0\0\x05\0\0\0", Name::MongoDb),
            (b"\0\0\0\x0e\0\x12\0\x03\0\0\0\x01\0\x04test", Name::Kafka),
        ] {
            let found = if upgrades(bytes) { Protocol::Upgrading(name) } else { Protocol::Named(name) };
            assert_eq!(tcp(bytes, PORTS, false), Found::Yes(found), "{bytes:?}");
            // The same bytes with one more are no whole message.
            if !matches!(name, Name::Ssh | Name::Redis) {
                assert_ne!(tcp(&[bytes, b"x"].concat(), PORTS, false), Found::Yes(found), "{bytes:?}");
            }
        }
        assert_eq!(tcp(b"220 mail ESMTP\r\n", PORTS, false), Found::No);
        assert_eq!(tcp(b"SSH-", PORTS, false), Found::More);
    }

    #[test]
    fn what_a_proxy_says_is_stepped_over() {
        let second = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c123456789012";
        let long = [b"PROXY ".as_slice(), &[b'x'; 120], b"\r\nGET /"].concat();
        for (bytes, rest) in [
            (&b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 443\r\nGET /"[..], &b"GET /"[..]),
            (b"PROXY UNKNOWN\r\n", b""),
            (&[second.as_slice(), b"GET /"].concat(), b"GET /"),
            (second, b""),
            // Cut, or too long: no header.
            (&second[..20], &second[..20]),
            (b"PROXY TCP4 10.0.0.1", b"PROXY TCP4 10.0.0.1"),
            (&long, &long),
            (b"GET /", b"GET /"),
        ] {
            assert_eq!(behind_proxy(bytes), rest);
        }
    }
}

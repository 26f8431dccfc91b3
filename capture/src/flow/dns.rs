//! DNS (RFC 1035, 6762, 4795): a strict, bounded reader of header and first question, and the exchange of a flow.
//!
//! A flow keeps the first question asked in the slice and its answer. Latency runs from the last repetition of the
//! query.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::config::DNS_IDLE_TIMEOUT;
use super::handshake::micros;
use super::key::End;
use crate::record::Dns;

/// Ports on which DNS is looked for: DNS, multicast DNS, LLMNR.
const PORTS: [u16; 3] = [53, 5353, 5355];

/// Most compression pointers followed in a name.
const MAX_POINTERS: usize = 16;

/// Longest name on the wire, RFC 1035 2.3.4.
const MAX_NAME: usize = 255;

/// Most questions that a message may claim.
const MAX_QUESTIONS: u16 = 64;

const HEADER: usize = 12;

/// Whether a flow with this port may carry DNS.
pub(super) fn is_port(port: Option<u16>) -> bool {
    port.is_some_and(|port| PORTS.contains(&port))
}

/// The message in a TCP segment, if one begins and ends there (RFC 1035 4.2.2).
pub(super) fn in_segment(payload: &[u8]) -> Option<&[u8]> {
    let (length, rest) = payload.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

/// Header of a message that passed all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    id: u16,
    response: bool,
    rcode: u8,
    questions: u16,
    answers: u16,
    bytes: &'a [u8],
}

/// Reads the header and walks the first question; `None` if it is not DNS.
pub(super) fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let [id_high, id_low, flags, rcode, q_high, q_low, an_high, an_low, ..] = *header;
    let opcode = (flags >> 3) & 0x0f;
    let questions = u16::from_be_bytes([q_high, q_low]);
    let response = flags & 0x80 != 0;
    if !matches!(opcode, 0..=2 | 4..=6) || questions > MAX_QUESTIONS || (questions == 0 && !response) {
        return None;
    }
    let message = Message {
        id: u16::from_be_bytes([id_high, id_low]),
        response,
        rcode: rcode & 0x0f,
        questions,
        answers: u16::from_be_bytes([an_high, an_low]),
        bytes,
    };
    if questions > 0 {
        message.walk_question(None)?;
    }
    Some(message)
}

impl Message<'_> {
    /// Name and type of the first question.
    fn question(&self) -> Option<(String, u16)> {
        if self.questions == 0 {
            return None;
        }
        let mut name = String::with_capacity(32);
        let kind = self.walk_question(Some(&mut name))?;
        if name.is_empty() {
            name.push('.');
        }
        Some((name, kind))
    }

    /// Walks the first question, writing its name if asked; its type.
    fn walk_question(&self, mut name: Option<&mut String>) -> Option<u16> {
        let mut at = HEADER;
        let mut after = None;
        let (mut length, mut pointers) = (0, 0);
        loop {
            let size = *self.bytes.get(at)?;
            match size >> 6 {
                0 if size == 0 => break,
                0 => {
                    let label = self.bytes.get(at + 1..at + 1 + usize::from(size))?;
                    length += label.len() + 1;
                    if length >= MAX_NAME {
                        return None;
                    }
                    if let Some(name) = &mut name {
                        write_label(name, label);
                    }
                    at += 1 + label.len();
                }
                3 => {
                    let target = usize::from(size & 0x3f) << 8 | usize::from(*self.bytes.get(at + 1)?);
                    pointers += 1;
                    if target >= at || target < HEADER || pointers > MAX_POINTERS {
                        return None;
                    }
                    after.get_or_insert(at + 2);
                    at = target;
                }
                _ => return None,
            }
        }
        let fixed = self.bytes.get(after.unwrap_or(at + 1)..)?.first_chunk::<4>()?;
        Some(u16::from_be_bytes([fixed[0], fixed[1]]))
    }
}

/// Appends a label in presentation format (RFC 1035 5.1), lower case.
fn write_label(name: &mut String, label: &[u8]) {
    if !name.is_empty() {
        name.push('.');
    }
    for &byte in label {
        match byte {
            b'.' | b'\\' => {
                name.push('\\');
                name.push(char::from(byte));
            }
            0x21..=0x7e => name.push(char::from(byte.to_ascii_lowercase())),
            // Writing to a `String` cannot fail.
            _ => drop(write!(name, "\\{byte:03}")),
        }
    }
}

/// The exchange of a flow.
#[derive(Debug)]
pub(super) struct DnsFlow {
    fields: Dns,
    id: u16,
    /// Who asked, and when last.
    asked: Option<(End, i64)>,
    answered: bool,
    /// Different queries and responses so far; the last query's id.
    queries: u32,
    responses: u32,
    last_id: Option<u16>,
}

impl DnsFlow {
    /// Begins with the first message.
    pub(super) fn new(from: End, time: i64, message: &Message<'_>) -> Self {
        let mut flow = Self {
            fields: Dns::default(),
            id: message.id,
            asked: None,
            answered: false,
            queries: 0,
            responses: 0,
            last_id: None,
        };
        flow.track(from, time, message);
        flow
    }

    /// Takes in a message.
    pub(super) fn track(&mut self, from: End, time: i64, message: &Message<'_>) {
        let fresh = self.asked.is_none() && !self.answered;
        if message.response {
            self.responses += 1;
        } else if self.last_id.replace(message.id) != Some(message.id) {
            self.queries += 1;
        }
        if fresh {
            self.id = message.id;
            if let Some((name, kind)) = message.question() {
                self.fields.query = Some(name.into());
                self.fields.qtype = Some(type_name(kind).into());
            }
        }
        if message.response {
            self.track_response(from, time, message);
        } else if fresh || (!self.answered && message.id == self.id) {
            self.asked = Some((from, time));
        }
    }

    fn track_response(&mut self, from: End, time: i64, message: &Message<'_>) {
        match self.asked {
            // The other end's answer to the first question; a multicast DNS responder may also speak where it asks.
            Some((asker, at)) if asker != from && message.id == self.id && !self.answered => {
                self.fields.latency_us = micros(at, time);
            }
            None if !self.answered => {}
            Some(_) | None => return,
        }
        self.answered = true;
        self.fields.rcode = Some(rcode_name(message.rcode).into());
        self.fields.answers = Some(u64::from(message.answers));
    }

    /// Whether every query has its response.
    pub(super) fn is_answered(&self) -> bool {
        self.answered && self.responses >= self.queries
    }

    /// The fields for a record.
    pub(super) fn fields(&self) -> Dns {
        self.fields.clone()
    }

    /// What the next slice begins with: a question that still waited for its answer at `end` carries on.
    pub(super) fn carry(flow: Option<Box<Self>>, end: i64) -> Option<Box<Self>> {
        flow.filter(|flow| {
            !flow.answered && flow.asked.is_some_and(|(_, at)| end.saturating_sub(at) <= DNS_IDLE_TIMEOUT)
        })
    }
}

/// IANA mnemonic of a response code, or `RCODEn`.
fn rcode_name(code: u8) -> Cow<'static, str> {
    const NAMES: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    NAMES.get(usize::from(code)).map_or_else(|| format!("RCODE{code}").into(), |name| Cow::Borrowed(*name))
}

/// IANA mnemonic of a record type, or `TYPEn` (RFC 3597); 255 is `ANY` as tools write it.
fn type_name(kind: u16) -> Cow<'static, str> {
    let name = match kind {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        11 => "WKS",
        12 => "PTR",
        13 => "HINFO",
        14 => "MINFO",
        15 => "MX",
        16 => "TXT",
        17 => "RP",
        18 => "AFSDB",
        24 => "SIG",
        25 => "KEY",
        28 => "AAAA",
        29 => "LOC",
        33 => "SRV",
        35 => "NAPTR",
        36 => "KX",
        37 => "CERT",
        39 => "DNAME",
        41 => "OPT",
        42 => "APL",
        43 => "DS",
        44 => "SSHFP",
        45 => "IPSECKEY",
        46 => "RRSIG",
        47 => "NSEC",
        48 => "DNSKEY",
        49 => "DHCID",
        50 => "NSEC3",
        51 => "NSEC3PARAM",
        52 => "TLSA",
        53 => "SMIMEA",
        55 => "HIP",
        59 => "CDS",
        60 => "CDNSKEY",
        61 => "OPENPGPKEY",
        62 => "CSYNC",
        63 => "ZONEMD",
        64 => "SVCB",
        65 => "HTTPS",
        99 => "SPF",
        108 => "EUI48",
        109 => "EUI64",
        249 => "TKEY",
        250 => "TSIG",
        251 => "IXFR",
        252 => "AXFR",
        255 => "ANY",
        256 => "URI",
        257 => "CAA",
        _ => return format!("TYPE{kind}").into(),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(question: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(question);
        bytes
    }

    #[test]
    fn names_are_escaped_and_lower_case() {
        let bytes = query(b"\x05Ab.\\ \x02\xffC\x00\x00\x1c\x00\x01");
        let (name, kind) = parse(&bytes).unwrap().question().unwrap();
        assert_eq!((name.as_str(), kind), (r"ab\.\\\032.\255c", 28));
    }

    #[test]
    fn what_is_not_dns_is_refused() {
        for question in [
            &b"\x05short"[..],
            b"\x01a\x00\x00\x01\x00",
            b"\xc0\x0c\x00\x01\x00\x01",
            b"\xc0\x20\x00\x01\x00\x01",
            b"\x80\x00\x00\x01\x00\x01",
        ] {
            assert_eq!(parse(&query(question)), None, "{question:?}");
        }
        assert_eq!(parse(&[0; 11]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(message) = parse(&bytes) {
                let _ = message.question();
            }
            let _ = in_segment(&bytes);
        }
    }
}

//! Our flows to others: rows as IPFIX (RFC 7011), both directions in one record (RFC 5103), with the names of both ends.
//!
//! ```text
//! message  header | set of two templates            at first, and again by whoever sends; in a file once
//! message  header | records of IPv4 | records of IPv6
//! ```
//!
//! * Template 256 is for IPv4, 257 for IPv6; they differ in nothing but the elements of addresses and ICMP. What is in them is in
//!   [`fields()`] and, with the same words, in `docs/ipfix.md`.
//! * The client is the source. A figure that was not seen is all ones, a text that is not there is empty.
//! * A message has at most [`MESSAGE`] bytes, so that it fits into a packet, unless one record alone is longer.
//! * Sequence numbers count the records before the message, those that were lost on this side included: who receives sees the loss.
//!
//! One message after the other is a file (RFC 5655).
//!
//! The encoder is pure: the time of export is an argument, and who sends the messages decides what to do when nobody takes them.

mod fields;

use std::net::IpAddr;

pub use self::fields::{Field, Format, Owner, fields};
use crate::tagged::TaggedFlow;

/// Bytes of a message at most.
pub const MESSAGE: usize = 1_400;
/// The enterprise number that is used unless another is configured: the one set aside for examples (RFC 5612).
pub const EXAMPLE_ENTERPRISE: u32 = 32_473;

/// Enterprise number of reverse elements (RFC 5103).
const REVERSE: u32 = 29_305;
/// Bytes of a message's header, and of a set's.
const HEADER: usize = 16;
const SET_HEADER: usize = 4;
/// Ids of the templates: for IPv4, and for IPv6.
const TEMPLATES: [u16; 2] = [256, 257];
/// Bytes of a text at most, so that one byte says its length.
const MOST_TEXT: usize = 254;
/// Seconds from 1900 to 1970 (RFC 5905).
const NTP_EPOCH: i64 = 2_208_988_800;

/// Under which numbers records and wiretag's own elements are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Observation domain.
    pub domain: u32,
    /// Enterprise of wiretag's own elements.
    pub enterprise: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { domain: 1, enterprise: EXAMPLE_ENTERPRISE }
    }
}

/// A message, and how many records are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is sent.
    pub bytes: Vec<u8>,
    /// Records.
    pub records: u32,
}

impl Message {
    /// The number of the next message's first record.
    pub fn next_number(&self) -> u32 {
        let number = self.bytes.get(8..12).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes));
        number.unwrap_or_default().wrapping_add(self.records)
    }
}

/// Makes messages of one observation domain.
#[derive(Debug, Clone)]
pub struct Encoder {
    numbers: Numbers,
    number: u32,
}

impl Encoder {
    /// Messages from number 0 on.
    pub const fn new(numbers: Numbers) -> Self {
        Self { numbers, number: 0 }
    }

    /// The message with the templates, to be sent before the message with this number, or at the beginning of a file.
    pub fn templates(&self, number: u32, now: i64) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        begin_set(&mut bytes, 2);
        let set = HEADER;
        for (version, id) in TEMPLATES.into_iter().enumerate() {
            let count = fields().count() as u16;
            bytes.extend(id.to_be_bytes());
            bytes.extend(count.to_be_bytes());
            for field in fields() {
                self.specify(field, version, &mut bytes);
            }
        }
        end_set(&mut bytes, set);
        self.finish(&mut bytes, number, now);
        bytes
    }

    fn specify(&self, field: &Field, version: usize, bytes: &mut Vec<u8>) {
        let id = field.ids[version];
        let enterprise = match field.owner {
            Owner::Iana => None,
            Owner::Reverse => Some(REVERSE),
            Owner::Wiretag => Some(self.numbers.enterprise),
        };
        let flag = if enterprise.is_some() { 0x8000 } else { 0 };
        bytes.extend((id | flag).to_be_bytes());
        bytes.extend(length(field.format, version).to_be_bytes());
        bytes.extend(enterprise.iter().flat_map(|number| number.to_be_bytes()));
    }

    /// Adds the messages for rows, in their order.
    pub fn encode<'a>(&mut self, rows: impl IntoIterator<Item = &'a TaggedFlow>, now: i64, out: &mut Vec<Message>) {
        let mut message = Message { bytes: vec![0; HEADER], records: 0 };
        // Where the set begins, and for which version it is.
        let mut set: Option<(usize, usize)> = None;
        for row in rows {
            let version = usize::from(row.record.client.ip.is_ipv6());
            let (length, records) = (message.bytes.len(), message.records);
            let open = set.filter(|(_, own)| *own == version);
            if open.is_none() {
                end(&mut message.bytes, set);
                set = Some((message.bytes.len(), version));
                begin_set(&mut message.bytes, TEMPLATES[version]);
            }
            record(row, version, &mut message.bytes);
            message.records += 1;
            if message.bytes.len() > MESSAGE && records > 0 {
                // It is the first of the next message.
                let start = if open.is_some() { length } else { length + SET_HEADER };
                let last = message.bytes.split_off(start);
                if open.is_some() {
                    end(&mut message.bytes, set);
                } else {
                    message.bytes.truncate(length);
                }
                message.records = records;
                out.push(self.close(message, now));
                message = Message { bytes: vec![0; HEADER], records: 1 };
                set = Some((HEADER, version));
                begin_set(&mut message.bytes, TEMPLATES[version]);
                message.bytes.extend(last);
            }
        }
        if message.records > 0 {
            end(&mut message.bytes, set);
            out.push(self.close(message, now));
        }
    }

    fn close(&mut self, mut message: Message, now: i64) -> Message {
        let number = self.number;
        self.number = number.wrapping_add(message.records);
        self.finish(&mut message.bytes, number, now);
        message
    }

    /// Fills the header in.
    fn finish(&self, bytes: &mut [u8], number: u32, now: i64) {
        let length = bytes.len() as u16;
        let seconds = now.div_euclid(1_000_000_000) as u32;
        let mut header = 10_u16.to_be_bytes().to_vec();
        header.extend(length.to_be_bytes());
        for word in [seconds, number, self.numbers.domain] {
            header.extend(word.to_be_bytes());
        }
        for (place, byte) in bytes.iter_mut().zip(header) {
            *place = byte;
        }
    }
}

fn begin_set(bytes: &mut Vec<u8>, id: u16) {
    bytes.extend(id.to_be_bytes());
    bytes.extend([0; 2]);
}

/// Fills the length of the set in that began at `start`.
fn end_set(bytes: &mut [u8], start: usize) {
    let length = (bytes.len() - start) as u16;
    if let Some(place) = bytes.get_mut(start + 2..start + SET_HEADER) {
        place.copy_from_slice(&length.to_be_bytes());
    }
}

fn end(bytes: &mut [u8], set: Option<(usize, usize)>) {
    if let Some((start, _)) = set {
        end_set(bytes, start);
    }
}

fn length(format: Format, version: usize) -> u16 {
    match format {
        Format::Number(length, _) => length,
        Format::Address(_) => [4, 16][version],
        Format::Mac(_) => 6,
        Format::Time(_) | Format::Figure(_) => 8,
        Format::Text(_) => u16::MAX,
    }
}

fn record(row: &TaggedFlow, version: usize, bytes: &mut Vec<u8>) {
    for field in fields() {
        match field.format {
            Format::Number(length, get) => {
                let number = get(row).to_be_bytes();
                bytes.extend(number.get(8 - usize::from(length)..).unwrap_or_default());
            }
            Format::Address(get) => match (get(&row.record), version) {
                (IpAddr::V4(ip), 0) => bytes.extend(ip.octets()),
                (IpAddr::V4(ip), _) => bytes.extend(ip.to_ipv6_mapped().octets()),
                (IpAddr::V6(ip), 1) => bytes.extend(ip.octets()),
                // Both ends of a flow are of one version.
                (IpAddr::V6(_), _) => bytes.extend([0; 4]),
            },
            Format::Mac(get) => bytes.extend(get(&row.record).unwrap_or_default()),
            Format::Time(get) => bytes.extend(ntp(get(&row.record)).to_be_bytes()),
            Format::Figure(get) => bytes.extend(get(&row.record).unwrap_or(u64::MAX).to_be_bytes()),
            Format::Text(get) => {
                let text = get(row).unwrap_or_default();
                let text = text.get(..text.floor_char_boundary(MOST_TEXT)).unwrap_or_default();
                bytes.push(text.len() as u8);
                bytes.extend(text.as_bytes());
            }
        }
    }
}

/// Rounded up, so that who rounds down gets the same nanosecond.
fn ntp(time: i64) -> u64 {
    let (seconds, nanoseconds) = (time.div_euclid(1_000_000_000), time.rem_euclid(1_000_000_000).unsigned_abs());
    let fraction = (nanoseconds << 32).div_ceil(1_000_000_000);
    // Modulo 2^32: the count begins anew in 2036.
    (((seconds + NTP_EPOCH) as u64) << 32) | fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_element_is_there_twice_and_none_is_too_large() {
        let mut seen = std::collections::HashSet::new();
        for field in fields() {
            let owner = format!("{:?}", field.owner);
            assert!(field.ids.iter().all(|id| *id < 0x8000) && seen.insert((owner, field.ids)), "{}", field.name);
        }
        let templates = Encoder::new(Numbers::default()).templates(0, 0);
        assert!(templates.len() <= MESSAGE, "{}", templates.len());
    }

    #[test]
    fn a_moment_survives() {
        for time in [0, 1, 999_999_999, 1_795_896_525_123_456_789] {
            let ntp = ntp(time);
            let back =
                ((ntp >> 32) as i64 - NTP_EPOCH) * 1_000_000_000 + (((ntp & 0xffff_ffff) * 1_000_000_000) >> 32) as i64;
            assert_eq!(back, time);
        }
        assert_eq!(ntp(2_085_978_496_000_000_000), 0);
    }
}

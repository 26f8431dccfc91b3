//! Big-endian bytes, read one after the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is left of a message or of a part of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `count` bytes, if there are so many.
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// The contents of a field of variable length (RFC 7011, 7): one byte of length, or 255 and two.
    pub(super) fn variable(&mut self) -> Option<&'a [u8]> {
        let length = match self.u8()? {
            255 => self.u16()?,
            short => u16::from(short),
        };
        self.take(usize::from(length))
    }
}

/// A number of at most eight bytes: exporters may leave out leading ones (RFC 7011, 6.2).
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    let is_number = (1..=8).contains(&bytes.len());
    is_number.then(|| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// A number of floating point, of four bytes or eight (RFC 7011, 6.2).
pub(super) fn float(bytes: &[u8]) -> Option<f64> {
    match bytes.len() {
        4 => bytes.first_chunk().map(|bytes| f64::from(f32::from_be_bytes(*bytes))),
        8 => bytes.first_chunk().map(|bytes| f64::from_be_bytes(*bytes)),
        _ => None,
    }
}

/// An address, if the length is right.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|bytes| IpAddr::V4(Ipv4Addr::from(*bytes))),
        16 => bytes.first_chunk::<16>().map(|bytes| IpAddr::V6(Ipv6Addr::from(*bytes))),
        _ => None,
    }
}

/// Text of a fixed or variable field: up to the first zero, and what is not UTF-8 or not printable is left out.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let bytes = bytes.split(|byte| *byte == 0).next()?;
    let bytes = bytes.get(..MOST_TEXT).unwrap_or(bytes);
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|letter| !letter.is_control()).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Bytes of a name that are kept.
const MOST_TEXT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_any_length_up_to_eight() {
        assert_eq!(number(&[]), None);
        assert_eq!(number(&[7]), Some(7));
        assert_eq!(number(&[1, 0, 0]), Some(65_536));
        assert_eq!(number(&[0xff; 8]), Some(u64::MAX));
        assert_eq!(number(&[0; 9]), None);
    }

    #[test]
    fn numbers_of_floating_point_have_four_bytes_or_eight() {
        assert_eq!(float(&0.25_f64.to_be_bytes()), Some(0.25));
        assert_eq!(float(&0.25_f32.to_be_bytes()), Some(0.25));
        assert_eq!(float(&[0; 5]), None);
    }

    #[test]
    fn a_variable_field_has_one_byte_of_length_or_three() {
        let mut short = Reader::new(&[2, 7, 8, 9]);
        assert_eq!((short.variable(), short.len()), (Some(&[7, 8][..]), 1));
        let long = [&[255, 1, 0][..], &[5; 256]].concat();
        assert_eq!(Reader::new(&long).variable().map(<[u8]>::len), Some(256));
        assert_eq!(Reader::new(&[3, 1, 2]).variable(), None);
        assert_eq!(Reader::new(&[255, 1]).variable(), None);
    }

    #[test]
    fn names_are_cut_and_cleaned() {
        assert_eq!(text(b"eth0\0\0\0").as_deref(), Some("eth0"));
        assert_eq!(text(b"\0\0"), None);
        assert_eq!(text(b"a\x1b[31mb").as_deref(), Some("a[31mb"));
        assert_eq!(text(&[b'x'; 400]).map(|text| text.len()), Some(MOST_TEXT));
    }
}

//! Text from the wire as records hold it: printable ASCII, escaped, bounded.

use std::fmt::Write as _;
use std::sync::Arc;

/// Longest text, characters: what a host name may have (RFC 1035, 2.3.4).
const MAX_TEXT: usize = 255;

/// A host name: as [`printable`], lower case.
pub(super) fn host_name(bytes: &[u8]) -> Arc<str> {
    printable(&bytes.to_ascii_lowercase())
}

/// Printable ASCII as it is, every other byte and the backslash as `\xNN`, cut to [`MAX_TEXT`] characters.
pub(super) fn printable(bytes: &[u8]) -> Arc<str> {
    let mut text = String::with_capacity(bytes.len().min(MAX_TEXT));
    for &byte in bytes {
        let plain = matches!(byte, b' '..=b'~') && byte != b'\\';
        if text.len() + if plain { 1 } else { 4 } > MAX_TEXT {
            break;
        }
        if plain {
            text.push(char::from(byte));
        } else {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_printable_and_bounded() {
        assert_eq!(&*host_name(b"WWW.Example.COM"), "www.example.com");
        assert_eq!(&*host_name(b"a\0b\\\xff\n"), r"a\x00b\x5c\xff\x0a");
        assert_eq!(&*printable(b"HTTP/1.1"), "HTTP/1.1");
        assert_eq!(host_name(&[b'a'; 300]).len(), 255);
        assert_eq!(host_name(&[0; 300]).len(), 252);
    }
}

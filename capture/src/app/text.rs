//! Text from the wire as it goes into records: printable ASCII as it is, everything else as `\xNN`, of limited length.

use std::sync::Arc;

/// Longest path.
pub(crate) const MAX_PATH: usize = 1024;

/// Longest host.
pub(crate) const MAX_HOST: usize = 255;

/// Longest method or other token.
pub(crate) const MAX_TOKEN: usize = 32;

/// An authority as a host, with its port: without the name and password of who asks, which do not belong there (RFC
/// 9112, 3.2; RFC 9113, 8.3.1).
pub(crate) fn host(authority: &[u8]) -> Arc<str> {
    clean(without_user(authority), MAX_HOST)
}

/// An authority without that name and password.
pub(crate) fn without_user(authority: &[u8]) -> &[u8] {
    let behind = memchr::memrchr(b'@', authority).map_or(0, |at| at + 1);
    authority.get(behind..).unwrap_or_default()
}

/// The text, cut after `limit` characters.
pub(crate) fn clean(bytes: &[u8], limit: usize) -> Arc<str> {
    let bytes = bytes.get(..limit).unwrap_or(bytes);
    if let Ok(text) = str::from_utf8(bytes)
        && bytes.iter().all(|byte| matches!(byte, 0x20..=0x7e))
    {
        return text.into();
    }
    let mut text = String::with_capacity(limit.min(4 * bytes.len()));
    for &byte in bytes {
        let size = if matches!(byte, 0x20..=0x7e) { 1 } else { 4 };
        if text.len() + size > limit {
            break;
        }
        if size == 1 {
            text.push(char::from(byte));
        } else {
            text.push_str("\\x");
            for digit in [byte >> 4, byte & 0x0f] {
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_password() {
        for (authority, expected) in
            [(&b"user:a@b@h.example:80"[..], "h.example:80"), (b"[::1]:80", "[::1]:80"), (b"user@", ""), (b"", "")]
        {
            assert_eq!(&*host(authority), expected);
        }
    }

    #[test]
    fn what_is_not_printable_is_escaped_and_long_text_is_cut() {
        assert_eq!(&*clean(b"/a b\\~", 9), "/a b\\~");
        assert_eq!(&*clean("/é\n".as_bytes(), 99), "/\\xc3\\xa9\\x0a");
        assert_eq!(&*clean(b"/abcdef", 3), "/ab");
        assert_eq!(&*clean(b"ab\xff", 5), "ab");
    }
}

//! Lines of HTTP/1 (RFC 9112): request line, status line, header fields, chunk sizes.

use crate::app::Probe;

/// How much of a line is looked at; the rest is skipped.
pub(super) const MAX_LINE: usize = 1280;

/// A request line that does not end within this length is one if its method is well known.
const PROBE_LIMIT: usize = 512;

/// Longest method of a request that recognises HTTP.
const MAX_METHOD: usize = 20;

/// How a status line begins, and what stands behind the last space of a request line.
const VERSION: &[u8] = b"HTTP/1.";

/// Methods of RFC 9110, 5789, and those of WebDAV that are common.
const METHODS: [&[u8]; 14] = [
    b"GET",
    b"POST",
    b"PUT",
    b"HEAD",
    b"DELETE",
    b"OPTIONS",
    b"PATCH",
    b"CONNECT",
    b"TRACE",
    b"PROPFIND",
    b"PROPPATCH",
    b"REPORT",
    b"MKCOL",
    b"SEARCH",
];

/// Whether a stream that begins like this is HTTP/1; `cut` says that the bytes that follow were not captured.
pub(crate) fn probe(bytes: &[u8], cut: bool) -> Probe {
    let bytes = behind_empty_lines(bytes);
    let shown = bytes.len().min(VERSION.len());
    if bytes.get(..shown) == VERSION.get(..shown) {
        return match bytes.get(..12) {
            Some(line) => Probe::certain(status(line).is_some()),
            None => Probe::More,
        };
    }
    probe_request(bytes, cut)
}

/// Old clients end a body with an empty line too many, and servers skip at least one (RFC 9112, 2.2).
fn behind_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let Some(rest) = bytes.strip_prefix(b"\r\n") {
        bytes = rest;
    }
    bytes
}

fn probe_request(bytes: &[u8], cut: bool) -> Probe {
    let token = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let length = bytes.iter().take(MAX_METHOD + 1).take_while(|byte| token(byte)).count();
    let (method, rest) = bytes.split_at(length);
    let Some((b' ', rest)) = rest.split_first() else {
        return if rest.is_empty() && (1..=MAX_METHOD).contains(&length) { Probe::More } else { Probe::No };
    };
    let Some(first) = rest.first() else { return Probe::More };
    let known = METHODS.contains(&method);
    let target = matches!(first, b'/' | b'*' | b'h' | b'H');
    if length < 3 || !(target || (known && first.is_ascii_graphic())) {
        return Probe::No;
    }
    let shown = bytes.get(..MAX_LINE).unwrap_or(bytes);
    match find_end(shown) {
        Some(end) => Probe::certain(shown.get(..end).and_then(|line| request(trim(line), false)).is_some()),
        None if shown.iter().any(|byte| byte.is_ascii_control() && *byte != b'\r') => Probe::No,
        None if !cut && bytes.len() < PROBE_LIMIT => Probe::More,
        None => Probe::certain(known && target),
    }
}

/// Where a line ends. Lines are short: finding the best instructions, as `memchr` does, takes longer than looking through
/// one, eight bytes at a time.
pub(super) fn find_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const ENDS: u64 = u64::from_le_bytes([b'\n'; 8]);
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        // The lowest zero byte borrows from its top bit; those above it may be wrong.
        let differences = u64::from_le_bytes(*word) ^ ENDS;
        let zeros = differences.wrapping_sub(ONES) & !differences & (ONES << 7);
        if zeros != 0 {
            return Some(8 * number + (zeros.trailing_zeros() / 8) as usize);
        }
    }
    rest.iter().position(|byte| *byte == b'\n').map(|at| 8 * words.len() + at)
}

/// Without the carriage return.
pub(super) fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Method and target of a request line; of a line that was cut only the beginning is there.
pub(super) fn request(line: &[u8], cut: bool) -> Option<(&[u8], &[u8])> {
    let space = memchr::memchr(b' ', line)?;
    let (method, target) = (line.get(..space)?, line.get(space + 1..)?);
    let is_token =
        |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'<' | b'>' | b'@' | b',' | b'"');
    if method.is_empty() || method.len() > MAX_METHOD || !method.iter().all(is_token) {
        return None;
    }
    // What is left of a version that was cut, too.
    let is_version = |text: &[u8]| text.starts_with(VERSION) || (cut && VERSION.starts_with(text));
    let target = match memchr::memrchr(b' ', target) {
        Some(end) if target.get(end + 1..).is_some_and(is_version) => target.get(..end)?,
        Some(_) | None if cut => target,
        Some(_) | None => return None,
    };
    (!target.is_empty()).then_some((method, target))
}

/// Status of a status line: of SHOUTcast and with other versions too, since the request says what it is.
pub(super) fn status(line: &[u8]) -> Option<u16> {
    let rest = match line {
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b' ', rest @ ..]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            rest
        }
        [b'I', b'C', b'Y', b' ', rest @ ..] => rest,
        _ => return None,
    };
    let digits = rest.first_chunk::<3>()?;
    if rest.get(3).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let status = digits
        .iter()
        .try_fold(0_u16, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u16::from(digit - b'0')))?;
    (100..=999).contains(&status).then_some(status)
}

/// A target in absolute form (RFC 9112, 3.2.2): its scheme, its authority, and what follows.
pub(super) fn absolute(target: &[u8]) -> Option<[&[u8]; 3]> {
    let colon = memchr::memchr(b':', target.get(..8).unwrap_or(target))?;
    let (scheme, rest) = target.split_at_checked(colon)?;
    let rest = rest.strip_prefix(b"://")?;
    if !(scheme.eq_ignore_ascii_case(b"http") || scheme.eq_ignore_ascii_case(b"https")) {
        return None;
    }
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let (before, (authority, behind)) = (target.len() - rest.len(), rest.split_at_checked(end)?);
    Some([target.get(..before)?, authority, behind])
}

/// Header fields that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Host(&'a [u8]),
    ContentLength(Option<u64>),
    TransferEncoding(&'a [u8]),
    Upgrade(&'a [u8]),
    Expect,
    Other,
}

/// Reads a header field.
pub(super) fn field(line: &[u8]) -> Field<'_> {
    // The first letter and the length rule out nearly all.
    let name_len = match line.first().map(u8::to_ascii_lowercase) {
        Some(b'h') => 4,
        Some(b'c') => 14,
        Some(b't') => 17,
        Some(b'u') => 7,
        Some(b'e') => 6,
        Some(_) | None => return Field::Other,
    };
    let Some((name, rest)) = line.split_at_checked(name_len) else { return Field::Other };
    let Some((b':', value)) = rest.split_first() else { return Field::Other };
    let value = value.trim_ascii();
    match name_len {
        4 if name.eq_ignore_ascii_case(b"host") => Field::Host(value),
        14 if name.eq_ignore_ascii_case(b"content-length") => Field::ContentLength(decimal(value)),
        17 if name.eq_ignore_ascii_case(b"transfer-encoding") => Field::TransferEncoding(value),
        6 if name.eq_ignore_ascii_case(b"expect") => Field::Expect,
        7 if name.eq_ignore_ascii_case(b"upgrade") => Field::Upgrade(value),
        _ => Field::Other,
    }
}

fn decimal(value: &[u8]) -> Option<u64> {
    // `5, 5` is what an intermediary makes of a repeated field (RFC 9112, 6.3).
    let first = value.split(|byte| *byte == b',').next()?.trim_ascii();
    str::from_utf8(first).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

/// Whether `list` ends with `token`, without regard to case.
pub(super) fn ends_with_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|byte| *byte == b',').next_back().is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(token))
}

/// Size of a chunk (RFC 9112, 7.1).
pub(super) fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next()?;
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_http_is_recognised() {
        for yes in ["GET / HTTP/1.1\r\n", "CONNECT a:443 HTTP/1.1\n", "HTTP/1.0 404 ", "M-SEARCH * HTTP/1.1\r\nHost"] {
            assert_eq!(probe(yes.as_bytes(), false), Probe::Yes, "{yes}");
            for end in 1..yes.len().min(12) {
                assert_eq!(probe(&yes.as_bytes()[..end], false), Probe::More, "{}", &yes[..end]);
            }
        }
        for lines in ["\r\n", "\r\n\r\n", "\r\n\r\n\r\n"] {
            assert_eq!(probe(format!("{lines}GET / HTTP/1.1\r\n").as_bytes(), false), Probe::Yes);
            assert_eq!(probe(lines.as_bytes(), false), Probe::More);
        }
        for no in [
            "\r\n\r\nlogin: ",
            "GET / RTSP/1.0\r\n",
            "GET name\r\n",
            "HELO a\r\n",
            "HTTP/1.1 2x0 OK",
            "HTTP/2 200 O",
            "EHLO /tmp\r\n",
            "get / HTTP/1.1\r\n",
            "\x16\x03\x01",
        ] {
            assert_eq!(probe(no.as_bytes(), false), Probe::No, "{no}");
        }
        let long = format!("GET /{}", "x".repeat(2000));
        assert_eq!(probe(long.as_bytes(), false), Probe::Yes);
        assert_eq!(probe(&long.as_bytes()[..300], false), Probe::More);
        assert_eq!(probe(&long.as_bytes()[..30], true), Probe::Yes);
    }

    proptest! {
        #[test]
        fn a_line_ends_at_its_first_line_feed(bytes in prop::collection::vec(prop::sample::select(vec![b'\n', b'\x0b', b'\x8a', b'a']), 0..40)) {
            prop_assert_eq!(find_end(&bytes), bytes.iter().position(|byte| *byte == b'\n'));
        }
    }

    #[test]
    fn lines_are_read() {
        assert_eq!(request(b"GET /a b HTTP/1.1", false), Some((&b"GET"[..], &b"/a b"[..])));
        assert_eq!(request(b"GET /a", false), None);
        for line in ["GET /a", "GET /a ", "GET /a H", "GET /a HTTP/1", "GET /a HTTP/1.", "GET /a HTTP/1.1"] {
            assert_eq!(request(line.as_bytes(), true), Some((&b"GET"[..], &b"/a"[..])), "{line}");
        }
        assert_eq!(
            (status(b"HTTP/1.1 200 OK"), status(b"HTTP/1.0 099"), status(b"HTTP/1.1 2000")),
            (Some(200), None, None)
        );
        assert_eq!(
            (status(b"ICY 200 OK"), status(b"HTTP/2.0 404"), status(b"HTTP/x.0 404")),
            (Some(200), Some(404), None)
        );
        assert_eq!(absolute(b"HTTP://h:1?q"), Some([&b"HTTP://"[..], b"h:1", b"?q"]));
        assert_eq!(absolute(b"/a?b=http://c"), None);
        assert_eq!(field(b"HOST:  a.b \t"), Field::Host(b"a.b"));
        assert_eq!(field(b"Hostile: a"), Field::Other);
        assert_eq!(field(b"content-length: 5, 5"), Field::ContentLength(Some(5)));
        assert_eq!(field(b"Content-Length: -5"), Field::ContentLength(None));
        assert!(ends_with_token(b"gzip, Chunked", b"chunked"));
        assert_eq!((chunk_size(b"1aF;x=y"), chunk_size(b""), chunk_size(b"g")), (Some(0x1af), None, None));
    }
}

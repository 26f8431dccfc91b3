//! A strict, bounded reader of a DNS message: header, first question, and the records as far as they are walked.
//!
//! Two bars: on the ports of DNS, and in a flow in which a query was answered, a sane header and a readable first
//! question are enough; elsewhere everything must be right to the last byte ([`Bar`]), so that random payload is never
//! DNS.

use super::names::{is_known_type, write_label};

/// Most compression pointers followed in a name.
const MAX_POINTERS: usize = 16;

/// Longest name on the wire, RFC 1035 2.3.4.
const MAX_NAME: usize = 255;

/// Most questions that a message may claim.
const MAX_QUESTIONS: u16 = 64;

/// Most answers that a message away from the ports of DNS may claim.
const MAX_RECORDS: u16 = 64;

const HEADER: usize = 12;

/// Type of the record that carries EDNS (RFC 6891).
const OPT: u16 = 41;

/// What is asked of a message before it counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bar {
    /// The port says DNS, or what passed before.
    Port,
    /// Nothing but the bytes says so, and all of them are here.
    Content,
}

/// The first question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// Of name and type, without regard to case.
    pub(super) hash: u64,
    pub(super) kind: u16,
    class: u16,
    /// Where the records or further questions begin.
    after: usize,
}

/// A message that passed all checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(super) id: u16,
    pub(super) response: bool,
    /// With the upper bits of EDNS.
    pub(super) rcode: u16,
    pub(super) answers: u16,
    pub(super) question: Option<Question>,
    bytes: &'a [u8],
}

/// Counts of the header.
#[derive(Debug, Clone, Copy)]
struct Counts {
    questions: u16,
    answers: u16,
    authorities: u16,
    additionals: u16,
}

impl Counts {
    fn records(self) -> u32 {
        u32::from(self.answers) + u32::from(self.authorities) + u32::from(self.additionals)
    }
}

/// Reads a message; `None` if it is not DNS.
pub(crate) fn parse(bytes: &[u8], bar: Bar) -> Option<Message<'_>> {
    let header: &[u8; HEADER] = bytes.first_chunk()?;
    let [i1, i0, flags, codes, q1, q0, a1, a0, n1, n0, r1, r0] = *header;
    let response = flags & 0x80 != 0;
    let counts = Counts {
        questions: u16::from_be_bytes([q1, q0]),
        answers: u16::from_be_bytes([a1, a0]),
        authorities: u16::from_be_bytes([n1, n0]),
        additionals: u16::from_be_bytes([r1, r0]),
    };
    let questions = counts.questions;
    if questions > MAX_QUESTIONS || (questions == 0 && !response) {
        return None;
    }
    if bar == Bar::Content && !is_ordinary(flags, codes, counts) {
        return None;
    }
    let question = if questions > 0 { Some(walk_question(bytes, None)?) } else { None };
    let mut message = Message {
        id: u16::from_be_bytes([i1, i0]),
        response,
        rcode: u16::from(codes & 0x0f),
        answers: counts.answers,
        question,
        bytes,
    };
    match bar {
        Bar::Content => {
            let question = question.filter(|question| {
                is_known_type(question.kind) && matches!(question.class & 0x7fff, 1 | 3 | 255) && message.is_plain()
            })?;
            let walked = walk_records(bytes, question.after, counts)?;
            if walked.end != bytes.len() {
                return None;
            }
            message.extend_rcode(walked);
        }
        Bar::Port if response && questions <= 1 && counts.additionals > 0 => {
            let after = question.map_or(HEADER, |question| question.after);
            if let Some(walked) = walk_records(bytes, after, counts) {
                message.extend_rcode(walked);
            }
        }
        Bar::Port => {}
    }
    Some(message)
}

/// One question, nothing reserved, and in a query nothing that only responses have.
fn is_ordinary(flags: u8, codes: u8, counts: Counts) -> bool {
    let response = flags & 0x80 != 0;
    let query = counts.answers == 0 && counts.authorities == 0 && counts.additionals <= 2;
    flags & 0x78 == 0
        && codes & 0x40 == 0
        && counts.questions == 1
        && (response || (flags & 0x06 == 0 && codes & 0x8f == 0 && query))
        && counts.answers.max(counts.authorities).max(counts.additionals) <= MAX_RECORDS
        && codes & 0x0f <= 10
}

impl Message<'_> {
    /// Name of the first question.
    pub(super) fn name(&self) -> Option<String> {
        self.question?;
        let mut name = String::with_capacity(32);
        walk_question(self.bytes, Some(&mut name))?;
        if name.is_empty() {
            name.push('.');
        }
        Some(name)
    }

    /// Whether the name of the question is made of letters, digits, hyphens and underscores.
    fn is_plain(&self) -> bool {
        let name = self.bytes.get(HEADER..).unwrap_or_default();
        let mut rest = name;
        while let Some((size @ 1..=63, after)) = rest.split_first() {
            let Some((label, next)) = after.split_at_checked(usize::from(*size)) else { return false };
            if !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                return false;
            }
            rest = next;
        }
        rest.first() == Some(&0)
    }

    fn extend_rcode(&mut self, walked: Walked) {
        if self.response {
            self.rcode |= u16::from(walked.extended_rcode) << 4;
        }
    }
}

/// Walks the first question, writing its name if asked.
fn walk_question(bytes: &[u8], mut text: Option<&mut String>) -> Option<Question> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01b3);
    let at = walk_name(bytes, HEADER, |label| {
        add(b'.');
        for byte in label {
            add(*byte);
        }
        if let Some(text) = &mut text {
            write_label(text, label);
        }
    })?;
    let [k1, k0, c1, c0] = *bytes.get(at..)?.first_chunk()?;
    add(k1);
    add(k0);
    Some(Question { hash, kind: u16::from_be_bytes([k1, k0]), class: u16::from_be_bytes([c1, c0]), after: at + 4 })
}

/// Walks a name; where it ends.
fn walk_name(bytes: &[u8], mut at: usize, mut each: impl FnMut(&[u8])) -> Option<usize> {
    let mut after = None;
    let (mut length, mut pointers) = (0, 0);
    loop {
        let size = *bytes.get(at)?;
        match size >> 6 {
            0 if size == 0 => return Some(after.unwrap_or(at + 1)),
            0 => {
                let label = bytes.get(at + 1..at + 1 + usize::from(size))?;
                length += label.len() + 1;
                if length >= MAX_NAME {
                    return None;
                }
                each(label);
                at += 1 + label.len();
            }
            3 => {
                let target = usize::from(size & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
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
}

#[derive(Debug, Clone, Copy)]
struct Walked {
    end: usize,
    extended_rcode: u8,
}

/// Walks all records; each has at least eleven bytes, so their number is bounded by the message.
fn walk_records(bytes: &[u8], mut at: usize, counts: Counts) -> Option<Walked> {
    let mut extended_rcode = 0;
    for _ in 0..counts.records() {
        // Names of records are only stepped over: a pointer ends them.
        loop {
            let size = *bytes.get(at)?;
            match size >> 6 {
                0 if size == 0 => {
                    at += 1;
                    break;
                }
                0 => at += 1 + usize::from(size),
                3 => {
                    at += 2;
                    break;
                }
                _ => return None,
            }
        }
        let fixed: &[u8; 10] = bytes.get(at..)?.first_chunk()?;
        if u16::from_be_bytes([fixed[0], fixed[1]]) == OPT {
            extended_rcode = fixed[4];
        }
        at += fixed.len() + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
        if at > bytes.len() {
            return None;
        }
    }
    Some(Walked { end: at, extended_rcode })
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
        let message = parse(&bytes, Bar::Port).unwrap();
        assert_eq!((message.name().as_deref(), message.question.unwrap().kind), (Some(r"ab\.\\\032.\255c"), 28));
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
            assert_eq!(parse(&query(question), Bar::Port), None, "{question:?}");
        }
        assert_eq!(parse(&[0; 11], Bar::Port), None);
    }

    #[test]
    fn elsewhere_everything_must_be_right() {
        let good = query(b"\x03www\x01a\x00\x00\x01\x00\x01");
        assert!(parse(&good, Bar::Content).is_some());
        let with = |change: fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            (parse(&bytes, Bar::Content).is_some(), parse(&bytes, Bar::Port).is_some())
        };
        let only_on_the_port = (false, true);
        assert_eq!(with(|bytes| bytes.push(0)), only_on_the_port, "something after it");
        assert_eq!(with(|bytes| bytes[13] = b'!'), only_on_the_port, "a strange name");
        assert_eq!(with(|bytes| bytes[3] = 0x40), only_on_the_port, "a reserved bit");
        assert_eq!(with(|bytes| bytes[7] = 1), only_on_the_port, "a record that is not there");
        assert_eq!(with(|bytes| bytes[20] = 200), only_on_the_port, "an unknown type");
        assert_eq!(with(|bytes| bytes[2] = 0x39), only_on_the_port, "an operation that nobody defined");
    }

    #[test]
    fn the_upper_bits_of_a_response_code_come_from_edns() {
        let mut bytes = query(b"\x01a\x00\x00\x01\x00\x01");
        (bytes[2], bytes[3], bytes[11]) = (0x81, 0x87, 1);
        bytes.extend(b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00");
        assert_eq!(parse(&bytes, Bar::Content).map(|message| message.rcode), Some(23));
        assert_eq!(parse(&bytes, Bar::Port).map(|message| message.rcode), Some(23));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(message) = parse(&bytes, Bar::Port) {
                let _ = message.name();
            }
            // Sixteen free bits in the header alone make this one in many millions.
            prop_assert!(parse(&bytes, Bar::Content).is_none());
        }
    }
}

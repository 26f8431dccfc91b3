//! Netlink messages (`netlink(7)`, RFC 3549): framing, attributes, requests and dumps. What parses is pure, and takes any bytes.

use std::io;
use std::time::Duration;

use super::sys::{self, Netlink, Received};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// Bytes of `nlmsghdr`.
const HEADER: usize = 16;
/// Bit 15: nested, bit 14: network byte order.
const ATTRIBUTE_TYPE: u16 = 0x3fff;

/// The kernel answers a request at once; one that does not within this time never will.
const PATIENCE: Duration = Duration::from_secs(2);

/// The kernel's datagrams are at most 32 KiB for dumps, and a page for events.
pub(super) const DATAGRAM: usize = 1 << 16;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// Type.
    pub(super) kind: u16,
    /// Flags.
    pub(super) flags: u16,
    /// Number of the request that it answers.
    pub(super) sequence: u32,
    /// After the header.
    pub(super) body: &'a [u8],
}

/// The messages of a datagram, as far as they are whole.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let head = datagram.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32::from_ne_bytes([head[8], head[9], head[10], head[11]]),
            body,
        })
    })
}

/// Type and value of each attribute, as far as they are whole.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & ATTRIBUTE_TYPE;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The attribute of a type.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The bytes at an offset.
pub(super) fn at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk::<N>().copied()
}

/// A request, for one answer or for a dump.
pub(super) fn request(kind: u16, dump: bool, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(((HEADER + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | if dump { NLM_F_DUMP } else { 0 }).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// A socket that asks, and its buffer.
#[derive(Debug)]
pub(super) struct Asker {
    socket: Netlink,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Asker {
    /// For a protocol of netlink, in the calling thread's network namespace.
    pub(super) fn open(protocol: libc::c_int) -> io::Result<Self> {
        Ok(Self { socket: Netlink::open(protocol, 0, 1 << 20)?, sequence: 0, buffer: vec![0; DATAGRAM] })
    }

    /// All that the kernel has; an error if it refuses, does not answer, or if its answer was lost.
    pub(super) fn dump(&mut self, kind: u16, body: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(kind, true, body)?;
        self.answers(|message| match message.kind {
            NLMSG_DONE => Some(Ok(())),
            NLMSG_ERROR => Some(refusal(message.body)),
            kind => {
                each(kind, message.body);
                None
            }
        })
    }

    /// One answer, or none: what was asked for is not there.
    pub(super) fn ask<T>(
        &mut self,
        kind: u16,
        body: &[u8],
        parse: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<T>> {
        self.send(kind, false, body)?;
        self.answers(|message| match message.kind {
            NLMSG_ERROR => Some(match refusal(message.body) {
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
                refused => refused.map(|()| None),
            }),
            _ => Some(Ok(parse(message.body))),
        })
    }

    fn send(&mut self, kind: u16, dump: bool, body: &[u8]) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&request(kind, dump, self.sequence, body))
    }

    /// Takes answers to the last request until one is the last.
    fn answers<T>(&mut self, mut take: impl FnMut(&Message<'_>) -> Option<io::Result<T>>) -> io::Result<T> {
        let mut waited = false;
        loop {
            match self.socket.receive(&mut self.buffer)? {
                Received::Datagram(datagram) => {
                    waited = false;
                    // What an earlier request left behind is not meant.
                    for message in messages(datagram).filter(|message| message.sequence == self.sequence) {
                        if let Some(result) = take(&message) {
                            return result;
                        }
                    }
                }
                Received::Overrun => return Err(io::Error::from_raw_os_error(libc::ENOBUFS)),
                Received::Nothing if waited => return Err(io::ErrorKind::TimedOut.into()),
                Received::Nothing => {
                    sys::wait(&[&self.socket], PATIENCE)?;
                    waited = true;
                }
            }
        }
    }
}

/// The error number of `nlmsgerr`; 0 is an acknowledgement.
fn refusal(body: &[u8]) -> io::Result<()> {
    match at(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_message() {
        let written = request(20, true, 7, &[1, 2, 3]);
        let read: Vec<_> = messages(&written).collect();
        assert_eq!(read, [Message { kind: 20, flags: 0x301, sequence: 7, body: &[1, 2, 3] }]);
    }

    #[test]
    fn what_is_not_whole_ends_the_messages_and_attributes() {
        let mut two = request(1, false, 1, &[0; 4]);
        two.extend(request(2, false, 2, &[0; 4]));
        assert_eq!(messages(&two).count(), 2);
        assert_eq!(messages(&two[..39]).count(), 1);
        // A length below the header's.
        assert_eq!(messages(&[0; 32]).count(), 0);
        assert_eq!(attributes(&[0; 32]).count(), 0);
        assert_eq!(attributes(&[5, 0, 1, 0x80, 9, 0, 0, 0, 200, 0, 2, 0]).collect::<Vec<_>>(), [(1, &[9][..])]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                attributes(message.body).for_each(drop);
                let _ = refusal(message.body);
            }
        }
    }
}

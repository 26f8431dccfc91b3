//! QUIC: the client's Initial packets, whose keys anyone can derive, opened for the ClientHello in them (RFC 9000,
//! RFC 9001, RFC 9369, drafts 22 to 34). The fields are those of [`super::tls`]; QUIC carries TLS 1.3 only.
//!
//! The keys come from the destination connection id of the client's first Initial, and from the new one after a Retry or
//! with another version: an Initial that the keys do not open is tried with its own id. CRYPTO frames are put together
//! in any order, over several packets and datagrams. What the server says is not needed: its choices but the version are
//! encrypted with keys that are not public. Of Google's own handshake (`Q…`) see [`google`].
//!
//! Invariants: at most [`MAX_TRIES`] packets of a flow are decrypted, at most [`MAX_HELLO`] bytes are kept; a flow that is
//! done holds its fields and nothing else.

mod frames;
mod google;
mod keys;
mod packet;
#[cfg(test)]
mod tests;

use self::keys::{ConnectionId, Keys};
use self::packet::{Header, Kind, MAX_CONNECTION_ID, dialect, is_google, is_grease};
use super::Probe;
use super::cursor::Cursor;
use super::pieces::Pieces;
use super::tls::{Carrier, MAX_HELLO, message, owned_by};
use crate::memory;
use crate::record::Tls;

/// Most decryptions that are tried for a flow.
const MAX_TRIES: u8 = 16;

/// Most packets that are read in a datagram.
const MAX_COALESCED: usize = 8;

/// Greatest UDP payload.
const MAX_DATAGRAM: usize = 65_527;

/// Least bytes of a datagram with a client's Initial (RFC 9000, 14.1), and of its connection id (7.2).
const MIN_INITIAL: usize = 1200;
const MIN_CONNECTION_ID: usize = 8;

/// Least bytes of that Initial itself, if small packets follow it in the datagram.
const MIN_PADDED: usize = 1000;

/// Whether a datagram is QUIC: one with a long header. Those with a short header look like nothing in particular.
#[inline]
pub(crate) fn probe(datagram: &[u8]) -> Probe {
    let known = match datagram {
        [0xc0..=0xff, ..] => is_long(datagram),
        // Google's header before version 46: flags for a version and an 8-byte connection id.
        [flags, _, _, _, _, _, _, _, _, b'Q', b'0', b'0'..=b'4', b'0'..=b'9', ..] => flags & 0xcb == 0x09,
        _ => false,
    };
    Probe::certain(known)
}

fn is_long(datagram: &[u8]) -> bool {
    let mut header = Cursor::new(datagram);
    let (_, Some(version)) = (header.u8(), header.u32()) else { return false };
    if dialect(version).is_some() {
        return Header::read(datagram).is_some_and(|header| {
            let long = match header.kind {
                // The tag and what header protection samples.
                Kind::Initial => header.end >= header.number_at + 20,
                Kind::Retry | Kind::Other => true,
            };
            // What the snap length cut is trusted if it is padded as a client's first is.
            let first = header.kind == Kind::Initial && header.dcid.len() >= MIN_CONNECTION_ID;
            let cut = first && (MIN_PADDED..=MAX_DATAGRAM).contains(&header.end);
            long && (header.end <= datagram.len() || cut)
        });
    }
    let ids = (header.vec8(), header.vec8());
    match ids {
        // Version 46 has the lengths of both ids in one byte.
        _ if is_google(version) => true,
        (Some(dcid), Some(scid)) if is_grease(version) => {
            datagram.len() >= MIN_INITIAL
                && (MIN_CONNECTION_ID..=MAX_CONNECTION_ID).contains(&dcid.len())
                && scid.len() <= MAX_CONNECTION_ID
        }
        _ => false,
    }
}

/// The handshake of a flow of datagrams.
#[derive(Debug)]
pub(crate) struct QuicFlow {
    fields: Tls,
    work: Option<Box<Work>>,
}

/// What is needed until the ClientHello is whole.
#[derive(Debug, Default)]
struct Work {
    /// The end whose packets were opened, with what, and what its keys were made from.
    client: Option<(usize, Keys, u32, ConnectionId)>,
    tries: u8,
    crypto: Pieces,
}

impl QuicFlow {
    /// Before the first datagram.
    pub(crate) fn new() -> Self {
        Self { fields: Tls::default(), work: Some(Box::default()) }
    }

    /// Bytes of memory owned beside the structure itself.
    pub(crate) fn owned_bytes(&self) -> usize {
        let work = self.work.as_ref().map_or(0, |work| memory::of_box::<Work>() + work.crypto.owned_bytes());
        work + owned_by(&self.fields)
    }

    /// Takes a datagram that an end (0 or 1) sent.
    #[inline]
    pub(crate) fn datagram(&mut self, end: usize, datagram: &[u8]) {
        if let Some(work) = &mut self.work
            && (work.read(end, datagram, &mut self.fields) || work.tries >= MAX_TRIES)
        {
            self.work = None;
        }
    }

    /// Takes the frames of an Initial that is opened already.
    pub(crate) fn frames(&mut self, frames: &[u8]) {
        if let Some(work) = &mut self.work
            && work.read_frames(frames, &mut self.fields)
        {
            self.work = None;
        }
    }

    /// Whether nothing more can be learnt.
    #[inline]
    pub(crate) fn is_done(&self) -> bool {
        self.work.is_none()
    }

    /// What is known so far.
    pub(crate) fn fields_mut(&mut self) -> &mut Tls {
        &mut self.fields
    }

    /// A copy of it.
    pub(crate) fn fields(&self) -> Tls {
        self.fields.clone()
    }
}

impl Work {
    /// Whether the hello is known, or will not come.
    fn read(&mut self, end: usize, datagram: &[u8], fields: &mut Tls) -> bool {
        if self.client.as_ref().is_some_and(|(client, ..)| *client != end) {
            return false;
        }
        if self.client.is_none()
            && probe(datagram) == Probe::Yes
            && let Some(packet) = google::Packet::read(datagram)
        {
            return self.read_google(&packet, fields);
        }
        if datagram.first().is_some_and(|first| first & 0x80 == 0) {
            // A short header: the client's handshake is over, if this is the client.
            return self.client.is_some() || probe(datagram) == Probe::Yes;
        }
        let version = datagram.get(1..).and_then(|rest| rest.first_chunk()).map(|version| u32::from_be_bytes(*version));
        if version.is_some_and(|version| is_google(version) && dialect(version).is_none()) {
            return true;
        }
        let mut rest = datagram;
        for _ in 0..MAX_COALESCED {
            let Some(header) = Header::read(rest) else { break };
            let Some((packet, following)) = rest.split_at_checked(header.end) else { break };
            rest = following;
            if header.kind == Kind::Initial
                && let Some(plain) = self.open(end, &header, packet)
                && self.read_frames(&plain, fields)
            {
                return true;
            }
        }
        false
    }

    /// Takes a packet of Google's; whether the hello is known, or will not come.
    fn read_google(&mut self, packet: &google::Packet<'_>, fields: &mut Tls) -> bool {
        fields.version = fields.version.or(packet.version());
        if !packet.is_in_the_clear() {
            return true;
        }
        self.tries += 1;
        packet.take_handshake(&mut self.crypto);
        google::client_hello(&self.crypto, fields)
    }

    /// Takes the frames of an Initial; whether the hello is known, or will not come.
    fn read_frames(&mut self, frames: &[u8], fields: &mut Tls) -> bool {
        frames::crypto(frames, |offset, piece| _ = self.crypto.add(offset, piece));
        self.take_hello(fields)
    }

    /// The frames of an Initial, opened with the keys that are there or with those of its own connection id.
    fn open(&mut self, end: usize, header: &Header<'_>, packet: &[u8]) -> Option<Vec<u8>> {
        let id = ConnectionId::new(header.dcid)?;
        let known = self.client.as_ref().map(|(_, keys, version, id)| (keys.clone(), *version, *id));
        if let Some((keys, version, _)) = &known
            && *version == header.version
            && self.tries < MAX_TRIES
        {
            self.tries += 1;
            if let Some(plain) = keys.open(packet, header.number_at) {
                return Some(plain);
            }
        }
        if self.tries >= MAX_TRIES || known.is_some_and(|(_, version, known)| (version, known) == (header.version, id))
        {
            return None;
        }
        self.tries += 1;
        let keys = Keys::of_client(header.dialect, header.dcid)?;
        let plain = keys.open(packet, header.number_at)?;
        self.client = Some((end, keys, header.version, id));
        // The handshake began again.
        self.crypto = Pieces::default();
        Some(plain)
    }

    /// Whether the ClientHello was whole, or is none.
    fn take_hello(&self, fields: &mut Tls) -> bool {
        let Some(header) = self.crypto.prefix(4) else { return false };
        let mut header = Cursor::new(&header);
        let (Some(kind), Some(length)) = (header.u8(), header.u24()) else { return false };
        if length > MAX_HELLO {
            return true;
        }
        let Some(hello) = self.crypto.prefix(4 + length) else { return false };
        message(fields, kind, hello.get(4..).unwrap_or_default(), Carrier::Quic);
        true
    }
}

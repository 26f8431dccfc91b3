//! Protection of a client's Initial packets (RFC 9001, 5): keys from the connection id, header protection, AES-128-GCM.
//!
//! These keys are public by design: whoever sees the first packet can open it. The tag is verified, so that bytes that
//! only look like an Initial give nothing.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{Aes128Gcm, KeyInit};
use hkdf::Hkdf;
use sha2::Sha256;

use super::packet::{Dialect, MAX_CONNECTION_ID};

/// Bytes of an AEAD tag, of a header protection sample, and of a key.
const BLOCK: usize = 16;

/// Keys that open what the client of a connection sends; 60 bytes, key schedules are made when they are used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    key: [u8; BLOCK],
    iv: [u8; 12],
    header: [u8; BLOCK],
}

impl Keys {
    /// From the destination connection id of the client's first Initial, or of the first after a Retry.
    pub(super) fn of_client(dialect: &Dialect, connection_id: &[u8]) -> Option<Self> {
        let (_, initial) = Hkdf::<Sha256>::extract(Some(dialect.salt), connection_id);
        let client: Hkdf<Sha256> = Hkdf::from_prk(&expand::<32>(&initial, "client ", "in")?).ok()?;
        Some(Self {
            key: expand(&client, dialect.label, "key")?,
            iv: expand(&client, dialect.label, "iv")?,
            header: expand(&client, dialect.label, "hp")?,
        })
    }

    /// The frames of a packet whose number is at `number_at`; `None` if the tag is wrong.
    pub(super) fn open(&self, packet: &[u8], number_at: usize) -> Option<Vec<u8>> {
        let sample = packet.get(number_at + 4..)?.first_chunk::<BLOCK>()?;
        let mut mask = (*sample).into();
        Aes128::new(&self.header.into()).encrypt_block(&mut mask);
        let [first_mask, number_mask @ .., _, _, _, _, _, _, _, _, _, _, _] = <[u8; BLOCK]>::from(mask);

        let mut packet = packet.to_vec();
        let first = packet.first_mut()?;
        *first ^= first_mask & 0x0f;
        let number_len = usize::from(*first & 3) + 1;
        let number = packet.get_mut(number_at..number_at + number_len)?;
        let mut nonce = self.iv;
        // Numbers of Initials are small: the low bytes that are sent are the whole number (RFC 9000, 17.1).
        for (place, (byte, mask)) in nonce.iter_mut().rev().zip(number.iter_mut().zip(number_mask).rev()) {
            *byte ^= mask;
            *place ^= *byte;
        }

        let (header, sealed) = packet.split_at_mut_checked(number_at + number_len)?;
        let (body, tag) = sealed.split_last_chunk_mut::<BLOCK>()?;
        let cipher = Aes128Gcm::new(&self.key.into());
        cipher.decrypt_inout_detached(&nonce.into(), header, body.into(), &(*tag).into()).ok()?;
        packet.truncate(packet.len() - BLOCK);
        packet.drain(..number_at + number_len);
        Some(packet)
    }
}

/// HKDF-Expand-Label with an empty context (RFC 8446, 7.1); the label is in two parts.
fn expand<const N: usize>(secret: &Hkdf<Sha256>, begin: &str, end: &str) -> Option<[u8; N]> {
    let length = ("tls13 ".len() + begin.len() + end.len()) as u8;
    let mut key = [0; N];
    let info: [&[u8]; 5] = [&[0, N as u8, length], b"tls13 ", begin.as_bytes(), end.as_bytes(), &[0]];
    secret.expand_multi_info(&info, &mut key).ok()?;
    Some(key)
}

/// A destination connection id, kept to see that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionId {
    bytes: [u8; MAX_CONNECTION_ID],
    length: u8,
}

impl ConnectionId {
    pub(super) fn new(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_CONNECTION_ID];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { bytes, length: id.len() as u8 })
    }
}

#[cfg(test)]
impl Keys {
    /// Packet and header key.
    pub(super) const fn raw(&self) -> [[u8; BLOCK]; 2] {
        [self.key, self.header]
    }

    pub(super) const fn iv(&self) -> [u8; 12] {
        self.iv
    }
}

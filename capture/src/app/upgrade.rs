//! Protocols that begin in the clear and may go over to TLS on the same connection: PostgreSQL and MySQL ask for it in a message
//! of their own, after which the client's hello comes; Microsoft's SQL Server has the handshake in packets of its own protocol. The flow keeps its name, and has the fields of TLS besides.
//!
//! SMTP, IMAP, POP3, LDAP and others that nobody names here need no help: a hello is found at the beginning of one of the first
//! [segments](super::TRIES) of a direction, whatever came before.
//!
//! Invariant: nothing is kept, and after [`MAX_PIECES`] of an end no hello is expected any more.

use super::exchange::End;
use super::recognise::tds_payload;
use super::tls;
use super::{Name, Probe};

/// Pieces of an end before its hello: a request, or a refusal and another request.
const MAX_PIECES: u8 = 3;

/// MySQL's request: header, capabilities and what else is fixed of the client's first message.
const MYSQL_REQUEST: usize = 36;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Upgrade {
    name: Name,
    pieces: [u8; 2],
}

/// What the next piece of a stream is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The first of TLS.
    Tls(&'a [u8]),
    /// It may still come.
    Wait,
    /// It will not come.
    Over,
}

impl Upgrade {
    pub(super) const fn new(name: Name) -> Self {
        Self { name, pieces: [0; 2] }
    }

    /// Looks at the next piece of what an end sent.
    pub(super) fn step<'a>(&mut self, end: End, bytes: &'a [u8]) -> Step<'a> {
        let rest = if self.name == Name::MsSql {
            unwrapped(bytes)
        } else {
            bytes.get(self.request_len(bytes)..).unwrap_or_default()
        };
        if tls::probe(rest) == Probe::Yes {
            return Step::Tls(rest);
        }
        let pieces = &mut self.pieces[end.index()];
        *pieces += 1;
        if *pieces > MAX_PIECES { Step::Over } else { Step::Wait }
    }

    /// Length of a request that the hello follows in the same piece.
    fn request_len(&self, bytes: &[u8]) -> usize {
        match (self.name, bytes) {
            (Name::MySql, [0x20, 0, 0, 1, _, capabilities, ..]) if capabilities & 0x08 != 0 => MYSQL_REQUEST,
            (Name::Postgres, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f, ..]) => 8,
            (_, _) => 0,
        }
    }
}

/// What a packet of SQL Server's protocol carries; the bytes themselves where none begins. After the handshake, which is so
/// wrapped, TLS has no packets around it.
pub(super) fn unwrapped(bytes: &[u8]) -> &[u8] {
    tds_payload(bytes).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::{browser, message};

    #[test]
    fn a_hello_is_found_behind_its_request_or_later() {
        let body = message(1, &browser().client());
        let hello = [&[22, 3, 1][..], &(body.len() as u16).to_be_bytes(), &body].concat();
        let mysql = [&[0x20, 0, 0, 1, 0x85, 0xae][..], &[0; 30]].concat();
        let mut upgrade = Upgrade::new(Name::MySql);
        assert_eq!(upgrade.step(End::Low, &mysql), Step::Wait);
        assert_eq!(upgrade.step(End::Low, &hello), Step::Tls(&hello));
        let both = [mysql, hello.clone()].concat();
        assert_eq!(Upgrade::new(Name::MySql).step(End::Low, &both), Step::Tls(&hello));
        assert_eq!(Upgrade::new(Name::Postgres).step(End::Low, &both), Step::Wait);
        for number in 0..=MAX_PIECES {
            let expected = if number == MAX_PIECES { Step::Over } else { Step::Wait };
            assert_eq!(upgrade.step(End::High, b"select 1"), expected);
        }
    }
}

//! Which addresses a connection has on the other side of a translation (a published port, a service's virtual address, a
//! masqueraded source).
//!
//! A connection is seen on either side. On the client's side its tuple is that of the opener's packets, on the server's
//! side that of the packets in reply, reversed; each leads to the other.
//!
//! **When.** A translation is told just after the first packet has passed, so one is taken to begin up to [`EARLY`] before it
//! was told. One that ended as the packets began ([`LATE`]) was the one before. Two that remain are none: it is not known which.

use std::net::SocketAddr;

use super::observation::Observation;
use super::recent::{During, Recent};
use crate::event::Translation;
use crate::timeline::Span;

/// Both tuples of so many connections.
const MOST: usize = 1_000_000;
/// How long after its first packet a translation may be told, ns.
const EARLY: i64 = 1_000_000_000;
/// How long after the first packet of the next the end of a translation may be told, ns.
const LATE: i64 = 50_000_000;

/// Source and destination of the opener's packets, on the client's side and on the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sides {
    /// As the opener sent them.
    pub(super) original: [SocketAddr; 2],
    /// As they arrived.
    pub(super) translated: [SocketAddr; 2],
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Translations {
    recent: Recent<(u8, [SocketAddr; 2]), Sides>,
}

impl Default for Translations {
    fn default() -> Self {
        Self { recent: Recent::new(MOST) }
    }
}

impl Translations {
    /// Takes what was told.
    pub(super) fn take(&mut self, told: &Translation) {
        let [answers_from, answers_to] = told.reply;
        let sides = Sides { original: told.original, translated: [answers_to, answers_from] };
        for tuple in [sides.original, sides.translated] {
            self.recent.put((told.protocol, tuple), sides, told.from, told.to);
        }
    }

    /// The two sides of the connection that was seen, and whether what counts as its client is who opened.
    pub(super) fn find(&self, seen: &Observation) -> Option<(Sides, bool)> {
        if self.recent.is_empty() {
            return None;
        }
        let end = |(ip, port): super::observation::End| Some(SocketAddr::new(ip, port?));
        let (client, server) = (end(seen.client)?, end(seen.server)?);
        let find = |tuple| self.one(seen.protocol.0, tuple, seen.when);
        let opened = find([client, server]).map(|sides| (sides, true));
        opened.or_else(|| find([server, client]).map(|sides| (sides, false)))
    }

    fn one(&self, protocol: u8, tuple: [SocketAddr; 2], when: Span) -> Option<Sides> {
        let early = Span { from: when.from, to: when.to.saturating_add(EARLY) };
        let found: Vec<&During<Sides>> = self.recent.touching(&(protocol, tuple), early).collect();
        let lasts = |own: &&&During<Sides>| own.to > when.from.saturating_add(LATE);
        let lasting: Vec<_> = found.iter().filter(lasts).copied().collect();
        // What begins only after the packets is of the next connection, if there was one in their time.
        let begun: Vec<_> = lasting.iter().filter(|own| own.from <= when.to).copied().collect();
        let choice = [begun, lasting, found].into_iter().find(|own| !own.is_empty())?;
        let first = choice.first()?.value;
        choice.iter().all(|own| own.value == first).then_some(first)
    }

    /// Translations that found no room.
    pub(super) fn beyond(&self) -> u64 {
        self.recent.beyond()
    }

    /// Forgets what ended before `before`.
    pub(super) fn forget(&mut self, before: i64) {
        self.recent.forget(before);
    }
}

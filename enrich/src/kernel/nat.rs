//! Connections whose addresses the host translates, over time: what dumps and events of connection tracking tell, turned into
//! identity events. Pure.
//!
//! Limits: [`MOST`] are known at once; what is beyond is counted. Where events were missed a dump tells what is there, and
//! what is not there any more ended when the events were last heard.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::conntrack::{Change, Connection};
use crate::event::{IdentityEvent, Translation};

/// Translations known at once.
const MOST: usize = 262_144;

#[derive(Debug)]
struct Known {
    id: u32,
    reply: [SocketAddr; 2],
    from: i64,
    /// The dump that had it last.
    round: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Translated {
    known: HashMap<(u8, [SocketAddr; 2]), Known>,
    round: u64,
    /// Translations beyond the limit.
    pub(super) beyond: u64,
}

impl Translated {
    /// Translations known now.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// Takes a message that was received at `at`.
    pub(super) fn take(&mut self, seen: &Connection, at: i64, out: &mut Vec<IdentityEvent>) {
        match seen.change {
            Change::There => self.there(seen, at, out),
            Change::Gone => {
                let key = (seen.protocol, seen.original);
                let is_same = |known: &Known| known.reply == seen.reply && known.id == seen.id;
                if self.known.get(&key).is_some_and(is_same)
                    && let Some(known) = self.known.remove(&key)
                {
                    out.push(event(key, &known, Some(seen.to.unwrap_or(at).max(known.from))));
                }
            }
        }
    }

    fn there(&mut self, seen: &Connection, at: i64, out: &mut Vec<IdentityEvent>) {
        let key = (seen.protocol, seen.original);
        if let Some(known) = self.known.get_mut(&key) {
            if known.reply == seen.reply && known.id == seen.id {
                known.round = self.round;
                return;
            }
            // Its end was not told, or is still to be taken.
            out.push(event(key, known, Some(at.max(known.from))));
            self.known.remove(&key);
        }
        if !seen.is_translated() {
            return;
        }
        if self.known.len() >= MOST {
            self.beyond += 1;
            return;
        }
        let known = Known { id: seen.id, reply: seen.reply, from: seen.from.unwrap_or(at), round: self.round };
        out.push(event(key, &known, None));
        self.known.insert(key, known);
    }

    /// A dump begins.
    pub(super) fn begin(&mut self) {
        self.round += 1;
    }

    /// A dump has told all: what it did not have ended at `heard`.
    pub(super) fn finish(&mut self, heard: i64, out: &mut Vec<IdentityEvent>) {
        let round = self.round;
        self.known.retain(|key, known| {
            let lasts = known.round == round;
            if !lasts {
                out.push(event(*key, known, Some(heard.max(known.from))));
            }
            lasts
        });
    }
}

fn event((protocol, original): (u8, [SocketAddr; 2]), known: &Known, to: Option<i64>) -> IdentityEvent {
    IdentityEvent::Translated(Translation { protocol, original, reply: known.reply, from: known.from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(change: Change, id: u32, backend: u16) -> Connection {
        let end = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let (original, reply) = ([end(5), end(80)], [end(backend), end(5)]);
        Connection { change, protocol: 6, original, reply, id, from: None, to: None }
    }

    /// Backend and time of each event.
    fn story(events: &mut Vec<IdentityEvent>) -> Vec<(u16, i64, Option<i64>)> {
        let tell = |event| match event {
            IdentityEvent::Translated(own) => (own.reply[0].port(), own.from, own.to),
            other => panic!("{other:?}"),
        };
        events.drain(..).map(tell).collect()
    }

    #[test]
    fn a_translation_lasts_from_its_first_packet_to_its_end() {
        let (mut table, mut out) = (Translated::default(), Vec::new());
        table.take(&seen(Change::There, 1, 8080), 100, &mut out);
        table.take(&seen(Change::There, 1, 8080), 150, &mut out);
        table.take(&seen(Change::There, 2, 80), 150, &mut out);
        assert_eq!(story(&mut out), [(8080, 100, None), (8080, 100, Some(150))], "the next one ends it");
        table.take(&seen(Change::There, 1, 8080), 200, &mut out);
        table.take(&seen(Change::Gone, 9, 8080), 250, &mut out);
        table.take(&seen(Change::Gone, 1, 8080), 300, &mut out);
        assert_eq!(story(&mut out), [(8080, 200, None), (8080, 200, Some(300))]);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn after_lost_events_a_dump_tells_what_has_ended() {
        let (mut table, mut out) = (Translated::default(), Vec::new());
        table.take(&seen(Change::There, 1, 8080), 100, &mut out);
        story(&mut out);
        for (heard, there) in [(200, true), (400, false)] {
            table.begin();
            if there {
                table.take(&seen(Change::There, 1, 8080), 300, &mut out);
            }
            table.finish(heard, &mut out);
        }
        assert_eq!(story(&mut out), [(8080, 100, Some(400))]);
    }
}

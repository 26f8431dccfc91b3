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
        if !seen.is_translated() {
            return;
        }
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

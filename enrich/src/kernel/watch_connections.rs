//! Follows connection tracking: a dump for what is there, events for what begins and ends, and another dump when events were
//! lost.

use std::io;
use std::sync::Arc;

use super::conntrack::{self, Change, Connection};
use super::nat::Translated;
use super::netlink::{Asker, DATAGRAM, messages};
use super::numbers::KernelNumbers;
use super::sys::{Netlink, Received};
use super::{is_due, now};
use crate::event::IdentityEvent;

/// Bytes of events that may wait.
const BUFFER: i32 = 8 << 20;
/// Datagrams taken at once.
const AT_ONCE: usize = 1024;
/// After events were lost there is a dump at most so often, ns.
const BETWEEN_DUMPS: i64 = 5_000_000_000;

/// See the module documentation.
pub(super) struct WatchConnections {
    asker: Asker,
    events: Netlink,
    buffer: Vec<u8>,
    translated: Translated,
    /// Until when every event was heard.
    heard: i64,
    /// A dump is due, and not before this time.
    dump_at: Option<i64>,
    numbers: Arc<KernelNumbers>,
}

impl WatchConnections {
    /// Subscribes; the first dump is due.
    pub(super) fn open(numbers: Arc<KernelNumbers>) -> io::Result<Self> {
        let events = Netlink::open(conntrack::PROTOCOL, conntrack::GROUPS, BUFFER)?;
        let mut asker = Asker::open(conntrack::PROTOCOL)?;
        asker.dump(conntrack::GET, &conntrack::ALL, &mut |_, _| {})?;
        let (buffer, translated) = (vec![0; DATAGRAM], Translated::default());
        Ok(Self { asker, events, buffer, translated, heard: now(), dump_at: Some(0), numbers })
    }

    /// Whether the kernel answers.
    pub(super) fn check() -> io::Result<()> {
        Self::open(Arc::default()).map(drop)
    }

    pub(super) fn socket(&self) -> &Netlink {
        &self.events
    }

    /// Takes what there is; connections that have begun are added to `begun`.
    pub(super) fn take(&mut self, begun: &mut Vec<Connection>, out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        for _ in 0..AT_ONCE {
            match self.events.receive(&mut self.buffer)? {
                Received::Datagram(datagram) => {
                    let at = now();
                    let read = messages(datagram).filter_map(|own| conntrack::parse(own.kind, own.body));
                    for connection in read {
                        self.translated.take(&connection, at, out);
                        if connection.change == Change::There {
                            begun.push(connection);
                        }
                    }
                    if self.dump_at.is_none() {
                        self.heard = at;
                    }
                }
                Received::Overrun => {
                    self.numbers.add_overrun();
                    self.dump_at.get_or_insert(self.heard.saturating_add(BETWEEN_DUMPS));
                }
                Received::Nothing => {
                    if self.dump_at.is_none() {
                        self.heard = now();
                    }
                    break;
                }
            }
        }
        if self.dump_at.is_some_and(|due| is_due(due, now(), BETWEEN_DUMPS)) {
            self.dump(out)?;
        }
        self.numbers.set_translations(self.translated.len(), self.translated.beyond);
        Ok(())
    }

    fn dump(&mut self, out: &mut Vec<IdentityEvent>) -> io::Result<()> {
        // What ends while the dump runs is told after it.
        let at = now();
        self.translated.begin();
        let translated = &mut self.translated;
        self.asker.dump(conntrack::GET, &conntrack::ALL, &mut |kind, body| {
            if let Some(connection) = conntrack::parse(kind, body) {
                translated.take(&connection, at, out);
            }
        })?;
        self.translated.finish(self.heard, out);
        (self.dump_at, self.heard) = (None, at);
        Ok(())
    }
}

//! Flows of others: records that exporters send as NetFlow v5, NetFlow v9 (RFC 3954) or IPFIX (RFC 7011) become [`FlowRecord`]s.
//!
//! ```text
//! datagram ─ header ─ sets ─ templates, options ─ [session]
//!                      └──── records ─ told ─ seen ─ [join]: waits for the other direction ─ row
//! ```
//!
//! * **Rows.** A record of both directions (RFC 5103, or counts of initiator and responder) is a row. A record of one direction is joined
//!   with the one of the other direction ([`join`]), or is a row in which the other side sent nothing. Exporters cut long
//!   connections at a timeout of theirs; each record is a flow of its own then, and `community_id` is what they share.
//! * **Where.** `node` is the exporter's address, `interface` the name or number (`if7`) of its interface, `observed_at` is `path`.
//!   [`point`] tells exporters apart; records made where packets come in and records made where they go out are two observations of
//!   one flow.
//! * **Who is the client** is what the exporter says, else a SYN, else the ports, else the first sender.
//! * **When** is in [`mod@time`]: clocks that are wrong are not believed.
//! * **Sampling.** Counts are multiplied where the exporter says that it samples, and only there.
//! * **Loss** is counted from sequence numbers, and is more than what a socket lost: whatever the exporter sent. Sets whose
//!   template is not known are at least a record each.
//! * **Hostile input.** UDP has no sender that can be trusted: only the given exporters are heard; sessions, templates, their
//!   fields, samplers, names and what waits are bounded; a message that makes no sense is counted by reason.
//!
//! The collector is pure: it reads no clock. Time is an argument, and what exporters tell.
//!
//! Not done: sets that come before their template are not kept for it, because exporters send templates first and again; elements of layer 2, MPLS, routing and
//! translation are passed over; NetFlow v1, v7 and sFlow are not read.

mod counters;
mod element;
mod join;
mod message;
mod row;
mod sampling;
mod sequence;
mod session;
mod socket;
mod sys;
mod template;
mod time;
mod told;
mod wire;

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};

use siphasher::sip::SipHasher13;

pub use self::counters::NetflowCounters;
pub use self::join::WAIT;
pub use self::socket::Socket;

use self::join::Joiner;
use self::message::{Format, Header, Kind, Malformed};
use self::sampling::{Factor, Samplers};
use self::sequence::Contents;
use self::session::{Session, SessionKey, Sessions};
use self::template::{Dialect, Subject, Template};
use self::told::{Place, Seen, Told};
use self::wire::Reader;
use crate::record::FlowRecord;

/// The number of an exporter among observation points; never that of a network namespace.
pub fn point(exporter: IpAddr) -> u64 {
    let mut hasher = SipHasher13::new();
    match exporter {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.finish() | 1 << 63
}

/// See the module documentation.
pub struct Collector {
    sessions: Sessions,
    joiner: Joiner,
    v5: Template,
    counters: NetflowCounters,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            sessions: Sessions::default(),
            joiner: Joiner::default(),
            v5: message::v5_template(),
            counters: NetflowCounters::default(),
        }
    }
}

impl Collector {
    /// Takes a datagram that arrived at `now`. What waits is bounded, and one datagram more, if whoever calls asks whether it [is full](Self::is_full).
    pub fn datagram(&mut self, from: SocketAddr, data: &[u8], now: i64) {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let mut message = Reader::new(data);
        let header = match message::header(&mut message) {
            Ok(header) => header,
            Err(error) => return self.counters.malformed(error.as_str()),
        };
        *self.counters.datagrams.entry(header.version).or_default() += 1;
        let key = SessionKey::new(from, &header);
        let Self { sessions, joiner, v5, counters } = self;
        let session = sessions.of(key, now, counters);
        let kept = session.kept();
        session.begin(from.port(), &header);
        let mut intake =
            Intake { exporter: from.ip(), header, session, joiner, counters, now, contents: Contents::default() };
        let outcome = match header.format {
            Format::V5 { records, sampling } => {
                intake.session.samplers = Samplers::all(Factor::one_of(sampling.into()));
                for _ in 0..records {
                    intake.flow(v5, &mut message);
                }
                Ok(())
            }
            Format::Sets(dialect) => intake.sets(dialect, &mut message),
        };
        let contents = Contents { unknown: intake.contents.unknown || outcome.is_err(), ..intake.contents };
        session.count(from.port(), &header, contents, counters);
        if let Err(error) = outcome {
            counters.malformed(error.as_str());
        }
        if session.kept() != kept {
            sessions.limit(&key, kept, counters);
        }
    }

    /// Counts a datagram of somebody who is not among the exporters.
    pub const fn stranger(&mut self) {
        self.counters.strangers += 1;
    }

    /// Whether more waits than may: then rows are [taken](Self::take) before the next datagram.
    pub fn is_full(&self) -> bool {
        self.joiner.is_full()
    }

    /// Gives the rows whose wait is over at `now`.
    pub fn take(&mut self, now: i64, out: &mut Vec<Exported>) {
        loop {
            let is_full = self.joiner.is_full();
            let Some(seen) = self.joiner.next(now) else { return };
            self.counters.rows += 1;
            self.counters.hurried += u64::from(is_full);
            out.push(Exported { point: point(seen.exporter), record: row::row(seen) });
        }
    }

    /// Gives all rows.
    pub fn flush(&mut self, out: &mut Vec<Exported>) {
        self.take(i64::MAX, out);
    }

    /// What became of what exporters sent.
    pub fn counters(&self) -> NetflowCounters {
        let (sessions, templates) = self.sessions.len();
        let (waiting, joined) = (self.joiner.len() as u64, self.joiner.joined());
        NetflowCounters { joined, sessions, templates, waiting, ..self.counters.clone() }
    }
}

/// A row, and where it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The exporter: [`point`].
    pub point: u64,
    /// The row.
    pub record: FlowRecord,
}

/// A message on its way in.
struct Intake<'a> {
    exporter: IpAddr,
    header: Header,
    session: &'a mut Session,
    joiner: &'a mut Joiner,
    counters: &'a mut NetflowCounters,
    now: i64,
    contents: Contents,
}

impl Intake<'_> {
    /// Reads all sets, as far as they make sense.
    fn sets(&mut self, dialect: Dialect, message: &mut Reader<'_>) -> Result<(), Malformed> {
        while let Some((kind, mut set)) = message::set(dialect, message)? {
            match kind {
                Kind::Templates | Kind::OptionsTemplates => {
                    if self.templates(dialect, kind, &mut set).is_err() {
                        // The next set may be sound.
                        self.counters.malformed(Malformed::Template.as_str());
                    }
                }
                Kind::Data(id) => self.data(id, &mut set),
                Kind::Reserved => {}
            }
        }
        Ok(())
    }

    fn templates(&mut self, dialect: Dialect, kind: Kind, set: &mut Reader<'_>) -> Result<(), ()> {
        let of_options = kind == Kind::OptionsTemplates;
        let read = if of_options { template::of_options } else { template::of_flows };
        while let Some(news) = read(dialect, set)? {
            session::learn(self.session, news, of_options, self.counters);
        }
        Ok(())
    }

    fn data(&mut self, id: u16, set: &mut Reader<'_>) {
        let Some(template) = self.session.templates.get(id).cloned() else {
            self.counters.unknown_templates += 1;
            self.contents.unknown = true;
            return;
        };
        match template.subject {
            Subject::Flows => while self.flow(&template, set).is_some() {},
            Subject::Options(scope) => loop {
                let mut told = Told::default();
                if template.read(set, |element, contents| told.take(element, contents)).is_none() {
                    return;
                }
                self.contents.options += 1;
                let sampling = told.sampling;
                self.counters.forgotten += u64::from(!self.session.learn(told, &sampling, scope));
            },
        }
    }

    /// Reads a record of a flow; `None` at the end of the set.
    fn flow(&mut self, template: &Template, set: &mut Reader<'_>) -> Option<()> {
        let mut told = Told::default();
        template.read(set, |element, contents| told.take(element, contents))?;
        let place = Place { message: self.header.number, record: self.contents.flows };
        self.contents.flows += 1;
        self.counters.records += 1;
        let factor = self.session.samplers.of(&told.sampling);
        let clocks = time::Clocks { booted: self.session.booted, ..self.header.clocks };
        let interface = session::interface(self.session, &mut told);
        match told.flow((self.exporter, &self.session.node, interface), &clocks, factor, self.now) {
            Ok(seen) => {
                self.counters.scaled += u64::from(factor != Factor::ALL);
                self.counters.replaced_times += u64::from(seen.replaced);
                self.joiner.push(Seen { place, ..seen }, self.now);
            }
            Err(refusal) => self.counters.refuse(refusal.as_str()),
        }
        Some(())
    }
}

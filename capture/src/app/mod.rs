//! Application protocols of flows: recognised by content, then read by a parser as far as the record needs.
//!
//! A flow holds an [`Application`]: a box that exists only while there is something to recognise or to read, and a small
//! tag that outlives it. A direction is tried at the beginning of at most [`TRIES`] segments with payload (so that a
//! capture that begins midstream still finds a request), at most [`recognise::MAX_BEGINNING`] bytes of it are kept, and
//! then it costs one branch a packet.
//!
//! Invariants:
//! * memory of a flow is bounded, whatever it carries: each parser says its limits;
//! * parsers see bytes in order and each once ([`stream`]), and are told of what is missing;
//! * any cut of the same stream into segments gives the same fields;
//! * no bytes make a parser panic.

mod beginning;
mod cursor;
mod dns;
pub(crate) mod dtls;
mod early;
mod exchange;
mod http;
mod http1;
mod http2;
mod pieces;
mod probe;
pub(crate) mod quic;
mod recognise;
mod session;
mod stream;
#[cfg(test)]
mod testing;
mod text;
pub(crate) mod tls;
mod upgrade;

pub(crate) use self::exchange::{End, Finished};
pub(crate) use self::probe::Probe;
use self::recognise::{Datagram, Found, Protocol};
use self::session::Session;
use self::stream::{Reader, Stream};
use crate::decode::{Sealed, Tcp};
use crate::memory;
use crate::record::{FlowRecord, vocabulary};

vocabulary! {
    /// Protocols, as in the column `app`.
    pub(crate) Name {
        Dns = "dns",
        Mdns = "mdns",
        Llmnr = "llmnr",
        Http = "http",
        Http2 = "http2",
        Grpc = "grpc",
        WebSocket = "websocket",
        Ssh = "ssh",
        MySql = "mysql",
        MsSql = "mssql",
        Postgres = "postgres",
        Redis = "redis",
        Kafka = "kafka",
        Amqp = "amqp",
        MongoDb = "mongodb",
        Ssdp = "ssdp",
        Tls = "tls",
        Dtls = "dtls",
        Quic = "quic",
    }
}

/// What a flow of packets that carry those of others is called in the column `app`.
pub(crate) const CARRIER: &str = "tunnel";

/// The protocol of this name, as the column `app` has it.
pub fn app_named(text: &str) -> Option<&'static str> {
    let names = Name::ALL.iter().map(|name| name.as_str()).chain(Sealed::ALL.iter().map(|name| name.as_str()));
    names.chain([CARRIER]).find(|name| *name == text)
}

impl Name {
    /// DNS by the port that it is spoken on. The port of plain DNS is only ever that of who is asked; the others may be
    /// a client's by chance.
    fn of_dns(ports: [u16; 2]) -> Self {
        if ports.contains(&53) {
            Self::Dns
        } else if ports.contains(&5353) {
            Self::Mdns
        } else if ports.contains(&5355) {
            Self::Llmnr
        } else {
            Self::Dns
        }
    }
}

/// Segments with payload at whose beginning a direction is tried.
const TRIES: u8 = 8;

/// What outlives a parser.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tag {
    name: Option<Name>,
    /// By end; nothing more is asked of an end at [`TRIES`].
    tries: [u8; 2],
    transactions: bool,
}

impl Tag {
    fn is_spent(self, end: End) -> bool {
        self.tries[end.index()] >= TRIES
    }

    fn try_failed(&mut self, end: End) {
        self.tries[end.index()] = self.tries[end.index()].saturating_add(1);
    }

    /// Something was recognised: both ends are listened to, also one that said much before.
    fn renew(&mut self) {
        self.tries = [0; 2];
    }

    fn spend(&mut self) {
        self.tries = [TRIES; 2];
    }
}

/// What must be known of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// Who sent it.
    pub(crate) end: End,
    /// When it was captured.
    pub(crate) time: i64,
    /// Ports of the ends.
    pub(crate) ports: [u16; 2],
}

/// What exists while there is something to read.
#[derive(Debug)]
struct App {
    streams: [Stream; 2],
    session: Session,
    /// Exchanges handed over so far.
    exchanges: u32,
}

impl App {
    fn new(streams: [Stream; 2], session: Session) -> Self {
        Self { streams, session, exchanges: 0 }
    }

    /// Bytes of memory owned.
    fn weight(&self) -> u32 {
        let streams = self.streams.iter().map(Stream::owned_bytes).sum::<usize>();
        u32::try_from(streams + self.session.owned_bytes()).unwrap_or(u32::MAX)
    }
}

/// A parser at work on one direction.
struct Reading<'a> {
    session: &'a mut Session,
    tag: &'a mut Tag,
    context: Context,
}

impl Reader for Reading<'_> {
    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.session.bytes(self.tag, self.context, bytes);
    }

    fn gap(&mut self, length: u32) {
        self.session.gap(self.tag, self.context, length);
    }

    fn indifferent(&self) -> u64 {
        self.session.indifferent(self.context.end)
    }

    fn time(&self) -> i64 {
        self.context.time
    }

    fn at(&mut self, time: i64) {
        self.context.time = time;
    }

    #[inline]
    fn skip(&mut self, length: u32) -> bool {
        self.session.skip(self.context, length)
    }
}

/// The application of a flow.
#[derive(Debug)]
pub(crate) struct Application {
    app: Option<Box<App>>,
    tag: Tag,
    /// Bytes of memory that the box owns, as of the last time that something was read: here, where nobody has to look into it.
    held: u32,
}

impl Application {
    /// Nothing is known; `transactions` says whether exchanges are kept for [`Self::take_finished`].
    pub(crate) const fn new(transactions: bool) -> Self {
        Self { app: None, tag: Tag { name: None, tries: [0; 2], transactions }, held: 0 }
    }

    /// Whether anything may come of a TCP segment with so much payload: what most segments are asked.
    #[inline]
    pub(crate) fn wants(&self, end: End, payload_len: u32) -> bool {
        !self.tag.is_spent(end) && (self.app.is_some() || payload_len > 0)
    }

    /// Takes in a TCP segment that is [wanted](Self::wants); `first` says where the two directions begin, if their SYNs were seen.
    #[inline]
    pub(crate) fn tcp(&mut self, context: Context, segment: &Tcp<'_>, first: [Option<u32>; 2]) {
        match &mut self.app {
            Some(_) => self.read(context, segment),
            None => self.meet(context, segment, first),
        }
    }

    /// A direction begins at this number, whatever an earlier SYN said: nothing of it was read so far.
    pub(crate) fn begins(&mut self, end: End, first: Option<u32>) {
        if let Some(app) = &mut self.app {
            app.streams[end.index()] = Stream::starting_at(first);
        }
    }

    /// Takes in a UDP payload of so many bytes on the wire.
    #[inline]
    pub(crate) fn udp(&mut self, context: Context, payload: &[u8], length: u32) {
        if !self.tag.is_spent(context.end) {
            self.datagram(context, payload, length);
        }
    }

    fn read(&mut self, context: Context, segment: &Tcp<'_>) {
        let Some(app) = &mut self.app else { return };
        let [low, high] = &mut app.streams;
        let (own, other) = match context.end {
            End::Low => (low, high),
            End::High => (high, low),
        };
        let session = &mut app.session;
        let back = Context { end: context.end.other(), ..context };
        let was_spent = self.tag.is_spent(back.end);
        let closed = other.acknowledged(segment, &mut Reading { session, tag: &mut self.tag, context: back });
        let read = own.segment(segment, &mut Reading { session, tag: &mut self.tag, context });
        if !(closed || read) {
            return;
        }
        if self.tag.is_spent(context.end) {
            own.clear();
        }
        // What it said while nobody listened is not waited for.
        if was_spent && !self.tag.is_spent(back.end) {
            *other = Stream::default();
        }
        match app.session.progress() {
            session::Progress::Nothing if app.streams.iter().all(Stream::is_even) => self.app = None,
            session::Progress::Reading | session::Progress::Nothing => {}
            session::Progress::Done => {
                self.tag.spend();
                app.streams.iter_mut().for_each(Stream::clear);
                if !app.session.has_fields() {
                    self.app = None;
                }
            }
        }
        self.weigh();
    }

    /// The first segments with payload, while nothing is recognised.
    fn meet(&mut self, context: Context, segment: &Tcp<'_>, first: [Option<u32>; 2]) {
        let end = context.end;
        let begins = first[end.index()];
        let early = self.tag.tries[end.index()] == 0
            && begins.is_some_and(|begins| (1..1 << 16).contains(&segment.seq.wrapping_sub(begins)));
        let bytes = segment.payload.get(..segment.payload_len as usize).unwrap_or(segment.payload);
        match recognise::tcp(recognise::behind_proxy(bytes), context.ports, false) {
            Found::No if !early => self.tag.try_failed(end),
            // A SYN may carry a beginning (RFC 7413), so it goes through the stream like all others.
            Found::Yes(Protocol::Named(name)) if !early => self.tag.name(name),
            Found::Yes(_) | Found::More | Found::No => {
                let mut streams = first.map(Stream::starting_at);
                if !early {
                    streams[end.index()] = Stream::default();
                }
                let other = end.other().index();
                let one_sided = first[other].is_none() && self.tag.tries[other] == 0;
                // What the other end said before is not waited for.
                if self.tag.tries[other] > 0 {
                    streams[other] = Stream::default();
                }
                let session = Session::new(self.tag.transactions, one_sided);
                self.app = Some(Box::new(App::new(streams, session)));
                self.read(context, segment);
            }
        }
    }

    fn datagram(&mut self, context: Context, payload: &[u8], length: u32) {
        if let Some(app) = &mut self.app {
            app.session.datagram(context, payload, length);
            if app.session.progress() == session::Progress::Done {
                self.tag.spend();
            }
            self.weigh();
            return;
        }
        match recognise::udp(payload, length, context.ports) {
            Datagram::Dns(bar, message) => {
                let session = self.begin(Protocol::Dns(bar), context.ports);
                session.message(context, &message, length);
                self.weigh();
            }
            Datagram::Other(Protocol::Named(name)) => self.tag.name(name),
            Datagram::Other(protocol) => {
                self.begin(protocol, context.ports).datagram(context, payload, length);
                self.weigh();
            }
            // On the ports of DNS a message may come at any time, and looking costs little.
            Datagram::Unknown if dns::is_expected(context.ports) => {}
            Datagram::Unknown => self.tag.try_failed(context.end),
        }
    }

    /// Begins to read datagrams.
    fn begin(&mut self, protocol: Protocol, ports: [u16; 2]) -> &mut Session {
        let mut session = Session::new(self.tag.transactions, false);
        session.begin(protocol, &mut self.tag, ports, true);
        &mut self.app.insert(Box::new(App::new(<[Stream; 2]>::default(), session))).session
    }

    /// Counts what is owned by now.
    fn weigh(&mut self) {
        self.held = self.app.as_ref().map_or(0, |app| app.weight());
    }

    /// Fills in what the slice has; `over` says that the flow has no other.
    pub(crate) fn fill(&mut self, record: &mut FlowRecord, over: bool) {
        record.app = self.tag.name.map(Name::as_str).or(record.app);
        if let Some(app) = &mut self.app {
            app.session.fill(record, over);
        }
    }

    /// Begins the next slice; the last packet of this one was at `end`.
    pub(crate) fn next_slice(&mut self, end: i64) {
        if let Some(app) = &mut self.app {
            app.session.next_slice(end);
        }
    }

    /// Whether the flow is DNS with all queries answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.app.as_ref().is_some_and(|app| app.session.is_answered())
    }

    /// The flow is over; its last packet was at `time`: what waits for missing bytes is read, and exchanges without an answer
    /// are finished.
    pub(crate) fn close(&mut self, time: i64, ports: [u16; 2]) {
        let Some(app) = &mut self.app else { return };
        let App { streams, session, .. } = &mut **app;
        for (stream, end) in streams.iter_mut().zip([End::Low, End::High]) {
            let context = Context { end, time, ports };
            stream.flush(&mut Reading { session, tag: &mut self.tag, context });
        }
        session.close();
    }

    /// Bytes of memory owned beside the structure itself, as of the last time that something was read.
    #[inline]
    pub(crate) fn owned_bytes(&self) -> usize {
        self.app.as_ref().map_or(0, |_| memory::of_box::<App>() + self.held as usize)
    }

    /// Whether there are any for [`Self::take_finished`].
    #[inline]
    pub(crate) fn has_finished(&self) -> bool {
        self.app.as_ref().is_some_and(|app| app.session.has_finished())
    }

    /// Hands over the exchanges that are finished, each with its number in the flow.
    pub(crate) fn take_finished(&mut self, mut each: impl FnMut(u32, Finished)) {
        let Some(App { session, exchanges, .. }) = self.app.as_deref_mut() else { return };
        for exchange in session.finished().into_iter().flat_map(|finished| finished.drain(..)) {
            each(*exchanges, exchange);
            *exchanges = exchanges.wrapping_add(1);
        }
    }
}

impl Tag {
    /// A protocol of which only the name is wanted.
    fn name(&mut self, name: Name) {
        self.name = Some(name);
        self.spend();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_that_is_not_read_is_small() {
        assert!(size_of::<Application>() <= 16, "{}", size_of::<Application>());
        assert!(size_of::<App>() <= 256, "{}", size_of::<App>());
        let http1 = size_of::<http1::Http1>() + size_of::<http::HttpSlice>();
        assert!(http1 <= 768, "{http1}");
    }
}

//! The parser of a flow, from recognition to the end.

use super::beginning::Beginning;
use super::dns::{Bar, DnsFlow, DnsStream, Message, parse};
use super::dtls::DtlsFlow;
use super::exchange::{End, Finished, Passed, give};
use super::http::HttpSlice;
use super::http1::{self, Http1, Switched};
use super::http2::Http2;
use super::quic::QuicFlow;
use super::recognise::{self, Found, MAX_BEGINNING, Protocol};
use super::tls::TlsFlow;
use super::upgrade::{Step, Upgrade, unwrapped};
use super::{Context, Name, Probe, Tag};
use crate::memory;
use crate::record::FlowRecord;

/// What reads the flow.
#[derive(Debug)]
enum Parser {
    /// Not recognised yet: the beginnings of both directions.
    Unknown([Beginning; 2]),
    Http1(Box<Http1>),
    Http2(Box<Http2>),
    Dns(DnsFlow, Bar),
    DnsStream(Box<DnsStream>),
    Tls(Box<TlsFlow>),
    Dtls(Box<DtlsFlow>),
    Quic(Box<QuicFlow>),
    /// TLS may come.
    Upgrade(Upgrade),
    /// Nothing more is read.
    Done,
}

/// How far a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Something is being read or recognised.
    Reading,
    /// Nothing was recognised so far, and nothing is kept.
    Nothing,
    /// Nothing more is to be read.
    Done,
}

/// The parser, and the HTTP fields, which outlive it.
#[derive(Debug)]
pub(super) struct Session {
    parser: Parser,
    http: Option<Box<HttpSlice>>,
    transactions: bool,
    one_sided: bool,
    /// The first bytes of a direction were not captured, by end.
    headless: [bool; 2],
}

impl Session {
    /// A session that has recognised nothing; `one_sided` says that nothing was seen but of the end that begins it.
    pub(super) const fn new(transactions: bool, one_sided: bool) -> Self {
        let parser = Parser::Unknown([Beginning::NOTHING; 2]);
        Self { parser, http: None, transactions, one_sided, headless: [false; 2] }
    }

    /// Begins to read a protocol.
    pub(super) fn begin(&mut self, protocol: Protocol, tag: &mut Tag, ports: [u16; 2], datagrams: bool) {
        let name = match protocol {
            Protocol::Http1 => {
                self.parser = Parser::Http1(Box::new(Http1::new(self.one_sided, self.headless)));
                Name::Http
            }
            Protocol::Http2 => {
                self.parser = Parser::Http2(Box::default());
                Name::Http2
            }
            Protocol::Dns(bar) => {
                let name = Name::of_dns(ports);
                let app = name.as_str();
                self.parser = if datagrams {
                    Parser::Dns(DnsFlow::new(app, self.transactions), bar)
                } else {
                    Parser::DnsStream(Box::new(DnsStream::new(app, self.transactions, bar)))
                };
                name
            }
            Protocol::Tls => {
                self.parser = Parser::Tls(Box::new(TlsFlow::new()));
                Name::Tls
            }
            Protocol::Dtls => {
                self.parser = Parser::Dtls(Box::new(DtlsFlow::new()));
                Name::Dtls
            }
            Protocol::Quic => {
                self.parser = Parser::Quic(Box::new(QuicFlow::new()));
                Name::Quic
            }
            Protocol::Named(name) => {
                self.parser = Parser::Done;
                name
            }
            Protocol::Upgrading(name) => {
                self.parser = Parser::Upgrade(Upgrade::new(name));
                name
            }
        };
        if matches!(protocol, Protocol::Http1 | Protocol::Http2) && self.http.is_none() {
            self.http = Some(Box::new(HttpSlice::new(self.transactions)));
        }
        tag.name = Some(name);
        tag.renew();
    }

    /// Bytes of memory owned beside the structure itself.
    pub(super) fn owned_bytes(&self) -> usize {
        let parser = match &self.parser {
            Parser::Unknown(beginnings) => beginnings.iter().map(|kept| memory::of_vec(&kept.bytes)).sum(),
            Parser::Http1(http1) => memory::of_box::<Http1>() + http1.owned_bytes(),
            Parser::Http2(http2) => memory::of_box::<Http2>() + http2.owned_bytes(),
            Parser::Dns(dns, _) => dns.owned_bytes(),
            Parser::DnsStream(dns) => memory::of_box::<DnsStream>() + dns.owned_bytes(),
            Parser::Tls(tls) => memory::of_box::<TlsFlow>() + tls.owned_bytes(),
            Parser::Dtls(dtls) => memory::of_box::<DtlsFlow>() + dtls.owned_bytes(),
            Parser::Quic(quic) => memory::of_box::<QuicFlow>() + quic.owned_bytes(),
            Parser::Upgrade(_) | Parser::Done => 0,
        };
        parser + self.http.as_ref().map_or(0, |http| memory::of_box::<HttpSlice>() + http.owned_bytes())
    }

    /// Takes in the next bytes of a direction.
    pub(super) fn bytes(&mut self, tag: &mut Tag, context: Context, bytes: &[u8]) {
        let Context { end, time, .. } = context;
        match (&mut self.parser, &mut self.http) {
            (Parser::Unknown(_), _) => self.recognise(tag, context, bytes),
            (Parser::Http1(http1), Some(slice)) => {
                if let Some((switched, rest)) = http1.bytes(end, time, bytes, slice) {
                    self.switch(tag, context, switched, rest);
                }
            }
            // A server that speaks first in HTTP/2, and a client that knows only HTTP/1.
            (Parser::Http2(http2), Some(_)) if http2.is_silent(end) && http1::probe(bytes, false) == Probe::Yes => {
                self.parser = Parser::Http1(Box::default());
                tag.name = Some(Name::Http);
                self.bytes(tag, context, bytes);
            }
            (Parser::Http2(http2), Some(slice)) => {
                http2.bytes(end, time, bytes, slice);
                if http2.is_grpc() {
                    tag.name = Some(Name::Grpc);
                }
            }
            (Parser::DnsStream(dns), _) => dns.bytes(end, time, bytes),
            (Parser::Tls(tls), _) if tag.name == Some(Name::MsSql) => tls.bytes(end.index(), unwrapped(bytes)),
            (Parser::Tls(tls), _) => tls.bytes(end.index(), bytes),
            (Parser::Upgrade(upgrade), _) => match upgrade.step(end, bytes) {
                Step::Tls(bytes) => {
                    let mut tls = Box::new(TlsFlow::new());
                    tls.bytes(end.index(), bytes);
                    self.parser = Parser::Tls(tls);
                }
                Step::Wait => {}
                Step::Over => self.parser = Parser::Done,
            },
            (Parser::Http1(_) | Parser::Http2(_), None)
            | (Parser::Dns(..) | Parser::Dtls(_) | Parser::Quic(_) | Parser::Done, _) => {}
        }
    }

    /// Bytes that were not captured.
    pub(super) fn gap(&mut self, tag: &mut Tag, context: Context, length: u32) {
        let Context { end, time, .. } = context;
        match (&mut self.parser, &mut self.http) {
            (Parser::Unknown(_), _) => self.recognise_cut(tag, context, length),
            (Parser::Http1(http1), Some(slice)) => http1.gap(end, time, length.into(), slice),
            (Parser::Http2(http2), Some(slice)) => http2.gap(end, length.into(), slice),
            (Parser::DnsStream(dns), _) => dns.gap(end, length),
            (Parser::Tls(tls), _) => tls.gap(end.index()),
            (Parser::Upgrade(_), _) => self.parser = Parser::Done,
            (Parser::Http1(_) | Parser::Http2(_), None)
            | (Parser::Dns(..) | Parser::Dtls(_) | Parser::Quic(_) | Parser::Done, _) => {}
        }
    }

    /// How many of the next bytes make no difference.
    pub(super) fn indifferent(&self, end: End) -> u64 {
        match &self.parser {
            Parser::Unknown(_) | Parser::Tls(_) | Parser::Upgrade(_) => 0,
            Parser::Http1(http1) => http1.indifferent(end),
            Parser::Http2(http2) => http2.indifferent(end),
            Parser::DnsStream(dns) => dns.indifferent(end),
            Parser::Dns(..) | Parser::Dtls(_) | Parser::Quic(_) | Parser::Done => u64::MAX,
        }
    }

    /// Steps over so many bytes if they change nothing.
    #[inline]
    pub(super) fn skip(&mut self, context: Context, length: u32) -> bool {
        match &mut self.parser {
            Parser::Http1(http1) => http1.skip(context.end, context.time, length),
            Parser::Unknown(_)
            | Parser::Http2(_)
            | Parser::Dns(..)
            | Parser::DnsStream(_)
            | Parser::Tls(_)
            | Parser::Dtls(_)
            | Parser::Quic(_)
            | Parser::Upgrade(_)
            | Parser::Done => false,
        }
    }

    /// Takes in a message of DNS, a datagram of so many bytes on the wire.
    pub(super) fn message(&mut self, context: Context, message: &Message<'_>, length: u32) {
        if let Some(dns) = self.dns_mut() {
            dns.track(context.end, Passed::at(context.time), message, length);
        }
    }

    /// Takes in a datagram of so many bytes on the wire.
    pub(super) fn datagram(&mut self, context: Context, payload: &[u8], length: u32) {
        let end = context.end;
        match &mut self.parser {
            Parser::Dns(dns, bar) => {
                // What answers a query is DNS, and then so is the flow.
                if *bar == Bar::Content && parse(payload, Bar::Port).is_some_and(|message| dns.awaits(end, &message)) {
                    *bar = Bar::Port;
                }
                if let Some(message) = parse(payload, *bar) {
                    self.message(context, &message, length);
                }
            }
            Parser::Dtls(dtls) => dtls.datagram(end.index(), payload),
            Parser::Quic(quic) => quic.datagram(end.index(), payload),
            Parser::Unknown(_)
            | Parser::Http1(_)
            | Parser::Http2(_)
            | Parser::DnsStream(_)
            | Parser::Tls(_)
            | Parser::Upgrade(_)
            | Parser::Done => {}
        }
    }

    fn recognise(&mut self, tag: &mut Tag, context: Context, bytes: &[u8]) {
        let Parser::Unknown(beginnings) = &mut self.parser else { return };
        if tag.is_spent(context.end) {
            return;
        }
        let kept = &mut beginnings[context.end.index()];
        if kept.bytes.is_empty() {
            self.recognise_piece(tag, context, bytes);
            return;
        }
        let (seen, rest) = bytes.split_at(bytes.len().min(MAX_BEGINNING.saturating_sub(kept.bytes.len())));
        kept.extend(seen, context.time);
        match recognise::tcp(&kept.bytes, context.ports, false) {
            Found::Yes(protocol) => {
                let own = kept.take();
                self.begin_with(protocol, tag, context);
                self.beginning(tag, context, &own);
                if !rest.is_empty() {
                    self.bytes(tag, context, rest);
                }
            }
            Found::More => {}
            // What was kept may have been the end of something, or the byte of a keep-alive.
            Found::No => {
                *kept = Beginning::NOTHING;
                self.recognise_piece(tag, context, bytes);
            }
        }
    }

    /// A piece with nothing before it, but what a proxy may say of who is behind it.
    fn recognise_piece(&mut self, tag: &mut Tag, context: Context, bytes: &[u8]) {
        let bytes = recognise::behind_proxy(bytes);
        match recognise::tcp(bytes, context.ports, false) {
            Found::More if bytes.is_empty() => tag.try_failed(context.end),
            Found::Yes(protocol) => {
                self.begin_with(protocol, tag, context);
                self.bytes(tag, context, bytes);
            }
            Found::More => {
                if let Parser::Unknown(beginnings) = &mut self.parser {
                    beginnings[context.end.index()].extend(bytes, context.time);
                }
            }
            Found::No => tag.try_failed(context.end),
        }
    }

    /// A beginning after which bytes were not captured.
    fn recognise_cut(&mut self, tag: &mut Tag, context: Context, length: u32) {
        let Parser::Unknown(beginnings) = &mut self.parser else { return };
        let own = beginnings[context.end.index()].take();
        if own.bytes.is_empty() || tag.is_spent(context.end) {
            self.headless[context.end.index()] = true;
            return;
        }
        match recognise::tcp(&own.bytes, context.ports, true) {
            Found::Yes(protocol) => {
                self.begin_with(protocol, tag, context);
                self.beginning(tag, context, &own);
                self.gap(tag, context, length);
            }
            Found::More | Found::No => tag.try_failed(context.end),
        }
    }

    /// Begins to read a protocol with what was kept of the other direction; the beginning of this one is next.
    fn begin_with(&mut self, protocol: Protocol, tag: &mut Tag, context: Context) {
        let back = Context { end: context.end.other(), ..context };
        let other = match &mut self.parser {
            Parser::Unknown(beginnings) => beginnings[back.end.index()].take(),
            Parser::Http1(_)
            | Parser::Http2(_)
            | Parser::Dns(..)
            | Parser::DnsStream(_)
            | Parser::Tls(_)
            | Parser::Dtls(_)
            | Parser::Quic(_)
            | Parser::Upgrade(_)
            | Parser::Done => Beginning::NOTHING,
        };
        self.begin(protocol, tag, context.ports, false);
        if !other.bytes.is_empty() {
            self.beginning(tag, back, &other);
        }
    }

    /// Takes in what was kept of a direction. Those for whom it matters when bytes passed are given the first by
    /// itself.
    fn beginning(&mut self, tag: &mut Tag, context: Context, kept: &Beginning) {
        let timed = matches!(self.parser, Parser::Http1(_) | Parser::Http2(_) | Parser::DnsStream(_));
        let (first, rest) = kept.bytes.split_at(usize::from(timed && kept.passed.first != kept.passed.last));
        if !first.is_empty() {
            self.bytes(tag, Context { time: kept.passed.first, ..context }, first);
        }
        self.bytes(tag, Context { time: kept.passed.last, ..context }, rest);
    }

    /// HTTP/1 made room for another protocol.
    fn switch(&mut self, tag: &mut Tag, context: Context, switched: Switched, rest: &[u8]) {
        match switched {
            Switched::Http2(request) => {
                let client = context.end.other();
                self.parser = Parser::Http2(Box::new(Http2::upgraded(client, request)));
                tag.name = Some(Name::Http2);
            }
            Switched::WebSocket => {
                self.parser = Parser::Done;
                tag.name = Some(Name::WebSocket);
            }
            Switched::Other => self.parser = Parser::Done,
            Switched::Tunnel { early, time } => {
                self.parser = Parser::Unknown([Beginning::NOTHING; 2]);
                self.one_sided = false;
                tag.renew();
                if !early.is_empty() {
                    self.bytes(tag, Context { end: context.end.other(), time, ..context }, &early);
                }
            }
        }
        if !rest.is_empty() {
            self.bytes(tag, context, rest);
        }
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        match &self.parser {
            Parser::Unknown(beginnings)
                if self.http.is_none() && beginnings.iter().all(|kept| kept.bytes.is_empty()) =>
            {
                Progress::Nothing
            }
            Parser::Tls(tls) if tls.is_done() => Progress::Done,
            Parser::Dtls(dtls) if dtls.is_done() => Progress::Done,
            Parser::Quic(quic) if quic.is_done() => Progress::Done,
            Parser::Unknown(_)
            | Parser::Http1(_)
            | Parser::Http2(_)
            | Parser::Dns(..)
            | Parser::DnsStream(_)
            | Parser::Tls(_)
            | Parser::Dtls(_)
            | Parser::Quic(_)
            | Parser::Upgrade(_) => Progress::Reading,
            Parser::Done => Progress::Done,
        }
    }

    /// Whether there is something for the record.
    pub(super) fn has_fields(&self) -> bool {
        self.http.is_some() || matches!(self.parser, Parser::Tls(_) | Parser::Dtls(_) | Parser::Quic(_))
    }

    /// Fills in what the slice has; what it names is copied, unless the flow is `over`.
    pub(super) fn fill(&mut self, record: &mut FlowRecord, over: bool) {
        let http = self.http.as_mut().and_then(|http| http.fields());
        record.http = http.map(|http| Box::new(give(http, over)));
        let tls = match &mut self.parser {
            Parser::Tls(tls) => Some(tls.fields_mut()),
            Parser::Dtls(dtls) => Some(dtls.fields_mut()),
            Parser::Quic(quic) => Some(quic.fields_mut()),
            Parser::Unknown(_)
            | Parser::Http1(_)
            | Parser::Http2(_)
            | Parser::Dns(..)
            | Parser::DnsStream(_)
            | Parser::Upgrade(_)
            | Parser::Done => None,
        };
        record.tls = tls.map(|tls| Box::new(give(tls, over)));
        record.dns = self.dns_mut().and_then(|dns| dns.fields(over)).map(Box::new);
    }

    fn dns(&self) -> Option<&DnsFlow> {
        match &self.parser {
            Parser::Dns(dns, _) => Some(dns),
            Parser::DnsStream(dns) => Some(&dns.flow),
            Parser::Unknown(_)
            | Parser::Http1(_)
            | Parser::Http2(_)
            | Parser::Tls(_)
            | Parser::Dtls(_)
            | Parser::Quic(_)
            | Parser::Upgrade(_)
            | Parser::Done => None,
        }
    }

    fn dns_mut(&mut self) -> Option<&mut DnsFlow> {
        match &mut self.parser {
            Parser::Dns(dns, _) => Some(dns),
            Parser::DnsStream(dns) => Some(&mut dns.flow),
            Parser::Unknown(_)
            | Parser::Http1(_)
            | Parser::Http2(_)
            | Parser::Tls(_)
            | Parser::Dtls(_)
            | Parser::Quic(_)
            | Parser::Upgrade(_)
            | Parser::Done => None,
        }
    }

    /// Begins the next slice; the last packet of this one was at `end`.
    pub(super) fn next_slice(&mut self, end: i64) {
        if let Some(http) = &mut self.http {
            http.next_slice();
        }
        if let Some(dns) = self.dns_mut() {
            dns.next_slice(end);
        }
    }

    /// Whether it is DNS with all queries answered.
    pub(super) fn is_answered(&self) -> bool {
        self.dns().is_some_and(DnsFlow::is_answered)
    }

    /// The flow is over.
    pub(super) fn close(&mut self) {
        match (&mut self.parser, &mut self.http) {
            (Parser::Http1(http1), Some(slice)) => http1.close(slice),
            (Parser::Http2(http2), Some(slice)) => http2.close(slice),
            (Parser::Dns(dns, _), _) => dns.close(),
            (Parser::DnsStream(dns), _) => dns.flow.close(),
            (Parser::Http1(_) | Parser::Http2(_), None)
            | (
                Parser::Unknown(_)
                | Parser::Tls(_)
                | Parser::Dtls(_)
                | Parser::Quic(_)
                | Parser::Upgrade(_)
                | Parser::Done,
                _,
            ) => {}
        }
    }

    /// Whether exchanges are finished.
    pub(super) fn has_finished(&self) -> bool {
        let http = self.http.as_ref().is_some_and(|http| !http.finished.is_empty());
        http || self.dns().is_some_and(|dns| !dns.finished.is_empty())
    }

    /// Exchanges that are finished, if there are any.
    pub(super) fn finished(&mut self) -> Option<&mut Vec<Finished>> {
        let finished =
            if self.http.is_some() { &mut self.http.as_mut()?.finished } else { &mut self.dns_mut()?.finished };
        (!finished.is_empty()).then_some(finished)
    }
}

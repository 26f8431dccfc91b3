//! A TCP connection with known truth: two endpoints that exchange data over a path that loses segments before and after
//! the capture point, delays and reorders them, while the capture misses some and delivers others twice.
//!
//! The endpoints recover as NewReno (RFC 6582) does: a segment is sent again after three duplicate acknowledgements, after
//! a partial acknowledgement, and after a timeout that doubles.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use wiretag_capture::FlowRecord;
use wiretag_capture::flow::FlowConfig;

use crate::observer::{MSS, Observer, Reason, Wire};
use crate::story::*;

/// One microsecond.
pub(crate) const MICRO: i64 = 1000;

/// What the path and the endpoints do.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each says something of its own")]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    /// Per mille of data segments (and FINs) lost before or after the capture point.
    pub(crate) loss: u64,
    /// Per mille of SYNs lost after the capture point.
    pub(crate) syn_loss: u64,
    /// Per mille of pure acknowledgements lost.
    pub(crate) ack_loss: u64,
    /// Per mille that pass unseen.
    pub(crate) missed: u64,
    /// Per mille delivered twice by the capture.
    pub(crate) copied: u64,
    /// Per mille of data segments that are overtaken.
    pub(crate) delayed: u64,
    pub(crate) timestamps: bool,
    /// Receivers acknowledge selectively, with windows that grow.
    pub(crate) sack: bool,
    pub(crate) delayed_acks: bool,
    /// Per mille of acknowledgements that close the window for a while.
    pub(crate) closing: u64,
    pub(crate) keep_alives: bool,
    /// From the capture point to each end.
    pub(crate) halves: [i64; 2],
    pub(crate) isn: [u32; 2],
    /// Segments of each request and its response.
    pub(crate) exchanges: Vec<(u64, u64)>,
}

#[derive(Debug)]
enum Event {
    Capture(Wire, bool),
    Arrive(Wire),
    Timeout(Host, u32),
    Acknowledge(Host),
    Open(Host),
    Write(Host, u64),
    Probe,
}

/// One endpoint; data is in segments, numbered from 0, the FIN after the last.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each says something of its own")]
struct Endpoint {
    written: u64,
    next: u64,
    acknowledged: u64,
    duplicates: u32,
    recover: Option<u64>,
    backoff: u32,
    timer: u32,
    peer_closed: bool,
    finishing: bool,
    received: BTreeSet<u64>,
    /// Received last.
    latest: u64,
    expected: u64,
    window: u16,
    pending: bool,
    closed: bool,
    echo: u32,
    free_at: i64,
    ip_id: u16,
    probes: u32,
}

pub(crate) struct Simulation {
    scenario: Scenario,
    random: u64,
    now: i64,
    events: BinaryHeap<Reverse<(i64, u64, usize)>>,
    queued: Vec<Option<Event>>,
    ends: [Endpoint; 2],
    exchange: usize,
    story: Story,
    observer: Observer,
    last_seen: i64,
}

fn index(host: Host) -> usize {
    usize::from(host != Client)
}

impl Simulation {
    pub(crate) fn new(scenario: &Scenario, config: FlowConfig) -> Self {
        let mut simulation = Self {
            random: scenario.seed,
            scenario: scenario.clone(),
            now: 0,
            events: BinaryHeap::new(),
            queued: Vec::new(),
            ends: Default::default(),
            exchange: 0,
            story: Story::with(config),
            observer: Observer::default(),
            last_seen: 0,
        };
        simulation.ends[1].ip_id = 30_000;
        simulation.handshake();
        simulation
    }

    /// SplitMix64.
    fn chance(&mut self, per_mille: u64) -> bool {
        self.pick(1000) < per_mille
    }

    fn pick(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn at(&mut self, time: i64, event: Event) {
        self.events.push(Reverse((time, self.queued.len() as u64, self.queued.len())));
        self.queued.push(Some(event));
    }

    fn wire(&mut self, from: Host, flags: u8, offset: u64, length: u64, reason: Reason) -> Wire {
        let peer_written = self.ends[index(from.other())].written;
        let end = &mut self.ends[index(from)];
        end.ip_id = end.ip_id.wrapping_add(1).max(1);
        let ack = (flags & ACK != 0).then(|| offset_of(end.expected, peer_written));
        let timestamps = self.scenario.timestamps.then_some(((self.now / MS) as u32, end.echo));
        end.window += u16::from(self.scenario.sack);
        let window = if end.closed { 0 } else { 500 + end.window };
        let block = self.scenario.sack.then(|| end.block()).flatten();
        let sack = block.map(|(from, to)| (offset_of(from, peer_written), offset_of(to, peer_written)));
        Wire { from, flags, offset, length, ack, sack, window, timestamps, ip_id: end.ip_id, reason }
    }

    /// The path: at most one segment every ten microseconds from an end, in order unless one is overtaken.
    fn send(&mut self, wire: Wire) {
        let (near, far) = (self.scenario.halves[index(wire.from)], self.scenario.halves[index(wire.from.other())]);
        let has_space = wire.space() > 0 && wire.flags & SYN == 0;
        let end = &mut self.ends[index(wire.from)];
        let leaves = end.free_at.max(self.now);
        end.free_at = leaves + 10 * MICRO;
        let loss = if has_space { self.scenario.loss } else { self.scenario.ack_loss };
        let (before, after) = (self.chance(loss), self.chance(loss));
        let (early, late) = (self.overtaken(has_space), self.overtaken(has_space));
        if before {
            return;
        }
        let (seen, copied) = (!self.chance(self.scenario.missed), self.chance(self.scenario.copied));
        let passes = leaves + near + early;
        if seen || wire.flags & SYN != 0 {
            self.at(passes, Event::Capture(wire.clone(), false));
            if copied {
                self.at(passes + 3 * MICRO, Event::Capture(wire.clone(), true));
            }
        }
        if !after {
            self.at(passes + far + late, Event::Arrive(wire));
        }
    }

    fn overtaken(&mut self, has_space: bool) -> i64 {
        if has_space && self.chance(self.scenario.delayed) { (1 + self.pick(30) as i64) * 97 * MICRO } else { 0 }
    }

    fn handshake(&mut self) {
        let [client, server] = self.scenario.halves;
        let syn = self.wire(Client, SYN, 0, 0, Reason::New);
        let retried = self.chance(self.scenario.syn_loss);
        self.capture(client, &syn, false);
        let start = if retried {
            let again =
                Wire { ip_id: 20_000, timestamps: syn.timestamps.map(|_| (1000, 0)), reason: Reason::Timeout, ..syn };
            self.capture(client + 1000 * MS, &again, false);
            client + 1000 * MS
        } else {
            client
        };
        self.ends[1].echo = if retried { 1000 } else { 0 };
        self.now = start + server;
        let syn_ack = Wire { ack: Some(1), ..self.wire(Server, SYN | ACK, 0, 0, Reason::New) };
        self.capture(start + 2 * server, &syn_ack, false);
        self.ends[0].echo = syn_ack.timestamps.map_or(0, |(value, _)| value);
        self.now = start + 2 * server + client;
        let ack = self.wire(Client, ACK, 1, 0, Reason::New);
        self.capture(self.now + client, &ack, false);
        let request = self.scenario.exchanges.first().map_or(0, |exchange| exchange.0);
        self.at(self.now + 2 * client + 5 * MS, Event::Write(Client, request));
    }

    fn capture(&mut self, at: i64, wire: &Wire, copy: bool) {
        self.observer.pass(at, wire, copy);
        self.last_seen = self.last_seen.max(at);
        let number = |host: Host, offset: u64| self.scenario.isn[index(host)].wrapping_add(offset as u32);
        let ack = wire.ack.map_or(0, |ack| number(wire.from.other(), ack));
        let mut sent = segment(wire.from, wire.flags, number(wire.from, wire.offset), ack)
            .data(wire.length as u32)
            .window(wire.window)
            .ip_id(wire.ip_id);
        if wire.flags & SYN != 0 {
            sent = sent.mss(MSS as u16);
        }
        if let Some((from, to)) = wire.sack {
            sent = sent.sack(&[(number(wire.from.other(), from), number(wire.from.other(), to))]);
        }
        if let Some((value, echo)) = wire.timestamps {
            sent = sent.timestamps(value, echo);
        }
        self.story.tcp(at, &sent);
    }

    pub(crate) fn run(mut self) -> (Observer, Vec<FlowRecord>) {
        while let Some(Reverse((time, _, slot))) = self.events.pop() {
            self.now = time;
            match self.queued[slot].take().unwrap() {
                Event::Capture(wire, copy) => self.capture(time, &wire, copy),
                Event::Arrive(wire) => self.arrive(&wire),
                Event::Timeout(host, timer) => self.timeout(host, timer),
                Event::Acknowledge(host) if self.ends[index(host)].pending => self.acknowledge(host),
                Event::Acknowledge(_) => {}
                Event::Open(host) => {
                    self.ends[index(host)].closed = false;
                    self.acknowledge(host);
                }
                Event::Write(host, segments) => {
                    self.ends[index(host)].written += segments;
                    self.transmit(host);
                }
                Event::Probe => self.probe(),
            }
        }
        let sizes = [0, 1].map(|end| self.ends[end].written);
        self.observer.finish(self.last_seen, sizes);
        (self.observer, self.story.end())
    }

    /// Sends what the window allows.
    fn transmit(&mut self, host: Host) {
        loop {
            let end = &mut self.ends[index(host)];
            let limit = end.written + u64::from(end.finishing);
            if end.next >= limit || end.next >= end.acknowledged + 10 || end.peer_closed {
                return;
            }
            let at = end.next;
            end.next += 1;
            if end.acknowledged == at {
                self.arm(host);
            }
            self.send_segment(host, at, Reason::New);
        }
    }

    fn send_segment(&mut self, host: Host, number: u64, reason: Reason) {
        let end = &mut self.ends[index(host)];
        end.pending = false;
        let (flags, length) = if number < end.written { (ACK, MSS) } else { (FIN | ACK, 0) };
        let offset = offset_of(number, end.written);
        let wire = self.wire(host, flags, offset, length, reason);
        self.send(wire);
    }

    fn arm(&mut self, host: Host) {
        let end = &mut self.ends[index(host)];
        end.timer += 1;
        let (timer, pause) = (end.timer, (300 * MS) << end.backoff.min(2));
        self.at(self.now + pause, Event::Timeout(host, timer));
    }

    fn timeout(&mut self, host: Host, timer: u32) {
        let end = &mut self.ends[index(host)];
        if end.timer == timer && end.acknowledged < end.next {
            end.backoff += 1;
            (end.duplicates, end.recover) = (0, Some(end.next));
            let first = end.acknowledged;
            self.arm(host);
            self.send_segment(host, first, Reason::Timeout);
        }
    }

    fn arrive(&mut self, wire: &Wire) {
        let host = wire.from.other();
        if let Some(ack) = wire.ack {
            self.take_ack(host, wire, number_of(ack - 1));
        }
        let end = &mut self.ends[index(host)];
        let is_probe = wire.space() == 0 && wire.offset == end.expected * MSS;
        if wire.space() == 0 && !is_probe {
            return;
        }
        // RFC 7323, 4.3: what was sent in front of everything acknowledged so far.
        if let Some((value, _)) = wire.timestamps
            && number_of(wire.offset.saturating_sub(1)) <= end.expected
            && !end.pending
        {
            end.echo = value;
        }
        if is_probe {
            return self.acknowledge(host);
        }
        let number = number_of(wire.offset - 1);
        let in_order = number == end.expected;
        if number >= end.expected {
            end.received.insert(number);
            end.latest = number;
        }
        let holes = end.received.len() > 1;
        while end.received.remove(&end.expected) {
            end.expected += 1;
        }
        if wire.flags & FIN != 0 || !in_order || holes || end.pending || !self.scenario.delayed_acks {
            self.acknowledge(host);
        } else {
            end.pending = true;
            self.at(self.now + 40 * MS, Event::Acknowledge(host));
        }
        self.progress(host);
    }

    fn take_ack(&mut self, host: Host, wire: &Wire, ack: u64) {
        let end = &mut self.ends[index(host)];
        let was_closed = std::mem::replace(&mut end.peer_closed, wire.window == 0);
        if ack > end.acknowledged {
            (end.acknowledged, end.duplicates, end.backoff) = (ack, 0, 0);
            end.recover = end.recover.filter(|recover| ack < *recover);
            let partial = end.recover.is_some();
            self.arm(host);
            if partial {
                self.send_segment(host, ack, Reason::Recovery);
            }
        } else if ack == end.acknowledged && wire.space() == 0 && end.next > ack && wire.window != 0 && !was_closed {
            end.duplicates += 1;
            if end.duplicates == 3 && end.recover.is_none() {
                end.recover = Some(end.next);
                self.arm(host);
                self.send_segment(host, ack, Reason::Fast);
            }
        }
        self.transmit(host);
    }

    fn acknowledge(&mut self, host: Host) {
        if self.ends[index(host)].received.is_empty() && self.chance(self.scenario.closing) {
            self.ends[index(host)].closed = true;
            let pause = (20 + self.pick(200) as i64) * MS;
            self.at(self.now + pause, Event::Open(host));
        }
        let end = &mut self.ends[index(host)];
        end.pending = false;
        let offset = offset_of(end.next, end.written);
        let wire = self.wire(host, ACK, offset, 0, Reason::New);
        self.send(wire);
    }

    /// The application: answers a request, asks the next, closes after the last.
    fn progress(&mut self, host: Host) {
        let Some(&(request, response)) = self.scenario.exchanges.get(self.exchange) else { return };
        let done = |pick: fn(&(u64, u64)) -> u64, upto: usize| -> u64 {
            self.scenario.exchanges.iter().take(upto).map(pick).sum()
        };
        let (asked, answered) = (done(|e| e.0, self.exchange + 1), done(|e| e.1, self.exchange));
        let end = &self.ends[index(host)];
        if host == Server && end.expected >= asked && end.written == answered && request > 0 {
            return self.at(self.now + 700 * MICRO, Event::Write(Server, response));
        }
        if host == Client && end.expected >= answered + response && end.written == asked {
            self.exchange += 1;
            match self.scenario.exchanges.get(self.exchange) {
                Some(next) => self.at(self.now + 3 * MS, Event::Write(Client, next.0)),
                None if self.scenario.keep_alives => self.at(self.now + 5000 * MS, Event::Probe),
                None => self.close(),
            }
        }
    }

    /// An idle connection is probed three times, then closed.
    fn probe(&mut self) {
        let end = &mut self.ends[0];
        if end.acknowledged < end.next {
            return self.close();
        }
        end.probes += 1;
        if end.probes > 3 {
            return self.close();
        }
        let offset = end.next * MSS;
        let wire = self.wire(Client, ACK, offset, 0, Reason::New);
        self.send(wire);
        self.at(self.now + 1000 * MS, Event::Probe);
    }

    fn close(&mut self) {
        for host in [Client, Server] {
            self.ends[index(host)].finishing = true;
            self.transmit(host);
        }
    }
}

impl Endpoint {
    /// The segments around the last one of those that are ahead (RFC 2018, 4), and the number after them.
    fn block(&self) -> Option<(u64, u64)> {
        let latest = self.received.get(&self.latest).or(self.received.last())?;
        let has = |number: &u64| self.received.contains(number);
        let from = (0..=*latest).rev().take_while(has).last()?;
        let to = (*latest..=*self.received.last()?).take_while(has).last()?;
        Some((from, to + 1))
    }
}

/// The offset of a segment from the SYN; the FIN follows the last.
fn offset_of(number: u64, written: u64) -> u64 {
    1 + number.min(written) * MSS + u64::from(number > written)
}

/// The number of the segment at an offset after the SYN's; after the FIN it is one more.
fn number_of(offset: u64) -> u64 {
    offset.div_ceil(MSS)
}

//! The flow table: packets to flow records.
//!
//! A flow is one connection or exchange at one observation point: interface, address pair, port pair, protocol, VLANs and
//! tunnel. Both directions are one flow. Long flows are cut into slices with one `flow_id`, whose counters add up.
//!
//! Invariants:
//! * time is the packets' (the greatest seen) or what [`Engine::advance`] says; calling it more often changes no record;
//! * what becomes of a flow follows from its own packets and the time, not from other flows (but for eviction), so that
//!   several engines give the same records as one, see [`mod@shard`];
//! * every packet is counted in exactly one slice or refused with a reason; the packets around a tunnelled one are counted
//!   besides, in flows that are not primary ([`CaptureCounters::carriers`]);
//! * memory is bounded, by a number of flows and in bytes ([`limit`]): less than 400 bytes a flow in steady state, more while
//!   a handshake lasts, segments are missing or an application is read; eviction takes the least valuable first and is counted;
//! * cost per packet does not depend on the number of flows: a packet touches its flow, a timer wheel finds the quiet ones;
//! * what is open can be looked at without a change to anything, in bounded portions, see [`open`];
//! * transactions cost nothing unless they are asked for; then they wait to be taken: no more than what was open, and a burst of packets, gives.
//!
//! A slice ends with the first packet after its time, or with its flow: so the last one of a flow has packets, and says why the flow ended.
//! Where a flow may be silent for long (TCP, SCTP) it ends in silence, too: its figures are not held back until then.
//!
//! Limits: a slice is emitted at most 17 ms of packet time after its deadline. A connection that was silent for longer than a slice, or
//! whose interface was renamed, and which never spoke again, ends with a slice whose reason is `active`. An engine's clock never goes back except by [`Engine::finish`]; use one for each file.

mod blocks;
mod burst;
mod class;
mod community_id;
mod config;
mod duplicates;
mod end;
mod fragments;
mod handshake;
mod index;
mod interfaces;
mod key;
mod limit;
mod moment;
mod open;
mod options;
mod orient;
mod pairs;
mod queue;
mod related;
mod response;
mod rtt;
mod sequence;
mod shard;
mod slice;
mod sys;
mod table;
mod tally;
mod tcp;
mod track;
mod trouble;

pub use community_id::CommunityId;
pub(crate) use community_id::between;
pub use community_id::is_one_way;
pub use config::FlowConfig;
pub use fragments::FragmentLimits;
pub(crate) use key::End;
pub(crate) use moment::micros;
pub(crate) use orient::lower_serves;
pub use shard::{MAX_ENGINES, Shards, Share, shard};

use self::fragments::Fragments;
use self::interfaces::{Interfaces, name};
use self::key::{Ids, Key};
use self::moment::Moment;
use self::open::Walk;
use self::pairs::Pairs;
use self::slice::{Counted, Flow, Point};
use self::table::{Table, Weighed};
use crate::app::Application;
use crate::decode::{DecodeError, Decoded, Decoder, Transport, flags, quote};
use crate::metrics::CaptureCounters;
use crate::packet::Packet;
use crate::record::{EndReason, FlowRecord};
use crate::transaction::Transaction;

/// A jump of time after which every flow is over, ns (13 days): coarse times must not grow older.
const LONG_JUMP: i64 = 1 << 50;

/// Decoder and flow table of one worker.
pub struct Engine {
    config: FlowConfig,
    share: Share,
    counters: CaptureCounters,
    interfaces: Interfaces,
    ids: Ids,
    decoder: Decoder,
    table: Table,
    pairs: Pairs,
    fragments: Fragments,
    transactions: Vec<Transaction>,
    clock: i64,
    walk: Walk,
    /// Flows of which another engine tells, see [`mod@shard`].
    shadows: usize,
}

impl Engine {
    /// An empty table, for all flows.
    pub fn new(config: FlowConfig) -> Self {
        Self::with_share(config, Share::WHOLE)
    }

    /// An empty table, for a share of the flows.
    pub fn with_share(config: FlowConfig, share: Share) -> Self {
        Self {
            share,
            shadows: 0,
            counters: CaptureCounters::default(),
            interfaces: Interfaces::default(),
            ids: Ids::default(),
            decoder: Decoder::new(config.tunnel_ports.clone()),
            table: Table::new(&config),
            pairs: Pairs::default(),
            fragments: Fragments::new(config.fragments.within(config.flow_memory)),
            transactions: Vec::new(),
            clock: i64::MIN,
            walk: Walk::default(),
            config,
        }
    }

    /// Decodes and tracks one packet; slices that its time or its flow ends are appended to `out`. Returns the flow's
    /// id, or `None` if the packet belongs to no flow (the reason is counted).
    pub fn packet(&mut self, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        // By reference: moving it would cost more than decoding.
        let result = self.decoder.decode(packet);
        self.take_in(&result, packet, out)
    }

    /// The same with a packet that is known not to be a plain one.
    #[inline(never)]
    fn unusual_packet(&mut self, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        let result = self.decoder.decode_unusual(packet);
        self.take_in(&result, packet, out)
    }

    #[inline]
    fn take_in(
        &mut self,
        result: &Result<Decoded<'_>, DecodeError>,
        packet: &Packet<'_>,
        out: &mut Vec<FlowRecord>,
    ) -> Option<u64> {
        match result {
            Ok(decoded) => {
                let flow_id = self.track(decoded, packet, out);
                if !self.decoder.carriers().is_empty() {
                    self.count_carriers(packet, out);
                }
                flow_id
            }
            Err(error) => {
                if self.share.is_first() {
                    self.counters.packets += 1;
                    self.counters.bytes += u64::from(packet.wire_len);
                    self.counters.refuse(*error);
                }
                self.advance(packet.time, out);
                // What is around it could be read.
                self.count_carriers(packet, out);
                None
            }
        }
    }

    /// Tracks one packet that is decoded already; otherwise as [`Self::packet`], but for the packets around it.
    pub fn track(&mut self, decoded: &Decoded<'_>, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        if let Some(fragment) = &decoded.fragment {
            return self.track_fragment(decoded, fragment, packet, out);
        }
        let own = self.share.has(decoded);
        if own {
            self.arrived(packet, out);
        } else {
            self.advance(packet.time, out);
        }
        if let Some(quote) = quote(decoded) {
            self.mark_quoted(&quote, decoded, packet);
        }
        if own { self.count(decoded, packet, out) } else { None }
    }

    /// A packet that is decoded came, of this engine's share.
    #[inline]
    fn arrived(&mut self, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) {
        self.counters.packets += 1;
        self.counters.bytes += u64::from(packet.wire_len);
        self.counters.decoded += 1;
        self.advance(packet.time, out);
    }

    /// Counts a packet in its flow, which may begin with it.
    fn count(&mut self, decoded: &Decoded<'_>, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        let (key, end) = Key::new(decoded, packet.interface);
        let hash = self.table.hash(&key);
        let found = self.table.find(hash, &key);
        self.count_keyed((&key, end, hash), found, (decoded, packet), out)
    }

    /// `found` is the key's flow, if it has one.
    #[inline]
    fn count_keyed(
        &mut self,
        (key, end, hash): (&Key, End, u32),
        found: Option<u32>,
        (decoded, packet): (&Decoded<'_>, &Packet<'_>),
        out: &mut Vec<FlowRecord>,
    ) -> Option<u64> {
        let opens = matches!(&decoded.transport, Transport::Tcp(segment) if segment.flags & flags::SYN != 0);
        let now = Moment::of(self.clock);
        let known = found.filter(|slot| !opens && !self.table.may_be_due(*slot, now));
        let slot = match known {
            Some(slot) => slot,
            None => self.settle_in((key, end, hash), found, (decoded, packet), out),
        };
        let clock = self.clock;
        let flow = self.table.get_mut(slot)?;
        let before = flow.class;
        let Counted { begins, read } = flow.count(end, decoded, packet, clock);
        let (flow_id, class) = (flow.id, flow.class);
        let weight = flow.weigh();
        if read && self.config.transactions && flow.application.has_finished() {
            let interface = name(&mut self.interfaces, flow.key.interface());
            let point = Point { node: &self.config.node, source: self.config.source, interface };
            flow.take_transactions(&point, keep(&mut self.transactions, &mut self.counters));
        }
        let mut more = false;
        if begins || class != before || weight.is_some() {
            let before = (!begins).then_some(before);
            more = self.table.update(slot, before, weight, clock) == Weighed::More;
        }
        if more || known.is_none() {
            self.keep_within_memory(out);
        }
        Some(flow_id)
    }

    /// The slot where a packet is to be counted that may find its flow over, or without a beginning.
    #[inline(never)]
    fn settle_in(
        &mut self,
        (key, end, hash): (&Key, End, u32),
        mut found: Option<u32>,
        (decoded, packet): (&Decoded<'_>, &Packet<'_>),
        out: &mut Vec<FlowRecord>,
    ) -> u32 {
        let mut again = 0;
        if found.is_none() && decoded.tunnel.is_some() {
            found = self.find_pair(key, end);
        }
        found = found.filter(|slot| self.goes_on(*slot, out));
        if let Some(slot) = found
            && let Transport::Tcp(segment) = &decoded.transport
            && let Some(flow) = self.table.get(slot)
            && flow.is_reopened_by(end, segment)
        {
            let (before, id) = (flow.again, flow.id);
            let same_begin = id == self.flow_id(key, packet, before);
            again = if same_begin { before.saturating_add(1) } else { 0 };
            self.end_open(slot, EndReason::Idle, out);
            found = None;
        }
        found.unwrap_or_else(|| self.begin_flow(*key, hash, end, (decoded, packet, again), out))
    }

    /// Expires flows as of `now`; called between bursts so that quiet links expire too.
    #[inline]
    pub fn advance(&mut self, now: i64, out: &mut Vec<FlowRecord>) {
        if now > self.clock || self.clock == i64::MIN {
            if now.saturating_sub(self.clock) > LONG_JUMP && self.clock != i64::MIN {
                self.end_before_jump(out);
            }
            self.clock = now;
            if self.table.is_behind(now) {
                self.expire(out);
            }
        }
    }

    /// The greatest time so far, which does not go back; the least there is before the first one, and after the end of all flows.
    pub fn clock(&self) -> i64 {
        self.clock
    }

    /// Ends every flow.
    pub fn finish(&mut self, reason: EndReason, out: &mut Vec<FlowRecord>) {
        let from = out.len();
        while self.finish_some(reason, usize::MAX, out) {}
        sort(out, from);
    }

    /// Ends flows until these have given `most` records and transactions, or a few more; whether there are more flows. For those who do not
    /// want to hold the rows of all at once.
    pub fn finish_some(&mut self, reason: EndReason, most: usize, out: &mut Vec<FlowRecord>) -> bool {
        let from = out.len();
        let rows = |own: &Self, out: &Vec<FlowRecord>| out.len() + own.transactions.len();
        let before = rows(self, out);
        let now = Moment::of(self.clock);
        while rows(self, out) - before < most {
            let Some(slot) = self.table.any() else { break };
            if self.settle(slot, now, out) {
                self.end_open(slot, reason, out);
            }
        }
        sort(out, from);
        if self.table.len() > 0 {
            return true;
        }
        self.table.forget_time();
        self.fragments.finish();
        self.count_given_up();
        self.clock = i64::MIN;
        self.walk = Walk::default();
        false
    }

    /// Appends the transactions that finished since the last call (none unless [`FlowConfig::transactions`]). To be
    /// called once a burst, and between two calls of [`Self::finish_some`].
    pub fn take_transactions(&mut self, out: &mut Vec<Transaction>) {
        out.append(&mut self.transactions);
    }

    /// Counters so far; `flows_active` is now's.
    pub fn counters(&self) -> &CaptureCounters {
        &self.counters
    }

    /// Whether a late call or many early ones, the records are the same: what is due of a flow follows from its own times.
    fn expire(&mut self, out: &mut Vec<FlowRecord>) {
        let from = out.len();
        let judged = Table::judged(self.clock);
        while let Some(slot) = self.table.wake(self.clock) {
            if self.settle(slot, judged, out) {
                self.table.schedule(slot, self.clock);
            }
        }
        self.table.expect_tick(self.clock);
        sort(out, from);
    }

    /// All timers have run out.
    #[cold]
    fn end_before_jump(&mut self, out: &mut Vec<FlowRecord>) {
        let from = out.len();
        let later = Moment::of(self.clock.saturating_add(LONG_JUMP / 2));
        for slot in self.table.slots() {
            self.settle(slot, later, out);
        }
        sort(out, from);
    }

    /// Whether what comes now is of this flow, and not of one that begins after its idle timeout; it may begin the next slice.
    fn goes_on(&mut self, slot: u32, out: &mut Vec<FlowRecord>) -> bool {
        let now = Moment::of(self.clock);
        // The wheel would have come round to it in a moment.
        let goes_on = self.settle(slot, now, out);
        if goes_on && self.table.is_of_next_slice(slot, now) {
            self.cut(slot, out);
        }
        goes_on
    }

    /// Does what silence until `now` means for a flow; whether it goes on.
    fn settle(&mut self, slot: u32, now: Moment, out: &mut Vec<FlowRecord>) -> bool {
        if self.table.is_over_in_silence(slot, now) {
            let is_quiet = self.table.ended_quietly(slot);
            if let Some(flow) = self.table.get_mut(slot).filter(|_| is_quiet) {
                flow.track.fall_silent();
            }
            self.cut(slot, out);
        }
        let is_over = self.table.is_idle(slot, now);
        if is_over {
            self.end_open(slot, EndReason::Idle, out);
        }
        !is_over
    }

    fn cut(&mut self, slot: u32, out: &mut Vec<FlowRecord>) {
        if let Some(flow) = self.table.get_mut(slot) {
            let interface = name(&mut self.interfaces, flow.key.interface());
            let point = Point { node: &self.config.node, source: self.config.source, interface };
            if !flow.is_shadow {
                flow.record(Some(EndReason::Active), point, out);
                self.counters.slices += 1;
            }
            flow.next_slice();
            let (class, weight) = (flow.class, flow.weigh());
            self.table.update(slot, Some(class), weight, self.clock);
        }
    }

    /// Ends a flow for this reason, unless its connection is over.
    fn end_open(&mut self, slot: u32, reason: EndReason, out: &mut Vec<FlowRecord>) {
        let closed = self.table.get(slot).and_then(Flow::closed);
        self.end_flow(slot, closed.unwrap_or(reason), out);
    }

    fn end_flow(&mut self, slot: u32, reason: EndReason, out: &mut Vec<FlowRecord>) {
        // Where it is: it is large.
        let Some(flow) = self.table.get_mut(slot) else { return };
        self.pairs.end(&flow.key, slot);
        flow.close();
        let interface = name(&mut self.interfaces, flow.key.interface());
        let point = Point { node: &self.config.node, source: self.config.source, interface };
        if self.config.transactions {
            flow.take_transactions(&point, keep(&mut self.transactions, &mut self.counters));
        }
        self.shadows -= usize::from(flow.is_shadow);
        if !flow.is_empty() && !flow.is_shadow {
            flow.record(Some(reason), point, out);
            self.counters.slices += 1;
        }
        self.table.remove(slot);
        self.count_active();
    }

    fn flow_id(&mut self, key: &Key, packet: &Packet<'_>, again: u16) -> u64 {
        let begun = match self.ids.begun(key) {
            Some(begun) => begun,
            None => self.ids.begin(key, &self.config.node, &name(&mut self.interfaces, packet.interface)),
        };
        key.flow_id(begun, packet.time, again)
    }

    fn begin_flow(
        &mut self,
        key: Key,
        hash: u32,
        end: End,
        (decoded, packet, again): (&Decoded<'_>, &Packet<'_>, u16),
        out: &mut Vec<FlowRecord>,
    ) -> u32 {
        self.make_room(&key, out);
        let id = self.flow_id(&key, packet, again);
        let is_shadow = !self.share.has(decoded);
        self.shadows += usize::from(is_shadow);
        self.counters.flows_started += u64::from(!is_shadow);
        let application = Application::new(self.config.transactions);
        let slot = self.table.insert(hash, || {
            let mut flow = Flow::new(key, id, end, decoded, packet.time);
            (flow.again, flow.is_shadow, flow.application) = (again, is_shadow, application);
            flow
        });
        self.pairs.begin(&key, slot, end);
        self.count_active();
        slot
    }

    fn count_active(&mut self) {
        self.counters.flows_active = (self.table.len() - self.shadows) as u64;
    }
}

/// Keeps transactions until they are taken.
fn keep(transactions: &mut Vec<Transaction>, counters: &mut CaptureCounters) -> impl FnMut(Transaction) {
    |transaction| {
        counters.transactions += 1;
        transactions.push(transaction);
    }
}

/// Records that one call appended, in an order that says nothing of the table's.
fn sort(out: &mut [FlowRecord], from: usize) {
    let key = |record: &FlowRecord| (record.start, record.flow_id, record.slice);
    if let Some(appended) = out.get_mut(from..)
        && !appended.is_sorted_by_key(key)
    {
        // Records are large: each is moved once.
        appended.sort_by_cached_key(key);
    }
}

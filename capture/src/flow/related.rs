//! Packets that concern more than their own flow: what tunnels carry, fragments, ICMP errors.
//!
//! * The packets around a tunnelled one are counted in flows of their own, which are not primary.
//! * A fragment is counted in the flow whose ports the first fragment has. One that comes before it is counted in a flow
//!   without ports, and moves over when the first comes, unless the slice is over by then. Transport and application see
//!   the packet when all its parts are there.
//! * An ICMP error marks the flow that it quotes; it has a flow of its own all the same.

use super::Engine;
use super::fragments::{First, Orphans, OrphansFlow, Whole};
use super::key::Key;
use super::slice::Flow;
use crate::decode::{Decoded, Fragment, Quote};
use crate::packet::Packet;
use crate::record::FlowRecord;

/// Part of what is counted in a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) since: i64,
    pub(super) packets: u32,
    pub(super) bytes: u64,
    pub(super) payload_bytes: u64,
}

impl Share {
    fn of(decoded: &Decoded<'_>, packet: &Packet<'_>) -> Self {
        Self {
            since: packet.time,
            packets: 1,
            bytes: decoded.ip_bytes.into(),
            payload_bytes: decoded.transport.payload_len().into(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.payload_bytes += other.payload_bytes;
    }
}

impl Engine {
    /// Counts the packets around the last one.
    #[cold]
    pub(super) fn count_carriers(&mut self, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) {
        let mut depth = 0;
        while let Some(carrier) = self.decoder.carriers().get(depth).cloned() {
            if self.share.has(&carrier) {
                let _ = self.count(&carrier, packet, out);
                self.counters.carriers += 1;
            }
            depth += 1;
        }
    }

    /// Packets that were given up are so in all engines.
    pub(super) fn count_given_up(&mut self) {
        let given_up = self.fragments.take_given_up();
        self.counters.fragments_given_up += if self.share.is_first() { given_up } else { 0 };
    }

    /// Takes a fragment in; the id of its flow, that of the packet inside if the last fragment of a tunnel's packet opens it.
    #[cold]
    pub(super) fn track_fragment(
        &mut self,
        decoded: &Decoded<'_>,
        fragment: &Fragment<'_>,
        packet: &Packet<'_>,
        out: &mut Vec<FlowRecord>,
    ) -> Option<u64> {
        let portless = without_ports(decoded);
        if self.share.has(&portless) {
            self.arrived(packet, out);
        } else {
            self.advance(packet.time, out);
        }
        self.count_fragment((decoded, &portless), fragment, packet, out)
    }

    /// The same of a fragment that came alone, or in a packet that was put together of fragments itself. `portless` is
    /// what a later fragment tells.
    fn count_fragment(
        &mut self,
        (decoded, portless): (&Decoded<'_>, &Decoded<'_>),
        fragment: &Fragment<'_>,
        packet: &Packet<'_>,
        out: &mut Vec<FlowRecord>,
    ) -> Option<u64> {
        let (key, end) = Key::new(portless, packet.interface);
        let whole = Whole::new(key, end, fragment);
        let step = self.fragments.add(whole, decoded, fragment, self.clock);
        self.count_given_up();
        self.keep_within_memory(out);
        let Some(first) = step.first else {
            let flow_id = self.count(portless, packet, out)?;
            if let Some(slice) = self.find(&key, end).and_then(|slot| self.table.get(slot)).map(Flow::slice) {
                let flow = OrphansFlow { key, end, flow_id, slice };
                self.fragments.orphan(&whole, flow, &Share::of(portless, packet));
            }
            return Some(flow_id);
        };
        let known = with_ports(portless, first);
        if let Some(orphans) = step.orphans {
            self.adopt(&known, packet, &orphans, out);
        }
        if let Some(joined) = step.joined {
            self.counters.fragments_joined += u64::from(self.share.is_first());
            if let Ok(decoded) = self.decoder.join(&known, joined.protocol, &joined.data, joined.len) {
                let Some(fragment) = &decoded.fragment else { return self.count_own(&decoded, packet, out) };
                return self.count_fragment((&decoded, &without_ports(&decoded)), fragment, packet, out);
            }
        }
        let flow_id = self.count_own(&known, packet, out)?;
        let (key, end) = Key::new(&known, packet.interface);
        if step.repeats
            && let Some(flow) = self.find(&key, end).and_then(|slot| self.table.get_mut(slot))
        {
            flow.count_copy(end);
        }
        Some(flow_id)
    }

    /// Counts what is in this engine's share, or in a flow without ports, which all engines follow.
    fn count_own(&mut self, decoded: &Decoded<'_>, packet: &Packet<'_>, out: &mut Vec<FlowRecord>) -> Option<u64> {
        let counts = decoded.src_port.is_none() || self.share.has(decoded);
        if counts { self.count(decoded, packet, out) } else { None }
    }

    /// Moves fragments to the flow that the first one gives them.
    fn adopt(&mut self, known: &Decoded<'_>, packet: &Packet<'_>, orphans: &Orphans, out: &mut Vec<FlowRecord>) {
        let OrphansFlow { key: from, end, flow_id, slice } = orphans.flow;
        let Some(slot) = self.find(&from, end) else { return };
        let Some(flow) = self.table.get_mut(slot) else { return };
        if (flow.id, flow.slice()) != (flow_id, slice) {
            return;
        }
        let (key, to_end) = Key::new(known, packet.interface);
        if key == from {
            return;
        }
        flow.take(end, &orphans.share);
        if flow.is_empty() {
            self.end_flow(slot, crate::record::EndReason::Idle, out);
        }
        if !self.share.has(known) {
            return;
        }
        let hash = self.table.hash(&key);
        let found = self.table.find(hash, &key).or_else(|| self.find_pair(&key, to_end));
        let slot = match found.filter(|slot| self.goes_on(*slot, out)) {
            Some(slot) => slot,
            None => self.begin_flow(key, hash, to_end, (known, packet, 0), out),
        };
        let clock = self.clock;
        let Some(flow) = self.table.get_mut(slot) else { return };
        flow.add(to_end, &orphans.share, clock);
        self.table.update(slot, None, None, clock);
    }

    /// Marks the flow that an ICMP error quotes, if there is one.
    #[cold]
    pub(super) fn mark_quoted(&mut self, quote: &Quote, decoded: &Decoded<'_>, packet: &Packet<'_>) {
        let (quoted, sender) = Key::new(decoded, packet.interface).0.quoted(quote);
        let slot = self.find_quoted(&quoted, sender).or_else(|| self.find_quoted(&quoted.as_carrier(), sender));
        if let Some(flow) = slot.and_then(|slot| self.table.get_mut(slot)) {
            flow.icmp_error = Some(quote.error);
        }
    }
}

/// What a fragment tells but for the first one's ports.
fn without_ports<'a>(decoded: &Decoded<'a>) -> Decoded<'a> {
    Decoded { src_port: None, dst_port: None, carrier: false, ..decoded.clone() }
}

fn with_ports<'a>(portless: &Decoded<'a>, first: First) -> Decoded<'a> {
    let (src_port, dst_port) = (first.ports.map(|ports| ports.0), first.ports.map(|ports| ports.1));
    let (protocol, carrier) = (first.protocol, first.carrier);
    Decoded { src_port, dst_port, protocol, carrier, fragment: None, ..portless.clone() }
}

//! TCP per flow: handshake, sequence space, close, and Zeek's connection state.
//!
//! Figures (`Counts`) belong to the slice and restart with it; everything else carries on to the next.

use super::handshake::{Handshake, Rtt, mss};
use super::key::End;
use super::sequence::Sequence;
use crate::decode::{Tcp, flags};
use crate::record::{EndReason, OrientedBy, TcpState};

/// Figures of one end in the slice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) flags: u8,
    pub(super) retransmits: u32,
    pub(super) out_of_order: u32,
    pub(super) zero_windows: u32,
    pub(super) resets: u32,
    pub(super) retransmit_bytes: u64,
}

/// One end of the connection.
#[derive(Debug, Default)]
pub(super) struct TcpEnd {
    pub(super) counts: Counts,
    pub(super) mss: Option<u16>,
    sequence: Sequence,
    /// Sequence number of the SYN.
    isn: Option<u32>,
    last_ack: Option<u32>,
    /// A segment other than SYN and RST was sent.
    spoke: bool,
    fin: bool,
}

impl TcpEnd {
    fn sent_anything(&self) -> bool {
        self.sequence.next().is_some()
    }

    /// Records the segment's sequence space and what it tells; the payload bytes that are new.
    fn observe(&mut self, segment: &Tcp<'_>) -> u32 {
        let Tcp { seq, flags: bits, payload_len, .. } = *segment;
        self.counts.flags |= bits;
        if bits & flags::ACK != 0 {
            self.last_ack = Some(segment.ack);
        }
        if bits & flags::RST != 0 {
            self.counts.resets += 1;
            return self.observe_reset_payload(segment);
        }
        if bits & flags::SYN == 0 {
            self.spoke = true;
            self.counts.zero_windows += u32::from(segment.window == 0);
        }
        let keep_alive = bits & (flags::SYN | flags::FIN) == 0
            && payload_len <= 1
            && self.sequence.next().is_some_and(|next| seq.wrapping_add(1) == next);
        if keep_alive {
            return 0;
        }
        self.observe_space(segment)
    }

    /// SYN, payload and FIN take their places in sequence space one after the other.
    fn observe_space(&mut self, segment: &Tcp<'_>) -> u32 {
        let Tcp { mut seq, flags: bits, payload_len, .. } = *segment;
        let (mut old, mut late) = (0, 0);
        if bits & flags::SYN != 0 {
            let syn = self.sequence.observe(seq, 1, self.isn.is_some());
            (old, late) = (syn.old, syn.late);
            self.isn.get_or_insert(seq);
            if self.mss.is_none() {
                self.mss = mss(segment.options);
            }
            seq = seq.wrapping_add(1);
        }
        let data = self.sequence.observe(seq, payload_len, self.isn.is_some());
        (old, late) = (old + data.old, late + data.late);
        if bits & flags::FIN != 0 {
            let fin = self.sequence.observe(seq.wrapping_add(payload_len), 1, self.isn.is_some());
            (old, late) = (old + fin.old, late + fin.late);
            self.fin = true;
        }
        if old > 0 {
            self.counts.retransmits += 1;
            self.counts.retransmit_bytes += u64::from(data.old);
        } else if late > 0 {
            self.counts.out_of_order += 1;
        }
        data.fresh + data.late
    }

    /// Resets carry any number, so only their payload (a diagnostic, RFC 9293 3.5.3) is looked at.
    fn observe_reset_payload(&mut self, segment: &Tcp<'_>) -> u32 {
        if segment.payload_len == 0 {
            return 0;
        }
        let data = self.sequence.observe(segment.seq, segment.payload_len, self.isn.is_some());
        data.fresh + data.late
    }
}

/// A connection.
#[derive(Debug, Default)]
pub(super) struct TcpFlow {
    pub(super) ends: [TcpEnd; 2],
    pub(super) syn_retries: u32,
    pub(super) rtt: Rtt,
    handshake: Option<Box<Handshake>>,
    /// Who sent the first SYN (without ACK).
    opener: Option<End>,
    /// Who answered with a SYN-ACK first.
    answerer: Option<End>,
    /// Who reset the connection before it was closed.
    reset_by: Option<End>,
}

impl TcpFlow {
    fn end(&self, end: End) -> &TcpEnd {
        &self.ends[end.index()]
    }

    /// Whether this segment opens a new connection on the same addresses and ports.
    pub(super) fn is_reopened_by(&self, from: End, segment: &Tcp<'_>) -> bool {
        if segment.flags & (flags::SYN | flags::RST) != flags::SYN {
            return false;
        }
        let (sender, receiver) = (self.end(from), self.end(from.other()));
        let answers = segment.flags & flags::ACK != 0;
        match sender.isn {
            // A server that chooses another number for the same SYN (SYN cookies) is still the same attempt.
            Some(isn) => isn != segment.seq && (!answers || self.closed().is_some()),
            // Midstream so far: a late SYN fits in front of what was seen; a crossing SYN meets a SYN.
            None if sender.sent_anything() => sender.sequence.first() != Some(segment.seq.wrapping_add(1)),
            None if answers || receiver.isn.is_some() => false,
            None => receiver.spoke && receiver.last_ack != Some(segment.seq.wrapping_add(1)),
        }
    }

    /// Counts a segment; the payload bytes that are new.
    pub(super) fn track(&mut self, from: End, time: i64, segment: &Tcp<'_>) -> u32 {
        let bits = segment.flags;
        if bits & flags::RST != 0 && self.reset_by.is_none() && !self.closed_by_fins() {
            self.reset_by = Some(from);
        }
        if bits & (flags::SYN | flags::RST) == flags::SYN {
            self.track_syn(from, time, segment);
        } else if self.opener.map_or(self.answerer.map(End::other), Some) == Some(from) {
            self.track_ack(time, segment);
        }
        self.ends[from.index()].observe(segment)
    }

    fn track_syn(&mut self, from: End, time: i64, segment: &Tcp<'_>) {
        let first = self.end(from).isn.is_none();
        if segment.flags & flags::ACK != 0 {
            if self.answerer.is_none() {
                self.answerer = Some(from);
                // Without the SYN the client's half can still be measured.
                if self.opener.is_none() {
                    self.handshake.get_or_insert_default();
                }
            }
            if let Some(handshake) = &mut self.handshake
                && self.opener != Some(from)
            {
                handshake.syn_ack(time, segment);
                self.rtt.server = handshake.server_rtt();
            }
            return;
        }
        if !first {
            self.syn_retries += 1;
        }
        match self.opener {
            None => {
                self.opener = Some(from);
                // Captured after its answer, it joins the handshake that the answer began.
                if self.answerer.is_none() {
                    self.handshake = Some(Box::default());
                }
            }
            // Crossing SYNs: no half is a round trip.
            Some(opener) if opener != from => self.handshake = None,
            Some(_) => {}
        }
        if let Some(handshake) = &mut self.handshake {
            handshake.syn(time, segment);
        }
    }

    fn track_ack(&mut self, time: i64, segment: &Tcp<'_>) {
        if let Some(rtt) = self.handshake.as_ref().and_then(|handshake| handshake.client_ack(time, segment)) {
            self.rtt = rtt;
            self.handshake = None;
        }
    }

    /// Number of each end's first payload byte, where its SYN was seen.
    pub(super) fn first_bytes(&self) -> [Option<u32>; 2] {
        [End::Low, End::High].map(|end| self.end(end).isn.map(|isn| isn.wrapping_add(1)))
    }

    fn closed_by_fins(&self) -> bool {
        self.ends.iter().all(|end| end.fin)
    }

    /// Whether and how the connection is over.
    pub(super) fn closed(&self) -> Option<EndReason> {
        match self.reset_by {
            Some(_) => Some(EndReason::Rst),
            None if self.closed_by_fins() => Some(EndReason::Fin),
            None => None,
        }
    }

    /// Whether nothing is left to repeat: reset, or both FINs were acknowledged.
    pub(super) fn is_close_acknowledged(&self) -> bool {
        let acknowledged = |end: &TcpEnd, other: &TcpEnd| {
            other.last_ack.zip(end.sequence.next()).is_some_and(|(ack, next)| ack.wrapping_sub(next) < 1 << 31)
        };
        let [low, high] = &self.ends;
        self.reset_by.is_some() || (acknowledged(low, high) && acknowledged(high, low))
    }

    /// The client, where SYN or SYN-ACK told.
    pub(super) fn client(&self) -> Option<(End, OrientedBy)> {
        self.opener
            .map(|opener| (opener, OrientedBy::Syn))
            .or_else(|| self.answerer.map(|answerer| (answerer.other(), OrientedBy::SynAck)))
    }

    /// Zeek's `conn_state`; a connection of which both ends were heard midstream counts as established once closed.
    pub(super) fn state(&self, client: End) -> TcpState {
        let server = client.other();
        let opened = self.opener == Some(client);
        let answered = self.answerer == Some(server) || self.end(server).isn.is_some();
        let talked = self.ends.iter().all(|end| end.spoke);
        let established = (opened && answered) || talked;
        match self.reset_by {
            Some(by) if by == server => match (opened, answered) {
                (true, false) if !talked => return TcpState::Rej,
                (false, true) if !self.end(client).sent_anything() => return TcpState::Rstrh,
                (true | false, true | false) => {
                    return if established || answered { TcpState::Rstr } else { TcpState::Oth };
                }
            },
            Some(_) => match (opened, answered) {
                (true, false) if !talked => return TcpState::Rstos0,
                (true | false, true | false) => {
                    return if established || answered { TcpState::Rsto } else { TcpState::Oth };
                }
            },
            None => {}
        }
        match (self.end(client).fin, self.end(server).fin) {
            (true, true) => TcpState::Sf,
            (true, false) if established => TcpState::S2,
            (true, false) if opened => TcpState::Sh,
            (false, true) if answered && !opened && !self.end(client).sent_anything() => TcpState::Shr,
            (false, true) if established => TcpState::S3,
            (false, false) if opened && established => TcpState::S1,
            (false, false) if opened && !self.end(server).sent_anything() => TcpState::S0,
            (true | false, true | false) => TcpState::Oth,
        }
    }

    /// Begins the next slice: figures restart.
    pub(super) fn restart_counts(&mut self) {
        for end in &mut self.ends {
            end.counts = Counts::default();
        }
        self.syn_retries = 0;
        self.rtt = Rtt::default();
    }
}

//! What a simulated capture point saw, counted by definition: segments have numbers that never wrap, and each knows what
//! it is. The engine, which sees sequence numbers only, must come to the same figures.

use crate::story::*;

/// Payload of every data segment.
pub(crate) const MSS: u64 = 1000;

/// Why a segment was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    New,
    Fast,
    Timeout,
    Recovery,
}

/// A segment on its way. Offsets count from the sender's SYN, which is 0.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) from: Host,
    pub(crate) flags: u8,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Offset that it acknowledges.
    pub(crate) ack: Option<u64>,
    /// Offsets that it acknowledges selectively.
    pub(crate) sack: Option<(u64, u64)>,
    pub(crate) window: u16,
    /// Timestamp value and echo.
    pub(crate) timestamps: Option<(u32, u32)>,
    pub(crate) ip_id: u16,
    pub(crate) reason: Reason,
}

impl Wire {
    /// Sequence space, with SYN and FIN.
    pub(crate) fn space(&self) -> u64 {
        self.length + u64::from(self.flags & (SYN | FIN) != 0)
    }
}

/// Figures of one side, by definition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) packets: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) retransmits: u64,
    pub(crate) retransmit_bytes: u64,
    pub(crate) out_of_order: u64,
    pub(crate) duplicate_acks: u64,
    pub(crate) zero_windows: u64,
    pub(crate) zero_window_us: u64,
    pub(crate) keep_alives: u64,
    pub(crate) capture_duplicates: u64,
    pub(crate) missed: u64,
    pub(crate) fast: u64,
    pub(crate) timeout: u64,
    pub(crate) spurious: u64,
    /// Sent again after a partial acknowledgement, which said nothing of what comes behind.
    pub(crate) recovery: u64,
}

/// One side as seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) figures: Figures,
    /// Segments with sequence space, by offset.
    segments: std::collections::BTreeSet<u64>,
    /// After everything sent, whether seen or told by a later number.
    highest: u64,
    /// After all payload seen.
    payload_end: u64,
    ack: Option<u64>,
    sack: Option<(u64, u64)>,
    /// After all that was acknowledged selectively.
    selected: u64,
    window: u16,
    closed_since: Option<i64>,
    last: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Observer {
    pub(crate) sides: [Seen; 2],
    pub(crate) syn_retries: u64,
    /// Last new request byte, while unanswered, and the response times, µs.
    asked: Option<i64>,
    pub(crate) responses: Vec<i64>,
}

impl Observer {
    /// A segment passes the capture point; `copy` if it is delivered once more.
    pub(crate) fn pass(&mut self, at: i64, wire: &Wire, copy: bool) {
        let (own, other) = if wire.from == Client { (0, 1) } else { (1, 0) };
        let closed = wire.window == 0 && wire.flags & SYN == 0;
        let Seen { highest, ack, selected, .. } = self.sides[other];
        let side = &mut self.sides[own];
        side.last = at;
        side.figures.packets += 1;
        side.figures.zero_windows += u64::from(closed);
        if copy {
            side.figures.capture_duplicates += 1;
            return;
        }
        let keep_alive = wire.length <= 1 && wire.flags & (SYN | FIN) == 0 && wire.offset + 1 == side.highest;
        side.acknowledge(wire, keep_alive, highest);
        side.offer(at, wire, closed);
        if keep_alive {
            side.figures.keep_alives += 1;
            return;
        }
        let in_front = wire.offset >= side.payload_end;
        let new = side.place(wire, ack, selected);
        if wire.flags & (SYN | ACK) == SYN && !new {
            self.syn_retries += 1;
        }
        if wire.length > 0 && new {
            match (wire.from, self.asked) {
                (Client, _) => self.asked = Some(at),
                (Server, Some(asked)) if in_front => {
                    self.responses.push((at - asked) / 1000);
                    self.asked = None;
                }
                (Server, _) => {}
            }
        }
    }

    /// The end of the capture.
    pub(crate) fn finish(&mut self, end: i64, sizes: [u64; 2]) {
        let acks = [self.sides[1].ack, self.sides[0].ack];
        for (side, (size, ack)) in self.sides.iter_mut().zip(sizes.into_iter().zip(acks)) {
            let ack = ack.unwrap_or(0);
            let segments = (0..size).map(|index| 1 + index * MSS).filter(|offset| ack >= offset + MSS);
            let fin = Some(1 + size * MSS).filter(|offset| ack > *offset);
            side.figures.missed = segments.chain(fin).filter(|offset| !side.segments.contains(offset)).count() as u64;
            if let Some(since) = side.closed_since {
                side.figures.zero_window_us += ((end - since) / 1000) as u64;
            }
        }
    }
}

impl Seen {
    fn acknowledge(&mut self, wire: &Wire, keep_alive: bool, peer_highest: u64) {
        let Some(ack) = wire.ack else { return };
        let advances = self.ack.is_none_or(|greatest| ack > greatest);
        self.ack = self.ack.max(Some(ack));
        let told = wire.sack.filter(|(_, to)| self.ack == Some(ack) && *to <= peer_highest);
        let selects = told.is_some() && told != self.sack;
        self.sack = told.or(self.sack);
        self.selected = self.selected.max(told.map_or(0, |(_, to)| to));
        if self.ack == Some(ack)
            && !advances
            && wire.space() == 0
            && !keep_alive
            && wire.window != 0
            && (wire.window == self.window || selects)
            && peer_highest > ack
        {
            self.figures.duplicate_acks += 1;
        }
    }

    fn offer(&mut self, at: i64, wire: &Wire, closed: bool) {
        self.window = wire.window;
        match (closed, self.closed_since) {
            (true, None) => self.closed_since = Some(at),
            (false, Some(since)) if wire.flags & SYN == 0 => {
                self.figures.zero_window_us += ((at - since) / 1000) as u64;
                self.closed_since = None;
            }
            (true | false, _) => {}
        }
    }

    /// Sequence space: seen before, late, or new; whether new or late.
    fn place(&mut self, wire: &Wire, acknowledged: Option<u64>, selected: u64) -> bool {
        let end = wire.offset + wire.space();
        if wire.space() > 0 && !self.segments.insert(wire.offset) {
            self.figures.retransmits += 1;
            self.figures.retransmit_bytes += wire.length;
            match wire.reason {
                _ if acknowledged.is_some_and(|ack| ack >= end) => self.figures.spurious += 1,
                Reason::Fast => self.figures.fast += 1,
                Reason::Timeout => self.figures.timeout += 1,
                Reason::Recovery if selected > end => self.figures.fast += 1,
                Reason::Recovery => self.figures.recovery += 1,
                Reason::New => {}
            }
            return false;
        }
        if wire.space() > 0 && wire.offset < self.highest {
            self.figures.out_of_order += 1;
        }
        self.figures.payload_bytes += wire.length;
        if wire.length > 0 {
            self.payload_end = self.payload_end.max(end);
        }
        self.highest = self.highest.max(end);
        true
    }
}

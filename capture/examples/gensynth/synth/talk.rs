//! A TCP connection as it passes the capture point, which is near the client (the host's end of the client's veth): what
//! the server sends comes a round trip after what it answers.
//!
//! What is lost between client and server was seen when the client sent it, and is seen again: a retransmission. What is
//! lost on the way from the server was not seen: its repetition fills a hole (late), or, if nothing came after it, is
//! nothing special.

use super::Output;
use super::frame::{ACK, Ends, FIN, POOL_OFFSETS, PSH, Packet, Payload, RST, SYN, Transport};
use super::random::Random;
use super::truth::End::{Client, Server};
use super::truth::{End, SideTruth};

/// Probability that a segment is lost, and that two are swapped.
const LOSS: f64 = 0.004;
const SWAP: f64 = 0.002;
/// Probability that a receiver closes its window.
const STALL: f64 = 0.0006;

/// A connection in the making.
pub(crate) struct Talk<'a> {
    pub(crate) out: &'a mut Output,
    pub(crate) random: &'a mut Random,
    pub(crate) ends: Ends,
    /// Now, µs.
    pub(crate) time: u64,
    /// Round trip time between capture point and server, µs.
    pub(crate) rtt: u64,
    pub(crate) mss: u32,
    /// Next sequence number of each end.
    next: [u32; 2],
    /// Timestamp that each end sent last.
    stamped: [u32; 2],
    /// Whether each end sent something after its SYN: the window of a SYN is not scaled, so that an acknowledgement after
    /// it is no duplicate (RFC 5681, 2: the window is the same).
    spoke: [bool; 2],
}

/// Bytes that one end still has to send.
struct Transfer {
    from: End,
    /// First bytes, a segment of their own.
    head: Option<Vec<u8>>,
    left: u32,
    /// When the next segment goes.
    time: u64,
    last_ack: u64,
    unacknowledged: u32,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(out: &'a mut Output, random: &'a mut Random, ends: Ends, time: u64) -> Self {
        let outside = random.chance(0.15);
        let rtt = if outside { random.log_normal(25_000.0, 0.6) } else { random.log_normal(250.0, 0.7) };
        let mss = if random.chance(0.7) { 1448 } else { 536 };
        let next = [random.next() as u32, random.next() as u32];
        out.truth.flows += 1;
        out.truth.tcp_flows += 1;
        Self { out, random, ends, time, rtt: rtt as u64 + 20, mss, next, stamped: [0, 0], spoke: [false, false] }
    }

    fn side(&mut self, end: End) -> &mut SideTruth {
        self.out.truth.side(end)
    }

    fn send(&mut self, time: u64, from: End, flags: u8, seq: u32, payload: Payload) {
        let window = if flags & SYN != 0 { 64_240 } else { 502 };
        self.send_window(time, from, (flags, if flags & RST == 0 { window } else { 0 }), seq, payload);
    }

    fn send_window(&mut self, time: u64, from: End, (flags, window): (u8, u16), seq: u32, payload: Payload) {
        let ack = if flags & ACK == 0 { 0 } else { self.next[from.other() as usize] };
        self.send_ack(time, from, (flags, window), (seq, ack), payload);
    }

    fn send_ack(&mut self, time: u64, from: End, (flags, window): (u8, u16), (seq, ack): (u32, u32), payload: Payload) {
        let stamp = (time / 1000) as u32;
        let echo = if flags & ACK == 0 { 0 } else { self.stamped[from.other() as usize] };
        self.stamped[from as usize] = stamp;
        self.spoke[from as usize] |= flags & SYN == 0;
        let transport = Transport::Tcp { seq, ack, flags, window, stamps: (stamp, echo) };
        self.out.push(Packet { time, ends: self.ends, from, transport, payload });
    }

    /// SYN, SYN-ACK, ACK; `false` if it comes to nothing.
    pub(crate) fn open(&mut self) -> bool {
        let isn = self.next;
        self.next[Client as usize] = isn[0].wrapping_add(1);
        let fate = self.random.unit();
        let repeated = match fate {
            _ if fate < 0.01 => self.random.below(3),
            _ if (0.02..0.025).contains(&fate) => 1,
            _ => 0,
        };
        for attempt in 0..=repeated {
            self.send(self.time, Client, SYN, isn[0], Payload::NONE);
            if attempt < repeated || fate < 0.01 {
                self.time += 1_000_000 << attempt;
            }
        }
        self.out.truth.syn_retries += repeated;
        self.side(Client).retransmits += repeated;
        self.side(Client).timeout_retransmits += repeated;
        if fate < 0.01 {
            return false;
        }
        self.time += self.rtt;
        if fate < 0.02 {
            self.send(self.time, Server, RST | ACK, 0, Payload::NONE);
            self.side(Server).resets += 1;
            return false;
        }
        self.send(self.time, Server, SYN | ACK, isn[1], Payload::NONE);
        self.next[Server as usize] = isn[1].wrapping_add(1);
        let local = 5 + self.random.below(20);
        self.time += local;
        self.send(self.time, Client, ACK, self.next[0], Payload::NONE);
        self.side(Server).rtt_us += self.rtt;
        self.side(Client).rtt_us += local;
        self.out.truth.handshake_rtt_us += self.rtt + local;
        true
    }

    /// `head` and then `body` bytes more.
    pub(crate) fn transfer(&mut self, from: End, head: Option<Vec<u8>>, body: u32) {
        let length = head.as_ref().map_or(0, Vec::len) as u32 + body;
        self.side(from).payload_bytes += u64::from(length);
        let mut transfer =
            Transfer { from, head, left: length, time: self.time, last_ack: self.time, unacknowledged: 0 };
        let (mut window, mut in_window) = (10, 0);
        while transfer.left > 0 {
            let luck = self.random.unit();
            if luck < LOSS {
                self.lose_segment(&mut transfer);
            } else if luck < LOSS + SWAP && transfer.left > 2 * self.mss && transfer.head.is_none() {
                self.swap_segments(&mut transfer);
            } else {
                let (seq, payload) = self.take(&mut transfer);
                self.send(transfer.time, from, push(&transfer), seq, payload);
                transfer.time += 12;
            }
            self.acknowledge(&mut transfer);
            in_window += 1;
            if in_window >= window {
                transfer.time += self.rtt;
                in_window = 0;
                window = (window * 2).min(200);
            }
        }
        self.time = transfer.time.max(transfer.last_ack) + 20;
    }

    /// The next segment: its number and bytes.
    fn take(&mut self, transfer: &mut Transfer) -> (u32, Payload) {
        let seq = self.next[transfer.from as usize];
        let payload = if let Some(head) = transfer.head.take() {
            Payload::Bytes(head.into())
        } else {
            let hash = (u64::from(self.ends.addresses[0]) << 32 | u64::from(seq)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            Payload::Pool((hash >> 32) as u32 % POOL_OFFSETS, transfer.left.min(self.mss) as u16)
        };
        transfer.left -= payload.len();
        transfer.unacknowledged += 1;
        self.next[transfer.from as usize] = seq.wrapping_add(payload.len());
        (seq, payload)
    }

    /// How long the acknowledgement of what passes now takes to pass.
    fn ack_delay(&mut self, from: End) -> u64 {
        if from == Client { self.rtt } else { 4 + self.random.below(6) }
    }

    /// Delayed acknowledgements: every second segment, and the last. Now and then the window closes for a while.
    fn acknowledge(&mut self, transfer: &mut Transfer) {
        if transfer.unacknowledged < 2 && transfer.left > 0 {
            return;
        }
        transfer.unacknowledged = 0;
        let receiver = transfer.from.other();
        let mut time = (transfer.time + self.ack_delay(transfer.from)).max(transfer.last_ack + 1);
        let seq = self.next[receiver as usize];
        if transfer.left > 0 && self.random.chance(STALL) {
            self.send_window(time, receiver, (ACK, 0), seq, Payload::NONE);
            let closed = 5_000 + self.random.below(50_000);
            time += closed;
            self.side(receiver).zero_windows += 1;
            self.side(receiver).zero_window_us += closed;
            transfer.time = time + self.rtt;
        }
        self.send(time, receiver, ACK, seq, Payload::NONE);
        transfer.last_ack = time;
    }

    /// A segment that the network loses. With enough to send after it, three duplicate acknowledgements bring it again,
    /// else a timeout does.
    fn lose_segment(&mut self, transfer: &mut Transfer) {
        let from = transfer.from;
        if transfer.unacknowledged > 0 && transfer.left > 0 {
            transfer.unacknowledged = 2;
            self.acknowledge(transfer);
            transfer.time = transfer.time.max(transfer.last_ack + 1);
        }
        let acknowledged = self.next[from as usize];
        let (seq, payload) = self.take(transfer);
        let flags = push(transfer);
        if from == Client {
            self.send(transfer.time, from, flags, seq, payload.clone());
            self.side(from).retransmits += 1;
            self.side(from).retransmit_bytes += u64::from(payload.len());
        }
        if transfer.left > 3 * self.mss && self.spoke[from.other() as usize] && self.random.chance(0.7) {
            for _ in 0..3 {
                transfer.time += 12;
                let (seq, payload) = self.take(transfer);
                self.send(transfer.time, from, ACK, seq, payload);
                let time = (transfer.time + self.ack_delay(from)).max(transfer.last_ack + 1);
                let own = self.next[from.other() as usize];
                self.send_ack(time, from.other(), (ACK, 502), (own, acknowledged), Payload::NONE);
                transfer.last_ack = time;
            }
            self.side(from.other()).duplicate_acks += 3;
            transfer.time = transfer.time.max(transfer.last_ack) + self.rtt + 20;
            match from {
                Client => self.side(from).fast_retransmits += 1,
                Server => self.side(from).out_of_order += 1,
            }
        } else {
            transfer.time += 200_000 + self.rtt;
            if from == Client {
                self.side(from).timeout_retransmits += 1;
            }
        }
        self.send(transfer.time, from, flags, seq, payload);
        transfer.time += 12;
    }

    /// Two segments that overtake each other.
    fn swap_segments(&mut self, transfer: &mut Transfer) {
        let from = transfer.from;
        let (first_seq, first) = self.take(transfer);
        let (second_seq, second) = self.take(transfer);
        self.send(transfer.time, from, ACK, second_seq, second);
        transfer.time += 30;
        self.send(transfer.time, from, ACK, first_seq, first);
        transfer.time += 12;
        self.side(from).out_of_order += 1;
    }

    /// FINs, or the client's reset, or nothing.
    pub(crate) fn close(&mut self) {
        self.time += 20;
        let fate = self.random.unit();
        if fate < 0.92 {
            self.send(self.time, Client, FIN | ACK, self.next[0], Payload::NONE);
            self.next[0] = self.next[0].wrapping_add(1);
            self.send(self.time + self.rtt, Server, FIN | ACK, self.next[1], Payload::NONE);
            self.next[1] = self.next[1].wrapping_add(1);
            self.send(self.time + self.rtt + 8, Client, ACK, self.next[0], Payload::NONE);
        } else if fate < 0.97 {
            self.send(self.time, Client, RST | ACK, self.next[0], Payload::NONE);
            self.side(Client).resets += 1;
        }
    }
}

fn push(transfer: &Transfer) -> u8 {
    if transfer.left == 0 { ACK | PSH } else { ACK }
}

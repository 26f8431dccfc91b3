//! Two hosts that talk over one TCP connection, told in bytes.

use wiretag_capture::flow::FlowConfig;
use wiretag_capture::{FlowRecord, Transaction};

use crate::story::*;

/// A connection whose sequence numbers look after themselves.
pub(crate) struct Talk {
    pub(crate) story: Story,
    ports: (u16, u16),
    next: [u32; 2],
}

impl Talk {
    /// After a handshake, on ports that say nothing.
    pub(crate) fn new() -> Self {
        Self::on(27272)
    }

    /// After a handshake with this port of the server.
    pub(crate) fn on(port: u16) -> Self {
        let mut talk = Self { ports: (40000, port), ..Self::midstream() };
        talk.story.tcp(-3 * MS, &segment(Client, SYN, 100, 0).ports(40000, port));
        talk.story.tcp(-2 * MS, &segment(Server, SYN | ACK, 500, 101).ports(40000, port));
        talk.story.tcp(-MS, &segment(Client, ACK, 101, 501).ports(40000, port));
        talk
    }

    /// A capture that begins when the connection is open.
    pub(crate) fn midstream() -> Self {
        let story = Story::with(FlowConfig { transactions: true, ..config() });
        Self { story, ports: (40000, 27272), next: [101, 501] }
    }

    fn sides(from: Host) -> (usize, usize) {
        if from == Client { (0, 1) } else { (1, 0) }
    }

    /// The segment that carries these bytes next.
    pub(crate) fn segment(&mut self, from: Host, bytes: &[u8]) -> Segment {
        let (own, other) = Self::sides(from);
        let next = segment(from, ACK, self.next[own], self.next[other]).ports(self.ports.0, self.ports.1);
        self.next[own] = self.next[own].wrapping_add(bytes.len() as u32);
        next.payload(bytes)
    }

    pub(crate) fn says(&mut self, at: i64, from: Host, bytes: impl AsRef<[u8]>) {
        let segment = self.segment(from, bytes.as_ref());
        self.story.tcp(at, &segment);
    }

    /// Bytes that pass the capture by.
    pub(crate) fn missed(&mut self, from: Host, length: u32) {
        let (own, _) = Self::sides(from);
        self.next[own] = self.next[own].wrapping_add(length);
    }

    /// The records and transactions of the whole talk.
    pub(crate) fn end(mut self) -> (Vec<FlowRecord>, Vec<Transaction>) {
        let mut transactions = Vec::new();
        self.story.engine.take_transactions(&mut transactions);
        self.story.engine.finish(wiretag_capture::EndReason::EndOfInput, &mut self.story.records);
        self.story.engine.take_transactions(&mut transactions);
        assert_eq!(self.story.engine.counters().transactions, transactions.len() as u64);
        (self.story.end(), transactions)
    }

    /// The only record, and the transactions.
    pub(crate) fn only(self) -> (FlowRecord, Vec<Transaction>) {
        let (mut records, transactions) = self.end();
        assert_eq!(records.len(), 1, "{records:#?}");
        (records.remove(0), transactions)
    }
}

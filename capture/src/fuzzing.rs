//! Entries for the fuzz loop in `tests/fuzz`: the parsers that are not public, driven as the engine drives them. Not a
//! public interface.
//!
//! Each takes what was sent, with the end (0 or 1) that sent it, and gives what the record would hold if the first bytes
//! are the protocol's.

use crate::app::Probe;
use crate::app::dtls::{self, DtlsFlow};
use crate::app::quic::{self, QuicFlow};
use crate::app::tls::{self, TlsFlow};
use crate::record::Tls;

/// What an end sent.
type Sent<'a> = (usize, &'a [u8]);

/// A stream of TLS, in pieces; an empty piece is a gap.
pub fn tls(sent: &[Sent<'_>]) -> Option<Tls> {
    is_known(sent, tls::probe).then(|| tls_fields(sent))
}

/// As [`tls()`], whatever the first bytes are.
pub fn tls_fields(sent: &[Sent<'_>]) -> Tls {
    let mut flow = TlsFlow::new();
    for (end, bytes) in sent {
        if bytes.is_empty() {
            flow.gap(*end);
        }
        flow.bytes(*end, bytes);
        if flow.is_done() {
            break;
        }
    }
    flow.fields()
}

/// Datagrams of DTLS.
pub fn dtls(sent: &[Sent<'_>]) -> Option<Tls> {
    let mut flow = DtlsFlow::new();
    for (end, datagram) in sent {
        flow.datagram(*end, datagram);
        if flow.is_done() {
            break;
        }
    }
    is_known(sent, dtls::probe).then(|| flow.fields())
}

/// Datagrams of QUIC.
pub fn quic(sent: &[Sent<'_>]) -> Option<Tls> {
    let mut flow = QuicFlow::new();
    for (end, datagram) in sent {
        flow.datagram(*end, datagram);
        if flow.is_done() {
            break;
        }
    }
    is_known(sent, quic::probe).then(|| flow.fields())
}

/// Frames of QUIC Initials that are opened already.
pub fn quic_frames(packets: &[&[u8]]) -> Tls {
    let mut flow = QuicFlow::new();
    for frames in packets {
        flow.frames(frames);
    }
    flow.fields()
}

fn is_known(sent: &[Sent<'_>], probe: fn(&[u8]) -> Probe) -> bool {
    sent.first().is_some_and(|(_, bytes)| probe(bytes) == Probe::Yes)
}

/// A collector that hears datagrams of two exporters, a second apart: what is received must be accounted for.
pub fn netflow(datagrams: &[Sent<'_>]) -> Vec<crate::netflow::Exported> {
    const START: i64 = 1_795_896_525_000_000_000;
    let (mut collector, mut rows) = (crate::netflow::Collector::default(), Vec::new());
    for (second, (end, bytes)) in (0_i64..).zip(datagrams) {
        let now = START + second * 1_000_000_000;
        let from = std::net::SocketAddr::from(([127, 0, 0, 1], 2_000 + *end as u16));
        collector.datagram(from, bytes, now);
        collector.take(now, &mut rows);
    }
    collector.flush(&mut rows);
    let counters = collector.counters();
    let out = counters.rows + counters.joined + counters.refused.values().sum::<u64>();
    assert_eq!((counters.records, rows.len() as u64, counters.waiting), (out, counters.rows, 0));
    rows
}

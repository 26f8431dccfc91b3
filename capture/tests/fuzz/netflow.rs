//! Datagrams of NetFlow v5, v9 and IPFIX, in the form of [`crate::pieces`]: the end that sent them is the exporter.

use wiretag_capture::fuzzing;

use crate::Target;
use crate::corpus::Corpus;
use crate::pieces;

pub(crate) const TARGET: Target = Target { name: "netflow", seeds, run, iterations: 40_000 };

/// What softflowd 1.1.0 made of a capture, and what routers sent, in hex: one datagram a line.
const DATAGRAMS: &str = include_str!("netflow.hex");

fn seeds(_: &Corpus) -> Vec<Vec<u8>> {
    let lines = DATAGRAMS.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<Vec<u8>> = lines.map(crate::fuzz::from_hex).collect();
    for (count, datagram) in all.iter().enumerate() {
        assert!(!fuzzing::netflow(&[(0, datagram)]).is_empty(), "datagram {count} makes no row");
    }
    let alone = all.iter().map(|datagram| pieces::join([(0, datagram.as_slice())]));
    let together = all.windows(2).map(|pair| pieces::join(pair.iter().map(|datagram| (0, datagram.as_slice()))));
    alone.chain(together).collect()
}

fn run(input: &[u8]) {
    for row in fuzzing::netflow(&pieces::split(input)) {
        let record = row.record;
        assert!(record.start <= record.end && record.client.packets + record.server.packets > 0, "{record:?}");
        assert_eq!(record.client.ip.is_ipv4(), record.server.ip.is_ipv4());
        assert!(record.interface.len() <= 64 * 4);
    }
}

#[test]
fn netflow_survives() {
    crate::fuzz::run(&TARGET);
}

//! Packets of flows as one pcapng, with the names of their ends.
//!
//! One section; each interface is described before its first packet, under the name that it had when it was captured. Each
//! packet has the comment `client=NAME server=NAME` of its flow (only names that are known), which Wireshark shows and
//! filters by `frame.comment`. Packets are sorted by time as far as [`crate::packets::read_flows`] sorts them.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc::Sender;
use wiretag_capture::pcapng::{self, InterfaceBlock};
use wiretag_capture::{LinkType, Packet};

use crate::error::StoreError;
use crate::packets::{ReadStats, Slices, Wanted, read_flows};
use crate::tables::FlowRef;

/// Bytes that are gathered before they are handed on.
const CHUNK: usize = 64 << 10;
/// Snap length in the interface descriptions of an export: no packet is longer.
const SNAP_LEN: u32 = 262_144;

/// The packets to export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Those of these flows.
    Flows(Vec<FlowRef>),
    /// Those of these slices, from the first to the last packet of each, and none of the others of their flows.
    Slices(Vec<FlowRef>),
    /// Every packet, also of no flow or of one that has not ended; these flows are named.
    All(Vec<FlowRef>),
}

/// Writes the packets in `[from, to)` from these segments. If some cannot be read, all others are written, and what is given says so
/// ([`ReadStats::complete`]).
pub fn write_pcap(
    segments: &[PathBuf],
    selection: &Selection,
    range: (i64, i64),
    out: &mut dyn Write,
) -> Result<ReadStats, StoreError> {
    let (Selection::Flows(flows) | Selection::Slices(flows) | Selection::All(flows)) = selection;
    let mut comments: HashMap<u64, String> = HashMap::new();
    for flow in flows {
        let comment = comment(flow);
        if !comment.is_empty() {
            comments.entry(flow.flow_id).or_insert(comment);
        }
    }
    let mut buffer = Vec::with_capacity(2 * CHUNK);
    pcapng::section_header(&mut buffer, concat!("wiretag ", env!("CARGO_PKG_VERSION")));
    let mut interfaces: HashMap<LinkType, HashMap<String, u32>> = HashMap::new();
    let mut count = 0;
    let mut each = |name: &str, packet: &Packet<'_>, flow: Option<u64>| -> Result<(), StoreError> {
        let known = interfaces.entry(packet.link_type).or_default();
        let number = if let Some(number) = known.get(name) {
            *number
        } else {
            let block = InterfaceBlock { name, description: None, link_type: packet.link_type, snap_len: SNAP_LEN };
            pcapng::interface_description(&mut buffer, &block);
            known.insert(name.to_owned(), count);
            count += 1;
            count - 1
        };
        pcapng::enhanced_packet(
            &mut buffer,
            number,
            packet,
            flow.and_then(|flow| comments.get(&flow)).map(String::as_str),
        );
        if buffer.len() >= CHUNK {
            hand_on(out, &mut buffer)?;
        }
        Ok(())
    };
    let stats = match selection {
        Selection::Flows(flows) => {
            let ids: HashSet<u64> = flows.iter().map(|flow| flow.flow_id).collect();
            read_flows(segments, Wanted::Flows(&ids), range, &mut each)?
        }
        Selection::Slices(flows) => {
            let slices = Slices::new(flows.iter().map(|flow| (flow.flow_id, (flow.start, flow.end))));
            read_flows(segments, Wanted::Slices(&slices), range, &mut each)?
        }
        Selection::All(_) => read_flows(segments, Wanted::All, range, &mut each)?,
    };
    hand_on(out, &mut buffer)?;
    Ok(stats)
}

fn hand_on(out: &mut dyn Write, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
    let written = out.write_all(buffer).and_then(|()| out.flush());
    buffer.clear();
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => StoreError::Closed,
        _ => StoreError::io("write", Path::new("export"))(error),
    })
}

fn comment(flow: &FlowRef) -> String {
    let ends = [("client", &flow.client_name), ("server", &flow.server_name)];
    let known = ends.iter().filter_map(|(end, name)| name.as_ref().map(|name| format!("{end}={name}")));
    known.collect::<Vec<_>>().join(" ")
}

/// A `Write` into a bounded channel, from a blocking thread.
pub(crate) struct ChannelWriter(pub(crate) Sender<Vec<u8>>);

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.blocking_send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! `wiretag pcap`: packets of matching flows as pcapng.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail};
use wiretag_capture::FlowRecord;
use wiretag_store::{FlowRef, Selection, Store};

use super::WrongUsage;
use crate::cli::PcapArguments;
use crate::client::Appliance;
use crate::commands::search::{Of, Search, warn_of_losses, warn_of_missing};
use crate::output::tell;

/// Most flows whose packets go into one file.
const MOST_FLOWS: usize = 1_000_000;
/// An answer that was begun can only be broken off.
const BROKEN_OFF: &str = "the appliance broke off: packets are missing in what was written; hint: it stopped, or some packets cannot be read, which its log says";

pub(crate) async fn run(arguments: &PcapArguments) -> anyhow::Result<()> {
    let search = Search::<FlowRecord>::new(&arguments.search)?;
    let data = &arguments.search.data.data;
    if let Some(appliance) = Appliance::find(data)? {
        let mut body = appliance.stream("/api/v1/pcap", &search.parameters())?;
        let mut out = Counted::new(create(&arguments.output)?);
        let copied = io::copy(&mut body, &mut out);
        finish(out, &arguments.output)?;
        let told = warn_of_missing(&appliance, &search, Of::Packets);
        copied.context(BROKEN_OFF)?;
        return told;
    }
    let store = Store::open_read_only(data).await?;
    // Every packet, at whatever point it was seen, bears the names of its flow.
    let everything = search.text.trim().is_empty();
    let all = everything || search.all_observations;
    let flows = store.flows.refs(&search.query, search.range, all, MOST_FLOWS + 1).await?;
    let packets = selection(flows, everything, MOST_FLOWS)?;
    let out = Counted::new(create(&arguments.output)?);
    let written = store.write_pcap(packets, search.range.from, search.range.to, out).await;
    let finished = written.map_err(Into::into).and_then(|(_, out)| finish(out, &arguments.output));
    warn_of_losses(&store, (search.range, Of::Packets), false).await?;
    finished
}

/// Packets of all of these flows, or of everything. What some of them have would look whole.
fn selection(flows: Vec<FlowRef>, everything: bool, most: usize) -> anyhow::Result<Selection> {
    if everything {
        return Ok(Selection::All(flows));
    }
    if flows.is_empty() {
        bail!("no flows match; hint: `wiretag flows` shows what is there");
    }
    if flows.len() > most {
        let why = format!("more than {most} flows match; hint: narrow the query or the time range");
        return Err(WrongUsage(why).into());
    }
    Ok(Selection::Flows(flows))
}

fn finish(mut out: Counted, path: &Path) -> anyhow::Result<()> {
    out.flush()?;
    let name = if path.as_os_str() == "-" { "stdout".to_owned() } else { format!("`{}`", path.display()) };
    tell!("{} packets, {} bytes written to {name}", out.packets, out.bytes);
    Ok(())
}

/// Counts the packets of the pcapng that passes, which is as [`wiretag_capture::pcapng`] writes it: little endian.
struct Counted {
    out: Box<dyn Write + Send>,
    packets: u64,
    bytes: u64,
    /// Type and length of the block that begins.
    header: Vec<u8>,
    /// Bytes of the block that are still to come.
    rest: usize,
}

impl Counted {
    fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, packets: 0, bytes: 0, header: Vec::with_capacity(8), rest: 0 }
    }

    fn count(&mut self, mut bytes: &[u8]) {
        const ENHANCED_PACKET: [u8; 4] = 6_u32.to_le_bytes();
        self.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let taken =
                if self.rest > 0 { self.rest.min(bytes.len()) } else { (8 - self.header.len()).min(bytes.len()) };
            let (now, later) = bytes.split_at(taken);
            bytes = later;
            if self.rest > 0 {
                self.rest -= taken;
                continue;
            }
            self.header.extend(now);
            if let [kind @ .., a, b, c, d] = self.header.as_slice()
                && kind.len() == 4
            {
                self.packets += u64::from(kind == ENHANCED_PACKET);
                self.rest = (u32::from_le_bytes([*a, *b, *c, *d]) as usize).saturating_sub(8);
                self.header.clear();
            }
        }
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.count(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn create(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

#[cfg(test)]
mod tests {
    use wiretag_capture::{LinkType, Packet, pcapng};

    use super::*;

    #[test]
    fn a_file_has_all_that_was_asked_for_or_none_of_it() {
        let flow = |flow_id| FlowRef { flow_id, start: 0, end: 1, client_name: None, server_name: None };
        let flows = |count: u64| (0..count).map(flow).collect();
        assert!(matches!(selection(flows(3), false, 3), Ok(Selection::Flows(flows)) if flows.len() == 3));
        let error = selection(flows(4), false, 3).expect_err("one is missing");
        assert!(error.is::<WrongUsage>() && error.to_string().contains("more than 3 flows match"), "{error}");
        assert!(selection(flows(0), false, 3).is_err());
        assert!(matches!(selection(flows(4), true, 3), Ok(Selection::All(_))), "some packets have no names then");
    }

    #[test]
    fn packets_are_counted_however_the_bytes_arrive() {
        let mut file = Vec::new();
        pcapng::section_header(&mut file, "test");
        let block =
            pcapng::InterfaceBlock { name: "eth0", description: None, link_type: LinkType::ETHERNET, snap_len: 0 };
        pcapng::interface_description(&mut file, &block);
        let packet = Packet {
            time: 1,
            interface: 0,
            link_type: LinkType::ETHERNET,
            wire_len: 60,
            data: &[7; 60],
            direction: None,
            vlan: None,
        };
        for _ in 0..5 {
            pcapng::enhanced_packet(&mut file, 0, &packet, Some("client=web"));
        }
        for size in [1, 3, 8, 61, file.len()] {
            let mut out = Counted::new(Box::new(io::sink()));
            for chunk in file.chunks(size) {
                out.write_all(chunk).expect("written");
            }
            assert_eq!((out.packets, out.bytes), (5, file.len() as u64), "chunks of {size}");
        }
    }
}

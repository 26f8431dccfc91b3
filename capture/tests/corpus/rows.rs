//! What `wiretag replay` makes of a capture, read by column name.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::Path;

use serde_json::Value as Json;
use wiretag_capture::file::{CaptureFile, FileError};
use wiretag_capture::flow::{Engine, FlowConfig};
use wiretag_capture::{EndReason, FlowRecord, LinkType, Source, Value, columns};

use crate::answers::{Endpoint, number, text};

/// A row of the output, or the sum of a flow's rows.
#[derive(Debug, Clone)]
pub(crate) struct Row(BTreeMap<&'static str, Json>);

/// Columns that add up over the slices of a flow; of the others the first slice that knows them speaks.
const ADDED: [&str; 16] = [
    "packets",
    "bytes",
    "payload_bytes",
    "packets_missed",
    "retransmits",
    "retransmit_bytes",
    "fast_retransmits",
    "timeout_retransmits",
    "spurious_retransmits",
    "keep_alives",
    "capture_duplicates",
    "out_of_order",
    "duplicate_acks",
    "zero_windows",
    "zero_window_us",
    "resets",
];
const ADDED_OF_FLOW: [&str; 5] = ["syn_retries", "responses", "http_requests", "http_errors", "dns_retries"];

fn adds_up(name: &str) -> bool {
    let side = name.strip_prefix("client_").or_else(|| name.strip_prefix("server_"));
    side.is_some_and(|name| ADDED.contains(&name)) || ADDED_OF_FLOW.contains(&name)
}

impl Row {
    fn new(record: &FlowRecord) -> Self {
        Self(columns::columns().map(|column| (column.name, json((column.get)(record)))).collect())
    }

    /// The value of a column; a name that is not in the vocabulary is a mistake in the test.
    pub(crate) fn get(&self, column: &str) -> &Json {
        self.0.get(column).unwrap_or_else(|| panic!("no column `{column}`"))
    }

    pub(crate) fn text(&self, column: &str) -> &str {
        text(self.get(column))
    }

    pub(crate) fn number(&self, column: &str) -> u64 {
        number(self.get(column))
    }

    pub(crate) fn time(&self, column: &str) -> i64 {
        self.get(column).as_i64().expect("a time")
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.text("app") == "tunnel"
    }

    pub(crate) fn endpoint(&self, side: &str) -> Endpoint {
        let ip = self.text(&format!("{side}_ip")).parse().expect("an address");
        let port = if self.text("protocol").starts_with("icmp") { 0 } else { self.number(&format!("{side}_port")) };
        (ip, port)
    }

    /// `client` or `server`, whichever is at `endpoint`.
    pub(crate) fn side_at(&self, endpoint: Endpoint) -> &'static str {
        if self.endpoint("client") == endpoint { "client" } else { "server" }
    }

    /// A number of both sides: `a`'s first.
    pub(crate) fn both(&self, a: Endpoint, name: &str) -> [u64; 2] {
        let (first, second) = if self.side_at(a) == "client" { ("client", "server") } else { ("server", "client") };
        [first, second].map(|side| self.number(&format!("{side}_{name}")))
    }

    fn add(&mut self, later: &Self) {
        for (name, value) in &mut self.0 {
            let other = later.get(name);
            match *name {
                "start" if other.as_i64() < value.as_i64() => *value = other.clone(),
                "end" if other.as_i64() > value.as_i64() => *value = other.clone(),
                "end_reason" | "tcp_state" => *value = other.clone(),
                _ if value.is_null() => *value = other.clone(),
                _ if adds_up(name) => *value = (number(value) + number(other)).into(),
                _ => {}
            }
        }
    }
}

fn json(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => value.into(),
        Value::Number(value) => value.into(),
        Value::Time(value) => value.into(),
        Value::Ip(ip) => ip.to_string().into(),
        Value::Mac(mac) => Value::mac_text(mac).into(),
        Value::Text(text) => text.into(),
        Value::Map(_) => unreachable!("the engine has no maps"),
    }
}

/// A capture that was read.
pub(crate) struct Replay {
    /// Flows, slices added up, in the order of their start.
    pub(crate) flows: Vec<Row>,
    pub(crate) records: Vec<FlowRecord>,
    pub(crate) packets: u64,
    pub(crate) refused: BTreeMap<&'static str, u64>,
    /// Least and greatest time of a packet.
    pub(crate) span: Option<(i64, i64)>,
    /// In the order of the interfaces.
    pub(crate) link_types: Vec<LinkType>,
    /// What stopped the reader before the end of the file.
    pub(crate) damage: Option<String>,
}

impl Replay {
    /// As `wiretag replay` does it.
    pub(crate) fn of(path: &Path) -> Self {
        Self::with(path, |_, _, _| {})
    }

    /// What is left of a file of these bytes.
    pub(crate) fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::from_file(CaptureFile::new(Box::new(Cursor::new(bytes)), "bytes"), |_, _, _| {})
    }

    /// As [`Self::of`]; `between` may call the engine before each packet, whose time it is told.
    pub(crate) fn with(path: &Path, between: impl FnMut(&mut Engine, &mut Vec<FlowRecord>, i64)) -> Self {
        Self::from_file(CaptureFile::open(path), between)
    }

    fn from_file(
        file: Result<CaptureFile, FileError>,
        mut between: impl FnMut(&mut Engine, &mut Vec<FlowRecord>, i64),
    ) -> Self {
        let mut replay = Self {
            flows: Vec::new(),
            records: Vec::new(),
            packets: 0,
            refused: BTreeMap::new(),
            span: None,
            link_types: Vec::new(),
            damage: None,
        };
        let mut engine = Engine::new(FlowConfig::new("file", Source::File));
        match file {
            Ok(mut file) => replay.read(&mut file, &mut engine, &mut between),
            Err(error) => replay.damage = Some(error.to_string()),
        }
        engine.finish(EndReason::EndOfInput, &mut replay.records);
        replay.records.sort_by_key(|record| (record.start, record.flow_id, record.slice));
        replay.refused.clone_from(&engine.counters().refused);
        replay.flows = add_slices(&replay.records);
        replay
    }

    fn read(
        &mut self,
        file: &mut CaptureFile,
        engine: &mut Engine,
        between: &mut impl FnMut(&mut Engine, &mut Vec<FlowRecord>, i64),
    ) {
        let mut names = Vec::new();
        loop {
            match file.next_packet_naming(&mut |number, interface| names.push((number, interface.name.clone()))) {
                Ok(Some(packet)) => {
                    for (number, name) in names.drain(..) {
                        if let Some(name) = name {
                            engine.name_interface(number, &name);
                        }
                    }
                    self.packets += 1;
                    let (first, last) = self.span.unwrap_or((packet.time, packet.time));
                    self.span = Some((first.min(packet.time), last.max(packet.time)));
                    between(engine, &mut self.records, packet.time);
                    let _ = engine.packet(&packet, &mut self.records);
                }
                Ok(None) => break,
                Err(error) => {
                    self.damage = Some(error.to_string());
                    break;
                }
            }
        }
        self.link_types = file.interfaces().iter().map(|interface| interface.link_type).collect();
    }
}

fn add_slices(records: &[FlowRecord]) -> Vec<Row> {
    let mut flows: Vec<(u64, Row)> = Vec::new();
    let mut slots = BTreeMap::new();
    for record in records {
        let slot = *slots.entry(record.flow_id).or_insert(flows.len());
        match flows.get_mut(slot) {
            Some((_, row)) => row.add(&Row::new(record)),
            None => flows.push((record.flow_id, Row::new(record))),
        }
    }
    flows.into_iter().map(|(_, row)| row).collect()
}

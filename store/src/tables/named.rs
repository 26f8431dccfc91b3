//! The rows of a file whose ends have a name by now: what is stored of them, and what the tagger says to it.

use std::collections::HashMap;
use std::net::SocketAddr;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::datatypes::Field;
use parquet::arrow::arrow_reader::RowSelection;
use wiretag_capture::tunnel::TunnelKind;
use wiretag_capture::{FlowRecord, ObservedAt, Protocol, Source, Wrapping};
use wiretag_enrich::tagged::{AnyColumn, IDENTITY_COLUMNS};
use wiretag_enrich::tagger::{Again, NamesAgain, StoredEnd, StoredRow};
use wiretag_enrich::{EndTag, Ends, TaggedBy};

use super::Table;
use super::cells::{Cells, word};
use super::columns::{Builder, Identities};
use super::engine::Condition;
use super::error::TableError;
use super::scan::{self, OpenFile};
use super::schema::schema;

/// What names depend on.
const ASKED: &[&str] = &[
    "start",
    "end",
    "source",
    "node",
    "interface",
    "observed_at",
    "protocol",
    "vlan",
    "vlan_inner",
    "tunnel",
    "tunnel_id",
    "client_ip",
    "client_port",
    "client_mac",
    "client_tagged_by",
    "client_nat_ip",
    "client_nat_port",
    "server_ip",
    "server_port",
    "server_mac",
    "server_tagged_by",
    "server_nat_ip",
    "server_nat_port",
];

/// Names of a file's rows; of many rows they are the same ones.
#[derive(Default)]
pub(super) struct Named {
    names: Vec<EndTag>,
    known: HashMap<(usize, TaggedBy), u32>,
    /// By row group.
    groups: Vec<Vec<NamedRow>>,
}

/// A row of a group, and the numbers of the names of client and server that are new.
type NamedRow = (u32, [Option<u32>; 2]);

impl Named {
    /// Rows that get a name.
    pub(super) fn rows(&self) -> u64 {
        self.groups.iter().map(|rows| rows.len() as u64).sum()
    }

    /// Those of a group, in its order.
    pub(super) fn of_group(&self, group: usize) -> &[NamedRow] {
        self.groups.get(group).map_or(&[], Vec::as_slice)
    }

    /// The new names of these rows, in an identity column.
    pub(super) fn column(&self, rows: &[NamedRow], name: &str) -> Result<Option<ArrayRef>, TableError> {
        let Some(column) = IDENTITY_COLUMNS.as_flattened().iter().find(|column| column.name == name) else {
            return Ok(None);
        };
        let ends: Vec<Ends<'_>> =
            rows.iter().map(|(_, [client, server])| (self.name(*client), self.name(*server))).collect();
        let mut identities = Identities::default();
        identities.read(&ends, name.starts_with("client_"));
        let mut builder = Builder::new(AnyColumn::<FlowRecord>::Identity(column), rows.len());
        builder.read_ends(column, &ends, &identities);
        Ok(Some(builder.finish()?))
    }

    fn name(&self, number: Option<u32>) -> &EndTag {
        static NOBODY: EndTag = EndTag::NONE;
        number.and_then(|number| self.names.get(number as usize)).unwrap_or(&NOBODY)
    }

    fn number(&mut self, tag: EndTag) -> Option<u32> {
        let place = std::sync::Arc::as_ptr(tag.identity.as_ref()?) as usize;
        let next = u32::try_from(self.names.len()).ok()?;
        let number = *self.known.entry((place, tag.tagged_by)).or_insert(next);
        if number == next {
            self.names.push(tag);
        }
        Some(number)
    }
}

/// Looks through a file for rows that pass and have a name by now.
pub(super) fn named<R: Table>(file: &OpenFile, condition: &Condition<R>, again: &Again) -> Result<Named, TableError> {
    let (mut found, mut names) = (Named::default(), again.names());
    for (group, passing) in scan::passing(file, condition)?.into_iter().enumerate() {
        // Of older files nobody knows what the packets were in.
        let passing = passing.filter(|_| file.chunk(group, "tunnel").is_some());
        let mut rows = Vec::new();
        if let Some(passing) = passing {
            let chosen: Vec<usize> = passing.set_indices().collect();
            let selection = RowSelection::from_filters(&[BooleanArray::new(passing, None)]);
            let cells = cells::<R>(file, group, &selection)?;
            for (at, row) in chosen.into_iter().enumerate() {
                let ends = new_names(&cells, at, &mut names).map(|tag| tag.and_then(|tag| found.number(tag)));
                if let (Ok(row), true) = (u32::try_from(row), ends.iter().any(Option::is_some)) {
                    rows.push((row, ends));
                }
            }
        }
        found.groups.push(rows);
    }
    Ok(found)
}

fn new_names(cells: &Cells, row: usize, names: &mut NamesAgain<'_>) -> [Option<EndTag>; 2] {
    stored(cells, row).map_or([None, None], |stored| names.of(&stored))
}

/// The columns that names depend on, of some rows of a group.
fn cells<R: Table>(file: &OpenFile, group: usize, selection: &RowSelection) -> Result<Cells, TableError> {
    let schema = schema::<R>();
    let known = |name: &&&'static str| schema.field_with_name(name).is_ok();
    let names: Vec<&'static str> = ASKED.iter().filter(known).copied().collect();
    let fields: Vec<&Field> = names.iter().filter_map(|name| schema.field_with_name(name).ok()).collect();
    Ok(Cells::new(names.into_iter().zip(file.columns(group, &fields, Some(selection))?)))
}

/// What is stored of a row; `None`: not enough.
fn stored(cells: &Cells, row: usize) -> Option<StoredRow<'_>> {
    let tunnel = cells.text("tunnel", row).map(|kinds| kinds.rsplit('+').next().unwrap_or(kinds));
    let tunnel = match tunnel {
        // One that this release does not know says nothing of a network.
        Some(kind) => Some(word(TunnelKind::ALL, TunnelKind::as_str, kind)?),
        None => None,
    };
    let id = cells.number("tunnel_id", row).and_then(|number| u32::try_from(number).ok());
    Some(StoredRow {
        source: cells.word("source", row, Source::ALL, Source::as_str)?,
        node: cells.text("node", row)?,
        interface: cells.text("interface", row)?,
        observed_at: cells.word("observed_at", row, ObservedAt::ALL, ObservedAt::as_str),
        protocol: Protocol::parse(cells.text("protocol", row)?)?,
        wrapping: Wrapping {
            vlan: cells.small("vlan", row),
            vlan_inner: cells.small("vlan_inner", row),
            tunnel: tunnel.map(|kind| (kind, id)),
        },
        start: cells.time("start", row)?,
        end: cells.time("end", row)?,
        client: end(cells, ["client_ip", "client_port", "client_mac", "client_tagged_by"], CLIENT_NAT, row)?,
        server: end(cells, ["server_ip", "server_port", "server_mac", "server_tagged_by"], SERVER_NAT, row)?,
    })
}

fn end(cells: &Cells, [ip, port, mac, tagged_by]: [&str; 4], nat: [&str; 2], row: usize) -> Option<StoredEnd> {
    let [nat_ip, nat_port] = nat;
    let translated = cells.ip(nat_ip, row).zip(cells.small(nat_port, row));
    Some(StoredEnd {
        ip: cells.ip(ip, row)?,
        port: cells.small(port, row),
        mac: cells.mac(mac, row),
        tagged_by: cells.word(tagged_by, row, TaggedBy::ALL, TaggedBy::as_str)?,
        translated: translated.map(|(ip, port)| SocketAddr::new(ip, port)),
    })
}

const CLIENT_NAT: [&str; 2] = ["client_nat_ip", "client_nat_port"];
const SERVER_NAT: [&str; 2] = ["server_nat_ip", "server_nat_port"];

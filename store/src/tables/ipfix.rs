//! Rows of an export as a file of IPFIX (RFC 5655): the very records that go to a collector.
//!
//! The encoder of [`wiretag_enrich::ipfix`] takes rows as they were before they were stored, so that much of each is made anew from its
//! columns: all that the encoder reads, and nothing else.

use std::io::Write;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use wiretag_capture::columns::flags_of;
use wiretag_capture::flow::CommunityId;
use wiretag_capture::record::{Dns, Http, Responses, Tls};
use wiretag_capture::{EndReason, FlowRecord, ObservedAt, OrientedBy, Protocol, Side, Source, TcpState, app_named};
use wiretag_enrich::ipfix::{Encoder, Numbers};
use wiretag_enrich::tagged::{AnyColumn, all_columns};
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};

use super::cells::Cells;
use super::error::TableError;

/// Writes a file: templates, then messages.
pub(super) struct FileWriter<W> {
    encoder: Encoder,
    now: i64,
    out: W,
}

impl<W: Write> FileWriter<W> {
    /// Begins it; `now` is the time of export in each message, ns.
    pub(super) fn new(numbers: Numbers, now: i64, mut out: W) -> std::io::Result<Self> {
        let encoder = Encoder::new(numbers);
        out.write_all(&encoder.templates(0, now))?;
        Ok(Self { encoder, now, out })
    }

    /// Adds rows.
    pub(super) fn write(&mut self, rows: &[TaggedFlow]) -> std::io::Result<()> {
        let mut messages = Vec::new();
        self.encoder.encode(rows, self.now, &mut messages);
        messages.iter().try_for_each(|message| self.out.write_all(&message.bytes))
    }

    /// Gives the writer back.
    pub(super) fn finish(mut self) -> std::io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Rows of flows in all columns, as far as the encoder reads them.
pub(super) fn flows(batch: &RecordBatch) -> Result<Vec<TaggedFlow>, TableError> {
    let names = all_columns::<FlowRecord>().map(AnyColumn::name);
    let cells = Cells::new(names.zip(batch.columns().iter().cloned()));
    let rows = (0..batch.num_rows()).map(|row| flow(&cells, row));
    rows.collect::<Option<_>>().ok_or(TableError::Range("a stored flow has no ends, protocol, source or time"))
}

fn flow(cells: &Cells, row: usize) -> Option<TaggedFlow> {
    let shared = |column: &str| cells.text(column, row).map(Arc::<str>::from);
    let client = side(cells, row, &Columns::CLIENT)?;
    let server = side(cells, row, &Columns::SERVER)?;
    let record = FlowRecord {
        flow_id: u64::from_str_radix(cells.text("flow_id", row)?, 16).ok()?,
        slice: cells.small("slice", row)?,
        start: cells.time("start", row)?,
        end: cells.time("end", row)?,
        end_reason: cells.word("end_reason", row, EndReason::ALL, EndReason::as_str),
        community_id: cells.text("community_id", row).and_then(CommunityId::from_text),
        node: shared("node").unwrap_or_default(),
        interface: shared("interface").unwrap_or_default(),
        source: cells.word("source", row, Source::ALL, Source::as_str)?,
        observed_at: cells.word("observed_at", row, ObservedAt::ALL, ObservedAt::as_str),
        oriented_by: cells.word("oriented_by", row, OrientedBy::ALL, OrientedBy::as_str)?,
        vlan: cells.small("vlan", row),
        vlan_inner: cells.small("vlan_inner", row),
        dscp: cells.small("dscp", row),
        tcp_state: cells.word("tcp_state", row, TcpState::ALL, TcpState::as_str),
        handshake_rtt_us: cells.small("handshake_rtt_us", row),
        responses: cells.small("response_time_avg_us", row).map(|avg_us| Responses { avg_us, ..Responses::default() }),
        app: cells.text("app", row).and_then(app_named),
        dns: shared("dns_query").map(|query| Box::new(Dns { query: Some(query), ..Dns::default() })),
        tls: shared("tls_sni").map(|sni| Box::new(Tls { sni: Some(sni), ..Tls::default() })),
        http: shared("http_host").map(|host| Box::new(Http { host: Some(host), ..Http::default() })),
        ..FlowRecord::new(Protocol::parse(cells.text("protocol", row)?)?, client, server)
    };
    let [client, server] = [&Columns::CLIENT, &Columns::SERVER].map(|columns| tag(cells, row, columns));
    Some(TaggedFlow { record, client, server })
}

/// Names of the columns of an end.
struct Columns {
    ip: &'static str,
    port: &'static str,
    mac: &'static str,
    packets: &'static str,
    bytes: &'static str,
    tcp_flags: &'static str,
    retransmits: &'static str,
    rtt_us: &'static str,
    identity: &'static str,
    tagged_by: &'static str,
    cluster: &'static str,
    host: &'static str,
    namespace: &'static str,
    pod: &'static str,
    container: &'static str,
    workload: &'static str,
    workload_kind: &'static str,
    service: &'static str,
    image: &'static str,
    zone: &'static str,
}

macro_rules! columns {
    ($end:literal: $($field:ident)+) => {
        Self { $($field: concat!($end, "_", stringify!($field)),)+ }
    };
    ($end:literal) => {
        columns!($end: ip port mac packets bytes tcp_flags retransmits rtt_us identity tagged_by cluster host namespace
            pod container workload workload_kind service image zone)
    };
}

impl Columns {
    const CLIENT: Self = columns!("client");
    const SERVER: Self = columns!("server");
}

fn side(cells: &Cells, row: usize, columns: &Columns) -> Option<Side> {
    Some(Side {
        mac: cells.mac(columns.mac, row),
        packets: cells.number(columns.packets, row).unwrap_or_default(),
        bytes: cells.number(columns.bytes, row).unwrap_or_default(),
        tcp_flags: cells.text(columns.tcp_flags, row).and_then(flags_of),
        retransmits: cells.small(columns.retransmits, row),
        rtt_us: cells.small(columns.rtt_us, row),
        ..Side::new(cells.ip(columns.ip, row)?, cells.small(columns.port, row))
    })
}

fn tag(cells: &Cells, row: usize, columns: &Columns) -> EndTag {
    let text = |column: &str| cells.text(column, row).map(Arc::<str>::from);
    let identity = text(columns.identity).map(|identity| {
        Arc::new(Identity {
            identity,
            cluster: text(columns.cluster),
            host: text(columns.host),
            namespace: text(columns.namespace),
            pod: text(columns.pod),
            container: text(columns.container),
            workload: text(columns.workload),
            workload_kind: text(columns.workload_kind),
            service: text(columns.service),
            image: text(columns.image),
            zone: text(columns.zone),
            ..Identity::default()
        })
    });
    let tagged_by = cells.word(columns.tagged_by, row, TaggedBy::ALL, TaggedBy::as_str).unwrap_or(TaggedBy::None);
    EndTag { identity, tagged_by, translated: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it fails")]
mod tests {
    use wiretag_enrich::ipfix::Message;

    use super::*;
    use crate::tables::schema::{batch, schema};

    /// Flows in which everything is there now and then, and each word of a vocabulary.
    fn row(number: u64) -> TaggedFlow {
        fn pick<T: Copy>(all: &[T], number: u64) -> T {
            all[number as usize % all.len()]
        }
        let seen = |every: u64| !number.is_multiple_of(every);
        let small = u8::try_from(number % 256).unwrap();
        let text = |name: &str| Arc::<str>::from(format!("{name}-{number}-ß"));
        let ip =
            |end: u8| if seen(3) { [10, 0, end, small].into() } else { [0xfd00, 0, 0, 0, 0, 0, end.into(), 7].into() };
        let side = |end: u8| Side {
            mac: seen(4).then_some([2, 0, 0, 0, end, small]),
            packets: number,
            bytes: number << 40,
            tcp_flags: seen(5).then_some(small),
            retransmits: seen(6).then_some(number as u32),
            rtt_us: seen(7).then_some(number as u32 + 1),
            ..Side::new(ip(end), seen(8).then_some(u16::from(small)))
        };
        let apps = ["dns", "tls", "websocket", "esp", "wireguard", "tunnel", "quic"];
        let protocol = pick(&[Protocol::TCP, Protocol::UDP, Protocol::ICMP, Protocol::ICMP6, Protocol(200)], number);
        let record = FlowRecord {
            flow_id: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            slice: number as u32 % 3,
            start: 1_772_323_200_000_000_000 + number as i64,
            end: 1_772_323_201_000_000_000 + number as i64,
            end_reason: seen(9).then(|| pick(EndReason::ALL, number)),
            community_id: seen(10).then(|| CommunityId::from_text("1:LQU9qZlK+B5F3KDmev6m5PMibrg=").unwrap()),
            node: text("node"),
            interface: text("interface"),
            source: pick(Source::ALL, number),
            observed_at: seen(11).then(|| pick(ObservedAt::ALL, number)),
            oriented_by: pick(OrientedBy::ALL, number),
            vlan: seen(12).then_some(number as u16),
            vlan_inner: seen(13).then_some(number as u16 + 1),
            dscp: seen(14).then_some(small % 64),
            tcp_state: seen(15).then(|| pick(TcpState::ALL, number)),
            handshake_rtt_us: seen(16).then_some(number as u32),
            responses: seen(17).then(|| Responses { avg_us: number as u32, ..Responses::default() }),
            app: seen(18).then(|| pick(&apps, number)),
            dns: seen(19).then(|| Box::new(Dns { query: Some(text("query")), ..Dns::default() })),
            tls: seen(20).then(|| Box::new(Tls { sni: Some(text("sni")), ..Tls::default() })),
            http: seen(21).then(|| Box::new(Http { host: Some(text("host")), ..Http::default() })),
            ..FlowRecord::new(protocol, side(1), side(2))
        };
        let tag = |end: &str, every: u64| EndTag {
            identity: seen(every).then(|| {
                let own = |name: &str| seen(every + 1).then(|| text(&format!("{end}-{name}")));
                Arc::new(Identity {
                    identity: text(end),
                    cluster: own("cluster"),
                    host: own("host"),
                    namespace: own("namespace"),
                    pod: own("pod"),
                    container: own("container"),
                    workload: own("workload"),
                    workload_kind: own("kind"),
                    service: own("service"),
                    image: own("image"),
                    zone: own("zone"),
                    ..Identity::default()
                })
            }),
            tagged_by: pick(TaggedBy::ALL, number),
            translated: None,
        };
        TaggedFlow { record, client: tag("client", 22), server: tag("server", 24) }
    }

    fn messages(rows: &[TaggedFlow]) -> Vec<Message> {
        let mut messages = Vec::new();
        Encoder::new(Numbers::default()).encode(rows, 7, &mut messages);
        messages
    }

    /// What comes out of the store is told as what went in.
    #[test]
    fn stored_rows_are_the_records_that_a_collector_gets() {
        let rows: Vec<TaggedFlow> = (0..5_000).map(row).collect();
        let again = flows(&batch(schema::<FlowRecord>(), &rows.iter().collect::<Vec<_>>()).unwrap()).unwrap();
        assert_eq!(again.len(), rows.len());
        for (again, row) in again.iter().zip(&rows) {
            assert_eq!(
                messages(std::slice::from_ref(again)),
                messages(std::slice::from_ref(row)),
                "{again:?}, {row:?}"
            );
        }
    }

    #[test]
    fn a_file_of_nothing_has_templates() {
        let writer = FileWriter::new(Numbers::default(), 7, Vec::new()).unwrap();
        assert_eq!(writer.finish().unwrap(), Encoder::new(Numbers::default()).templates(0, 7));
    }
}

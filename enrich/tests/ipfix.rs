//! Rows as IPFIX: what is written is what the collector of NetFlow reads, and what the documentation says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use std::sync::Arc;

use rows::{BEGIN, ClientVeth, SECOND};
use wiretag_capture::netflow::Collector;
use wiretag_capture::record::OrientedBy;
use wiretag_capture::{FlowRecord, Protocol};
use wiretag_enrich::ipfix::{self, Encoder, Format, MESSAGE, Message, Numbers, Owner};
use wiretag_enrich::{EndTag, Identity, TaggedBy, TaggedFlow};

const NOW: i64 = BEGIN + 70 * SECOND;

fn row(number: u16) -> TaggedFlow {
    let mut record = rows::record(ClientVeth, 0, 0);
    (record.client.port, record.server.port) = (Some(40_000 + number), Some(443));
    (record.client.bytes, record.client.packets, record.client.tcp_flags) = (u64::from(number), 3, Some(0x1b));
    (record.server.bytes, record.server.packets, record.server.tcp_flags) = (1 << 40, 1 << 33, Some(0x12));
    (record.dscp, record.vlan, record.client.mac) = (Some(46), Some(7), Some([2, 0, 0, 0, 0, 1]));
    record.start += 1;
    let identity = Identity { identity: "uid-1".into(), pod: Some("shop-1".into()), ..Identity::default() };
    let client = EndTag { identity: Some(Arc::new(identity)), tagged_by: TaggedBy::Interface, translated: None };
    TaggedFlow { record, client, server: EndTag::NONE }
}

fn of_ipv6(number: u16) -> TaggedFlow {
    let mut row = row(number);
    row.record.client.ip = "fd00::1".parse().unwrap();
    row.record.server.ip = "fd00::2".parse().unwrap();
    row
}

/// What the collector makes of messages.
fn read(encoder: &Encoder, messages: &[Message]) -> Vec<FlowRecord> {
    let (mut collector, mut rows) = (Collector::default(), Vec::new());
    let from = ([192, 0, 2, 1], 4739).into();
    collector.datagram(from, &encoder.templates(0, NOW), NOW);
    for message in messages {
        collector.datagram(from, &message.bytes, NOW);
    }
    collector.flush(&mut rows);
    let counters = collector.counters();
    assert_eq!((counters.malformed.len(), counters.missing(), counters.templates), (0, 0, 2), "{counters:?}");
    rows.into_iter().map(|row| row.record).collect()
}

#[test]
fn what_is_written_is_read() {
    let sent: Vec<TaggedFlow> =
        (0..300).map(|number| if number % 3 == 0 { of_ipv6(number) } else { row(number) }).collect();
    let (mut encoder, mut messages) = (Encoder::new(Numbers::default()), Vec::new());
    encoder.encode(&sent, NOW, &mut messages);
    assert!(messages.iter().all(|message| message.bytes.len() <= MESSAGE), "{messages:?}");
    assert_eq!(messages.iter().map(|message| message.records).sum::<u32>(), 300);
    let received = read(&encoder, &messages);
    assert_eq!(received.len(), sent.len());
    for (received, sent) in received.iter().zip(&sent) {
        let expected = FlowRecord {
            node: "192.0.2.1".into(),
            interface_index: 0,
            source: wiretag_capture::Source::Netflow,
            observed_at: Some(wiretag_capture::ObservedAt::Path),
            client_direction: None,
            oriented_by: OrientedBy::Exporter,
            flow_id: received.flow_id,
            community_id: received.community_id,
            ..sent.record.clone()
        };
        assert_eq!(*received, expected);
    }
}

#[test]
fn types_and_codes_of_icmp_survive() {
    for (protocol, ports, read_as) in [
        (Protocol::ICMP, (8, 0), (8, 0)),
        (Protocol::ICMP, (3, 1), (3, 1)),
        (Protocol::ICMP6, (128, 129), (128, 129)),
        (Protocol::UDP, (53, 5353), (53, 5353)),
    ] {
        let mut row = if protocol == Protocol::ICMP6 { of_ipv6(1) } else { row(1) };
        (row.record.protocol, row.record.client.tcp_flags, row.record.server.tcp_flags) = (protocol, None, None);
        (row.record.client.port, row.record.server.port) = (Some(ports.0), Some(ports.1));
        let (mut encoder, mut messages) = (Encoder::new(Numbers::default()), Vec::new());
        encoder.encode([&row], NOW, &mut messages);
        let received = &read(&encoder, &messages)[0];
        assert_eq!((received.client.port, received.server.port), (Some(read_as.0), Some(read_as.1)), "{protocol:?}");
    }
}

#[test]
fn numbers_count_what_was_lost_on_this_side_too() {
    let (mut encoder, mut messages) = (Encoder::new(Numbers::default()), Vec::new());
    let sent: Vec<_> = (0..100).map(row).collect();
    encoder.encode(&sent, NOW, &mut messages);
    assert!(messages.len() > 4);
    let mut collector = Collector::default();
    let from = ([192, 0, 2, 1], 4739).into();
    collector.datagram(from, &encoder.templates(0, NOW), NOW);
    let lost = messages.remove(3);
    for message in &messages {
        collector.datagram(from, &message.bytes, NOW);
    }
    assert_eq!(collector.counters().lost_records, u64::from(lost.records));
    // Templates that are sent again count nothing.
    let last = messages.last().unwrap();
    collector.datagram(from, &encoder.templates(last.next_number(), NOW), NOW);
    assert_eq!(last.next_number(), 100);
    assert_eq!((collector.counters().lost_records, collector.counters().restarts), (u64::from(lost.records), 0));
}

#[test]
fn a_record_longer_than_a_message_goes_alone_and_texts_are_cut() {
    let mut long = row(1);
    let text: Arc<str> = "ä".repeat(300).into();
    let identity = Identity {
        identity: text.clone(),
        cluster: Some(text.clone()),
        host: Some(text.clone()),
        namespace: Some(text.clone()),
        pod: Some(text.clone()),
        image: Some(text.clone()),
        zone: Some(text),
        ..Identity::default()
    };
    long.client.identity = Some(Arc::new(identity));
    let (mut encoder, mut messages) = (Encoder::new(Numbers::default()), Vec::new());
    encoder.encode([&row(0), &long, &of_ipv6(2)], NOW, &mut messages);
    assert_eq!(messages.iter().map(|message| message.records).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(read(&encoder, &messages).len(), 3);
}

/// The table of `docs/ipfix.md` is the template.
#[test]
fn the_documentation_is_the_template() {
    let length = |format: Format| match format {
        Format::Number(length, _) => length.to_string(),
        Format::Address(_) => "4, 16".to_owned(),
        Format::Mac(_) => "6".to_owned(),
        Format::Time(_) | Format::Figure(_) => "8".to_owned(),
        Format::Text(_) => "variable".to_owned(),
    };
    let lines = ipfix::fields().map(|field| {
        let owner = match field.owner {
            Owner::Iana => "IANA",
            Owner::Reverse => "29305",
            Owner::Wiretag => "`enterprise`",
        };
        let [first, second] = field.ids;
        let ids = if first == second { first.to_string() } else { format!("{first}, {second}") };
        format!("| {owner} | {ids} | {} | {} |\n", field.name, length(field.format))
    });
    let table: String = lines.collect();
    let text = include_str!("../../docs/ipfix.md");
    assert!(text.contains(&table), "the table should be:\n{table}");
}

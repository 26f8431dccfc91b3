//! What is lost, refused, forgotten: all of it is counted, and all that is kept has an end.

use crate::exporter::{BACK, Field, Heard, PLAIN, Plain, THERE, ipfix, options, set, template, v5, v9};

fn plain(records: &[&Plain]) -> Vec<u8> {
    set(256, &records.iter().flat_map(|record| record.bytes()).collect::<Vec<_>>())
}

#[test]
fn records_before_their_template_are_counted_as_missing() {
    let mut heard = Heard::default();
    heard.hear(&v9(1, &[plain(&[&THERE])]));
    assert_eq!((heard.counters().unknown_templates, heard.counters().missing()), (1, 1));
    heard.hear(&v9(2, &[set(0, &template(256, PLAIN))])).hear(&v9(3, &[plain(&[&THERE])]));
    assert_eq!((heard.rows().len(), heard.counters().missing()), (1, 1));
}

#[test]
fn templates_are_of_one_exporter_domain_and_format() {
    let mut heard = Heard::default();
    heard.hear(&v9(1, &[set(0, &template(256, PLAIN))]));
    heard.hear_of(([192, 0, 2, 2], 2_055).into(), &v9(1, &[plain(&[&THERE])]));
    heard.hear(&ipfix(1, &[plain(&[&THERE])]));
    let mut other_domain = v9(1, &[plain(&[&THERE])]);
    other_domain[19] = 8;
    heard.hear(&other_domain);
    assert_eq!((heard.rows().len(), heard.counters().unknown_templates, heard.counters().sessions), (0, 3, 4));
}

/// One that starts again behind a NAT, or sends from several ports; and two processes with one source id, whose messages are counted apart.
#[test]
fn templates_are_of_an_address_in_v9_and_of_a_port_in_ipfix() {
    let [one, other] = [2_055, 2_056].map(|port| ([192, 0, 2, 1], port).into());
    let mut heard = Heard::default();
    heard.hear_of(one, &v9(70, &[set(0, &template(256, PLAIN))]));
    for number in 0..5 {
        heard
            .hear_of(other, &v9(500 + number, &[plain(&[&THERE])]))
            .hear_of(one, &v9(71 + number, &[plain(&[&THERE])]));
    }
    let counters = heard.counters();
    assert_eq!(
        (heard.rows().len(), counters.sessions, counters.missing(), counters.late, counters.restarts),
        (10, 1, 0, 0, 0)
    );
    heard.hear_of(one, &ipfix(1, &[set(2, &template(256, PLAIN))]));
    heard.hear_of(other, &ipfix(1, &[plain(&[&THERE])]));
    assert_eq!((heard.rows().len(), heard.counters().unknown_templates), (0, 1));
}

#[test]
fn a_template_is_replaced_and_withdrawn() {
    let mut heard = Heard::default();
    let mut fields = PLAIN.to_vec();
    fields.insert(0, (99, 5, None));
    let padded = [&[0; 5][..], &THERE.bytes()].concat();
    heard.hear(&ipfix(0, &[set(2, &template(256, PLAIN)), plain(&[&THERE])]));
    heard.hear(&ipfix(1, &[set(2, &template(256, &fields)), set(256, &padded)]));
    assert_eq!((heard.rows().len(), heard.counters().templates), (2, 1));
    heard.hear(&ipfix(2, &[set(2, &[1, 0, 0, 0]), set(256, &padded)]));
    assert_eq!((heard.counters().templates, heard.counters().unknown_templates), (0, 1));
    // All templates of flows, and none of options.
    heard.hear(&ipfix(2, &[set(2, &template(256, PLAIN)), set(3, &options(257, 1, &[(149, 4, None)]))]));
    heard.hear(&ipfix(2, &[set(2, &[0, 2, 0, 0])]));
    assert_eq!(heard.counters().templates, 1);
}

#[test]
fn what_does_not_arrive_is_counted() {
    let mut heard = Heard::default();
    heard.hear(&v5(0, 0, &[&THERE, &BACK])).hear(&v5(2, 0, &[&THERE])).hear(&v5(33, 0, &[&THERE]));
    assert_eq!((heard.counters().lost_records, heard.counters().missing()), (30, 30));
    let mut heard = Heard::default();
    let message = |number| v9(number, &[set(0, &template(256, PLAIN)), plain(&[&THERE, &BACK])]);
    heard.hear(&message(5)).hear(&message(6)).hear(&message(9));
    assert_eq!((heard.counters().lost_datagrams, heard.counters().missing()), (2, 2));
}

#[test]
fn nonsense_is_counted_by_reason() {
    let mut heard = Heard::default();
    let whole = v9(1, &[set(0, &template(256, PLAIN)), plain(&[&THERE])]);
    let too_long = [&whole[..], &[1, 0, 0xff, 0xff]].concat();
    let too_short = [&whole[..], &[1, 0, 0, 3]].concat();
    let fields_missing = v9(1, &[set(0, &[1, 0, 0, 200, 0, 8, 0, 4])]);
    let counted: &[(&[u8], &str)] = &[
        (&[], "cut"),
        (&[0, 9, 0], "cut"),
        (&[0, 7, 0, 0], "version"),
        (&v5(0, 0, &[&THERE])[..71], "cut"),
        (&ipfix(0, &[])[..15], "cut"),
        (&[0, 10, 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "cut"),
        (&too_long, "set"),
        (&too_short, "set"),
        (&fields_missing, "template"),
    ];
    for (message, reason) in counted {
        let before = heard.counters().malformed.get(reason).copied().unwrap_or_default();
        heard.hear(message);
        assert_eq!(heard.counters().malformed[reason], before + 1, "{reason}: {message:02x?}");
    }
    // What came before the nonsense was read.
    assert_eq!(heard.rows().len(), 2);
}

#[test]
fn records_that_make_no_row_are_counted_by_reason() {
    let without_addresses = &PLAIN[2..];
    let without_counts = [&PLAIN[..6], &PLAIN[8..]].concat();
    let mut heard = Heard::default();
    let bytes = THERE.bytes();
    heard.hear(&v9(1, &[set(0, &template(256, without_addresses)), set(256, &bytes[8..])]));
    heard.hear(&v9(2, &[set(0, &template(256, &without_counts)), set(256, &[&bytes[..14], &bytes[22..]].concat())]));
    heard.hear(&v9(3, &[set(0, &template(256, PLAIN)), plain(&[&Plain { bytes: 0, packets: 0, ..THERE }])]));
    let counters = heard.counters();
    assert_eq!((counters.refused["no_addresses"], counters.refused["no_counts"], heard.rows().len()), (1, 2, 0));
}

/// A client of DHCP has no address yet; a record about no addresses at all has zeros on both sides.
#[test]
fn an_address_of_zeros_is_one_where_the_other_side_has_one() {
    let mut heard = Heard::default();
    let bytes = THERE.bytes();
    heard.hear(&v9(1, &[set(0, &template(256, PLAIN)), set(256, &[&[0; 4], &bytes[4..]].concat())]));
    let rows = heard.rows();
    let ends: Vec<_> = rows.iter().map(|row| (row.client.ip.to_string(), row.server.ip.to_string())).collect();
    assert_eq!(ends, [("0.0.0.0".to_owned(), "10.0.0.2".to_owned())]);
    heard.hear(&v9(2, &[set(256, &[&[0; 8], &bytes[8..]].concat())]));
    assert_eq!((heard.counters().refused["no_addresses"], heard.rows().len()), (1, 0));
}

#[test]
fn templates_that_cannot_be_are_not_kept() {
    let empty: &[Field] = &[(8, 0, None), (12, 0, None)];
    let many: Vec<Field> = (0..513).map(|_| (99, 1, None)).collect();
    let long: &[Field] = &[(99, u16::MAX, None)];
    for fields in [empty, &many, long] {
        let mut heard = Heard::default();
        heard.hear(&v9(1, &[set(0, &template(256, fields)), set(256, &[0; 64])]));
        assert_eq!((heard.counters().templates, heard.counters().forgotten), (0, 1), "{}", fields.len());
    }
    let mut heard = Heard::default();
    heard.hear(&v9(1, &[set(0, &template(255, PLAIN))]));
    assert_eq!(heard.counters().templates, 0);
}

#[test]
fn templates_and_exporters_are_bounded() {
    let mut heard = Heard::default();
    for id in 256..1_000 {
        heard.hear(&v9(id, &[set(0, &template(id as u16, PLAIN))]));
    }
    assert_eq!((heard.counters().templates, heard.counters().forgotten), (256, 1_000 - 512));
    // The one that was not heard for longest is forgotten.
    let mut hear = |exporter: u8, port: u16, message: &[u8]| {
        let now = crate::NOW + i64::from(exporter) * 10_000 + i64::from(port);
        heard.collector.datagram(([192, 0, 2, exporter], port).into(), message, now);
    };
    for port in 0..3_000 {
        hear(7, port, &ipfix(1, &[set(2, &template(256, PLAIN))]));
    }
    hear(7, 2_999, &ipfix(1, &[plain(&[&THERE])]));
    hear(7, 0, &ipfix(1, &[plain(&[&THERE])]));
    let counters = heard.counters();
    assert_eq!((counters.sessions, counters.records, counters.unknown_templates), (1_024, 1, 1));
    // The fields of all templates together.
    let large: Vec<Field> = (0..300).map(|_| (99, 1, None)).collect();
    let sets: Vec<_> = (0..30).map(|id| set(2, &template(256 + id, &large))).collect();
    for port in 0..200 {
        heard.collector.datagram(
            ([192, 0, 2, 8], port).into(),
            &ipfix(1, &sets),
            crate::NOW + 90_000 + i64::from(port),
        );
    }
    let counters = heard.counters();
    assert_eq!((counters.sessions, counters.templates), ((1 << 18) / 9_000, (1 << 18) / 9_000 * 30), "{counters:?}");
}

/// A router of 10,000 interfaces, each with a name and a rate of its own; and an exporter that tells of more than can be kept.
#[test]
fn options_of_thousands_of_interfaces_are_kept_and_the_rest_is_counted() {
    let mut fields = PLAIN.to_vec();
    fields.push((10, 4, None));
    let told: &[Field] = &[(10, 4, None), (305, 4, None), (306, 4, None), (82, 8, None)];
    let of = |interface: u32| {
        let name = format!("{:8}", format!("ge-{interface}"));
        [&interface.to_be_bytes()[..], &1_u32.to_be_bytes(), &9_u32.to_be_bytes(), name.as_bytes()].concat()
    };
    let record = |interface: u32| [&THERE.bytes()[..], &interface.to_be_bytes()].concat();
    let mut heard = Heard::default();
    heard.hear(&ipfix(0, &[set(2, &template(256, &fields)), set(3, &options(257, 1, told))]));
    // Before their options: their numbers take no room from names.
    let numbers: Vec<u8> = (0..1_000).flat_map(record).collect();
    heard.hear(&ipfix(0, &[set(256, &numbers)]));
    heard.rows();
    let tell = |heard: &mut Heard, interfaces: std::ops::Range<u32>| {
        for first in interfaces.clone().step_by(1_000) {
            let contents: Vec<u8> = (first..interfaces.end.min(first + 1_000)).flat_map(of).collect();
            heard.hear(&ipfix(0, &[set(257, &contents)]));
        }
    };
    tell(&mut heard, 0..8_000);
    let rows = heard.hear(&ipfix(0, &[set(256, &[record(7), record(7_900)].concat())])).rows();
    let seen: Vec<_> = rows.iter().map(|row| (&*row.interface, row.client.packets)).collect();
    assert_eq!((seen, heard.counters().forgotten), (vec![("ge-7", 100), ("ge-7900", 100)], 0));
    // 8,192 names and as many rates: 808 interfaces are too many, each time that they are told.
    tell(&mut heard, 8_000..9_000);
    let rows = heard.hear(&ipfix(0, &[set(256, &[record(8_100), record(8_900)].concat())])).rows();
    let seen: Vec<_> = rows.iter().map(|row| (&*row.interface, row.client.packets)).collect();
    assert_eq!((seen, heard.counters().forgotten), (vec![("ge-8100", 100), ("if8900", 10)], 808));
    tell(&mut heard, 0..9_000);
    assert_eq!(heard.counters().forgotten, 2 * 808);
}

/// Many exporters of many interfaces each.
#[test]
fn options_of_all_exporters_together_are_bounded() {
    let told: &[Field] = &[(10, 4, None), (82, 4, None)];
    let mut heard = Heard::default();
    let contents: Vec<u8> = (0..4_000_u32).flat_map(|interface| [interface.to_be_bytes(), *b"eth0"].concat()).collect();
    for port in 0..100 {
        let message = ipfix(0, &[set(3, &options(257, 1, told)), set(257, &contents)]);
        heard.collector.datagram(([192, 0, 2, 8], port).into(), &message, crate::NOW + i64::from(port));
    }
    let counters = heard.counters();
    assert_eq!((counters.sessions, counters.forgotten), ((1 << 18) / 4_002, 100 - (1 << 18) / 4_002));
}

#[test]
fn what_waits_is_bounded() {
    let mut heard = Heard::default();
    let mut rows = Vec::new();
    for part in 0..120_u8 {
        let records: Vec<Plain> = (0..1_000).map(|port| Plain { from: (part, port), ..THERE }).collect();
        let now = crate::NOW;
        heard.collector.datagram(
            ([192, 0, 2, 1], 1).into(),
            &v5(u32::from(part) * 1_000, 0, &records.iter().collect::<Vec<_>>()),
            now,
        );
        heard.collector.take(now, &mut rows);
    }
    let counters = heard.counters();
    assert_eq!((counters.waiting, counters.hurried, rows.len()), (100_000, 20_000, 20_000));
    assert_eq!((counters.records, counters.lost_records), (120_000, 0));
}

/// Many large datagrams at once: rows go before the next datagram comes, and not when the burst is over.
#[test]
fn a_collector_that_is_full_says_so_until_rows_are_taken() {
    let fields: &[Field] = &[(8, 4, None), (12, 4, None), (1, 1, None)];
    let record = |count: u32| [&[10, 0, 0, 1][..], &(0x0b00_0000 + count).to_be_bytes(), &[1]].concat();
    let records = |message: u32| set(256, &(0..7_000).flat_map(|at| record(7_000 * message + at)).collect::<Vec<_>>());
    let mut heard = Heard::default();
    let mut rows = Vec::new();
    heard.hear(&ipfix(0, &[set(2, &template(256, fields))]));
    for message in 0..20 {
        if heard.collector.is_full() {
            heard.collector.take(crate::NOW, &mut rows);
            assert!(!heard.collector.is_full());
        }
        heard.hear(&ipfix(7_000 * message, &[records(message)]));
        assert!(heard.counters().waiting <= 100_000 + 7_000, "{message}");
    }
    assert_eq!(heard.counters().records, 140_000);
    assert!(rows.len() > 30_000 && heard.counters().hurried == rows.len() as u64);
}

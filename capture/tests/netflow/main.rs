//! Flows of others: what becomes of the records of an exporter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops where it fails")]

mod exporter;
mod limits;

use exporter::{BACK, Field, Heard, NOW, PLAIN, Plain, SECOND, THERE, UPTIME, ipfix, options, set, template, v5, v9};
use wiretag_capture::netflow::WAIT;
use wiretag_capture::record::OrientedBy;
use wiretag_capture::{EndReason, FlowRecord, ObservedAt, Source};

/// Client's and server's port, packets and bytes.
fn figures(record: &FlowRecord) -> (u16, u16, [u64; 4]) {
    let (client, server) = (&record.client, &record.server);
    (client.port.unwrap(), server.port.unwrap(), [client.packets, client.bytes, server.packets, server.bytes])
}

const WHOLE: (u16, u16, [u64; 4]) = (40_000, 443, [10, 1_000, 9, 9_000]);

#[test]
fn both_directions_are_one_row_in_each_format() {
    let records = set(256, &[THERE.bytes(), BACK.bytes()].concat());
    let formats = [
        v5(0, 0, &[&BACK, &THERE]),
        v9(0, &[set(0, &template(256, PLAIN)), records.clone()]),
        // Times since the start of the exporter are worth nothing in IPFIX, unless it says when that was.
        ipfix(
            0,
            &[
                set(2, &template(256, PLAIN)),
                set(3, &options(257, 1, &[(149, 4, None), (160, 8, None)])),
                set(257, &[&[0, 0, 0, 7][..], &((NOW / 1_000_000) as u64 - 100_000).to_be_bytes()].concat()),
                records,
            ],
        ),
    ];
    for message in formats {
        let mut heard = Heard::default();
        let rows = heard.hear(&message).rows();
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(figures(row), WHOLE);
        assert_eq!((row.start, row.end), (NOW - 3 * SECOND, NOW - 1_990_000_000));
        assert_eq!((row.oriented_by, row.end_reason), (OrientedBy::Port, Some(EndReason::Fin)));
        assert_eq!((row.source, row.observed_at, row.primary), (Source::Netflow, Some(ObservedAt::Path), true));
        assert_eq!((&*row.node, row.slice), ("192.0.2.1", 0));
        assert_eq!(row.community_id.as_deref(), Some("1:UWHKJ/x6OQ1YiVv4rIl0t3yhjg8="));
        let counters = heard.counters();
        assert_eq!((counters.records, counters.joined, counters.rows, counters.missing()), (2, 1, 1, 0));
    }
}

#[test]
fn a_direction_alone_is_a_row_after_a_while() {
    let mut heard = Heard::default();
    heard.hear(&v5(0, 0, &[&BACK]));
    let mut rows = Vec::new();
    heard.collector.take(NOW + WAIT - 1, &mut rows);
    assert!(rows.is_empty());
    heard.collector.take(NOW + WAIT, &mut rows);
    assert_eq!(figures(&rows[0].record), (40_000, 443, [0, 0, 9, 9_000]));
    assert_eq!((rows[0].record.oriented_by, &*rows[0].record.interface), (OrientedBy::Port, "if3"));
}

/// A record of one direction and one of both, from before the clock was set right.
#[test]
fn a_clock_that_is_set_back_delays_no_row() {
    let mut heard = Heard::default();
    heard.hear(&v5(0, 0, &[&BACK, &THERE])).hear(&v5(2, 0, &[&Plain { from: (3, 1), ..THERE }]));
    let mut rows = Vec::new();
    heard.collector.take(NOW - 5 * SECOND, &mut rows);
    assert!(rows.is_empty(), "a step that is shorter than the wait");
    heard.collector.take(NOW - 3_600 * SECOND, &mut rows);
    assert_eq!(rows.len(), 2);
}

#[test]
fn what_is_another_connection_is_not_joined() {
    // The same ports, a minute before; the same direction again; another exporter.
    let before = Plain { times: (70_000, 60_000), ..BACK };
    let again = Plain { times: (1_500, 1_000), ..THERE };
    for (one, other) in [(&THERE, &before), (&THERE, &again)] {
        assert_eq!(Heard::default().hear(&v5(0, 0, &[one, other])).rows().len(), 2);
    }
    let mut heard = Heard::default();
    heard.hear(&v5(0, 0, &[&THERE])).hear_of(([192, 0, 2, 2], 2_055).into(), &v5(0, 0, &[&BACK]));
    assert_eq!(heard.rows().len(), 2);
}

/// A cache that is told at once, of an exporter that cuts connections every second.
#[test]
fn parts_of_a_connection_are_joined_whatever_their_order() {
    let parts: Vec<Plain> = [&THERE, &BACK]
        .into_iter()
        .flat_map(|of| [3_000, 2_000, 1_000].map(|begin| Plain { times: (begin, begin - 990), ..*of }))
        .collect();
    for order in [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [2, 1, 0, 3, 5, 4], [3, 0, 1, 2, 5, 4]] {
        let records = order.map(|part| &parts[part]);
        let mut heard = Heard::default();
        let rows = heard.hear(&v5(0, 0, &records)).rows();
        let mut starts: Vec<_> = rows.iter().map(|row| (NOW - row.start, figures(row))).collect();
        starts.sort_unstable_by_key(|(start, _)| *start);
        assert_eq!(starts, [SECOND, 2 * SECOND, 3 * SECOND].map(|start| (start, WHOLE)));
        assert_eq!((heard.counters().joined, heard.counters().waiting), (3, 0));
    }
}

/// Some exporters keep the start of a connection in all of its records; and two records may be equal.
#[test]
fn each_record_of_a_connection_is_a_flow_of_its_own() {
    // More than wait of one direction.
    let parts = [2_500, 2_000, 1_500, 1_500].map(|end| Plain { times: (3_000, end), ..THERE });
    let whole: Vec<&Plain> = parts.iter().collect();
    let messages = [v5(0, 0, &whole), v5(4, 0, &whole), v5(8, 0, &whole)];
    let told = || {
        let mut heard = Heard::default();
        for message in &messages {
            heard.hear(message);
        }
        let mut rows: Vec<_> = heard.rows().iter().map(|row| (row.flow_id, row.slice, row.start)).collect();
        rows.sort_unstable();
        rows
    };
    let rows = told();
    let keys: std::collections::BTreeSet<_> = rows.iter().map(|(id, slice, _)| (id, slice)).collect();
    assert_eq!((rows.len(), keys.len()), (12, 12));
    assert!(rows.iter().all(|(_, slice, start)| (*slice, *start) == (0, NOW - 3 * SECOND)));
    assert_eq!(told(), rows, "the same in every run");
}

#[test]
fn a_record_of_both_directions_is_a_row() {
    let reverse = Some(29_305);
    let fields: Vec<Field> =
        PLAIN.iter().copied().chain([(1, 4, reverse), (2, 4, reverse), (6, 2, reverse), (239, 1, None)]).collect();
    let mut record = BACK.bytes();
    record.extend(1_000_u32.to_be_bytes());
    record.extend(10_u32.to_be_bytes());
    record.extend([0, 0x02, 2]);
    let mut heard = Heard::default();
    let rows = heard.hear(&ipfix(0, &[set(2, &template(300, &fields)), set(300, &record)])).rows();
    assert_eq!(figures(&rows[0]), WHOLE);
    assert_eq!(rows[0].oriented_by, OrientedBy::Exporter);
    assert_eq!((rows[0].client.tcp_flags, rows[0].server.tcp_flags), (Some(0x02), Some(0x1b)));
}

#[test]
fn fields_of_any_length_and_of_any_enterprise_are_passed_over() {
    let mut fields: Vec<Field> = vec![(100, u16::MAX, Some(32_473)), (82, u16::MAX, None), (0x1c40, 3, Some(9))];
    fields.extend(PLAIN);
    let record = [&[3, 1, 2, 3, 4][..], b"eth7", &[0; 3], &THERE.bytes()].concat();
    let long = [&[255, 1, 0][..], &[5; 256], &[0], &[0; 3], &BACK.bytes()].concat();
    let message = ipfix(0, &[set(2, &template(300, &fields)), set(300, &[record, long].concat())]);
    let rows = Heard::default().hear(&message).rows();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((figures(row), &*row.interface), (WHOLE, "eth7"));
}

#[test]
fn both_versions_of_ip_and_all_of_the_rest() {
    let fields: &[Field] = &[
        (27, 16, None),
        (28, 16, None),
        (4, 1, None),
        (139, 2, None),
        (231, 8, None),
        (232, 8, None),
        (152, 8, None),
        (153, 8, None),
        (195, 1, None),
        (243, 2, None),
        (56, 6, None),
        (136, 1, None),
    ];
    let mut record = vec![0; 32];
    (record[0], record[15], record[16], record[31]) = (0xfd, 1, 0xfd, 2);
    record.extend([58, 128, 0]);
    record.extend(104_u64.to_be_bytes());
    record.extend(208_u64.to_be_bytes());
    let milliseconds = (NOW / 1_000_000) as u64;
    record.extend((milliseconds - 500).to_be_bytes());
    record.extend((milliseconds - 250).to_be_bytes());
    record.extend([46, 0x2f, 0xff, 2, 0, 0, 0, 0, 1, 1]);
    let rows = Heard::default().hear(&ipfix(0, &[set(2, &template(256, fields)), set(256, &record)])).rows();
    let row = &rows[0];
    assert_eq!(figures(row), (128, 129, [1, 104, 1, 208]));
    assert_eq!((row.dscp, row.vlan, row.client.mac), (Some(46), Some(4095), Some([2, 0, 0, 0, 0, 1])));
    assert_eq!((row.end - row.start, row.end_reason), (250_000_000, Some(EndReason::Idle)));
    assert_eq!(row.oriented_by, OrientedBy::Exporter);
}

#[test]
fn an_end_that_the_exporter_detected_is_a_fin_of_tcp_only() {
    let mut fields = PLAIN.to_vec();
    fields.push((136, 1, None));
    for (protocol, flags, expected) in
        [(6, 0, EndReason::Fin), (6, 4, EndReason::Rst), (17, 0, EndReason::Exported), (132, 1, EndReason::Exported)]
    {
        let mut record = [&THERE.bytes()[..], &[3]].concat();
        (record[12], record[13]) = (protocol, flags);
        let rows = Heard::default().hear(&v9(1, &[set(0, &template(256, &fields)), set(256, &record)])).rows();
        assert_eq!(rows[0].end_reason, Some(expected), "{protocol} {flags}");
    }
}

/// A firewall's record of a connection that is over (Cisco ASA): when it was created, and when this was told.
#[test]
fn what_was_observed_when_is_the_end_where_there_is_no_other() {
    let fields: &[Field] =
        &[(8, 4, None), (12, 4, None), (7, 2, None), (11, 2, None), (4, 1, None), (231, 4, None), (232, 4, None)];
    let milliseconds = (NOW / 1_000_000) as u64;
    let rows = |times: &[(Field, u64)]| {
        let fields: Vec<Field> = fields.iter().copied().chain(times.iter().map(|(field, _)| *field)).collect();
        let mut record = THERE.bytes()[..13].to_vec();
        record.extend([0, 0, 3, 0xe8, 0, 0, 0x23, 0x28]);
        record.extend(times.iter().flat_map(|(_, time)| time.to_be_bytes()));
        let rows = Heard::default().hear(&v9(1, &[set(0, &template(256, &fields)), set(256, &record)])).rows();
        // Bytes without packets were of one at least.
        assert_eq!(figures(&rows[0]), (40_000, 443, [1, 1_000, 1, 9_000]));
        (NOW - rows[0].start, NOW - rows[0].end)
    };
    let (created, observed) = (((152, 8, None), milliseconds - 10_000), ((323, 8, None), milliseconds - 1_000));
    assert_eq!(rows(&[created, observed]), (10 * SECOND, SECOND));
    assert_eq!(rows(&[created, observed, ((153, 8, None), milliseconds - 2_000)]), (10 * SECOND, 2 * SECOND));
    assert_eq!(rows(&[created, observed, ((161, 8, None), 3_000)]), (10 * SECOND, 7 * SECOND));
    assert_eq!(rows(&[observed]), (SECOND, SECOND));
    assert_eq!(rows(&[]), (0, 0));
}

#[test]
fn sampled_counts_are_scaled_only_where_the_exporter_says_so() {
    let packets = |heard: &mut Heard| heard.rows().iter().map(|row| row.client.packets).sum::<u64>();
    assert_eq!(packets(Heard::default().hear(&v5(0, 0x4064, &[&THERE]))), 1_000);
    assert_eq!(packets(Heard::default().hear(&v5(0, 1, &[&THERE]))), 10);

    // NetFlow v9: options say the rate of sampler 3, which only one of two records names.
    let mut sampled = PLAIN.to_vec();
    sampled.push((48, 1, None));
    // Scope: the system; a sampler's id and its interval.
    let options = [1, 1, 0, 4, 0, 8, 0, 1, 0, 4, 0, 48, 0, 1, 0, 50, 0, 4];
    let record = |id: u8| [&THERE.bytes()[..], &[id]].concat();
    let mut heard = Heard::default();
    heard.hear(&v9(1, &[set(1, &options), set(257, &[0, 0, 0, 0, 3, 0, 0, 0, 50])]));
    heard.hear(&v9(2, &[set(0, &template(256, &sampled)), set(256, &[record(3), record(4)].concat())]));
    assert_eq!(packets(&mut heard), 10 * 50 + 10);
    assert_eq!(heard.counters().scaled, 1);
}

/// Its options may be told again, or not at all; who was overtaken has not started anew.
#[test]
fn an_exporter_that_starts_anew_samples_as_it_says_then() {
    let options = [1, 1, 0, 4, 0, 4, 0, 1, 0, 4, 0, 34, 0, 4];
    let records = |number: u32, uptime: u32| {
        let mut message = v9(number, &[set(256, &THERE.bytes())]);
        message[4..8].copy_from_slice(&uptime.to_be_bytes());
        message
    };
    let mut heard = Heard::default();
    let sampling = set(257, &[0, 0, 0, 0, 0, 0, 3, 0xe8]);
    heard.hear(&v9(70, &[set(0, &template(256, PLAIN)), set(1, &options), sampling]));
    let mut packets = |number, uptime| heard.hear(&records(number, uptime)).rows()[0].client.packets;
    assert_eq!(packets(72, UPTIME + 500), 10_000);
    assert_eq!(packets(71, UPTIME + 400), 10_000);
    assert_eq!(packets(73, 500), 10_000, "the uptime turns");
    assert_eq!(packets(74, 3_000_000), 10_000);
    assert_eq!(packets(0, 2_000), 10);
}

#[test]
fn observations_of_one_exporter_are_told_apart_by_direction() {
    let mut fields = PLAIN.to_vec();
    fields.push((61, 1, None));
    let record = |record: &Plain, sense: u8| [&record.bytes()[..], &[sense]].concat();
    let records = [record(&THERE, 0), record(&THERE, 1), record(&BACK, 1), record(&BACK, 0)].concat();
    let mut heard = Heard::default();
    let mut rows = heard.hear(&v9(1, &[set(0, &template(256, &fields)), set(256, &records)])).rows();
    rows.sort_by_key(|row| row.interface_index);
    assert_eq!(
        rows.iter().map(|row| (row.interface_index, figures(row))).collect::<Vec<_>>(),
        [(0, WHOLE), (1, WHOLE)]
    );
    assert_ne!(rows[0].flow_id, rows[1].flow_id);
}

/// Who looks at one interface sees one direction come in, and the other go out; numbers of interfaces may be told or not.
#[test]
fn what_comes_in_and_goes_out_by_one_interface_is_one_row() {
    let mut fields = PLAIN.to_vec();
    fields.extend([(61, 1, None), (10, 2, None), (14, 2, None)]);
    let record = |record: &Plain, sense: u8, [input, output]: [u8; 2]| {
        [&record.bytes()[..], &[sense, 0, input, 0, output]].concat()
    };
    let rows = |records: &[Vec<u8>]| {
        let mut heard = Heard::default();
        let message = v9(1, &[set(0, &template(256, &fields)), set(256, &records.concat())]);
        let mut rows = heard.hear(&message).rows();
        let counters = heard.counters();
        assert_eq!(counters.records, counters.rows + counters.joined);
        rows.sort_by_key(|row| row.interface_index);
        rows.iter().map(|row| (row.interface_index, figures(row))).collect::<Vec<_>>()
    };
    for interfaces in [[[0, 0], [0, 0]], [[3, 0], [0, 3]], [[3, 4], [4, 3]]] {
        let (there, back) = (record(&THERE, 0, interfaces[0]), record(&BACK, 1, interfaces[1]));
        assert_eq!(rows(&[there.clone(), back.clone()]), [(0, WHOLE)], "{interfaces:?}");
        assert_eq!(rows(&[back.clone(), there.clone()]), [(0, WHOLE)], "{interfaces:?}");
        // The next connection with these ports.
        let [next_there, next_back] = [&THERE, &BACK].map(|own| Plain { times: (60_000, 50_000), ..*own });
        let (next_there, next_back) = (record(&next_there, 0, interfaces[0]), record(&next_back, 1, interfaces[1]));
        assert_eq!(rows(&[there, back, next_there, next_back]), [(0, WHOLE), (0, WHOLE)], "{interfaces:?}");
    }
    let apart = rows(&[record(&THERE, 0, [3, 4]), record(&BACK, 1, [3, 4])]);
    assert_eq!(apart.iter().map(|row| row.0).collect::<Vec<_>>(), [0, 1], "one in at 3, one out at 4");
    // Both directions are looked at on both interfaces: two observations.
    let (there, back) = ([3, 4], [4, 3]);
    let all = [record(&THERE, 0, there), record(&BACK, 1, back), record(&THERE, 1, there), record(&BACK, 0, back)];
    assert_eq!(rows(&all), [(0, WHOLE), (1, WHOLE)]);
}

#[test]
fn a_clock_that_is_wrong_does_not_misplace_flows() {
    // The exporter believes that it is 1970.
    let mut message = v5(0, 0, &[&THERE]);
    message[8..12].fill(0);
    let mut heard = Heard::default();
    let rows = heard.hear(&message).rows();
    assert_eq!((rows[0].start, rows[0].end), (NOW - SECOND, NOW));
    assert_eq!(heard.counters().replaced_times, 1);
}

/// Messages have jitter, and clocks may be wrong: what came first is what the exporter itself puts first.
#[test]
fn who_began_does_not_depend_on_when_messages_come() {
    let back = Plain { from: (2, 50_000), ..BACK };
    let there = Plain { to: (2, 50_000), ..THERE };
    let at_once = Plain { times: back.times, ..Plain { to: (2, 50_000), ..THERE } };
    for seconds in [0, (NOW / SECOND) as u32] {
        for (first, by) in [(&there, OrientedBy::Syn), (&at_once, OrientedBy::FirstPacket)] {
            let mut heard = Heard::default();
            for (later, record) in [(1, &back), (0, first)] {
                let mut message = v5(0, 0, &[record]);
                // The clock of the messages moves, and that of the records does not.
                message[8..12].copy_from_slice(&(seconds + later).to_be_bytes());
                heard.hear(&message);
            }
            let rows = heard.rows();
            let [row] = rows.as_slice() else { panic!("{rows:?}") };
            assert_eq!(row.oriented_by, by);
            if by == OrientedBy::Syn {
                assert_eq!(figures(row), (40_000, 50_000, WHOLE.2));
            }
        }
    }
}

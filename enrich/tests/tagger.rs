//! The join as stories: a client and a server, each with a veth of its own, seen at both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use rows::{BEGIN, Bridge, CLIENT, ClientVeth, Point, SECOND, SERVER, ServerVeth, record, tagger, transaction};
use wiretag_capture::record::{Tunnel, TunnelKind, TunnelStack};
use wiretag_capture::{FlowRecord, ObservedAt};
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{EndTag, Identity, IdentityEvent, Interval, Key, TaggedBy, TaggedFlow};

/// `name` has the address and the veth from a time on.
fn learn(timeline: &mut Timeline, name: &str, ip: IpAddr, veth: Point, from: i64) {
    let identity = Arc::new(Identity { identity: name.into(), container: Some(name.into()), ..Identity::default() });
    let keys =
        [Key::Interface { index: veth as u32, netns: 0, boot: "boot".into() }, Key::Ip { network: "net".into(), ip }];
    for key in keys {
        let (identity, source) = (identity.clone(), "docker".into());
        let interval = Interval { key, identity, valid_from: from, valid_to: None, learned_at: from, source };
        timeline.apply(&IdentityEvent::Learned(interval));
    }
    timeline.apply(&IdentityEvent::Network { index: veth as u32, netns: 0, network: "net".into(), at: 0 });
}

fn known() -> Timeline {
    let mut timeline = Timeline::new();
    learn(&mut timeline, "client", CLIENT.0, ClientVeth, 0);
    learn(&mut timeline, "web", SERVER.0, ServerVeth, 0);
    timeline
}

fn name(tag: &EndTag) -> Option<(&str, TaggedBy)> {
    tag.identity.as_ref().map(|identity| (&*identity.identity, tag.tagged_by))
}

/// Rows by where they were seen and whether they count.
fn primary(rows: &TaggedRows) -> Vec<(u64, bool)> {
    let flows = rows.flows.iter().map(|row| (row.record.flow_id, row.record.primary));
    flows.chain(rows.transactions.iter().map(|row| (row.record.flow_id, row.record.primary))).collect()
}

#[test]
fn a_transaction_is_named_as_its_flow_is_and_does_not_wait_for_it() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let now = BEGIN + 5 * SECOND;
    tagger.push_transaction(0, transaction(ClientVeth, 0, 5), now);
    tagger.drain(now + SECOND, &timeline, &mut rows);
    assert!(rows.is_empty(), "names may come late");
    tagger.drain(now + 2 * SECOND, &timeline, &mut rows);
    let [transaction] = rows.transactions.as_slice() else { panic!("{rows:?}") };
    assert_eq!(name(&transaction.client), Some(("client", TaggedBy::Interface)));
    assert_eq!(name(&transaction.server), Some(("web", TaggedBy::Ip)));
    assert_eq!(transaction.record.observed_at, Some(ObservedAt::Client));
    assert!(transaction.record.primary);

    tagger.push(0, record(ClientVeth, 0, 0), now);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(
        (&rows.flows[0].client, &rows.flows[0].server),
        (&transaction_tags(&rows).0, &transaction_tags(&rows).1)
    );
}

/// What waits for a time would else wait until that time comes again, and with it all that comes after it.
#[test]
fn a_clock_that_goes_back_holds_nothing_up() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let (now, earlier) = (BEGIN + 700 * SECOND, BEGIN + 100 * SECOND);
    tagger.push(0, record(ClientVeth, 0, 0), now);
    tagger.drain(now + SECOND, &timeline, &mut rows);
    assert!(rows.is_empty());
    tagger.drain(earlier, &timeline, &mut rows);
    assert_eq!(rows.flows.len(), 1, "its time does not come for long");
    for point in [ServerVeth, ClientVeth] {
        tagger.push(0, record(point, 1, 60), earlier);
    }
    tagger.drain(earlier + SECOND, &timeline, &mut rows);
    assert_eq!(rows.flows.len(), 1, "names may come late");
    tagger.drain(earlier + 2 * SECOND, &timeline, &mut rows);
    let later: Vec<bool> = rows.flows.iter().skip(1).map(|row| row.record.primary).collect();
    assert_eq!(later, [false, true]);
}

fn transaction_tags(rows: &TaggedRows) -> (EndTag, EndTag) {
    (rows.transactions[0].client.clone(), rows.transactions[0].server.clone())
}

#[test]
fn of_two_observations_of_an_exchange_the_clients_own_counts() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let now = BEGIN + 5 * SECOND;
    for point in [ServerVeth, Bridge, ClientVeth] {
        tagger.push_transaction(0, transaction(point, 0, 5), now);
    }
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(12, false), (10, false), (11, true)]);
}

/// What left first decides, be it a transaction or a slice: both say the same for as long as the flow is seen.
#[test]
fn transactions_and_slices_agree_on_the_observation_that_counts() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    // Only the server's side has seen the first exchange in time.
    tagger.push_transaction(0, transaction(ServerVeth, 0, 5), BEGIN + 5 * SECOND);
    tagger.drain(BEGIN + 8 * SECOND, &timeline, &mut rows);
    for (point, number) in [(ClientVeth, 0), (ClientVeth, 1), (ServerVeth, 1)] {
        tagger.push_transaction(0, transaction(point, number, 9), BEGIN + 9 * SECOND);
    }
    for slice in 0..3 {
        for point in [ClientVeth, ServerVeth] {
            tagger.push(0, record(point, slice, i64::from(slice) * 60), BEGIN + i64::from(slice + 1) * 60 * SECOND);
        }
    }
    tagger.flush(&timeline, &mut rows);
    assert_eq!(rows.transactions.len() + rows.flows.len(), 10);
    for (point, counts) in primary(&rows) {
        assert_eq!(counts, point == ServerVeth as u64);
    }
}

/// Names are as of the exchange. The slice had packets of both owners of the address: it is named after neither.
#[test]
fn a_transaction_is_named_as_of_its_own_time() {
    let mut timeline = Timeline::new();
    learn(&mut timeline, "first", SERVER.0, ServerVeth, 0);
    learn(&mut timeline, "second", SERVER.0, ServerVeth, BEGIN + 30 * SECOND);
    let (mut tagger, mut rows) = (tagger(), TaggedRows::default());
    tagger.push_transaction(0, transaction(ServerVeth, 0, 5), BEGIN + 60 * SECOND);
    tagger.push(0, record(ServerVeth, 0, 0), BEGIN + 60 * SECOND);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(name(&rows.transactions[0].server), Some(("first", TaggedBy::Interface)));
    assert_eq!((name(&rows.flows[0].server), rows.flows[0].server.tagged_by), (None, TaggedBy::Ambiguous));
}

/// The packets of a tunnel around flows never count, and do not keep others with the same ends from it.
#[test]
fn a_row_that_never_counts_stays_so_and_takes_nobodys_place() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let carrier = FlowRecord { primary: false, app: Some("tunnel"), ..record(ClientVeth, 0, 0) };
    tagger.push(0, carrier.clone(), BEGIN + 60 * SECOND);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(11, false)]);
    assert_eq!(name(&rows.flows[0].client), Some(("client", TaggedBy::Interface)), "its ends have names all the same");

    tagger.push(0, record(ServerVeth, 0, 0), BEGIN + 60 * SECOND);
    tagger.push(0, FlowRecord { slice: 1, ..carrier }, BEGIN + 120 * SECOND);
    let mut rows = TaggedRows::default();
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(12, true), (11, false)]);
}

#[test]
fn what_waits_is_bounded() {
    let config = TaggerConfig { max_held: 3, ..TaggerConfig::default() };
    let (mut tagger, timeline, mut rows) = (Tagger::new(config), known(), TaggedRows::default());
    for number in 0..5 {
        tagger.push_transaction(0, transaction(ClientVeth, number, 5), BEGIN);
    }
    assert!(tagger.is_full());
    tagger.drain(BEGIN, &timeline, &mut rows);
    assert_eq!(rows.transactions.iter().map(|row| row.record.number).collect::<Vec<_>>(), [0, 1]);
    assert!(!tagger.is_full());
}

/// What is open is named at once and decides nothing; who was shown as the one that counts hears when it is not any more.
#[test]
fn open_slices_are_shown_without_deciding_anything() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let now = BEGIN + 5 * SECOND;
    let open = |at, slice| FlowRecord { end_reason: None, ..record(at, slice, 0) };
    let shown = |rows: Vec<TaggedFlow>| rows.iter().map(|r| (r.record.flow_id, r.record.primary)).collect::<Vec<_>>();
    let server = tagger.name_open(0, vec![open(ServerVeth, 0)], now, &timeline);
    assert_eq!(name(&server[0].server), Some(("web", TaggedBy::Interface)));
    assert_eq!((server[0].record.observed_at, server[0].record.end_reason), (Some(ObservedAt::Server), None));
    assert_eq!(shown(server), [(12, true)]);
    assert!(tagger.take_demoted().is_empty());
    // The client's own interface comes forward, in whatever order a walk meets them.
    let all = tagger.name_open(0, vec![open(Bridge, 0), open(ServerVeth, 1), open(ClientVeth, 0)], now, &timeline);
    assert_eq!(shown(all), [(10, false), (12, false), (11, true)]);
    assert_eq!(tagger.take_demoted(), [(12, 0)]);
    assert!(tagger.take_demoted().is_empty());
    // Nothing was settled: the rows that end are those that decide.
    for at in [ServerVeth, ClientVeth] {
        tagger.push(0, record(at, 0, 0), BEGIN + 60 * SECOND);
    }
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(12, false), (11, true)]);
}

/// A row that ends takes the place of an open slice that was shown.
#[test]
fn a_row_that_ends_demotes_an_open_slice_elsewhere() {
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let open = FlowRecord { end_reason: None, ..record(Bridge, 0, 0) };
    assert!(tagger.name_open(0, vec![open.clone()], BEGIN, &timeline)[0].record.primary);
    tagger.push(0, record(ClientVeth, 0, 0), BEGIN + SECOND);
    tagger.flush(&timeline, &mut rows);
    assert_eq!((primary(&rows), tagger.take_demoted()), (vec![(11, true)], vec![(10, 0)]));
    assert!(!tagger.name_open(0, vec![open], BEGIN + SECOND, &timeline)[0].record.primary, "it is decided");
}

/// `kubernetes` says that the server's address is `name`'s since ever.
fn far_server(timeline: &mut Timeline, name: &str) {
    let identity = Arc::new(Identity { identity: name.into(), ..Identity::default() });
    let key = Key::Ip { network: "net".into(), ip: SERVER.0 };
    let source = "kubernetes".into();
    let interval = Interval { key, identity, valid_from: 0, valid_to: None, learned_at: 0, source };
    timeline.apply(&IdentityEvent::Learned(interval));
}

fn heard(timeline: &mut Timeline, at: i64) {
    timeline.apply(&IdentityEvent::Heard { source: "kubernetes".into(), at });
}

#[test]
fn a_row_waits_for_a_name_whose_source_is_behind_but_not_for_ever() {
    let mut timeline = Timeline::new();
    learn(&mut timeline, "client", CLIENT.0, ClientVeth, 0);
    far_server(&mut timeline, "web");
    let end = BEGIN + 60 * SECOND;
    heard(&mut timeline, end - SECOND);
    let (mut tagger, mut rows) = (tagger(), TaggedRows::default());
    tagger.push(0, record(ClientVeth, 0, 0), end);
    tagger.drain(end + 3 * SECOND, &timeline, &mut rows);
    assert!(rows.is_empty(), "the server may be another by now");
    heard(&mut timeline, end + 4 * SECOND);
    tagger.drain(end + 4 * SECOND, &timeline, &mut rows);
    assert_eq!(name(&rows.flows.pop().expect("a row").server), Some(("web", TaggedBy::Ip)));
    // The source is away: what comes now waits for it, until it has been away for long.
    tagger.push(0, record(ClientVeth, 1, 60), end + 50 * SECOND);
    for (after, waiting) in [(60, true), (62, false)] {
        tagger.drain(end + after * SECOND, &timeline, &mut rows);
        assert_eq!(rows.is_empty(), waiting, "{after} s later");
    }
    let row = rows.flows.pop().expect("a row");
    assert_eq!(name(&row.client), Some(("client", TaggedBy::Interface)), "the interface is sure");
    assert_eq!((name(&row.server), row.server.tagged_by), (None, TaggedBy::Ambiguous));
}

#[test]
fn what_an_exporter_tells_counts_only_where_nobody_captures() {
    let exported = |port: u16| {
        let mut record = record(Bridge, 0, 0);
        (record.source, record.flow_id, record.client.port) = (wiretag_capture::Source::Netflow, 99, Some(port));
        record.observed_at = Some(ObservedAt::Path);
        record
    };
    let point = wiretag_capture::netflow::point([192, 0, 2, 1].into());
    let (mut tagger, timeline, mut rows) = (tagger(), known(), TaggedRows::default());
    let now = BEGIN + 70 * SECOND;
    // It began before, but it is only told.
    tagger.push(point, FlowRecord { start: BEGIN - SECOND, ..exported(CLIENT.1) }, now);
    tagger.push(point, exported(CLIENT.1 + 1), now);
    tagger.push(0, record(Bridge, 0, 0), now);
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(99, false), (99, true), (10, true)]);
    // Names are by address; the interface has a number that says nothing here.
    assert_eq!(name(&rows.flows[0].client), Some(("client", TaggedBy::Ip)));
    assert_eq!(name(&rows.flows[0].server), Some(("web", TaggedBy::Ip)));
    assert_eq!(rows.flows[0].record.observed_at, Some(ObservedAt::Path));
}

/// Two networks with the same addresses: flows with equal ends are two flows, each counts, and each has its own names.
#[test]
fn flows_with_equal_ends_in_two_networks_both_count() {
    let mut timeline = Timeline::new();
    let networks = [("red", [11, 12]), ("blue", [21, 22])];
    for (network, interfaces) in networks {
        for (end, ip) in [("client", CLIENT.0), ("web", SERVER.0)] {
            let name = format!("{network}-{end}");
            let identity = Arc::new(Identity {
                identity: name.as_str().into(),
                container: Some(name.into()),
                ..Identity::default()
            });
            timeline.apply(&IdentityEvent::Learned(Interval {
                key: Key::Ip { network: network.into(), ip },
                identity,
                valid_from: 0,
                valid_to: None,
                learned_at: 0,
                source: "docker".into(),
            }));
        }
        for index in interfaces {
            timeline.apply(&IdentityEvent::Network { index, netns: 0, network: network.into(), at: 0 });
        }
    }
    let mut tagger = tagger();
    let seen_at = |interface_index: u32, flow_id: u64| FlowRecord {
        flow_id,
        interface_index,
        ..record(if interface_index % 10 == 1 { ClientVeth } else { ServerVeth }, 0, 0)
    };
    for index in [11, 12, 21, 22] {
        tagger.set_link(0, index, true);
        tagger.push(0, seen_at(index, index.into()), BEGIN);
    }
    // Between them, on an interface that is of neither network.
    tagger.push(0, FlowRecord { interface_index: 30, flow_id: 30, ..record(Bridge, 0, 0) }, BEGIN);
    let mut rows = TaggedRows::default();
    tagger.flush(&timeline, &mut rows);
    assert_eq!(primary(&rows), [(11, true), (12, false), (21, true), (22, false), (30, false)]);
    for row in rows.flows.iter().take(4) {
        let network = if row.record.flow_id < 20 { "red" } else { "blue" };
        assert_eq!(name(&row.client).map(|own| own.0.to_owned()), Some(format!("{network}-client")));
    }

    // The same while they are open.
    let mut tagger = rows::tagger();
    for index in [11, 12, 21, 22] {
        tagger.set_link(0, index, true);
    }
    let open = [11, 12, 21, 22].map(|index| seen_at(index, index.into())).into();
    let shown = tagger.name_open(0, open, BEGIN, &timeline);
    assert_eq!(shown.iter().map(|row| row.record.primary).collect::<Vec<_>>(), [true, false, true, false]);
}

/// What a tunnel carries is not called by the name of a container of a bridge here that has the same address.
#[test]
fn inside_a_tunnel_an_address_is_a_pod_s_or_nobody_s() {
    let timeline = |pod: Option<&str>| {
        let mut timeline = Timeline::new();
        let identity = Arc::new(Identity { identity: "own".into(), pod: pod.map(Into::into), ..Identity::default() });
        timeline.apply(&IdentityEvent::Learned(Interval {
            key: Key::Ip { network: "net".into(), ip: CLIENT.0 },
            identity,
            valid_from: 0,
            valid_to: None,
            learned_at: 0,
            source: "docker".into(),
        }));
        timeline.apply(&IdentityEvent::Network { index: 40, netns: 0, network: "net".into(), at: 0 });
        timeline
    };
    let vxlan =
        Tunnel { stack: TunnelStack::default().with(TunnelKind::Vxlan), id: Some(7), src: SERVER.0, dst: CLIENT.0 };
    let named = |timeline: &Timeline, tunnel: Option<Tunnel>| {
        let mut tagger = tagger();
        tagger.push(0, FlowRecord { tunnel, ..record(Bridge, 0, 0) }, BEGIN);
        let mut rows = TaggedRows::default();
        tagger.flush(timeline, &mut rows);
        rows.flows[0].client.identity.is_some()
    };
    assert!(named(&timeline(None), None));
    assert!(!named(&timeline(None), Some(vxlan.clone())));
    assert!(named(&timeline(Some("pod")), Some(vxlan)));
}

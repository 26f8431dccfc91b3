//! The join as stories: a client and a server, each with a veth of its own, seen at both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod rows;

use std::net::IpAddr;
use std::sync::Arc;

use rows::{BEGIN, Bridge, CLIENT, ClientVeth, Point, SECOND, SERVER, ServerVeth, record, tagger, transaction};
use wiretag_capture::{FlowRecord, ObservedAt};
use wiretag_enrich::tagger::{TaggedRows, Tagger, TaggerConfig};
use wiretag_enrich::timeline::Timeline;
use wiretag_enrich::{EndTag, Identity, IdentityEvent, Interval, Key, TaggedBy};

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

//! Questions about identities, and how much their answers may take.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use wiretag_enrich::timeline::query::{Bounds, Known, Query, TooMany};
use wiretag_enrich::timeline::{Timeline, View};
use wiretag_enrich::{Identity, IdentityEvent, Interval, Key};

const SECOND: i64 = 1_000_000_000;
const MANY: u32 = 3000;
const ALL: Bounds<'static> = Bounds { rows: usize::MAX, histories: usize::MAX, wanted: &|| true };

/// So many containers, each with an address of its own.
fn many() -> View {
    let mut timeline = Timeline::new();
    for number in 0..MANY {
        let name: Arc<str> = format!("web-{number}").into();
        let identity = Identity { identity: name.clone(), container: Some(name), ..Identity::default() };
        let ip = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
        timeline.apply(&IdentityEvent::Learned(Interval {
            key: Key::Ip { network: "bridge".into(), ip },
            identity: Arc::new(identity),
            valid_from: SECOND,
            valid_to: None,
            learned_at: SECOND,
            source: "docker".into(),
        }));
    }
    timeline.view()
}

fn web(known_at: Option<i64>) -> Query {
    Query { name: Some("web-*".into()), known_at, ..Query::default() }
}

#[test]
fn an_answer_that_is_cut_has_the_first_rows() {
    let view = many();
    let whole = view.query(&web(None));
    assert_eq!(whole.len(), MANY as usize);
    for rows in [0, 1, 7, 1000, MANY as usize + 1] {
        let first: Vec<Known> = view.query_within(&web(None), Bounds { rows, ..ALL }).unwrap();
        assert_eq!(first, whole[..rows.min(whole.len())], "{rows}");
    }
}

#[test]
fn what_was_known_then_is_made_anew_of_so_many_only() {
    let view = many();
    let at = web(Some(2 * SECOND));
    let few = Bounds { histories: 100, ..ALL };
    assert_eq!(view.query_within(&at, few), Err(TooMany { histories: 100 }));
    assert_eq!(view.query_within(&at, ALL).unwrap().len(), MANY as usize);
    let one = Query { name: Some("web-17".into()), ..at };
    assert_eq!(view.query_within(&one, few).unwrap().len(), 1);
}

#[test]
fn an_answer_that_nobody_waits_for_ends() {
    let asked = Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 100
    };
    let some = many().query_within(&Query::default(), Bounds { wanted: &wanted, ..ALL }).unwrap();
    assert_eq!((some.len(), asked.get()), (99, 100));
}

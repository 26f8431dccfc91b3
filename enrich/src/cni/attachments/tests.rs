//! Attachments as a story of records, told to a timeline.

use std::net::IpAddr;

use super::*;
use crate::cni::journal::Journal;
use crate::cni::record::{Outside, Pod, VERSION};
use crate::timeline::{Lookup, Timeline};

const SECOND: i64 = 1_000_000_000;

struct Node {
    attachments: Attachments,
    timeline: Timeline,
    events: Vec<IdentityEvent>,
    journal: Journal,
    directory: tempfile::TempDir,
}

fn place() -> Place {
    Place { cluster: "kubernetes".into(), host: "n1".into(), boot: "boot".into(), netns: 1 }
}

impl Node {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(directory.path().to_owned()).expect("a journal");
        let (attachments, timeline) = (Attachments::new(place()), Timeline::new());
        Self { attachments, timeline, events: Vec::new(), journal, directory }
    }

    fn hear(&mut self, record: Record) {
        let events = self.attachments.take(record, 0).expect("room");
        self.tell(events);
    }

    fn restart(&mut self) {
        self.journal.write(&self.attachments.take_changes(0)).expect("written");
        self.attachments = Attachments::new(place());
        let events = self.attachments.restore(self.journal.load().expect("read"), 0);
        self.tell(events);
    }

    fn tell(&mut self, events: Vec<IdentityEvent>) {
        for event in &events {
            self.timeline.apply(event);
        }
        self.events.extend(events);
    }

    /// Who had the address in a network, by the pod's name; `-` nobody, `?` several.
    fn who(&self, network: &str, ip: &str, at: i64) -> String {
        match self.timeline.ip(network, ip.parse::<IpAddr>().expect("an address"), at) {
            Lookup::One(identity, _) => identity.pod.as_deref().unwrap_or("no pod").to_owned(),
            Lookup::Ambiguous(_) => "?".to_owned(),
            Lookup::None => "-".to_owned(),
        }
    }
}

/// A pod `name` with its sandbox `c-NAME` and the UID `u-NAME`.
fn add(name: &str, ifname: &str, ip: &str, index: u32, at: i64) -> Record {
    Record {
        version: VERSION,
        call: Call::Add,
        at,
        boot: "boot".into(),
        own_netns: 1,
        network: if ifname == "eth0" { "podnet" } else { "storage" }.into(),
        container: format!("c-{name}"),
        ifname: ifname.into(),
        pod: Some(Pod { namespace: "shop".into(), name: name.into(), uid: Some(format!("u-{name}")) }),
        netns: Some("/run/netns/x".into()),
        inode: Some(u64::from(index) + 1000),
        mac: None,
        ips: vec![ip.parse().expect("an address")],
        inside: Some(2),
        outside: Some(Outside { index, name: format!("veth{index}"), bridge: Some(3) }),
        valid: None,
    }
}

fn del(name: &str, ifname: &str, at: i64) -> Record {
    Record { call: Call::Del, ips: vec![], inside: None, outside: None, ..add(name, ifname, "::1", 0, at) }
}

fn gc(network: &str, valid: &[(&str, &str)], at: i64) -> Record {
    let valid = valid.iter().map(|(name, ifname)| (format!("c-{name}"), (*ifname).to_owned())).collect();
    Record { call: Call::Gc, network: network.into(), valid: Some(valid), ..del("none", "eth0", at) }
}

#[test]
fn an_address_is_its_holders_from_add_to_del() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10 * SECOND));
    node.hear(del("cart", "eth0", 20 * SECOND));
    node.hear(add("web", "eth0", "10.1.0.7", 6, 20 * SECOND + 1));
    // Runtimes repeat it.
    node.hear(del("cart", "eth0", 21 * SECOND));
    let who = |at| node.who("kubernetes", "10.1.0.7", at);
    assert_eq!([who(9 * SECOND), who(15 * SECOND), who(20 * SECOND), who(21 * SECOND)], ["-", "cart", "-", "web"]);
    let boot: Arc<str> = "boot".into();
    assert!(matches!(node.timeline.interface(5, 0, &boot, 15 * SECOND), Lookup::One(..)));
    assert_eq!(node.timeline.network_of_interface(3, 0, 15 * SECOND).as_deref(), Some("kubernetes"), "the bridge");
}

#[test]
fn the_order_of_arrival_makes_no_difference() {
    let records = [
        add("cart", "eth0", "10.1.0.7", 5, 10 * SECOND),
        del("cart", "eth0", 20 * SECOND),
        add("web", "eth0", "10.1.0.7", 6, 21 * SECOND),
        del("web", "eth0", 30 * SECOND),
    ];
    let mut orders = vec![vec![]];
    for index in 0..records.len() {
        let longer = |order: &Vec<usize>| {
            let at = |place| [&order[..place], &[index], &order[place..]].concat();
            (0..=order.len()).map(at).collect::<Vec<_>>()
        };
        orders = orders.iter().flat_map(longer).collect();
    }
    assert_eq!(orders.len(), 24);
    for order in orders {
        let mut node = Node::new();
        for index in &order {
            node.hear(records[*index].clone());
        }
        let who = [9, 15, 20, 25, 30].map(|at| node.who("kubernetes", "10.1.0.7", at * SECOND + 1));
        assert_eq!(who, ["-", "cart", "-", "web", "-"], "{order:?}");
        assert!(node.attachments.is_empty());
    }
}

#[test]
fn networks_of_a_pod_come_and_go_one_by_one() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    node.hear(add("cart", "net1", "10.1.0.7", 6, 11));
    assert_eq!(node.who("kubernetes/storage", "10.1.0.7", 12), "cart");
    node.hear(del("cart", "net1", 20));
    assert_eq!(node.who("kubernetes/storage", "10.1.0.7", 21), "-");
    assert_eq!(node.who("kubernetes", "10.1.0.7", 21), "cart");
    node.hear(del("cart", "eth0", 30));
    assert_eq!(node.who("kubernetes", "10.1.0.7", 31), "-");
}

#[test]
fn a_new_sandbox_of_a_pod_is_not_ended_with_the_old_one() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    node.hear(Record { container: "c-second".into(), ..add("cart", "eth0", "10.1.0.8", 6, 20) });
    node.hear(del("cart", "eth0", 25));
    assert_eq!(node.who("kubernetes", "10.1.0.7", 26), "-");
    assert_eq!(node.who("kubernetes", "10.1.0.8", 26), "cart");
    // The runtime cleans up once more.
    node.hear(del("cart", "eth0", 40));
    assert_eq!(node.who("kubernetes", "10.1.0.8", 41), "cart");
}

#[test]
fn a_garbage_collection_ends_what_it_does_not_name() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    node.hear(add("web", "eth0", "10.1.0.8", 6, 11));
    node.hear(add("lost", "net1", "10.2.0.8", 7, 12));
    // The word of its end was lost; its address has another holder.
    node.hear(add("stale", "eth0", "10.1.0.9", 8, 13));
    node.hear(add("heir", "eth0", "10.1.0.9", 9, 20));
    node.hear(Record { valid: None, ..gc("podnet", &[], 29) });
    node.hear(gc("podnet", &[("web", "eth0"), ("heir", "eth0")], 30));
    let who = |ip, at| node.who("kubernetes", ip, at);
    assert_eq!([who("10.1.0.7", 29), who("10.1.0.7", 31), who("10.1.0.8", 31)], ["cart", "-", "web"]);
    assert_eq!([who("10.1.0.9", 15), who("10.1.0.9", 25)], ["stale", "heir"]);
    assert_eq!(node.who("kubernetes/storage", "10.2.0.8", 31), "lost", "another network");
}

#[test]
fn after_a_restart_what_is_gone_has_ended_and_what_is_there_goes_on() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    node.hear(add("web", "eth0", "10.1.0.8", 6, 11));
    node.restart();
    let gone = |record: &Record| record.outside.as_ref().is_some_and(|outside| outside.index == 6);
    let events = node.attachments.reconcile(gone, Some(50), 100);
    node.tell(events);
    let who = |ip, at| node.who("kubernetes", ip, at);
    assert_eq!([who("10.1.0.7", 49), who("10.1.0.7", 60)], ["cart", "-"], "sure until it was heard last");
    assert_eq!([who("10.1.0.8", 49), who("10.1.0.8", 200)], ["web", "web"]);
    let cart = add("cart", "eth0", "10.1.0.7", 5, 10);
    assert_eq!(node.attachments.take_changes(100), [Change::Kept(Box::new(Entry { record: cart, ended: None }))]);
    assert_eq!(node.attachments.take_changes(100 + KEPT), [Change::Gone(("c-cart".into(), "eth0".into()))]);
}

#[test]
fn what_was_attached_and_is_gone_is_known_though_nothing_else_was_written_down() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    node.timeline = Timeline::new();
    node.restart();
    let events = node.attachments.reconcile(|_| false, Some(5), 100);
    node.tell(events);
    let told: Vec<_> = node.timeline.view().query(&crate::timeline::query::Query::default());
    let spans: Vec<_> = told.iter().map(|known| (known.interval.valid_from, known.interval.valid_to)).collect();
    assert_eq!(spans, [(10, Some(10)); 2], "its interface and its address, nobody knows for how long: {told:?}");
    assert_eq!(node.who("kubernetes", "10.1.0.7", 200), "-");
}

#[test]
fn what_came_and_went_is_known_though_nothing_else_was_written_down() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    node.hear(del("cart", "eth0", 20));
    node.hear(add("web", "eth0", "10.1.0.7", 6, 30));
    // In the wrong order, and an end that is told by another call.
    node.hear(del("late", "eth0", 25));
    node.hear(add("late", "eth0", "10.1.0.7", 7, 22));
    node.hear(add("lost", "eth0", "10.1.0.9", 8, 11));
    node.hear(gc("podnet", &[("web", "eth0")], 40));
    for life in 0..2 {
        node.timeline = Timeline::new();
        node.restart();
        let events = node.attachments.reconcile(|_| true, None, 100);
        node.tell(events);
        let who = [15, 23, 27, 50].map(|at| node.who("kubernetes", "10.1.0.7", at));
        assert_eq!(who, ["cart", "late", "-", "web"], "life {life}");
        assert_eq!([39, 41].map(|at| node.who("kubernetes", "10.1.0.9", at)), ["lost", "-"], "life {life}");
        // It is not begun anew by what comes late.
        node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
        assert_eq!(node.who("kubernetes", "10.1.0.7", 50), "web");
    }
    let gone = node.attachments.take_changes(KEPT);
    assert_eq!(gone.iter().filter(|change| matches!(change, Change::Gone(_))).count(), 3, "{gone:?}");
    let kept: Vec<_> = node.attachments.records().map(|record| record.container.as_str()).collect();
    assert_eq!(kept, ["c-web"]);
}

#[test]
fn what_passes_no_interface_of_the_host_is_captured_inside() {
    let mut node = Node::new();
    node.hear(Record { outside: None, ..add("cart", "net1", "10.2.0.7", 5, 10) });
    node.hear(Record { outside: None, inside: Some(4), ..add("cart", "net2", "10.3.0.7", 5, 11) });
    let opened = node.events.iter().filter_map(|event| match event {
        IdentityEvent::Namespace { inode, interfaces, .. } => Some((*inode, interfaces.len())),
        _ => None,
    });
    assert_eq!(opened.collect::<Vec<_>>(), [(1005, 1), (1005, 2)]);
    let boot: Arc<str> = "boot".into();
    assert!(matches!(node.timeline.interface(4, 1005, &boot, 12), Lookup::One(..)));
    node.hear(del("cart", "net1", 20));
    let is_gone = |event: &IdentityEvent| matches!(event, IdentityEvent::NamespaceGone { inode: 1005, .. });
    assert!(!node.events.iter().any(is_gone));
    node.hear(del("cart", "net2", 21));
    assert!(node.events.iter().any(is_gone));
}

#[test]
fn names_of_a_sandbox_and_of_another_boot() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
    let same = node.events.iter().any(|event| {
        matches!(event, IdentityEvent::Same { alias, identity, .. } if &**alias == "cni:c-cart" && &**identity == "u-cart")
    });
    assert!(same);
    node.hear(Record { pod: None, ..add("box", "eth0", "10.1.0.7", 6, 10) });
    let lookup = node.timeline.ip("kubernetes/podnet", "10.1.0.7".parse().expect("an address"), 11);
    assert!(matches!(lookup, Lookup::One(identity, _) if &*identity.identity == "cni:c-box"));
    node.hear(Record { boot: "before".into(), ..add("old", "eth0", "10.1.0.9", 7, 10) });
    assert_eq!(node.who("kubernetes", "10.1.0.9", 11), "-");
}

/// Namespace, interfaces and addresses are read anew by each call, and a call may fail to read them.
#[test]
fn a_check_that_sees_less_ends_nothing() {
    let mut node = Node::new();
    let mut dual = add("cart", "eth0", "10.1.0.7", 5, 10);
    dual.ips.push("fd00::7".parse().expect("an address"));
    dual.mac = Some([2, 0, 0, 0, 0, 7]);
    node.hear(dual.clone());
    let _ = node.attachments.take_changes(10);
    let check = Record { call: Call::Check, at: 20, ..dual.clone() };
    // It cannot look inside: the link-layer address is the previous result's.
    let blind = Record { inode: None, inside: None, outside: None, mac: Some([2, 0, 0, 0, 0, 9]), ..check.clone() };
    let nothing = Record { mac: None, ips: vec![], netns: None, pod: None, ..blind.clone() };
    let reordered = Record { ips: dual.ips.iter().rev().copied().collect(), ..check };
    for record in [blind, nothing, reordered] {
        node.events.clear();
        node.hear(record.clone());
        assert!(node.events.is_empty(), "{record:?}: {:?}", node.events);
    }
    assert!(node.attachments.take_changes(20).is_empty());
    let boot: Arc<str> = "boot".into();
    assert!(matches!(node.timeline.interface(5, 0, &boot, 30), Lookup::One(..)));
    assert_eq!([node.who("kubernetes", "10.1.0.7", 30), node.who("kubernetes", "fd00::7", 30)], ["cart", "cart"]);
}

#[test]
fn what_a_later_record_adds_is_told_since_the_attachment() {
    let mut node = Node::new();
    let full = add("cart", "eth0", "10.1.0.7", 5, 20);
    node.hear(Record { inode: None, inside: None, outside: None, ips: vec![], ..add("cart", "eth0", "::", 5, 10) });
    assert_eq!(node.who("kubernetes", "10.1.0.7", 15), "-");
    node.hear(Record { call: Call::Check, ..full });
    assert_eq!([node.who("kubernetes", "10.1.0.7", 9), node.who("kubernetes", "10.1.0.7", 15)], ["-", "cart"]);
    let boot: Arc<str> = "boot".into();
    assert!(matches!(node.timeline.interface(5, 0, &boot, 15), Lookup::One(..)));
    assert!(!node.events.iter().any(|event| matches!(event, IdentityEvent::Ended { .. })));
    let kept: Vec<_> = node.attachments.records().map(|own| (own.at, own.call, own.inside)).collect();
    assert_eq!(kept, [(10, Call::Add, Some(2))]);
}

#[test]
fn another_address_or_interface_is_another_attachment() {
    for other in [
        Record { ips: vec!["10.1.0.9".parse().expect("an address")], ..add("cart", "eth0", "::", 5, 20) },
        Record { inode: Some(1), ..add("cart", "eth0", "10.1.0.7", 5, 20) },
        add("cart", "eth0", "10.1.0.7", 6, 20),
        Record { outside: None, ..add("cart", "eth0", "10.1.0.7", 5, 20) },
    ] {
        let mut node = Node::new();
        node.hear(add("cart", "eth0", "10.1.0.7", 5, 10));
        node.hear(other.clone());
        let ended = node.events.iter().any(|event| matches!(event, IdentityEvent::Ended { at: 20, .. }));
        assert!(ended, "{other:?}");
    }
}

/// A runtime that attaches and detaches one sandbox again and again.
#[test]
fn ends_are_remembered_once_each() {
    let mut node = Node::new();
    for round in 0..10 {
        node.hear(add("cart", "eth0", "10.1.0.7", 5, round * 10 + 1));
        node.hear(del("cart", "eth0", round * 10 + 5));
        node.hear(del("cart", "eth0", round * 10 + 6));
    }
    assert_eq!((node.attachments.ended.len(), node.attachments.ended_first.len()), (1, 1));
    // Late records of its last life but one: they end there, and change nothing of a new one.
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 200));
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 92));
    assert_eq!([94, 150, 201].map(|at| node.who("kubernetes", "10.1.0.7", at)), ["cart", "-", "cart"]);
}

/// A disk may be full for a while.
#[test]
fn what_could_not_be_written_is_written_later_and_holds_nothing_else_up() {
    let mut node = Node::new();
    node.hear(add("cart", "eth0", "10.1.0.7", 5, 10 * SECOND));
    node.hear(add("web", "eth0", "10.1.0.8", 6, 11 * SECOND));
    let obstacle = node.directory.path().join("c-cart@eth0.partial");
    std::fs::create_dir(&obstacle).expect("a directory");
    let changes = node.attachments.take_changes(0);
    assert!(node.journal.write(&changes).is_err());
    node.attachments.keep_changes(changes);
    let written = |node: &Node| {
        let mut all: Vec<String> =
            node.journal.load().expect("read").into_iter().map(|own| own.record.container).collect();
        all.sort();
        all
    };
    assert_eq!(written(&node), ["c-web"]);
    std::fs::remove_dir(&obstacle).expect("removed");
    node.restart();
    assert_eq!(written(&node), ["c-cart", "c-web"]);
}

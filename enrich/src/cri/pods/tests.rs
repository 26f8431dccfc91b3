//! A node's pods as a story of looks, told to a timeline.

use std::net::IpAddr;

use super::*;
use crate::cri::facts::{Inside, Interface};
use crate::timeline::{Lookup, Timeline};

struct Node {
    pods: Pods,
    timeline: Timeline,
    events: Vec<IdentityEvent>,
}

fn place() -> Place {
    Place { cluster: "kubernetes".into(), host: "n1".into(), boot: "boot".into() }
}

fn sandbox(id: &str, pod: &str, ip: &str, index: u32, from: i64) -> Sandbox {
    let eth0 =
        Interface { name: "eth0".into(), index: 2, mac: None, outside: Some((index, Some(3))), ips: vec![], on: None };
    Sandbox {
        id: id.into(),
        uid: format!("u-{pod}"),
        namespace: "shop".into(),
        pod: pod.into(),
        labels: BTreeMap::from([("app".into(), pod.into())]),
        from,
        host_network: false,
        ips: vec![ip.parse().expect("an address")],
        netns: vec![],
        inside: Some(Inside { path: "/run/netns/x".into(), inode: 1000 + u64::from(index), interfaces: vec![eth0] }),
    }
}

fn container(id: &str, name: &str, from: i64, to: Option<i64>) -> Container {
    Container { id: id.into(), name: name.into(), image: Some("box:1".into()), from, to }
}

fn ids(ids: &[&str]) -> HashSet<Arc<str>> {
    ids.iter().map(|id| Arc::from(*id)).collect()
}

impl Node {
    fn new() -> Self {
        Self { pods: Pods::new(place()), timeline: Timeline::new(), events: Vec::new() }
    }

    fn look(&mut self, look: Look) {
        self.events = self.pods.update(look, 0);
        for event in &self.events {
            self.timeline.apply(event);
        }
    }

    fn who(&self, ip: &str, at: i64) -> String {
        match self.timeline.ip("kubernetes", ip.parse::<IpAddr>().expect("an address"), at) {
            Lookup::One(identity, _) => identity.pod.as_deref().unwrap_or("no pod").to_owned(),
            Lookup::Ambiguous(_) => "?".to_owned(),
            Lookup::None => "-".to_owned(),
        }
    }

    /// Containers that were described last, and since when.
    fn described(&self) -> Vec<(Vec<String>, i64)> {
        let described = self.events.iter().filter_map(|event| match event {
            IdentityEvent::Described { identity, from, .. } => Some((identity, *from)),
            _ => None,
        });
        let names = |identity: &Identity| identity.containers.iter().map(|own| own.container.to_string()).collect();
        described.map(|(identity, from)| (names(identity), from)).collect()
    }
}

#[test]
fn an_address_is_its_pods_until_the_sandbox_exits() {
    let mut node = Node::new();
    node.look(Look {
        at: 11,
        ready: ids(&["s1"]),
        sandboxes: vec![sandbox("s1", "cart", "10.1.0.7", 5, 10)],
        ..Look::default()
    });
    let exits = HashMap::from([("s1".to_owned(), 20)]);
    let heir = sandbox("s2", "web", "10.1.0.7", 6, 21);
    node.look(Look { at: 25, ready: ids(&["s2"]), sandboxes: vec![heir], exits, ..Look::default() });
    let who = |at| node.who("10.1.0.7", at);
    assert_eq!([who(9), who(15), who(20), who(22)], ["-", "cart", "-", "web"]);
    // Nobody told of its exit: it ended when it was seen last.
    node.look(Look { at: 40, ..Look::default() });
    assert_eq!([node.who("10.1.0.7", 24), node.who("10.1.0.7", 26)], ["web", "-"]);
}

#[test]
fn containers_come_and_go_and_restart_in_their_pod() {
    let mut node = Node::new();
    let pod = sandbox("s1", "cart", "10.1.0.7", 5, 10);
    let own = |container: Container| vec![(Arc::from("s1"), container)];
    let ready = || ids(&["s1"]);
    let init = own(container("c0", "init", 12, None));
    node.look(Look {
        at: 13,
        ready: ready(),
        sandboxes: vec![pod],
        containers: init,
        running: ids(&["c0"]),
        ..Look::default()
    });
    assert_eq!(node.described(), [(vec![], 10), (vec!["init".to_owned()], 12)]);
    let next = [own(container("c0", "init", 12, Some(15))), own(container("c1", "app", 16, None))].concat();
    node.look(Look { at: 17, ready: ready(), containers: next, running: ids(&["c1"]), ..Look::default() });
    assert_eq!(node.described(), [(vec![], 15), (vec!["app".to_owned()], 16)]);
    let again = [own(container("c1", "app", 16, Some(18))), own(container("c2", "app", 19, None))].concat();
    node.look(Look { at: 20, ready: ready(), containers: again, running: ids(&["c2"]), ..Look::default() });
    let told = node.events.iter().any(|event| {
        matches!(event, IdentityEvent::Same { alias, identity, member: Some(member), .. }
            if &**alias == "c2" && &**identity == "u-cart" && &*member.container == "app")
    });
    assert!(told && node.pods.runs("s1", "c2") && !node.pods.runs("s1", "c1"));
    node.look(Look { at: 30, ready: ready(), containers: own(container("c2", "", 0, None)), ..Look::default() });
    assert_eq!(node.described(), [(vec![], 30)], "removed without a word");
    assert_eq!(node.who("10.1.0.7", 31), "cart", "the address is the pod's");
}

#[test]
fn a_second_sandbox_of_a_pod_outlives_the_first() {
    let mut node = Node::new();
    node.look(Look {
        at: 11,
        ready: ids(&["s1"]),
        sandboxes: vec![sandbox("s1", "cart", "10.1.0.7", 5, 10)],
        ..Look::default()
    });
    let second = sandbox("s2", "cart", "10.1.0.8", 6, 20);
    node.look(Look { at: 21, ready: ids(&["s1", "s2"]), sandboxes: vec![second], ..Look::default() });
    node.look(Look { at: 31, ready: ids(&["s2"]), exits: HashMap::from([("s1".to_owned(), 30)]), ..Look::default() });
    assert_eq!([node.who("10.1.0.7", 32), node.who("10.1.0.8", 32)], ["-", "cart"]);
}

#[test]
fn pods_of_the_host_network_have_no_address() {
    let mut node = Node::new();
    let pod = Sandbox { host_network: true, ips: vec![], inside: None, ..sandbox("s1", "proxy", "10.1.0.7", 5, 10) };
    node.look(Look { at: 11, ready: ids(&["s1"]), sandboxes: vec![pod], ..Look::default() });
    assert!(node.events.iter().all(|event| !matches!(event, IdentityEvent::Learned(_))));
    assert!(node.pods.is_settled("s1", 12));
    assert_eq!(node.described().len(), 1);
}

#[test]
fn a_new_connection_tells_everything_once_and_what_is_gone() {
    let mut node = Node::new();
    let macvlan = Interface { name: "eth0".into(), index: 2, mac: None, outside: None, ips: vec![], on: None };
    let inside = Inside { path: "/run/netns/y".into(), inode: 77, interfaces: vec![macvlan] };
    let captured = Sandbox { inside: Some(inside), ..sandbox("s1", "cart", "10.1.0.7", 5, 10) };
    let web = sandbox("s2", "web", "10.1.0.8", 6, 10);
    node.look(Look { at: 11, ready: ids(&["s1", "s2"]), sandboxes: vec![captured, web.clone()], ..Look::default() });
    let look = Look { at: 100, ready: ids(&["s2"]), sandboxes: vec![web], ..Look::default() };
    let events = node.pods.begin(look, Some(50), 100);
    assert!(events.iter().any(|event| matches!(event, IdentityEvent::NamespaceGone { inode: 77, .. })));
    for event in &events {
        node.timeline.apply(event);
    }
    let who = |ip, at| node.who(ip, at);
    assert_eq!([who("10.1.0.7", 49), who("10.1.0.7", 51), who("10.1.0.8", 99)], ["cart", "-", "web"]);
}

#[test]
fn a_container_that_came_and_went_between_two_looks_is_told_with_its_time() {
    let mut node = Node::new();
    let own = |container: Container| vec![(Arc::from("s1"), container)];
    node.look(Look {
        at: 13,
        ready: ids(&["s1"]),
        sandboxes: vec![sandbox("s1", "cart", "10.1.0.7", 5, 10)],
        containers: own(container("c1", "app", 12, None)),
        listed: ids(&["c1"]),
        running: ids(&["c1"]),
        ..Look::default()
    });
    let look = |containers| Look {
        at: 30,
        ready: ids(&["s1"]),
        containers,
        listed: ids(&["c1", "c2", "c3"]),
        running: ids(&["c1"]),
        ..Look::default()
    };
    // One ran, one failed to start.
    let brief = [own(container("c2", "job", 20, Some(22))), own(container("c3", "bad", 0, Some(24)))].concat();
    node.look(look(brief));
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(node.described(), [(names(&["app", "job"]), 20), (names(&["app"]), 22)]);
    let told = node.events.iter().any(|event| {
        matches!(event, IdentityEvent::Same { alias, member: Some(member), .. }
            if &**alias == "c2" && &*member.container == "job")
    });
    assert!(told && node.pods.is_over("s1", "c2") && node.pods.is_over("s1", "c3") && !node.pods.is_over("s1", "c1"));
    let said = |at| match node.timeline.ip("kubernetes", "10.1.0.7".parse::<IpAddr>().expect("an address"), at) {
        Lookup::One(identity, _) => identity.containers.iter().map(|own| own.container.to_string()).collect(),
        Lookup::Ambiguous(_) | Lookup::None => vec!["nobody".to_owned()],
    };
    assert_eq!([said(15), said(21), said(25)], [names(&["app"]), names(&["app", "job"]), names(&["app"])]);
    // The kubelet has it removed: forgotten in time.
    let later = Look { at: 40 + REMEMBERED, listed: ids(&["c1"]), ..look(vec![]) };
    node.look(later);
    assert!(!node.pods.is_over("s1", "c2") && node.pods.runs("s1", "c1"));
}

/// A namespace that is mounted where wiretag does not see it.
#[test]
fn a_sandbox_that_is_never_complete_is_asked_ever_less_and_changes_nothing_of_the_past() {
    let mut node = Node::new();
    let blind = Sandbox { inside: None, ..sandbox("s1", "cart", "10.1.0.7", 5, 10) };
    let own = |container: Container| vec![(Arc::from("s1"), container)];
    let look = |at, containers, running: &[&str]| Look {
        at,
        ready: ids(&["s1"]),
        sandboxes: vec![blind.clone()],
        containers,
        listed: ids(running),
        running: ids(running),
        ..Look::default()
    };
    node.look(look(13, own(container("c1", "old", 12, None)), &["c1"]));
    let next = [own(container("c1", "old", 12, Some(20))), own(container("c2", "new", 21, None))].concat();
    node.look(look(22, next, &["c2"]));
    node.look(look(30, vec![], &["c2"]));
    assert!(node.events.is_empty(), "{:?}", node.events);
    let containers =
        |node: &Node, at| match node.timeline.ip("kubernetes", "10.1.0.7".parse::<IpAddr>().expect("an address"), at) {
            Lookup::One(identity, _) => {
                identity.containers.iter().map(|own| own.container.to_string()).collect::<String>()
            }
            Lookup::Ambiguous(_) | Lookup::None => "nobody".to_owned(),
        };
    assert_eq!([containers(&node, 15), containers(&node, 25)], ["old", "new"]);

    let mut asked = Vec::new();
    let mut at = 1_000_000_000;
    for _ in 0..3000 {
        at += 1_000_000_000;
        if !node.pods.is_settled("s1", at) {
            asked.push(at);
            node.look(look(at, vec![], &["c2"]));
        }
    }
    assert!((20..100).contains(&asked.len()), "{} times in fifty minutes", asked.len());

    // It can be looked into at last.
    let whole = Look { sandboxes: vec![sandbox("s1", "cart", "10.1.0.7", 5, 10)], ..look(at, vec![], &["c2"]) };
    node.look(whole);
    let boot: Arc<str> = "boot".into();
    assert!(matches!(node.timeline.interface(5, 0, &boot, at), Lookup::One(..)));
    assert_eq!([containers(&node, 15), containers(&node, 25)], ["old", "new"]);
    assert!(node.pods.is_settled("s1", i64::MAX));
    node.look(Look { at: at + 1, ..look(at, vec![], &["c2"]) });
    assert!(node.events.is_empty(), "it cannot be read for a moment: {:?}", node.events);

    // Another connection tells what holds, and nothing else of what was.
    let events = node.pods.begin(look(at + 2, vec![], &["c2"]), Some(at), at + 2);
    for event in &events {
        node.timeline.apply(event);
    }
    assert_eq!([containers(&node, 15), containers(&node, 25)], ["old", "new"]);
}

/// As Multus attaches it: the runtime tells the addresses of `eth0` only, those of the others are read inside.
#[test]
fn a_further_interface_has_its_own_address_where_it_is_attached() {
    let mut node = Node::new();
    let further = |index, ip: &str| {
        let ips = vec![ip.parse().expect("an address")];
        let (name, on) = ("net1".to_owned(), Some("storage0".to_owned()));
        Interface { name, index: 3, mac: Some([2, 0, 0, 0, 0, 3]), outside: Some((index, Some(4))), ips, on }
    };
    let mut cart = sandbox("s1", "cart", "10.1.0.7", 5, 10);
    let mut web = sandbox("s2", "web", "10.1.0.8", 6, 10);
    for (pod, own) in [(&mut cart, further(7, "10.1.0.8")), (&mut web, further(8, "10.1.0.7"))] {
        pod.inside.as_mut().expect("looked into").interfaces.push(own);
    }
    node.look(Look { at: 11, ready: ids(&["s1", "s2"]), sandboxes: vec![cart, web], ..Look::default() });
    let has = |pod: &str, ip: &str| node.timeline.view().has_ip(pod, ip.parse().expect("an address"), 12);
    assert_eq!(
        [has("u-cart", "10.1.0.8"), has("u-web", "10.1.0.7"), has("u-web", "10.1.0.9")],
        [Some(true), Some(true), Some(false)]
    );
    assert_eq!(
        [node.who("10.1.0.7", 12), node.who("10.1.0.8", 12)],
        ["cart", "web"],
        "the cluster's are the cluster's"
    );
    let on = node.timeline.ip("kubernetes/on:storage0", "10.1.0.7".parse().expect("an address"), 12);
    assert!(matches!(on, Lookup::One(identity, _) if identity.pod.as_deref() == Some("web")));
    node.look(Look { at: 20, ready: ids(&["s2"]), ..Look::default() });
    let has = |at| node.timeline.view().has_ip("u-cart", "10.1.0.8".parse().expect("an address"), at);
    assert_eq!([has(10), has(15)], [Some(true), None]);
}

//! Whose sockets are, on a network that containers share.

use std::net::IpAddr;

use wiretag_enrich::event::Connection;
use wiretag_enrich::{IdentityEvent, Interval, Key};

use crate::stage::{Group, Namespace, Source, hierarchies, ready};
use crate::wait::eventually;

const TCP: u8 = 6;
const UDP: u8 = 17;
const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A key for a listening socket: whose, since when, until when.
fn listening(port: u16) -> impl Fn(&IdentityEvent) -> Option<Interval> {
    let is_it =
        move |own: &Interval| matches!(own.key, Key::Socket { netns: 0, protocol: TCP, port: at, .. } if at == port);
    move |event| match event {
        IdentityEvent::Learned(interval) if is_it(interval) => Some(interval.clone()),
        IdentityEvent::Reconciled(snapshot) => snapshot.present.iter().find(|own| is_it(own)).cloned(),
        _ => None,
    }
}

fn connected(event: &IdentityEvent) -> Option<Connection> {
    // Those of other namespaces are other tests'.
    if let IdentityEvent::Connected(own) = event { Some(own.clone()).filter(|own| own.netns == 0) } else { None }
}

fn ended(port: u16) -> impl Fn(&IdentityEvent) -> Option<Interval> {
    move |event| listening(port)(event).filter(|own| own.valid_to.is_some())
}

fn of(interval: &Interval) -> &str {
    &interval.identity.identity
}

#[test]
fn two_containers_on_one_address_are_told_by_their_ports() {
    if !ready() {
        return;
    }
    for hierarchy in hierarchies() {
        let (namespace, [one, two]) = (Namespace::new(), [0, 1].map(|_| Group::new(&hierarchy)));
        let source = Source::start(&namespace);
        let _one = namespace.start(Some(&one), "busybox httpd -f -p 8081 -h /usr/share");
        let _two = namespace.start(Some(&two), "busybox httpd -f -p 127.0.0.1:8082 -h /usr/share");
        let _nobody = namespace.start(None, "busybox httpd -f -p 8083 -h /usr/share");
        let first = source.first("the first", listening(8081));
        let second = source.first("the second", listening(8082));
        assert_eq!((of(&first), of(&second)), (&*one.id, &*two.id), "{}", hierarchy.display());
        let ip = |own: &Interval| if let Key::Socket { ip, .. } = own.key { ip } else { None };
        assert_eq!(ip(&second), Some("127.0.0.1".parse().unwrap()));
        assert!(ip(&first).is_none_or(|ip| ip.is_unspecified()), "{first:?}");
        source.settle();
        assert!(source.all(listening(8083)).is_empty(), "in no container");
        assert!(source.all(connected).is_empty(), "{:?}", source.all(connected));
    }
}

#[test]
fn a_port_that_goes_to_another_container_at_once_has_two_times() {
    if !ready() {
        return;
    }
    for hierarchy in hierarchies() {
        let (namespace, groups) = (Namespace::new(), [0, 1, 2].map(|_| Group::new(&hierarchy)));
        let source = Source::start(&namespace);
        for group in &groups {
            let server = namespace.start(Some(group), "busybox httpd -f -p 8081 -h /usr/share");
            eventually(20, "it is told", || source.all(listening(8081)).into_iter().find(|own| of(own) == group.id));
            drop(server);
        }
        let ends = eventually(20, "all ends", || Some(source.all(ended(8081))).filter(|ends| ends.len() == 3));
        for (end, next) in ends.iter().zip(&ends[1..]) {
            assert!(end.valid_from < end.valid_to.unwrap(), "{end:?}");
            assert!(end.valid_to.unwrap() <= next.valid_from, "{end:?} {next:?}");
        }
        let ids: Vec<&str> = groups.iter().map(|group| &*group.id).collect();
        assert_eq!(ends.iter().map(of).collect::<Vec<_>>(), ids);
    }
}

/// The server goes, its connection stays, another server gets the port: the connection is the old one's.
#[test]
fn what_was_accepted_outlives_the_socket_that_listened() {
    if !ready() {
        return;
    }
    let hierarchy = hierarchies().remove(0);
    let (namespace, [old, client]) = (Namespace::new(), [0, 1].map(|_| Group::new(&hierarchy)));
    let source = Source::start(&namespace);
    // Listens until it has accepted one.
    let _server = namespace.start(Some(&old), "busybox nc -l -p 8081 -e sleep 30");
    source.first("the server", listening(8081));
    let _client = namespace.start(Some(&client), "busybox nc 127.0.0.1 8081 -e sleep 30");
    source.first("the end of listening", ended(8081));
    let of_group = |group: &Group| {
        let id = group.id.clone();
        move |event: &IdentityEvent| connected(event).filter(|own| *own.identity == *id)
    };
    let accepted = source.first("the server's end", of_group(&old));
    let opened = source.first("the client's end", of_group(&client));
    assert_eq!((accepted.port, accepted.peer.unwrap().port()), (8081, opened.port));
    assert_eq!(opened.peer, Some("127.0.0.1:8081".parse().unwrap()));
    assert!(accepted.to.is_none() && opened.to.is_none());
}

#[test]
fn clients_that_live_for_a_moment_are_told_where_connections_are_tracked() {
    if !ready() {
        return;
    }
    for hierarchy in hierarchies() {
        let (namespace, group) = (Namespace::new(), Group::new(&hierarchy));
        // Without a rule that wants it, nothing is tracked.
        namespace.sh("iptables -w -A OUTPUT -m conntrack --ctstate INVALID -j DROP");
        let _server = namespace.start(None, "busybox nc -ll -p 8081 -e cat");
        let source = Source::start(&namespace);
        source.settle();
        for _ in 0..5 {
            let client = "sh -c \"(echo x; sleep 0.15) | busybox nc 127.0.0.1 8081 >/dev/null\"";
            namespace.start(Some(&group), client).wait();
        }
        let ended = |event: &IdentityEvent| connected(event).filter(|own| own.to.is_some());
        let ends = eventually(20, "five ends", || Some(source.all(ended)).filter(|ends| ends.len() == 5));
        for end in &ends {
            assert_eq!((&*end.identity, end.ip), (&*group.id, Some(LOCAL)), "{end:?}");
            assert!(end.from < end.to.unwrap());
        }
    }
}

#[test]
fn both_families_and_both_protocols_are_known() {
    if !ready() {
        return;
    }
    let (namespace, group) = (Namespace::new(), Group::new(&hierarchies()[0]));
    let source = Source::start(&namespace);
    let _v6 = namespace.start(Some(&group), "busybox httpd -f -p [::1]:8081 -h /usr/share");
    let _udp = namespace.start(Some(&group), "bash -c \"exec 3<>/dev/udp/127.0.0.1/5353; exec sleep 30\"");
    let v6 = source.first("IPv6", listening(8081));
    assert!(matches!(v6.key, Key::Socket { ip: Some(IpAddr::V6(ip)), .. } if ip.is_loopback()), "{v6:?}");
    let udp = source.first("UDP", |event| connected(event).filter(|own| own.protocol == UDP));
    assert_eq!((&*udp.identity, udp.peer), (&*group.id, Some("127.0.0.1:5353".parse().unwrap())));
    source.first("loopback is the host's", |event| match event {
        IdentityEvent::Reconciled(snapshot) => snapshot.present.iter().find_map(|own| match own.key {
            Key::Socket { protocol: 0, port: 0, ip: Some(ip), .. } if ip.is_loopback() => Some(()),
            _ => None,
        }),
        _ => None,
    });
}

/// Containers of one pod share its namespace: their sockets are told as those of that namespace.
#[test]
fn the_containers_of_a_pod_are_told_by_their_ports() {
    if !ready() {
        return;
    }
    let hierarchy = hierarchies().remove(0);
    let (host, pod, [app, proxy]) = (Namespace::new(), Namespace::new(), [0, 1].map(|_| Group::new(&hierarchy)));
    let source = Source::start(&host);
    let _app = pod.start(Some(&app), "busybox httpd -f -p 8081 -h /usr/share");
    let _proxy = pod.start(Some(&proxy), "busybox httpd -f -p 8082 -h /usr/share");
    let inode = wiretag_capture::ring::namespace_inode(&pod.path()).expect("an inode");
    for (group, listens) in [(&app, 8081), (&proxy, 8082)] {
        let told = source.first("a container of the pod", |event| match event {
            IdentityEvent::Learned(Interval { key: Key::Socket { netns, port, .. }, identity, .. })
                if *netns == inode && *port == listens =>
            {
                Some(identity.identity.clone())
            }
            _ => None,
        });
        assert_eq!(*told, *group.id);
    }
}

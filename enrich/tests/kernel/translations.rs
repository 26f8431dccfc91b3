//! A router between a client and a server, which translates.

use std::net::SocketAddr;

use wiretag_enrich::IdentityEvent;
use wiretag_enrich::event::Translation;

use crate::stage::{Namespace, Process, Source, ready, sh};

/// Client, router and server; the router's addresses are `.1` on both sides.
struct Path {
    client: Namespace,
    router: Namespace,
    server: Namespace,
}

impl Path {
    fn new() -> Self {
        let [client, router, server] = [0; 3].map(|_| Namespace::new());
        for (end, link, v4, v6) in [(&client, "lan", "198.18.1", "fd00:1:"), (&server, "wan", "198.18.2", "fd00:2:")] {
            sh(&format!("ip -n {} link add {link} type veth peer name eth0 netns {}", router.name, end.name));
            for (namespace, device, host) in [(&router, link, 1), (end, "eth0", 2)] {
                let name = &namespace.name;
                sh(&format!("ip -n {name} link set {device} up"));
                sh(&format!("ip -n {name} address add {v4}.{host}/24 dev {device}"));
                sh(&format!("ip -n {name} address add {v6}:{host}/64 dev {device} nodad"));
            }
            sh(&format!("ip -n {} route add default via {v4}.1", end.name));
            sh(&format!("ip -n {} route add default via {v6}:1", end.name));
        }
        router.sh("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        for (tables, to) in [("iptables", "198.18.2.2:8081"), ("ip6tables", "[fd00:2::2]:8081")] {
            router.sh(&format!("{tables} -w -t nat -A PREROUTING -p tcp --dport 80 -j DNAT --to-destination {to}"));
            router.sh(&format!("{tables} -w -t nat -A POSTROUTING -o wan -j MASQUERADE"));
        }
        Self { client, router, server }
    }

    /// An echo on port 8081 (1F91) of the server.
    fn serve(&self) -> Process {
        let process = self.server.start(None, "busybox nc -ll -p 8081 -e cat");
        self.server.sh("until grep -q :1F91 /proc/net/tcp /proc/net/tcp6; do sleep 0.05; done");
        process
    }
}

fn translation(event: &IdentityEvent) -> Option<Translation> {
    if let IdentityEvent::Translated(translation) = event { Some(*translation) } else { None }
}

#[test]
fn both_sides_of_a_translation_are_told_until_it_ends() {
    if !ready() {
        return;
    }
    let path = Path::new();
    let _server = path.serve();
    let source = Source::start(&path.router);
    for (family, virtual_address, real, router) in
        [("ipv4", "198.18.1.1", "198.18.2.2", "198.18.2.1"), ("ipv6", "fd00:1::1", "fd00:2::2", "fd00:2::1")]
    {
        path.client.start(None, &format!("sh -c \"echo x | busybox nc {virtual_address} 80\"")).wait();
        let own = |event: &IdentityEvent| {
            translation(event).filter(|own| own.original[1].ip().to_string() == virtual_address)
        };
        let told = source.first(family, own);
        assert_eq!((told.protocol, told.original[1].port(), told.to), (6, 80, None), "{told:?}");
        assert_eq!(told.reply[0], SocketAddr::new(real.parse().unwrap(), 8081), "{told:?}");
        assert_eq!(told.reply[1].ip().to_string(), router, "{told:?}");

        path.router.sh(&format!("conntrack -D -f {family}"));
        let ended = source.first("its end", |event| own(event).filter(|own| own.to.is_some()));
        assert_eq!(ended, Translation { to: ended.to, ..told });
        assert!(ended.from < ended.to.unwrap());
    }
}

#[test]
fn what_is_translated_before_the_source_starts_is_known_and_what_is_not_translated_is_not_told() {
    if !ready() {
        return;
    }
    let path = Path::new();
    let _server = path.serve();
    path.client.sh("echo x | busybox nc 198.18.1.1 80");
    let source = Source::start(&path.router);
    source.first("the dump", translation);
    // From the router itself: tracked, and not masqueraded into anything else.
    path.router.sh("echo x | busybox nc 198.18.2.2 8081");
    source.settle();
    assert_eq!(source.all(translation).len(), 1, "{:?}", source.all(translation));
    assert_eq!(source.numbers.translations(), 1);
}

//! Addresses, published ports and ports of the host that go on to another container at once, in each network mode, while wiretag
//! runs, while it is down and while it is killed; and connections that outlive all of it.
//!
//! Every request says the truth about itself: its path is `/SERVER?CLIENT`, and only that server has such a file. So of each row with
//! status 200 both ends are known, and whatever name it has must be theirs.

use serde_json::Value;
use std::collections::HashSet;

use super::support::docker::{Docker, ready};
use super::support::{Appliance, eventually};
use super::{found, hears_docker, identities};

/// Where there is something to be given on.
struct Place {
    name: &'static str,
    /// Arguments of the server that has it.
    server: &'static [&'static str],
    /// Port that the server listens on.
    port: &'static str,
    /// Network of its clients.
    clients: &'static str,
    /// Where these ask.
    hosts: &'static [&'static str],
    /// Arguments of the server whose connection lasts, its port, and what its client speaks to; without an address its own.
    lasting: (&'static [&'static str], &'static str, &'static str),
}

const PLACES: [Place; 5] = [
    Place {
        name: "own",
        server: &["--network", "own", "--ip", "198.19.16.209", "--ip6", "fd00:19:16::209"],
        port: "80",
        clients: "own",
        hosts: &["198.19.16.209", "[fd00:19:16::209]"],
        lasting: (&["--network", "own", "--ip6", "fd00:19:16::208"], "9001", "fd00:19:16::208 9001"),
    },
    Place {
        name: "over",
        server: &["--network", "over", "--ip", "198.19.32.209"],
        port: "80",
        clients: "over",
        hosts: &["198.19.32.209"],
        lasting: (&["--network", "over", "--ip", "198.19.32.208"], "9002", "198.19.32.208 9002"),
    },
    Place {
        name: "under",
        server: &["--network", "under", "--ip", "198.19.48.209", "--ip6", "fd00:19:48::209"],
        port: "80",
        clients: "under",
        hosts: &["198.19.48.209", "[fd00:19:48::209]"],
        lasting: (&["--network", "under", "--ip", "198.19.48.208"], "9003", "198.19.48.208 9003"),
    },
    Place {
        name: "published",
        server: &["--network", "own", "-p", "18093:80"],
        port: "80",
        clients: "own",
        hosts: &["198.19.16.1:18093"],
        lasting: (&["--network", "own", "-p", "19004:9004"], "9004", "198.19.16.1 19004"),
    },
    Place {
        name: "host",
        server: &["--network", "host"],
        port: "18094",
        clients: "own",
        hosts: &["198.19.16.1:18094", "[fd00:19:16::1]:18094"],
        lasting: (&["--network", "host"], "9005", "198.19.16.1 9005"),
    },
];

/// What the servers of a place are called, in their order.
const SERVERS: [&str; 4] = ["first", "second", "third", "fourth"];

impl Place {
    /// Addresses that are asked.
    fn addresses(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(|host| match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            Some((ip, _)) => ip,
            None => host.split(':').next().unwrap_or(host),
        })
    }

    fn called(&self, what: &str) -> String {
        format!("{}-{what}", self.name)
    }

    /// Makes or starts (`verb`) the web server that alone has a file of its name.
    fn serve(&self, docker: &Docker, verb: &[&str], what: &str) {
        let name = self.called(what);
        let serve = format!(": > /www/{name}; exec httpd -f -p {} -h /www", self.port);
        docker.docker(&[verb, &["--name", &name], self.server, &["box:1", "/bin/sh", "-c", &serve]].concat());
    }

    /// The server goes, and the next has what it had.
    fn give_on(&self, docker: &Docker, from: &str, to: &str) {
        let (from, to) = (self.called(from), self.called(to));
        docker.docker(&["stop", "-t", "0", &from]);
        docker.docker(&["start", &to]);
    }

    /// A client that asks all servers in turn, over and over, until the last has answered everywhere often enough.
    fn ask(&self, docker: &Docker, client: &str, servers: &[&str]) {
        let client = self.called(client);
        let servers: Vec<String> = servers.iter().map(|what| self.called(what)).collect();
        let (all, last) = (servers.join(" "), servers.last().expect("a server"));
        let ask = format!(
            "n=0; while [ $n -lt 2 ]; do n=$((n + 1)); for host in {}; do for server in {all}; do \
             if timeout 1 wget -q -O /dev/null \"http://$host/$server?{client}\"; then echo $host/$server; \
             elif [ $server = {last} ]; then n=0; fi; done; done; sleep 0.2; done; sleep 1",
            self.hosts.join(" ")
        );
        let run = ["run", "-d", "--name", &client, "--network", self.clients];
        docker.docker(&[&run[..], &["box:1", "/bin/sh", "-c", &ask]].concat());
    }

    /// Waits until the client has an answer of a server from everywhere.
    fn hears(&self, docker: &Docker, client: &str, server: &str) {
        let (client, server) = (self.called(client), self.called(server));
        eventually(60, "answers", || {
            let log = docker.docker(&["logs", &client]);
            self.hosts.iter().all(|host| log.contains(&format!("{host}/{server}"))).then_some(())
        });
    }

    /// A connection that carries something every second until its server is removed.
    fn connect(&self, docker: &Docker) {
        let (server, port, to) = self.lasting;
        let (lasting, long) = (self.called("lasting"), self.called("long"));
        let tick = format!("exec nc -l -p {port} -e /bin/sh -c 'while sleep 1; do echo tick || exit; done'");
        let run = ["run", "-d", "--name", &lasting];
        docker.docker(&[&run[..], server, &["box:1", "/bin/sh", "-c", &tick]].concat());
        let connect = format!("while :; do nc {to}; sleep 1; done");
        let run = ["run", "-d", "--name", &long, "--network", self.clients, "box:1", "/bin/sh", "-c", &connect];
        docker.docker(&run);
        eventually(60, "it ticks", || docker.docker(&["logs", &long]).contains("tick").then_some(()));
    }
}

/// At all places at once.
fn everywhere(act: impl Fn(&Place) + Sync) {
    let act = &act;
    std::thread::scope(|scope| {
        for place in &PLACES {
            scope.spawn(move || act(place));
        }
    });
}

fn networks(docker: &Docker) {
    docker.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    let create = |more: &[&str]| docker.docker(&[&["network", "create"][..], more].concat());
    // To whom nothing else is said gets one of the first addresses.
    create(&["-d", "overlay", "--attachable", "--subnet", "198.19.32.0/24", "over"]);
    create(&["-d", "bridge", "--ipv6", "--subnet", "fd00:19:16::/64", "--subnet", "198.19.16.0/24", "own"]);
    let macvlan = ["-d", "macvlan", "-o", "parent=docker0", "--ipv6", "--subnet", "fd00:19:48::/64"];
    create(&[&macvlan[..], &["--subnet", "198.19.48.0/24", "under"]].concat());
    // docker0 has no carrier, and so nothing above it, before it has a container.
    docker.web("carrier", "bridge", &[]);
}

#[test]
fn docker_heirs_have_their_own_names_in_each_network_mode_and_through_restarts() {
    if !ready() {
        return;
    }
    let docker = Docker::start_with(&["--userland-proxy=false"]);
    networks(&docker);
    everywhere(|place| place.serve(&docker, &["run", "-d"], "first"));
    let directory = tempfile::tempdir().expect("a directory");
    let start = || Appliance::start(directory.path(), &["--docker", &docker.url()]);
    let appliance = start();
    hears_docker(&appliance);
    everywhere(|place| place.connect(&docker));
    for to in SERVERS.iter().skip(1) {
        everywhere(|place| place.serve(&docker, &["create"], to));
    }

    // While wiretag runs.
    everywhere(|place| {
        place.ask(&docker, "early", &["first", "second"]);
        place.hears(&docker, "early", "first");
        place.give_on(&docker, "first", "second");
    });
    everywhere(|place| docker.done(&place.called("early")));
    answered(&appliance, "early", &["first", "second"]);
    // While it is down.
    appliance.stop();
    everywhere(|place| place.give_on(&docker, "second", "third"));
    let appliance = start();
    hears_docker(&appliance);
    everywhere(|place| place.ask(&docker, "late", &["second", "third"]));
    everywhere(|place| docker.done(&place.called("late")));
    answered(&appliance, "late", &["third"]);
    // While it is killed and starts anew.
    everywhere(|place| {
        place.ask(&docker, "last", &["third", "fourth"]);
        place.hears(&docker, "last", "third");
    });
    appliance.kill();
    let appliance = std::thread::scope(|scope| {
        scope.spawn(|| everywhere(|place| place.give_on(&docker, "third", "fourth")));
        start()
    });
    hears_docker(&appliance);
    everywhere(|place| docker.done(&place.called("last")));
    answered(&appliance, "last", &["fourth"]);

    everywhere(|place| drop(docker.docker(&["rm", "-f", &place.called("lasting"), &place.called("long")])));
    for place in &PLACES {
        check_what_lasted(&appliance, place);
        // Of others the address is the host's, or any.
        if place.server.contains(&"--ip") {
            check_the_holders(&appliance, place);
        }
    }
    check_the_truth(&appliance);
    appliance.stop();
}

/// The client's flows to each of the servers are told, and some of them with both names.
fn answered(appliance: &Appliance, client: &str, servers: &[&str]) {
    for place in &PLACES {
        for server in servers {
            let (client, server) = (place.called(client), place.called(server));
            found(appliance, &format!("client_container == {client} and server_container == {server}"));
        }
    }
}

/// A connection that was there before wiretag was has the names of its ends, and where it was seen without them it has none.
fn check_what_lasted(appliance: &Appliance, place: &Place) {
    let port = place.lasting.1;
    let (long, lasting) = (place.called("long"), place.called("lasting"));
    let both = |one: &str, other: &str| format!("client_container == {one} and server_container == {other}");
    let query = format!("(({}) or ({})) and oriented_by != syn", both(&long, &lasting), both(&lasting, &long));
    found(appliance, &query);
    let rows = appliance.flows(&format!("port in {{{port}, 1{port}}}"), &["--all-observations", "--limit", "all"]);
    for flow in &rows {
        for end in ["client", "server"] {
            let number = flow[format!("{end}_port")].to_string();
            let is_server = number == port || number == format!("1{port}");
            let truth = if is_server { &lasting } else { &long };
            check_name(flow, end, truth);
        }
    }
}

/// An end has its name, or honestly none.
fn check_name(flow: &Value, end: &str, truth: &str) {
    let (name, by) = (&flow[format!("{end}_container")], &flow[format!("{end}_tagged_by")]);
    let is_honest = name.is_null() && flow[format!("{end}_identity")].is_null() && (by == "none" || by == "ambiguous");
    assert!(name == truth || is_honest, "the {end} is {truth}: {flow}");
}

/// No row at any point of observation has a name that is not its own, and few have none.
fn check_the_truth(appliance: &Appliance) {
    let (mut named, mut all, mut seen) = (0, 0, HashSet::new());
    for table in [&["--transactions"][..], &[]] {
        let every = [&["--all-observations", "--limit", "all"][..], table].concat();
        for flow in appliance.flows("http_path == /*-*?*-* and http_status == 200", &every) {
            let path = flow["http_path"].as_str().expect("a path");
            let (server, client) = path.trim_start_matches('/').split_once('?').expect("both ends");
            for (end, truth) in [("server", server), ("client", client)] {
                check_name(&flow, end, truth);
                // Below a macvlan its traffic is seen too, on an interface of which the network is another one.
                if flow["interface"] == "docker0" {
                    continue;
                }
                all += 1;
                named += usize::from(!flow[format!("{end}_container")].is_null());
            }
            seen.insert((server.to_owned(), flow["server_ip"].as_str().expect("an address").to_owned()));
        }
    }
    assert!(named * 20 >= all * 19, "{named} of {all}");
    for place in &PLACES {
        for ip in place.addresses() {
            let of = |what: &str| seen.contains(&(place.called(what), ip.to_owned()));
            assert!(SERVERS.into_iter().all(of), "{ip}: {seen:?}");
        }
    }
}

/// Each had the address after the one before.
fn check_the_holders(appliance: &Appliance, place: &Place) {
    for ip in place.addresses() {
        let all = identities(appliance, ip);
        let holders: Vec<&str> = all.iter().filter_map(|own| own["identity"]["container"].as_str()).collect();
        assert_eq!(holders, SERVERS.map(|what| place.called(what)), "{ip}: {all:?}");
        let times = all.windows(2).map(|two| (two[0]["valid_to"].as_str(), two[1]["valid_from"].as_str()));
        for (end, begin) in times {
            assert!(end.is_some() && end <= begin, "{ip}: {all:?}");
        }
    }
}

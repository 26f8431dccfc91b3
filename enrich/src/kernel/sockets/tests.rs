//! What dumps and ends make of sockets.

use super::super::processes::Found;
use super::super::sock_diag::UDP;
use super::*;

/// Says whose a socket is by its inode: 100 to 199 of `a`, 200 to 299 of `b`, and so on; of those below 100 nobody is.
struct ByInode {
    started: Option<i64>,
    searched: Searched,
}

const KNOWS: ByInode = ByInode { started: None, searched: Searched::All };

fn container(inode: u32) -> Option<Arc<str>> {
    let letter = char::from(b'a' + u8::try_from((inode / 100).checked_sub(1)?).ok()?);
    Some(letter.to_string().into())
}

impl Owners for ByInode {
    fn find(&mut self, _: u64, wanted: &HashSet<u32>) -> Found {
        let owner = |inode: u32| Some((inode, Owner { container: container(inode)?, started: self.started }));
        Found { owners: wanted.iter().filter_map(|inode| owner(*inode)).collect(), searched: self.searched }
    }

    fn of_cgroup(&self, cgroup: u64) -> Option<Arc<str>> {
        container(u32::try_from(cgroup).ok()?)
    }
}

fn listener(inode: u32, port: u16) -> Socket {
    let own = Own { ip: None, port };
    Socket { protocol: TCP, own, peer: None, inode, cookie: inode.into(), cgroup: None }
}

fn connected(inode: u32, port: u16, peer: u16) -> Socket {
    let ip = std::net::Ipv4Addr::LOCALHOST.into();
    let own = Own { ip: Some(ip), port };
    Socket { own, peer: Some(SocketAddr::new(ip, peer)), ..listener(inode, port) }
}

fn sockets() -> Sockets {
    Sockets::new(0, 1, "boot".into(), 32_768..=60_999)
}

/// `a:80 [100,200)`: a key; `a:80>9000 [100,…)`: a connection.
fn story(events: Vec<IdentityEvent>) -> Vec<String> {
    let time = |from: i64, to: Option<i64>| format!("[{from},{})", to.map_or("…".to_owned(), |to| to.to_string()));
    let tell = |event| match event {
        IdentityEvent::Learned(own) => {
            let Key::Socket { port, .. } = own.key else { panic!("{own:?}") };
            format!("{}:{port} {}", own.identity.identity, time(own.valid_from, own.valid_to))
        }
        IdentityEvent::Connected(own) => {
            let peer = own.peer.map_or("*".to_owned(), |peer| peer.port().to_string());
            format!("{}:{}>{peer} {}", own.identity, own.port, time(own.from, own.to))
        }
        other => panic!("{other:?}"),
    };
    let mut story: Vec<String> = events.into_iter().map(tell).collect();
    story.sort();
    story
}

fn dump(sockets: &mut Sockets, at: i64, there: &[Socket]) -> Vec<String> {
    let mut out = Vec::new();
    sockets.dumped(there, at, &mut { KNOWS }, &mut out);
    story(out)
}

fn end(sockets: &mut Sockets, at: i64, socket: &Socket) -> Vec<String> {
    let mut out = Vec::new();
    sockets.ended(socket, at, &mut out);
    story(out)
}

#[test]
fn a_socket_begins_after_the_dump_that_did_not_have_it_and_ends_when_it_is_told() {
    let (mut sockets, web) = (sockets(), listener(100, 80));
    assert_eq!(dump(&mut sockets, 1000, &[listener(101, 443)]), ["a:443 [1000,…)"]);
    assert_eq!(dump(&mut sockets, 2000, &[listener(101, 443), web]), ["a:80 [1000,…)"]);
    assert_eq!(dump(&mut sockets, 3000, &[listener(101, 443), web]), [""; 0]);
    assert_eq!(end(&mut sockets, 3500, &web), ["a:80 [1000,3500)"]);
    // Its end was not told.
    assert_eq!(dump(&mut sockets, 4000, &[]), ["a:443 [1000,3000)"]);
}

#[test]
fn the_heir_of_a_port_begins_after_the_end_of_the_one_before() {
    let mut sockets = sockets();
    dump(&mut sockets, 1000, &[listener(100, 80)]);
    assert_eq!(end(&mut sockets, 1300, &listener(100, 80)), ["a:80 [1000,1300)"]);
    assert_eq!(dump(&mut sockets, 2000, &[listener(200, 80)]), ["b:80 [1300,…)"]);
    // And after its own process.
    let mut out = Vec::new();
    end(&mut sockets, 2100, &listener(200, 80));
    sockets.dumped(&[listener(300, 80)], 3000, &mut ByInode { started: Some(2500), searched: Searched::All }, &mut out);
    assert_eq!(story(out), ["c:80 [2500,…)"]);
    // Ends that were not heard: it begins when it is seen.
    sockets.missed();
    assert_eq!(dump(&mut sockets, 4000, &[listener(100, 80)]), ["a:80 [4000,…)", "c:80 [2500,3000)"]);
}

#[test]
fn what_a_listening_socket_accepted_is_told_when_that_is_gone() {
    let mut sockets = sockets();
    let (web, accepted, opened) = (listener(100, 80), connected(101, 80, 9000), connected(102, 50_000, 80));
    assert_eq!(dump(&mut sockets, 1000, &[accepted, web, opened]), ["a:50000>80 [1000,…)", "a:80 [1000,…)"]);
    assert_eq!(end(&mut sockets, 1500, &web), ["a:80 [1000,1500)"]);
    assert_eq!(
        dump(&mut sockets, 2000, &[accepted, opened, listener(200, 80)]),
        ["a:80>9000 [1000,…)", "b:80 [1500,…)"]
    );
    assert_eq!(end(&mut sockets, 2500, &accepted), ["a:80>9000 [1000,2500)"]);
}

#[test]
fn several_sockets_of_one_container_on_a_port_are_one_key() {
    let mut sockets = sockets();
    let (one, two) = (listener(100, 80), listener(101, 80));
    assert_eq!(dump(&mut sockets, 1000, &[one, two]), ["a:80 [1000,…)"]);
    assert_eq!(end(&mut sockets, 1500, &one), [""; 0]);
    assert_eq!(end(&mut sockets, 1600, &two), ["a:80 [1000,1600)"]);
}

#[test]
fn what_is_in_no_container_and_what_nobody_saw_are_not_told() {
    let mut sockets = sockets();
    assert_eq!(dump(&mut sockets, 1000, &[listener(1, 22), connected(0, 80, 9000)]), [""; 0]);
    assert_eq!(sockets.len(), 1, "without an inode it is no process'");
    assert_eq!(end(&mut sockets, 1500, &connected(103, 50_000, 80)), [""; 0]);
    assert_eq!(sockets.count.unseen, 1);
    // A dump that was begun before the end may still have it.
    assert_eq!(dump(&mut sockets, 1400, &[connected(103, 50_000, 80)]), [""; 0]);
}

#[test]
fn a_control_group_tells_more_than_a_process() {
    let mut sockets = sockets();
    let own = Socket { cgroup: Some(200), ..listener(1, 80) };
    assert_eq!(dump(&mut sockets, 1000, &[own]), ["b:80 [1000,…)"]);
}

#[test]
fn a_socket_that_is_asked_for_is_told_at_once_and_only_once() {
    let mut sockets = sockets();
    dump(&mut sockets, 1000, &[]);
    let (client, mut out) = (connected(100, 50_000, 80), Vec::new());
    assert!(sockets.found(&client, 1500, &mut { KNOWS }, &mut out));
    assert!(!sockets.found(&client, 1600, &mut { KNOWS }, &mut out));
    assert_eq!(story(out), ["a:50000>80 [1000,…)"]);
    assert_eq!(dump(&mut sockets, 2000, &[client]), [""; 0]);
    // A datagram socket on a port that the kernel chose is no key.
    let resolver = Socket { protocol: UDP, ..listener(100, 40_000) };
    let resolver = Socket { cookie: 7, ..resolver };
    assert_eq!(dump(&mut sockets, 3000, &[client, resolver]), ["a:40000>* [2000,…)"]);
}

#[test]
fn whose_a_socket_is_may_become_known_later() {
    let mut sockets = sockets();
    let mut out = Vec::new();
    let mut nobody = ByInode { started: None, searched: Searched::Part };
    let early = listener(1, 80);
    sockets.dumped(&[early], 1000, &mut nobody, &mut out);
    // Now its process is in the group of a container.
    let mut later = Renamed(100);
    sockets.dumped(&[early], 2000, &mut later, &mut out);
    assert_eq!(story(out), ["a:80 [1000,…)"]);
    // It is given up after a while.
    let (mut sockets, mut out) = (super::tests::sockets(), Vec::new());
    for at in [0, 2 * PATIENCE, 3 * PATIENCE] {
        sockets.dumped(&[early], at, &mut nobody, &mut out);
    }
    sockets.dumped(&[early], 4 * PATIENCE, &mut later, &mut out);
    assert!(out.is_empty() && sockets.count.unowned == 1);
    // The reason is another one if some processes may not be looked into.
    let mut sockets = super::tests::sockets();
    nobody.searched = Searched::Allowed;
    for at in [0, 2 * PATIENCE] {
        sockets.dumped(&[early], at, &mut nobody, &mut out);
    }
    assert_eq!((sockets.count.unowned, sockets.count.denied), (0, 1));
}

/// Everything belongs to the container of an inode.
struct Renamed(u32);

impl Owners for Renamed {
    fn find(&mut self, _: u64, wanted: &HashSet<u32>) -> Found {
        let owner = Owner { container: container(self.0).expect("a container"), started: None };
        Found { owners: wanted.iter().map(|inode| (*inode, owner.clone())).collect(), searched: Searched::All }
    }

    fn of_cgroup(&self, _: u64) -> Option<Arc<str>> {
        None
    }
}

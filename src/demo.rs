//! `wiretag run --demo`: three network namespaces on a bridge, a client, a web server and a DNS server that talk to each
//! other for as long as the appliance runs, named through a static identity file.
//!
//! Everything is made with `ip` (iproute2; beside Docker also a rule of `iptables`) and removed when [`Demo`] is dropped; what a demonstration that was
//! killed left behind is removed first. There is one at a time in a network namespace: each holds an abstract socket while it lives, and the kernel
//! lets go of it however the process ends. Addresses are from 198.18.0.0/15, which RFC 2544 keeps for such use.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use crossbeam_channel::{Receiver, Sender, bounded};
use wiretag_capture::ring::in_namespace;

const BRIDGE: &str = "wtdemo0";
const MEMBERS: &[Member] = &[
    Member { name: "client", ip: Ipv4Addr::new(198, 18, 77, 10) },
    Member { name: "web", ip: Ipv4Addr::new(198, 18, 77, 20) },
    Member { name: "dns", ip: Ipv4Addr::new(198, 18, 77, 53) },
];

struct Member {
    name: &'static str,
    ip: Ipv4Addr,
}

impl Member {
    fn namespace(&self) -> String {
        format!("wtdemo-{}", self.name)
    }

    fn link(&self) -> String {
        format!("wtdemo-{}", self.name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.namespace())
    }
}

/// The demonstration; dropping it stops the talk and removes the namespaces.
pub(crate) struct Demo {
    stop: Arc<AtomicBool>,
    wake: Option<Sender<()>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Held until everything is removed.
    _claim: UnixListener,
}

impl Demo {
    /// Makes the namespaces and starts the talk.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let claim = claim()?;
        remove();
        build().inspect_err(|_| remove())?;
        let stop = Arc::new(AtomicBool::new(false));
        let (wake, woken) = bounded(0);
        let mut demo = Self { stop: stop.clone(), wake: Some(wake), threads: Vec::new(), _claim: claim };
        let [client, web, dns] = MEMBERS else { bail!("the demonstration has three members") };
        let web_address = SocketAddr::from((web.ip, 80));
        let dns_address = SocketAddr::from((dns.ip, 53));
        let listener = in_namespace(&web.path(), move || TcpListener::bind(web_address))??;
        let socket = in_namespace(&dns.path(), move || UdpSocket::bind(dns_address))??;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        listener.set_nonblocking(false)?;
        let client_path = client.path();
        let answers = IpAddr::V4(web.ip);
        demo.spawn("demo-web", {
            let stop = stop.clone();
            move || serve_web(&listener, &stop)
        })?;
        demo.spawn("demo-dns", {
            let stop = stop.clone();
            move || serve_dns(&socket, answers, &stop)
        })?;
        demo.spawn("demo-client", move || {
            let talk = move || talk(web_address, dns_address, &stop, &woken);
            if let Err(error) = in_namespace(&client_path, talk) {
                tracing::warn!("the demonstration's client ended: {error}");
            }
        })?;
        Ok(demo)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> anyhow::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }

    /// The static identity file of the members.
    pub(crate) fn identities() -> String {
        let entry = |Member { name, ip }: &Member| {
            format!(
                "  - name: {name}\n    workload: demo/{name}\n    ips: [{ip}]\n    interfaces: [wtdemo-{name}]\n    labels: {{ app: {name} }}\n"
            )
        };
        ["identities:\n".to_owned()].into_iter().chain(MEMBERS.iter().map(entry)).collect()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.wake = None;
        if let [_, web, _] = MEMBERS {
            // The web server waits in `accept`: one last connection wakes it.
            let address = SocketAddr::from((web.ip, 80));
            let wake = move || TcpStream::connect_timeout(&address, Duration::from_secs(1)).map(drop);
            let _ = in_namespace(&web.path(), wake);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        remove();
    }
}

/// The right to have a demonstration here.
fn claim() -> anyhow::Result<UnixListener> {
    let address = std::os::unix::net::SocketAddr::from_abstract_name("wiretag-demo")?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow!(
                "the demonstration of another `wiretag run` is there; hint: stop that one, or start without `--demo`"
            )
        }
        _ => anyhow!("cannot begin the demonstration: {error}"),
    })
}

fn build() -> anyhow::Result<()> {
    ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    pass_the_firewall();
    for member in MEMBERS {
        let (namespace, link) = (member.namespace(), member.link());
        ip(&["netns", "add", &namespace])?;
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &namespace])?;
        ip(&["link", "set", &link, "master", BRIDGE, "up"])?;
        ip(&["-n", &namespace, "addr", "add", &format!("{}/24", member.ip), "dev", "eth0"])?;
        ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        ip(&["-n", &namespace, "link", "set", "eth0", "up"])?;
    }
    Ok(())
}

/// Removes what is there; absence is no error.
fn remove() {
    for member in MEMBERS {
        let _ = ip(&["link", "del", &member.link()]);
        let _ = ip(&["netns", "del", &member.namespace()]);
    }
    let _ = ip(&["link", "del", BRIDGE]);
    while firewall("-D") {}
}

/// Docker hands bridged packets to iptables, whose forward chain then drops what it does not know: the demonstration's own
/// bridge gets a rule of its own, as each of Docker's has.
fn pass_the_firewall() {
    let filtered = std::fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if filtered.is_ok_and(|value| value.trim() == "1") && !firewall("-I") {
        tracing::warn!("the firewall may drop the demonstration's packets: `iptables` refused a rule for `{BRIDGE}`");
    }
}

/// Inserts (`-I`) or deletes (`-D`) the rule; whether that was possible.
fn firewall(action: &str) -> bool {
    let rule = ["-w", "5", action, "FORWARD", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
    Command::new("iptables").args(rule).output().is_ok_and(|output| output.status.success())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run `ip`; hint: install iproute2")?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!("`ip {}` failed: {}; hint: the demonstration needs root", arguments.join(" "), reason.trim());
    }
    Ok(())
}

/// Answers every request with a page of 4 to 40 kB.
fn serve_web(listener: &TcpListener, stop: &AtomicBool) {
    for (number, stream) in listener.incoming().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(mut stream) = stream else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = stream.set_write_timeout(Some(Duration::from_secs(1)));
        let mut request = [0_u8; 2048];
        if stream.read(&mut request).is_ok_and(|length| length > 0) {
            let body = vec![b'w'; 4096 * (1 + number % 10)];
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    }
}

/// Answers `web.demo` with the web server's address, all else with NXDOMAIN.
fn serve_dns(socket: &UdpSocket, address: IpAddr, stop: &AtomicBool) {
    let mut query = [0_u8; 512];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut query) else { continue };
        if let Some(answer) = query.get(..length).and_then(|query| dns_answer(query, address)) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn dns_query(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

fn dns_answer(query: &[u8], address: IpAddr) -> Option<Vec<u8>> {
    let known = query.windows(9).any(|window| window == b"\x03web\x04demo");
    let mut answer = query.get(..2)?.to_vec();
    answer.extend([0x85, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(known), 0, 0, 0, 0]);
    answer.extend(query.get(12..)?);
    if let (true, IpAddr::V4(address)) = (known, address) {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

/// A lookup and a request, two times a second, until the appliance stops. Each seventh name does not exist.
fn talk(web: SocketAddr, dns: SocketAddr, stop: &AtomicBool, woken: &Receiver<()>) {
    let mut id = 0_u16;
    while !stop.load(Ordering::Relaxed) {
        id = id.wrapping_add(1);
        let name = if id.is_multiple_of(7) { "missing.demo" } else { "web.demo" };
        if let Err(error) = lookup(dns, &dns_query(id, name)).and_then(|()| request(web)) {
            tracing::debug!("demonstration: {error}");
        }
        let _ = woken.recv_timeout(Duration::from_millis(500));
    }
}

fn lookup(server: SocketAddr, query: &[u8]) -> std::io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(query, server)?;
    socket.recv(&mut [0; 512]).map(drop)
}

fn request(server: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: web.demo\r\n\r\n")?;
    std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
}

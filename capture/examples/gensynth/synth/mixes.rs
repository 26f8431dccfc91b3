//! Kinds of traffic.

use super::Output;
use super::frame::{Ends, POOL_OFFSETS, Packet, Payload, SYN, Transport};
use super::random::Random;
use super::talk::Talk;
use super::truth::End::{self, Client, Server};

/// What a capture is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Requests and responses between pods, some outside; DNS; UDP. As in most clusters.
    Container,
    /// Handshake, a short exchange, and then nothing: all connections stay open.
    Many,
    /// Every second flow is a SYN to another address or port that nobody answers, between those of `Container`.
    Scan,
    /// DNS, then HTTP/1 or TLS with real messages.
    Web,
}

impl Mix {
    #[allow(dead_code, reason = "the test that shares this module names them itself")]
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "container" => Some(Self::Container),
            "many" => Some(Self::Many),
            "scan" => Some(Self::Scan),
            "web" => Some(Self::Web),
            _ => None,
        }
    }
}

const CLIENTS: u64 = 2000;
const SERVERS: u64 = 300;
const PORTS: [u16; 8] = [80, 443, 8080, 5432, 6379, 9092, 3306, 27017];
const DNS_SERVER: u32 = 0x0a60_000a;

/// Makes flows, each with ends of its own.
pub(crate) struct Maker {
    mix: Mix,
    /// Ports that each client took so far: a five-tuple is never used twice.
    taken: Vec<u32>,
}

impl Maker {
    pub(crate) fn new(mix: Mix) -> Self {
        Self { mix, taken: vec![0; CLIENTS as usize] }
    }

    /// The packets of one flow that begins at `time`.
    pub(crate) fn flow(&mut self, number: u64, time: u64, random: &mut Random, out: &mut Output) {
        match self.mix {
            Mix::Many => open_and_stay(number, time, random, out),
            Mix::Scan if number.is_multiple_of(2) => scan(number, time, out),
            Mix::Container | Mix::Scan => self.container(time, random, out),
            Mix::Web => self.web(time, random, out),
        }
    }

    fn ends(&mut self, random: &mut Random, server: u32, port: u16) -> Ends {
        let client = (CLIENTS as f64 * random.unit().powf(1.5)) as u64;
        let taken = &mut self.taken[client as usize];
        *taken += 1;
        // Sixty thousand ports, then the next address of the client.
        let (round, offset) = (*taken / 60_000, *taken % 60_000);
        let address = 0x0a00_0000 | (client as u32 + round * CLIENTS as u32);
        Ends { addresses: [address, server], ports: [1024 + offset as u16, port] }
    }

    fn server(random: &mut Random) -> u32 {
        0x0af5_0000 | ((SERVERS as f64 * random.unit().powi(2)) as u32 + 2)
    }

    fn container(&mut self, time: u64, random: &mut Random, out: &mut Output) {
        let kind = random.unit();
        if kind < 0.22 {
            return self.dns(time, random, out);
        }
        let server = Self::server(random);
        if kind < 0.26 {
            let port = if random.chance(0.5) { 9000 } else { 8125 };
            let ends = self.ends(random, server, port);
            return datagrams(ends, time, random, out);
        }
        let port = PORTS[random.below(8) as usize];
        let ends = self.ends(random, server, port);
        let mut talk = Talk::new(out, random, ends, time);
        if !talk.open() {
            return;
        }
        let rounds = 1 + if talk.random.chance(0.35) { talk.random.exponential(3.0) as u32 } else { 0 };
        for round in 0..rounds {
            let large = talk.random.chance(0.08);
            let request = if large { talk.random.pareto(2000.0, 1.2) } else { 120.0 + talk.random.exponential(250.0) };
            let response = talk.random.pareto(260.0, 1.15);
            talk.transfer(Client, None, request.min(1e6) as u32);
            talk.time += talk.random.exponential(2e3) as u64;
            talk.transfer(Server, None, response.min(4e6) as u32);
            if round + 1 < rounds {
                talk.time += talk.random.exponential(4e5) as u64;
            }
        }
        talk.close();
    }

    fn dns(&mut self, time: u64, random: &mut Random, out: &mut Output) {
        let ends = self.ends(random, DNS_SERVER, 53);
        let name = format!("svc{}.default.svc.cluster.local", random.below(5000));
        let ident = random.next() as u16;
        out.truth.flows += 1;
        out.truth.dns_flows += 1;
        let mut send = |time: u64, from: End, message: Vec<u8>| {
            out.truth.side(from).payload_bytes += message.len() as u64;
            out.push(Packet { time, ends, from, transport: Transport::Udp, payload: Payload::Bytes(message.into()) });
        };
        send(time, Client, dns_message(ident, &name, false));
        if random.chance(0.985) {
            let latency = random.log_normal(400.0, 0.8) as u64;
            send(time + latency, Server, dns_message(ident, &name, true));
            out.truth.dns_latency_us += latency;
            out.truth.dns_answers += 1;
        }
    }

    fn web(&mut self, time: u64, random: &mut Random, out: &mut Output) {
        if random.chance(0.4) {
            return self.dns(time, random, out);
        }
        let tls = random.chance(0.5);
        let server = Self::server(random);
        let ends = self.ends(random, server, if tls { 443 } else { 80 });
        let host = format!("svc{}.example.test", ends.addresses[1] & 0xffff);
        let mut talk = Talk::new(out, random, ends, time);
        if !talk.open() {
            return;
        }
        if tls {
            let hellos = (client_hello(&host, talk.random), server_hello(talk.random));
            talk.transfer(Client, Some(hellos.0), 0);
            talk.transfer(Server, Some(hellos.1), 2400);
            talk.out.truth.tls_flows += 1;
        }
        for _ in 0..=talk.random.below(4) {
            let error = talk.random.chance(0.05);
            let body = talk.random.pareto(200.0, 1.2).min(200_000.0) as u32;
            let (request, response) = if tls {
                (None, None)
            } else {
                talk.out.truth.http_requests += 1;
                talk.out.truth.http_errors += u64::from(error);
                let id = talk.random.below(100_000);
                let status = if error { "503 Service Unavailable" } else { "200 OK" };
                (
                    Some(format!("GET /api/v1/items?id={id} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n")),
                    Some(format!(
                        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {body}\r\n\r\n"
                    )),
                )
            };
            talk.transfer(Client, request.map(String::into_bytes), if tls { 300 } else { 0 });
            talk.time += talk.random.exponential(2e3) as u64;
            talk.transfer(Server, response.map(String::into_bytes), body);
            talk.time += talk.random.exponential(5e4) as u64;
        }
        talk.close();
    }
}

fn open_and_stay(number: u64, time: u64, random: &mut Random, out: &mut Output) {
    let ends = Ends {
        addresses: [0x0a00_0000 | (number / 50_000) as u32, 0x0af5_0002],
        ports: [1024 + (number % 50_000) as u16, 443],
    };
    let mut talk = Talk::new(out, random, ends, time);
    if talk.open() {
        talk.transfer(Client, None, 300);
        talk.transfer(Server, None, 1200);
    }
}

/// One SYN of a scan over addresses and ports.
fn scan(number: u64, time: u64, out: &mut Output) {
    let target = (number / 2) as u32;
    let ends = Ends { addresses: [0xc633_6401, 0x0a80_0000 | target >> 4], ports: [40_000, 1 + (target & 0xf) as u16] };
    let transport = Transport::Tcp { seq: target, ack: 0, flags: SYN, window: 1024, stamps: (1, 0) };
    out.push(Packet { time, ends, from: Client, transport, payload: Payload::NONE });
    out.truth.flows += 1;
    out.truth.tcp_flows += 1;
}

fn datagrams(ends: Ends, mut time: u64, random: &mut Random, out: &mut Output) {
    out.truth.flows += 1;
    for number in 0..=random.exponential(10.0) as u32 {
        let length = if random.chance(0.5) { 1200 } else { 40 + random.below(400) as u16 };
        let from = if number > 0 && random.chance(0.4) { Server } else { Client };
        let payload = Payload::Pool(random.below(u64::from(POOL_OFFSETS)) as u32, length);
        out.truth.side(from).payload_bytes += u64::from(length);
        out.push(Packet { time, ends, from, transport: Transport::Udp, payload });
        time += random.exponential(3e3) as u64 + 1;
    }
}

/// RFC 1035, 4.1.
fn dns_message(ident: u16, name: &str, response: bool) -> Vec<u8> {
    let mut message = ident.to_be_bytes().to_vec();
    message.extend(if response { [0x81, 0x80] } else { [0x01, 0x00] });
    message.extend([0, 1, 0, u8::from(response), 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    if response {
        message.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 10, 245, 0, 2]);
    }
    message
}

/// Appends a length of `bytes` bytes and what it counts.
fn counted(out: &mut Vec<u8>, bytes: usize, content: &[u8]) {
    out.extend_from_slice(&(content.len() as u32).to_be_bytes()[4 - bytes..]);
    out.extend_from_slice(content);
}

/// A handshake message in its record, RFC 8446 4 and 5.1.
fn handshake_record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    counted(&mut message, 3, body);
    let mut record = vec![22, 3, 1];
    counted(&mut record, 2, &message);
    record
}

fn hello_start(random: &mut Random) -> Vec<u8> {
    let mut body = vec![3, 3];
    for _ in 0..4 {
        body.extend(random.next().to_be_bytes());
    }
    body
}

fn client_hello(host: &str, random: &mut Random) -> Vec<u8> {
    let mut body = hello_start(random);
    counted(&mut body, 1, &[7; 32]);
    counted(&mut body, 2, &[0x13, 1, 0x13, 2, 0x13, 3, 0xc0, 0x2b, 0xc0, 0x2f]);
    counted(&mut body, 1, &[0]);
    let mut name = vec![0];
    counted(&mut name, 2, host.as_bytes());
    let mut names = Vec::new();
    counted(&mut names, 2, &name);
    let mut extensions = Vec::new();
    for (kind, content) in [
        (0_u16, names.as_slice()),
        (10, &[0, 2, 0, 29]),
        (13, &[0, 4, 4, 3, 8, 4]),
        (16, b"\x00\x0c\x02h2\x08http/1.1"),
        (43, &[4, 3, 4, 3, 3]),
    ] {
        extensions.extend(kind.to_be_bytes());
        counted(&mut extensions, 2, content);
    }
    counted(&mut body, 2, &extensions);
    handshake_record(1, &body)
}

fn server_hello(random: &mut Random) -> Vec<u8> {
    let mut body = hello_start(random);
    counted(&mut body, 1, &[7; 32]);
    body.extend([0x13, 1, 0]);
    counted(&mut body, 2, &[0, 43, 0, 2, 3, 4]);
    handshake_record(2, &body)
}

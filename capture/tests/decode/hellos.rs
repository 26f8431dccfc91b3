//! Hellos that do not begin their flow: TLS after a plain beginning, and Google's QUIC.

use wiretag_capture::FlowRecord;

use crate::wire::*;

/// A ClientHello for a server of this name, as a record.
pub(crate) fn client_hello(name: &str) -> Vec<u8> {
    let vec16 = |bytes: &[u8]| joined(&[&(bytes.len() as u16).to_be_bytes(), bytes]);
    let server_name = joined(&[&[0, 0], &vec16(&vec16(&joined(&[&[0], &vec16(name.as_bytes())])))]);
    let body = joined(&[&[3, 3], &[7; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0], &vec16(&server_name)]);
    let message = joined(&[&[1], &(body.len() as u32).to_be_bytes()[1..], &body]);
    joined(&[&[22, 3, 1], &vec16(&message)])
}

/// A ServerHello of TLS 1.2, as a record.
pub(crate) fn server_hello() -> Vec<u8> {
    let body = joined(&[&[3, 3], &[9; 32], &[0], &[0xc0, 0x2f], &[0]]);
    let message = joined(&[&[2, 0, 0, body.len() as u8], &body]);
    joined(&[&[22, 3, 3, 0, message.len() as u8], &message])
}

/// Who says what before TLS, the client first or not: `true` is the client.
pub(crate) type Beginning = (&'static str, u16, Vec<(bool, Vec<u8>)>);

/// How protocols ask for TLS, with the name that the flow has.
pub(crate) fn beginnings() -> Vec<Beginning> {
    let lines = |lines: &[(bool, &str)]| lines.iter().map(|(up, text)| (*up, text.as_bytes().to_vec())).collect();
    let smtp = lines(&[
        (false, "220 mail.example.org ESMTP Postfix\r\n"),
        (true, "EHLO client.example.org\r\n"),
        (false, "250-mail.example.org\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
        (true, "STARTTLS\r\n"),
        (false, "220 2.0.0 Ready to start TLS\r\n"),
    ]);
    let imap = lines(&[
        (false, "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready.\r\n"),
        (true, "a001 CAPABILITY\r\n"),
        (false, "* CAPABILITY IMAP4rev1 STARTTLS\r\na001 OK\r\n"),
        (true, "a002 STARTTLS\r\n"),
        (false, "a002 OK Begin TLS negotiation now.\r\n"),
    ]);
    let pop3 = lines(&[(false, "+OK ready\r\n"), (true, "STLS\r\n"), (false, "+OK Begin TLS\r\n")]);
    let postgres = vec![(true, b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec()), (false, b"S".to_vec())];
    let version =
        joined(&[b"8.0.33\0", &[1, 0, 0, 0], b"abcdefgh\0", &[0xff, 0xff, 0xff, 2, 0, 0xff, 0xdf, 21], &[0; 10]]);
    let greeting = joined(&[&version, b"ijklmnopqrst\0", b"caching_sha2_password\0"]);
    let greeting = joined(&[&[greeting.len() as u8 + 1, 0, 0, 0, 10], &greeting]);
    let request = joined(&[&[0x20, 0, 0, 1, 0x85, 0xae, 0xff, 0x19, 0, 0, 0, 1, 0xff], &[0; 23]]);
    let mysql = vec![(false, greeting), (true, request)];
    let oid = b"1.3.6.1.4.1.1466.20037";
    let ldap = vec![
        (true, joined(&[&[0x30, 29, 2, 1, 1, 0x77, 24, 0x80, 22], oid])),
        (false, joined(&[&[0x30, 12, 2, 1, 1, 0x78, 7, 10, 1, 0, 4, 0, 4, 0]])),
    ];
    vec![
        ("tls", 25, smtp),
        ("tls", 143, imap),
        ("tls", 110, pop3),
        ("postgres", 5432, postgres),
        ("mysql", 3306, mysql),
        ("tls", 389, ldap),
    ]
}

/// The frames of a connection, with its handshake, in pieces of at most `most` bytes.
pub(crate) fn connection(port: u16, said: &[(bool, Vec<u8>)], most: usize) -> Vec<Vec<u8>> {
    let mut next = [1_u32, 1];
    let segment = |up: bool, next: [u32; 2], flags: u8, payload: &[u8]| {
        let (src, dst, ports) = if up { (ALICE, BOB, (40_000, port)) } else { (BOB, ALICE, (port, 40_000)) };
        let (seq, ack) = if up { (next[0], next[1]) } else { (next[1], next[0]) };
        let mut segment = tcp(ports.0, ports.1, seq, payload);
        segment[8..12].copy_from_slice(&ack.to_be_bytes());
        segment[13] = flags;
        frame(&ipv4(6, (src, dst), &segment))
    };
    let mut frames =
        vec![segment(true, [0, 0], 2, b""), segment(false, [1, 0], 0x12, b""), segment(true, next, 0x10, b"")];
    for (up, bytes) in said {
        for piece in bytes.chunks(most) {
            frames.push(segment(*up, next, 0x18, piece));
            next[usize::from(!up)] += piece.len() as u32;
        }
    }
    frames
}

/// A connection that goes over to TLS.
pub(crate) fn upgraded(beginning: &Beginning, most: usize) -> Vec<Vec<u8>> {
    let hellos = [(true, client_hello("db.example.org")), (false, server_hello())];
    let said: Vec<_> = beginning.2.iter().cloned().chain(hellos).collect();
    connection(beginning.1, &said, most)
}

fn record_of(frames: &[Vec<u8>]) -> FlowRecord {
    let mut wire = Wire::new();
    wire.frames(frames);
    wire.only()
}

/// Application, server name and version.
fn told(record: &FlowRecord) -> (Option<&str>, Option<&str>, Option<&str>) {
    let tls = record.tls.as_ref();
    (record.app, tls.and_then(|tls| tls.sni.as_deref()), tls.and_then(|tls| tls.version))
}

#[test]
fn tls_is_found_after_a_plain_beginning() {
    for beginning in beginnings() {
        let record = record_of(&upgraded(&beginning, 1400));
        assert_eq!(told(&record), (Some(beginning.0), Some("db.example.org"), Some("1.2")), "port {}", beginning.1);
        assert!(record.tls.unwrap().ja4.unwrap().starts_with("t12d"));
    }
}

/// A client of SQL Server and its server, who wrap TLS' handshake into their own packets, but not what follows it.
pub(crate) fn sql_server(most: usize) -> Vec<Vec<u8>> {
    let packet = |kind: u8, payload: &[u8]| {
        joined(&[&[kind, 1], &(8 + payload.len() as u16).to_be_bytes(), &[0, 0, 1, 0], payload])
    };
    let options = [0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 11, 0, 6, 1, 0, 0, 0];
    let said = [
        (true, packet(0x12, &options)),
        (false, packet(4, &options)),
        (true, packet(0x12, &client_hello("db.example.org"))),
        (false, packet(0x12, &server_hello())),
        (true, vec![0x17, 3, 3, 0, 2, 1, 2]),
    ];
    connection(1433, &said, most)
}

#[test]
fn a_handshake_in_packets_of_sql_server_is_found() {
    for most in [1400, 40] {
        let record = record_of(&sql_server(most));
        assert_eq!(told(&record), (Some("mssql"), Some("db.example.org"), Some("1.2")), "{most}");
    }
}

/// A banner in many segments, and a server that does not take the client's highest version; whoever of both said much.
#[test]
fn who_said_much_before_the_hellos_is_still_heard() {
    let mut older = server_hello();
    older[10] = 2;
    for talkative in [true, false] {
        let mut said: Vec<_> = (0..12).map(|number| (talkative, format!("214-{number}\r\n").into_bytes())).collect();
        said.extend([(!talkative, b"AUTH TLS\r\n".to_vec())]);
        if talkative {
            // Only the server's hello is found.
            said.extend([(false, older.clone())]);
            assert_eq!(told(&record_of(&connection(21, &said, 1400))), (Some("tls"), None, Some("1.1")));
        } else {
            said.extend([(true, client_hello("db.example.org")), (false, older.clone())]);
            let record = record_of(&connection(21, &said, 1400));
            assert_eq!(told(&record), (Some("tls"), Some("db.example.org"), Some("1.1")));
        }
    }
    let long: Vec<_> = (0..6)
        .flat_map(|_| [(true, b"NOOP\r\n".to_vec()), (false, b"250 OK\r\n".to_vec())])
        .chain([(true, b"STARTTLS\r\n".to_vec()), (false, b"220 go\r\n".to_vec())])
        .collect();
    let record = record_of(&upgraded(&("tls", 25, long), 1400));
    assert_eq!(told(&record), (Some("tls"), Some("db.example.org"), Some("1.2")));
}

#[test]
fn what_a_proxy_says_first_hides_nothing() {
    let line = b"PROXY TCP4 10.0.0.1 10.0.0.2 40000 443\r\n".to_vec();
    let binary = joined(&[b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &[1; 12]]);
    for header in [line, binary] {
        let hello = client_hello("db.example.org");
        let joined = joined(&[&header, &hello]);
        for said in [vec![(true, joined)], vec![(true, header.clone()), (true, hello)]] {
            let record = record_of(&connection(443, &[said, vec![(false, server_hello())]].concat(), 1400));
            assert_eq!(told(&record), (Some("tls"), Some("db.example.org"), Some("1.2")));
        }
        let request = [&header, &b"GET /right HTTP/1.1\r\nHost: a\r\n\r\n"[..]].concat();
        let record = record_of(&connection(80, &[(true, request)], 1400));
        assert_eq!(record.http.unwrap().path.as_deref(), Some("/right"));
    }
}

/// The hello alone comes in several segments.
#[test]
fn a_hello_in_pieces_is_found_too() {
    for mut beginning in beginnings() {
        let hello = client_hello("db.example.org");
        let (first, rest) = hello.split_at(20);
        beginning.2.extend([(true, first.to_vec()), (true, rest.to_vec()), (false, server_hello())]);
        let record = record_of(&connection(beginning.1, &beginning.2, 1400));
        assert_eq!(told(&record), (Some(beginning.0), Some("db.example.org"), Some("1.2")), "port {}", beginning.1);
    }
}

#[test]
fn who_does_not_go_over_to_tls_is_who_he_is() {
    let refused = [
        (true, b"\0\0\0\x08\x04\xd2\x16\x2f".to_vec()),
        (false, b"N".to_vec()),
        (true, b"\0\0\0\x14\0\x03\0\0user\0alice\0\0".to_vec()),
    ];
    assert_eq!(told(&record_of(&connection(5432, &refused, 1400))), (Some("postgres"), None, None));
    let plain = &beginnings()[4].2[..1];
    let login = joined(&[&[0x50, 0, 0, 1, 0x85, 0xa6, 0xff, 0x19], &[0; 76]]);
    let said = [plain, &[(true, login)]].concat();
    assert_eq!(told(&record_of(&connection(3306, &said, 1400))), (Some("mysql"), None, None));
}

/// The message of Google's client, for a server of this name.
fn chlo(name: &str) -> Vec<u8> {
    let values: [(&[u8; 4], &[u8]); 4] =
        [(b"PAD\0", &[b'-'; 300]), (b"SNI\0", name.as_bytes()), (b"VER\0", b"Q043"), (b"UAID", b"test Linux")];
    let (mut index, mut text) = (Vec::new(), Vec::new());
    for (tag, value) in values {
        text.extend(value);
        index.extend(*tag);
        index.extend((text.len() as u32).to_le_bytes());
    }
    joined(&[b"CHLO", &[values.len() as u8, 0, 0, 0], &index, &text])
}

/// A frame of stream 1, with its offset and length.
fn stream_frame(offset: usize, data: &[u8]) -> Vec<u8> {
    let offset = offset as u16;
    let kind = if offset == 0 { 0xa0 } else { 0xa4 };
    let at = if offset == 0 { Vec::new() } else { offset.to_be_bytes().to_vec() };
    joined(&[&[kind, 1], &at, &(data.len() as u16).to_be_bytes(), data])
}

/// The hash of 128 bits that makes packets whole, without its last four bytes.
fn hash(header: &[u8], frames: &[u8]) -> [u8; 12] {
    let parts = [header, frames, b"Client"].concat();
    let step =
        |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    let hash = parts.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step);
    let bytes: [u8; 16] = hash.to_le_bytes();
    bytes[..12].try_into().unwrap()
}

/// A client's datagram of this version, padded.
pub(crate) fn google(version: [u8; 4], number: u8, frames: &[u8]) -> Vec<u8> {
    let header = match &version {
        b"Q046" => joined(&[&[0xc3], &version, &[0x50], b"connect!", &[0, 0, 0, number]]),
        b"Q050" => joined(&[&[0xc3], &version, &[8], b"connect!", &[0, 0, 0x44, 0xd0, 0, 0, 0, number]]),
        _ => joined(&[&[0x09], b"connect!", &version, &[number]]),
    };
    let mut frames = frames.to_vec();
    frames.resize(1200, 0);
    joined(&[&header, &hash(&header, &frames), &frames])
}

fn quic(datagrams: &[Vec<u8>]) -> FlowRecord {
    let mut wire = Wire::new();
    for datagram in datagrams {
        wire.frame(&frame(&ipv4(17, (ALICE, BOB), &udp(40_000, 443, datagram))));
    }
    wire.only()
}

/// Datagrams of each version that is read, with the name of a server.
pub(crate) fn google_hellos() -> Vec<(&'static str, Vec<u8>)> {
    let hello = stream_frame(0, &chlo("www.example.org"));
    let datagram = |version| google(version, 1, &hello);
    vec![("Q043", datagram(*b"Q043")), ("Q046", datagram(*b"Q046"))]
}

#[test]
fn the_name_in_googles_hello_is_read() {
    for (version, datagram) in google_hellos() {
        let record = quic(&[datagram]);
        assert_eq!(told(&record), (Some("quic"), Some("www.example.org"), Some(version)));
    }
    // What is encrypted is named.
    let record = quic(&[google(*b"Q050", 1, &[0x5a; 1000])]);
    assert_eq!(told(&record), (Some("quic"), None, Some("Q050")));
}

#[test]
fn googles_hello_may_come_in_parts_and_in_any_order() {
    let hello = chlo("www.example.org");
    let (first, rest) = hello.split_at(100);
    for version in [*b"Q043", *b"Q046"] {
        let packets = [stream_frame(100, rest), joined(&[&[7], &stream_frame(0, first)])];
        let datagrams = [google(version, 1, &packets[0]), google(version, 2, &packets[1])];
        assert_eq!(told(&quic(&datagrams)).1, Some("www.example.org"));
        let together = google(version, 1, &packets.iter().rev().flatten().copied().collect::<Vec<_>>());
        assert_eq!(told(&quic(&[together])).1, Some("www.example.org"));
    }
}

#[test]
fn what_is_no_hello_of_googles_is_named_all_the_same() {
    for frames in [stream_frame(0, b"REJ\0\0\0\0\0"), vec![0; 20], vec![0xa0, 1, 0xff, 0xff], stream_frame(9, b"CHLO")]
    {
        let record = quic(&[google(*b"Q043", 1, &frames)]);
        assert_eq!(told(&record), (Some("quic"), None, Some("Q043")));
    }
}

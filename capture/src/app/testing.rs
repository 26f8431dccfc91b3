//! Hand-made hellos for the tests of this folder.

/// A vector with one byte of length.
pub(super) fn vec8(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

/// A vector with two bytes of length.
pub(super) fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// A handshake message.
pub(super) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

/// A record of handshake messages.
pub(super) fn record(messages: &[u8]) -> Vec<u8> {
    [&[22, 3, 1], vec16(messages).as_slice()].concat()
}

/// A hello in the making.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    version: u16,
    random: [u8; 32],
    cookie: Option<Vec<u8>>,
    ciphers: Vec<u16>,
    extensions: Vec<(u16, Vec<u8>)>,
}

/// A hello with a legacy version and nothing else.
pub(super) fn hello(version: u16) -> Hello {
    Hello { version, random: [7; 32], cookie: None, ciphers: vec![0x1301], extensions: Vec::new() }
}

impl Hello {
    pub(super) fn ciphers(self, ciphers: &[u16]) -> Self {
        Self { ciphers: ciphers.to_vec(), ..self }
    }

    pub(super) fn random(self, random: [u8; 32]) -> Self {
        Self { random, ..self }
    }

    /// The cookie of DTLS.
    pub(super) fn cookie(self, cookie: &[u8]) -> Self {
        Self { cookie: Some(cookie.to_vec()), ..self }
    }

    pub(super) fn extension(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.push((kind, body.to_vec()));
        self
    }

    /// Empty extensions.
    pub(super) fn extensions(self, kinds: &[u16]) -> Self {
        kinds.iter().fold(self, |hello, kind| hello.extension(*kind, &[]))
    }

    pub(super) fn name(self, name: &str) -> Self {
        self.extension(0, &vec16(&[&[0], vec16(name.as_bytes()).as_slice()].concat()))
    }

    pub(super) fn alpn(self, protocols: &[&[u8]]) -> Self {
        let list: Vec<u8> = protocols.iter().flat_map(|protocol| vec8(protocol)).collect();
        self.extension(16, &vec16(&list))
    }

    pub(super) fn versions(self, versions: &[u16]) -> Self {
        self.extension(43, &vec8(&numbers(versions)))
    }

    pub(super) fn algorithms(self, algorithms: &[u16]) -> Self {
        self.extension(13, &vec16(&numbers(algorithms)))
    }

    /// As a client's message body.
    pub(super) fn client(&self) -> Vec<u8> {
        let mut body = self.begin();
        if let Some(cookie) = &self.cookie {
            body.extend(vec8(cookie));
        }
        body.extend(vec16(&numbers(&self.ciphers)));
        body.extend([1, 0]);
        body.extend(self.end());
        body
    }

    /// As a server's message body; it chooses the first cipher.
    pub(super) fn server(&self) -> Vec<u8> {
        let mut body = self.begin();
        body.extend(numbers(&self.ciphers[..1]));
        body.push(0);
        body.extend(self.end());
        body
    }

    fn begin(&self) -> Vec<u8> {
        [&self.version.to_be_bytes()[..], &self.random, &vec8(b"session")].concat()
    }

    fn end(&self) -> Vec<u8> {
        let extensions: Vec<u8> =
            self.extensions.iter().flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &vec16(body)].concat()).collect();
        vec16(&extensions)
    }
}

fn numbers(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// The ClientHello of the JA4 specification, with GREASE where browsers put it.
pub(super) fn browser() -> Hello {
    hello(0x0303)
        .ciphers(&[
            0x3a3a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
            0x009d, 0x002f, 0x0035,
        ])
        .extensions(&[0xdada, 0x001b])
        .name("Shop.example")
        .extension(0x0033, &[0; 40])
        .alpn(&[b"h2", b"http/1.1"])
        .extensions(&[0x4469, 0x0017, 0x002d])
        .algorithms(&[0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601])
        .extensions(&[0x0005, 0x0023, 0x0012])
        .versions(&[0x6a6a, 0x0304, 0x0303])
        .extensions(&[0xff01, 0x000b, 0x000a, 0x8a8a, 0x0015])
}

/// Its fingerprint, as the specification prints it.
pub(super) const BROWSER_JA4: &str = "t13d1516h2_8daaf6152771_e5627efa2ab1";

/// Bytes of a file of hex digits.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.as_chunks().0.iter().map(|[high, low]| high << 4 | low).collect()
}

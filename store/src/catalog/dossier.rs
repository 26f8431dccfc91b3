//! A dossier in bytes: a version, then facts.
//!
//! Numbers are LEB128, signed ones zigzag; a time is the difference to the one before it in the dossier; a text that many
//! dossiers have is its number in the table `texts`, another one is its length and UTF-8; a list is its length and its
//! entries. Bytes from elsewhere give an error and never a panic.

use std::net::IpAddr;
use std::sync::Arc;

use wiretag_enrich::timeline::dossier::{AliasFact, AttributesFact, ClaimFact, Closed, Dossier, EndFact, Frees};
use wiretag_enrich::{Identity, Key, Member};

/// The first byte.
const VERSION: u8 = 1;

/// Texts that many dossiers have, by number.
pub(super) trait Texts {
    /// A name.
    fn name(&mut self, number: u64) -> Option<Arc<str>>;
    /// Attributes.
    fn base(&mut self, number: u64) -> Option<Arc<Identity>>;
}

/// Writes facts; `number` gives the number of a text.
pub(super) struct Writer<'a, F> {
    bytes: Vec<u8>,
    time: i64,
    number: &'a mut F,
}

impl<'a, F: FnMut(&str) -> u64> Writer<'a, F> {
    /// The facts of a dossier, whose attributes in JSON are `bases`.
    pub(super) fn write(dossier: &Dossier, bases: &[String], number: &'a mut F) -> Vec<u8> {
        let mut own = Self { bytes: vec![VERSION], time: 0, number };
        own.byte(u8::from(dossier.alias.is_some()));
        if let Some(alias) = &dossier.alias {
            own.alias(alias);
        }
        own.number(dossier.attributes.len() as u64);
        for (fact, base) in dossier.attributes.iter().zip(bases) {
            own.text(base);
            own.optional(fact.pod.as_ref());
            own.optional(fact.container.as_ref());
            own.text(&fact.source);
            own.time(fact.from);
            own.time(fact.learned_at);
        }
        own.number(dossier.claims.len() as u64);
        for claim in &dossier.claims {
            own.claim(claim);
        }
        own.number(dossier.ends.len() as u64);
        for end in &dossier.ends {
            own.end(end);
        }
        own.bytes
    }

    fn alias(&mut self, alias: &AliasFact) {
        self.string(&alias.identity);
        self.byte(u8::from(alias.member.is_some()));
        if let Some(member) = &alias.member {
            self.string(&member.container);
            self.optional(member.image.as_ref());
            self.number(member.ports.len() as u64);
            for (protocol, port) in &member.ports {
                self.byte(*protocol);
                self.number(u64::from(*port));
            }
        }
        self.text(&alias.source);
        self.time(alias.learned_at);
    }

    fn claim(&mut self, claim: &ClaimFact) {
        self.key(&claim.key);
        self.text(&claim.source);
        self.time(claim.from);
        self.time(claim.learned_at);
        match claim.closed {
            None => self.byte(0),
            Some(Closed { to, unheard, learned_at }) => {
                self.byte(if unheard { 2 } else { 1 });
                self.time(to);
                self.time(learned_at);
            }
        }
    }

    fn end(&mut self, end: &EndFact) {
        self.time(end.at);
        self.time(end.learned_at);
        self.text(&end.source);
        match &end.frees {
            Frees::All => self.byte(0),
            Frees::Network(network) => {
                self.byte(1);
                self.text(network);
            }
            Frees::Key(key) => {
                self.byte(2);
                self.key(key);
            }
        }
    }

    fn key(&mut self, key: &Key) {
        match key {
            Key::Interface { index, netns, boot } => {
                self.byte(0);
                self.number(u64::from(*index));
                self.number(*netns);
                self.text(boot);
            }
            Key::Mac { network, mac } => {
                self.byte(1);
                self.text(network);
                self.bytes.extend_from_slice(mac);
            }
            Key::Ip { network, ip } => {
                self.byte(2);
                self.text(network);
                self.ip(*ip);
            }
            Key::Socket { netns, boot, protocol, ip, port } => {
                self.byte(3);
                self.number(*netns);
                self.text(boot);
                self.byte(*protocol);
                self.byte(u8::from(ip.is_some()));
                if let Some(ip) = ip {
                    self.ip(*ip);
                }
                self.number(u64::from(*port));
            }
            Key::Range { network, ip, prefix } => {
                self.byte(5);
                self.text(network);
                self.ip(*ip);
                self.byte(*prefix);
            }
            Key::Service { network, protocol, ip, port } => {
                self.byte(4);
                self.text(network);
                self.byte(*protocol);
                self.ip(*ip);
                self.number(u64::from(*port));
            }
        }
    }

    fn ip(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => {
                self.byte(4);
                self.bytes.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                self.byte(6);
                self.bytes.extend_from_slice(&ip.octets());
            }
        }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn time(&mut self, time: i64) {
        let step = time.wrapping_sub(self.time);
        self.time = time;
        self.number(((step << 1) ^ (step >> 63)) as u64);
    }

    fn string(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    fn optional(&mut self, text: Option<&Arc<str>>) {
        self.byte(u8::from(text.is_some()));
        if let Some(text) = text {
            self.string(text);
        }
    }

    fn text(&mut self, text: &str) {
        let number = (self.number)(text);
        self.number(number);
    }
}

/// The bytes are no dossier of this version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// Reads facts.
pub(super) struct Reader<'a, T> {
    bytes: &'a [u8],
    time: i64,
    texts: &'a mut T,
}

impl<'a, T: Texts> Reader<'a, T> {
    /// The dossier of `id`.
    pub(super) fn read(id: Arc<str>, bytes: &'a [u8], texts: &'a mut T) -> Result<Dossier, Broken> {
        let mut own = Self { bytes, time: 0, texts };
        if own.byte()? != VERSION {
            return Err(Broken);
        }
        let alias = if own.byte()? == 1 { Some(own.alias()?) } else { None };
        let attributes = own.list(Self::attributes)?;
        let claims = own.list(Self::claim)?;
        let ends = own.list(Self::end)?;
        Ok(Dossier { id, alias, attributes, claims, ends })
    }

    fn list<V>(&mut self, mut entry: impl FnMut(&mut Self) -> Result<V, Broken>) -> Result<Vec<V>, Broken> {
        let length = usize::try_from(self.number()?).map_err(|_| Broken)?;
        // Each entry takes a byte at least.
        let mut list = Vec::with_capacity(length.min(self.bytes.len()));
        for _ in 0..length {
            list.push(entry(self)?);
        }
        Ok(list)
    }

    fn alias(&mut self) -> Result<AliasFact, Broken> {
        let identity = self.string()?;
        let member = if self.byte()? == 1 {
            let (container, image) = (self.string()?, self.optional()?);
            let ports = self.list(|own| Ok((own.byte()?, own.port()?)))?;
            Some(Member { container, image, ports })
        } else {
            None
        };
        Ok(AliasFact { identity, member, source: self.text()?, learned_at: self.time()? })
    }

    fn attributes(&mut self) -> Result<AttributesFact, Broken> {
        let number = self.number()?;
        let base = self.texts.base(number).ok_or(Broken)?;
        let (pod, container, source) = (self.optional()?, self.optional()?, self.text()?);
        Ok(AttributesFact { base, pod, container, source, from: self.time()?, learned_at: self.time()? })
    }

    fn claim(&mut self) -> Result<ClaimFact, Broken> {
        let (key, source, from, learned_at) = (self.key()?, self.text()?, self.time()?, self.time()?);
        let closed = match self.byte()? {
            0 => None,
            kind @ (1 | 2) => Some(Closed { to: self.time()?, unheard: kind == 2, learned_at: self.time()? }),
            _ => return Err(Broken),
        };
        Ok(ClaimFact { key, source, from, learned_at, closed })
    }

    fn end(&mut self) -> Result<EndFact, Broken> {
        let (at, learned_at, source) = (self.time()?, self.time()?, self.text()?);
        let frees = match self.byte()? {
            0 => Frees::All,
            1 => Frees::Network(self.text()?),
            2 => Frees::Key(self.key()?),
            _ => return Err(Broken),
        };
        Ok(EndFact { at, source, learned_at, frees })
    }

    fn key(&mut self) -> Result<Key, Broken> {
        Ok(match self.byte()? {
            0 => Key::Interface {
                index: u32::try_from(self.number()?).map_err(|_| Broken)?,
                netns: self.number()?,
                boot: self.text()?,
            },
            1 => Key::Mac { network: self.text()?, mac: self.array()? },
            2 => Key::Ip { network: self.text()?, ip: self.ip()? },
            3 => Key::Socket {
                netns: self.number()?,
                boot: self.text()?,
                protocol: self.byte()?,
                ip: if self.byte()? == 1 { Some(self.ip()?) } else { None },
                port: self.port()?,
            },
            4 => Key::Service { network: self.text()?, protocol: self.byte()?, ip: self.ip()?, port: self.port()? },
            5 => Key::Range { network: self.text()?, ip: self.ip()?, prefix: self.byte()? },
            _ => return Err(Broken),
        })
    }

    fn port(&mut self) -> Result<u16, Broken> {
        u16::try_from(self.number()?).map_err(|_| Broken)
    }

    fn ip(&mut self) -> Result<IpAddr, Broken> {
        Ok(match self.byte()? {
            4 => IpAddr::from(self.array::<4>()?),
            6 => IpAddr::from(self.array::<16>()?),
            _ => return Err(Broken),
        })
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        let (first, rest) = self.bytes.split_first().ok_or(Broken)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let (first, rest) = self.bytes.split_first_chunk::<N>().ok_or(Broken)?;
        self.bytes = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, Broken> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift).ok_or(Broken)?;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken)
    }

    fn time(&mut self) -> Result<i64, Broken> {
        let number = self.number()?;
        let step = (number >> 1) as i64 ^ -((number & 1) as i64);
        self.time = self.time.wrapping_add(step);
        Ok(self.time)
    }

    fn string(&mut self) -> Result<Arc<str>, Broken> {
        let length = usize::try_from(self.number()?).map_err(|_| Broken)?;
        let (text, rest) = self.bytes.split_at_checked(length).ok_or(Broken)?;
        self.bytes = rest;
        Ok(std::str::from_utf8(text).map_err(|_| Broken)?.into())
    }

    fn optional(&mut self) -> Result<Option<Arc<str>>, Broken> {
        Ok(if self.byte()? == 1 { Some(self.string()?) } else { None })
    }

    fn text(&mut self) -> Result<Arc<str>, Broken> {
        let number = self.number()?;
        self.texts.name(number).ok_or(Broken)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    struct Table(HashMap<u64, String>);

    impl Texts for Table {
        fn name(&mut self, number: u64) -> Option<Arc<str>> {
            self.0.get(&number).map(|text| text.as_str().into())
        }

        fn base(&mut self, number: u64) -> Option<Arc<Identity>> {
            serde_json::from_str(self.0.get(&number)?).ok()
        }
    }

    fn dossier() -> Dossier {
        let keys = [
            Key::Interface { index: 7, netns: 4_026_531_840, boot: "boot".into() },
            Key::Mac { network: "net".into(), mac: [2, 0, 0, 0, 0, 1] },
            Key::Ip { network: "net".into(), ip: "fd00::7".parse().unwrap() },
            Key::Socket { netns: 0, boot: "boot".into(), protocol: 6, ip: None, port: 443 },
            Key::Service { network: "net".into(), protocol: 17, ip: "10.96.0.10".parse().unwrap(), port: 53 },
            Key::Range { network: "".into(), ip: "2001:db8::".parse().unwrap(), prefix: 32 },
        ];
        let claim = |(number, key): (usize, Key)| ClaimFact {
            key,
            source: "cni".into(),
            from: 1_780_000_000_000_000_000 + number as i64,
            learned_at: 1_780_000_000_000_000_100,
            closed: (number > 1).then_some(Closed { to: i64::MAX - 1, unheard: number == 2, learned_at: 5 }),
        };
        let member = Member { container: "app".into(), image: Some("app:1".into()), ports: vec![(6, 8080)] };
        let (identity, source) = ("uid".into(), "cri".into());
        let end = |frees| EndFact { at: -3, source: "cri".into(), learned_at: i64::MIN, frees };
        let base = Arc::new(Identity { zone: Some("z".into()), ..Identity::default() });
        let (pod, source_of_base) = (Some("web-0".into()), "kubernetes".into());
        Dossier {
            id: "id".into(),
            alias: Some(AliasFact { identity, member: Some(member), source, learned_at: 9 }),
            attributes: vec![AttributesFact {
                base,
                pod,
                container: None,
                source: source_of_base,
                from: 0,
                learned_at: 1,
            }],
            claims: keys.clone().into_iter().enumerate().map(claim).collect(),
            ends: vec![end(Frees::All), end(Frees::Network("net".into())), end(Frees::Key(keys[0].clone()))],
        }
    }

    fn written(dossier: &Dossier) -> (Vec<u8>, Table) {
        let bases: Vec<String> =
            dossier.attributes.iter().map(|fact| serde_json::to_string(&*fact.base).unwrap()).collect();
        let mut numbers: HashMap<String, u64> = HashMap::new();
        let mut number = |text: &str| {
            let next = numbers.len() as u64 + 1;
            *numbers.entry(text.to_owned()).or_insert(next)
        };
        let bytes = Writer::write(dossier, &bases, &mut number);
        (bytes, Table(numbers.into_iter().map(|(text, number)| (number, text)).collect()))
    }

    #[test]
    fn what_was_written_is_read() {
        let own = dossier();
        let (bytes, mut texts) = written(&own);
        assert_eq!(Reader::read("id".into(), &bytes, &mut texts), Ok(own));
    }

    #[test]
    fn no_bytes_make_it_panic_or_allocate_without_end() {
        let (bytes, mut texts) = written(&dossier());
        for length in 0..bytes.len() {
            assert_eq!(Reader::read("id".into(), &bytes[..length], &mut texts), Err(Broken), "{length}");
        }
        for index in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut broken = bytes.clone();
                broken[index] = value;
                let _ = Reader::read("id".into(), &broken, &mut texts);
            }
        }
    }
}

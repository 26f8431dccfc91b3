//! Settings of flows that come from others and go to others: `[netflow]` and `[ipfix]`.

use std::net::{IpAddr, SocketAddr};

use anyhow::bail;
use serde::Deserialize;
use wiretag_enrich::ipfix::Numbers;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `listen`, `exporters` and `buffer_mib`")]
pub(super) struct WrittenNetflow {
    listen: Option<SocketAddr>,
    exporters: Vec<String>,
    buffer_mib: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table with `export`, `enterprise`, `domain` and `templates`")]
pub(super) struct WrittenIpfix {
    export: Option<String>,
    enterprise: Option<u32>,
    domain: Option<u32>,
    templates: Option<u32>,
}

/// How records of exporters are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetflowConfig {
    pub(crate) listen: SocketAddr,
    /// Who is heard; empty: only this machine.
    pub(crate) exporters: Vec<Network>,
    /// Bytes that the kernel holds of what was not read yet.
    pub(crate) buffer: usize,
}

impl NetflowConfig {
    /// Whether datagrams from an address are read.
    pub(crate) fn hears(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        if self.exporters.is_empty() {
            return from.is_loopback();
        }
        self.exporters.iter().any(|network| network.contains(from))
    }
}

/// How rows are exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IpfixConfig {
    /// Host and port of the receiver.
    pub(crate) export: String,
    pub(crate) numbers: Numbers,
    /// Time after which templates are sent again, ns.
    pub(crate) templates: i64,
}

/// Addresses with a common beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    ip: IpAddr,
    prefix: u8,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
        let ip: IpAddr = ip.parse().ok()?;
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(most), |prefix| prefix.parse().ok())?;
        (prefix <= most).then_some(Self { ip, prefix })
    }

    fn contains(self, other: IpAddr) -> bool {
        let differ = match (self.ip, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()).leading_zeros(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differ >= u32::from(self.prefix)
    }
}

pub(super) fn netflow(written: &WrittenNetflow) -> anyhow::Result<Option<NetflowConfig>> {
    let mut exporters = Vec::new();
    for text in &written.exporters {
        let Some(network) = Network::parse(text) else {
            bail!("`netflow.exporters` has `{text}`; hint: an address, or a network as in `192.0.2.0/24`");
        };
        exporters.push(network);
    }
    let Some(listen) = written.listen else {
        if !exporters.is_empty() {
            bail!("`netflow.exporters` is written without `netflow.listen`; hint: `listen = \"127.0.0.1:2055\"`");
        }
        return Ok(None);
    };
    if exporters.is_empty() && !listen.ip().is_loopback() {
        bail!(
            "`netflow.listen` is `{listen}`, which others can reach; hint: name who is heard in `netflow.exporters`, as in `[\"192.0.2.0/24\"]`"
        );
    }
    let mib = written.buffer_mib.unwrap_or(8);
    if !(1..=1024).contains(&mib) {
        bail!("`netflow.buffer_mib` is {mib}; hint: between 1 and 1024");
    }
    Ok(Some(NetflowConfig { listen, exporters, buffer: (mib as usize) << 20 }))
}

/// Also of files, wherever rows are exported to.
pub(super) fn numbers(written: &WrittenIpfix) -> anyhow::Result<Numbers> {
    let Numbers { domain, enterprise } = Numbers::default();
    if written.enterprise == Some(0) {
        bail!("`ipfix.enterprise` is 0, which is the IETF's; hint: your organisation's private enterprise number");
    }
    Ok(Numbers { domain: written.domain.unwrap_or(domain), enterprise: written.enterprise.unwrap_or(enterprise) })
}

pub(super) fn ipfix(written: WrittenIpfix) -> anyhow::Result<Option<IpfixConfig>> {
    let templates = written.templates.unwrap_or(60);
    if !(1..=3600).contains(&templates) {
        bail!("`ipfix.templates` is {templates}; hint: between 1 and 3600 seconds");
    }
    let numbers = numbers(&written)?;
    let Some(export) = written.export else { return Ok(None) };
    let is_address =
        export.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if !is_address {
        bail!("`ipfix.export` is `{export}`; hint: a host and a port, as in `collector.example:4739`");
    }
    Ok(Some(IpfixConfig { export, numbers, templates: i64::from(templates) * 1_000_000_000 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(text: &str) -> Result<Option<NetflowConfig>, String> {
        let written: WrittenNetflow = toml::from_str(text).expect("TOML");
        netflow(&written).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_is_heard_unless_that_is_written() {
        assert_eq!(listener(""), Ok(None));
        let own = listener("listen = '127.0.0.1:2055'").expect("a listener").expect("wanted");
        assert!(own.hears([127, 0, 0, 1].into()) && !own.hears([192, 0, 2, 1].into()));
        assert!(own.hears("::ffff:127.0.0.1".parse().expect("an address")));
        for (text, part) in [
            ("listen = '0.0.0.0:2055'", "`netflow.exporters`"),
            ("exporters = ['192.0.2.1']", "without `netflow.listen`"),
            ("listen = '127.0.0.1:1'\nexporters = ['192.0.2.0/33']", "`192.0.2.0/33`"),
            ("listen = '127.0.0.1:1'\nexporters = ['switch']", "`switch`"),
            ("listen = '127.0.0.1:1'\nbuffer_mib = 0", "between 1 and 1024"),
        ] {
            let error = listener(text).expect_err(text);
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn exporters_are_addresses_and_networks() {
        let text = "listen = '0.0.0.0:2055'\nexporters = ['192.0.2.0/24', '10.0.0.7', '2001:db8::/32']";
        let own = listener(text).expect("a listener").expect("wanted");
        for (ip, heard) in [
            ("192.0.2.9", true),
            ("192.0.3.9", false),
            ("10.0.0.7", true),
            ("10.0.0.8", false),
            ("2001:db8:7::1", true),
            ("2001:db9::1", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(own.hears(ip.parse().expect("an address")), heard, "{ip}");
        }
        let all = listener("listen = '0.0.0.0:1'\nexporters = ['0.0.0.0/0']").expect("a listener").expect("wanted");
        assert!(all.hears([8, 8, 8, 8].into()));
    }

    #[test]
    fn a_receiver_is_a_host_and_a_port() {
        let exporter = |text: &str| ipfix(toml::from_str(text).expect("TOML")).map_err(|error| error.to_string());
        assert_eq!(exporter(""), Ok(None));
        let own = exporter("export = 'collector:4739'").expect("an exporter").expect("wanted");
        assert_eq!((own.numbers, own.templates), (Numbers::default(), 60_000_000_000));
        let own =
            exporter("export = 'collector:4739'\nenterprise = 7\ndomain = 8").expect("an exporter").expect("wanted");
        assert_eq!(own.numbers, Numbers { domain: 8, enterprise: 7 });
        for wrong in [
            "export = 'collector'",
            "export = ':4739'",
            "export = 'a:b'",
            "export = 'a:1'\ntemplates = 0",
            "export = 'a:1'\nenterprise = 0",
        ] {
            assert!(exporter(wrong).expect_err(wrong).contains("hint: "));
        }
    }
}

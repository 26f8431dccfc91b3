//! Route netlink messages (`rtnetlink(7)`), as far as listing links needs them. Pure: bytes to [`Link`]s.

use super::links::{Link, LinkKind};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_INFO_KIND: u16 = 1;

/// Bytes of `ifinfomsg`.
const LINK_HEADER: usize = 16;

/// The request for all links.
pub(super) fn dump_request() -> Vec<u8> {
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    message.extend([0; 8 + LINK_HEADER]);
    message
}

/// How a datagram of a dump ends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
    /// The kernel refused, with this error number.
    Refused(i32),
}

/// Appends the links of a datagram.
pub(super) fn parse(mut datagram: &[u8], links: &mut Vec<Link>) -> Progress {
    while let Some(head) = datagram.first_chunk::<16>() {
        let length = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        let Some(body) = datagram.get(16..length) else { return Progress::More };
        match kind {
            NLMSG_DONE => return Progress::Done,
            NLMSG_ERROR => return Progress::Refused(i32_at(body, 0).unwrap_or(0)),
            RTM_NEWLINK => links.extend(link(body)),
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Progress::More
}

fn link(body: &[u8]) -> Option<Link> {
    let index = i32_at(body, 4)?.cast_unsigned();
    let flags = i32_at(body, 8)?.cast_unsigned();
    let mut link = Link {
        index,
        name: String::new(),
        kind: if flags & IFF_LOOPBACK == 0 { LinkKind::Physical } else { LinkKind::Loopback },
        mac: None,
        up: flags & IFF_UP != 0,
        master: None,
        peer: None,
        peer_namespace: None,
    };
    for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            IFLA_MASTER => link.master = i32_at(value, 0).map(i32::cast_unsigned),
            IFLA_LINK => link.peer = i32_at(value, 0).map(i32::cast_unsigned),
            IFLA_LINK_NETNSID => link.peer_namespace = i32_at(value, 0),
            IFLA_LINKINFO => {
                let info = attributes(value).find(|(kind, _)| *kind == IFLA_INFO_KIND);
                link.kind = info.map_or(link.kind, |(_, name)| kind_of(&text(name)));
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind_of(name: &str) -> LinkKind {
    match name {
        "veth" => LinkKind::Veth,
        "bridge" => LinkKind::Bridge,
        "tun" => LinkKind::Tun,
        "vxlan" => LinkKind::Vxlan,
        "macvlan" | "macvtap" => LinkKind::Macvlan,
        "ipvlan" | "ipvtap" => LinkKind::Ipvlan,
        "vrf" => LinkKind::Vrf,
        _ => LinkKind::Other,
    }
}

/// Type and value of each attribute, as far as they are whole.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let head = bytes.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| i32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).expect("short");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn an_ipvlan_has_no_link_layer_address_of_its_own() {
        let mac = [2, 0, 0, 0, 0, 1];
        for (name, kind, own) in [
            ("ipvlan", LinkKind::Ipvlan, None),
            ("ipvtap", LinkKind::Ipvlan, None),
            ("macvlan", LinkKind::Macvlan, Some(mac)),
            ("veth", LinkKind::Veth, Some(mac)),
        ] {
            let mut body = vec![0; LINK_HEADER];
            body[4] = 7;
            body.extend(attribute(IFLA_IFNAME, b"eth0\0"));
            body.extend(attribute(IFLA_ADDRESS, &mac));
            body.extend(attribute(IFLA_LINKINFO, &attribute(IFLA_INFO_KIND, format!("{name}\0").as_bytes())));
            let link = link(&body).expect("a link");
            assert_eq!((link.index, link.name.as_str(), link.kind, link.own_mac()), (7, "eth0", kind, own));
            assert_eq!(link.mac, Some(mac));
        }
    }
}

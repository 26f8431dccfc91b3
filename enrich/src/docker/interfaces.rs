//! Which interface belongs to a container's endpoint: by link-layer address inside the container (an end of a veth that is
//! still on the host has not got the endpoint's address yet), and by that its peer on the host. An ipvlan has the link-layer address of
//! the device below, as the host and all containers there, and is told by its addresses.

use std::net::IpAddr;
use std::path::PathBuf;

use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::{in_namespace, namespace_inode};

use super::inspect::Addresses;
use crate::kernel::addresses;

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}

/// Interfaces of wiretag's own namespace.
pub(super) async fn of_host() -> Vec<Link> {
    blocking(links::list).await.and_then(Result::ok).unwrap_or_default()
}

/// Whether `outside` is the host's end of the veth `inside`: each names the other as its peer.
fn are_pair(inside: &Link, outside: &Link) -> bool {
    let veths = inside.kind == LinkKind::Veth && outside.kind == LinkKind::Veth;
    veths && inside.peer == Some(outside.index) && outside.peer == Some(inside.index)
}

/// Links inside a container's namespace, and those of the host.
pub(super) struct Inside {
    pub(super) inode: u64,
    pub(super) path: PathBuf,
    links: Vec<Link>,
    outside: Vec<Link>,
    addresses: Vec<(u32, IpAddr)>,
}

impl Inside {
    /// The interface of an endpoint: the one with its link-layer address, and of several (ipvlan) or where Docker does not tell that,
    /// the one with an address of its own.
    pub(super) fn link(&self, endpoint: &Addresses) -> Option<&Link> {
        let fits =
            |link: &&Link| link.kind != LinkKind::Loopback && endpoint.mac.is_none_or(|mac| link.mac == Some(mac));
        let mut fitting = self.links.iter().filter(fits);
        if let (Some(_), only, None) = (endpoint.mac, fitting.next(), fitting.next()) {
            return only;
        }
        let has_ip = |link: &&Link| self.addresses(link).any(|ip| endpoint.ips.contains(&ip));
        self.links.iter().filter(fits).find(has_ip)
    }

    /// Addresses that an interface has.
    pub(super) fn addresses(&self, link: &Link) -> impl Iterator<Item = IpAddr> {
        let own = self.addresses.iter().filter(|(index, _)| *index == link.index);
        own.map(|(_, ip)| *ip)
    }

    /// The host's end of a veth.
    pub(super) fn host_end(&self, inside: &Link) -> Option<u32> {
        self.outside.iter().find(|outside| are_pair(inside, outside)).map(|outside| outside.index)
    }
}

/// Looks into the namespace of a process; `None` if it is gone, or is in wiretag's own namespace.
pub(super) async fn look_inside(pid: i64) -> Option<Inside> {
    let look = move || {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let inode = namespace_inode(&path).ok()?;
        let own = namespace_inode(std::path::Path::new("/proc/self/ns/net")).ok()?;
        let outside = links::list().ok()?;
        let (links, addresses) = in_namespace(&path, || (links::list(), addresses::own())).ok()?;
        let (links, addresses) = (links.ok()?, addresses.unwrap_or_default());
        (own != inode).then_some(Inside { inode, path, links, outside, addresses })
    };
    blocking(look).await.flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BELOW: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(index: u32, kind: LinkKind, mac: [u8; 6]) -> Link {
        let name = format!("eth{index}");
        Link { index, name, kind, mac: Some(mac), up: true, master: None, peer: None, peer_namespace: None }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn found(inside: &Inside, last: u8, mac: Option<[u8; 6]>) -> Option<u32> {
        inside.link(&Addresses { ips: vec![ip(last)], mac, endpoint: None }).map(|link| link.index)
    }

    #[test]
    fn interfaces_with_the_link_layer_address_of_the_device_below_are_told_by_their_addresses() {
        let own = [2, 0, 0, 0, 0, 9];
        let links = vec![
            link(1, LinkKind::Loopback, [0; 6]),
            link(2, LinkKind::Ipvlan, BELOW),
            link(3, LinkKind::Ipvlan, BELOW),
            link(4, LinkKind::Macvlan, own),
        ];
        let addresses = vec![(1, ip(1)), (2, ip(2)), (3, ip(3))];
        let inside = Inside { inode: 7, path: PathBuf::new(), links, outside: Vec::new(), addresses };
        for mac in [None, Some(BELOW)] {
            assert_eq!((found(&inside, 2, mac), found(&inside, 3, mac)), (Some(2), Some(3)), "{mac:?}");
        }
        // Its addresses may come later; one of nobody's is nobody's, nor is the loopback's.
        assert_eq!(found(&inside, 4, Some(own)), Some(4));
        assert_eq!(
            (found(&inside, 5, Some(BELOW)), found(&inside, 5, None), found(&inside, 1, None)),
            (None, None, None)
        );
    }
}

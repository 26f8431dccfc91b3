//! Which interface belongs to a container's endpoint: by link-layer address inside the container (an end of a veth that is
//! still on the host has not got the endpoint's address yet), and by that its peer on the host.

use std::net::IpAddr;
use std::path::PathBuf;

use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::{in_namespace, namespace_inode};

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
    /// The interface with a link-layer address.
    pub(super) fn link(&self, mac: [u8; 6]) -> Option<&Link> {
        self.links.iter().find(|link| link.mac == Some(mac))
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

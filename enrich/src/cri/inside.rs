//! Looks into a pod's network namespace: which interfaces there are, and where their traffic passes on the host.

use std::path::{Path, PathBuf};

use wiretag_capture::ring::links::{self, Link, LinkKind};
use wiretag_capture::ring::{in_namespace, namespace_inode};

use super::facts::{Inside, Interface};
use crate::kernel::addresses;

/// Takes the first path that leads to a namespace; `None` if it is gone or is wiretag's own.
pub(super) async fn look(netns: Vec<PathBuf>) -> Option<Inside> {
    tokio::task::spawn_blocking(move || netns.iter().find_map(|path| look_now(path))).await.ok().flatten()
}

fn look_now(netns: &Path) -> Option<Inside> {
    let inode = namespace_inode(netns).ok()?;
    if inode == namespace_inode(Path::new("/proc/self/ns/net")).ok()? {
        return None;
    }
    let (inside, addresses) = in_namespace(netns, || (links::list(), addresses::own())).ok()?;
    let (inside, addresses) = (inside.ok()?, addresses.unwrap_or_default());
    let outside = links::list().ok()?;
    let own = inside.iter().filter(|link| link.kind != LinkKind::Loopback && carries(link));
    let interfaces = own.map(|link| {
        let end = host_end(link, &outside);
        let ips = addresses.iter().filter(|(index, _)| *index == link.index).map(|(_, ip)| *ip);
        Interface {
            name: link.name.clone(),
            index: link.index,
            mac: link.own_mac(),
            outside: end.map(|end| (end.index, bridge(end, &outside).map(|bridge| bridge.index))),
            ips: ips.collect(),
            on: attached_to(link, end, &outside).map(|device| device.name.clone()),
        }
    });
    Some(Inside { path: netns.to_owned(), inode, interfaces: interfaces.collect() })
}

/// Tunnel devices that the kernel puts into each namespace are down and carry nothing.
fn carries(link: &Link) -> bool {
    link.up
        && matches!(
            link.kind,
            LinkKind::Veth
                | LinkKind::Macvlan
                | LinkKind::Ipvlan
                | LinkKind::Physical
                | LinkKind::Other
                | LinkKind::Vxlan
        )
}

/// The host's end of a veth: each end names the other.
fn host_end<'a>(inside: &Link, outside: &'a [Link]) -> Option<&'a Link> {
    let is_veth = |link: &Link| link.kind == LinkKind::Veth;
    let pair = |link: &&Link| is_veth(link) && inside.peer == Some(link.index) && link.peer == Some(inside.index);
    outside.iter().filter(|_| is_veth(inside)).find(pair)
}

/// The bridge that the host's end of a veth is a port of.
fn bridge<'a>(end: &Link, outside: &'a [Link]) -> Option<&'a Link> {
    outside.iter().filter(|link| link.kind == LinkKind::Bridge).find(|link| end.master == Some(link.index))
}

/// The host's device that an interface shares with its neighbours. Which namespace a macvlan's or ipvlan's lower device is in is told by
/// a number of the namespace's own: it is the host's if there is such a device at all.
fn attached_to<'a>(inside: &Link, end: Option<&Link>, outside: &'a [Link]) -> Option<&'a Link> {
    match end {
        Some(end) => outside.iter().find(|link| end.master == Some(link.index)),
        None if matches!(inside.kind, LinkKind::Macvlan | LinkKind::Ipvlan) && inside.peer_namespace.is_some() => {
            outside.iter().find(|link| inside.peer == Some(link.index))
        }
        None => None,
    }
}

//! Keys in small: names of networks and boots are numbers.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use super::ranges::first_of;
use crate::identity::Key;

/// A [`Key`] of which each name is a number of [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Interface { index: u32, netns: u64, boot: u32 },
    Mac { network: u32, mac: [u8; 6] },
    Ip { network: u32, ip: IpAddr },
    Range { network: u32, ip: IpAddr, prefix: u8 },
    Socket { netns: u64, boot: u32, protocol: u8, ip: Option<IpAddr>, port: u16 },
    Service { network: u32, protocol: u8, ip: IpAddr, port: u16 },
}

/// In whole words: hashed byte by byte, as derived, it would be most of a lookup.
impl Hash for Place {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        let spot = |kind: u32, protocol: u8, port: u16| kind << 24 | u32::from(protocol) << 16 | u32::from(port);
        let (name, rest, number, ip) = match *self {
            Self::Interface { index, netns, boot } => (boot, index, netns, None),
            Self::Mac { network, mac } => {
                (network, 1, mac.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)), None)
            }
            Self::Ip { network, ip } => (network, 2, 0, Some(ip)),
            Self::Range { network, ip, prefix } => (network, 3, u64::from(prefix), Some(ip)),
            Self::Socket { netns, boot, protocol, ip, port } => (boot, spot(4, protocol, port), netns, ip),
            Self::Service { network, protocol, ip, port } => (network, spot(5, protocol, port), 0, Some(ip)),
        };
        state.write_u64(u64::from(name) << 32 | u64::from(rest));
        state.write_u64(number);
        match ip {
            None => {}
            Some(IpAddr::V4(ip)) => state.write_u32(ip.to_bits()),
            Some(IpAddr::V6(ip)) => state.write_u128(ip.to_bits()),
        }
    }
}

impl Place {
    /// Whether it is this address, or a range around it.
    pub(super) fn names(self, ip: IpAddr) -> bool {
        match self {
            Self::Ip { ip: own, .. } => own == ip,
            Self::Range { ip: first, prefix, .. } => first == first_of(ip, prefix),
            Self::Interface { .. } | Self::Mac { .. } | Self::Socket { .. } | Self::Service { .. } => false,
        }
    }

    /// The network of a key that has one.
    pub(super) fn network(self) -> Option<u32> {
        match self {
            Self::Mac { network, .. }
            | Self::Ip { network, .. }
            | Self::Range { network, .. }
            | Self::Service { network, .. } => Some(network),
            Self::Interface { .. } | Self::Socket { .. } => None,
        }
    }
}

/// Names of networks and boots, and their numbers. There are as many as networks were seen since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    list: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32, foldhash::fast::RandomState>,
}

impl Names {
    pub(super) fn intern(&mut self, name: &Arc<str>) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    pub(super) fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    pub(super) fn name(&self, number: u32) -> Arc<str> {
        self.list.get(number as usize).cloned().unwrap_or_default()
    }

    /// A key in small, if its name is known.
    pub(super) fn place(&self, key: &Key) -> Option<Place> {
        let name = self.number(name_of(key))?;
        Some(match *key {
            Key::Interface { index, netns, .. } => Place::Interface { index, netns, boot: name },
            Key::Mac { mac, .. } => Place::Mac { network: name, mac },
            Key::Ip { ip, .. } => Place::Ip { network: name, ip },
            Key::Range { ip, prefix, .. } => Place::Range { network: name, ip, prefix },
            Key::Socket { netns, protocol, ip, port, .. } => Place::Socket { netns, boot: name, protocol, ip, port },
            Key::Service { protocol, ip, port, .. } => Place::Service { network: name, protocol, ip, port },
        })
    }

    /// The key itself.
    pub(super) fn key(&self, place: Place) -> Key {
        match place {
            Place::Interface { index, netns, boot } => Key::Interface { index, netns, boot: self.name(boot) },
            Place::Mac { network, mac } => Key::Mac { network: self.name(network), mac },
            Place::Ip { network, ip } => Key::Ip { network: self.name(network), ip },
            Place::Range { network, ip, prefix } => Key::Range { network: self.name(network), ip, prefix },
            Place::Socket { netns, boot, protocol, ip, port } => {
                Key::Socket { netns, boot: self.name(boot), protocol, ip, port }
            }
            Place::Service { network, protocol, ip, port } => {
                Key::Service { network: self.name(network), protocol, ip, port }
            }
        }
    }
}

/// The name in a key.
pub(super) fn name_of(key: &Key) -> &Arc<str> {
    match key {
        Key::Interface { boot, .. } | Key::Socket { boot, .. } => boot,
        Key::Mac { network, .. }
        | Key::Ip { network, .. }
        | Key::Range { network, .. }
        | Key::Service { network, .. } => network,
    }
}

//! Live capture: TPACKET_V3 rings and the interfaces that they read (Linux `packet(7)`,
//! Documentation/networking/packet_mmap.rst).
//!
//! One unbound packet socket serves all interfaces of a network namespace. A socket filter over interface indexes lets
//! only the chosen ones into the ring; it is replaced when interfaces come and go. The socket hears nothing before the
//! ring and a filter are in place, and belongs for ever to the namespace of the thread that opened it.
//!
//! Packets received = packets handed to `each` + [`Ring::drops`]; what loopback sends is not received until it comes back.
//!
//! A ring holds what comes while nobody reads, in blocks. The kernel closes one that is full, or in which a packet waits for its age, and
//! takes the next; the rest of it stays empty. So blocks are small, to have many of them, and wait for long: 32 MiB hold 25 seconds of few
//! packets, and a packet is read a quarter of a second after it came at the latest. A block takes the largest frames there are, less its headers.
//! Where blocks fill within a millisecond, the thread is not woken for each ([`TOGETHER`]).
//!
//! Rings that share the traffic ([`RingConfig::fanout`]) keep to it: a full one drops, and counts, rather than give packets of
//! its flows to another that does not know them.

mod block;
mod error;
mod filter;
pub mod links;
mod netlink;
mod sys;

use std::path::Path;
use std::time::Duration;

pub use error::RingError;

use self::links::LinkWatcher;
use crate::burst::Room;
use crate::packet::Packet;

/// Size and behaviour of a ring.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// Memory, MiB.
    pub mib: u32,
    /// Most bytes of a packet that are copied. The default takes all: a veth carries frames of up to 65,549 bytes, and more with
    /// `gso_max_size`.
    pub snap_len: u32,
    /// With whom it shares the traffic, by flow hash. The kernel hashes fragments without ports, the first one too
    /// (`__skb_flow_dissect`), so those of one packet come to one socket, which may be another than that of the flow's whole packets.
    /// It is not asked to put them together (`PACKET_FANOUT_FLAG_DEFRAG`): what it has put together at one interface it takes for
    /// a repetition at the next, and drops it without a count.
    pub fanout: Option<Fanout>,
}

impl Default for RingConfig {
    fn default() -> Self {
        Self { mib: 32, snap_len: 262_144, fanout: None }
    }
}

/// With whom a ring shares the traffic. A group is the network namespace's: two processes that chose the same number would share theirs, and each
/// see a part. So the kernel chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fanout {
    /// With those that are opened for its group ([`Ring::group`]).
    New,
    /// With this group.
    Group(u16),
}

/// Bytes of a block.
const BLOCK: usize = 256 << 10;
/// After so many milliseconds a block with packets is handed over although it is not full.
const BLOCK_AGE_MS: u32 = 200;
/// And has been, after so long.
const BLOCK_IS_OVER: Duration = Duration::from_millis(300);

/// So many blocks are waited for together,
const TOGETHER: u32 = 4;
/// if that takes no longer.
const MOST_PAUSE: Duration = Duration::from_millis(4);

/// A ring and its socket.
pub struct Ring {
    socket: sys::RingSocket,
    snap_len: u32,
    next_block: usize,
    /// How long to wait before the kernel is asked to say when the next block is full.
    pause: Option<Duration>,
    drops: u64,
    room: Room,
}

impl Ring {
    /// Opens a ring in the calling thread's network namespace that receives from `interfaces`.
    pub fn open(config: &RingConfig, interfaces: &[u32]) -> Result<Self, RingError> {
        let program = filter::program(interfaces, config.snap_len)?;
        let socket = sys::RingSocket::open(config, &program)?;
        Ok(Self { socket, snap_len: config.snap_len, next_block: 0, pause: None, drops: 0, room: Room::default() })
    }

    /// Receives from these interfaces from now on. What others have carried until now is in the ring, and is still handed on.
    pub fn set_interfaces(&mut self, interfaces: &[u32]) -> Result<(), RingError> {
        self.socket.attach_filter(&filter::program(interfaces, self.snap_len)?)
    }

    /// Hands on the packets of every block that is ready, several at a time; waits at most `timeout` (and the pause of dense traffic) for the
    /// first, and no longer than until `links` has a change to tell: an interface may live for less. Returns their number.
    pub fn poll(
        &mut self,
        timeout: Duration,
        links: Option<&LinkWatcher>,
        each: &mut dyn FnMut(&[Packet<'_>]),
    ) -> Result<usize, RingError> {
        if !self.socket.block_is_ready(self.next_block)
            && let Some(pause) = self.pause.take()
        {
            std::thread::park_timeout(pause);
        }
        if !self.socket.block_is_ready(self.next_block) {
            self.socket.wait(timeout, links.map(LinkWatcher::socket))?;
        }
        let mut packets = 0;
        for _ in 0..self.socket.block_count() {
            if !self.socket.block_is_ready(self.next_block) {
                break;
            }
            let bytes = self.socket.block(self.next_block);
            block::packets(bytes, &mut self.room, &mut |burst| {
                packets += burst.len();
                each(burst);
            });
            self.pause = block::time_to_fill(bytes).map(|time| time * TOGETHER).filter(|pause| *pause <= MOST_PAUSE);
            self.socket.release_block(self.next_block);
            self.next_block = (self.next_block + 1) % self.socket.block_count();
        }
        Ok(packets)
    }

    /// The group that it shares the traffic with.
    pub fn group(&self) -> Option<u16> {
        self.socket.group()
    }

    /// Lets nothing more in, and hands on all that is in the ring: also what is in a block that is not full.
    pub fn drain(&mut self, each: &mut dyn FnMut(&[Packet<'_>])) -> Result<(), RingError> {
        self.set_interfaces(&[])?;
        while self.poll(BLOCK_IS_OVER, None, each)? > 0 {}
        Ok(())
    }

    /// Packets that the kernel dropped because the ring was full, since it was opened.
    pub fn drops(&mut self) -> Result<u64, RingError> {
        self.drops += u64::from(self.socket.new_drops()?);
        Ok(self.drops)
    }
}

/// Raises how many descriptors this process may have open to what it may raise it to, and returns that.
pub fn raise_descriptor_limit() -> std::io::Result<u64> {
    sys::raise_descriptor_limit()
}

/// Runs `work` on a thread of its own that has entered the network namespace at `netns` (`/run/netns/NAME`,
/// `/proc/PID/ns/net`). Sockets that it opens stay in that namespace.
pub fn in_namespace<T: Send + 'static>(
    netns: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, RingError> {
    let file = std::fs::File::open(netns)
        .map_err(|source| RingError::Namespace { path: netns.display().to_string(), source })?;
    let path = netns.display().to_string();
    let thread = std::thread::Builder::new().name("netns".into()).spawn(move || {
        sys::enter_network_namespace(&file).map_err(|source| RingError::Namespace { path, source })?;
        Ok(work())
    });
    let thread = thread.map_err(|source| RingError::Namespace { path: netns.display().to_string(), source })?;
    thread.join().map_err(|_| RingError::Namespace {
        path: netns.display().to_string(),
        source: std::io::Error::other("the thread inside it panicked"),
    })?
}

/// Inode of a network namespace: its number for as long as it exists.
pub fn namespace_inode(netns: &Path) -> Result<u64, RingError> {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::metadata(netns)
        .map_err(|source| RingError::Namespace { path: netns.display().to_string(), source })?;
    Ok(data.ino())
}

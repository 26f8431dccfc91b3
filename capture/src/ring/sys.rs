//! The only place of this crate that speaks to the kernel: packet sockets and their mapped ring, netlink sockets,
//! namespaces.
#![allow(unsafe_code, reason = "system calls and the memory that the kernel shares with us")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::filter::Instruction;
use super::{BLOCK, BLOCK_AGE_MS, Fanout, RingConfig, RingError};

const TPACKET_V3: libc::c_int = 2;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_KERNEL: u32 = 0;
/// `PACKET_FANOUT_HASH`, which the upper half of the option has.
const FANOUT_HASH: libc::c_int = 0;
/// `PACKET_FANOUT_FLAG_UNIQUEID` (Linux 4.12): a group that no other socket is in.
const FANOUT_UNIQUE: libc::c_int = 0x2000;
/// Offset of the status word in a block's header.
const BLOCK_STATUS: usize = 8;

/// A packet socket with its mapped ring.
pub(super) struct RingSocket {
    fd: OwnedFd,
    map: *mut u8,
    block_count: usize,
    group: Option<u16>,
}

// SAFETY: the mapping belongs to this value alone; nothing of it is bound to the thread that made it.
unsafe impl Send for RingSocket {}

impl RingSocket {
    /// Opens the socket deaf, gives it filter and ring, and only then lets it hear.
    pub(super) fn open(config: &RingConfig, program: &[Instruction]) -> Result<Self, RingError> {
        let length = (config.mib as usize) << 20;
        let block_count = length / BLOCK;
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0, "open a packet socket")?;
        set_option(&fd, libc::PACKET_VERSION, &TPACKET_V3, "choose TPACKET_V3")?;
        attach_filter(&fd, program)?;
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK as u32,
            tp_block_nr: block_count as u32,
            tp_frame_size: 2048,
            tp_frame_nr: (length / 2048) as u32,
            tp_retire_blk_tov: BLOCK_AGE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set_option(&fd, libc::PACKET_RX_RING, &request, "make the ring")?;
        // SAFETY: a new shared mapping of the ring that was just made; the kernel chooses the address.
        let map = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if map == libc::MAP_FAILED {
            return Err(RingError::last("map the ring"));
        }
        let mut ring = Self { fd, map: map.cast(), block_count, group: None };
        ring.bind()?;
        if let Some(fanout) = config.fanout {
            ring.share(fanout)?;
        }
        Ok(ring)
    }

    fn share(&mut self, fanout: Fanout) -> Result<(), RingError> {
        let wanted = match fanout {
            Fanout::New => (FANOUT_HASH | FANOUT_UNIQUE) << 16,
            Fanout::Group(group) => libc::c_int::from(group) | (FANOUT_HASH << 16),
        };
        set_option(&self.fd, libc::PACKET_FANOUT, &wanted, "join the fanout group")?;
        let joined: libc::c_int = get_option(&self.fd, libc::PACKET_FANOUT, 0, "ask for the fanout group")?;
        self.group = Some(joined as u16);
        Ok(())
    }

    pub(super) fn group(&self) -> Option<u16> {
        self.group
    }

    /// Hears all protocols on all interfaces from now on; the filter chooses.
    fn bind(&self) -> Result<(), RingError> {
        // SAFETY: all fields of the address are integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: `address` is a whole `sockaddr_ll` of the length given.
        let result = unsafe {
            let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length)
        };
        if result == 0 { Ok(()) } else { Err(RingError::last("bind the packet socket")) }
    }

    pub(super) fn attach_filter(&self, program: &[Instruction]) -> Result<(), RingError> {
        attach_filter(&self.fd, program)
    }

    pub(super) fn block_count(&self) -> usize {
        self.block_count
    }

    fn status(&self, block: usize) -> &AtomicU32 {
        let offset = (block % self.block_count) * BLOCK + BLOCK_STATUS;
        // SAFETY: `offset` is within the mapping and a multiple of four; kernel and user space both access the word as an
        // aligned 32 bit value.
        unsafe { AtomicU32::from_ptr(self.map.add(offset).cast()) }
    }

    /// Whether the block is ours to read.
    pub(super) fn block_is_ready(&self, block: usize) -> bool {
        self.status(block).load(Ordering::Acquire) & TP_STATUS_USER != 0
    }

    /// The bytes of a block that is ready; of one that is not, nothing.
    pub(super) fn block(&self, block: usize) -> &[u8] {
        if !self.block_is_ready(block) {
            return &[];
        }
        let offset = (block % self.block_count) * BLOCK;
        // SAFETY: within the mapping; the kernel does not write to a block whose status is ours, and `release_block` takes
        // `&mut self`, so it cannot be given back while the slice lives.
        unsafe { std::slice::from_raw_parts(self.map.add(offset), BLOCK) }
    }

    /// Gives a block back to the kernel.
    pub(super) fn release_block(&mut self, block: usize) {
        self.status(block).store(TP_STATUS_KERNEL, Ordering::Release);
    }

    /// Waits until a block may be ready, or `other` has something to say.
    pub(super) fn wait(&self, timeout: Duration, other: Option<&Netlink>) -> Result<(), RingError> {
        let own = self.fd.as_raw_fd();
        match other {
            Some(other) => wait_readable([own, other.fd.as_raw_fd()], timeout),
            None => wait_readable([own], timeout),
        }
        .map(drop)
    }

    /// Packets dropped since the last call.
    pub(super) fn new_drops(&self) -> Result<u32, RingError> {
        let none = libc::tpacket_stats_v3 { tp_packets: 0, tp_drops: 0, tp_freeze_q_cnt: 0 };
        Ok(get_option(&self.fd, libc::PACKET_STATISTICS, none, "read the ring's statistics")?.tp_drops)
    }
}

impl Drop for RingSocket {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `open` with this length, and no slice of it outlives `self`.
        unsafe {
            libc::munmap(self.map.cast(), BLOCK * self.block_count);
        }
    }
}

fn attach_filter(fd: &OwnedFd, program: &[Instruction]) -> Result<(), RingError> {
    let mut code: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: `program` points to `code`, which outlives the call; the kernel copies it.
    let result = unsafe {
        let length = size_of::<libc::sock_fprog>() as libc::socklen_t;
        let value = (&raw const program).cast();
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, value, length)
    };
    if result == 0 { Ok(()) } else { Err(RingError::last("attach the socket filter")) }
}

fn socket(
    domain: libc::c_int,
    kind: libc::c_int,
    protocol: libc::c_int,
    what: &'static str,
) -> Result<OwnedFd, RingError> {
    // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(domain, kind, protocol);
        if fd < 0 { Err(RingError::last(what)) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn set_option<T>(fd: &OwnedFd, option: libc::c_int, value: &T, what: &'static str) -> Result<(), RingError> {
    // SAFETY: `value` is a whole `T` of the length given; callers pass the type that the option takes.
    let result = unsafe {
        let length = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, std::ptr::from_ref(value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(RingError::last(what)) }
}

/// The option's value, in the place of `value`.
fn get_option<T: Copy>(fd: &OwnedFd, option: libc::c_int, mut value: T, what: &'static str) -> Result<T, RingError> {
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has the length given, and the kernel writes at most that; callers pass the type that the option has, of integers.
    let result =
        unsafe { libc::getsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, (&raw mut value).cast(), &raw mut length) };
    if result == 0 { Ok(value) } else { Err(RingError::last(what)) }
}

/// Whether one of the descriptors became readable in time. An interrupted wait counts as not readable.
fn wait_readable<const N: usize>(descriptors: [RawFd; N], timeout: Duration) -> Result<bool, RingError> {
    let mut polls = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `N` of `pollfd`, which outlive the call.
    match unsafe { libc::poll(polls.as_mut_ptr(), N as libc::nfds_t, timeout) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => Ok(false),
        _ => Err(RingError::last("wait for packets")),
    }
}

/// A route netlink socket.
pub(super) struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    /// Opens it, subscribed to the multicast `groups`.
    pub(super) fn open(groups: u32) -> Result<Self, RingError> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        let fd = socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE, "open a netlink socket")?;
        // SAFETY: all fields of the address are integers, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: `address` is a whole `sockaddr_nl` of the length given.
        let result = unsafe {
            let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length)
        };
        if result == 0 { Ok(Self { fd }) } else { Err(RingError::last("bind the netlink socket")) }
    }

    pub(super) fn send(&self, message: &[u8]) -> Result<(), RingError> {
        // SAFETY: the slice is valid for its length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(RingError::last("ask for the links")) } else { Ok(()) }
    }

    /// Waits for a message; false when there is none in time.
    pub(super) fn wait(&self, timeout: Duration) -> Result<bool, RingError> {
        wait_readable([self.fd.as_raw_fd()], timeout)
    }

    /// Receives one datagram into `buffer`. An overrun (messages were lost) gives an empty one.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<&'a [u8], RingError> {
        // SAFETY: the buffer is valid for its length, and the kernel writes at most that.
        let length = unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        match usize::try_from(length) {
            Ok(length) => Ok(buffer.get(..length).unwrap_or_default()),
            Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::ENOBUFS) => Ok(&[]),
            Err(_) => Err(RingError::last("receive the links")),
        }
    }
}

/// Raises the soft limit of descriptors to the hard one, and returns it.
pub(super) fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a whole `rlimit`, which the kernel fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a whole `rlimit`, which the kernel only reads.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling thread into a network namespace.
pub(super) fn enter_network_namespace(namespace: &File) -> io::Result<()> {
    // SAFETY: no pointers; it changes only the calling thread.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! The only place of this crate that speaks to the kernel by system calls: netlink sockets and clocks.
#![allow(unsafe_code, reason = "system calls that the standard library has no words for")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// What a socket had.
#[derive(Debug)]
pub(super) enum Received<'a> {
    /// One datagram of the kernel.
    Datagram(&'a [u8]),
    /// Messages were lost: the socket's buffer, or ours, was too small.
    Overrun,
    /// Nothing now.
    Nothing,
}

/// A netlink socket of the namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Netlink {
    fd: OwnedFd,
}

impl Netlink {
    /// Opens it for a protocol (`NETLINK_…`), subscribed to the multicast `groups`, with so many bytes of buffer.
    pub(super) fn open(protocol: libc::c_int, groups: u32, buffer: i32) -> io::Result<Self> {
        // SAFETY: no pointers; a non-negative result is a descriptor that nobody else owns.
        let fd = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
            let fd = libc::socket(libc::AF_NETLINK, kind, protocol);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        let socket = Self { fd };
        socket.make_room(buffer);
        // SAFETY: all fields of the address are integers, for which zero is a value.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        address.nl_groups = groups;
        // SAFETY: `address` is a whole `sockaddr_nl` of the length given.
        let result = unsafe {
            let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            libc::bind(socket.fd.as_raw_fd(), (&raw const address).cast(), length)
        };
        if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }

    /// Beyond the system's limit where that is allowed. A smaller buffer only means more overruns, which are noticed.
    fn make_room(&self, bytes: i32) {
        for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
            // SAFETY: `bytes` is a whole integer of the length given.
            let result = unsafe {
                let length = size_of::<i32>() as libc::socklen_t;
                libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const bytes).cast(), length)
            };
            if result == 0 {
                return;
            }
        }
    }

    /// Sends a request to the kernel.
    pub(super) fn send(&self, message: &[u8]) -> io::Result<()> {
        // SAFETY: the slice is valid for its length.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Receives one datagram into `buffer`, without waiting. What is not from the kernel is passed over.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Received<'a>> {
        loop {
            // SAFETY: all fields of the address are integers, for which zero is a value.
            let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
            let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            // SAFETY: buffer and address are valid for their lengths, and the kernel writes at most those. With
            // `MSG_TRUNC` the result may be greater than the buffer.
            let received = unsafe {
                let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
                let (bytes, from) = (buffer.as_mut_ptr().cast(), (&raw mut from).cast());
                libc::recvfrom(self.fd.as_raw_fd(), bytes, buffer.len(), flags, from, &raw mut length)
            };
            let Ok(received) = usize::try_from(received) else {
                let error = io::Error::last_os_error();
                return match error.raw_os_error() {
                    Some(libc::ENOBUFS) => Ok(Received::Overrun),
                    Some(libc::EAGAIN) => Ok(Received::Nothing),
                    Some(libc::EINTR) => continue,
                    _ => Err(error),
                };
            };
            if from.nl_pid != 0 {
                continue;
            }
            return Ok(buffer.get(..received).map_or(Received::Overrun, Received::Datagram));
        }
    }
}

/// Waits until one of the sockets has something, at most `timeout`. An interrupted wait ends early.
pub(super) fn wait(sockets: &[&Netlink], timeout: Duration) -> io::Result<()> {
    let poll = |socket: &&Netlink| libc::pollfd { fd: socket.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut polls: Vec<libc::pollfd> = sockets.iter().map(poll).collect();
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: so many `pollfd`s, which outlive the call.
    let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout) };
    match io::Error::last_os_error() {
        error if ready < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Nanoseconds since the machine started, times of sleep included: the clock of `/proc/PID/stat`.
pub(super) fn since_boot() -> i64 {
    clock(libc::CLOCK_BOOTTIME)
}

/// Nanoseconds that the calling thread has run: what something costs, however busy the machine is.
pub(super) fn own_time() -> i64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

fn clock(clock: libc::clockid_t) -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    if result == 0 { time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec) } else { 0 }
}

/// Ticks a second of the times in `/proc/PID/stat`.
pub(super) fn ticks_a_second() -> i64 {
    // SAFETY: no pointers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks } else { 100 }
}

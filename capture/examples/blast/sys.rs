//! A packet socket that sends.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::CString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Packets of one call.
pub(crate) const BATCH: usize = 64;

/// See the module documentation.
pub(crate) struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Sends out of `interface`, past its queueing discipline.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let name = CString::new(interface)?;
        // SAFETY: `name` is a string that ends with 0 and lives over the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: no memory is passed.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `socket` was opened above and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let sender = Self { socket };
        sender.option(libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
        sender.option(libc::SOL_SOCKET, libc::SO_SNDBUF, 4 << 20)?;
        // SAFETY: all bits zero are a valid `sockaddr_ll`.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = index.cast_signed();
        let size = size_of_val(&address) as libc::socklen_t;
        // SAFETY: `address` is a `sockaddr_ll` of `size` bytes.
        let bound = unsafe { libc::bind(sender.socket.as_raw_fd(), (&raw const address).cast(), size) };
        if bound == 0 { Ok(sender) } else { Err(io::Error::last_os_error()) }
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: `value` is an int of `size` bytes.
        let set = unsafe { libc::setsockopt(self.socket.as_raw_fd(), level, name, (&raw const value).cast(), size) };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends the frames of `bytes` at `ranges`, at most [`BATCH`]; how many went. A full queue is none.
    pub(crate) fn send(&self, bytes: &[u8], ranges: &[Range<usize>]) -> io::Result<usize> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        // SAFETY: all bits zero are a valid `mmsghdr`: no name, no vectors, no control data.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        let count = ranges.len().min(BATCH);
        for ((vector, message), range) in vectors.iter_mut().zip(&mut messages).zip(ranges) {
            let frame = bytes.get(range.clone()).unwrap_or_default();
            // The kernel only reads what it sends.
            (vector.iov_base, vector.iov_len) = (frame.as_ptr().cast_mut().cast(), frame.len());
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (vector, 1);
        }
        // SAFETY: the first `count` messages point to vectors, and these to frames, that live over the call.
        let sent = unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), count as libc::c_uint, 0) };
        if sent >= 0 {
            return Ok(sent as usize);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR) => Ok(0),
            _ => Err(error),
        }
    }
}

//! System calls that the standard library has not: the count of dropped datagrams (`SO_RXQ_OVFL`, socket(7)) and the size of
//! a socket's buffer.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

/// Has the kernel tell how many datagrams it dropped.
pub(super) fn count_drops(socket: &UdpSocket) -> io::Result<()> {
    set(socket, libc::SO_RXQ_OVFL, 1)
}

/// Sets the size of the buffer: beyond the system's limit if that is allowed (CAP_NET_ADMIN), else up to it.
pub(super) fn set_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    set(socket, libc::SO_RCVBUFFORCE, bytes).or_else(|_| set(socket, libc::SO_RCVBUF, bytes))
}

fn set(socket: &UdpSocket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the value is an integer of the length given, which the call reads.
    let result = unsafe {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Space for control messages, aligned as they must be.
#[repr(align(8))]
struct Control([u8; 64]);

/// A datagram: its length, its sender, and the count of those that the kernel dropped so far, if it tells.
pub(super) fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr, Option<u32>)> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut name: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: as above; null is a value of its pointers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut name).cast();
    message.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len() as _;
    // SAFETY: `message` points to memory of this function and to `buffer`, with their lengths; all outlive the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    Ok((length, sender(&name)?, drops(&message)))
}

fn drops(message: &libc::msghdr) -> Option<u32> {
    // SAFETY: the kernel has filled `message`, whose control buffer is still there; the macros stay within its length.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(own) = header.as_ref() {
            if own.cmsg_level == libc::SOL_SOCKET && own.cmsg_type == libc::SO_RXQ_OVFL {
                return Some(libc::CMSG_DATA(header).cast::<u32>().read_unaligned());
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

fn sender(name: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is one, and the storage is large enough for all.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = u32::from_be(name.sin_addr.s_addr);
            Ok(SocketAddr::new(IpAddr::V4(ip.into()), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = IpAddr::V6(name.sin6_addr.s6_addr.into());
            Ok(SocketAddr::new(ip, u16::from_be(name.sin6_port)))
        }
        family => Err(io::Error::other(format!("an address of family {family}"))),
    }
}

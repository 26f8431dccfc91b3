//! System calls that the standard library has not: the count of dropped datagrams (`SO_MEMINFO`, since Linux 4.12) and the size of a socket's buffer.
#![allow(unsafe_code, reason = "system calls")]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Datagrams that the kernel dropped so far because the buffer was full; the count has 32 bits.
pub(super) fn dropped(socket: &UdpSocket) -> io::Result<u32> {
    const FIGURES: usize = libc::SK_MEMINFO_DROPS as usize + 1;
    let mut figures = [0_u32; FIGURES];
    let mut length = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the call writes at most `length` bytes into `figures`, which has so many, and how many there were into `length`.
    let result = unsafe {
        let place = figures.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, place, &raw mut length)
    };
    if result == 0 { Ok(figures[FIGURES - 1]) } else { Err(io::Error::last_os_error()) }
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

//! The socket of the listener: datagrams, who sent them, and how many the kernel dropped because nobody read them in time.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::sys;

/// Time after which [`Socket::receive`] gives up.
const PATIENCE: Duration = Duration::from_millis(100);

/// A UDP socket.
pub struct Socket {
    inner: UdpSocket,
    dropped: u64,
    told: u32,
}

impl Socket {
    /// Listens on an address; `buffer` is how many bytes the kernel may hold of what was not read yet.
    pub fn bind(address: SocketAddr, buffer: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        sys::set_buffer(&socket, buffer)?;
        Ok(Self { inner: socket, dropped: 0, told: 0 })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    /// The next datagram: its length, and who sent it. `None` if none came for a tenth of a second.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(usize, SocketAddr)>> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        match self.inner.recv_from(buffer) {
            Ok(received) => Ok(Some(received)),
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Datagrams that the kernel has dropped until now. A kernel that does not tell has dropped none.
    pub fn dropped(&mut self) -> u64 {
        if let Ok(told) = sys::dropped(&self.inner) {
            self.dropped += u64::from(told.wrapping_sub(self.told));
            self.told = told;
        }
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_the_buffer_full_is_counted() {
        const SENT: u64 = 400;
        let mut socket = Socket::bind("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let send = || sender.send_to(&[7; 1000], socket.inner.local_addr().unwrap()).unwrap();
        for _ in 0..SENT {
            send();
        }
        // Before anything is read, and after.
        let dropped = socket.dropped();
        let mut buffer = [0; 2048];
        let mut received = 0;
        while let Some((length, from)) = socket.receive(&mut buffer).unwrap() {
            assert_eq!((length, from), (1000, sender.local_addr().unwrap()));
            received += 1;
        }
        assert!(received < SENT, "{received}");
        assert_eq!((received + dropped, socket.dropped()), (SENT, dropped));
    }
}

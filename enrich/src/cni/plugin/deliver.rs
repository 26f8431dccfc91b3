//! How a record reaches the agent: as a datagram on its socket, or, if nobody listens or takes it, as a file in its
//! spool, which the agent empties.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::cni::record::{MOST_BYTES, Record, socket_path, spool_path};
use crate::cni::spool::Spool;

/// How long a full queue of the agent is waited for.
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) fn deliver(record: &Record, data: &Path) -> io::Result<()> {
    let bytes = serde_json::to_vec(record).map_err(io::Error::other)?;
    if bytes.len() > MOST_BYTES {
        return Err(io::Error::other(format!("the record has {} bytes, more than {MOST_BYTES}", bytes.len())));
    }
    if send(&bytes, &socket_path(data)).is_ok() {
        return Ok(());
    }
    Spool::new(spool_path(data)).put(&bytes, record.at, std::process::id())
}

fn send(bytes: &[u8], path: &Path) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.send(bytes).map(drop)
}

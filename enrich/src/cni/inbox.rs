//! Where records come in: the socket, and the spool.
//!
//! When the inbox is closed it stops listening first, and puts what the kernel still holds for it into the spool: the
//! next run finds it there. Only a process that is killed loses what it had received and not told.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::net::UnixDatagram;

use super::record::{MOST_BYTES, Record, socket_path, spool_path};
use super::spool::Spool;

/// See the module documentation.
pub(super) struct Inbox {
    socket: Option<UnixDatagram>,
    path: PathBuf,
    pub(super) spool: Spool,
    buffer: Vec<u8>,
}

impl Inbox {
    /// Listens; without a socket the spool is all there is, and why is told.
    pub(super) fn open(data: &std::path::Path) -> (Self, Option<io::Error>) {
        let path = socket_path(data);
        let (socket, error) = match listen(&path) {
            Ok(socket) => (Some(socket), None),
            Err(error) => (None, Some(error)),
        };
        let spool = Spool::new(spool_path(data));
        (Self { socket, path, spool, buffer: vec![0; MOST_BYTES + 1] }, error)
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// The next record from the socket; `None` if it is not one.
    pub(super) async fn receive(&mut self) -> Option<Record> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        match socket.recv(&mut self.buffer).await {
            Ok(length) => Record::parse(self.buffer.get(..length).unwrap_or_default()),
            Err(error) => {
                tracing::warn!("cni: cannot receive records: {error}");
                self.socket = None;
                None
            }
        }
    }

    /// Takes what waits on disk, in the order of its times: the records, and how many files were none.
    pub(super) fn take_spooled(&self) -> (Vec<Record>, u64) {
        let (mut records, mut refused) = (Vec::new(), 0);
        for file in self.spool.files() {
            let bytes = std::fs::read(&file);
            // One that cannot be removed would be taken for ever.
            if std::fs::remove_file(&file).is_err() {
                continue;
            }
            match bytes.ok().as_deref().and_then(Record::parse) {
                Some(record) => records.push(record),
                None => refused += 1,
            }
        }
        records.sort_by_key(|record| record.at);
        (records, refused)
    }
}

fn listen(path: &std::path::Path) -> io::Result<UnixDatagram> {
    // Of an earlier run: the data directory is ours alone.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixDatagram::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        let _ = std::fs::remove_file(&self.path);
        // Its receive works without the runtime, which may be ending.
        let Ok(socket) = socket.into_std() else { return };
        while let Ok(length) = socket.recv(&mut self.buffer) {
            let bytes = self.buffer.get(..length).unwrap_or_default();
            if let Some(record) = Record::parse(bytes) {
                let _ = self.spool.put(bytes, record.at, std::process::id());
            }
        }
    }
}

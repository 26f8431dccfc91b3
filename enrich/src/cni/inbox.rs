//! Where records come in: the socket, and the spool.
//!
//! When the inbox is closed it stops listening first, and puts what the kernel still holds for it into the spool: the
//! next run finds it there. Only a process that is killed loses what it had received and not told.
//!
//! Without a socket the plugin writes into the spool: nothing is lost, and listening is tried again.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tokio::net::UnixDatagram;

use super::record::{MOST_BYTES, Record, socket_path, spool_path};
use super::spool::Spool;

/// See the module documentation.
pub(super) struct Inbox {
    socket: Option<UnixDatagram>,
    /// Why there is no socket.
    limit: Option<String>,
    path: PathBuf,
    pub(super) spool: Spool,
    buffer: Vec<u8>,
    /// Files of the spool that were taken and cannot be removed, or not yet.
    stuck: HashSet<PathBuf>,
}

impl Inbox {
    /// Listens; without a socket the spool is all there is.
    pub(super) fn open(data: &std::path::Path) -> Self {
        let (path, spool) = (socket_path(data), Spool::new(spool_path(data)));
        let mut inbox =
            Self { socket: None, limit: None, path, spool, buffer: vec![0; MOST_BYTES + 1], stuck: HashSet::new() };
        inbox.listen();
        inbox
    }

    /// Listens, if it does not.
    pub(super) fn listen(&mut self) {
        if self.socket.is_some() {
            return;
        }
        match listen(&self.path) {
            Ok(socket) => (self.socket, self.limit) = (Some(socket), None),
            Err(error) => self.limit_to_spool("listen on", &error),
        }
    }

    /// Why records are taken from the spool only, if they are.
    pub(super) fn limit(&self) -> Option<&str> {
        self.limit.as_deref()
    }

    fn limit_to_spool(&mut self, what: &str, error: &io::Error) {
        let path = self.path.display();
        self.limit = Some(format!("records are taken from the spool only: cannot {what} `{path}`: {error}"));
        self.socket = None;
    }

    /// The next record from the socket; `None` if it is not one. Without a socket it waits.
    pub(super) async fn receive(&mut self) -> Option<Record> {
        let Some(socket) = &self.socket else { return std::future::pending().await };
        match socket.recv(&mut self.buffer).await {
            Ok(length) => Record::parse(self.buffer.get(..length).unwrap_or_default()),
            Err(error) => {
                tracing::warn!("cni: cannot receive records: {error}");
                self.limit_to_spool("receive from", &error);
                std::future::pending().await
            }
        }
    }

    /// What waits on disk, in the order of its times: the records, the files, and how many of these were none. They stay
    /// until [`Self::remove`]: by then the journal knows what was in them.
    pub(super) fn spooled(&self) -> (Vec<Record>, Vec<PathBuf>, u64) {
        let (mut records, mut refused) = (Vec::new(), 0);
        let files = self.spool.files();
        let new = files.iter().filter(|file| !self.stuck.contains(*file));
        for file in new {
            match std::fs::read(file).ok().as_deref().and_then(Record::parse) {
                Some(record) => records.push(record),
                None => refused += 1,
            }
        }
        records.sort_by_key(|record| record.at);
        (records, files, refused)
    }

    /// Files of the spool that were taken stay, for the next start.
    pub(super) fn keep(&mut self, files: Vec<PathBuf>) {
        self.stuck = files.into_iter().collect();
    }

    /// Removes files of the spool. What cannot be removed is not taken again.
    pub(super) fn remove(&mut self, files: Vec<PathBuf>) {
        let stays =
            |file: &PathBuf| std::fs::remove_file(file).is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        self.stuck = files.into_iter().filter(stays).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn listening_is_tried_again() {
        let data = tempfile::tempdir().expect("a directory");
        let mut inbox = Inbox::open(data.path());
        let limit = inbox.limit().expect("it cannot listen").to_owned();
        assert!(limit.contains("cannot listen on") && limit.contains("cni.sock"), "{limit}");
        std::fs::create_dir(data.path().join("run")).expect("a directory");
        inbox.listen();
        assert_eq!(inbox.limit(), None);

        inbox.limit_to_spool("receive from", &io::ErrorKind::ConnectionReset.into());
        assert!(inbox.limit().is_some_and(|limit| limit.contains("cannot receive from")), "{:?}", inbox.limit());
        inbox.listen();
        assert_eq!(inbox.limit(), None);
        let record =
            br#"{"version":1,"call":"DEL","at":7,"boot":"b","own_netns":1,"network":"n","container":"c","ifname":"e"}"#;
        let sender = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        sender.send_to(record, socket_path(data.path())).expect("somebody listens");
        assert_eq!(inbox.receive().await.map(|record| record.at), Some(7));
    }
}

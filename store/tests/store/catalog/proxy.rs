//! A wire between wiretag and PostgreSQL that can be cut at a commit.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// When the wire is cut, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    Never,
    /// The server never hears of the commit.
    Before,
    /// The server commits, and nobody hears of that.
    After,
}

pub(crate) struct Proxy(Arc<AtomicU8>);

impl Proxy {
    /// Listens on `own` and hands everything on to `server`.
    pub(crate) fn start(own: &Path, server: &Path) -> Self {
        let listener = UnixListener::bind(own).unwrap();
        let (cut, server) = (Arc::new(AtomicU8::new(0)), server.to_path_buf());
        let armed = cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (armed, server) = (armed.clone(), server.clone());
                tokio::spawn(async move {
                    let server = UnixStream::connect(server).await?;
                    carry(client, server, &armed).await
                });
            }
        });
        Self(cut)
    }

    /// Cuts the wire at the next commit.
    pub(crate) fn cut(&self, when: Cut) {
        self.0.store(when as u8, Ordering::SeqCst);
    }

    /// Whether that happened.
    pub(crate) fn was_cut(&self) -> bool {
        self.0.load(Ordering::SeqCst) == Cut::Never as u8
    }
}

async fn carry(mut client: UnixStream, mut server: UnixStream, armed: &AtomicU8) -> std::io::Result<()> {
    let (mut question, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            length = client.read(&mut question) => {
                let text = &question[..length?];
                if text.is_empty() {
                    return Ok(());
                }
                let commits = text.windows(7).any(|part| part == b"COMMIT\0");
                let cut = if commits { armed.swap(Cut::Never as u8, Ordering::SeqCst) } else { 0 };
                if cut == Cut::Before as u8 {
                    return Ok(());
                }
                server.write_all(text).await?;
                if cut == Cut::After as u8 {
                    // It has committed when it answers.
                    let _answered = server.read(&mut answer).await?;
                    return Ok(());
                }
            }
            length = server.read(&mut answer) => {
                let text = &answer[..length?];
                if text.is_empty() {
                    return Ok(());
                }
                client.write_all(text).await?;
            }
        }
    }
}

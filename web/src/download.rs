//! Long answers, streamed: the export waits while the client reads, and ends when the client goes.
//!
//! A failure before the first byte is an error like any other; one after it breaks the connection off, so that a damaged
//! file never looks whole.

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use wiretag_store::StoreError;

use crate::Shared;
use crate::error::ApiError;

/// Chunks between export and connection.
pub(crate) const CHUNKS: usize = 8;

/// A place for one more download.
pub(crate) fn permit(shared: &Shared) -> Result<OwnedSemaphorePermit, ApiError> {
    let permit = shared.downloads.clone().try_acquire_owned();
    permit.map_err(|_| ApiError::busy("too many downloads at the same time"))
}

/// What a browser does with it.
pub(crate) struct File {
    pub(crate) content_type: &'static str,
    /// Of the file.
    pub(crate) name: String,
}

/// An export that was begun.
pub(crate) struct Download {
    pub(crate) chunks: mpsc::Receiver<Vec<u8>>,
    pub(crate) task: JoinHandle<Result<u64, StoreError>>,
    pub(crate) permit: OwnedSemaphorePermit,
}

/// An export under way.
struct Export {
    chunks: mpsc::Receiver<Vec<u8>>,
    first: Option<Vec<u8>>,
    task: Option<JoinHandle<Result<u64, StoreError>>>,
    _permit: OwnedSemaphorePermit,
}

impl Download {
    /// Waits for the first bytes, and answers with them and what follows.
    pub(crate) async fn answer(self, file: File) -> Result<Response, ApiError> {
        let Self { chunks, task, permit } = self;
        let mut export = Export { chunks, first: None, task: Some(task), _permit: permit };
        export.first = export.chunks.recv().await;
        if export.first.is_none() {
            export.end().await?;
        }
        let headers = [
            (header::CONTENT_TYPE, file.content_type.to_owned()),
            (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file.name)),
        ];
        Ok((headers, Body::from_stream(stream::unfold(export, Export::next))).into_response())
    }
}

impl Export {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        let chunk = match self.first.take() {
            Some(chunk) => Some(chunk),
            None => self.chunks.recv().await,
        };
        match chunk {
            Some(chunk) => Some((Ok(Bytes::from(chunk)), self)),
            None => match self.end().await {
                Ok(()) => None,
                Err(_) => Some((Err(std::io::Error::other("the export failed")), self)),
            },
        }
    }

    /// Whether the export came to a good end; asked once.
    async fn end(&mut self) -> Result<(), ApiError> {
        let Some(task) = self.task.take() else { return Ok(()) };
        task.await.map_err(|error| ApiError::internal(&error))??;
        Ok(())
    }
}

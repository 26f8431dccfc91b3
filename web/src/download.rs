//! Long answers, streamed: the export waits while the client reads, and ends when the client goes.
//!
//! * what is asked is checked first; then the answer begins at once, however long the first row is looked for. A failure after that
//!   breaks the connection off, so that a damaged file never looks whole;
//! * nothing works for an answer that nobody reads: its task ends with it. What runs on a thread of its own and cannot be ended so
//!   ends when its channel is closed, and keeps the place until then: there are never more than places.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinSet;
use wiretag_store::StoreError;

use crate::Shared;
use crate::completeness::{self, Completeness};
use crate::error::ApiError;

/// Chunks between export and connection.
const CHUNKS: usize = 8;
/// How often it is looked whether a thread still works for a client that went.
const CHECK: Duration = Duration::from_millis(100);

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
    /// What is known to be missing when it begins.
    pub(crate) completeness: Completeness,
}

impl File {
    /// Answers with what `write` sends, while the place is taken.
    pub(crate) fn answer<W>(
        self,
        place: OwnedSemaphorePermit,
        write: impl FnOnce(mpsc::Sender<Vec<u8>>) -> W,
    ) -> Response
    where
        W: Future<Output = Result<u64, StoreError>> + Send + 'static,
    {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let mut task = JoinSet::new();
        task.spawn(write(sender));
        let export = Export { chunks: Some(chunks), task, place: Some(place) };
        let headers = [
            (header::CONTENT_TYPE, self.content_type.to_owned()),
            (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", self.name)),
        ];
        let missing = [(completeness::HEADER, self.completeness.header())];
        (headers, missing, Body::from_stream(stream::unfold(export, Export::next))).into_response()
    }
}

/// An export under way; the task ends when this is dropped.
struct Export {
    chunks: Option<mpsc::Receiver<Vec<u8>>>,
    task: JoinSet<Result<u64, StoreError>>,
    place: Option<OwnedSemaphorePermit>,
}

impl Export {
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if let Some(chunk) = self.chunks.as_mut()?.recv().await {
            return Some((Ok(Bytes::from(chunk)), self));
        }
        // There was its last chunk; whether it was the last of the file is what the task says, once.
        let error = match self.task.join_next().await? {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(%error, "a download failed");
        Some((Err(io::Error::other("the export failed")), self))
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.task.abort_all();
        let (Some(mut chunks), Some(place)) = (self.chunks.take(), self.place.take()) else { return };
        chunks.close();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            // That the last sender goes is told only to those who wait for chunks, and these are no longer wanted.
            while chunks.sender_strong_count() > 0 {
                tokio::time::sleep(CHECK).await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::http::StatusCode;
    use futures_util::StreamExt;
    use tokio::sync::{Semaphore, oneshot};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        places.clone().try_acquire_owned().expect("a place")
    }

    fn file() -> File {
        File { content_type: "text/plain", name: "file".into(), completeness: Completeness::default() }
    }

    /// Says that it was dropped.
    struct Told(Option<oneshot::Sender<()>>);

    impl Drop for Told {
        fn drop(&mut self) {
            if let Some(told) = self.0.take() {
                let _ = told.send(());
            }
        }
    }

    #[tokio::test]
    async fn an_export_that_finds_nothing_ends_with_its_client() {
        let places = Arc::new(Semaphore::new(1));
        let (told, ended) = oneshot::channel();
        let answer = file().answer(place(&places), |sender| async move {
            let _both = (Told(Some(told)), sender);
            std::future::pending().await
        });
        assert_eq!(answer.status(), StatusCode::OK, "it begins before there is a row");
        tokio::task::yield_now().await;
        drop(answer);
        timeout(PATIENCE, ended).await.expect("the task ends").expect("told");
        timeout(PATIENCE, places.acquire()).await.expect("its place is free").expect("open").forget();
    }

    #[tokio::test]
    async fn a_place_is_taken_until_the_last_thread_has_ended() {
        let places = Arc::new(Semaphore::new(1));
        let (sent, thread) = std::sync::mpsc::channel();
        let answer = file().answer(place(&places), |sender| async move {
            sent.send(sender).expect("somebody takes it");
            std::future::pending().await
        });
        tokio::task::yield_now().await;
        drop(answer);
        let sender = thread.recv().expect("what the thread writes to");
        timeout(PATIENCE, sender.closed()).await.expect("it is told that nobody reads");
        tokio::time::sleep(2 * CHECK).await;
        assert_eq!(places.available_permits(), 0, "it still works");
        drop(sender);
        timeout(PATIENCE, places.acquire()).await.expect("its place is free").expect("open").forget();
    }

    #[tokio::test]
    async fn a_failure_breaks_the_file_off() {
        let places = Arc::new(Semaphore::new(1));
        let answer = file().answer(place(&places), |sender| async move {
            let _ = sender.send(b"half".to_vec()).await;
            Err(StoreError::Closed)
        });
        let chunks: Vec<_> = answer.into_body().into_data_stream().collect().await;
        assert!(matches!(&*chunks, [Ok(half), Err(_)] if &**half == b"half"), "{chunks:?}");
        let whole = file().answer(
            timeout(PATIENCE, places.acquire_owned()).await.expect("free").expect("open"),
            |sender| async move { sender.send(b"all".to_vec()).await.map(|()| 1).map_err(|_| StoreError::Closed) },
        );
        let chunks: Vec<_> = whole.into_body().into_data_stream().collect().await;
        assert!(matches!(&*chunks, [Ok(all)] if &**all == b"all"), "{chunks:?}");
    }
}

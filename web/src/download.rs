//! Long answers, streamed: the export waits while the client reads, and ends when the client goes.
//!
//! * what is asked is checked first; then the answer begins at once, however long the first row is looked for. A failure after that
//!   breaks the connection off, so that a damaged file never looks whole;
//! * nothing works for an answer that nobody reads: its task ends with it. What runs on a thread of its own and cannot be ended so
//!   ends when its channel is closed, and keeps the place until then: there are never more than places;
//! * no caller has all places, however slowly they read;
//! * `HEAD` asks whether there is a file: the same is checked, nothing is begun, and the place is free when that is answered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use wiretag_store::StoreError;

use crate::caller::Who;
use crate::completeness::{self, Completeness};
use crate::error::ApiError;
use crate::places::{Place, Places};

/// Chunks between export and connection.
const CHUNKS: usize = 8;
/// How often it is looked whether a thread still works for a client that went.
const CHECK: Duration = Duration::from_millis(100);

/// Places for downloads.
pub(crate) struct Downloads {
    all: Arc<Semaphore>,
    callers: Arc<Places<Option<String>>>,
    /// Of all, for one caller.
    each: usize,
}

/// A place for a download. That of its caller goes first: who finds one among all has one.
pub(crate) struct DownloadPlace {
    _own: Place<Option<String>>,
    _all: OwnedSemaphorePermit,
}

impl Downloads {
    /// So many at the same time, and of these so many for each caller.
    pub(crate) fn new(most: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(most)), callers: Places::new(), each }
    }

    /// A place for one more.
    pub(crate) fn place(&self, who: &Who) -> Result<DownloadPlace, ApiError> {
        let own = Places::place(&self.callers, who.reader().map(str::to_owned), self.each);
        let both = own.zip(self.all.clone().try_acquire_owned().ok());
        let place = both.map(|(own, all)| DownloadPlace { _own: own, _all: all });
        place.ok_or_else(|| ApiError::busy("too many downloads at the same time"))
    }
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
    pub(crate) fn answer<W>(self, place: DownloadPlace, write: impl FnOnce(mpsc::Sender<Vec<u8>>) -> W) -> Response
    where
        W: Future<Output = Result<u64, StoreError>> + Send + 'static,
    {
        let (sender, chunks) = mpsc::channel(CHUNKS);
        let work = write(sender);
        // Begun when the body is read for the first time: that of `HEAD` never is.
        let begin = async move {
            let mut task = JoinSet::new();
            task.spawn(work);
            stream::unfold(Export { chunks: Some(chunks), task, place: Some(place) }, Export::next)
        };
        let headers = [
            (header::CONTENT_TYPE, self.content_type.to_owned()),
            (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", self.name)),
        ];
        let missing = [(completeness::HEADER, self.completeness.header())];
        (headers, missing, Body::from_stream(stream::once(begin).flatten())).into_response()
    }
}

/// An export under way; the task ends when this is dropped.
struct Export {
    chunks: Option<mpsc::Receiver<Vec<u8>>>,
    task: JoinSet<Result<u64, StoreError>>,
    place: Option<DownloadPlace>,
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
    use axum::body::BodyDataStream;
    use axum::http::StatusCode;
    use futures_util::FutureExt;
    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::caller::Named;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn place(places: &Downloads) -> DownloadPlace {
        places.place(&Who::Owner).expect("a place")
    }

    async fn is_free(places: &Downloads) {
        drop(timeout(PATIENCE, places.all.acquire()).await.expect("a place is free").expect("open"));
    }

    #[test]
    fn no_caller_takes_the_last_place() {
        let places = Downloads::new(4, 3);
        let reader = Who::Reader(Arc::new(Named { name: "shop".into(), rows: None }));
        let taken: Vec<_> = (0..4).filter_map(|_| places.place(&reader).ok()).collect();
        assert_eq!(taken.len(), 3);
        let last = places.place(&Who::Owner).expect("one is left");
        assert!(places.place(&Who::Owner).is_err());
        drop(taken);
        drop(last);
        assert_eq!(places.all.available_permits(), 4);
        assert!(places.place(&reader).is_ok(), "what was refused has taken nothing");
    }

    fn file() -> File {
        File { content_type: "text/plain", name: "file".into(), completeness: Completeness::default() }
    }

    /// What is read of an answer whose first byte is not there yet.
    async fn begun(answer: Response) -> BodyDataStream {
        let mut body = answer.into_body().into_data_stream();
        assert!(body.next().now_or_never().is_none(), "there is no byte");
        tokio::task::yield_now().await;
        body
    }

    #[tokio::test]
    async fn what_nobody_reads_is_not_begun_and_gives_its_place_back_at_once() {
        let places = Downloads::new(1, 1);
        let (begun, begins) = oneshot::channel();
        let check = file().answer(place(&places), |_| async move {
            let _ = begun.send(());
            Ok(0)
        });
        drop(check);
        assert_eq!(places.all.available_permits(), 1);
        begins.await.expect_err("nothing was begun");
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
        let places = Downloads::new(1, 1);
        let (told, ended) = oneshot::channel();
        let answer = file().answer(place(&places), |sender| async move {
            let _both = (Told(Some(told)), sender);
            std::future::pending().await
        });
        assert_eq!(answer.status(), StatusCode::OK, "it begins before there is a row");
        drop(begun(answer).await);
        timeout(PATIENCE, ended).await.expect("the task ends").expect("told");
        is_free(&places).await;
    }

    #[tokio::test]
    async fn a_place_is_taken_until_the_last_thread_has_ended() {
        let places = Downloads::new(1, 1);
        let (sent, thread) = std::sync::mpsc::channel();
        let answer = file().answer(place(&places), |sender| async move {
            sent.send(sender).expect("somebody takes it");
            std::future::pending().await
        });
        drop(begun(answer).await);
        let sender = thread.recv().expect("what the thread writes to");
        timeout(PATIENCE, sender.closed()).await.expect("it is told that nobody reads");
        tokio::time::sleep(2 * CHECK).await;
        assert_eq!(places.all.available_permits(), 0, "it still works");
        drop(sender);
        is_free(&places).await;
    }

    #[tokio::test]
    async fn a_failure_breaks_the_file_off() {
        let places = Downloads::new(1, 1);
        let answer = file().answer(place(&places), |sender| async move {
            let _ = sender.send(b"half".to_vec()).await;
            Err(StoreError::Closed)
        });
        let chunks: Vec<_> = answer.into_body().into_data_stream().collect().await;
        assert!(matches!(&*chunks, [Ok(half), Err(_)] if &**half == b"half"), "{chunks:?}");
        is_free(&places).await;
        let whole = file().answer(place(&places), |sender| async move {
            sender.send(b"all".to_vec()).await.map(|()| 1).map_err(|_| StoreError::Closed)
        });
        let chunks: Vec<_> = whole.into_body().into_data_stream().collect().await;
        assert!(matches!(&*chunks, [Ok(all)] if &**all == b"all"), "{chunks:?}");
    }
}

//! Answers that are made before they are sent: what all of them may have together while their clients read.
//!
//! * a query gives its place back when its answer is made; from then on the answer takes room here until its last byte is with the kernel. How
//!   long that may last is a limit of connections ([`crate::server`]);
//! * making it takes up to a second of a processor: few are made at a time, and nobody else waits for them ([`Answers::made`]);
//! * a page of rows and the JSON that is made of it have as much together, and what is too long is not written to its end;
//! * there is no waiting for room: what waits would take memory, too. Small answers need none;
//! * what is made while it is sent has a small channel instead ([`crate::download`], [`crate::tail`]).

use std::io::{self, Write};
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wiretag_store::{LimitReached, StoreError};

use crate::Shared;
use crate::error::ApiError;

/// Bytes of an answer that needs no room: all connections together have some megabytes of these.
const SMALL: usize = 64 << 10;
/// Bytes of room at least, however little a query may take: a page of the most rows finds it.
const LEAST: usize = 64 << 20;
/// Room is counted in these, bytes.
const UNIT: usize = 1 << 10;
/// Answers that are made at the same time.
const TURNS: usize = 2;

/// The room.
pub(crate) struct Answers {
    room: Arc<Semaphore>,
    most: usize,
    turns: Semaphore,
}

/// JSON that is written as far as there is room.
struct Written {
    bytes: Vec<u8>,
    left: usize,
}

impl Write for Written {
    fn write(&mut self, some: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(some.len()).ok_or(io::ErrorKind::OutOfMemory)?;
        self.bytes.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An answer in its room, until nobody has a part of it.
struct Held {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Answers {
    /// As much as one query may take.
    pub(crate) fn new(memory: usize) -> Self {
        let most = memory.max(LEAST);
        Self { room: Arc::new(Semaphore::new(most / UNIT)), most, turns: Semaphore::new(TURNS) }
    }

    /// What rows of a page and their JSON may take together, bytes.
    pub(crate) const fn most(&self) -> usize {
        self.most
    }

    /// Makes an answer that may be long. Whatever else this thread has to do goes on elsewhere meanwhile.
    pub(crate) async fn made<T>(&self, make: impl FnOnce() -> T) -> T {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        tokio::task::block_in_place(make)
    }

    /// An answer in JSON, whose rows take so many bytes already.
    pub(crate) fn json(&self, answer: &impl Serialize, rows: usize) -> Result<Response, ApiError> {
        let mut out = Written { bytes: Vec::new(), left: self.most.saturating_sub(rows) };
        match serde_json::to_writer(&mut out, answer) {
            Ok(()) => Ok(([(header::CONTENT_TYPE, "application/json")], out.bytes).into_response()),
            Err(error) if error.is_io() => Err(self.too_long()),
            Err(error) => Err(ApiError::internal(&error)),
        }
    }

    fn too_long(&self) -> ApiError {
        StoreError::from(LimitReached::Memory { mib: self.most >> 20 }).into()
    }

    /// The same bytes, which take room as long as somebody has them.
    fn hold(&self, bytes: Bytes) -> Result<Bytes, ApiError> {
        if bytes.len() <= SMALL {
            return Ok(bytes);
        }
        if bytes.len() > self.most {
            return Err(self.too_long());
        }
        let units = u32::try_from(bytes.len() / UNIT).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(units);
        let room = room.map_err(|_| ApiError::busy("too many long answers are being read"))?;
        Ok(Bytes::from_owner(Held { bytes, _room: room }))
    }
}

/// Gives each answer that is there as a whole its room, or says that there is none.
pub(crate) async fn bounded(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let (parts, body) = next.run(request).await.into_parts();
    // Of what is made while it is sent nobody knows the length.
    if body.size_hint().exact().is_none() {
        return Response::from_parts(parts, body);
    }
    let held = match axum::body::to_bytes(body, usize::MAX).await {
        Ok(bytes) => shared.answers.hold(bytes),
        Err(error) => Err(ApiError::internal(&error)),
    };
    match held {
        Ok(bytes) => Response::from_parts(parts, Body::from(bytes)),
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_take_room_until_the_last_part_of_them_is_sent() {
        let answers = Answers::new(0);
        let long = || Bytes::from(vec![7; LEAST / 2]);
        let mut first = answers.hold(long()).expect("room");
        let second = answers.hold(long()).expect("room");
        assert!(answers.hold(long()).is_err(), "there is room for two");
        assert_eq!(answers.hold(Bytes::from_static(b"[]")).expect("it needs none"), "[]");
        let rest = first.split_off(LEAST / 2 - 1);
        drop(first);
        assert!(answers.hold(long()).is_err(), "a byte of it is not sent");
        assert_eq!(rest, [7_u8][..]);
        drop(rest);
        answers.hold(long()).expect("room again");
        drop(second);
        let error = answers.hold(Bytes::from(vec![7; LEAST + 1])).expect_err("never");
        assert_eq!(error.into_response().status(), 422);
    }

    #[tokio::test]
    async fn a_page_and_its_json_have_room_together() {
        let answers = Answers::new(0);
        let page = ["a", "\n"];
        let response = answers.json(&page, LEAST - r#"["a","\n"]"#.len()).expect("it fits");
        assert_eq!(response.headers().get(header::CONTENT_TYPE).expect("its type"), "application/json");
        let bytes = axum::body::to_bytes(response.into_body(), LEAST).await.expect("its bytes");
        assert_eq!(bytes, r#"["a","\n"]"#);
        for rows in [LEAST - 1, LEAST, usize::MAX] {
            assert_eq!(answers.json(&page, rows).expect_err("there is no room").into_response().status(), 422);
        }
    }
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn nobody_waits_while_an_answer_is_made() {
        let (told, tells) = std::sync::mpsc::channel();
        let making = tokio::spawn(async move {
            let make = move || {
                tokio::spawn(async move { told.send(()) });
                tells.recv_timeout(std::time::Duration::from_secs(20))
            };
            Answers::new(0).made(make).await
        });
        making.await.expect("it ends").expect("another task had its turn");
    }
}

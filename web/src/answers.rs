//! Answers that are made before they are sent: what all of them may have together while their clients read.
//!
//! * a query gives its place back when its answer is made; from then on the answer takes room here until its last byte is with the kernel. How
//!   long that may last is a limit of connections ([`crate::server`]);
//! * there is no waiting for room: what waits would take memory, too. Small answers need none;
//! * what is made while it is sent has a small channel instead ([`crate::download`], [`crate::tail`]).

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
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

/// The room.
pub(crate) struct Answers {
    room: Arc<Semaphore>,
    most: usize,
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
        Self { room: Arc::new(Semaphore::new(most / UNIT)), most }
    }

    /// The same bytes, which take room as long as somebody has them.
    fn hold(&self, bytes: Bytes) -> Result<Bytes, ApiError> {
        if bytes.len() <= SMALL {
            return Ok(bytes);
        }
        if bytes.len() > self.most {
            return Err(StoreError::from(LimitReached::Memory { mib: self.most >> 20 }).into());
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
}

//! What every request passes: one host, headers of the answer, and a limit on time.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;

/// How long a handler may take until its answer begins, unless queries may take longer.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Waiting for a place, and what is done beside the query.
const BESIDE: Duration = Duration::from_secs(15);

/// How long a handler may take that answers strangers: the body of a login is short.
pub(crate) const OPEN: Duration = Duration::from_secs(10);

/// Only what comes from here runs or is shown; nobody frames it.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// Security headers on every answer; nothing is kept by caches unless the handler says so.
pub(crate) async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Stops requests that name several hosts (RFC 9112, 3.2): whoever is in between may have read another than is read here.
pub(crate) async fn host(request: Request, next: Next) -> Response {
    if request.headers().get_all(header::HOST).iter().nth(1).is_some() {
        return ApiError::wrong("the request has several `Host` headers", "send one").into_response();
    }
    next.run(request).await
}

/// How long a handler may take, where a query may take `query`.
pub(crate) fn longest(query: Duration) -> Duration {
    TIMEOUT.max(query.saturating_add(BESIDE))
}

/// Gives up on slow handlers. A body that is still being sent is not cut.
pub(crate) async fn timeout(State(longest): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(longest, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::busy("the answer took too long").into_response(),
    }
}

//! Who may ask: the token as a bearer, or a session that a login with the token began.
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`; what changes something by cookie needs the header `x-wiretag` besides,
//! which no other site can send.

use std::io::Read;
use std::sync::{Mutex, PoisonError};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::{ApiError, ErrorBody};
use crate::sessions::{Failures, Hash, SESSION_SECONDS, Sessions, hash, same};
use crate::{Shared, now};

/// Name of the session cookie.
pub(crate) const COOKIE: &str = "wiretag_session";
/// Header that a request by cookie needs to change something.
const CSRF: &str = "x-wiretag";

/// Token, sessions, and the limit on failures.
pub(crate) struct Auth {
    token: Hash,
    sessions: Mutex<Sessions>,
    failures: Mutex<Failures>,
}

/// How a request proved itself; handlers find it among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By the token itself.
    Token,
    /// By a session that began with it.
    Session,
}

impl Auth {
    pub(crate) fn new(token: &str) -> Self {
        Self { token: hash(token), sessions: Mutex::default(), failures: Mutex::default() }
    }

    fn proof(&self, headers: &HeaderMap) -> Option<Proof> {
        if let Some(token) = bearer(headers) {
            return same(&hash(token), &self.token).then_some(Proof::Token);
        }
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        cookies(headers).any(|id| sessions.lasts(id, now())).then_some(Proof::Session)
    }

    /// Whether the headers prove anything.
    pub(crate) fn accepts(&self, headers: &HeaderMap) -> bool {
        self.proof(headers).is_some()
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Session ids among the cookies.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, _)| *name == COOKIE).map(|(_, id)| id)
}

/// Lets only authenticated requests pass.
pub(crate) async fn required(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    match shared.auth.proof(request.headers()) {
        None => ApiError::unauthorized().into_response(),
        Some(Proof::Session) if !safe && !request.headers().contains_key(CSRF) => {
            let hint = Some("send the header `x-wiretag: 1`");
            ApiError::new(StatusCode::FORBIDDEN, "a request by cookie that changes something needs a header", hint)
                .into_response()
        }
        Some(proof @ (Proof::Token | Proof::Session)) => {
            request.extensions_mut().insert(proof);
            next.run(request).await
        }
    }
}

/// What a login needs.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// The token of the appliance.
    token: String,
}

/// Whether the caller is logged in.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Session {
    /// Always true: without authentication the answer is 401.
    authenticated: bool,
}

/// Begins a session.
#[utoipa::path(post, path = "/api/v1/login", request_body = Login, responses(
    (status = 204, description = "Logged in; the answer sets the cookie `wiretag_session`"),
    (status = 400, description = "No token in the body", body = ErrorBody),
    (status = 401, description = "Not the token", body = ErrorBody),
    (status = 429, description = "Too many failed logins", body = ErrorBody)))]
pub(crate) async fn login(
    State(shared): State<Shared>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, ApiError> {
    let hint = "send `{\"token\":\"…\"}` with the content type `application/json`";
    let Json(login) = body.map_err(|error| ApiError::wrong(error.body_text(), hint))?;
    let now = now();
    {
        let mut failures = shared.auth.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if !failures.allow(now) {
            let hint = Some("wait a few seconds");
            return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many failed logins", hint));
        }
        if !same(&hash(login.token.trim()), &shared.auth.token) {
            failures.add(now);
            tracing::warn!("a login failed");
            let hint = Some("the token is in the file `token` of the data directory");
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "this is not the token", hint));
        }
    }
    let id = random_secret().map_err(|error| ApiError::internal(&error))?;
    shared.auth.sessions.lock().unwrap_or_else(PoisonError::into_inner).begin(&id, now);
    let cookie = format!("{COOKIE}={id}; Path=/; Max-Age={SESSION_SECONDS}; HttpOnly; SameSite=Strict");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Ends the session of the cookie.
#[utoipa::path(post, path = "/api/v1/logout", security(("token" = []), ("session" = [])), responses(
    (status = 204, description = "The session has ended"),
    (status = 401, description = "Not authenticated", body = ErrorBody),
    (status = 403, description = "By cookie without the header `x-wiretag`", body = ErrorBody)))]
pub(crate) async fn logout(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let mut sessions = shared.auth.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    cookies(&headers).for_each(|id| sessions.end(id));
    let cookie = format!("{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

/// Says whether the caller is authenticated.
#[utoipa::path(get, path = "/api/v1/session", security(("token" = []), ("session" = [])), responses(
    (status = 200, description = "Authenticated", body = Session),
    (status = 401, description = "Not authenticated", body = ErrorBody)))]
pub(crate) async fn session() -> Json<Session> {
    Json(Session { authenticated: true })
}

/// A secret of 256 random bits, in hex.
pub fn random_secret() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}

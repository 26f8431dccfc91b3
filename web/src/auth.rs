//! Who may ask: a token as a bearer, or a session that a login with a token began.
//!
//! The cookie is `HttpOnly` and `SameSite=Strict`; what changes something by cookie needs the header `x-wiretag` besides,
//! which no other site can send.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::caller::{Caller, Keys, Named, Proof, Reader, Who};
use crate::error::{ApiError, ErrorBody};
use crate::sessions::{Failures, Hash, SESSION_SECONDS, Sessions, hash, same};
use crate::{Shared, now};

/// What the name of the session cookie begins with. Eight hex digits of the appliance follow: cookies are of a host whatever the port, and several
/// appliances may be reached by one name.
pub(crate) const COOKIE: &str = "wiretag_session_";
/// Header that a request by cookie needs to change something.
const CSRF: &str = "x-wiretag";

/// Tokens, sessions, and the limit on failures.
pub(crate) struct Auth {
    open_metrics: bool,
    /// Name of the session cookie.
    cookie: String,
    keys: Vec<(Hash, Who)>,
    sessions: Mutex<Sessions>,
    failures: Mutex<Failures>,
}

impl Auth {
    /// Knows the token of the owner, and those of readers. No two are the same.
    pub(crate) fn new(Keys { token, readers, open_metrics }: Keys) -> std::io::Result<Self> {
        let [a, b, c, d, ..] = hash(&format!("cookie {token}"));
        let own = u32::from_be_bytes([a, b, c, d]);
        let mut keys = vec![(hash(&token), Who::Owner)];
        if token.is_empty() {
            return Err(std::io::Error::other("the token is empty; hint: anyone could log in, so it must not be"));
        }
        for Reader { name, token, rows } in readers {
            let key = hash(&token);
            if token.is_empty() || keys.iter().any(|(other, _)| same(&key, other)) {
                let problem = format!("the token of the reader `{name}` is empty, or somebody else's");
                return Err(std::io::Error::other(format!("{problem}; hint: each has one of their own")));
            }
            keys.push((key, Who::Reader(Arc::new(Named { name, rows }))));
        }
        Ok(Self {
            open_metrics,
            cookie: format!("{COOKIE}{own:08x}"),
            keys,
            sessions: Mutex::default(),
            failures: Mutex::default(),
        })
    }

    /// Whether requests from this host may have `/metrics` without a token.
    pub(crate) fn has_open_metrics(&self) -> bool {
        self.open_metrics
    }

    /// Whose token it is; every one is compared.
    fn of_token(&self, token: &str) -> Option<Who> {
        let own = hash(token);
        self.keys.iter().fold(None, |found, (key, who)| if same(&own, key) { Some(who.clone()) } else { found })
    }

    /// Notes that somebody had no token of ours, not more often than [`Failures`] allows: whether it does.
    fn note_failure(&self, what: &str, peer: IpAddr, now: i64) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let is_noted = failures.allow(now);
        if is_noted {
            failures.add(now);
            tracing::warn!("{what} from {} failed: the token is nobody's", peer.to_canonical());
        }
        is_noted
    }

    /// What is told to somebody who logs in with no token of ours: not more often than [`Failures`] allows whether it was wrong.
    fn failed(&self, peer: IpAddr, now: i64) -> ApiError {
        if !self.note_failure("a login", peer, now) {
            let hint = Some("wait a few seconds");
            return ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many failed logins", hint);
        }
        let hint = Some("the token is in the file `token` of the data directory");
        ApiError::new(StatusCode::UNAUTHORIZED, "this is not the token", hint)
    }

    /// Who sent the headers, if they prove it.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        if let Some(token) = bearer(headers) {
            return self.of_token(token).map(|who| Caller { proof: Proof::Token, who });
        }
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let who = self.cookies(headers).find_map(|id| sessions.whose(id, now()))?;
        Some(Caller { proof: Proof::Session, who })
    }

    /// Who sent a request. A token that is nobody's is noted.
    pub(crate) fn sender(&self, headers: &HeaderMap, peer: IpAddr) -> Option<Caller> {
        let caller = self.caller(headers);
        if caller.is_none() && bearer(headers).is_some() {
            self.note_failure("a request", peer, now());
        }
        caller
    }

    /// Session ids among the cookies.
    fn cookies<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a str> {
        let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = texts.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(name, _)| *name == self.cookie).map(|(_, id)| id)
    }

    /// The header that has the browser keep a session for so many seconds.
    fn set_cookie(&self, id: &str, seconds: i64) -> [(header::HeaderName, String); 1] {
        let cookie = format!("{}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict", self.cookie);
        [(header::SET_COOKIE, cookie)]
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Lets only authenticated requests pass.
pub(crate) async fn required(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    let safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(caller) = shared.auth.sender(request.headers(), peer.ip()) else {
        return ApiError::unauthorized().into_response();
    };
    if caller.proof == Proof::Session && !safe && !request.headers().contains_key(CSRF) {
        let hint = Some("send the header `x-wiretag: 1`");
        return ApiError::new(StatusCode::FORBIDDEN, "a request by cookie that changes something needs a header", hint)
            .into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

/// What a login needs.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    /// The token of the appliance, or of a reader.
    token: String,
}

/// Who the caller is.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Session {
    /// Always true: without authentication the answer is 401.
    authenticated: bool,
    /// Name of the reader whose token it was; null: it was the appliance's own.
    reader: Option<String>,
    /// The filter that rows pass before the caller sees them; null: all do.
    rows: Option<String>,
}

/// Begins a session.
#[utoipa::path(post, path = "/api/v1/login", request_body = Login, responses(
    (status = 204, description = "Logged in; the answer sets the cookie `wiretag_session_…`"),
    (status = 400, description = "No token in the body", body = ErrorBody),
    (status = 401, description = "Not the token", body = ErrorBody),
    (status = 429, description = "Not the token, and too many failed before", body = ErrorBody)))]
pub(crate) async fn login(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, ApiError> {
    let hint = "send `{\"token\":\"…\"}` with the content type `application/json`";
    let Json(login) = body.map_err(|error| ApiError::wrong(error.body_text(), hint))?;
    let now = now();
    // Strangers who try keep nobody out who knows a token.
    let Some(who) = shared.auth.of_token(login.token.trim()) else { return Err(shared.auth.failed(peer.ip(), now)) };
    if let Some(name) = who.reader() {
        tracing::info!("the reader `{name}` logged in");
    }
    let id = random_secret().map_err(|error| ApiError::internal(&error))?;
    shared.auth.sessions.lock().unwrap_or_else(PoisonError::into_inner).begin(&id, who, now);
    Ok((StatusCode::NO_CONTENT, shared.auth.set_cookie(&id, SESSION_SECONDS)).into_response())
}

/// Ends the session of the cookie.
#[utoipa::path(post, path = "/api/v1/logout", security(("token" = []), ("session" = [])), responses(
    (status = 204, description = "The session has ended"),
    (status = 401, description = "Not authenticated", body = ErrorBody),
    (status = 403, description = "By cookie without the header `x-wiretag`", body = ErrorBody)))]
pub(crate) async fn logout(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let mut sessions = shared.auth.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    shared.auth.cookies(&headers).for_each(|id| sessions.end(id));
    (StatusCode::NO_CONTENT, shared.auth.set_cookie("", 0)).into_response()
}

/// Says whether the caller is authenticated, and as whom.
#[utoipa::path(get, path = "/api/v1/session", security(("token" = []), ("session" = [])), responses(
    (status = 200, description = "Authenticated", body = Session),
    (status = 401, description = "Not authenticated", body = ErrorBody)))]
pub(crate) async fn session(caller: Caller) -> Json<Session> {
    let reader = caller.who.reader().map(str::to_owned);
    let rows = caller.rows().map(|rows| rows.text().to_owned());
    Json(Session { authenticated: true, reader, rows })
}

/// A secret of 256 random bits, in hex.
pub fn random_secret() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.map(|byte| format!("{byte:02x}")).concat())
}

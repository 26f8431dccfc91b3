//! Erasures: what was removed on purpose, by whom and why. Only the token may begin one, no session: a page that is open
//! somewhere is not enough to destroy data.

use std::net::SocketAddr;

use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use serde_json::{Map, Value};
use wiretag_store::{ErasureRequest, TableName, erasure_row, preview_row};

use crate::caller::{Caller, Proof, Who};
use crate::error::{ApiError, ErrorBody};
use crate::{Shared, now, params};

/// Characters of a name or a reason at most.
const LONGEST: usize = 1_000;

/// The tables whose rows can be erased by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ErasedTable {
    /// Flows.
    Flows,
    /// Transactions.
    Transactions,
}

/// What is to be erased, and why.
#[derive(serde::Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ErasureQuestion {
    /// Condition of the query language, without relative times; every observation of a row that passes goes.
    filter: String,
    /// Begin: RFC 3339, epoch seconds, or relative. Default: everything kept.
    from: Option<String>,
    /// End, now at the latest. Default: now.
    to: Option<String>,
    /// Only rows of this table. Default: flows and transactions.
    only: Option<ErasedTable>,
    /// Why; it stays on record.
    #[serde(default)]
    reason: String,
    /// Who asks; it stays on record, beside the address of the client.
    by: Option<String>,
    /// Only count what would be removed.
    #[serde(default)]
    dry_run: bool,
}

/// Erasures.
#[derive(serde::Serialize, utoipa::ToSchema)]
pub(crate) struct Erasures {
    /// The first first: `id`, `at`, `who`, `reason`, `filter`, `only`, `from`, `to`, `state` (`running`, `deleting`: no answer has
    /// the rows any more, `done`: nor has the disk), `finished_at`, numbers of what was removed and of what could not be
    /// checked, `problem`.
    #[schema(value_type = Vec<Object>)]
    erasures: Vec<Map<String, Value>>,
}

/// Begins an erasure, or tells what it would remove.
#[utoipa::path(post, path = "/api/v1/erasures", request_body = ErasureQuestion, security(("token" = [])),
    responses((status = 202, body = Object, description = "It has begun; `GET /api/v1/erasures/{id}` tells how far it is"),
        (status = 200, body = Object, description = "With `dry_run`: what would be removed"),
        (status = 400, body = ErrorBody, description = "A mistake in the filter, no reason, an empty range"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 403, body = ErrorBody, description = "By a session or a reader: only the appliance's token may erase")))]
pub(crate) async fn begin(
    State(shared): State<Shared>,
    caller: Caller,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    question: Result<Json<ErasureQuestion>, JsonRejection>,
) -> Result<Response, ApiError> {
    let hint = Some("send `Authorization: Bearer TOKEN` with the appliance's token, or use `wiretag erase`");
    match (&caller.who, caller.proof) {
        (Who::Owner, Proof::Token) => {}
        (Who::Owner, Proof::Session) => {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "a session may not erase, only the token may", hint));
        }
        (Who::Reader(_), Proof::Token | Proof::Session) => {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "a reader may not erase", hint));
        }
    }
    let Json(question) = question.map_err(|error| {
        ApiError::wrong(error.body_text(), "send `{\"filter\": \"…\", \"reason\": \"…\"}` as `application/json`")
    })?;
    let now = now();
    let time = |text: &Option<String>, default| text.as_deref().map_or(Ok(default), |text| params::time(text, now));
    let who = question.by.as_deref().map(str::trim).filter(|by| !by.is_empty()).unwrap_or("somebody");
    for (name, text) in [("by", who), ("reason", question.reason.as_str())] {
        if text.chars().nth(LONGEST).is_some() {
            return Err(ApiError::wrong(format!("`{name}` is too long"), "1000 characters at most"));
        }
    }
    let request = ErasureRequest {
        filter: question.filter,
        from: time(&question.from, 0)?,
        to: time(&question.to, now)?.min(now),
        only: question.only.map(|only| match only {
            ErasedTable::Flows => TableName::Flows,
            ErasedTable::Transactions => TableName::Transactions,
        }),
        who: format!("{who}, with the token, from {}", client.ip()),
        reason: question.reason,
    };
    if question.dry_run {
        return Ok(Json(preview_row(&shared.store.preview_erasure(&request).await?)).into_response());
    }
    let id = shared.store.begin_erasure(&request, now).await?;
    let store = shared.store.clone();
    // It goes on when the client is gone; what fails is in the answer to who asks for it, and tried again.
    tokio::spawn(async move { store.continue_erasures(&crate::now).await });
    Ok((StatusCode::ACCEPTED, one(State(shared), Path(id.to_string())).await?).into_response())
}

/// Every erasure, the first first.
#[utoipa::path(get, path = "/api/v1/erasures", security(("token" = []), ("session" = [])),
    responses((status = 200, body = Erasures, description = "Erasures"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 403, body = ErrorBody, description = "For those who may see every row")))]
pub(crate) async fn all(State(shared): State<Shared>) -> Result<Json<Erasures>, ApiError> {
    let erasures = shared.store.erasures().await?;
    Ok(Json(Erasures { erasures: erasures.iter().map(|erasure| erasure_row(erasure, None)).collect() }))
}

/// One erasure, with what it did to each file.
#[utoipa::path(get, path = "/api/v1/erasures/{id}", params(("id" = i64, Path, description = "Number")),
    security(("token" = []), ("session" = [])),
    responses((status = 200, body = Object, description = "The erasure, with `files`"),
        (status = 401, body = ErrorBody, description = "Not authenticated"),
        (status = 403, body = ErrorBody, description = "For those who may see every row"),
        (status = 404, body = ErrorBody, description = "No such erasure")))]
pub(crate) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<http::Response<axum::body::Body>, ApiError> {
    let erasures = shared.store.erasures().await?;
    let known = id.parse().ok().and_then(|id: i64| erasures.iter().find(|erasure| erasure.id == id));
    let Some(erasure) = known else {
        return Err(ApiError::unknown(format!("there is no erasure {id}"), "`/api/v1/erasures` lists them"));
    };
    let files = shared.store.catalog.erased_files(erasure.id).await?;
    Ok(Json(erasure_row(erasure, Some(&files))).into_response())
}

//! Errors as clients see them: `{"error":{"message","hint","column"?}}` and a status.
//!
//! This is the one place that makes statuses of errors. What the store says is logged and not sent: it names paths.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use wiretag_store::query::QueryError;
use wiretag_store::{LimitReached, StoreError};

/// Body of every error.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorBody {
    /// What is wrong.
    error: ErrorDetail,
}

/// What is wrong and what to do.
#[derive(Debug, serde::Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorDetail {
    /// What is wrong.
    message: String,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Character of the query where the mistake begins, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
}

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: ErrorDetail,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>, hint: Option<&str>) -> Self {
        let hint = hint.map(str::to_owned);
        Self { status, detail: ErrorDetail { message: message.into(), hint, column: None } }
    }

    pub(crate) fn wrong(message: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, Some(hint))
    }

    /// From a sentence of ours that may end in `; hint: …`.
    pub(crate) fn wrong_sentence(sentence: &str) -> Self {
        match sentence.split_once("; hint: ") {
            Some((message, hint)) => Self::wrong(message, hint),
            None => Self::new(StatusCode::BAD_REQUEST, sentence, None),
        }
    }

    pub(crate) fn unknown(message: impl Into<String>, hint: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, message, Some(hint))
    }

    pub(crate) fn unauthorized() -> Self {
        let hint = "send `Authorization: Bearer TOKEN` or log in at `/api/v1/login`";
        Self::new(StatusCode::UNAUTHORIZED, "not authenticated", Some(hint))
    }

    pub(crate) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message, Some("try again later, or ask for a shorter time range"))
    }

    /// Logged, not sent.
    pub(crate) fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        let hint = Some("the log of the appliance says more");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the appliance could not answer", hint)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Sql(sentence)
            | StoreError::Cursor(sentence)
            | StoreError::Erasure(sentence)
            | StoreError::Period(sentence) => Self::wrong_sentence(&sentence),
            StoreError::Limit(limit) => {
                let status = match limit {
                    LimitReached::Memory { .. } | LimitReached::Groups { .. } => StatusCode::UNPROCESSABLE_ENTITY,
                    LimitReached::Time { .. } | LimitReached::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
                };
                Self { status, ..Self::wrong_sentence(&limit.to_string()) }
            }
            error => Self::internal(&error),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let QueryError { column, message, hint, .. } = error;
        Self { status: StatusCode::BAD_REQUEST, detail: ErrorDetail { message, hint, column: Some(column) } }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(ErrorBody { error: self.detail })).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = axum::http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// A path that exists, with a method that it does not have.
pub(crate) async fn wrong_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not have that method",
        Some("see `/api/v1/openapi.json`"),
    )
}

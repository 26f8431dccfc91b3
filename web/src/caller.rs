//! Who asks, and what of the rows they may see.
//!
//! The owner has the appliance's own token and may do everything. Readers have tokens of their own: they may ask, for all rows
//! or for those that their filter lets pass, and change nothing. A filter is part of each question before it is answered, so a
//! row that it stops is in no page, total, file, packet or error.
//!
//! Handlers get their conditions from [`Caller`] only; routes that cannot tell rows apart are for those who may see all of them.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use wiretag_store::Table;
use wiretag_store::query::{self, Query, RowFilter, Statement};

use crate::error::ApiError;
use crate::now;

/// Somebody who may read.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Who it is, in the log.
    pub name: String,
    /// The secret that proves it.
    pub token: String,
    /// Which rows; `None`: all.
    pub rows: Option<RowFilter>,
}

/// What opens the API.
#[derive(Debug, Clone)]
pub struct Keys {
    /// The owner's secret.
    pub token: String,
    /// Who may read besides.
    pub readers: Vec<Reader>,
    /// Requests that come straight from this host may have `/metrics` without a token.
    pub open_metrics: bool,
}

impl Keys {
    /// Whether everybody has a token of their own, before anything is started.
    pub fn check(&self) -> std::io::Result<()> {
        crate::auth::Auth::new(self.clone()).map(drop)
    }
}

/// How a request proved who sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// By the token itself.
    Token,
    /// By a session that began with it.
    Session,
}

/// Whose token it was.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    Owner,
    Reader(Arc<Named>),
}

/// A reader without the token.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) rows: Option<RowFilter>,
}

/// Who sent a request; handlers find it among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) proof: Proof,
    pub(crate) who: Who,
}

impl Who {
    /// Whose rows are not all rows: which.
    pub(crate) fn rows(&self) -> Option<&RowFilter> {
        match self {
            Self::Owner => None,
            Self::Reader(reader) => reader.rows.as_ref(),
        }
    }

    /// Name of a reader.
    pub(crate) fn reader(&self) -> Option<&str> {
        match self {
            Self::Owner => None,
            Self::Reader(reader) => Some(&reader.name),
        }
    }
}

impl Caller {
    /// Which rows the caller may see; `None`: all.
    pub(crate) fn rows(&self) -> Option<&RowFilter> {
        self.who.rows()
    }

    /// The rows of a table that the caller may see.
    pub(crate) fn permitted<R: Table>(&self) -> Query<R> {
        self.rows().map_or_else(Query::everything, |rows| R::permitted(rows).clone())
    }

    /// A query over a table, of what the caller may see; a mistake has its column.
    pub(crate) fn query<R: Table>(&self, text: Option<&str>) -> Result<Query<R>, ApiError> {
        Ok(query::parse_at(text.unwrap_or_default(), now())?.within(&self.permitted()))
    }

    /// A query that may end in an aggregation, of what the caller may see.
    pub(crate) fn statement<R: Table>(&self, text: &str) -> Result<Statement<R>, ApiError> {
        let Statement { filter, aggregate } = query::parse_statement(text, now())?;
        Ok(Statement { filter: filter.within(&self.permitted()), aggregate })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

/// Lets only those pass who may see all rows.
pub(crate) async fn sees_all(caller: Caller, request: Request, next: Next) -> Response {
    if caller.rows().is_some() {
        return partial().into_response();
    }
    next.run(request).await
}

/// What is told to those who may see some rows only.
pub(crate) fn partial() -> ApiError {
    let hint = Some("flows, transactions and their packets can be asked for");
    ApiError::new(StatusCode::FORBIDDEN, "this is for those who may see every row", hint)
}

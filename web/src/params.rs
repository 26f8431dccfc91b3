//! Parameters of requests, checked.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use wiretag_store::query;
use wiretag_store::tables::Range;

use crate::error::ApiError;
use crate::now;

/// Range when neither end is given.
const DEFAULT_RANGE: i64 = 15 * 60 * 1_000_000_000;

/// [`Query`] whose rejection is our kind of error.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if !is_utf8(parts.uri.query().unwrap_or_default()) {
            return Err(ApiError::wrong(
                "a parameter is not UTF-8",
                "percent-encode the bytes of UTF-8, as in `%C3%A9`",
            ));
        }
        let parameters: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let hint = "`/api/v1/openapi.json` lists the parameters";
        parameters.map(|Query(parameters)| Self(parameters)).map_err(|error| ApiError::wrong(error.body_text(), hint))
    }
}

/// Whether what is percent-encoded is text: the decoder would replace what is not, and search for something else.
fn is_utf8(query: &str) -> bool {
    let mut bytes = Vec::with_capacity(query.len());
    let mut rest = query.as_bytes();
    while let [first, after @ ..] = rest {
        let digits =
            after.first_chunk::<2>().filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    std::str::from_utf8(&bytes).is_ok()
}

/// A point in time.
pub(crate) fn time(text: &str, now: i64) -> Result<i64, ApiError> {
    query::parse_time(text.trim(), now).map_err(|error| ApiError::wrong_sentence(&error.to_string()))
}

/// A time range; default is the last 15 minutes before `to`, which is now.
pub(crate) fn range(from: Option<&str>, to: Option<&str>) -> Result<Range, ApiError> {
    let now = now();
    let open = to.is_none();
    let to = to.map_or(Ok(now), |text| time(text, now))?;
    let from = from.map_or(Ok(to.saturating_sub(DEFAULT_RANGE)), |text| time(text, now))?;
    if from >= to && open {
        return Err(ApiError::wrong("the time range is empty: `from` is not before now", "write `-1h`, or give `to`"));
    }
    if from >= to {
        return Err(ApiError::wrong("the time range is empty: `from` is not before `to`", "swap `from` and `to`"));
    }
    Ok(Range { from, to })
}

/// A number with a default and bounds.
pub(crate) fn number(name: &str, value: Option<usize>, default: usize, most: usize) -> Result<usize, ApiError> {
    let value = value.unwrap_or(default);
    if (1..=most).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::wrong(format!("`{name}` is out of bounds"), &format!("a number from 1 to {most}")))
}

/// A flow id of 16 hex digits.
pub(crate) fn flow_id(text: &str) -> Result<u64, ApiError> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
    id.ok_or_else(|| ApiError::wrong(format!("`{text}` is not a flow id"), "16 hex digits, from the column `flow_id`"))
}

#[cfg(test)]
mod tests {
    use super::is_utf8;

    #[test]
    fn only_text_is_searched_for() {
        for query in ["", "q=pod", "q=%C3%A9&limit=1", "q=%", "q=%4", "q=100%25"] {
            assert!(is_utf8(query), "{query}");
        }
        for query in ["q=%ff", "q=%C3", "limit=1&q=a%80b", "q=%ED%A0%80"] {
            assert!(!is_utf8(query), "{query}");
        }
    }
}

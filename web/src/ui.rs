//! The UI, built into the program: its page at `/`, and the files of that. What the page shows is in the query of its address, so other paths
//! are none: a probe of `/healthz` that got a page would be content whatever happens.

use axum::http::{Method, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use crate::error::{ApiError, wrong_method};

#[derive(RustEmbed)]
#[folder = "ui/dist"]
struct Files;

const INDEX: &str = "index.html";

/// The page of the UI, or a file of it.
pub(crate) async fn file(method: Method, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path == "api" || path.starts_with("api/") {
        return ApiError::unknown("no such path", "see `/api/v1/openapi.json`").into_response();
    }
    if method != Method::GET && method != Method::HEAD {
        return wrong_method().await.into_response();
    }
    embedded(if path.is_empty() { INDEX } else { path }).unwrap_or_else(|| {
        let hint = if path.starts_with("assets/") {
            "reload the page"
        } else {
            "the page is at `/`, and `/api/v1/health` says how it is doing"
        };
        ApiError::unknown("no such file", hint).into_response()
    })
}

fn embedded(path: &str) -> Option<Response> {
    let file = Files::get(path)?;
    let cache = if is_hashed(path) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = [(header::CONTENT_TYPE, content_type(path)), (header::CACHE_CONTROL, cache)];
    Some((headers, file.data).into_response())
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// `assets/NAME-HASH.EXTENSION` with a hash of eight characters that is not a word.
fn is_hashed(path: &str) -> bool {
    let name = path.strip_prefix("assets/").and_then(|name| name.rsplit_once('.')).map(|(name, _)| name);
    // The hash may itself contain a dash, so it is counted from the end.
    let hash = name.and_then(|name| name.len().checked_sub(9).and_then(|at| name.get(at..)));
    let Some(hash) = hash.and_then(|hash| hash.strip_prefix('-')) else { return false };
    let mixed = hash.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
    mixed && hash.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn what_is_no_file_of_the_page_is_not_there() {
        let status = async |path: &'static str| file(Method::GET, Uri::from_static(path)).await.status();
        for path in ["/", "/?q=port%20%3D%3D%2080", "/index.html"] {
            assert_eq!(status(path).await, StatusCode::OK, "{path}");
        }
        for path in ["/healthz", "/ready", "/-/healthy", "/assets/gone.js", "/api/v2/flows"] {
            assert_eq!(status(path).await, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(file(Method::POST, Uri::from_static("/")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn only_hashed_names_are_kept_for_ever() {
        assert!(is_hashed("assets/index-DiwrgTda.js"));
        assert!(is_hashed("assets/index-a1b2-3d4.css"));
        for path in ["index.html", "assets/index.js", "assets/flow-timeline.js", "favicon-DiwrgTda.svg"] {
            assert!(!is_hashed(path), "{path}");
        }
    }
}

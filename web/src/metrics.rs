//! `/metrics`, and what the server counts of itself.
//!
//! A scrape from this host needs no token, as Prometheus beside the appliance is the usual set-up. It must come straight
//! from loopback and name a local host, so that no web site can read it by rebinding its name. A proxy on this host is known by the headers
//! that it adds; one that adds none is not, and `open_metrics = false` is for that.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder};

use crate::Shared;
use crate::caller::partial;
use crate::error::ApiError;

/// Requests and their durations.
pub(crate) struct HttpMetrics {
    requests: IntCounterVec,
    durations: HistogramVec,
}

impl HttpMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let requests = Opts::new("wiretag_http_requests_total", "HTTP requests by route and status.");
        let requests = IntCounterVec::new(requests, &["route", "status"])?;
        let help = "Time until the answer to an HTTP request begins.";
        let durations = HistogramOpts::new("wiretag_http_request_duration_seconds", help)
            .buckets(vec![0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 60.0]);
        let durations = HistogramVec::new(durations, &["route"])?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        Ok(Self { requests, durations })
    }
}

/// Counts and times a request.
pub(crate) async fn observe(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    // Paths that match no route are the UI's: one series, whatever is asked for.
    let matched = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = matched.as_deref().unwrap_or("ui");
    let begin = tokio::time::Instant::now();
    let response = next.run(request).await;
    shared.metrics.requests.with_label_values(&[route, response.status().as_str()]).inc();
    shared.metrics.durations.with_label_values(&[route]).observe(begin.elapsed().as_secs_f64());
    response
}

/// The text exposition.
pub(crate) async fn scrape(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match shared.auth.sender(&headers, peer.ip()) {
        // Pods have names there.
        Some(caller) if caller.rows().is_some() => return Err(partial()),
        None if !shared.auth.has_open_metrics() || !is_local(peer.ip(), &uri, &headers) => {
            return Err(ApiError::unauthorized());
        }
        Some(_) | None => {}
    }
    let families = shared.registry.gather();
    let text = TextEncoder::new().encode_to_string(&families).map_err(|error| ApiError::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

fn is_local(peer: IpAddr, uri: &Uri, headers: &HeaderMap) -> bool {
    let proxied = ["forwarded", "x-forwarded-for", "x-real-ip", "via"].iter().any(|name| headers.contains_key(*name));
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A target with a host of its own counts (RFC 9112, 3.2.2).
    let host = uri.authority().map_or(host, |authority| authority.as_str());
    peer.to_canonical().is_loopback() && !proxied && is_local_name(host)
}

/// `localhost` or a loopback address, with or without a port.
fn is_local_name(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        Some(_) | None => host,
    };
    let name = without_port.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_host_are_local() {
        for host in ["localhost", "localhost:9", "LocalHost:9", "127.0.0.1", "127.0.0.1:80", "[::1]:80", "[::1]"] {
            assert!(is_local_name(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:80", "10.0.0.1:80", "localhost.evil.example", "127.0.0.1.nip.io"]
        {
            assert!(!is_local_name(host), "{host}");
        }
    }

    #[test]
    fn proxied_and_distant_requests_are_not_local() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().expect("a value"));
        let loopback: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        let (plain, own) = (Uri::from_static("/metrics"), Uri::from_static("http://localhost:8480/metrics"));
        assert!(is_local(loopback, &plain, &headers) && is_local(loopback, &own, &headers));
        assert!(!is_local(loopback, &Uri::from_static("http://evil.example/metrics"), &headers));
        assert!(!is_local("192.0.2.1".parse().expect("an address"), &plain, &headers));
        headers.insert("x-forwarded-for", "192.0.2.1".parse().expect("a value"));
        assert!(!is_local(loopback, &plain, &headers));
    }
}

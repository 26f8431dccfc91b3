//! Settings of flows that go to others as logs: `[otlp]`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    default,
    expecting = "a table with `endpoint`, `ca_file`, `compression`, `headers_file`, `batch` and `interval`"
)]
pub(super) struct WrittenOtlp {
    endpoint: Option<String>,
    ca_file: Option<PathBuf>,
    compression: Option<String>,
    headers_file: Option<PathBuf>,
    batch: Option<u32>,
    interval: Option<u32>,
}

/// Headers that wiretag writes itself.
const OWN: [&str; 5] = ["content-encoding", "content-length", "content-type", "host", "transfer-encoding"];

/// How what is sent is made small: a content coding of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    None,
}

/// How rows are exported as log records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OtlpConfig {
    /// URL of the receiver, without `/v1/logs`.
    pub(crate) endpoint: String,
    /// Certificates of the authorities that are trusted, in PEM, instead of those that the machine trusts.
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) compression: Coding,
    /// What is sent with each request, for authentication.
    pub(crate) headers_file: Option<PathBuf>,
    /// Records in a request at most.
    pub(crate) batch: u32,
    /// Time that a record waits for others, ns.
    pub(crate) interval: i64,
}

impl OtlpConfig {
    /// Whether the receiver is spoken to in TLS.
    pub(crate) fn is_tls(&self) -> bool {
        self.endpoint.starts_with("https://")
    }
}

pub(super) fn otlp(written: WrittenOtlp) -> anyhow::Result<Option<OtlpConfig>> {
    let (batch, interval) = (written.batch.unwrap_or(512), written.interval.unwrap_or(1));
    if !(1..=8_192).contains(&batch) {
        bail!("`otlp.batch` is {batch}; hint: between 1 and 8192 flows");
    }
    if !(1..=60).contains(&interval) {
        bail!("`otlp.interval` is {interval}; hint: between 1 and 60 seconds");
    }
    let compression = match written.compression.as_deref() {
        Some("gzip") | None => Coding::Gzip,
        Some("none") => Coding::None,
        Some(other) => bail!("`otlp.compression` is `{other}`; hint: `gzip` or `none`"),
    };
    let Some(endpoint) = written.endpoint else {
        for (name, file) in [("headers_file", &written.headers_file), ("ca_file", &written.ca_file)] {
            if file.is_some() {
                bail!(
                    "`otlp.{name}` is written without `otlp.endpoint`; hint: `endpoint = \"https://collector.example:4318\"`"
                );
            }
        }
        return Ok(None);
    };
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let place = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    if !place.is_some_and(is_place) {
        bail!("`otlp.endpoint` is `{endpoint}`; hint: as in `https://collector.example:4318`, without `/v1/logs`");
    }
    let interval = i64::from(interval) * 1_000_000_000;
    let WrittenOtlp { ca_file, headers_file, .. } = written;
    let config = OtlpConfig { endpoint, ca_file, compression, headers_file, batch, interval };
    if config.ca_file.is_some() && !config.is_tls() {
        bail!("`otlp.ca_file` is written, but `otlp.endpoint` is `{}`; hint: `https://`", config.endpoint);
    }
    Ok(Some(config))
}

/// A host, perhaps a port, perhaps a path; no user, since passwords in it would be shown.
fn is_place(text: &str) -> bool {
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let port = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map(|(_, port)| port);
    let plain = text.chars().all(|char| char.is_ascii_graphic() && !"@?#\"<>\\^`{|}".contains(char));
    plain
        && !host.is_empty()
        && !host.starts_with(':')
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
        && path != "v1/logs"
        && !path.ends_with("/v1/logs")
}

/// Reads headers, one a line; what is wrong is said without the values.
pub(crate) fn headers(path: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| {
        format!("cannot read `{shown}`; hint: `otlp.headers_file` names a file with lines `name: value`")
    })?;
    let mut headers = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let parts = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        let sound = parts.filter(|(name, value)| {
            let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            // These belong to the request.
            let is_own = OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
            !is_own
                && !name.is_empty()
                && name.bytes().all(is_token)
                && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        });
        let Some((name, value)) = sound else {
            bail!(
                "line {number} of `{shown}` is no header that can be added; hint: `name: value` in ASCII, as in `authorization: Bearer …`"
            );
        };
        headers.push((name.to_owned(), value.to_owned()));
    }
    Ok(headers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]
mod tests {
    use super::*;

    fn exporter(text: &str) -> Result<Option<OtlpConfig>, String> {
        otlp(toml::from_str(text).expect("TOML")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_receiver_is_a_url_without_a_secret() {
        assert_eq!(exporter(""), Ok(None));
        for (written, endpoint) in [
            ("http://collector:4318/", "http://collector:4318"),
            ("http://[::1]:4318", "http://[::1]:4318"),
            ("http://collector/otlp", "http://collector/otlp"),
            ("https://collector.example/", "https://collector.example"),
        ] {
            let own = exporter(&format!("endpoint = '{written}'")).expect("an exporter").expect("wanted");
            assert_eq!((&*own.endpoint, own.batch, own.interval), (endpoint, 512, 1_000_000_000));
        }
        for (wrong, part) in [
            ("endpoint = 'collector:4318'", "`https://collector.example:4318`"),
            ("endpoint = 'http://'", "`https://collector.example:4318`"),
            ("endpoint = 'https://'", "`https://collector.example:4318`"),
            ("endpoint = 'http://a'\nca_file = '/a'", "`https://`"),
            ("endpoint = 'http://a'\ncompression = 'zstd'", "`gzip` or `none`"),
            ("endpoint = 'http://a:b'", "without `/v1/logs`"),
            ("endpoint = 'http://user:word@a'", "without `/v1/logs`"),
            ("endpoint = 'http://a/v1/logs'", "without `/v1/logs`"),
            ("endpoint = 'http://a'\nbatch = 0", "between 1 and 8192"),
            ("endpoint = 'http://a'\ninterval = 61", "between 1 and 60"),
            ("headers_file = '/a'", "without `otlp.endpoint`"),
            ("ca_file = '/a'", "without `otlp.endpoint`"),
        ] {
            let error = exporter(wrong).expect_err(wrong);
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn headers_are_read_and_never_told() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "authorization: Bearer a:b\n\nX-Scope: one\n").expect("written");
        let own = [("authorization", "Bearer a:b"), ("X-Scope", "one")];
        let own: Vec<_> = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(headers(file.path()).expect("headers"), own);
        for wrong in
            ["secret", "na me: secret", ": secret", "name: secret\u{7}", "Host: secret", "content-type: secret"]
        {
            std::fs::write(file.path(), wrong).expect("written");
            let error = format!("{:#}", headers(file.path()).expect_err(wrong));
            assert!(error.contains("line 1") && error.contains("hint: ") && !error.contains("secret"), "{error}");
        }
    }
}

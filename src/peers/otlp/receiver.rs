//! The receiver as HTTP sees it: where it is, whom it is taken for, and what it answers.
//!
//! Over `https://` its certificate is always verified: against the authorities that this machine trusts, or only those of `ca_file`. Both are
//! read once, at the start, so that a file that is wrong is told there. Cryptography is aws-lc-rs, as for the API server and PostgreSQL.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use flate2::write::GzEncoder;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{CertificateError, RootCertStore};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use wiretag_enrich::otlp;

use crate::config::{Coding, OtlpConfig};

/// Bytes of an answer that are read.
const MOST_ANSWER: u64 = 64 << 10;

/// What the receiver made of a request.
pub(super) enum Outcome {
    /// It has it.
    Taken(otlp::Partial),
    /// It may have it later; after this time, if it said so.
    Later(String, Option<Duration>),
    /// It does not want it.
    Refused(String),
}

/// Who receives.
pub(super) struct HttpReceiver {
    pub(super) url: String,
    agent: ureq::Agent,
    headers: Vec<(String, String)>,
    compression: Coding,
}

impl HttpReceiver {
    /// Reads the files that the configuration names; connects nowhere.
    pub(super) fn new(config: &OtlpConfig) -> anyhow::Result<Self> {
        let headers = config.headers_file.as_deref().map(crate::config::headers).transpose()?.unwrap_or_default();
        let mut agent = ureq::Agent::config_builder()
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("wiretag/", env!("CARGO_PKG_VERSION")));
        if config.is_tls() {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let tls = TlsConfig::builder()
                .root_certs(trusted(config.ca_file.as_deref())?)
                .unversioned_rustls_crypto_provider(provider);
            agent = agent.tls_config(tls.build());
        }
        Ok(Self {
            url: format!("{}/v1/logs", config.endpoint),
            agent: ureq::Agent::new_with_config(agent.build()),
            headers,
            compression: config.compression,
        })
    }

    /// A message as it is sent, once or several times.
    pub(super) fn body(&self, message: Vec<u8>) -> std::io::Result<Vec<u8>> {
        match self.compression {
            Coding::None => Ok(message),
            Coding::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&message)?;
                encoder.finish()
            }
        }
    }

    /// Sends a [`Self::body`]; the answer may take `patience`.
    pub(super) fn send(&self, body: &[u8], patience: Duration) -> Outcome {
        let mut post = self.agent.post(&self.url).config().timeout_global(Some(patience)).build();
        for (name, value) in &self.headers {
            post = post.header(name, value);
        }
        if self.compression == Coding::Gzip {
            post = post.header("content-encoding", "gzip");
        }
        let mut answer = match post.content_type("application/x-protobuf").send(body) {
            Ok(answer) => answer,
            Err(error) => return Outcome::Later(words(&error), None),
        };
        let status = answer.status();
        match status.as_u16() {
            // A body that does not arrive is that of a request that was taken.
            200..=299 => {
                let body = answer.body_mut().with_config().limit(MOST_ANSWER).read_to_vec().unwrap_or_default();
                Outcome::Taken(otlp::partial(&body))
            }
            429 | 502 | 503 | 504 => {
                let asked = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
                let pause = asked.and_then(|asked| pause(asked, crate::host::now()));
                Outcome::Later(format!("it answers {status}"), pause)
            }
            415 if self.compression == Coding::Gzip => {
                Outcome::Refused(format!("it answers {status}; hint: `otlp.compression = \"none\"`"))
            }
            _ => Outcome::Refused(format!("it answers {status}")),
        }
    }
}

/// What `Retry-After` asks for at `now`: seconds, or until a date in one of the three formats that HTTP has (RFC 9110, 10.2.3 and 5.6.7).
fn pause(asked: &str, now: i64) -> Option<Duration> {
    const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DATES.iter().find_map(|format| chrono::NaiveDateTime::parse_from_str(asked, format).ok())?;
    let left = date.and_utc().timestamp_nanos_opt()?.saturating_sub(now);
    Some(Duration::from_nanos(left.try_into().unwrap_or_default()))
}

/// Certificates of the authorities that may say who the receiver is.
fn trusted(ca_file: Option<&Path>) -> anyhow::Result<RootCerts> {
    let certificates = if let Some(path) = ca_file {
        read(path)?
    } else {
        // One that cannot be read is like one that is not there.
        let found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() {
            bail!(
                "this machine has no certificates of authorities; hint: install `ca-certificates`, or name a file in `otlp.ca_file`"
            );
        }
        found
    };
    Ok(certificates.iter().map(|own| Certificate::from_der(own).to_owned()).into())
}

/// The certificates of a file in PEM.
fn read(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = path.display();
    let text = std::fs::read(path)
        .with_context(|| format!("cannot read `{shown}`; hint: `otlp.ca_file` names certificates in PEM"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.with_context(|| format!("`{shown}` is no PEM; hint: `-----BEGIN CERTIFICATE-----`"))?;
    if found.is_empty() {
        bail!("`{shown}` has no certificate; hint: `otlp.ca_file` names certificates of authorities in PEM");
    }
    for (number, own) in (1..).zip(&found) {
        RootCertStore::empty()
            .add(own.clone())
            .with_context(|| format!("certificate {number} of `{shown}` is not understood; hint: X.509 in PEM"))?;
    }
    Ok(found)
}

/// Why nobody answered.
fn words(error: &ureq::Error) -> String {
    let tls = match error {
        ureq::Error::Rustls(tls) => Some(tls),
        ureq::Error::Io(io) => io.get_ref().and_then(|inner| inner.downcast_ref()),
        _ => None,
    };
    tls.map_or_else(|| error.to_string(), tls_words)
}

/// Why a connection was not taken for one to the receiver: the same words for the same reason, whenever it is.
fn tls_words(error: &rustls::Error) -> String {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    let text = error.to_string();
    let hint = match error {
        InvalidCertificate(CertificateError::UnknownIssuer) => {
            return "its certificate is of an authority that is not trusted; hint: `otlp.ca_file` names the certificate of a private one".to_owned();
        }
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            return "its certificate has expired; hint: it needs a new one, or this machine's clock is wrong"
                .to_owned();
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            return "its certificate is not valid yet; hint: this machine's clock or that of the authority is wrong"
                .to_owned();
        }
        InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            "`otlp.endpoint` with a name that the certificate bears"
        }
        InvalidCertificate(_) if text.contains("CaUsedAsEndEntity") => {
            "an authority's own certificate is none for a server: let it sign one"
        }
        InvalidMessage(_) => "`http://`, if it does not speak TLS",
        _ => return format!("TLS fails: {text}"),
    };
    format!("{text}; hint: {hint}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_file_of_authorities_must_have_certificates() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let missing = Path::new("/nonexistent/ca.pem");
        assert!(read(missing).is_err_and(|error| error.to_string().contains("hint: ")));
        for (text, part) in [
            ("", "has no certificate"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "is no PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1 of"),
        ] {
            std::fs::write(file.path(), text).expect("written");
            let error = read(file.path()).expect_err(part).to_string();
            assert!(error.contains(part) && error.contains("hint: "), "{error}");
        }
    }

    #[test]
    fn a_pause_is_told_in_seconds_or_by_a_date() {
        // 1994-11-06T08:49:30Z.
        const NOW: i64 = 784_111_770_000_000_000;
        for (asked, seconds) in [
            ("4", Some(4)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(7)),
            ("Sun Nov  6 08:49:37 1994", Some(7)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Mon, 07 Nov 1994 08:49:30 GMT", Some(86_400)),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None),
            ("soon", None),
            ("-4", None),
            ("", None),
        ] {
            assert_eq!(pause(asked, NOW), seconds.map(Duration::from_secs), "{asked}");
        }
    }

    #[test]
    fn bodies_are_what_the_configuration_says() {
        let receiver = |compression| {
            let config = OtlpConfig {
                endpoint: "http://127.0.0.1:1".to_owned(),
                headers_file: None,
                ca_file: None,
                compression,
                batch: 1,
                interval: 1,
            };
            HttpReceiver::new(&config).expect("a receiver")
        };
        let message = b"flow ".repeat(1_000);
        assert_eq!(receiver(Coding::None).body(message.clone()).expect("a body"), message);
        let small = receiver(Coding::Gzip).body(message.clone()).expect("a body");
        let mut again = Vec::new();
        flate2::read::GzDecoder::new(&*small).read_to_end(&mut again).expect("gzip");
        assert!(small.len() < 200 && again == message, "{}", small.len());
    }
}

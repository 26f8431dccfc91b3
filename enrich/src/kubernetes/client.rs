//! The way to the API server: where it is, who we are there, and what an error means.
//!
//! A kubeconfig and its token file are read again when the API server no longer knows us, so a token that was renewed meanwhile
//! counts at once, and when there is no way to the server: it may have another address or authority by now. In a cluster the client also reads its token again every minute. Nothing of what the server answers but
//! its own sentence gets into a log: objects and plugins may show secrets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::AsyncReadExt;
use kube::client::Client;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::core::Request;
use kube::core::params::{GetParams, PostParams};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

/// The handshake with a server that is there takes moments.
const CONNECT: Duration = Duration::from_secs(10);
/// A server that needs longer for an answer is asked again.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes of an answer that are taken: a page of the largest objects there can be is far below.
const MOST_BYTES: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// 401: the token has expired, or never was good.
    Unauthorized,
    /// 403: a permission is missing, in the server's words.
    Forbidden(String),
    /// 404: the server has no such thing.
    NotFound,
    /// 410: what was asked for is too old.
    Gone,
    /// A watch ended as soon as it had begun.
    Brief,
    /// No request reaches the server, in words.
    Unreached(String),
    /// Anything else, in words.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorized => f.write_str("the API server does not accept the token or certificate"),
            Self::Forbidden(message) => write!(f, "not allowed: {message}"),
            Self::NotFound => f.write_str("the API server does not have it"),
            Self::Gone => f.write_str("too old for the API server"),
            Self::Brief => f.write_str("the API server ends watches as soon as they begin"),
            Self::Unreached(message) | Self::Other(message) => f.write_str(message),
        }
    }
}

impl Failure {
    /// Whether it may be another with what the kubeconfig says now.
    pub(super) fn is_of_connection(&self) -> bool {
        match self {
            Self::Unauthorized | Self::Unreached(_) => true,
            Self::Forbidden(_) | Self::NotFound | Self::Gone | Self::Brief | Self::Other(_) => false,
        }
    }

    /// An HTTP status.
    pub(super) fn of_status(code: u16, message: &str) -> Self {
        match code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden(message.to_owned()),
            404 => Self::NotFound,
            410 => Self::Gone,
            _ => Self::Other(format!("the API server says {code}: {message}")),
        }
    }

    pub(super) fn late() -> Self {
        Self::Other("the API server does not answer in time".into())
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(status.code, &status.message),
            // Its text has what the command printed.
            kube::Error::Auth(_) => {
                Self::Other("the kubeconfig's credentials cannot be had (plugin or token file)".into())
            }
            kube::Error::Service(error) => Self::Unreached(chain(&*error)),
            kube::Error::HyperError(error) => Self::Unreached(chain(&error)),
            error => Self::Other(error.to_string()),
        }
    }
}

/// What went wrong, down to the cause.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// The connection that all watches share.
pub(super) struct Connector {
    kubeconfig: Option<PathBuf>,
    current: Mutex<(u64, Option<Client>)>,
}

impl Connector {
    /// With a kubeconfig, or from inside the cluster.
    pub(super) fn new(kubeconfig: Option<PathBuf>) -> Self {
        Self { kubeconfig, current: Mutex::new((0, None)) }
    }

    /// The client, and its number for [`Self::renew`].
    pub(super) async fn client(&self) -> Result<(u64, Client), Failure> {
        let mut current = self.current.lock().await;
        if let (number, Some(client)) = &*current {
            return Ok((*number, client.clone()));
        }
        let client = connect(self.kubeconfig.as_deref()).await?;
        let number = current.0 + 1;
        *current = (number, Some(client.clone()));
        Ok((number, client))
    }

    /// This client does not reach the server, or is not known to it any more: the next one is made anew.
    pub(super) async fn renew(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.0 == number {
            current.1 = None;
        }
    }

    /// One object's metadata.
    pub(super) async fn metadata<T: DeserializeOwned>(&self, path: &str, name: &str) -> Result<T, Failure> {
        let request = Request::new(path).get_metadata(name, &GetParams::default());
        let request = request.map_err(|error| Failure::Other(error.to_string()))?;
        let (number, client) = self.client().await?;
        let answer = async { read(client.request_stream(request).await?).await };
        let body = match tokio::time::timeout(PATIENCE, answer).await.map_err(|_| Failure::late())? {
            Err(failure) if failure.is_of_connection() => {
                self.renew(number).await;
                return Err(failure);
            }
            body => body?,
        };
        parse(&body)
    }

    /// Sends an object and takes the answer.
    pub(super) async fn create<T: DeserializeOwned>(&self, path: &str, object: Vec<u8>) -> Result<T, Failure> {
        let request = Request::new(path).create(&PostParams::default(), object);
        let request = request.map_err(|error| Failure::Other(error.to_string()))?;
        let (_, client) = self.client().await?;
        let answer = async { read(client.request_stream(request).await?).await };
        let body = tokio::time::timeout(PATIENCE, answer).await.map_err(|_| Failure::late())?;
        parse(&body?)
    }
}

async fn connect(kubeconfig: Option<&Path>) -> Result<Client, Failure> {
    let mut config = match kubeconfig {
        Some(path) => {
            let written = Kubeconfig::read_from(path).map_err(|error| Failure::Other(error.to_string()))?;
            // The environment's proxy is for other traffic.
            let clusters = written.clusters.iter().filter_map(|own| own.cluster.as_ref());
            let own_proxy = clusters.into_iter().any(|cluster| cluster.proxy_url.is_some());
            let config = Config::from_custom_kubeconfig(written, &KubeConfigOptions::default()).await;
            let mut config = config.map_err(|error| Failure::Other(error.to_string()))?;
            config.proxy_url = config.proxy_url.filter(|_| own_proxy);
            config
        }
        None => Config::incluster().map_err(|error| Failure::Other(error.to_string()))?,
    };
    config.connect_timeout = Some(CONNECT);
    // Each watch has its own pauses.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Reads an answer to its end.
pub(super) async fn read(body: impl futures_util::AsyncBufRead) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut body = std::pin::pin!(body.take(MOST_BYTES));
    body.read_to_end(&mut bytes).await.map_err(|error| Failure::Other(chain(&error)))?;
    Ok(bytes)
}

/// Parses an answer; what is in it is not shown.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::Other(format!(
            "the answer is not what it should be (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

//! The way to the API: its configuration, and one GET bounded in size. The caller bounds the time.

use std::{error::Error as StdError, fs, path::PathBuf, time::Duration};

use http::{Request, StatusCode, header::ACCEPT};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::Cluster;

/// Of an answer, in bytes: etcd's objects are below 1.5 MiB, and a pod's is about 10 KiB.
const MAX: usize = 4 << 20;
/// Of a kubeconfig, in bytes.
const MAX_KUBECONFIG: u64 = 1 << 20;
/// Of what the API says on a refusal, in characters.
const MAX_MESSAGE: usize = 300;
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const RIGHTS: &str = "the rights that are needed stand in deploy/daemonset.yaml";

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("not in a cluster and no --kubeconfig")]
    NotConfigured,
    #[error("in a cluster, but no service account's token is mounted ({TOKEN}), and no --kubeconfig")]
    NoToken,
    #[error("kubeconfig {path}: {why}", path = .0.display(), why = .1)]
    Kubeconfig(PathBuf, String),
    #[error("the service account: {0}")]
    InCluster(String),
    #[error(
        "the kubeconfig's user is known by running a program (`exec`), which is not done here; give one with a token or a certificate"
    )]
    Exec,
    #[error("{0}")]
    Connection(String),
    #[error("the answer broke off: {0}")]
    Body(String),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is longer than {} MiB", MAX >> 20)]
    TooLong,
    #[error("the answer is not what it should be: {0}")]
    Malformed(serde_json::Error),
    #[error("the API does not know who asks (401 Unauthorized): has the token expired?")]
    Unauthorized,
    #[error("the API refuses it (403 Forbidden): {0}; {RIGHTS}")]
    Forbidden(String),
    #[error("there is none (404 Not Found)")]
    NotFound,
    #[error("the API answered with status {0}{1}")]
    Status(StatusCode, String),
}

/// What the API answers where it refuses (apimachinery `metav1.Status`).
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// Configuration of the client: the kubeconfigs that were named, else the service account.
pub(super) async fn configuration(cluster: &Cluster) -> Result<Config, Error> {
    let mut config = match cluster.kubeconfigs.is_empty() {
        false => of_kubeconfigs(&cluster.kubeconfigs).await?,
        true if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() => return Err(Error::NotConfigured),
        true if !fs::exists(TOKEN).unwrap_or(false) => return Err(Error::NoToken),
        true => Config::incluster().map_err(|e| Error::InCluster(chain(&e)))?,
    };
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err(Error::Exec);
    }
    if config.cluster_url.scheme_str() == Some("http") {
        // No certificates are needed, so none of the system's are looked for.
        config.root_cert = Some(Vec::new());
    }
    // Waiting for a better time is not for us.
    config.default_retry = false;
    Ok(config)
}

async fn of_kubeconfigs(paths: &[PathBuf]) -> Result<Config, Error> {
    let mut merged = Kubeconfig::default();
    for path in paths {
        let at = |why: String| Error::Kubeconfig(path.clone(), why);
        let file = fs::metadata(path).map_err(|e| at(e.to_string()))?;
        if !file.is_file() || file.len() > MAX_KUBECONFIG {
            return Err(at(format!("not a file, or one of more than {} MiB", MAX_KUBECONFIG >> 20)));
        }
        let read = Kubeconfig::read_from(path).map_err(|e| at(chain(&e)))?;
        merged = merged.merge(read).map_err(|e| at(chain(&e)))?;
    }
    let first = paths.first().cloned().unwrap_or_default();
    let config = Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await;
    config.map_err(|e| Error::Kubeconfig(first, chain(&e)))
}

/// `host:port` of the server.
pub(super) fn server(config: &Config) -> String {
    let url = &config.cluster_url;
    let port = url.port_u16().unwrap_or(if url.scheme_str() == Some("http") { 80 } else { 443 });
    format!("{}:{port}", url.host().unwrap_or_default())
}

pub(super) fn client(config: Config) -> Result<Client, Error> {
    Client::try_from(config).map_err(|e| Error::Connection(chain(&e)))
}

/// The object at `path`.
pub(super) async fn get<T: DeserializeOwned>(client: &Client, path: &str) -> Result<T, Error> {
    let request = Request::get(path).header(ACCEPT, "application/json").body(Body::empty());
    let request = request.map_err(|e| Error::Connection(e.to_string()))?;
    let response = client.send(request).await.map_err(|e| Error::Connection(chain(&e)))?;
    let status = response.status();
    let body =
        Limited::new(response.into_body(), MAX).collect().await.map_err(|e| match e.is::<LengthLimitError>() {
            true => Error::TooLong,
            false => Error::Body(chain(&*e)),
        })?;
    let body = body.to_bytes();
    let said = || serde_json::from_slice::<Refusal>(&body).map(|refusal| shortened(&refusal.message)).ok();
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(Error::Malformed),
        StatusCode::UNAUTHORIZED => Err(Error::Unauthorized),
        StatusCode::FORBIDDEN => Err(Error::Forbidden(said().unwrap_or_else(|| "no reason given".into()))),
        StatusCode::NOT_FOUND => Err(Error::NotFound),
        other => Err(Error::Status(other, said().map(|text| format!(": {text}")).unwrap_or_default())),
    }
}

fn shortened(message: &str) -> String {
    let plain = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_MESSAGE).collect()
}

/// An error with its causes, each said once.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    // What the certificate is for instead: names that are nobody's business.
    let text = text.split("; certificate is only valid").next().unwrap_or(&text);
    shortened(text)
}

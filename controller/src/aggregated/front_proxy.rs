//! Verifies that the caller is the API server, and reads the user of the request from its headers.
//!
//! The API server presents a certificate of an authority that it publishes, together with the
//! names that such a certificate may have and the headers that name the user. Without that
//! certificate a header is worth nothing: every pod can send one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use http::HeaderMap;
use identity::front_proxy::{BadAuthorities, front_server_config};
use identity::tls::ServingHandle;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as follow};
use kube::{Api, Client};
use rustls::ServerConfig;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tracing::{info, warn};

/// Where the API server publishes how it calls.
const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";
const CLIENT_CA: &str = "requestheader-client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";
const USERNAME_HEADERS: &str = "requestheader-username-headers";
const UID_HEADERS: &str = "requestheader-uid-headers";
const GROUP_HEADERS: &str = "requestheader-group-headers";
const EXTRA_PREFIXES: &str = "requestheader-extra-headers-prefix";
/// How long the ConfigMap may be unreadable before that is said.
const PATIENCE: Duration = Duration::from_secs(10);

/// A user, as the API server passes it on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct User {
    /// Name.
    pub name: String,
    /// Unique id, may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Whatever else was found out about the user.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Short, and the same for what RBAC takes for the same user: name, uid and groups. What else
    /// is known of the user may change with every token.
    pub(crate) fn digest(&self) -> [u8; 32] {
        digest(&(&self.name, &self.uid, &self.groups))
    }
}

/// A hash of what is written for debugging, in which strings are quoted and so cannot run into
/// each other. What users send may be long, and what is remembered of it must not.
pub(crate) fn digest(of: &impl std::fmt::Debug) -> [u8; 32] {
    Sha256::digest(format!("{of:?}")).into()
}

/// Why a caller is not the API server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// No certificate of the API server's authority.
    #[error("only the API server may call: no client certificate was shown")]
    NoCertificate,
    /// A certificate of the right authority for another name.
    #[error("only the API server may call: the client certificate is for {0:?}")]
    WrongName(String),
    /// The API server passed no user on.
    #[error("no user was passed on")]
    NoUser,
}

/// How the API server calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Front {
    client_ca: String,
    /// Empty allows every name.
    allowed: Vec<String>,
    username: Vec<String>,
    uid: Vec<String>,
    groups: Vec<String>,
    extra: Vec<String>,
}

impl Front {
    /// Reads what the API server publishes.
    ///
    /// # Errors
    /// The key that is missing or no list.
    pub(crate) fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let list = |key: &str, default: &[&str]| match data.get(key) {
            None => Ok(default.iter().map(|name| (*name).to_owned()).collect()),
            Some(text) => {
                serde_json::from_str::<Vec<String>>(text).map_err(|error| format!("{key}: {error}"))
            }
        };
        Ok(Self {
            client_ca: data
                .get(CLIENT_CA)
                .ok_or_else(|| format!("{CLIENT_CA} is missing"))?
                .clone(),
            allowed: list(ALLOWED_NAMES, &[])?,
            username: list(USERNAME_HEADERS, &["X-Remote-User"])?,
            uid: list(UID_HEADERS, &[])?,
            groups: list(GROUP_HEADERS, &["X-Remote-Group"])?,
            extra: list(EXTRA_PREFIXES, &["X-Remote-Extra-"])?,
        })
    }

    /// The TLS that callers of today are verified with.
    ///
    /// # Errors
    /// When the authority cannot be used.
    pub(crate) fn tls(&self, serving: &ServingHandle) -> Result<Arc<ServerConfig>, BadAuthorities> {
        front_server_config(serving, &self.client_ca)
    }

    /// Whether a certificate, verified by [`Front::tls`], with this common name is the
    /// API server's.
    ///
    /// # Errors
    /// When the certificate is not the API server's, or there is none.
    pub(crate) fn knows(&self, certificate: Option<&str>) -> Result<(), Stranger> {
        let name = certificate.ok_or(Stranger::NoCertificate)?;
        if self.allowed.is_empty() || self.allowed.iter().any(|allowed| allowed == name) {
            Ok(())
        } else {
            Err(Stranger::WrongName(name.to_owned()))
        }
    }

    /// The user behind a request whose certificate, verified by [`Front::tls`],
    /// has this common name.
    ///
    /// # Errors
    /// When the caller is not the API server, or names no user.
    pub(crate) fn user(
        &self,
        certificate: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<User, Stranger> {
        self.knows(certificate)?;
        let first = |names: &[String]| {
            let mut values = names.iter().filter_map(|name| headers.get(name.as_str()));
            let value =
                values.find_map(|value| value.to_str().ok().filter(|text| !text.is_empty()));
            value.unwrap_or_default().to_owned()
        };
        let user = first(&self.username);
        if user.is_empty() {
            return Err(Stranger::NoUser);
        }
        let mut groups = Vec::new();
        for name in &self.groups {
            let values = headers.get_all(name.as_str()).iter();
            groups.extend(values.filter_map(|value| Some(value.to_str().ok()?.to_owned())));
        }
        Ok(User {
            name: user,
            uid: first(&self.uid),
            groups,
            extra: self.extra(headers),
        })
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in headers {
            let key = self.extra.iter().find_map(|prefix| {
                name.as_str()
                    .strip_prefix(prefix.to_ascii_lowercase().as_str())
            });
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy();
                extra
                    .entry(key.into_owned())
                    .or_default()
                    .push(value.to_owned());
            }
        }
        extra
    }
}

/// What is in force: `None` until the API server's ConfigMap was read.
pub(crate) type LatestTrusted = watch::Receiver<Option<Arc<Trusted>>>;

/// How the API server calls, with the TLS that verifies it.
#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    /// Names and headers.
    pub front: Front,
    /// Verifies certificates.
    pub tls: Arc<ServerConfig>,
}

/// Follows the API server's ConfigMap. What cannot be used changes nothing.
pub(crate) async fn keep(
    client: Client,
    serving: ServingHandle,
    publish: watch::Sender<Option<Arc<Trusted>>>,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let only_this = format!("metadata.name={CONFIG_MAP}");
    let config = watcher::Config::default().fields(&only_this);
    let mut events = pin!(follow(api, config).default_backoff());
    let mut silent_since = None;
    while let Some(event) = events.next().await {
        let map = match event {
            Ok(Event::InitApply(map) | Event::Apply(map)) => map,
            Ok(_) => continue,
            Err(error) => {
                let since = *silent_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() > PATIENCE && publish.borrow().is_none() {
                    warn!(%error, "{NAMESPACE}/{CONFIG_MAP} cannot be read: the metrics API answers no caller");
                }
                continue;
            }
        };
        let trusted = Front::read(&map.data.unwrap_or_default()).and_then(|front| {
            let tls = front.tls(&serving).map_err(|error| error.to_string())?;
            Ok(Trusted { front, tls })
        });
        match trusted {
            Ok(trusted) => {
                publish.send_if_modified(|current| {
                    let news = current
                        .as_ref()
                        .is_none_or(|current| current.front != trusted.front);
                    if news {
                        info!("it is known how the API server calls");
                        *current = Some(Arc::new(trusted));
                    }
                    news
                });
            }
            Err(reason) => warn!(reason, "{NAMESPACE}/{CONFIG_MAP} cannot be used"),
        }
    }
}

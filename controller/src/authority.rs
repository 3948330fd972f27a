//! The mesh's certificate authority, as one replica sees it.
//!
//! It lives in Secret `weft-ca`. The first controller makes it; those that lose
//! the race read what the winner wrote. The Lease holder replaces the issuer at
//! two thirds of its life, the others reload. Root and issuer that are loaded
//! and work are never given up for ones that do not: a broken Secret stops
//! signing only on a replica that has nothing better.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use identity::authority::{
    BACKDATE, BadAuthority, ISSUER_LIFE, IssueError, Issued, LeafNames, ROOT_LIFE, Serving,
};
use identity::verify::BadRoots;
use identity::{Issuer, Root, Roots, rotate};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::certify::Refusal;
use crate::events::{About, Events, Note, Tone};
use crate::lease::Leadership;
use crate::metrics::AuthorityMetrics;

/// Name of the Secret.
pub const SECRET: &str = "weft-ca";
const ROOT_CRT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
const ISSUER_CRT: &str = "issuer.crt";
const ISSUER_KEY: &str = "issuer.key";
/// How often remaining lives are looked at, beside the watch on the Secret.
const TICK: Duration = Duration::from_secs(60);
/// Pause after a failed load or write.
const RETRY: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// An Event warns when a root has less than this.
const ROOT_WARNING: Duration = DAY.saturating_mul(180);
/// An Event warns when the issuer has less than this: ten days after it should
/// have been replaced.
const ISSUER_WARNING: Duration = DAY.saturating_mul(20);

/// Why no certificate can be issued, or the Secret not be used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A key of the Secret is missing or not text.
    #[error("{SECRET} has no usable key {0}")]
    Missing(&'static str),
    /// Roots cannot be used.
    #[error("{SECRET}: the roots are not usable: {0}")]
    Roots(#[from] BadRoots),
    /// Root or issuer cannot be used.
    #[error("{SECRET}: {0}")]
    Authority(#[from] BadAuthority),
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Signs with the newest usable issuer. Clones share it.
#[derive(Clone, Debug)]
pub struct Authority {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What this replica trusts, shared with its TLS configurations; set by the
    /// first load.
    roots: OnceLock<Roots>,
    loaded: RwLock<Option<Arc<Loaded>>>,
    /// PEM of the roots; empty until something is loaded.
    pem: watch::Sender<Arc<str>>,
}

#[derive(Debug)]
struct Loaded {
    roots_pem: String,
    /// Absent when the root was brought without its key.
    root: Option<Root>,
    issuer: Issuer,
    data: BTreeMap<String, ByteString>,
    roots_der: Vec<Vec<u8>>,
}

impl Default for Authority {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                roots: OnceLock::new(),
                loaded: RwLock::new(None),
                pem: watch::Sender::new(Arc::from("")),
            }),
        }
    }
}

impl Authority {
    /// Waits until an authority is loaded, and gives the roots to trust. They
    /// change under running servers.
    pub async fn ready(&self) -> Roots {
        let mut pem = self.roots_pem();
        loop {
            if let Some(roots) = self.inner.roots.get() {
                return roots.clone();
            }
            // Fails only when the sender is gone, and `self` owns it.
            let _ = pem.changed().await;
        }
    }

    /// The roots as PEM, for trust bundles; empty until they are loaded.
    pub fn roots_pem(&self) -> watch::Receiver<Arc<str>> {
        self.inner.pem.subscribe()
    }

    /// The roots as DER, for proxies.
    pub fn roots_der(&self) -> Vec<Vec<u8>> {
        self.loaded()
            .map(|loaded| loaded.roots_der.clone())
            .unwrap_or_default()
    }

    /// Issues a leaf for the public key of `csr`.
    ///
    /// # Errors
    /// When the request is bad or nothing can be signed now.
    pub fn issue(
        &self,
        csr: &[u8],
        names: &LeafNames,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Issued, Refusal> {
        let Some(loaded) = self.loaded() else {
            return Err(Refusal::CannotSign("no authority is loaded".to_owned()));
        };
        loaded
            .issuer
            .issue(csr, names, now, ttl)
            .map_err(|error| match error {
                IssueError::Request(_) | IssueError::Name(_) => {
                    Refusal::BadRequest(error.to_string())
                }
                _ => Refusal::CannotSign(error.to_string()),
            })
    }

    /// Issues a serving certificate for the API server to call `dns_names`.
    ///
    /// # Errors
    /// When nothing can be signed now.
    pub fn serving(
        &self,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
        life: Duration,
    ) -> Result<Serving, Refusal> {
        let Some(loaded) = self.loaded() else {
            return Err(Refusal::CannotSign("no authority is loaded".to_owned()));
        };
        let serving = loaded.issuer.serving(dns_names, now, life);
        serving.map_err(|error| Refusal::CannotSign(error.to_string()))
    }

    fn loaded(&self) -> Option<Arc<Loaded>> {
        self.inner.loaded.read().clone()
    }

    /// Takes the content of a Secret into use, if it works. Returns whether it
    /// is news.
    fn load(&self, secret: &Secret, now: SystemTime) -> Result<bool, CaError> {
        let data = secret.data.clone().unwrap_or_default();
        if self.loaded().is_some_and(|loaded| loaded.data == data) {
            return Ok(false);
        }
        let loaded = Loaded::from_data(data, now)?;
        match self.inner.roots.get() {
            Some(roots) => roots.replace_pem(&loaded.roots_pem)?,
            None => {
                let roots = Roots::from_pem(&loaded.roots_pem)?;
                // Nobody else loads: the keeper is the only caller.
                let _ = self.inner.roots.set(roots);
            }
        }
        let pem: Arc<str> = Arc::from(loaded.roots_pem.as_str());
        *self.inner.loaded.write() = Some(Arc::new(loaded));
        // Said last: whoever waits for it finds everything in place.
        self.inner.pem.send_if_modified(|held| {
            let news = *held != pem;
            *held = pem;
            news
        });
        Ok(true)
    }

    /// An authority that is in memory only, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let authority = Self::default();
        let now = SystemTime::now();
        let secret = Secret {
            data: Some(fresh(now).unwrap()),
            ..Secret::default()
        };
        authority.load(&secret, now).unwrap();
        authority
    }
}

impl Loaded {
    fn from_data(data: BTreeMap<String, ByteString>, now: SystemTime) -> Result<Self, CaError> {
        let text = |key: &'static str| {
            let bytes = data.get(key).ok_or(CaError::Missing(key))?;
            std::str::from_utf8(&bytes.0).map_err(|_| CaError::Missing(key))
        };
        let roots_pem = text(ROOT_CRT)?.to_owned();
        let roots = Roots::from_pem(&roots_pem)?;
        let issuer = Issuer::from_pem(text(ISSUER_CRT)?, text(ISSUER_KEY)?)?;
        issuer.prove(&roots, now)?;
        // The key of a root that was brought may be elsewhere; then its owner
        // renews the issuer.
        let root = match text(ROOT_KEY) {
            Ok(key) if !key.is_empty() => Some(Root::from_pem(first_certificate(&roots_pem), key)?),
            _ => None,
        };
        let roots_der = roots
            .certificates()
            .iter()
            .map(|root| root.to_vec())
            .collect();
        Ok(Self {
            roots_pem,
            root,
            issuer,
            data,
            roots_der,
        })
    }
}

/// The signing root stands first in the list.
fn first_certificate(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}

/// A new root and a new issuer.
fn fresh(now: SystemTime) -> Result<BTreeMap<String, ByteString>, BadAuthority> {
    let root = Root::generate(now, ROOT_LIFE)?;
    let issuer = root.issuer(now, ISSUER_LIFE)?;
    let pair = |key: &str, text: String| (key.to_owned(), ByteString(text.into_bytes()));
    Ok(BTreeMap::from([
        pair(ROOT_CRT, root.cert_pem().to_owned()),
        pair(ROOT_KEY, root.key_pem()),
        pair(ISSUER_CRT, issuer.cert_pem().to_owned()),
        pair(ISSUER_KEY, issuer.key_pem()),
    ]))
}

/// Keeps the authority of this replica in step with the Secret.
pub struct Keeper {
    /// What is kept.
    pub authority: Authority,
    /// API server.
    pub client: Client,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Who may replace the issuer.
    pub leadership: Leadership,
    /// Remaining lives.
    pub metrics: AuthorityMetrics,
    /// Where a coming end is told.
    pub events: Events,
}

opaque_debug!(Keeper);

impl Keeper {
    /// Loads or makes the authority, then follows the Secret for ever.
    pub async fn run(self) {
        let api = self.api();
        let config = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
        let mut changes = pin!(watcher::watcher(api, config).default_backoff());
        let mut pause = Duration::ZERO;
        loop {
            tokio::select! {
                () = sleep(pause) => {}
                change = changes.next() => match change {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        warn!(%error, "watching the authority's Secret failed");
                        continue;
                    }
                    None => return,
                }
            }
            pause = match self.step(SystemTime::now()).await {
                Ok(()) => TICK,
                Err(error) => {
                    error!(%error, "the certificate authority is not usable");
                    RETRY
                }
            };
            self.measure(SystemTime::now());
        }
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// One look at the Secret, with what follows from it.
    async fn step(&self, now: SystemTime) -> Result<(), CaError> {
        let Some(secret) = self.api().get_opt(SECRET).await? else {
            return self.make(now).await;
        };
        if self.authority.load(&secret, now)? {
            info!("certificate authority loaded");
        }
        if self.leadership.is_held() {
            self.renew(secret, now).await?;
        }
        Ok(())
    }

    /// Creates the Secret: with what is loaded, when somebody deleted it under a
    /// running mesh, else with a new authority.
    async fn make(&self, now: SystemTime) -> Result<(), CaError> {
        let data = match self.authority.loaded() {
            Some(loaded) => loaded.data.clone(),
            None => fresh(now)?,
        };
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/part-of".to_owned(),
                    "weft".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        };
        let secret = match self.api().create(&PostParams::default(), &secret).await {
            Ok(secret) => {
                info!("certificate authority written");
                secret
            }
            // Another replica was quicker: its authority is the one.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                self.api().get(SECRET).await?
            }
            Err(error) => return Err(error.into()),
        };
        self.authority.load(&secret, now)?;
        Ok(())
    }

    /// Replaces the issuer when two thirds of its life are over.
    async fn renew(&self, mut secret: Secret, now: SystemTime) -> Result<(), CaError> {
        let Some(loaded) = self.authority.loaded() else {
            return Ok(());
        };
        let issued = loaded.issuer.not_before() + BACKDATE;
        if now < rotate::renew_issuer_at(issued, loaded.issuer.not_after()) {
            return Ok(());
        }
        let Some(root) = &loaded.root else {
            warn!("the issuer should be replaced, and the root's key is not here to do it");
            return Ok(());
        };
        let issuer = root.issuer(now, ISSUER_LIFE)?;
        let data = secret.data.get_or_insert_default();
        data.insert(
            ISSUER_CRT.to_owned(),
            ByteString(issuer.cert_pem().as_bytes().to_vec()),
        );
        data.insert(
            ISSUER_KEY.to_owned(),
            ByteString(issuer.key_pem().into_bytes()),
        );
        // Fails on a conflict, because the resource version that was read is in it.
        let written = self
            .api()
            .replace(SECRET, &PostParams::default(), &secret)
            .await?;
        self.authority.load(&written, now)?;
        info!("issuer replaced");
        Ok(())
    }

    fn measure(&self, now: SystemTime) {
        let Some(loaded) = self.authority.loaded() else {
            self.metrics.issuer_seconds.set(0);
            return;
        };
        let issuer = remaining(loaded.issuer.not_after(), now);
        self.metrics.issuer_seconds.set(issuer);
        let root = loaded
            .root
            .as_ref()
            .map(|root| remaining(root.not_after(), now));
        if let Some(root) = root {
            self.metrics.root_seconds.set(root);
        }
        if !self.leadership.is_held() {
            return;
        }
        if issuer < seconds(ISSUER_WARNING) {
            self.warn(
                "IssuerEnds",
                "the issuer of the mesh's certificates ends soon and has not been replaced",
            );
        }
        if root.is_some_and(|root| root < seconds(ROOT_WARNING)) {
            self.warn(
                "RootEnds",
                "the root of the mesh's certificates ends within 180 days",
            );
        }
    }

    fn warn(&self, reason: &'static str, text: &str) {
        self.events.say(Note {
            about: About {
                api_version: "v1".to_owned(),
                kind: "Secret".to_owned(),
                namespace: self.namespace.clone(),
                name: SECRET.to_owned(),
                uid: String::new(),
            },
            tone: Tone::Warning,
            reason,
            action: "Watch",
            text: text.to_owned(),
        });
    }
}

pub(crate) fn remaining(end: SystemTime, now: SystemTime) -> i64 {
    match end.duration_since(now) {
        Ok(left) => seconds(left),
        Err(past) => -seconds(past.duration()),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;

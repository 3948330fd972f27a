//! The mesh's certificate authority, as one replica sees it.
//!
//! It lives in Secret `weft-ca`. The first controller makes it; those that lose
//! the race read what the winner wrote. The Lease holder replaces the issuer at
//! two thirds of its life, the others reload. Root and issuer that are loaded
//! and work are never given up for ones that do not: a broken Secret stops
//! signing only on a replica that has nothing better.
//!
//! An issuer that has ended while nobody ran (a cluster that was off for months) is
//! not broken: with the root's key the Lease holder makes a new one.
//!
//! The Secret also says which trust domain the mesh has, since its first start. All
//! identities are of that one, so a controller that was told another refuses to start
//! and leaves the mesh to those that go on.

pub(crate) mod certify;
pub(crate) mod own_certificate;

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
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Client};
use parking_lot::RwLock;
use policy::name::SpiffeId;
use runtime::clock::{Clock, LOOK_EVERY};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{error, info, warn};

use crate::apiserver::client::WATCH_SECONDS;
use crate::apiserver::events::{About, Events, Note, Tone};
use crate::apiserver::lease::Leadership;
use crate::metrics::AuthorityMetrics;

/// Name of the Secret.
pub(crate) const SECRET: &str = "weft-ca";
const ROOT_CRT: &str = "root.crt";
const ROOT_KEY: &str = "root.key";
const ISSUER_CRT: &str = "issuer.crt";
const ISSUER_KEY: &str = "issuer.key";
const TRUST_DOMAIN: &str = "trust-domain";
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
pub(crate) enum CaError {
    /// A key of the Secret is missing or not text.
    #[error("{SECRET} has no usable key {0}")]
    Missing(&'static str),
    /// Roots cannot be used.
    #[error("{SECRET}: the roots are not usable: {0}")]
    Roots(#[from] BadRoots),
    /// Root or issuer cannot be used.
    #[error("{SECRET}: {0}")]
    Authority(#[from] BadAuthority),
    /// The issuer's life is over.
    #[error("{SECRET}: the issuer ended at {ended}; the holder of the Lease makes a new one")]
    IssuerEnded {
        /// When.
        ended: String,
    },
    /// The issuer has to be replaced, and nobody here can.
    #[error(
        "{SECRET}: the issuer ended at {ended} and the root's key ({ROOT_KEY}) is not here to \
         make a new one: put an issuer that the root has signed into {ISSUER_CRT} and {ISSUER_KEY}"
    )]
    NoRootKey {
        /// When.
        ended: String,
    },
    /// The root's life is over.
    #[error(
        "{SECRET}: the root ended at {ended}: delete the Secret while no controller runs, \
         then start one, which makes a new root, and restart all meshed pods"
    )]
    RootEnded {
        /// When.
        ended: String,
    },
    /// The mesh has another trust domain than this controller was told.
    #[error(
        "this controller was told trust domain {told:?} (identity.trustDomain), but the mesh was \
         started with {recorded:?} ({TRUST_DOMAIN} in Secret {SECRET}) and its proxies have \
         identities of that: set identity.trustDomain={recorded}, or, to change the trust domain \
         on purpose and restart every meshed pod, write {told:?} into the Secret first: kubectl \
         -n {namespace} patch secret {SECRET} -p '{{\"stringData\":{{\"{TRUST_DOMAIN}\":\"{told}\"}}}}'"
    )]
    TrustDomain {
        /// What this controller was told.
        told: String,
        /// What the Secret says.
        recorded: String,
        /// Where the Secret is.
        namespace: String,
    },
    /// The API server refused.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    /// What was asked for cannot be signed.
    #[error("the request is not usable: {0}")]
    BadRequest(String),
    /// There is nothing to sign with, or nothing that others would trust.
    #[error("certificates cannot be signed now, try again: {0}")]
    Unavailable(String),
}

/// Signs with the newest usable issuer. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// This controller: everything is issued and trusted in its trust domain.
    own: SpiffeId,
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

impl Authority {
    /// An authority that nothing is known of yet, of the trust domain of `own`.
    #[must_use]
    pub(crate) fn new(own: &SpiffeId) -> Self {
        Self {
            inner: Arc::new(Inner {
                own: own.clone(),
                roots: OnceLock::new(),
                loaded: RwLock::new(None),
                pem: watch::Sender::new(Arc::from("")),
            }),
        }
    }

    /// Waits until an authority is loaded, and gives the roots to trust. They
    /// change under running servers.
    pub(crate) async fn ready(&self) -> Roots {
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
    pub(crate) fn roots_pem(&self) -> watch::Receiver<Arc<str>> {
        self.inner.pem.subscribe()
    }

    /// The roots as DER, for proxies.
    pub(crate) fn roots_der(&self) -> Vec<Vec<u8>> {
        self.loaded()
            .map(|loaded| loaded.roots_der.clone())
            .unwrap_or_default()
    }

    /// Issues a leaf for the public key of `csr`.
    ///
    /// # Errors
    /// When the request is bad or nothing can be signed now.
    pub(crate) fn issue(
        &self,
        csr: &[u8],
        names: &LeafNames,
        now: SystemTime,
        ttl: Duration,
    ) -> Result<Issued, SigningError> {
        let Some(loaded) = self.loaded() else {
            return Err(SigningError::Unavailable(
                "no authority is loaded".to_owned(),
            ));
        };
        loaded
            .issuer
            .issue(csr, names, now, ttl)
            .map_err(|error| match error {
                IssueError::Request(_) | IssueError::Name(_) => {
                    SigningError::BadRequest(error.to_string())
                }
                _ => SigningError::Unavailable(error.to_string()),
            })
    }

    /// Issues a serving certificate for the API server to call `dns_names`.
    ///
    /// # Errors
    /// When nothing can be signed now, or the API server would refuse it.
    pub(crate) fn serving(
        &self,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
        life: Duration,
    ) -> Result<Serving, SigningError> {
        let (Some(loaded), Some(roots)) = (self.loaded(), self.inner.roots.get()) else {
            return Err(SigningError::Unavailable(
                "no authority is loaded".to_owned(),
            ));
        };
        let serving = loaded.issuer.serving(dns_names, now, life);
        let serving = serving.map_err(|error| SigningError::Unavailable(error.to_string()))?;
        serving.prove(roots, dns_names, now).map_err(|error| {
            SigningError::Unavailable(format!("callers would refuse the certificate: {error}"))
        })?;
        Ok(serving)
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
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        self.must_be_ours(&data, namespace)?;
        let loaded = Loaded::from_data(data, &self.inner.own, now)?;
        match self.inner.roots.get() {
            Some(roots) => roots.replace_pem(&loaded.roots_pem)?,
            None => {
                let roots = Roots::from_pem(&self.inner.own, &loaded.roots_pem)?;
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

    fn must_be_ours(
        &self,
        data: &BTreeMap<String, ByteString>,
        namespace: &str,
    ) -> Result<(), CaError> {
        let told = self.inner.own.trust_domain();
        match recorded(data) {
            Some(recorded) if recorded != told => Err(CaError::TrustDomain {
                told: told.to_owned(),
                recorded,
                namespace: namespace.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// An authority that is in memory only, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let authority = Self::default();
        let now = SystemTime::now();
        let secret = Secret {
            data: Some(fresh(&authority.inner.own, now).unwrap()),
            ..Secret::default()
        };
        authority.load(&secret, now).unwrap();
        authority
    }
}

#[cfg(test)]
impl Default for Authority {
    fn default() -> Self {
        Self::new(&SpiffeId::of("cluster.local", "weft-system", "weft-controller").unwrap())
    }
}

impl Loaded {
    fn from_data(
        data: BTreeMap<String, ByteString>,
        own: &SpiffeId,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let roots_pem = text(&data, ROOT_CRT)?.to_owned();
        let roots = Roots::from_pem(own, &roots_pem)?;
        let issuer = Issuer::from_pem(text(&data, ISSUER_CRT)?, text(&data, ISSUER_KEY)?)?;
        if now >= issuer.not_after() {
            let ended = date(issuer.not_after());
            return Err(CaError::IssuerEnded { ended });
        }
        issuer.prove(&roots, now)?;
        let root = root_with_key(&data, &roots_pem)?;
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

fn text<'a>(data: &'a BTreeMap<String, ByteString>, key: &'static str) -> Result<&'a str, CaError> {
    let bytes = data.get(key).ok_or(CaError::Missing(key))?;
    std::str::from_utf8(&bytes.0).map_err(|_| CaError::Missing(key))
}

/// The key of a root that was brought may be elsewhere; then its owner renews the
/// issuer.
fn root_with_key(
    data: &BTreeMap<String, ByteString>,
    roots_pem: &str,
) -> Result<Option<Root>, CaError> {
    match text(data, ROOT_KEY) {
        Ok(key) if !key.is_empty() => Ok(Some(Root::from_pem(first_certificate(roots_pem), key)?)),
        _ => Ok(None),
    }
}

/// The trust domain that the Secret names. A value that is not text is some other
/// trust domain than any.
fn recorded(data: &BTreeMap<String, ByteString>) -> Option<String> {
    let bytes = data.get(TRUST_DOMAIN)?;
    Some(String::from_utf8_lossy(&bytes.0).trim().to_owned())
}

/// A new issuer below `root`, if peers would trust what it signs.
fn successor(root: &Root, roots: &Roots, now: SystemTime) -> Result<Issuer, CaError> {
    if now >= root.not_after() {
        let ended = date(root.not_after());
        return Err(CaError::RootEnded { ended });
    }
    let issuer = root.issuer(now, ISSUER_LIFE)?;
    issuer.prove(roots, now)?;
    Ok(issuer)
}

fn date(at: SystemTime) -> String {
    match Timestamp::try_from(at) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => "a time out of range".to_owned(),
    }
}

/// Waits until the API server has said that the mesh, if there is one, has the trust
/// domain of `own`. Whoever was told another must not take the Lease.
///
/// # Errors
/// When it has another one.
pub(crate) async fn same_trust_domain(
    client: &Client,
    namespace: &str,
    own: &SpiffeId,
) -> Result<(), CaError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        match secrets.get_opt(SECRET).await {
            Ok(None) => return Ok(()),
            Ok(Some(secret)) => {
                let data = secret.data.unwrap_or_default();
                return Authority::new(own).must_be_ours(&data, namespace);
            }
            Err(error) => warn!(%error, "Secret {SECRET} could not be read"),
        }
        sleep(RETRY).await;
    }
}

/// The signing root stands first in the list.
fn first_certificate(pem: &str) -> &str {
    const END: &str = "-----END CERTIFICATE-----";
    pem.find(END).map_or(pem, |at| &pem[..at + END.len()])
}

/// A new root and a new issuer.
fn fresh(own: &SpiffeId, now: SystemTime) -> Result<BTreeMap<String, ByteString>, BadAuthority> {
    let root = Root::generate(now, ROOT_LIFE)?;
    let issuer = root.issuer(now, ISSUER_LIFE)?;
    let pair = |key: &str, text: String| (key.to_owned(), ByteString(text.into_bytes()));
    Ok(BTreeMap::from([
        pair(ROOT_CRT, root.cert_pem().to_owned()),
        pair(ROOT_KEY, root.key_pem()),
        pair(ISSUER_CRT, issuer.cert_pem().to_owned()),
        pair(ISSUER_KEY, issuer.key_pem()),
        pair(TRUST_DOMAIN, own.trust_domain().to_owned()),
    ]))
}

/// Keeps the authority of this replica in step with the Secret.
pub(crate) struct Keeper {
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
    /// What lives are measured by.
    pub clock: Clock,
}

opaque_debug!(Keeper);

impl Keeper {
    /// Loads or makes the authority, then follows the Secret for ever.
    ///
    /// # Errors
    /// When the mesh turns out to have another trust domain before anything was loaded.
    pub(crate) async fn run(self) -> Result<(), CaError> {
        let api = self.api();
        let config = watcher::Config::default().fields(&format!("metadata.name={SECRET}"));
        let config = config.timeout(WATCH_SECONDS);
        let mut changes = pin!(watcher::watcher(api, config).default_backoff());
        let mut due = Instant::now();
        loop {
            tokio::select! {
                () = sleep_until(due) => {}
                change = changes.next() => match change {
                    Some(Ok(_)) => {}
                    // What is due stays due, however often this happens.
                    Some(Err(error)) => {
                        warn!(%error, "watching the authority's Secret failed");
                        continue;
                    }
                    None => return Ok(()),
                }
            }
            let pause = match self.step(self.clock.now()).await {
                Ok(()) => LOOK_EVERY,
                Err(error @ CaError::TrustDomain { .. }) => {
                    // What is loaded goes on: somebody is changing it on purpose.
                    if self.authority.loaded().is_none() {
                        return Err(error);
                    }
                    error!(%error, "the trust domain in the Secret is another one now");
                    LOOK_EVERY
                }
                Err(error) => {
                    error!(%error, "the certificate authority is not usable");
                    RETRY
                }
            };
            due = Instant::now() + pause;
            self.measure(self.clock.now());
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
        match self.authority.load(&secret, now) {
            Ok(true) => info!("certificate authority loaded"),
            Ok(false) => {}
            Err(CaError::IssuerEnded { ended }) if self.leadership.is_held() => {
                return self.revive(secret, ended, now).await;
            }
            Err(error) => return Err(error),
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
            None => fresh(&self.authority.inner.own, now)?,
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

    /// Replaces the issuer when two thirds of its life are over, and adds the trust
    /// domain to a Secret of a version that did not write it.
    async fn renew(&self, mut secret: Secret, now: SystemTime) -> Result<(), CaError> {
        let (Some(loaded), Some(roots)) =
            (self.authority.loaded(), self.authority.inner.roots.get())
        else {
            return Ok(());
        };
        let issued = loaded.issuer.not_before() + BACKDATE;
        if now < rotate::renew_issuer_at(issued, loaded.issuer.not_after()) {
            if loaded.data.contains_key(TRUST_DOMAIN) {
                return Ok(());
            }
            self.write(&mut secret, now).await?;
            info!("trust domain written into the authority's Secret");
            return Ok(());
        }
        let Some(root) = &loaded.root else {
            warn!("the issuer should be replaced, and the root's key is not here to do it");
            return Ok(());
        };
        let issuer = successor(root, roots, now)?;
        let ended = loaded.issuer.not_after();
        let ended = (now >= ended).then(|| date(ended));
        self.replace(&mut secret, &issuer, ended, now).await
    }

    /// Replaces an issuer that ended before anybody could.
    async fn revive(
        &self,
        mut secret: Secret,
        ended: String,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let data = secret.data.get_or_insert_default();
        let roots_pem = text(data, ROOT_CRT)?;
        let roots = Roots::from_pem(&self.authority.inner.own, roots_pem)?;
        let Some(root) = root_with_key(data, roots_pem)? else {
            return Err(CaError::NoRootKey { ended });
        };
        let issuer = successor(&root, &roots, now)?;
        self.replace(&mut secret, &issuer, Some(ended), now).await
    }

    /// Writes `issuer` and takes it into use. `ended`: when the one before it did, if
    /// that is over.
    async fn replace(
        &self,
        secret: &mut Secret,
        issuer: &Issuer,
        ended: Option<String>,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let data = secret.data.get_or_insert_default();
        data.insert(
            ISSUER_CRT.to_owned(),
            ByteString(issuer.cert_pem().as_bytes().to_vec()),
        );
        data.insert(
            ISSUER_KEY.to_owned(),
            ByteString(issuer.key_pem().into_bytes()),
        );
        self.write(secret, now).await?;
        let Some(ended) = ended else {
            info!("issuer replaced");
            return Ok(());
        };
        let until = date(issuer.not_after());
        warn!(ended, until, "the issuer had ended; it was replaced");
        self.warn(
            "IssuerEnded",
            &format!(
                "the issuer of the mesh's certificates had ended at {ended}: nothing was signed \
                 since. A new one signs until {until}"
            ),
        );
        Ok(())
    }

    /// Writes the Secret and takes it into use. Fails on a conflict, because the
    /// resource version that was read is in it.
    async fn write(&self, secret: &mut Secret, now: SystemTime) -> Result<(), CaError> {
        let trust_domain = self.authority.inner.own.trust_domain();
        let data = secret.data.get_or_insert_default();
        data.entry(TRUST_DOMAIN.to_owned())
            .or_insert_with(|| ByteString(trust_domain.as_bytes().to_vec()));
        let written = self
            .api()
            .replace(SECRET, &PostParams::default(), secret)
            .await?;
        self.authority.load(&written, now)?;
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
mod tests;

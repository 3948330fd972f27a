//! The mesh's certificate authority on one replica: its root and issuer, and the signing of
//! certificates.
//!
//! The authority is stored in Secret `weft-ca`. The first controller makes it; those that lose the
//! race load what it wrote. The Lease holder replaces the issuer at two thirds of its life, the
//! others reload. A root and issuer that are loaded and work are never replaced by broken ones: a
//! broken Secret stops signing only on a replica that has nothing better.
//!
//! A replica that runs takes no content that lacks a root in use, as a restored backup does: proxies
//! would drop the root of their certificates. The Lease holder writes its own content back, also over
//! one that cannot be used. A replica that starts takes what is there.
//!
//! An issuer that has ended while no controller ran (a cluster that was off for months), or whose
//! life has not started (the clock was ahead and is put right), is not broken: with the root's key
//! the Lease holder makes a new one.
//!
//! The aggregated APIs have a root of their own in the Secret, made and renewed by the Lease holder.
//!
//! The root rotates: `rotation` sees how far replicas, trust bundles and proxies are,
//! [`identity::rotation`] decides, and the Lease holder writes one step at a time. Each write counts
//! up, so a running replica takes no content of an earlier step.
//!
//! A replica may have an issuer of its own, in a folder that is mounted into it. Then the Secret holds
//! the roots and the state alone, and each replica signs with what its folder holds.
//!
//! The Secret also holds the mesh's trust domain, since its first start. All identities are of that
//! one, so a controller that is configured with another refuses to start and leaves the mesh to
//! those that go on.
//!
//! May import `apiserver`, `latest_model`, `metrics`, `observe`, `settings` and `trust_bundle`.

mod announcement;
mod brought;
pub(crate) mod certify;
mod folder;
mod loaded;
pub(crate) mod own_certificate;
mod own_issuers;
pub(crate) mod reconciler;
pub(crate) mod rotation;
pub(crate) mod secret;
mod source;
mod status;
mod undone;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use identity::Roots;
use identity::authority::candidate::Candidate;
use identity::authority::{IssueError, Issued, LeafNames, Serving};
use identity::rotation::Announced;
use identity::verify::AuthorityId;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use parking_lot::{Mutex, RwLock};
use policy::name::SpiffeId;
use runtime::rate::{Allowance, Rate};
use tokio::sync::watch;
use tokio::time::Instant;
use wire::v1;

use self::brought::Brought;
use self::loaded::Loaded;
use self::secret::{CaError, REVERTED, ROOT_CRT, recorded, text};
use self::undone::Undone;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    /// What was requested cannot be signed.
    #[error("the request is not usable: {0}")]
    BadRequest(String),
    /// There is nothing to sign with, or nothing that others would trust.
    #[error("certificates cannot be signed now, try again: {0}")]
    Unavailable(String),
}

/// Contents that are written back: a few at once, and then two a minute.
const WRITE_BACKS: Allowance = Allowance {
    burst: 3,
    every: Duration::from_secs(30),
};

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
    brought: Mutex<Brought>,
    /// Resource version of the last content that lacked a root, and since when; each is reported
    /// once.
    refused: Mutex<Option<(String, Instant)>>,
    /// The content of the last look, while that is not usable and another one is served.
    unusable: Mutex<Option<Undone>>,
    /// Paces what is written over such contents: a tool may put them there again at once.
    write_backs: Mutex<Rate>,
    /// What proxies are sent; it has no roots until something is loaded.
    bundle: watch::Sender<Arc<v1::Bundle>>,
    announced: Mutex<Announced>,
    is_late: AtomicBool,
    /// What signs leaves: no Revocation may be about it.
    signing: watch::Sender<BTreeSet<[u8; 16]>>,
    /// PEM of the roots; empty until something is loaded.
    pem: watch::Sender<Arc<str>>,
    /// PEM of what the API server may see: the roots of the aggregated APIs, then the mesh's.
    api_pem: watch::Sender<Arc<str>>,
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
                brought: Mutex::default(),
                refused: Mutex::new(None),
                unusable: Mutex::new(None),
                write_backs: Mutex::new(Rate::new(WRITE_BACKS)),
                bundle: watch::Sender::default(),
                announced: Mutex::default(),
                is_late: AtomicBool::new(false),
                signing: watch::Sender::default(),
                pem: watch::Sender::new(Arc::from("")),
                api_pem: watch::Sender::new(Arc::from("")),
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

    /// What the APIServices have to hold, as PEM; empty until it is loaded. The mesh's roots are in it
    /// for replicas of versions that serve by the mesh's issuer.
    pub(crate) fn api_bundle(&self) -> watch::Receiver<Arc<str>> {
        self.inner.api_pem.subscribe()
    }

    /// The root that signs for the aggregated APIs, as PEM; none while no replica has made it.
    pub(crate) fn api_root(&self) -> Option<String> {
        let loaded = self.loaded()?;
        let api = loaded.api.as_ref()?;
        Some(api.root.cert_pem().to_owned())
    }

    /// What signs leaves now; empty until it is loaded.
    pub(crate) fn signing(&self) -> watch::Receiver<BTreeSet<[u8; 16]>> {
        self.inner.signing.subscribe()
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
        if self.is_late() {
            return Err(unavailable(&"this controller lags behind the others"));
        }
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

    /// Issues a serving certificate for the API server to call `dns_names`, by the root of the
    /// aggregated APIs.
    ///
    /// # Errors
    /// When there is no such root or it cannot sign now.
    pub(crate) fn api_serving(
        &self,
        dns_names: &[impl AsRef<str>],
        now: SystemTime,
        life: Duration,
    ) -> Result<Serving, SigningError> {
        let loaded = self.loaded();
        let Some(api) = loaded.as_ref().and_then(|loaded| loaded.api.as_ref()) else {
            return Err(unavailable(&"no root of the aggregated APIs is loaded"));
        };
        let certificate = api.root.certificate().clone();
        let roots = Roots::new(&self.inner.own, vec![certificate]);
        let roots = roots.map_err(|error| unavailable(&error))?;
        let serving = api.root.serving(dns_names, now, life);
        let serving = serving.map_err(|error| unavailable(&error))?;
        let proven = serving.prove(&roots, dns_names, now);
        proven.map_err(|error| unavailable(&error))?;
        Ok(serving)
    }

    /// The same by the mesh's issuer, for a caller that does not know that root.
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

    /// Notes what this replica's folder holds. True if that is news.
    fn bring(&self, candidate: Candidate, settle: Duration) -> bool {
        self.inner.brought.lock().take(candidate, settle)
    }

    /// Whether a replica with the same folder could use a content.
    fn must_load(
        &self,
        data: &BTreeMap<String, ByteString>,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let brought = self.inner.brought.lock();
        Loaded::from_data(data.clone(), &self.inner.own, &brought, now).map(|_| ())
    }

    /// Notes what other replicas sign with beside this one.
    fn others_sign(&self, others: &[AuthorityId]) {
        let loaded = self.loaded();
        let own = loaded.as_ref().and_then(|loaded| loaded.issuer.id());
        let all = others.iter().chain(&own).map(|id| *id.as_bytes());
        send_news(&self.inner.signing, all.collect());
    }

    /// Takes the content of a Secret into use, if it works. Returns whether it is a change.
    fn load(&self, secret: &Secret, now: SystemTime) -> Result<bool, CaError> {
        let data = secret.data.clone().unwrap_or_default();
        let brought = self.inner.brought.lock();
        if self
            .loaded()
            .is_some_and(|loaded| loaded.data == data && !loaded.is_outdated(&brought, now))
        {
            return Ok(false);
        }
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        self.must_be_ours(&data, namespace)?;
        let loaded = Loaded::from_data(data, &self.inner.own, &brought, now)?;
        drop(brought);
        match self.inner.roots.get() {
            Some(roots) => roots.replace_pem(&loaded.roots_pem)?,
            None => {
                let roots = Roots::from_pem(&self.inner.own, &loaded.roots_pem)?;
                // No other task loads: the reconciler is the only caller.
                let _ = self.inner.roots.set(roots);
            }
        }
        let pem = loaded.roots_pem.as_str().into();
        let api_pem = loaded.api_bundle().into();
        let own = loaded.issuer.id().map(|id| *id.as_bytes());
        let mut signing: BTreeSet<[u8; 16]> = own.into_iter().collect();
        if loaded.own.is_some() {
            // What others sign with is looked at after this.
            signing.extend(self.inner.signing.borrow().iter().copied());
        }
        // Said anew of each step: the issuers of this one are others.
        self.inner.announced.lock().end_others = false;
        *self.inner.loaded.write() = Some(Arc::new(loaded));
        self.send_bundle();
        send_news(&self.inner.signing, signing);
        // Sent last: its waiters find everything in place.
        send_news(&self.inner.api_pem, api_pem);
        send_news(&self.inner.pem, pem);
        Ok(true)
    }

    /// Why a running replica does not take the content of a Secret. None where it is of a later step,
    /// cannot be read or is of another trust domain: [`Self::load`] says so.
    ///
    /// The content of the Lease holder names the roots that it took out. A replica that started from
    /// those drops them again, unless it is the holder itself.
    fn undone(&self, secret: &Secret, is_holder: bool, now: SystemTime) -> Option<Undone> {
        let nothing = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&nothing);
        if self.must_be_ours(data, "").is_err() {
            return None;
        }
        let read = |key: &'static str| {
            let pem = text(data, key).ok()?;
            Roots::from_pem(&self.inner.own, pem).ok()
        };
        let (trusted, found) = (self.inner.roots.get()?, read(ROOT_CRT)?);
        let step = secret::step(data);
        match step.cmp(&self.served_step()) {
            Ordering::Less => return Some(Undone::Earlier(step)),
            Ordering::Greater => return None,
            Ordering::Equal => {}
        }
        let mut missing = trusted.missing_in(&found, now);
        if let Some(reverted) = read(REVERTED).filter(|_| !is_holder) {
            missing.retain(|root| !reverted.vouch_as(root));
        }
        (!missing.is_empty()).then_some(Undone::Lacks(missing.len()))
    }

    /// Why this replica goes on with what it serves beside a content that it failed to load. None
    /// where it serves nothing, or the content is not the reason.
    fn unusable(&self, secret: &Secret, error: &CaError) -> Option<Undone> {
        let loaded = self.loaded()?;
        let nothing = BTreeMap::new();
        let data = secret.data.as_ref().unwrap_or(&nothing);
        let (key, why) = secret::unusable_key(data, error).filter(|_| *data != loaded.data)?;
        Some(Undone::Unusable(key, why))
    }

    /// Whether what is served may replace an unusable content: that is of no later step, which another
    /// version may read, and what is served could be loaded again.
    fn may_replace(&self, unusable: &Secret, now: SystemTime) -> bool {
        let found = unusable.data.as_ref().map_or(0, secret::step);
        self.loaded().is_some_and(|loaded| {
            found <= loaded.state.step && self.must_load(&loaded.data, now).is_ok()
        })
    }

    /// Notes what is wrong with the content of this look.
    fn note_unusable(&self, unusable: Option<Undone>) {
        *self.inner.unusable.lock() = unusable;
    }

    /// What is wrong with the Secret, while another content is served.
    fn beside_unusable(&self) -> Option<Undone> {
        self.inner.unusable.lock().clone()
    }

    fn served_step(&self) -> u64 {
        self.loaded().map_or(0, |loaded| loaded.state.step)
    }

    /// For how long this content has been refused; nothing when it is refused for the first time.
    fn refused_for(&self, refused: &Secret) -> Option<Duration> {
        let version = refused.metadata.resource_version.as_deref();
        let version = version.unwrap_or_default();
        let now = Instant::now();
        let mut last = self.inner.refused.lock();
        match &*last {
            Some((known, since)) if known == version => Some(now.duration_since(*since)),
            _ => {
                *last = Some((version.to_owned(), now));
                None
            }
        }
    }

    /// Whether a content may be written back now.
    fn may_write_back(&self) -> bool {
        self.inner.write_backs.lock().take(Instant::now()).is_ok()
    }

    fn must_be_ours(
        &self,
        data: &BTreeMap<String, ByteString>,
        namespace: &str,
    ) -> Result<(), CaError> {
        let given = self.inner.own.trust_domain();
        match recorded(data) {
            Some(recorded) if recorded != given => Err(CaError::TrustDomain {
                given: given.to_owned(),
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
            data: Some(
                secret::fresh(&authority.inner.own, identity::authority::ROOT_LIFE, now).unwrap(),
            ),
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

fn unavailable(error: &dyn Display) -> SigningError {
    SigningError::Unavailable(error.to_string())
}

fn send_news<T: PartialEq>(sender: &watch::Sender<T>, news: T) {
    sender.send_if_modified(|current| {
        let is_news = *current != news;
        *current = news;
        is_news
    });
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

//! Collects what a rotation of the root is decided by, and makes the Secret's content of its next
//! step.
//!
//! [`identity::rotation`] decides; nothing here does. Keys are made in the content that is written,
//! so that a write which fails leaves none behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::authority::candidate::Candidate;
use identity::authority::{BACKDATE, BadAuthority, ISSUER_LIFE};
use identity::rotation::{
    Bundles, Loaded as Served, Move, Offered, Proxy, ProxyStream, Replica, Request, Seen, Source,
    State,
};
use identity::verify::AuthorityId;
use identity::{Issuer, Root, Roots, rotate};
use k8s_openapi::ByteString;
use parking_lot::Mutex;
use policy::name::SpiffeId;
use runtime::ready::{Hold, Ready};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::own_issuers::{OTHERS, OwnIssuers};
use super::secret::{
    CaError, ISSUER_CRT, ISSUER_KEY, NEXT_ISSUER_CRT, NEXT_ISSUER_KEY, NEXT_ROOT_CRT,
    NEXT_ROOT_KEY, REVERTED, ROOT_CRT, ROOT_KEY, date, field, named, put_issuer, text,
};
use super::source::Looks;
use super::{Authority, Loaded};
use crate::latest_model::LatestModel;
use crate::observe::acknowledged::{Observed, ReplicaStep};
use crate::settings::authority::{AuthoritySettings, IssuerSource};
use crate::trust_bundle::progress::Progress;

/// A replica that has heard of a later step for so long serves no proxies.
const LATE: Duration = Duration::from_secs(10);
/// Between two looks at the steps of others.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds by which a clock may differ from the API server's while a planned step is made.
const CLOCK_IS_OFF: u64 = 60;
/// What is there while a root is being brought.
const NEXT: [&str; 4] = [
    NEXT_ROOT_CRT,
    NEXT_ROOT_KEY,
    NEXT_ISSUER_CRT,
    NEXT_ISSUER_KEY,
];

/// What rotations are decided by.
pub(crate) struct Watched {
    latest: LatestModel,
    pub(super) observed: Observed,
    bundles: watch::Receiver<Progress>,
    pub(super) settings: AuthoritySettings,
    leaf_ttl: Duration,
    /// This replica.
    pub(super) pod_name: String,
    /// Since when this replica runs.
    pub(super) started: Instant,
    /// Since when pods have had no stream, by uid.
    lost: Mutex<HashMap<Arc<str>, SystemTime>>,
    /// Of the configured source, and of this replica's folder.
    pub(super) looks: Looks,
    /// The clock is far from the API server's, by the last write.
    clock_is_off: AtomicBool,
    /// Of the Secret and of the object as they were read last: `kubectl describe` finds Events by it.
    pub(super) secret_uid: Mutex<String>,
    pub(super) object_uid: Mutex<String>,
}

impl Watched {
    pub(crate) fn new(
        latest: LatestModel,
        observed: Observed,
        bundles: watch::Receiver<Progress>,
        settings: AuthoritySettings,
        leaf_ttl: Duration,
        pod_name: &str,
    ) -> Self {
        Self {
            latest,
            observed,
            bundles,
            settings,
            leaf_ttl,
            pod_name: pod_name.to_owned(),
            started: Instant::now(),
            lost: Mutex::default(),
            looks: Looks::default(),
            clock_is_off: AtomicBool::new(false),
            secret_uid: Mutex::default(),
            object_uid: Mutex::default(),
        }
    }

    /// Notes by how many seconds the API server's clock differs, where a write shows that.
    pub(super) fn note_clock(&self, difference: Option<u64>) {
        if let Some(seconds) = difference {
            self.clock_is_off.store(seconds >= CLOCK_IS_OFF, Relaxed);
        }
    }

    /// All of it. `offered`: what the configured source holds.
    pub(super) fn seen(
        &self,
        loaded: &Loaded,
        request: Option<Request>,
        offered: Option<Offered>,
        own: &OwnIssuers,
        now: SystemTime,
    ) -> Seen {
        // A root that was brought with its key is its owner's to replace.
        let is_due = |root: &Root| {
            root.is_generated()
                && now >= rotate::renew_issuer_at(root.not_before() + BACKDATE, root.not_after())
        };
        Seen {
            settle: self.settings.settle,
            leaf_ttl: self.leaf_ttl,
            request,
            root_is_due: loaded.root.as_ref().is_some_and(is_due),
            has_root_key: loaded.root.is_some(),
            source: self.source(),
            offered,
            issuers: own.ids(),
            without_issuer: own.without.clone(),
            replicas: self.replicas(loaded, now),
            bundles: self.bundles(loaded, now),
            proxies: self.proxies(now),
            clock_is_off: self.clock_is_off.load(Relaxed),
        }
    }

    /// The configured one.
    pub(super) fn source(&self) -> Source {
        match self.settings.source {
            IssuerSource::Generated => Source::Generated,
            IssuerSource::Secret { .. } => Source::Secret,
            IssuerSource::Files => Source::Files,
        }
    }

    fn replicas(&self, loaded: &Loaded, now: SystemTime) -> Vec<Replica> {
        let mut replicas = vec![Replica {
            name: self.pod_name.clone(),
            loaded: Served::Step {
                step: loaded.state.step,
                roots: loaded.state.roots.clone(),
                since: before(now, loaded.since),
            },
        }];
        let Some(others) = self.observed.replica_steps() else {
            replicas.push(Replica {
                name: OTHERS.to_owned(),
                loaded: Served::Unheard,
            });
            return replicas;
        };
        replicas.extend(others.into_iter().map(|(peer, step)| {
            Replica {
                name: peer.to_string(),
                loaded: match step {
                    ReplicaStep::Unheard => Served::Unheard,
                    ReplicaStep::Former => Served::Former,
                    ReplicaStep::Serves { step, since } => Served::Step {
                        step: step.step,
                        roots: step
                            .roots
                            .iter()
                            .filter_map(|root| AuthorityId::try_from(root.as_slice()).ok())
                            .collect(),
                        since: before(now, since),
                    },
                },
            }
        }));
        replicas
    }

    fn bundles(&self, loaded: &Loaded, now: SystemTime) -> Bundles {
        match &*self.bundles.borrow() {
            Progress::Complete { roots, since } if **roots == *loaded.roots_pem => {
                Bundles::Complete(before(now, *since))
            }
            Progress::Behind(namespaces) => Bundles::Behind(namespaces.clone()),
            Progress::Complete { .. } | Progress::Unknown => Bundles::Unknown,
        }
    }

    /// Connected proxies, and those whose container runs.
    fn proxies(&self, now: SystemTime) -> Option<Vec<Proxy>> {
        let compiled = self.latest.borrow().clone()?;
        let model = &compiled.model;
        let reports = self.observed.trusts();
        // Until all had time to come back to a controller that has just started, none is lost.
        let have_returned = Instant::now() >= self.observed.complete_at();
        let mut lost = self.lost.lock();
        let mut still_lost = HashMap::new();
        let mut proxies = Vec::new();
        for pod in model.meshed_pods() {
            let Some(facts) = model.index.world.pods.get(pod) else {
                continue;
            };
            let name = pod.to_string();
            let report = reports.get(&name);
            // A later pod may have the same name.
            let report = report.filter(|one| one.uid.is_empty() || *one.uid == *facts.uid);
            let stream = match report {
                Some(_) => ProxyStream::Open,
                None if model.running_uid(pod).is_none() => continue,
                None => {
                    let since = lost.get(&facts.uid).copied().unwrap_or(now);
                    still_lost.insert(Arc::clone(&facts.uid), since);
                    match have_returned {
                        true => ProxyStream::None(since),
                        false => ProxyStream::Returning,
                    }
                }
            };
            let created = u64::try_from(facts.created).unwrap_or_default();
            proxies.push(Proxy {
                pod: name,
                created: UNIX_EPOCH + Duration::from_secs(created),
                stream,
                trusts: report.map(|one| one.trusts.clone()).unwrap_or_default(),
                authority: report.and_then(|one| one.authority),
            });
        }
        *lost = still_lost;
        Some(proxies)
    }
}

/// The wall clock's time of a moment that has passed.
fn before(now: SystemTime, at: Instant) -> SystemTime {
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

/// Makes this replica serve no proxies, and unready, while another one has served a later step for
/// [`LATE`].
pub(crate) async fn follow_others(authority: Authority, observed: Observed, ready: Ready) {
    let mut since: Option<Instant> = None;
    let mut unready: Option<Hold> = None;
    loop {
        sleep(LOOK).await;
        let ours = authority.loaded().map_or(0, |loaded| loaded.state.step);
        let others = observed.replica_steps().unwrap_or_default();
        let is_later = others.values().any(|other| match other {
            ReplicaStep::Serves { step, .. } => step.step > ours,
            ReplicaStep::Unheard | ReplicaStep::Former => false,
        });
        since = is_later.then(|| since.unwrap_or_else(Instant::now));
        let is_late = since.is_some_and(|since| since.elapsed() >= LATE);
        authority.set_late(is_late);
        if !is_late {
            unready = None;
        } else if unready.is_none() {
            unready = Some(ready.hold("later step of the certificate authority"));
        }
    }
}

type NamedRoots = Vec<(AuthorityId, String)>;

/// What a step is made of.
pub(super) struct Making<'a> {
    pub(super) own: &'a SpiffeId,
    pub(super) loaded: &'a Loaded,
    /// What the configured source holds.
    pub(super) candidate: Option<&'a Candidate>,
    /// The configured one.
    pub(super) source: Source,
    pub(super) root_life: Duration,
    pub(super) now: SystemTime,
}

impl Making<'_> {
    /// Changes a content to what it is after this step, and returns its state.
    pub(super) fn carry_out(
        &self,
        next: &Move,
        data: &mut BTreeMap<String, ByteString>,
    ) -> Result<State, CaError> {
        let state = &self.loaded.state;
        // Read by all replicas long ago.
        data.remove(REVERTED);
        match next {
            Move::Begin(begin) => {
                let root = self.bring(begin.source, data)?;
                Ok(state.started(begin, root, self.now))
            }
            Move::Hasten(id) => Ok(state.hastened(id, self.now)),
            Move::Activate => {
                let rotation = state.rotation.as_ref();
                let issuer = match rotation.map(|rotation| rotation.source) {
                    Some(Source::Files) => self.activate_files(data)?,
                    _ => id_of(&self.activate(data)?)?,
                };
                Ok(state.activated(issuer, self.now))
            }
            Move::Retire => {
                let former = state.roots.get(1..).unwrap_or_default();
                let mut roots = self.roots(text(data, ROOT_CRT)?)?;
                roots.retain(|(root, _)| !former.contains(root));
                put_roots(&roots, data);
                Ok(state.without_former(self.now))
            }
            Move::Finish => Ok(state.finished()),
            Move::TakeIssuer => {
                let candidate = self.candidate.ok_or(CaError::Missing("tls.crt"))?;
                match self.source {
                    Source::Files => leave_keys(data),
                    Source::Generated | Source::Secret => put_issuer(&candidate.issuer, data),
                }
                let mut roots = self.roots(text(data, ROOT_CRT)?)?;
                // Its owner may have renewed the root too, with its key.
                let renewed = roots.iter_mut().filter(|(id, _)| *id == candidate.root_id);
                renewed.for_each(|(_, pem)| pem.clone_from(&candidate.root_pem));
                put_roots(&roots, data);
                let mut next = state.with_issuer(candidate.issuer_id, None);
                if [self.source, state.source].contains(&Source::Files) {
                    next.source = self.source;
                }
                Ok(next)
            }
            Move::KnowIssuers(issuers) => Ok(state.with_issuers(issuers)),
            Move::Decline(id) => Ok(state.declining(id)),
            Move::ReplaceIssuer(id) => {
                let root = self.loaded.root.as_ref();
                let root = root.ok_or(CaError::Missing(ROOT_KEY))?;
                let issuer = root.issuer(self.now, ISSUER_LIFE)?;
                put_issuer(&issuer, data);
                Ok(state.with_issuer(id_of(&issuer)?, Some(id.as_str())))
            }
        }
    }

    /// Puts the next root behind the others.
    fn bring(
        &self,
        source: Source,
        data: &mut BTreeMap<String, ByteString>,
    ) -> Result<AuthorityId, CaError> {
        for key in [NEXT_ROOT_KEY, NEXT_ISSUER_CRT, NEXT_ISSUER_KEY] {
            data.remove(key);
        }
        let pem = match source {
            Source::Generated => {
                let root = Root::generate(self.now, self.root_life)?;
                data.extend([field(NEXT_ROOT_KEY, root.key_pem())]);
                root.cert_pem().to_owned()
            }
            Source::Secret => {
                let candidate = self.candidate.ok_or(CaError::Missing("tls.crt"))?;
                data.extend([
                    field(NEXT_ISSUER_CRT, candidate.issuer.cert_pem()),
                    field(NEXT_ISSUER_KEY, candidate.issuer.key_pem()),
                ]);
                candidate.root_pem.clone()
            }
            Source::Files => {
                let candidate = self.candidate.ok_or(CaError::Missing("tls.crt"))?;
                candidate.root_pem.clone()
            }
        };
        data.extend([field(NEXT_ROOT_CRT, pem.as_str())]);
        let brought = self.roots(&pem)?.into_iter().next();
        let (id, pem) = brought.ok_or(CaError::Missing(NEXT_ROOT_CRT))?;
        let mut roots = self.roots(text(data, ROOT_CRT)?)?;
        roots.retain(|(root, _)| *root != id);
        roots.push((id, pem));
        put_roots(&roots, data);
        Ok(id)
    }

    /// The roots with the next one first, its id, and its text.
    fn next_first(
        &self,
        data: &BTreeMap<String, ByteString>,
    ) -> Result<(NamedRoots, AuthorityId, String), CaError> {
        let next = text(data, NEXT_ROOT_CRT)?.to_owned();
        let brought = self.roots(&next)?.into_iter().next();
        let (id, pem) = brought.ok_or(CaError::Missing(NEXT_ROOT_CRT))?;
        let mut roots = self.roots(text(data, ROOT_CRT)?)?;
        roots.retain(|(root, _)| *root != id);
        roots.insert(0, (id, pem));
        Ok((roots, id, next))
    }

    /// Lets the next root sign by what the folders of the replicas hold.
    fn activate_files(
        &self,
        data: &mut BTreeMap<String, ByteString>,
    ) -> Result<AuthorityId, CaError> {
        let (roots, id, _) = self.next_first(data)?;
        let own = self.candidate.filter(|candidate| candidate.root_id == id);
        let own = own.ok_or_else(|| CaError::NoOwnIssuer {
            root: named(id),
            now: date(self.now),
        })?;
        put_roots(&roots, data);
        leave_keys(data);
        for key in NEXT {
            data.remove(key);
        }
        Ok(own.issuer_id)
    }

    /// Lets the next root sign, which destroys the key of the one before.
    fn activate(&self, data: &mut BTreeMap<String, ByteString>) -> Result<Issuer, CaError> {
        let (roots, id, next) = self.next_first(data)?;
        // What a folder holds is copied nowhere, also where the source was changed meanwhile.
        let newest = self.candidate.filter(|_| self.source == Source::Secret);
        let newest = newest.filter(|candidate| candidate.root_id == id);
        let key = text(data, NEXT_ROOT_KEY).map(str::to_owned);
        let issuer = match (key, newest) {
            (Ok(key), _) => {
                let root = Root::from_pem(&next, &key)?;
                data.extend([field(ROOT_KEY, key)]);
                root.issuer(self.now, ISSUER_LIFE)?
            }
            (Err(_), newest) => {
                // Its owner keeps it.
                data.remove(ROOT_KEY);
                let brought = |key| text(data, key).map(str::to_owned);
                let (certificate, key) = match newest.map(|candidate| &candidate.issuer) {
                    Some(issuer) => (issuer.cert_pem().to_owned(), issuer.key_pem()),
                    None => (brought(NEXT_ISSUER_CRT)?, brought(NEXT_ISSUER_KEY)?),
                };
                Issuer::from_pem(&certificate, &key)?
            }
        };
        put_roots(&roots, data);
        put_issuer(&issuer, data);
        for key in NEXT {
            data.remove(key);
        }
        Ok(issuer)
    }

    /// The roots of a text, each with its own.
    fn roots(&self, pem: &str) -> Result<Vec<(AuthorityId, String)>, CaError> {
        const END: &str = "-----END CERTIFICATE-----";
        let mut roots = Vec::new();
        for one in pem.split_inclusive(END) {
            if !one.contains(END) {
                continue;
            }
            let one = format!("{}\n", one.trim());
            let read = Roots::from_pem(self.own, &one)?;
            roots.extend(read.ids().first().map(|id| (*id, one)));
        }
        Ok(roots)
    }
}

fn id_of(issuer: &Issuer) -> Result<AuthorityId, CaError> {
    issuer
        .id()
        .ok_or(CaError::Authority(BadAuthority::Certificate))
}

/// They are with the owners of the folders from now on.
fn leave_keys(data: &mut BTreeMap<String, ByteString>) {
    for key in [ROOT_KEY, ISSUER_CRT, ISSUER_KEY] {
        data.remove(key);
    }
}

fn put_roots(roots: &[(AuthorityId, String)], data: &mut BTreeMap<String, ByteString>) {
    let pem: String = roots.iter().map(|(_, pem)| pem.as_str()).collect();
    data.extend([field(ROOT_CRT, pem)]);
}

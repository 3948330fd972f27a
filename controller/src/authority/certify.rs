//! Issues a pod's certificate for a service account's token.
//!
//! The API server's TokenReview alone decides the client's identity; of the request only the
//! public key is used. The certificate names the service account, which policies refer to, and the
//! pod's uid, which control streams are served by.
//!
//! Every refusal has a reason from a closed list, which is counted, and a
//! message that says what to do about it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::authority::LeafNames;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use model::PodId;
use model::revoked::RevocationSet;
use parking_lot::Mutex;
use policy::name::SpiffeId;
use runtime::keyed_semaphore::KeyedSemaphore;
use runtime::rate::{Allowance, Rate, Rates};
use tokio::time::{Instant, timeout};
use tonic::async_trait;
use tracing::{info, warn};
use wire::v1;

use super::Authority;
use crate::latest_model::LatestModel;
use crate::metrics::{CertifyMetrics, CertifyResult};
use crate::settings::AUDIENCE;

mod refusal;

pub(crate) use self::refusal::Refusal;

/// Reviews under way at one time. A review takes milliseconds, so this is
/// thousands a second; more would only queue in the API server.
const PARALLEL: usize = 64;
/// How many of these may be of one address. The address may be a whole node.
const PARALLEL_OF_ONE: usize = 16;
/// Requests of one address, before anything is known about it: a node that starts with
/// a hundred pods has them served at once, and the proxies of the others try again.
const BY_SOURCE: Allowance = Allowance {
    burst: 100,
    every: Duration::from_millis(50),
};
/// Certificates of one pod, once it is known which: its container may crash a few
/// times, and the shortest life of a certificate is 30 s.
const BY_POD: Allowance = Allowance {
    burst: 10,
    every: Duration::from_secs(10),
};
/// How often the log names an address that was refused for the same reason: any client that reaches
/// the port decides how often it requests. Each time is counted.
const LOG_RATE: Allowance = Allowance {
    burst: 1,
    every: Duration::from_secs(10),
};
/// Lines of the log about issued certificates: a mesh may start at once. The next line counts what
/// was left out, and refusals have lines of their own.
const ISSUED_LINES: Allowance = Allowance {
    burst: 100,
    every: Duration::from_millis(10),
};
/// Addresses, pods, and refusals of addresses that are kept at one time; about 200 bytes each.
const MAX_KEYS: usize = 16 * 1024;
/// How long a request waits for its turn. The proxy tries again with backoff.
const TURN: Duration = Duration::from_secs(3);
/// A review that takes longer has failed.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// A projected token has about 1.2 kB.
const TOKEN_LIMIT: usize = 16 * 1024;
/// A P-256 request has about 300 bytes.
const CSR_LIMIT: usize = 8 * 1024;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// What the API server says about a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Review {
    /// Whether it is valid for one of the audiences requested.
    pub authenticated: bool,
    /// Audiences that it is valid for.
    pub audiences: Vec<String>,
    /// User name.
    pub user: String,
    /// Further facts, such as the pod it is bound to.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Why it is not valid.
    pub error: String,
}

/// Queries the API server.
#[async_trait]
pub(crate) trait Cluster: Send + Sync + 'static {
    /// What a token proves, for our audience.
    async fn review(&self, token: &str) -> Result<Review, kube::Error>;
    /// Uid of the pod of this name, if there is one.
    async fn pod_uid(&self, pod: &PodId) -> Result<Option<String>, kube::Error>;
    /// What is revoked; `None` while that is not known.
    fn revocations(&self) -> Option<Arc<RevocationSet>>;
}

/// The bearer of a token: a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bearer {
    namespace: String,
    service_account: String,
    pod: String,
    uid: String,
    /// `None`: of an API server that does not name it.
    node: Option<String>,
}

/// Issues certificates to pods.
#[derive(Clone)]
pub(crate) struct Certifier {
    cluster: Arc<dyn Cluster>,
    authority: Authority,
    trust_domain: Arc<str>,
    ttl: Duration,
    signing: Arc<KeyedSemaphore<IpAddr>>,
    by_source: Arc<Rates<IpAddr>>,
    by_pod: Arc<Rates<Arc<str>>>,
    log_rates: Arc<Rates<(IpAddr, &'static str)>>,
    issued_lines: Arc<IssuedLines>,
    metrics: CertifyMetrics,
}

/// Paces the lines about issued certificates.
struct IssuedLines(Mutex<(Rate, u64)>);

impl IssuedLines {
    fn new() -> Self {
        Self(Mutex::new((Rate::new(ISSUED_LINES), 0)))
    }

    /// How many had no line before this one, if it may have one.
    fn line(&self, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock();
        let (rate, left_out) = &mut *lines;
        if rate.take(now).is_err() {
            *left_out += 1;
            return None;
        }
        Some(std::mem::take(left_out))
    }
}

impl std::fmt::Debug for Certifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certifier")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Certifier {
    /// `ttl`: life of what is issued.
    pub(crate) fn new(
        cluster: Arc<dyn Cluster>,
        authority: Authority,
        trust_domain: &str,
        ttl: Duration,
        metrics: CertifyMetrics,
    ) -> Self {
        Self {
            cluster,
            authority,
            trust_domain: trust_domain.into(),
            ttl,
            signing: Arc::new(KeyedSemaphore::new(PARALLEL, PARALLEL_OF_ONE)),
            by_source: Arc::new(Rates::new(BY_SOURCE, MAX_KEYS)),
            by_pod: Arc::new(Rates::new(BY_POD, MAX_KEYS)),
            log_rates: Arc::new(Rates::new(LOG_RATE, MAX_KEYS)),
            issued_lines: Arc::new(IssuedLines::new()),
            metrics,
        }
    }

    /// Answers one request that came from `source` and counts the outcome.
    ///
    /// # Errors
    /// A refusal, as the proxy sees it.
    pub(crate) async fn certify(
        &self,
        request: v1::CertifyRequest,
        source: IpAddr,
    ) -> Result<v1::CertifyResponse, tonic::Status> {
        let answer = self.decide(request, source).await;
        let outcome = answer
            .as_ref()
            .map_or_else(Refusal::outcome, |_| CertifyResult::Issued);
        self.metrics.count(outcome);
        answer.map_err(|refusal| {
            let reason = outcome.as_str();
            // A client that floods the port shall not flood the log.
            if self
                .log_rates
                .take(&(source, reason), Instant::now())
                .is_ok()
            {
                warn!(target: "audit", reason, %source, %refusal, "certificate refused");
            }
            refusal.into()
        })
    }

    async fn decide(
        &self,
        request: v1::CertifyRequest,
        source: IpAddr,
    ) -> Result<v1::CertifyResponse, Refusal> {
        let throttled = |who: String| move |wait| Refusal::Throttled { who, wait };
        self.by_source
            .take(&source, Instant::now())
            .map_err(throttled(format!("address {source}")))?;
        check_sizes(&request)?;
        let Ok(_permit) = timeout(TURN, self.signing.acquire(source)).await else {
            return Err(Refusal::Overloaded);
        };
        let review = timeout(REVIEW_TIMEOUT, self.cluster.review(&request.token)).await;
        let review = answered(review)?;
        let bearer = bearer(review)?;
        let pod = format!("pod {}/{}", bearer.namespace, bearer.pod);
        self.by_pod
            .take(&bearer.uid.as_str().into(), Instant::now())
            .map_err(throttled(pod))?;
        self.must_exist(&bearer).await?;
        let names = self.names(&bearer)?;
        let now = self.dated(&bearer, &names.spiffe, SystemTime::now())?;
        let issued = self.authority.issue(&request.csr, &names, now, self.ttl)?;
        if let Some(left_out) = self.issued_lines.line(Instant::now()) {
            info!(
                target: "audit",
                identity = names.spiffe.as_str(),
                pod = bearer.pod,
                %source,
                serial = issued.serial,
                left_out,
                "certificate issued"
            );
        }
        Ok(v1::CertifyResponse {
            chain: issued
                .chain
                .iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
            roots: self.authority.roots_der(),
        })
    }

    /// As of when a certificate is issued: whatever this clock has, not before what a Revocation
    /// refuses.
    fn dated(
        &self,
        bearer: &Bearer,
        id: &SpiffeId,
        now: SystemTime,
    ) -> Result<SystemTime, Refusal> {
        let Some(revocations) = self.cluster.revocations() else {
            let why = "the objects of the cluster are not read yet";
            return Err(Refusal::CannotSign(why.to_owned()));
        };
        let soonest = revocations
            .issuance(id, Some(&bearer.uid), bearer.node.as_deref())
            .map_err(|by| Refusal::Revoked {
                who: format!("pod {}/{}", bearer.namespace, bearer.pod),
                by: by.to_string(),
            })?;
        Ok(soonest.map_or(now, |soonest| soonest.max(now)))
    }

    async fn must_exist(&self, bearer: &Bearer) -> Result<(), Refusal> {
        let pod = PodId::new(&bearer.namespace, &bearer.pod);
        let uid = answered(timeout(REVIEW_TIMEOUT, self.cluster.pod_uid(&pod)).await)?;
        if uid.as_deref() == Some(&bearer.uid) {
            Ok(())
        } else {
            Err(Refusal::PodGone(pod.to_string()))
        }
    }

    fn names(&self, bearer: &Bearer) -> Result<LeafNames, Refusal> {
        let spiffe = SpiffeId::of(
            &self.trust_domain,
            &bearer.namespace,
            &bearer.service_account,
        )
        .map_err(|error| Refusal::BadRequest(error.to_string()))?;
        let pod_dns = identity::verify::pod_dns(&bearer.uid).ok_or(Refusal::NotBound)?;
        Ok(LeafNames {
            spiffe,
            pod_dns: Some(pod_dns),
        })
    }
}

fn check_sizes(request: &v1::CertifyRequest) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(Refusal::BadRequest(what.to_owned()));
    match (request.token.len(), request.csr.len()) {
        (0, _) => refuse("there is no token"),
        (1..=TOKEN_LIMIT, 0) => refuse("there is no certificate request"),
        (1..=TOKEN_LIMIT, 1..=CSR_LIMIT) => Ok(()),
        (1..=TOKEN_LIMIT, _) => refuse("the certificate request is too long"),
        _ => refuse("the token is too long"),
    }
}

fn answered<T>(
    answer: Result<Result<T, kube::Error>, tokio::time::error::Elapsed>,
) -> Result<T, Refusal> {
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Refusal::Unavailable(error.to_string())),
        Err(_) => Err(Refusal::Unavailable("no answer in time".to_owned())),
    }
}

/// Reads a review as the pod that it proves. Pure.
fn bearer(review: Review) -> Result<Bearer, Refusal> {
    if !review.authenticated {
        // The API server has no reason of its own for a foreign audience.
        if review.error.contains("audience") {
            return Err(Refusal::WrongAudience);
        }
        return Err(Refusal::NotAuthenticated(review.error));
    }
    // An API server that does not know audiences leaves the list empty; its tokens would be good
    // for every audience.
    if !review.audiences.iter().any(|audience| audience == AUDIENCE) {
        return Err(Refusal::WrongAudience);
    }
    let account = review
        .user
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let Some((namespace, service_account)) = account else {
        return Err(Refusal::NotAServiceAccount(review.user));
    };
    let single = |key: &str| match review.extra.get(key).map(Vec::as_slice) {
        Some([one]) if !one.is_empty() => Ok(one.clone()),
        _ => Err(Refusal::NotBound),
    };
    Ok(Bearer {
        namespace: namespace.to_owned(),
        service_account: service_account.to_owned(),
        pod: single(POD_NAME)?,
        uid: single(POD_UID)?,
        node: single(NODE_NAME).ok(),
    })
}

/// The real cluster: pods are looked up in the newest model first.
#[derive(Clone)]
pub(crate) struct KubeCluster {
    client: Client,
    latest: LatestModel,
}

opaque_debug!(KubeCluster);

impl KubeCluster {
    /// `latest` spares most calls about pods.
    pub(crate) fn new(client: Client, latest: LatestModel) -> Self {
        Self { client, latest }
    }
}

#[async_trait]
impl Cluster for KubeCluster {
    async fn review(&self, token: &str) -> Result<Review, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = api
            .create(&PostParams::default(), &review)
            .await?
            .status
            .unwrap_or_default();
        let user = status.user.unwrap_or_default();
        Ok(Review {
            authenticated: status.authenticated.unwrap_or_default(),
            audiences: status.audiences.unwrap_or_default(),
            user: user.username.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
            error: status.error.unwrap_or_default(),
        })
    }

    async fn pod_uid(&self, pod: &PodId) -> Result<Option<String>, kube::Error> {
        let known = self
            .latest
            .borrow()
            .as_ref()
            .and_then(|compiled| compiled.model.pod(pod));
        if let Some(record) = known {
            return Ok(Some(record.uid.to_string()));
        }
        // A pod that requests within milliseconds of its start may not be watched yet.
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let pod = api.get_metadata_opt(&pod.name).await?;
        Ok(pod.and_then(|pod| pod.metadata.uid))
    }

    fn revocations(&self) -> Option<Arc<RevocationSet>> {
        let latest = self.latest.borrow();
        let compiled = latest.as_ref()?;
        Some(Arc::clone(&compiled.model.index.revocations))
    }
}

#[cfg(test)]
pub(crate) mod tests;

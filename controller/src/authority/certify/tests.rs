//! Which requests get a certificate, and with which reasons the others are refused.
//!
//! Claims: attack-81, mesh-11

use identity::LeafKey;
use identity::verify::peer_identity;

use super::*;
use crate::testing::warnings::Warnings;

mod revoked;

const SOMEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

/// A cluster that answers what the test says.
#[derive(Debug, Default)]
pub(crate) struct FakeCluster {
    pub(crate) reviews: Mutex<BTreeMap<String, Review>>,
    pub(crate) pods: Mutex<BTreeMap<PodId, String>>,
    pub(crate) revocations: Mutex<Arc<RevocationSet>>,
}

impl FakeCluster {
    /// Token `token` belongs to this pod, which exists.
    pub(crate) fn knows(&self, token: &str, namespace: &str, account: &str, pod: &str, uid: &str) {
        self.reviews
            .lock()
            .insert(token.to_owned(), review(namespace, account, pod, uid));
        self.pods
            .lock()
            .insert(PodId::new(namespace, pod), uid.to_owned());
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn review(&self, token: &str) -> Result<Review, kube::Error> {
        let unknown = Review {
            error: "invalid bearer token".to_owned(),
            ..Review::default()
        };
        Ok(self.reviews.lock().get(token).cloned().unwrap_or(unknown))
    }

    async fn pod_uid(&self, pod: &PodId) -> Result<Option<String>, kube::Error> {
        Ok(self.pods.lock().get(pod).cloned())
    }

    fn revocations(&self) -> Option<Arc<RevocationSet>> {
        Some(Arc::clone(&self.revocations.lock()))
    }
}

fn review(namespace: &str, account: &str, pod: &str, uid: &str) -> Review {
    let one = |key: &str, value: &str| (key.to_owned(), vec![value.to_owned()]);
    Review {
        authenticated: true,
        audiences: vec![AUDIENCE.to_owned()],
        user: format!("system:serviceaccount:{namespace}:{account}"),
        extra: BTreeMap::from([one(POD_NAME, pod), one(POD_UID, uid)]),
        error: String::new(),
    }
}

/// Reviews by the API server take this long.
struct SlowCluster(Arc<FakeCluster>, Duration);

#[async_trait]
impl Cluster for SlowCluster {
    async fn review(&self, token: &str) -> Result<Review, kube::Error> {
        tokio::time::sleep(self.1).await;
        self.0.review(token).await
    }

    async fn pod_uid(&self, pod: &PodId) -> Result<Option<String>, kube::Error> {
        self.0.pod_uid(pod).await
    }

    fn revocations(&self) -> Option<Arc<RevocationSet>> {
        self.0.revocations()
    }
}

struct Bench {
    cluster: Arc<FakeCluster>,
    certifier: Certifier,
    metrics: CertifyMetrics,
    csr: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let cluster = Arc::new(FakeCluster::default());
        cluster.knows("good", "shop", "web", "web-0", "uid-0");
        let metrics = CertifyMetrics::default();
        let certifier = Certifier::new(
            cluster.clone(),
            Authority::in_memory(),
            "cluster.local",
            Duration::from_secs(3600),
            metrics.clone(),
        );
        Self {
            cluster,
            certifier,
            metrics,
            csr: LeafKey::generate().unwrap().csr().unwrap(),
        }
    }

    async fn fetch(&self, token: &str) -> Result<v1::CertifyResponse, tonic::Status> {
        self.ask_from(SOMEWHERE, token).await
    }

    async fn ask_from(
        &self,
        source: IpAddr,
        token: &str,
    ) -> Result<v1::CertifyResponse, tonic::Status> {
        let request = v1::CertifyRequest {
            token: token.to_owned(),
            csr: self.csr.clone(),
        };
        self.certifier.certify(request, source).await
    }

    async fn must_refuse(&self, token: &str, code: tonic::Code, outcome: CertifyResult) {
        let status = self.fetch(token).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!(self.metrics.answers(outcome), 1, "{status}");
        assert_eq!(self.metrics.answers(CertifyResult::Issued), 0);
    }
}

#[tokio::test]
async fn pod_token_yields_certificate_with_pod_uid() {
    let bench = Bench::new();
    let answer = bench.fetch("good").await.unwrap();
    let chain: Vec<_> = answer
        .chain
        .into_iter()
        .map(rustls::pki_types::CertificateDer::from)
        .collect();
    let identity = peer_identity(&chain).unwrap();
    assert_eq!(
        identity.spiffe.as_str(),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    assert_eq!(identity.pod_uid(), Some("uid-0"));
    assert_eq!(answer.roots.len(), 1);
    assert_eq!(bench.metrics.answers(CertifyResult::Issued), 1);
}

#[tokio::test]
async fn token_rejected_by_api_server_is_refused() {
    let bench = Bench::new();
    bench
        .must_refuse(
            "forged",
            tonic::Code::Unauthenticated,
            CertifyResult::NotAuthenticated,
        )
        .await;
}

#[tokio::test]
async fn token_of_another_audience_is_refused() {
    let bench = Bench::new();
    let mut foreign = review("shop", "web", "web-0", "uid-0");
    foreign.audiences = vec!["https://kubernetes.default.svc".to_owned()];
    bench
        .cluster
        .reviews
        .lock()
        .insert("foreign".to_owned(), foreign);
    bench
        .must_refuse(
            "foreign",
            tonic::Code::Unauthenticated,
            CertifyResult::WrongAudience,
        )
        .await;
}

#[tokio::test]
async fn review_without_audiences_is_refused() {
    let bench = Bench::new();
    let mut old = review("shop", "web", "web-0", "uid-0");
    old.audiences.clear();
    bench.cluster.reviews.lock().insert("old".to_owned(), old);
    bench
        .must_refuse(
            "old",
            tonic::Code::Unauthenticated,
            CertifyResult::WrongAudience,
        )
        .await;
}

#[tokio::test]
async fn users_token_is_refused() {
    let bench = Bench::new();
    let mut user = review("shop", "web", "web-0", "uid-0");
    user.user = "alice".to_owned();
    bench.cluster.reviews.lock().insert("user".to_owned(), user);
    bench
        .must_refuse(
            "user",
            tonic::Code::PermissionDenied,
            CertifyResult::NotAServiceAccount,
        )
        .await;
}

#[tokio::test]
async fn token_not_bound_to_pod_is_refused() {
    for missing in [POD_NAME, POD_UID] {
        let bench = Bench::new();
        let mut unbound = review("shop", "web", "web-0", "uid-0");
        unbound.extra.remove(missing);
        bench
            .cluster
            .reviews
            .lock()
            .insert("unbound".to_owned(), unbound);
        bench
            .must_refuse(
                "unbound",
                tonic::Code::PermissionDenied,
                CertifyResult::NotBound,
            )
            .await;
    }
}

#[tokio::test]
async fn token_of_deleted_pod_is_refused_despite_valid_review() {
    let bench = Bench::new();
    bench.cluster.pods.lock().clear();
    bench
        .must_refuse(
            "good",
            tonic::Code::PermissionDenied,
            CertifyResult::PodGone,
        )
        .await;
}

#[tokio::test]
async fn token_of_replaced_pod_with_same_name_is_refused() {
    let bench = Bench::new();
    bench
        .cluster
        .pods
        .lock()
        .insert(PodId::new("shop", "web-0"), "uid-1".to_owned());
    bench
        .must_refuse(
            "good",
            tonic::Code::PermissionDenied,
            CertifyResult::PodGone,
        )
        .await;
}

#[tokio::test]
async fn request_that_is_no_certificate_request_is_refused() {
    let mut bench = Bench::new();
    bench.csr = b"not a request".to_vec();
    bench
        .must_refuse(
            "good",
            tonic::Code::InvalidArgument,
            CertifyResult::BadRequest,
        )
        .await;
}

#[tokio::test]
async fn oversized_token_is_refused_before_any_review() {
    let bench = Bench::new();
    let long = "x".repeat(TOKEN_LIMIT + 1);
    bench
        .must_refuse(
            &long,
            tonic::Code::InvalidArgument,
            CertifyResult::BadRequest,
        )
        .await;
}

#[tokio::test]
async fn without_an_authority_the_answer_is_to_try_again() {
    let mut bench = Bench::new();
    bench.certifier.authority = Authority::default();
    bench
        .must_refuse("good", tonic::Code::Unavailable, CertifyResult::CannotSign)
        .await;
}

#[tokio::test(start_paused = true)]
async fn excess_parallel_certificate_requests_get_resource_exhausted() {
    let bench = Bench::new();
    let mut all = Vec::new();
    for at in 0..PARALLEL {
        let source = IpAddr::from([10, 0, 1, u8::try_from(at).unwrap()]);
        all.push(bench.certifier.signing.acquire(source).await);
    }
    bench
        .must_refuse(
            "good",
            tonic::Code::ResourceExhausted,
            CertifyResult::Overloaded,
        )
        .await;
}

// Claims: B6
#[tokio::test(start_paused = true)]
async fn pod_gets_ten_certificates_then_one_per_ten_seconds() {
    let bench = Bench::new();
    bench
        .cluster
        .knows("other", "shop", "web", "web-1", "uid-1");
    let mut issued = 0;
    for _ in 0..50 {
        match bench.fetch("good").await {
            Ok(_) => issued += 1,
            Err(refused) => {
                assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
                assert!(refused.message().contains("pod shop/web-0"), "{refused}");
            }
        }
    }
    assert_eq!(issued, 10);
    assert_eq!(bench.metrics.answers(CertifyResult::Throttled), 40);
    // Another pod is not held back by it, and neither is this one for long.
    bench.fetch("other").await.unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    bench.fetch("good").await.unwrap();
    bench.fetch("good").await.unwrap_err();
}

// Claims: B6
#[tokio::test(start_paused = true)]
async fn flooding_address_costs_twenty_token_reviews_per_second() {
    let bench = Bench::new();
    let (attacker, honest) = ([10, 0, 0, 66].into(), [10, 0, 0, 2].into());
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        let refused = bench.ask_from(attacker, "forged").await.unwrap_err();
        if refused.code() == tonic::Code::ResourceExhausted {
            assert!(refused.message().contains("address 10.0.0.66"), "{refused}");
        }
        tokio::time::advance(Duration::from_millis(5)).await;
    }
    let reviewed = bench.metrics.answers(CertifyResult::NotAuthenticated);
    assert!(
        (290..=310).contains(&reviewed),
        "{reviewed} reviews in 10 s"
    );
    bench.ask_from(honest, "good").await.unwrap();
}

// Claims: attack-83
#[tokio::test(start_paused = true)]
async fn refused_address_is_logged_once_per_reason() {
    let bench = Bench::new();
    let (warnings, _counting) = Warnings::counted();
    for _ in 0..BY_SOURCE.burst {
        bench.fetch("forged").await.unwrap_err();
    }
    assert_eq!(warnings.count(), 1);
    let refused = bench.fetch("forged").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(warnings.count(), 2, "another reason");
    let other = [10, 0, 0, 66].into();
    bench.ask_from(other, "forged").await.unwrap_err();
    assert_eq!(warnings.count(), 3, "another address");
    tokio::time::advance(LOG_RATE.every).await;
    bench.fetch("forged").await.unwrap_err();
    assert_eq!(warnings.count(), 4, "later");
}

// Claims: B6
#[tokio::test(start_paused = true)]
async fn address_whose_reviews_take_long_leaves_turns_to_others() {
    let bench = Bench::new();
    let slow = SlowCluster(bench.cluster.clone(), Duration::from_secs(2));
    let mut certifier = bench.certifier.clone();
    certifier.cluster = Arc::new(slow);
    let csr = &bench.csr;
    let fetch = |from: [u8; 4], token: &str| {
        let request = v1::CertifyRequest {
            token: token.to_owned(),
            csr: csr.clone(),
        };
        let certifier = certifier.clone();
        async move { certifier.certify(request, from.into()).await }
    };
    let flood: Vec<_> = (0..PARALLEL + 30)
        .map(|_| tokio::spawn(fetch([10, 0, 0, 66], "forged")))
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let begin = Instant::now();
    fetch([10, 0, 0, 2], "good").await.unwrap();
    let took = begin.elapsed();
    assert!(
        took < Duration::from_millis(2100),
        "it waited for others: {took:?}"
    );
    for one in flood {
        one.await.unwrap().unwrap_err();
    }
    assert_eq!(certifier.signing.sources(), 0, "addresses are kept");
}

/// The worst that is honest: a node whose pods all have its address, restarted at once.
// Claims: B6
#[tokio::test(start_paused = true)]
async fn two_hundred_pods_behind_one_address_get_certificates() {
    let bench = Bench::new();
    let mut proxies = Vec::new();
    let begin = Instant::now();
    for at in 0..200 {
        let (token, uid, pod) = (format!("t{at}"), format!("u{at}"), format!("web-{at}"));
        bench.cluster.knows(&token, "shop", "web", &pod, &uid);
        let (certifier, csr) = (bench.certifier.clone(), bench.csr.clone());
        proxies.push(tokio::spawn(async move {
            // As the proxy waits between tries.
            let mut backoff =
                runtime::backoff::Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
            loop {
                let request = v1::CertifyRequest {
                    token: token.clone(),
                    csr: csr.clone(),
                };
                match certifier.certify(request, SOMEWHERE).await {
                    Ok(_) => return begin.elapsed(),
                    Err(_) => backoff.wait().await,
                }
            }
        }));
    }
    let mut slowest = Duration::ZERO;
    for proxy in proxies {
        slowest = slowest.max(proxy.await.unwrap());
    }
    assert!(slowest < Duration::from_secs(30), "{slowest:?}");
    assert!(
        slowest > Duration::from_secs(4),
        "no caller had to wait: {slowest:?}"
    );
}

#[test]
fn lines_of_issued_certificates_are_paced_and_counted() {
    let (lines, now) = (IssuedLines::new(), Instant::now());
    let written = (0..250).filter(|_| lines.line(now).is_some()).count();
    assert_eq!(written, 100);
    let later = now + Duration::from_secs(2);
    assert_eq!(lines.line(later), Some(150), "those without a line");
    assert_eq!(lines.line(later), Some(0));
}

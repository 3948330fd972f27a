//! The authority's Secret is made, kept and renewed.
//!
//! Claims: attack-100, attack-85

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use identity::authority::{ISSUER_LIFE, LeafNames, ROOT_LIFE};
use identity::tls::ServingHandle;
use identity::verify::peer_identity;
use identity::{CertHandle, LeafKey};
use model::compiled::Compiled;
use policy::name::SpiffeId;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::aggregated::certificate;
use crate::authority::own_certificate::keep_serving;
use crate::authority::secret::ROOT_KEY;
use crate::observe::acknowledged::Observed;
use crate::settings::authority::AuthoritySettings;
use crate::testing::api_server::FakeApi;
use crate::trust_bundle::progress::Progress;

mod api_root;
mod own_certificate;
mod reverted;
mod rotation;

const PATH: &str = "/api/v1/namespaces/mesh/secrets/weft-ca";

fn reconciler(api: &FakeApi, leads: bool) -> Reconciler {
    let (events, _writer) = EventRecorder::new(api.client(), "me", Counter::default());
    Reconciler {
        authority: Authority::default(),
        client: api.client(),
        namespace: "mesh".to_owned(),
        leadership: Leadership::fixed(leads),
        metrics: AuthorityMetrics::default(),
        events,
        clock: Clock::system(),
        watched: watched(AuthoritySettings::default()).0,
    }
}

/// What a rotation is decided by, where no pod is known yet, and what tests change of it.
fn watched(settings: AuthoritySettings) -> (Watched, Inputs) {
    let inputs = Inputs {
        latest: watch::Sender::new(None),
        observed: Observed::settled(),
        bundles: watch::Sender::default(),
    };
    let watched = Watched::new(
        inputs.latest.subscribe(),
        inputs.observed.clone(),
        inputs.bundles.subscribe(),
        settings,
        DAY,
        "weft-controller-0",
    );
    (watched, inputs)
}

struct Inputs {
    latest: watch::Sender<Option<Arc<Compiled>>>,
    observed: Observed,
    bundles: watch::Sender<Progress>,
}

/// A wall clock that goes with paused time, and how many seconds it is ahead of it.
fn clock() -> (Clock, Arc<AtomicU64>) {
    let (base, start) = (SystemTime::now(), Instant::now());
    let ahead = Arc::new(AtomicU64::new(0));
    let jump = Arc::clone(&ahead);
    let clock =
        Clock::from_fn(move || base + start.elapsed() + Duration::from_secs(jump.load(Relaxed)));
    (clock, ahead)
}

fn key(api: &FakeApi, name: &str) -> Value {
    api.read(PATH).unwrap()["data"][name].clone()
}

fn can_sign(reconciler: &Reconciler, now: SystemTime) -> bool {
    let spiffe = SpiffeId::of("cluster.local", "shop", "web").unwrap();
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let names = LeafNames {
        spiffe: spiffe.clone(),
        pod_dns: None,
    };
    let issued = reconciler
        .authority
        .issue(&csr, &names, now, Duration::from_secs(60));
    issued.is_ok_and(|issued| peer_identity(&issued.chain).is_ok_and(|peer| peer.spiffe == spiffe))
}

#[tokio::test]
async fn first_controller_creates_authority_and_second_reuses_it() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let (a, b) = (reconciler(&api, true), reconciler(&api, false));
    a.step(now).await.unwrap();
    b.step(now).await.unwrap();
    assert!(can_sign(&a, now) && can_sign(&b, now));
    assert_eq!(a.authority.roots_der(), b.authority.roots_der());
    assert_eq!(api.writes().len(), 1);
}

#[tokio::test]
async fn loser_of_creation_race_reads_winners_authority() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let (a, b) = (reconciler(&api, true), reconciler(&api, false));
    a.step(now).await.unwrap();
    let read = b.make(now).await.unwrap();
    b.take(read, now).await.unwrap();
    assert_eq!(a.authority.roots_der(), b.authority.roots_der());
}

#[tokio::test]
async fn only_lease_holder_replaces_issuer_at_two_thirds_lifetime() {
    let api = FakeApi::default();
    let start = SystemTime::now();
    let (holder, other) = (reconciler(&api, true), reconciler(&api, false));
    holder.step(start).await.unwrap();
    other.step(start).await.unwrap();
    let first = key(&api, ISSUER_CRT);

    let early = start + ISSUER_LIFE / 3 * 2 - DAY;
    holder.step(early).await.unwrap();
    assert_eq!(key(&api, ISSUER_CRT), first);

    let due = start + ISSUER_LIFE / 3 * 2 + DAY;
    other.step(due).await.unwrap();
    assert_eq!(key(&api, ISSUER_CRT), first, "not its task");
    holder.step(due).await.unwrap();
    assert_ne!(key(&api, ISSUER_CRT), first);

    other.step(due).await.unwrap();
    let after_the_first = start + ISSUER_LIFE + DAY;
    assert!(
        can_sign(&other, after_the_first),
        "the other replica has reloaded"
    );
}

#[tokio::test]
async fn broken_secret_does_not_replace_an_authority_that_works() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let reconciler = reconciler(&api, false);
    reconciler.step(now).await.unwrap();
    let mut broken = api.read(PATH).unwrap();
    broken["data"][ISSUER_CRT] = json!("bm90IGEgY2VydGlmaWNhdGU=");
    api.put(PATH, broken);
    assert!(reconciler.step(now).await.is_err());
    assert!(can_sign(&reconciler, now));
}

#[tokio::test]
async fn broken_secret_at_start_prevents_signing_without_exit() {
    let api = FakeApi::default();
    api.put(
        PATH,
        json!({"metadata": {"name": SECRET, "namespace": "mesh"}, "data": {}}),
    );
    let now = SystemTime::now();
    let reconciler = reconciler(&api, true);
    assert!(reconciler.step(now).await.is_err());
    assert!(!can_sign(&reconciler, now));
}

#[tokio::test]
async fn deleted_secret_is_restored_with_same_root() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let reconciler = reconciler(&api, true);
    reconciler.step(now).await.unwrap();
    let root = key(&api, ROOT_CRT);
    api.remove(PATH);
    reconciler.step(now).await.unwrap();
    assert_eq!(key(&api, ROOT_CRT), root);
}

#[tokio::test]
async fn own_certificate_carries_the_controllers_identity() {
    let authority = Authority::in_memory();
    let identity = SpiffeId::of("cluster.local", "weft-system", "weft-controller").unwrap();
    let handle = CertHandle::empty();
    let kept = tokio::spawn(keep_serving(
        authority,
        identity.clone(),
        Duration::from_secs(60),
        handle.clone(),
        AuthorityMetrics::default(),
        Clock::system(),
    ));
    while handle.current().is_none() {
        tokio::task::yield_now().await;
    }
    kept.abort();
    assert_eq!(handle.current().unwrap().identity().spiffe, identity);
}

// Claims: C1
#[tokio::test]
async fn lease_holder_replaces_and_reports_expired_issuer() {
    let api = FakeApi::default();
    let start = SystemTime::now();
    reconciler(&api, true).step(start).await.unwrap();
    let (root, issuer) = (key(&api, ROOT_CRT), key(&api, ISSUER_CRT));

    // All processes are new: the cluster was off.
    let later = start + 100 * DAY;
    let ended = date(start + ISSUER_LIFE);
    let ended = ended.split('T').next().unwrap();
    let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
    let mut holder = reconciler(&api, true);
    holder.events = events;
    let other = reconciler(&api, false);
    let waiting = other.step(later).await.unwrap_err().to_string();
    assert!(waiting.contains(ended), "{waiting}");
    assert_eq!(key(&api, ISSUER_CRT), issuer, "not its task");

    holder.step(later).await.unwrap();
    other.step(later).await.unwrap();
    assert!(can_sign(&holder, later) && can_sign(&other, later));
    assert_eq!(key(&api, ROOT_CRT), root, "proxies trust what they trusted");
    assert_ne!(key(&api, ISSUER_CRT), issuer);

    drop(holder);
    writer.run(std::future::pending()).await;
    let events = api.below("/apis/events.k8s.io/v1/namespaces/mesh/events/");
    let text = events[0]["note"].as_str().unwrap();
    assert_eq!(events[0]["reason"], "IssuerEnded");
    assert!(text.contains(ended), "{text}");
}

#[tokio::test]
async fn expired_irreplaceable_issuer_stays_with_reason() {
    let api = FakeApi::default();
    let start = SystemTime::now();
    reconciler(&api, true).step(start).await.unwrap();

    let late = start + ROOT_LIFE + DAY;
    let before = api.writes().len();
    let error = reconciler(&api, true).step(late).await.unwrap_err();
    assert!(matches!(error, CaError::RootEnded { .. }), "{error}");

    let mut without = api.read(PATH).unwrap();
    without["data"].as_object_mut().unwrap().remove(ROOT_KEY);
    api.put(PATH, without);
    let error = reconciler(&api, true)
        .step(start + 100 * DAY)
        .await
        .unwrap_err();
    assert!(matches!(error, CaError::NoRootKey { .. }), "{error}");
    assert!(error.to_string().contains(ISSUER_CRT), "{error}");
    assert_eq!(api.writes().len(), before);
}

/// The Lease holder's authority, and its certificates for proxies and the API server.
fn holder_with_all(api: &FakeApi, clock: &Clock) -> (Authority, CertHandle, ServingHandle) {
    let mut holder = reconciler(api, true);
    holder.clock = clock.clone();
    let authority = holder.authority.clone();
    tokio::spawn(holder.run());
    let identity = SpiffeId::of("cluster.local", "weft-system", "weft-controller").unwrap();
    let (own, front) = (CertHandle::empty(), ServingHandle::empty());
    tokio::spawn(keep_serving(
        authority.clone(),
        identity,
        Duration::from_secs(24 * 3600),
        own.clone(),
        AuthorityMetrics::default(),
        clock.clone(),
    ));
    tokio::spawn(certificate::keep_serving(
        vec![crate::metrics_api::SERVED],
        authority.clone(),
        api.client(),
        "weft-system".to_owned(),
        front.clone(),
        clock.clone(),
    ));
    (authority, own, front)
}

// Claims: attack-86
#[tokio::test(start_paused = true)]
async fn corrected_clock_leaves_no_certificate_not_yet_valid() {
    // Two minutes are less than every certificate is backdated by.
    for (by, replaced) in [(8 * 3600, true), (120, false)] {
        let api = FakeApi::default();
        let (clock, ahead) = clock();
        ahead.store(by, Relaxed);
        let (authority, own, front) = holder_with_all(&api, &clock);
        sleep(Duration::from_secs(90)).await;
        let serial = || own.current().unwrap().serial().to_owned();
        let first = (key(&api, ISSUER_CRT), serial(), front.not_after());

        ahead.store(0, Relaxed);
        sleep(2 * LOOK_EVERY + 3 * RETRY).await;
        let now = clock.now();
        let same = Reconciler {
            authority,
            ..reconciler(&api, false)
        };
        assert!(can_sign(&same, now), "{by}");
        assert!(own.current().unwrap().not_before() <= now, "{by}");
        assert!(
            front.not_after().unwrap() <= now + certificate::LIFE,
            "{by}"
        );
        assert_eq!(key(&api, ISSUER_CRT) != first.0, replaced, "{by}");
        assert_eq!(serial() != first.1, replaced, "{by}");
        assert_eq!(front.not_after() != first.2, replaced, "{by}");
    }
}

// Claims: attack-86
#[tokio::test]
async fn lease_holder_replaces_and_reports_premature_issuer() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    let ahead = now + Duration::from_secs(8 * 3600);
    reconciler(&api, true).step(ahead).await.unwrap();
    let (root, issuer) = (key(&api, ROOT_CRT), key(&api, ISSUER_CRT));

    // All processes are new, and know the time.
    let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
    let mut holder = reconciler(&api, true);
    holder.events = events;
    let other = reconciler(&api, false);
    let begins = date(ahead - BACKDATE);
    let waiting = other.step(now).await.unwrap_err().to_string();
    assert!(waiting.contains(&begins), "{waiting}");
    assert_eq!(key(&api, ISSUER_CRT), issuer, "not its task");
    holder.step(now).await.unwrap();
    other.step(now).await.unwrap();
    assert!(can_sign(&holder, now) && can_sign(&other, now));
    assert_eq!(key(&api, ROOT_CRT), root, "proxies trust what they trusted");

    drop(holder);
    writer.run(std::future::pending()).await;
    let events = api.below("/apis/events.k8s.io/v1/namespaces/mesh/events/");
    assert_eq!(events[0]["reason"], "IssuerNotYetValid");
    let text = events[0]["note"].as_str().unwrap();
    assert!(text.contains(&begins), "{text}");
}

// Claims: C1, C2
#[tokio::test(start_paused = true)]
async fn cluster_off_for_hundred_days_recovers_every_certificate() {
    let api = FakeApi::default();
    let (clock, ahead) = clock();
    let (_, own, front) = holder_with_all(&api, &clock);
    sleep(Duration::from_secs(90)).await;
    let first = (key(&api, ISSUER_CRT), front.not_after());
    assert!(own.not_after().unwrap() > clock.now());

    // Suspended: timers stop, the wall clock does not.
    ahead.store(100 * DAY.as_secs(), Relaxed);
    sleep(LOOK_EVERY + 3 * RETRY).await;
    let now = clock.now();
    assert_ne!(key(&api, ISSUER_CRT), first.0, "the issuer");
    assert!(own.not_after().unwrap() > now, "what proxies see");
    assert!(front.not_after().unwrap() > now, "what the API server sees");

    // A clock that is set forward by a day, past the renewal of the leaves only.
    ahead.fetch_add(DAY.as_secs(), Relaxed);
    sleep(LOOK_EVERY + RETRY).await;
    assert!(own.not_after().unwrap() > clock.now());
    assert!(front.not_after().unwrap() > clock.now());
}

// Claims: C1
#[tokio::test(start_paused = true)]
async fn repeatedly_failing_watch_does_not_delay_secret_reads() {
    let api = FakeApi::default();
    api.refuse_watches("/api/v1/namespaces/mesh/secrets");
    let (clock, ahead) = clock();
    let mut holder = reconciler(&api, true);
    holder.clock = clock;
    tokio::spawn(holder.run());
    // By now the watch fails once or twice a minute.
    sleep(Duration::from_secs(600)).await;
    let (first, reads) = (key(&api, ISSUER_CRT), api.reads(PATH));
    sleep(Duration::from_secs(600)).await;
    let reads = api.reads(PATH) - reads;
    assert!(reads >= 19, "{reads} looks in ten minutes");
    ahead.store(61 * DAY.as_secs(), Relaxed);
    sleep(2 * LOOK_EVERY).await;
    assert_ne!(key(&api, ISSUER_CRT), first);
}

fn reconciler_of(api: &FakeApi, trust_domain: &str) -> Reconciler {
    let own = SpiffeId::of(trust_domain, "mesh", "weft-controller").unwrap();
    Reconciler {
        authority: Authority::new(&own),
        ..reconciler(api, true)
    }
}

// Claims: C6, attack-101
#[tokio::test]
async fn controller_with_different_trust_domain_refuses_to_start() {
    let api = FakeApi::default();
    let own = |domain: &str| SpiffeId::of(domain, "mesh", "weft-controller").unwrap();
    let start = |domain: &str| {
        let (client, own) = (api.client(), own(domain));
        async move { same_trust_domain(&client, "mesh", &own).await }
    };
    start("corp.example").await.unwrap();
    let first = reconciler_of(&api, "corp.example");
    first.step(SystemTime::now()).await.unwrap();
    start("corp.example").await.unwrap();

    let refused = start("other.example").await.unwrap_err().to_string();
    for part in [
        "other.example",
        "corp.example",
        "identity.trustDomain",
        "kubectl -n mesh patch secret weft-ca",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // Neither does one that lost the race to make the Secret.
    let second = reconciler_of(&api, "other.example").run();
    let second = timeout(Duration::from_secs(5), second).await.unwrap();
    assert!(matches!(second, Err(CaError::TrustDomain { .. })));
    let writes: Vec<_> = api.writes();
    assert_eq!(writes.len(), 1, "it wrote nothing: {writes:?}");

    // The way out, on purpose: the new one starts, the old one goes on.
    let mut secret = api.read(PATH).unwrap();
    secret["data"][TRUST_DOMAIN] = json!(ByteString(b"other.example".to_vec()));
    api.put(PATH, secret);
    start("other.example").await.unwrap();
    reconciler_of(&api, "other.example")
        .step(SystemTime::now())
        .await
        .unwrap();
    assert!(first.step(SystemTime::now()).await.is_err());
    let csr = LeafKey::generate().unwrap().csr().unwrap();
    let names = LeafNames {
        spiffe: SpiffeId::of("corp.example", "shop", "web").unwrap(),
        pod_dns: None,
    };
    let minute = Duration::from_secs(60);
    let issued = first
        .authority
        .issue(&csr, &names, SystemTime::now(), minute);
    assert!(issued.is_ok());
}

#[tokio::test]
async fn secret_without_trust_domain_gets_lease_holders_domain() {
    let api = FakeApi::default();
    let now = SystemTime::now();
    reconciler(&api, true).step(now).await.unwrap();
    let mut old = api.read(PATH).unwrap();
    old["data"].as_object_mut().unwrap().remove(TRUST_DOMAIN);
    api.put(PATH, old);
    let (holder, other) = (reconciler(&api, true), reconciler(&api, false));
    other.step(now).await.unwrap();
    assert_eq!(key(&api, TRUST_DOMAIN), Value::Null, "not its task");
    holder.step(now).await.unwrap();
    let recorded: ByteString = serde_json::from_value(key(&api, TRUST_DOMAIN)).unwrap();
    assert_eq!(recorded.0, b"cluster.local");
    let writes = api.writes().len();
    holder.step(now).await.unwrap();
    assert_eq!(api.writes().len(), writes, "once");
}

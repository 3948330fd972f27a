//! Hosts of ExternalServices get into the World, and stay as DNS has them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use fake_api::FakeApi;
use model::Defaults;
use parking_lot::Mutex;
use runtime::ready::Ready;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::dns::Families;
use super::schedule::{LONGEST, SHORTEST};
use super::*;
use crate::metrics::WorldMetrics;

const OBJECT: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/externalservices/pay";
const HOST: &str = "api.pay.example";

/// The answer of DNS for each host; none: it does not answer.
#[derive(Debug, Default)]
struct FakeDns(Mutex<BTreeMap<String, Answer>>);

impl FakeDns {
    fn answers(&self, host: &str, ips: &[&str]) {
        let ips: BTreeSet<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let answer = Answer::Addresses(ips, SHORTEST);
        self.0.lock().insert(host.to_owned(), answer);
    }

    fn is_down(&self) {
        self.0.lock().clear();
    }
}

impl LookUp for FakeDns {
    async fn look_up(&self, host: Arc<str>, families: Families) -> (Arc<str>, Answer) {
        assert!(families.v4 && !families.v6, "no pod has IPv6");
        let answer = self.0.lock().get(&*host).cloned();
        (host, answer.unwrap_or(Answer::Failed))
    }
}

struct Bench {
    api: FakeApi,
    dns: Arc<FakeDns>,
    ready: Ready,
    metrics: NameMetrics,
    latest: LatestModel,
}

impl Bench {
    fn start() -> Self {
        let (api, ready) = (FakeApi::default(), Ready::new());
        let dns: Arc<FakeDns> = Arc::default();
        let object = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "ExternalService",
            "metadata": {"name": "pay", "namespace": "shop"},
            "spec": {"hosts": [HOST], "ports": [{"port": 443, "protocol": "TLS"}]},
        });
        api.put(OBJECT, object);
        let metrics = WorldMetrics::default();
        let (worlds, feed) =
            crate::watch::start(api.client(), Arc::default(), true, metrics, Ready::new());
        let (publish, latest) = watch::channel(None);
        let defaults = Defaults::default();
        let (_, signing) = watch::channel(BTreeSet::new());
        tokio::spawn(crate::latest_model::run(worlds, publish, defaults, signing));
        let (hold, own, models) = (ready.hold("names"), Arc::clone(&dns), latest.clone());
        let metrics = NameMetrics::default();
        let counted = metrics.clone();
        tokio::spawn(async move {
            let dns: &FakeDns = &own;
            let (_subscriber, subscribed) = watch::channel(Arc::default());
            resolve_by(dns, models, subscribed, feed, hold, counted).await;
        });
        Self {
            api,
            dns,
            ready,
            metrics,
            latest,
        }
    }

    fn addresses(&self) -> Option<Value> {
        let compiled = self.latest.borrow().clone()?;
        let name = compiled.world.names.get(&ResolvedName::key(HOST))?;
        Some(json!(name.addresses.to_vec()))
    }

    async fn becomes(&self, expected: Option<&Value>) {
        let reached = async {
            while self.addresses().as_ref() != expected {
                sleep(SHORTEST / 10).await;
            }
        };
        let reached = timeout(2 * LONGEST, reached).await;
        assert!(reached.is_ok(), "{:?}, not {expected:?}", self.addresses());
    }
}

#[tokio::test(start_paused = true)]
async fn world_follows_dns_and_keeps_stale_answers() {
    let bench = Bench::start();
    bench.dns.answers(HOST, &["203.0.113.7", "203.0.113.8"]);
    let both = json!(["203.0.113.7", "203.0.113.8"]);
    bench.becomes(Some(&both)).await;
    bench.dns.answers(HOST, &["203.0.113.9"]);
    let moved = json!(["203.0.113.9"]);
    bench.becomes(Some(&moved)).await;

    bench.dns.is_down();
    sleep(2 * LONGEST).await;
    assert_eq!(bench.addresses(), Some(moved), "stale answers stay");
    assert!(bench.metrics.failed.get() > 1, "they are tried again");
    assert_eq!(bench.metrics.hosts.get(), 1);
    bench.dns.answers(HOST, &[]);
    bench.becomes(Some(&json!([]))).await;

    bench.api.remove(OBJECT);
    bench.becomes(None).await;
}

#[tokio::test(start_paused = true)]
async fn replica_becomes_ready_with_first_answers_or_without_dns() {
    for is_down in [false, true] {
        let bench = Bench::start();
        if !is_down {
            bench.dns.answers(HOST, &["203.0.113.7"]);
        }
        assert_eq!(bench.ready.waiting(), ["names"]);
        let start = Instant::now();
        let ready = timeout(2 * FIRST_ANSWERS, async {
            while !bench.ready.waiting().is_empty() {
                sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(ready.await.is_ok());
        let waited = start.elapsed() >= FIRST_ANSWERS;
        assert_eq!(waited, is_down, "{:?}", start.elapsed());
    }
}

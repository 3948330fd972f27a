//! Every namespace has the trust bundle.

use kube::api::ObjectMeta;
use serde_json::Value;

use super::copy::{LEAVE_MANAGER, ROOTS_KEY};
use super::*;
use crate::testing::api_server::FakeApi;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{NAME}")
}

struct Bench {
    api: FakeApi,
    bundle: Bundle,
    seen: WatchState,
    events: crate::apiserver::events::Writer,
    roots: watch::Sender<Arc<str>>,
}

#[tokio::test(start_paused = true)]
async fn vanished_api_server_delays_bundle_copies_by_one_timeout() {
    let api = FakeApi::default();
    let client = crate::apiserver::lease::Leadership::fixed(true).client("bundle", &api.client());
    let (events, _writer) = EventRecorder::new(client.clone(), "me", Counter::default());
    let (_sender, roots) = watch::channel(Arc::from(PEM));
    api.put(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"name": "shop"}}),
    );
    let bundle = Bundle {
        client: client.clone(),
        excluded: Arc::default(),
        roots,
        events,
        uninstallation: Uninstallation::new(client, "weft-system"),
        written: Counter::default(),
        progress: watch::Sender::default(),
    };
    api.vanish(true);
    let kept = tokio::spawn(bundle.keep());
    sleep(Duration::from_secs(5)).await;
    api.vanish(false);
    // The call that was under way is never answered.
    sleep(crate::apiserver::client::CALL_WITHIN + 2 * RETRY).await;
    assert!(api.read(&path("shop")).is_some());
    kept.abort();
}

impl Bench {
    fn new(namespaces: &[&str]) -> Self {
        let api = FakeApi::default();
        let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
        let (sender, roots) = watch::channel(Arc::from(PEM));
        let bundle = Bundle {
            client: api.client(),
            excluded: Arc::new(BTreeSet::from(["kube-system".to_owned()])),
            roots,
            events,
            uninstallation: Uninstallation::new(api.client(), "weft-system"),
            written: Counter::default(),
            progress: watch::Sender::default(),
        };
        let mut bench = Self {
            api,
            bundle,
            seen: WatchState::default(),
            events: writer,
            roots: sender,
        };
        bench.seen.namespace(watcher::Event::Init);
        for name in namespaces {
            bench
                .seen
                .namespace(watcher::Event::InitApply(Item(Ok(namespace(name)))));
        }
        bench.seen.namespace(watcher::Event::InitDone);
        bench.seen.copy(watcher::Event::Init);
        bench.seen.copy(watcher::Event::InitDone);
        bench
    }

    async fn settle(&mut self, install: &str) {
        self.bundle.settle(install, &mut self.seen).await;
    }

    /// The copy in `namespace` as the API server shows it.
    fn shown(&self, namespace: &str) -> ConfigMap {
        let map = self.api.read(&path(namespace)).unwrap();
        let mut map: ConfigMap = serde_json::from_value(map).unwrap();
        map.metadata.namespace = Some(namespace.to_owned());
        map
    }

    /// Lets the watch bring it.
    fn watch(&mut self, namespace: &str) {
        let map = self.shown(namespace);
        self.seen.copy(watcher::Event::Apply(Item(Ok(map))));
    }

    fn edit(&mut self, at: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.api.read(&path(at)).unwrap();
        edit(&mut object);
        self.api.put(&path(at), object);
        self.watch(at);
    }

    /// The pod of the job that runs before the chart is deleted.
    fn uninstall(&self) {
        let pod = crate::testing::cluster::plain_pod("weft-leave-x", "10.0.0.9", "weft-leave");
        self.api
            .put("/api/v1/namespaces/weft-system/pods/weft-leave-x", pod);
    }

    /// A copy that was there before this process.
    fn found(&mut self, roots: &str, manager: &str) {
        let mut map = serde_json::to_value(copy(roots, "one")).unwrap();
        map["metadata"]["managedFields"] = json!([{"manager": manager, "operation": "Update",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {".": {}, "f:ca.crt": {}}}}]);
        self.api.put(&path("shop"), map);
        self.watch("shop");
    }

    fn data(&self) -> Value {
        self.api.read(&path("shop")).unwrap()["data"].clone()
    }

    async fn events(self) -> usize {
        let before = self.api.writes().len();
        drop(self.bundle);
        self.events.run(std::future::pending()).await;
        self.api.writes().len() - before
    }
}

fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    }
}

#[tokio::test]
async fn trust_bundle_reaches_every_namespace_except_excluded() {
    let mut bench = Bench::new(&["shop", "bank", "kube-system"]);
    bench.settle("one").await;
    assert_eq!(
        bench.api.read(&path("shop")).unwrap()["data"][ROOTS_KEY],
        json!(PEM)
    );
    assert!(bench.api.read(&path("bank")).is_some());
    assert!(bench.api.read(&path("kube-system")).is_none());
}

#[tokio::test]
async fn new_namespace_gets_its_copy_when_it_is_seen() {
    let mut bench = Bench::new(&[]);
    bench
        .seen
        .namespace(watcher::Event::Apply(Item(Ok(namespace("late")))));
    bench.settle("one").await;
    assert!(bench.api.read(&path("late")).is_some());
}

/// Where namespaces are made all the time, a rotation would wait for kubelets for ever.
#[tokio::test(start_paused = true)]
async fn new_namespace_begins_no_time_anew() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.watch("shop");
    bench.bundle.show_progress(&bench.seen);
    let complete = bench.bundle.progress.borrow().clone();
    assert!(matches!(complete, Progress::Complete { .. }));
    sleep(Duration::from_secs(60)).await;
    let late = watcher::Event::Apply(Item(Ok(namespace("late"))));
    bench.seen.namespace(late);
    bench.bundle.show_progress(&bench.seen);
    bench.settle("one").await;
    bench.bundle.show_progress(&bench.seen);
    bench.watch("late");
    bench.bundle.show_progress(&bench.seen);
    assert_eq!(*bench.bundle.progress.borrow(), complete);

    bench.roots.send_replace(Arc::from("another"));
    bench.bundle.show_progress(&bench.seen);
    let behind = Progress::Behind(vec!["late".to_owned(), "shop".to_owned()]);
    assert_eq!(*bench.bundle.progress.borrow(), behind);
}

#[tokio::test(start_paused = true)]
async fn foreign_edit_is_undone_and_reported() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |map| map["data"][ROOTS_KEY] = json!("mine"));
    bench.settle("one").await;
    assert_eq!(
        bench.api.read(&path("shop")).unwrap()["data"][ROOTS_KEY],
        json!(PEM)
    );
    assert_eq!(bench.events().await, 1);
}

/// Foreign roots, with everything else as the reconciler itself would write it.
#[tokio::test(start_paused = true)]
async fn forged_annotations_hide_no_foreign_roots() {
    for install in ["one", "two"] {
        let mut bench = Bench::new(&["shop"]);
        bench.settle("one").await;
        bench.edit("shop", |map| {
            let forged = copy("mine", install);
            map["metadata"]["annotations"] = json!(forged.metadata.annotations);
            map["data"] = json!(forged.data);
        });
        bench.settle("one").await;
        assert_eq!(bench.data(), json!({ROOTS_KEY: PEM}));
        assert_eq!(bench.events().await, 1, "{install}");
    }
}

#[tokio::test(start_paused = true)]
async fn foreign_leaving_mark_is_undone_and_reported() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |map| map["data"][LEAVING_KEY] = json!("true"));
    bench.settle("one").await;
    assert_eq!(bench.data(), json!({ROOTS_KEY: PEM}));
    assert_eq!(bench.events().await, 1);
}

#[tokio::test(start_paused = true)]
async fn base64_mark_is_undone_and_reported() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |map| map["binaryData"] = json!({LEAVING_KEY: ""}));
    bench.settle("one").await;
    assert!(bench.api.read(&path("shop")).unwrap()["binaryData"].is_null());
    assert_eq!(bench.events().await, 1);
}

#[tokio::test(start_paused = true)]
async fn frozen_copy_is_replaced_and_reported() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |map| {
        map["immutable"] = json!(true);
        map["data"][ROOTS_KEY] = json!("mine");
    });
    let frozen = bench.shown("shop");
    bench.settle("one").await;
    assert!(bench.api.read(&path("shop")).is_none());
    bench.seen.copy(watcher::Event::Delete(Item(Ok(frozen))));
    bench.settle("one").await;
    assert_eq!(bench.data(), json!({ROOTS_KEY: PEM}));
    assert_eq!(bench.events().await, 1);
}

#[tokio::test(start_paused = true)]
async fn own_bundle_copies_follow_new_roots_without_event() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.watch("shop");
    let late = bench.shown("shop");
    for roots in ["second", "third"] {
        bench.roots.send_replace(Arc::from(roots));
        bench.seen.all_dirty();
        bench.settle("one").await;
        assert_eq!(bench.data(), json!({ROOTS_KEY: roots}));
    }
    // The watch may be behind.
    bench.seen.copy(watcher::Event::Apply(Item(Ok(late))));
    bench.settle("one").await;
    assert_eq!(bench.events().await, 0);
}

#[tokio::test(start_paused = true)]
async fn field_manager_identifies_older_bundle_copy_as_ours() {
    for (manager, expected) in [(MANAGER, 0), ("kubectl-edit", 1)] {
        let mut bench = Bench::new(&["shop"]);
        bench.found("other roots", manager);
        bench.settle("one").await;
        assert_eq!(bench.data(), json!({ROOTS_KEY: PEM}));
        assert_eq!(bench.events().await, expected, "{manager}");
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_mark_stays_until_the_next_installation() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.uninstall();
    bench.edit("shop", |map| map["data"][LEAVING_KEY] = json!("true"));
    bench.settle("one").await;
    assert_eq!(bench.data()[LEAVING_KEY], json!("true"));
    // Roots that another client changes go back without touching the mark.
    bench.edit("shop", |map| map["data"][ROOTS_KEY] = json!("mine"));
    bench.settle("one").await;
    assert_eq!(bench.data(), json!({ROOTS_KEY: PEM, LEAVING_KEY: "true"}));
    assert_eq!(bench.events().await, 1);

    let mut bench = Bench::new(&["shop"]);
    bench.found(PEM, MANAGER);
    bench.edit("shop", |map| {
        map["data"][LEAVING_KEY] = json!("true");
        let marked = json!({"manager": LEAVE_MANAGER, "operation": "Update",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:leaving": {}}}});
        let managers = map["metadata"]["managedFields"].as_array_mut();
        managers.unwrap().push(marked);
    });
    bench.settle("two").await;
    assert_eq!(bench.data(), json!({ROOTS_KEY: PEM}));
    assert_eq!(bench.events().await, 0);
}

#[tokio::test]
async fn right_copy_is_not_written_again() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |_| {});
    bench.settle("one").await;
    assert_eq!(bench.bundle.written.get(), 1);
}

// Claims: C5, attack-109
#[tokio::test(start_paused = true)]
async fn namespace_forbidding_creation_is_reported_and_retried() {
    let mut bench = Bench::new(&["shop", "bank"]);
    let shop = "/api/v1/namespaces/shop/configmaps";
    bench.api.allow_creation(shop, false);
    bench.settle("one").await;
    assert!(bench.api.read(&path("bank")).is_some(), "its neighbour");
    assert!(bench.seen.dirty.is_empty(), "not at once");
    bench.seen.retry_forbidden(Instant::now());
    assert!(bench.seen.dirty.is_empty(), "not yet");

    tokio::time::sleep(RETRY_FORBIDDEN).await;
    bench.seen.retry_forbidden(Instant::now());
    bench.settle("one").await;
    assert!(bench.api.read(&path("shop")).is_none());

    bench.api.allow_creation(shop, true);
    tokio::time::sleep(RETRY_FORBIDDEN).await;
    bench.seen.retry_forbidden(Instant::now());
    bench.settle("one").await;
    assert_eq!(bench.data(), json!({ROOTS_KEY: PEM}));
    assert!(bench.seen.forbidden.is_empty());
    // Said once, however often it was tried.
    assert_eq!(bench.events().await, 1);
}

/// What policy engines answer, which a person has to repair, and what a busy or broken API server
/// does, which passes.
// Claims: C5, attack-109
#[tokio::test(start_paused = true)]
async fn policy_engine_refusal_is_reported_but_outage_is_not() {
    for (code, expected) in [(400, true), (422, true), (429, false), (500, false)] {
        let mut bench = Bench::new(&["shop"]);
        let shop = "/api/v1/namespaces/shop/configmaps";
        let status = http::StatusCode::from_u16(code).unwrap();
        bench.api.refuse_creation(shop, status);
        bench.settle("one").await;
        assert_eq!(
            bench.seen.forbidden.contains_key("shop"),
            expected,
            "{code}"
        );
        let soon = bench.seen.dirty.contains("shop");
        assert_eq!(soon, !expected, "{code} is tried again after {RETRY:?}");
        assert_eq!(bench.events().await, usize::from(expected), "{code}");
    }
}

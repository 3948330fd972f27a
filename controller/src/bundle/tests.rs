use super::*;
use crate::fake_api::FakeApi;
use serde_json::Value;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{NAME}")
}

struct Bench {
    api: FakeApi,
    bundle: Bundle,
    seen: Seen,
    events: crate::events::Writer,
    _roots: watch::Sender<Arc<str>>,
}

impl Bench {
    fn new(namespaces: &[&str]) -> Self {
        let api = FakeApi::default();
        let (events, writer) = Events::new(api.client(), "me", Counter::default());
        let (sender, roots) = watch::channel(Arc::from(PEM));
        let bundle = Bundle {
            client: api.client(),
            excluded: Arc::new(BTreeSet::from(["kube-system".to_owned()])),
            roots,
            events,
            written: Counter::default(),
        };
        let mut bench = Self {
            api,
            bundle,
            seen: Seen::default(),
            events: writer,
            _roots: sender,
        };
        bench.seen.namespace(Event::Init);
        for name in namespaces {
            bench.seen.namespace(Event::InitApply(namespace(name)));
        }
        bench.seen.namespace(Event::InitDone);
        bench.seen.copy(Event::Init);
        bench.seen.copy(Event::InitDone);
        bench
    }

    async fn settle(&mut self, install: &str) {
        self.bundle.settle(install, &mut self.seen).await;
    }

    /// What the watch would show of the copy in `namespace`.
    fn watch(&mut self, namespace: &str) {
        let map: ConfigMap =
            serde_json::from_value(self.api.read(&path(namespace)).unwrap()).unwrap();
        self.seen.copy(Event::Apply(map));
    }

    fn edit(&mut self, at: &str, edit: impl FnOnce(&mut Value)) {
        let mut held = self.api.read(&path(at)).unwrap();
        edit(&mut held);
        held["metadata"]["namespace"] = json!(at);
        self.api.put(&path(at), held);
        self.watch(at);
    }

    async fn events(self) -> usize {
        let before = self.api.writes().len();
        drop(self.bundle);
        self.events.run().await;
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
async fn every_namespace_gets_the_roots_and_an_excluded_one_does_not() {
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
    bench.seen.namespace(Event::Apply(namespace("late")));
    bench.settle("one").await;
    assert!(bench.api.read(&path("late")).is_some());
}

#[tokio::test(start_paused = true)]
async fn foreign_edit_is_undone_and_told() {
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

#[tokio::test(start_paused = true)]
async fn older_copy_of_our_own_is_replaced_without_an_event() {
    let mut bench = Bench::new(&["shop"]);
    let mut old = serde_json::to_value(copy("older roots", "one")).unwrap();
    old["metadata"]["namespace"] = json!("shop");
    bench.api.put(&path("shop"), old);
    bench.watch("shop");
    bench.settle("one").await;
    assert_eq!(
        bench.api.read(&path("shop")).unwrap()["data"][ROOTS_KEY],
        json!(PEM)
    );
    assert_eq!(bench.events().await, 0);
}

#[tokio::test]
async fn mark_of_leaving_stays_in_this_installation_and_goes_with_the_next() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |map| {
        map["data"][LEAVING_KEY] = json!("true");
        map["data"][ROOTS_KEY] = json!("mine");
    });
    bench.settle("one").await;
    assert_eq!(
        bench.api.read(&path("shop")).unwrap()["data"][LEAVING_KEY],
        json!("true")
    );
    bench.watch("shop");
    bench
        .seen
        .copies
        .values_mut()
        .for_each(|copy| assert_eq!(copy.install, "one"));
    bench.seen.all_dirty();
    bench.settle("two").await;
    assert_eq!(
        bench.api.read(&path("shop")).unwrap()["data"][LEAVING_KEY],
        Value::Null
    );
}

#[tokio::test]
async fn right_copy_is_not_written_again() {
    let mut bench = Bench::new(&["shop"]);
    bench.settle("one").await;
    bench.edit("shop", |_| {});
    bench.settle("one").await;
    assert_eq!(bench.bundle.written.get(), 1);
}

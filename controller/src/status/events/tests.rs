//! Events are written once, and within a rate.

use std::sync::Arc;

use model::{Defaults, Model};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::testing::api_server::FakeApi;
use crate::testing::cluster;
use crate::testing::cluster::Cluster;

fn compiled(cluster: &Cluster) -> Compiled {
    let world = Arc::new(cluster.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Compiled::new(world, model, problems)
}

fn host_pod(name: &str, label: Option<&str>) -> Value {
    let mut pod = cluster::plain_pod(name, "192.168.0.1", "web");
    pod["spec"]["hostNetwork"] = json!(true);
    if let Some(label) = label {
        pod["metadata"]["labels"] = json!({"weft.dev/inject": label});
    }
    pod
}

fn meshed_namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"}}})
}

#[test]
fn host_network_pod_in_mesh_is_reported_once() {
    let cluster = Cluster::default()
        .with(meshed_namespace())
        .with(host_pod("agent", None));
    let mut state = EventState::default();
    let notes = state.news(&compiled(&cluster));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert_eq!(
        (notes[0].reason, notes[0].about.name.as_str()),
        ("HostNetworkSkipped", "agent")
    );
    assert_eq!(notes[0].about.uid, "uid-agent");
    assert!(state.news(&compiled(&cluster)).is_empty());
}

// Claims: attack-112
#[test]
fn account_events_are_limited_with_opened_workloads_first() {
    let mut flood = cluster::shop();
    for number in 0..5 {
        let pod = cluster::pod(
            &format!("loud-{number}"),
            &format!("10.0.7.{number}"),
            "loud",
        );
        let pod = cluster::annotate(pod, "weft.dev/access", "loud");
        let pod = cluster::annotate(pod, "weft.dev/mtls", "loud");
        let agent = host_pod(&format!("agent-{number}"), Some("enabled"));
        flood = flood.with(pod).with(agent);
    }
    let guard = cluster::target("guard", "api", &["web"], json!([]));
    let mut state = EventState::default();
    state.news(&compiled(&cluster::shop().with(guard)));
    let notes = state.news(&compiled(&flood));
    let reasons: Vec<&str> = notes.iter().map(|note| note.reason).collect();
    assert_eq!(reasons[..2], ["NoTrafficTarget"; 2], "{reasons:?}");
    let with = |word: &str| {
        let matches_word = |note: &&Event| note.reason == word || note.text.contains(word);
        notes.iter().filter(matches_word).count()
    };
    for word in ["weft.dev/access]", "weft.dev/mtls]", "HostNetworkSkipped"] {
        assert_eq!(with(word), MAX_EVENTS, "{word}: {notes:?}");
    }
    assert!(state.news(&compiled(&flood)).is_empty());
}

#[test]
fn host_network_pod_opting_out_is_not_reported() {
    let cluster = Cluster::default()
        .with(meshed_namespace())
        .with(host_pod("agent", Some("disabled")));
    assert!(EventState::default().news(&compiled(&cluster)).is_empty());
}

#[test]
fn ineffective_injection_request_is_reported_once_with_spelling() {
    let mut namespace = meshed_namespace();
    namespace["metadata"]["labels"]["weft.dev/inject"] = json!("true");
    let pod = |name: &str, metadata: Value| {
        let mut pod = cluster::plain_pod(name, "10.0.9.1", "web");
        for (map, value) in metadata.as_object().unwrap() {
            pod["metadata"][map] = value.clone();
        }
        pod
    };
    let note = json!({"annotations": {"weft.dev/inject": "enabled"}});
    let mut cluster = Cluster::default().with(namespace);
    for name in ["a", "b", "c", "d"] {
        cluster = cluster.with(pod(name, note.clone()));
    }
    let right = json!({"labels": {"weft.dev/inject": "disabled"}});
    cluster = cluster.with(pod("e", right)).with(pod("f", json!({})));
    let mut state = EventState::default();
    let notes = state.news(&compiled(&cluster));
    let about: Vec<(&str, &str)> = notes
        .iter()
        .map(|note| (note.about.kind.as_str(), note.about.name.as_str()))
        .collect();
    // Of the four pods of one account, three.
    assert_eq!(
        about,
        [
            ("Pod", "a"),
            ("Pod", "b"),
            ("Pod", "c"),
            ("Namespace", "shop")
        ],
    );
    for note in &notes {
        assert_eq!(note.reason, "InjectNotUnderstood");
        assert!(
            note.text.contains("write weft.dev/inject=enabled"),
            "{}",
            note.text
        );
    }
    assert!(state.news(&compiled(&cluster)).is_empty());
}

#[test]
fn object_problem_is_reported_with_its_field() {
    let cluster = cluster::shop().with(cluster::split("canary", "api", &[("api", -1)]));
    let notes = EventState::default().news(&compiled(&cluster));
    let note = notes
        .iter()
        .find(|note| note.about.kind == "TrafficSplit")
        .unwrap();
    assert_eq!(note.about.api_version, "split.smi-spec.io/v1alpha4");
    assert_eq!(note.about.uid, "uid-canary");
    assert!(
        note.text.starts_with("spec.backends[0].weight: "),
        "{}",
        note.text
    );
}

#[test]
fn workload_losing_its_last_target_is_reported_open() {
    let guarded = cluster::shop().with(cluster::target("guard", "api", &["web"], json!([])));
    let mut state = EventState::default();
    state.news(&compiled(&guarded));
    let notes = state.news(&compiled(&cluster::shop()));
    let pods: Vec<&str> = notes.iter().map(|note| note.about.name.as_str()).collect();
    assert_eq!(pods, ["api-1", "api-2"]);
    assert!(notes.iter().all(|note| note.reason == "NoTrafficTarget"));
}

#[test]
fn open_workload_is_reported_only_in_auto_mode() {
    for (mode, expected_notes) in [("auto", 2), ("deny", 0), ("open", 0), ("audit", 0)] {
        let namespace = cluster::annotate(cluster::namespace("shop"), "weft.dev/access", mode);
        let bare = cluster::shop().with(namespace);
        let guard = cluster::target("guard", "api", &["web"], json!([]));
        let mut state = EventState::default();
        state.news(&compiled(&bare.clone().with(guard)));
        let notes = state.news(&compiled(&bare));
        assert_eq!(notes.len(), expected_notes, "{mode}: {notes:?}");
    }
}

#[test]
fn self_closed_pod_is_not_reported_open() {
    let pod = cluster::pod("api-1", "10.0.0.11", "api");
    let bare = cluster::shop().with(cluster::annotate(pod, "weft.dev/access", "deny"));
    let guard = cluster::target("guard", "api", &["web"], json!([]));
    let mut state = EventState::default();
    state.news(&compiled(&bare.clone().with(guard)));
    let notes = state.news(&compiled(&bare));
    let pods: Vec<&str> = notes.iter().map(|note| note.about.name.as_str()).collect();
    assert_eq!(pods, ["api-2"]);
}

#[test]
fn invalid_namespace_mode_is_reported_on_namespace() {
    let namespace = cluster::annotate(cluster::namespace("shop"), "weft.dev/access", "Deny");
    let namespace = cluster::set(namespace, "/metadata/uid", json!("uid-shop"));
    let notes = EventState::default().news(&compiled(&cluster::shop().with(namespace)));
    let [note] = notes.as_slice() else {
        panic!("{notes:?}")
    };
    let about = &note.about;
    assert_eq!(
        (about.api_version.as_str(), about.kind.as_str()),
        ("v1", "Namespace")
    );
    assert_eq!(
        (about.namespace.as_str(), about.name.as_str()),
        ("", "shop")
    );
    assert_eq!(about.uid, "uid-shop");
}

#[test]
fn conflict_of_two_ports_is_shown_on_its_service() {
    let ports = [("http", 80), ("https", 443)];
    let own = [("http", 8080), ("https", 8080)];
    let cluster = cluster::shop()
        .with(cluster::service("api", "10.96.0.1", &ports))
        .with(cluster::slice(
            "api-x",
            "api",
            &own,
            &[cluster::endpoint("api-1", "10.0.0.11")],
        ));
    let notes = EventState::default().news(&compiled(&cluster));
    let [note] = notes.as_slice() else {
        panic!("{notes:?}")
    };
    assert_eq!(note.reason, "ProtocolConflict");
    assert_eq!(note.event_type, EventType::Warning);
    let about = &note.about;
    assert_eq!(
        (about.kind.as_str(), about.name.as_str(), about.uid.as_str()),
        ("Service", "api", "uid-api")
    );
    assert!(note.text.starts_with("spec.ports[443]: port 443 ("));
    assert!(note.text.contains("port 80 ("), "{}", note.text);
}

#[test]
fn workload_named_by_another_target_is_not_reported() {
    let one = cluster::shop().with(cluster::target("one", "api", &["web"], json!([])));
    let two = one
        .clone()
        .with(cluster::target("two", "api", &["web"], json!([])));
    let mut state = EventState::default();
    state.news(&compiled(&two));
    assert!(
        state
            .news(&compiled(&one))
            .iter()
            .all(|note| note.reason != "NoTrafficTarget")
    );
}

/// A replica that follows models, and what it has written.
struct Replica {
    api: FakeApi,
    models: watch::Sender<Option<Arc<Compiled>>>,
    leads: watch::Sender<bool>,
}

impl Replica {
    fn start(first: &Cluster) -> Self {
        let api = FakeApi::default();
        let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
        tokio::spawn(writer.run(std::future::pending()));
        let (models, latest) = watch::channel(Some(Arc::new(compiled(first))));
        let (leads, is_holder) = watch::channel(false);
        tokio::spawn(report(latest, Leadership::from_watch(is_holder), events));
        Self { api, models, leads }
    }

    fn becomes(&self, cluster: &Cluster) {
        let model = Arc::new(compiled(cluster));
        self.models.send_replace(Some(model));
    }

    /// How many Events of this reason there are a moment later.
    async fn reported(&self, reason: &str) -> usize {
        sleep(3 * PAUSE).await;
        let events = self.api.below("/apis/events.k8s.io/v1/");
        events
            .iter()
            .filter(|event| event["reason"] == reason)
            .count()
    }
}

// Claims: attack-113
#[tokio::test(start_paused = true)]
async fn recently_opened_workload_is_reported_by_next_leader() {
    let guarded = cluster::shop().with(cluster::target("guard", "api", &["web"], json!([])));
    for (later, reported) in [(0, 2), (HANDOVER.as_secs(), 0)] {
        let replica = Replica::start(&guarded);
        assert_eq!(replica.reported(OPENED).await, 0);
        replica.becomes(&cluster::shop());
        assert_eq!(replica.reported(OPENED).await, 0, "it does not lead");
        sleep(Duration::from_secs(later)).await;
        replica.leads.send_replace(true);
        assert_eq!(replica.reported(OPENED).await, reported, "after {later} s");
        // Control: the holder reports it at once, and a new leader does not report it again.
        replica.becomes(&guarded);
        sleep(Duration::from_secs(60)).await;
        replica.becomes(&cluster::shop());
        assert_eq!(replica.reported(OPENED).await, reported + 2);
        replica.leads.send_replace(false);
        sleep(Duration::from_secs(60)).await;
        replica.leads.send_replace(true);
        assert_eq!(replica.reported(OPENED).await, reported + 2);
    }
}

#[tokio::test(start_paused = true)]
async fn problems_are_reported_by_leader_only() {
    const SKIPPED: &str = "HostNetworkSkipped";
    let one = Cluster::default()
        .with(meshed_namespace())
        .with(host_pod("agent", None));
    let two = one.clone().with(host_pod("other", None));
    let replica = Replica::start(&one);
    assert_eq!(replica.reported(SKIPPED).await, 0);
    replica.leads.send_replace(true);
    assert_eq!(replica.reported(SKIPPED).await, 1);
    replica.leads.send_replace(false);
    assert_eq!(replica.reported(SKIPPED).await, 1);
    replica.becomes(&two);
    assert_eq!(replica.reported(SKIPPED).await, 1);
    replica.leads.send_replace(true);
    assert_eq!(replica.reported(SKIPPED).await, 2);
}

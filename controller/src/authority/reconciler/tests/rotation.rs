//! The root rotates by itself, on request and by a Secret, whatever of its writes fails.

use std::collections::BTreeSet;

use identity::rotation::{Phase, State};
use runtime::ready::Ready;

use super::*;
use crate::authority::rotation::follow_others;
use crate::authority::secret::{NEXT_ROOT_CRT, NEXT_ROOT_KEY};
use crate::settings::authority::IssuerSource;
use crate::testing::cluster::Cluster;

mod files;
mod restores;

const OBJECT: &str = "/apis/weft.dev/v1alpha1/certificateauthorities/weft";
const SOURCE: &str = "/api/v1/namespaces/mesh/secrets/corp-ca";
const SECOND: Duration = Duration::from_secs(1);

/// One replica that leads, whose trust bundles follow its roots at once.
struct Bench {
    api: FakeApi,
    holder: Reconciler,
    inputs: Inputs,
    start: (SystemTime, Instant),
}

impl Bench {
    fn new(settings: AuthoritySettings) -> Self {
        let api = FakeApi::default();
        let (watched, inputs) = watched(settings);
        let cluster = Cluster::default();
        let (model, problems) = cluster.compile();
        let compiled = Compiled::new(Arc::new(cluster.world()), model, problems);
        inputs.latest.send_replace(Some(Arc::new(compiled)));
        inputs.observed.follow_replicas(&BTreeSet::new());
        let holder = Reconciler {
            watched,
            ..reconciler(&api, true)
        };
        Self {
            api,
            holder,
            inputs,
            start: (SystemTime::now(), Instant::now()),
        }
    }

    fn generated() -> Self {
        Self::new(AuthoritySettings {
            settle: 10 * SECOND,
            ..AuthoritySettings::default()
        })
    }

    fn now(&self) -> SystemTime {
        self.start.0 + self.start.1.elapsed()
    }

    /// One look, as the loop does it. What fails is tried again.
    async fn tick(&self) {
        let taken = self.holder.step(self.now()).await;
        if taken.is_ok() || self.holder.authority.beside_unusable().is_some() {
            let _ = self.holder.rotate(self.now()).await;
        }
        let roots = self.holder.authority.roots_pem().borrow().clone();
        self.inputs.bundles_hold(roots);
        tokio::time::advance(SECOND).await;
    }

    async fn ticks(&self, count: usize) {
        for _ in 0..count {
            self.tick().await;
        }
    }

    fn request(&self, rotation: &Value) {
        let mut object = self.api.read(OBJECT).unwrap();
        object["spec"] = json!({"rotation": rotation});
        self.api.put(OBJECT, object);
    }

    fn state(&self) -> State {
        self.holder.authority.loaded().unwrap().state.clone()
    }

    fn status(&self) -> Value {
        self.api.read(OBJECT).unwrap()["status"].clone()
    }

    fn condition(&self, name: &str) -> Value {
        let status = self.status();
        let conditions = status["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|one| one["type"] == name);
        found.unwrap().clone()
    }

    /// One root signs, its key is there, and nothing of a rotation is left.
    fn must_be_steady(&self, what: &str) {
        assert_eq!(self.state().rotation, None, "{what}");
        assert_eq!(self.holder.authority.roots_der().len(), 1, "{what}");
        let secret = self.api.read(PATH).unwrap();
        let names = secret["data"].as_object().unwrap().keys();
        let left: Vec<&String> = names.filter(|name| name.starts_with("next.")).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        assert!(can_sign(&self.holder, self.now()), "{what}");
    }
}

// Claims: trust-2
#[tokio::test(start_paused = true)]
async fn requested_rotation_ends_with_one_other_root() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let first = key(&bench.api, ROOT_CRT);
    assert_eq!(bench.status()["phase"], "Steady");
    assert_eq!(bench.condition("Rotating")["reason"], "NeverRotated");
    bench.request(&json!({"id": "audit-2026"}));
    bench.tick().await;
    assert_eq!(bench.state().phase(), Some(Phase::Preparing));
    assert_eq!(bench.status()["phase"], "Preparing");
    assert_eq!(bench.status()["rotation"]["id"], "audit-2026");
    assert_eq!(bench.status()["roots"][1]["state"], "Next");
    assert_ne!(key(&bench.api, NEXT_ROOT_KEY), Value::Null);
    bench.ticks(5).await;
    assert_eq!(
        bench.state().phase(),
        Some(Phase::Preparing),
        "kubelets need time"
    );

    bench.ticks(30).await;
    bench.must_be_steady("requested");
    assert_ne!(key(&bench.api, ROOT_CRT), first);
    assert_eq!(bench.status()["phase"], "Steady");
    assert_eq!(bench.condition("Rotating")["reason"], "Done");
    let step = bench.state().step;
    bench.ticks(30).await;
    assert_eq!(bench.state().step, step, "its id runs once");
}

// Claims: trust-8
#[tokio::test(start_paused = true)]
async fn lost_answers_and_reverted_secrets_leave_one_root() {
    for every in 1..=5 {
        let bench = Bench::generated();
        bench.ticks(2).await;
        let before = bench.api.read(PATH).unwrap();
        bench.request(&json!({"id": "audit"}));
        // One of one never answers: what was written counts.
        bench.api.lose_answers(every);
        bench.ticks(20).await;
        assert!(bench.state().step > 0, "{every}");
        bench.api.put(PATH, before.clone());
        bench.ticks(40).await;
        bench.api.put(PATH, before.clone());
        bench.ticks(120).await;
        bench.api.lose_answers(0);
        bench.ticks(5).await;
        bench.must_be_steady(&format!("every {every}"));
        assert_ne!(
            key(&bench.api, ROOT_CRT),
            before["data"][ROOT_CRT],
            "{every}"
        );
        assert_eq!(bench.state().ids, ["audit"], "{every}");
    }
}

// Claims: trust-4
#[tokio::test(start_paused = true)]
async fn compromise_ends_within_seconds_and_refuses_the_root() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let retired = bench.state().active().unwrap();
    let named = bench.status()["roots"][0]["authority"].clone();
    bench.request(&json!({"id": "leak", "scope": "Root", "reason": "Compromise"}));
    bench.ticks(3).await;
    assert_eq!(bench.state().phase(), Some(Phase::Retiring));
    assert!(bench.state().is_retired(retired));
    let bundle = bench.holder.authority.bundle().borrow().clone();
    assert!(bundle.end_others && bundle.roots.len() == 1 && bundle.issuers.len() == 1);
    bench.ticks(8).await;
    bench.must_be_steady("compromise");
    assert_eq!(bench.status()["retired"], json!([named]));
}

#[tokio::test(start_paused = true)]
async fn events_name_their_rotation_and_the_object() {
    let mut bench = Bench::generated();
    let (events, writer) = EventRecorder::new(bench.api.client(), "me", Counter::default());
    bench.holder.events = events;
    bench.ticks(2).await;
    let mut object = bench.api.read(OBJECT).unwrap();
    object["metadata"]["uid"] = json!("uid-of-weft");
    bench.api.put(OBJECT, object);
    for id in ["first", "second"] {
        bench.request(&json!({"id": id, "reason": "Compromise"}));
        bench.ticks(20).await;
    }
    let api = bench.api.clone();
    drop(bench);
    writer.run(std::future::pending()).await;
    let events = api.below("/apis/events.k8s.io/v1/namespaces/default/events/");
    for reason in ["RotationStarted", "RotationDone"] {
        let of_reason = events.iter().filter(|event| event["reason"] == reason);
        let notes: Vec<&str> = of_reason
            .filter_map(|event| event["note"].as_str())
            .collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        for id in ["first (Compromise)", "second (Compromise)"] {
            assert!(notes.iter().any(|note| note.contains(id)), "{notes:?}");
        }
    }
    let names_it = |event: &Value| event["regarding"]["uid"] == "uid-of-weft";
    assert!(events.iter().all(names_it), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn issuer_is_replaced_below_the_same_root() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let (root, issuer) = (key(&bench.api, ROOT_CRT), key(&bench.api, ISSUER_CRT));
    bench.request(&json!({"id": "issuer", "scope": "Issuer"}));
    bench.ticks(2).await;
    assert_eq!(key(&bench.api, ROOT_CRT), root);
    assert_ne!(key(&bench.api, ISSUER_CRT), issuer);
    bench.must_be_steady("issuer");
    assert_eq!(bench.status()["rotation"]["id"], "issuer");
}

#[tokio::test(start_paused = true)]
async fn rotation_names_a_replica_that_is_not_reached() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let peer = BTreeSet::from(["10.0.0.9".parse().unwrap()]);
    bench.inputs.observed.follow_replicas(&peer);
    bench.request(&json!({"id": "audit"}));
    bench.ticks(700).await;
    assert_eq!(bench.state().phase(), Some(Phase::Preparing));
    let named = bench.status()["proxies"]["waitingFor"][0].clone();
    assert_eq!(named, "controller 10.0.0.9: not reached");
    assert_eq!(bench.condition("Rotating")["reason"], "Waiting");
    bench.inputs.observed.follow_replicas(&BTreeSet::new());
    bench.ticks(30).await;
    bench.must_be_steady("reached");
}

#[tokio::test(start_paused = true)]
async fn root_rotates_at_two_thirds_of_its_life() {
    let bench = Bench::new(AuthoritySettings {
        root_life: 30 * DAY,
        settle: 10 * SECOND,
        ..AuthoritySettings::default()
    });
    bench.ticks(2).await;
    bench.request(&json!({"id": "short"}));
    bench.ticks(40).await;
    let first = key(&bench.api, ROOT_CRT);
    tokio::time::advance(19 * DAY).await;
    bench.ticks(2).await;
    assert_eq!(key(&bench.api, ROOT_CRT), first);
    tokio::time::advance(2 * DAY).await;
    bench.tick().await;
    assert_eq!(bench.status()["rotation"]["trigger"], "Life");
    bench.ticks(40).await;
    bench.must_be_steady("life");
    assert_ne!(key(&bench.api, ROOT_CRT), first);
}

/// A Secret as cert-manager writes it.
fn secret_of(root: &Root, issuer: &Issuer) -> Value {
    let field = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
    json!({
        "metadata": {"name": "corp-ca", "namespace": "mesh"},
        "data": {
            "tls.crt": field(issuer.cert_pem()),
            "tls.key": field(&issuer.key_pem()),
            "ca.crt": field(root.cert_pem()),
        },
    })
}

// Claims: trust-3
#[tokio::test(start_paused = true)]
async fn issuer_of_a_secret_takes_over_and_is_followed() {
    let bench = Bench::new(AuthoritySettings {
        settle: 10 * SECOND,
        source: IssuerSource::Secret {
            name: "corp-ca".to_owned(),
            roots: None,
        },
        ..AuthoritySettings::default()
    });
    bench.ticks(2).await;
    let usable = bench.condition("Usable");
    assert_eq!(usable["reason"], "IssuerRejected");
    assert!(
        usable["message"]
            .as_str()
            .unwrap()
            .contains("Secret corp-ca does not exist")
    );
    assert!(
        can_sign(&bench.holder, bench.now()),
        "the former one signs on"
    );

    // Nothing replaces a root of Weft's own before a source is there.
    let not_carried_out = |part: &str| {
        let rotating = bench.condition("Rotating");
        assert_eq!(rotating["reason"], "RootIsExternal");
        let why = rotating["message"].as_str().unwrap();
        assert!(why.contains(part), "{part}: {why}");
    };
    bench.request(&json!({"id": "leak", "reason": "Compromise"}));
    bench.ticks(2).await;
    not_carried_out("the root is Weft's own");

    let root = Root::generate(bench.now(), ROOT_LIFE).unwrap();
    let issuer = root.issuer(bench.now(), ISSUER_LIFE).unwrap();
    bench.api.put(SOURCE, secret_of(&root, &issuer));
    bench.tick().await;
    assert_eq!(bench.status()["rotation"]["trigger"], "Source");
    assert_eq!(bench.status()["rotation"]["reason"], "Planned");
    assert_eq!(
        key(&bench.api, NEXT_ROOT_KEY),
        Value::Null,
        "it stays with its owner"
    );
    assert_ne!(key(&bench.api, NEXT_ROOT_CRT), Value::Null);
    bench.ticks(40).await;
    bench.must_be_steady("secret");
    assert_eq!(
        bench.holder.authority.roots_der(),
        [root.certificate().to_vec()]
    );
    assert_eq!(key(&bench.api, ROOT_KEY), Value::Null);
    assert_eq!(bench.status()["source"], "Secret");
    assert_eq!(bench.condition("Usable")["status"], "True");

    // Its owner renews it below the same root, which needs no phases.
    let renewed = root.issuer(bench.now(), ISSUER_LIFE).unwrap();
    bench.api.put(SOURCE, secret_of(&root, &renewed));
    bench.ticks(2).await;
    let taken = bench.holder.authority.loaded().unwrap();
    assert_eq!(taken.issuer.certificate(), renewed.certificate());
    bench.must_be_steady("renewed");

    // A request cannot replace a root whose key is elsewhere.
    bench.request(&json!({"id": "audit"}));
    bench.ticks(2).await;
    not_carried_out("the root is its owner's");
    assert_eq!(bench.state().ids, ["leak", "audit"], "neither runs");
    let step = bench.state().step;
    bench.ticks(5).await;
    assert_eq!(bench.condition("Rotating")["reason"], "RootIsExternal");
    assert_eq!(bench.state().step, step, "declined once");

    bench.api.remove(SOURCE);
    bench.ticks(2).await;
    assert!(
        can_sign(&bench.holder, bench.now()),
        "it outlives its Secret"
    );
}

#[tokio::test(start_paused = true)]
async fn request_waits_while_the_source_is_half_written() {
    let bench = Bench::new(AuthoritySettings {
        source: IssuerSource::Secret {
            name: "corp-ca".to_owned(),
            roots: None,
        },
        ..AuthoritySettings::default()
    });
    bench.ticks(2).await;
    let root = Root::generate(bench.now(), ROOT_LIFE).unwrap();
    let issuer = || root.issuer(bench.now(), ISSUER_LIFE).unwrap();
    let whole = secret_of(&root, &issuer());
    let mut half = whole.clone();
    half["data"]["tls.key"] = secret_of(&root, &issuer())["data"]["tls.key"].clone();
    bench.api.put(SOURCE, half);
    bench.request(&json!({"id": "leak", "reason": "Compromise"}));
    bench.ticks(5).await;
    assert!(bench.state().ids.is_empty(), "neither runs nor is declined");
    bench.api.put(SOURCE, whole);
    bench.tick().await;
    assert_eq!(bench.status()["rotation"]["reason"], "Compromise");
    assert_eq!(bench.state().ids, ["leak"]);
}

#[tokio::test(start_paused = true)]
async fn ended_issuer_of_a_secret_is_replaced_at_start() {
    let settings = AuthoritySettings {
        settle: 10 * SECOND,
        source: IssuerSource::Secret {
            name: "corp-ca".to_owned(),
            roots: None,
        },
        ..AuthoritySettings::default()
    };
    let bench = Bench::new(settings.clone());
    let root = Root::generate(bench.now(), ROOT_LIFE).unwrap();
    let issuer = root.issuer(bench.now(), 2 * DAY).unwrap();
    bench.api.put(SOURCE, secret_of(&root, &issuer));
    bench.ticks(45).await;
    bench.must_be_steady("secret");

    // All processes are new: the cluster was off, and its owner renews it.
    let later = bench.now() + 100 * DAY;
    let late = Reconciler {
        watched: watched(settings).0,
        ..reconciler(&bench.api, true)
    };
    let refused = late.step(later).await.unwrap_err();
    assert!(matches!(refused, CaError::NoRootKey(_)), "{refused}");
    let renewed = root.issuer(later, ISSUER_LIFE).unwrap();
    bench.api.put(SOURCE, secret_of(&root, &renewed));
    late.step(later).await.unwrap();
    assert!(can_sign(&late, later));
    assert_eq!(late.authority.roots_der(), [root.certificate().to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn config_map_without_roots_is_named() {
    let bench = Bench::new(AuthoritySettings {
        source: IssuerSource::Secret {
            name: "corp-ca".to_owned(),
            roots: Some(("corp-root".to_owned(), "ca.pem".to_owned())),
        },
        ..AuthoritySettings::default()
    });
    bench
        .api
        .put(SOURCE, json!({"metadata": {"name": "corp-ca"}}));
    bench.ticks(2).await;
    let why = bench.condition("Usable")["message"].clone();
    assert!(
        why.as_str()
            .unwrap()
            .contains("ConfigMap corp-root has no key ca.pem"),
        "{why}"
    );
}

#[tokio::test(start_paused = true)]
async fn clock_that_is_off_is_compared_each_minute() {
    let bench = Bench::generated();
    bench.ticks(2).await;
    let written_at = |at: String| {
        let mut object = bench.api.read(OBJECT).unwrap();
        object["metadata"]["managedFields"] = json!([{"manager": "weft", "time": at}]);
        bench.api.put(OBJECT, object);
    };
    bench.request(&json!({"id": "audit"}));
    written_at("2020-01-01T00:00:00Z".to_owned());
    bench.ticks(70).await;
    assert_eq!(bench.state().phase(), Some(Phase::Preparing));
    let named = bench.status()["proxies"]["waitingFor"][0].clone();
    assert!(named.as_str().unwrap().contains(": it shows "), "{named}");

    written_at(date(bench.now() + 30 * SECOND));
    bench.ticks(130).await;
    bench.must_be_steady("its clock is right");
}

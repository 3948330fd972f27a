//! The TrafficSplits that Flagger 1.36 and Argo Rollouts 1.8 write, over a whole
//! canary, against a fake API server that stores and converts as the real one does.
//!
//! Both tools read an object back, compare all but the weights with what they
//! would write, and begin the canary anew when anything differs. So what comes
//! back must be what was written: not a field more, no other order, and weights of
//! the kind that they parse. The loops here are theirs, step by step, with the
//! objects that their Go types marshal to; the real programs are driven by the
//! end-to-end canaries.
//!
//! Claims: smi-2

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: failing is how they judge"
)]

use crds::convert::convert;
use serde_json::{Value, json};

const GROUP: &str = "split.smi-spec.io";
const STORED: &str = "v1alpha4";
/// All versions that either tool can be set to write.
const VERSIONS: [&str; 3] = ["v1alpha1", "v1alpha2", "v1alpha3"];

/// One stored object, as the API server has it.
struct Fake {
    stored: Option<Value>,
    revision: u64,
    status_writes: u64,
}

impl Fake {
    fn new() -> Self {
        Self {
            stored: None,
            revision: 0,
            status_writes: 0,
        }
    }

    fn read(&self, version: &str) -> Option<Value> {
        let stored = self.stored.as_ref()?;
        Some(convert(stored, &format!("{GROUP}/{version}")).unwrap())
    }

    /// A create or PUT in the object's own version. The status subresource keeps
    /// what a client sends, or leaves out, there from counting.
    fn write(&mut self, object: &Value) {
        let mut stored = convert(object, &format!("{GROUP}/{STORED}")).unwrap();
        let status = self.stored.as_ref().map(|before| before["status"].clone());
        stored.as_object_mut().unwrap().remove("status");
        if let Some(status) = status.filter(|status| !status.is_null()) {
            stored["status"] = status;
        }
        self.revision += 1;
        stored["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        stored["metadata"]["uid"] = json!("d9b0f1ce-0000-4000-8000-000000000001");
        self.stored = Some(stored);
    }

    /// An RFC 7396 patch in `version`.
    fn merge(&mut self, version: &str, patch: &Value) {
        let mut object = self.read(version).unwrap();
        json_patch::merge(&mut object, patch);
        self.write(&object);
    }

    /// What the mesh's controller does between any two steps of a client.
    fn write_status(&mut self) {
        self.status_writes += 1;
        let count = self.status_writes;
        let stored = self.stored.as_mut().unwrap();
        stored["status"] = json!({"observedGeneration": count, "conditions": [
            {"type": "Accepted", "status": "True", "reason": "Accepted", "message": ""},
            {"type": "Programmed", "status": "True", "reason": "Programmed",
                "message": format!("{count} of {count} proxies")}]});
        self.revision += 1;
        stored["metadata"]["resourceVersion"] = json!(self.revision.to_string());
    }
}

/// How a Go client writes a weight: a quantity is a string in v1alpha1.
fn weight(version: &str, whole: i64) -> Value {
    if version == "v1alpha1" {
        json!(whole.to_string())
    } else {
        json!(whole)
    }
}

/// How a Go client reads one: a quantity takes both, an `int` takes no string.
fn whole(version: &str, weight: &Value) -> i64 {
    match (version, weight) {
        ("v1alpha1", Value::String(text)) => text.parse().unwrap(),
        (_, Value::Number(number)) => number.as_i64().unwrap(),
        other => panic!("a Go client of {version} cannot read {other:?}"),
    }
}

fn spec(version: &str, root: &str, backends: &[(&str, i64)]) -> Value {
    let backends: Vec<_> = backends
        .iter()
        .map(|(service, whole)| json!({"service": service, "weight": weight(version, *whole)}))
        .collect();
    json!({"service": root, "backends": backends})
}

/// What a typed client keeps of an object: its type's fields and nothing else.
fn decoded(version: &str, object: &Value) -> Value {
    for backend in object["spec"]["backends"].as_array().unwrap() {
        whole(version, &backend["weight"]);
    }
    json!({"apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": object["metadata"], "spec": object["spec"]})
}

fn without_weights(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for backend in spec["backends"].as_array_mut().unwrap() {
        backend.as_object_mut().unwrap().remove("weight");
    }
    spec
}

fn metadata(owner: &str) -> Value {
    json!({"name": "web", "namespace": "shop", "creationTimestamp": null, "ownerReferences": [{
        "apiVersion": owner, "kind": "Owner", "name": "web", "uid": "1",
        "controller": true, "blockOwnerDeletion": true}]})
}

/// Flagger's `SmiRouter`, in whichever version.
struct Flagger<'a> {
    version: &'a str,
    resets: u32,
}

impl Flagger<'_> {
    /// Runs before every look at the canary.
    fn reconcile(&mut self, fake: &mut Fake) {
        let wanted = spec(
            self.version,
            "web",
            &[("web-canary", 0), ("web-primary", 100)],
        );
        let Some(object) = fake.read(self.version) else {
            fake.write(&json!({"apiVersion": format!("{GROUP}/{}", self.version),
                "kind": "TrafficSplit", "metadata": metadata("flagger.app/v1beta1"), "spec": wanted}));
            return;
        };
        let mut clone = decoded(self.version, &object);
        if without_weights(&clone["spec"]) != without_weights(&wanted) {
            self.resets += 1;
            clone["spec"] = wanted;
            fake.write(&clone);
        }
    }

    fn routes(&self, fake: &Fake) -> (i64, i64) {
        let object = fake.read(self.version).unwrap();
        let of = |name: &str| {
            let backends = object["spec"]["backends"].as_array().unwrap();
            let backend = backends.iter().find(|backend| backend["service"] == name);
            whole(self.version, &backend.unwrap()["weight"])
        };
        (of("web-primary"), of("web-canary"))
    }

    fn set(&self, fake: &mut Fake, canary: i64) -> Value {
        let object = fake.read(self.version).unwrap();
        let mut clone = decoded(self.version, &object);
        let backends = [("web-canary", canary), ("web-primary", 100 - canary)];
        clone["spec"] = spec(self.version, "web", &backends);
        fake.write(&clone);
        clone["spec"].clone()
    }
}

/// Argo's `SetWeight`, whose root is its stable backend unless set otherwise.
fn argo_sets(fake: &mut Fake, version: &str, canary: i64) -> (Value, bool) {
    let backends = [("web-canary", canary), ("web-stable", 100 - canary)];
    let wanted = spec(version, "web-stable", &backends);
    let Some(object) = fake.read(version) else {
        fake.write(
            &json!({"apiVersion": format!("{GROUP}/{version}"), "kind": "TrafficSplit",
            "metadata": metadata("argoproj.io/v1alpha1"), "spec": wanted}),
        );
        return (wanted, true);
    };
    let existing = decoded(version, &object);
    let owners = &object["metadata"]["ownerReferences"];
    assert_eq!(owners[0]["apiVersion"], "argoproj.io/v1alpha1", "{object}");
    let changed = existing["spec"] != wanted;
    if changed {
        // Lists are replaced whole by a merge patch.
        fake.merge(version, &json!({"spec": {"backends": wanted["backends"]}}));
    }
    (wanted, changed)
}

/// Every other reader meanwhile sees the same whole numbers.
fn others_see(fake: &Fake, expected: &[i64]) {
    for version in VERSIONS.iter().chain(&[STORED]) {
        let object = fake.read(version).unwrap();
        let seen: Vec<i64> = object["spec"]["backends"]
            .as_array()
            .unwrap()
            .iter()
            .map(|backend| whole(version, &backend["weight"]))
            .collect();
        assert_eq!(seen, expected, "{version}: {object}");
    }
}

#[test]
fn flagger_and_argo_weights_keep_text_in_every_version() {
    for version in VERSIONS {
        let mut fake = Fake::new();
        let mut flagger = Flagger { version, resets: 0 };
        flagger.reconcile(&mut fake);
        let mut weights = Vec::new();
        // Promotion, rollback, and an idle time of the same length.
        for canary in [0, 10, 20, 30, 40, 50, 100, 0, 10, 0, 0, 0] {
            fake.write_status();
            flagger.reconcile(&mut fake);
            fake.write_status();
            let written = flagger.set(&mut fake, canary);
            fake.write_status();
            flagger.reconcile(&mut fake);
            let read = fake.read(version).unwrap();
            assert_eq!(read["spec"], written, "{version}: {read}");
            assert!(read["metadata"].get("annotations").is_none(), "{read}");
            assert!(read["status"]["conditions"].is_array(), "{read}");
            assert_eq!(flagger.routes(&fake), (100 - canary, canary), "{version}");
            others_see(&fake, &[canary, 100 - canary]);
            weights.push(canary);
        }
        assert_eq!(flagger.resets, 0, "{version}: Flagger began anew");
        println!(
            "sent: Flagger {version}: canary weights {weights:?}, a status written between any two"
        );
        println!(
            "saw: the same spec back 12 of 12 times, 0 resets, no annotation, {} status writes kept",
            fake.status_writes
        );
    }
    for version in VERSIONS {
        let mut fake = Fake::new();
        let mut weights = Vec::new();
        for canary in [0, 20, 60, 100, 0, 20, 0] {
            argo_sets(&mut fake, version, canary);
            fake.write_status();
            // Argo sets the same weight again on every look; that must change nothing.
            let (written, changed) = argo_sets(&mut fake, version, canary);
            assert!(!changed, "{version}: Argo sees a difference at {canary}");
            let read = fake.read(version).unwrap();
            assert_eq!(read["spec"], written, "{version}: {read}");
            assert!(read["metadata"].get("annotations").is_none(), "{read}");
            others_see(&fake, &[canary, 100 - canary]);
            weights.push(canary);
        }
        println!(
            "sent: Argo Rollouts {version}, root = stable backend: canary weights {weights:?}, each twice"
        );
        println!("saw: the same spec back 7 of 7 times, no patch the second time, no annotation");
    }
}

#[test]
fn only_flagger_v1alpha3_sees_foreign_matches_as_change() {
    // A person adds matches in v1alpha4. v1alpha1 and 2 cannot show them, so a
    // Flagger of those versions goes on, and the matches survive its writes; one
    // of v1alpha3 sees them and begins anew, as it does with any mesh.
    for (version, resets) in [("v1alpha1", 0), ("v1alpha2", 0), ("v1alpha3", 1)] {
        let mut fake = Fake::new();
        let mut flagger = Flagger { version, resets: 0 };
        flagger.reconcile(&mut fake);
        flagger.set(&mut fake, 20);
        let mut object = fake.read(STORED).unwrap();
        object["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "testers"}]);
        fake.write(&object);
        flagger.reconcile(&mut fake);
        assert_eq!(flagger.resets, resets, "{version}");
        flagger.set(&mut fake, 30);
        let stored = fake.read(STORED).unwrap();
        let kept = stored["spec"]["matches"].is_array();
        assert_eq!(kept, resets == 0, "{version}: {stored}");
        assert_eq!(stored["spec"]["backends"][0]["weight"], 30, "{stored}");
    }
}

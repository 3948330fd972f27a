//! Proof that the random cases met what they are meant to meet.

use std::collections::BTreeMap;

use oracle::{Call, Caller, Traffic, World};

/// What occurred, and how often.
#[derive(Default)]
pub(crate) struct Coverage {
    calls: usize,
    /// Calls to pods that refuse what nothing allows.
    guarded: usize,
    allowed: usize,
    features: BTreeMap<String, usize>,
}

impl Coverage {
    /// Notes what a world holds.
    pub(crate) fn world(&mut self, world: &World) {
        self.note(&format!("mode {}", world.chart.access));
        for object in &world.objects {
            let kind = object["kind"].as_str().unwrap();
            let version = object["apiVersion"].as_str().unwrap();
            if let Some((_, version)) = version.rsplit_once('/') {
                self.note(&format!("{kind} {version}"));
            }
            let text = object.to_string();
            for (feature, part) in [
                ("headers as a map", r#""headers":{"#),
                ("headers as a list", r#""headers":[{"#),
                ("a port in quotes", r#""port":"80"#),
                ("an empty list of matches", r#""matches":[]"#),
                (
                    "an IdentityBinding as a subject",
                    r#""kind":"IdentityBinding","name":"f"#,
                ),
                ("labels of pods", "podLabelSelector"),
                ("SPIFFE ids", "spiffeIdentities"),
                ("a port in a destination", r#""port":8080}"#),
                ("a missing group", r#""name":"gone""#),
                ("a missing route", r#""name":"lost""#),
                ("a group of callers", "system:authenticated"),
                ("callers outside", "system:unauthenticated"),
                ("an unknown rule", "Pigeon"),
                ("a rule about UDP", "UDPRoute"),
                ("a broken expression", r#""pathRegex":"(""#),
                ("a mode", "weft.dev/access"),
                ("no source", r#""sources":[]"#),
            ] {
                if text.contains(part) {
                    self.note(feature);
                }
            }
        }
    }

    /// Notes a call and its outcome.
    pub(crate) fn call(&mut self, world: &World, call: &Call, allowed: bool) {
        self.calls += 1;
        if !world.callee(call).is_some_and(|pod| world.is_guarded(pod)) {
            return self.note("nothing is refused");
        }
        self.guarded += 1;
        self.allowed += usize::from(allowed);
        let who = match call.caller {
            Caller::Pod { .. } => "mesh",
            Caller::Outside => "outside",
        };
        let what = match call.traffic {
            Traffic::Http(_) => "HTTP",
            Traffic::Bytes => "bytes",
        };
        let outcome = if allowed { "allowed" } else { "refused" };
        self.note(&format!("{what} from {who} {outcome}"));
    }

    /// Calls noted.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    fn note(&mut self, feature: &str) {
        *self.features.entry(feature.to_owned()).or_default() += 1;
    }

    /// Fails unless everything occurred, and a fifth of the calls to guarded pods had
    /// either outcome.
    pub(crate) fn assert_broad(&self) {
        let share = self.allowed * 100 / self.guarded;
        println!(
            "{} calls, {} guarded, {share} % of these allowed; {:#?}",
            self.calls, self.guarded, self.features
        );
        assert!(self.guarded * 2 > self.calls, "most calls must be judged");
        assert!((20..=80).contains(&share), "{share} % are allowed");
        assert!(self.features.len() >= 40, "{:#?}", self.features);
        for (feature, times) in &self.features {
            assert!(*times >= 5, "{feature} occurred {times} times");
        }
    }
}

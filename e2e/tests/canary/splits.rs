//! Every state of a TrafficSplit while a canary runs, seen in the version in which
//! its author writes it.

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Watch};
use serde_json::{Value, json};

/// A watch of splits in one version.
#[derive(Debug)]
pub(crate) struct Splits {
    watch: Watch,
    version: String,
}

impl Splits {
    pub(crate) fn watch(ns: &Namespace, version: &str) -> anyhow::Result<Self> {
        let kind = format!("trafficsplits.{version}.split.smi-spec.io");
        Ok(Self {
            watch: Watch::start(ns, &kind)?,
            version: version.into(),
        })
    }

    /// The canary's weights one after another, equal neighbours once; fails unless
    /// every state was, to the letter, what the author writes: two backends in its
    /// order, that add up to 100, and nothing else.
    pub(crate) fn weights(&self, name: &str, author: &Author) -> anyhow::Result<Vec<i64>> {
        let mut weights = Vec::new();
        for object in self.watch.states(name) {
            let raw = &object["spec"]["backends"][0]["weight"];
            let weight = match raw {
                Value::String(text) => text.parse().ok(),
                Value::Number(number) => number.as_i64(),
                _ => None,
            };
            let weight = weight.with_context(|| format!("no weight: {object}"))?;
            let written = author.spec(&self.version, weight);
            ensure!(
                object["spec"] == written,
                "{name} {}: {} is not {written}",
                self.version,
                object["spec"]
            );
            let notes = object["metadata"]["annotations"].as_object();
            let ours = notes.is_some_and(|notes| notes.keys().any(|key| key.contains("weft")));
            ensure!(!ours, "an annotation was added: {}", object["metadata"]);
            if weights.last() != Some(&weight) {
                weights.push(weight);
            }
        }
        ensure!(!weights.is_empty(), "{name} {}: never seen", self.version);
        Ok(weights)
    }

    /// How often the mesh's controller wrote a status that this watch saw.
    pub(crate) fn statuses(&self, name: &str) -> usize {
        let seen = self.watch.states(name);
        let mut statuses: Vec<&Value> = seen
            .iter()
            .map(|object| &object["status"])
            .filter(|status| !status.is_null())
            .collect();
        statuses.dedup();
        statuses.len()
    }
}

/// Who writes a split, as far as its text depends on that.
#[derive(Clone, Debug)]
pub(crate) struct Author {
    pub(crate) root: String,
    pub(crate) canary: String,
    pub(crate) stable: String,
}

impl Author {
    fn spec(&self, version: &str, canary: i64) -> Value {
        // A quantity of a Go client is a string.
        let weight = |whole: i64| match version {
            "v1alpha1" => json!(whole.to_string()),
            _ => json!(whole),
        };
        json!({"service": self.root, "backends": [
            {"service": self.canary, "weight": weight(canary)},
            {"service": self.stable, "weight": weight(100 - canary)}]})
    }
}

//! Tests that `weft validate` reports of a file what the webhook reports of its object, word for
//! word: refused or not, each validation error and each warning. Of fields that the API server
//! drops before it calls the webhook only the file has a warning.
//!
//! Claims: observe-61

use crds::convert::convert;
use crds::weft;
use oracle::{
    generate::{SHOP, hostile},
    random::Random,
    seeds::seeds,
};
use serde_json::{Value, json};
use weft_cli::validated::{Finding, validate_text};

use super::{agreement, traffic, *};

/// Objects of the hostile corpus, and policies that are altered in a few places.
const OBJECTS: u64 = 600;

/// What the webhook returns for an object. The API server converts an object first, and refuses
/// what cannot be converted with the conversion's words.
fn reviewed(object: &Value) -> Result<(Option<String>, Vec<String>), String> {
    let api_version = object["apiVersion"].as_str().unwrap();
    let group = api_version.split('/').next().unwrap();
    // Weft's own kinds have one version.
    let stored = match group {
        weft::GROUP => object.clone(),
        _ => convert(object, &format!("{group}/v1alpha4")).map_err(|error| error.to_string())?,
    };
    let request = json!({
        "uid": "u", "kind": {"group": group, "version": "v1alpha4", "kind": object["kind"]},
        "namespace": "shop", "name": "x", "operation": "CREATE", "object": stored, "oldObject": null,
    });
    let answer = validate(
        &serde_json::from_value(request).unwrap(),
        &Cluster::default(),
    );
    Ok((answer.refusal, answer.warnings))
}

fn described(finding: &Finding) -> String {
    let text = finding
        .text
        .replace(" (fields are named as in v1alpha4)", "");
    format!("{}: {text}", finding.field)
}

/// How many objects were refused, and how many were accepted with a warning.
#[derive(Debug, Default)]
struct Compared {
    refused: usize,
    warned: usize,
}

impl Compared {
    /// Validates an object by both, and compares their messages.
    fn compare(&mut self, seed: u64, object: &Value) {
        // JSON is YAML. A text that the reader of files refuses never reaches a cluster.
        let Ok(validated) = validate_text(&object.to_string(), "shop", &Cluster::default()) else {
            return;
        };
        let (errors, warnings): (Vec<&Finding>, Vec<&Finding>) = validated
            .findings
            .iter()
            .partition(|finding| finding.refused);
        match reviewed(object) {
            Err(why) => {
                assert_eq!(errors.len(), 1, "seed {seed}: {errors:?}");
                assert!(
                    errors[0].text.starts_with(&why),
                    "seed {seed}: {why} and {errors:?}"
                );
            }
            Ok((None, words)) => {
                assert!(errors.is_empty(), "seed {seed}: {errors:?}");
                // They stand first.
                let taken_away = crds::validate::as_written(object).len();
                let ours = warnings.iter().skip(taken_away);
                let ours: Vec<String> = ours.map(|one| described(one)).collect();
                assert_eq!(ours, words, "seed {seed}");
                self.warned += usize::from(!words.is_empty());
            }
            Ok((Some(refusal), _)) => {
                self.refused += 1;
                let mut messages: Vec<String> = errors.iter().map(|one| described(one)).collect();
                let more = messages.len().saturating_sub(MOST_MISTAKES);
                if more > 0 {
                    messages.truncate(MOST_MISTAKES);
                    messages.push(format!("and {more} more"));
                }
                // Neither names a validation error that the other does not.
                let (_, why) = refusal.split_once(" is invalid: ").unwrap();
                assert_eq!(messages.join("; "), why, "seed {seed}");
            }
        }
    }
}

// Claims: observability-18
#[test]
fn file_is_validated_like_its_object_by_webhook() {
    let mut compared = Compared::default();
    for seed in seeds(OBJECTS) {
        let mut object = hostile(&mut Random::new(seed), &SHOP);
        object["metadata"]["namespace"] = json!("shop");
        compared.compare(seed, &object);
    }
    println!("{compared:?} of {OBJECTS}");
    assert!(compared.refused > 100, "{compared:?}");
}

// Claims: observability-18
#[test]
fn policy_file_is_validated_like_policy_by_webhook() {
    let spec: Value = serde_yaml_ng::from_str(traffic::EVERYTHING).unwrap();
    let mut compared = Compared::default();
    for seed in seeds(OBJECTS) {
        let mut object = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "x", "namespace": "shop"}, "spec": spec,
        });
        agreement::alter(&mut Random::new(seed), &mut object);
        compared.compare(seed, &object);
    }
    println!("{compared:?} of {OBJECTS}");
    assert!(compared.refused > 60 && compared.warned > 0, "{compared:?}");
}

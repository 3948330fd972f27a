//! What `weft validate` says of a file is what the webhook says of the object in it, word
//! for word: refused or not, each mistake and each warning. Of fields that the API server
//! takes away before it asks only the file can tell.

use crds::convert::convert;
use oracle::{
    generate::{SHOP, hostile},
    random::Random,
};
use serde_json::{Value, json};
use weft_cli::judged::{Finding, judge};

use super::*;

/// Objects of the hostile corpus.
const OBJECTS: u64 = 600;

/// What the webhook gets and says. The API server converts an object first, and refuses
/// what cannot be converted with the conversion's words.
fn reviewed(object: &Value) -> Result<(Option<String>, Vec<String>), String> {
    let api_version = object["apiVersion"].as_str().unwrap();
    let group = api_version.split('/').next().unwrap();
    let stored =
        convert(object, &format!("{group}/v1alpha4")).map_err(|error| error.to_string())?;
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

fn told(finding: &Finding) -> String {
    let text = finding
        .text
        .replace(" (fields are named as in v1alpha4)", "");
    format!("{}: {text}", finding.field)
}

#[test]
fn a_file_is_judged_as_the_webhook_judges_its_object() {
    let (mut refused, mut warned) = (0, 0);
    for seed in 0..OBJECTS {
        let mut object = hostile(&mut Random::new(seed), &SHOP);
        object["metadata"]["namespace"] = json!("shop");
        // JSON is YAML. A text that the reader of files refuses never reaches a cluster.
        let Ok(judged) = judge(&object.to_string(), "shop", &Cluster::default()) else {
            continue;
        };
        let (errors, warnings): (Vec<&Finding>, Vec<&Finding>) =
            judged.findings.iter().partition(|finding| finding.refused);
        match reviewed(&object) {
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
                let taken_away = crds::validate::as_written(&object).len();
                let ours = warnings.iter().skip(taken_away);
                let ours: Vec<String> = ours.map(|one| told(one)).collect();
                assert_eq!(ours, words, "seed {seed}");
                warned += usize::from(!words.is_empty());
            }
            Ok((Some(refusal), _)) => {
                refused += 1;
                assert!(!errors.is_empty(), "seed {seed}: {refusal}");
                for error in errors.iter().take(MOST_MISTAKES) {
                    assert!(
                        refusal.contains(&told(error)),
                        "seed {seed}: {error:?} and {refusal}"
                    );
                }
            }
        }
    }
    println!("{refused} of {OBJECTS} refused, {warned} warned of");
    assert!(refused > 100, "{refused}");
}

//! Requests of the API server, and the responses.

use kube::core::conversion::ConversionReview;
use serde_json::{Value, json};

use crate::convert::review;

fn answer(desired: &str, objects: &Value) -> Value {
    let sent: ConversionReview = serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "ConversionReview",
        "request": {"uid": "u-1", "desiredAPIVersion": desired, "objects": objects},
    }))
    .unwrap();
    serde_json::to_value(review(sent)).unwrap()
}

fn split(name: &str, weight: &str) -> Value {
    json!({
        "apiVersion": "split.smi-spec.io/v1alpha1",
        "kind": "TrafficSplit",
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {"service": "root", "backends": [
            {"service": "a", "weight": weight}, {"service": "b", "weight": "1n"},
        ]},
    })
}

#[test]
fn conversion_returns_every_object_in_request_order() {
    let objects = json!([split("one", "1n"), split("two", "2n")]);
    let answer = answer("split.smi-spec.io/v1alpha4", &objects);
    assert_eq!(answer["apiVersion"], "apiextensions.k8s.io/v1");
    assert_eq!(answer["kind"], "ConversionReview");
    assert_eq!(answer.get("request"), None);
    let response = &answer["response"];
    assert_eq!(response["uid"], "u-1");
    assert_eq!(response["result"]["status"], "Success");
    let converted = response["convertedObjects"].as_array().unwrap();
    let names: Vec<&Value> = converted.iter().map(|o| &o["metadata"]["name"]).collect();
    assert_eq!(names, ["one", "two"]);
    for object in converted {
        assert_eq!(object["apiVersion"], "split.smi-spec.io/v1alpha4");
    }
}

#[test]
fn a_failure_names_the_object_and_converts_none() {
    let mut odd = split("odd", "1");
    odd["kind"] = json!("TrafficMirror");
    let objects = json!([split("fine", "1"), odd]);
    let answer = answer("split.smi-spec.io/v1alpha4", &objects);
    let response = &answer["response"];
    assert_eq!(response["uid"], "u-1");
    assert_eq!(response["result"]["status"], "Failure");
    assert_eq!(response["convertedObjects"], json!([]));
    let message = response["result"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("TrafficMirror shop/odd: TrafficMirror of "),
        "{message}"
    );
}

/// A list of a kind is one review: an object that another product stored must not
/// keep clients from reading its neighbours.
// Claims: C5
#[test]
fn unconvertible_stored_weight_leaves_other_list_items_readable() {
    let objects = json!([split("fine", "1"), split("vast", "2147483647")]);
    let answer = answer("split.smi-spec.io/v1alpha4", &objects);
    assert_eq!(
        answer["response"]["result"]["status"], "Success",
        "{answer}"
    );
    let converted = &answer["response"]["convertedObjects"];
    let weights = |n: usize| {
        let backends = converted[n]["spec"]["backends"].as_array().unwrap();
        backends
            .iter()
            .map(|b| b["weight"].clone())
            .collect::<Vec<Value>>()
    };
    assert_eq!(weights(0), [json!(1_000_000_000), json!(1)]);
    assert_eq!(weights(1), [json!("2147483647"), json!("1n")], "as it was");
}

#[test]
fn a_review_without_a_request_is_a_failure() {
    let empty = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"});
    let answer = review(serde_json::from_value(empty).unwrap());
    let response = answer.response.unwrap();
    assert_eq!(
        response.result.message,
        "the ConversionReview holds no request"
    );
}

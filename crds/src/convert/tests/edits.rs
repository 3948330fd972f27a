//! Written in one version, changed in another.

use serde_json::{Value, json};

use super::{
    SmiKind, SmiVersion, VERSIONS, annotation, object, stored, to, with_annotation,
    without_annotation,
};
use crate::convert::ConversionError;
use SmiVersion::{V1alpha1, V1alpha2, V1alpha3, V1alpha4};

fn canary(weights: [Value; 2]) -> Value {
    let [one, two] = weights;
    let backends = json!([{"service": "v1", "weight": one}, {"service": "v2", "weight": two}]);
    let content = json!({"spec": {"service": "root", "backends": backends}});
    object(SmiKind::TrafficSplit, V1alpha1, content)
}

fn weights(split: &Value) -> [&Value; 2] {
    [0, 1].map(|i| &split["spec"]["backends"][i]["weight"])
}

#[test]
fn v1alpha4_weight_change_keeps_its_ratio_in_v1alpha1() {
    let mut kept = stored(&canary([json!("1"), json!("500m")]));
    assert_eq!(weights(&kept), [1000, 500]);
    kept["spec"]["backends"][1]["weight"] = json!(250);
    let read = to(&kept, V1alpha1);
    assert_eq!(weights(&read), [1000, 250], "the old words no longer fit");
    assert_eq!(stored(&read), kept);
}

#[test]
fn the_words_stay_when_something_else_is_changed() {
    let mut kept = stored(&canary([json!("1"), json!("500m")]));
    kept["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "x"}]);
    let read = to(&kept, V1alpha1);
    assert_eq!(weights(&read), ["1", "500m"]);
    assert_eq!(read["spec"].get("matches"), None);
    assert_eq!(stored(&read), kept);
}

#[test]
fn split_matches_survive_new_weights_from_older_client() {
    let mut kept = stored(&canary([json!("100"), json!("0")]));
    kept["spec"]["matches"] = json!([{"kind": "HTTPRouteGroup", "name": "x"}]);
    for version in [V1alpha1, V1alpha2] {
        let mut view = to(&kept, version);
        view["spec"]["backends"][0]["weight"] = json!(90);
        view["spec"]["backends"][1]["weight"] = json!(10);
        let after = stored(&view);
        assert_eq!(after["spec"]["matches"], kept["spec"]["matches"]);
        assert_eq!(weights(&after), [90, 10]);
        assert_eq!(to(&after, version)["spec"], view["spec"]);
    }
}

#[test]
fn weights_rewritten_in_v1alpha1_replace_older_ones() {
    let kept = stored(&canary([json!("1"), json!("500m")]));
    let mut view = to(&kept, V1alpha1);
    view["spec"]["backends"][0]["weight"] = json!(1000);
    view["spec"]["backends"][1]["weight"] = json!(500);
    assert_eq!(to(&stored(&view), V1alpha1), view);
    // Also when the client sends back the annotation of another read.
    let note = annotation(&kept).unwrap();
    let view = with_annotation(view, &note);
    assert_eq!(weights(&to(&stored(&view), V1alpha1)), [1000, 500]);
}

#[test]
fn words_that_were_tampered_with_are_not_believed() {
    let kept = stored(&canary([json!("1"), json!("500m")]));
    let note = annotation(&kept).unwrap();
    for (from, into) in [("500m", "600m"), ("\"1\"", "\"9\""), ("weights", "wegihts")] {
        let changed = note.replace(from, into);
        assert_ne!(changed, note);
        let read = to(&with_annotation(kept.clone(), &changed), V1alpha1);
        assert_eq!(weights(&read), [1000, 500], "{changed}");
    }
}

fn guarded() -> Value {
    let content = json!({"spec": {"matches": [
        {"name": "admin", "pathRegex": "/admin", "headers": {"x-role": "admin"}},
        {"name": "open", "pathRegex": "/open"},
        {"name": "beta", "pathRegex": "/beta", "headers": [{"x-beta": "1"}]},
    ]}});
    object(SmiKind::HttpRouteGroup, V1alpha4, content)
}

#[test]
fn hidden_headers_follow_their_match_through_edits_in_v1alpha1() {
    let headers = |view: &Value| {
        let matches = stored(view)["spec"]["matches"].clone();
        let matches = matches.as_array().unwrap().clone();
        let pair = |m: &Value| {
            (
                m["name"].as_str().unwrap().to_owned(),
                m.get("headers").cloned(),
            )
        };
        matches.iter().map(pair).collect::<Vec<_>>()
    };
    let (admin, beta) = (json!({"x-role": "admin"}), json!([{"x-beta": "1"}]));
    let view = to(&guarded(), V1alpha1);
    assert_eq!(view["matches"][0].get("headers"), None);

    let mut edited = view.clone();
    edited["matches"][0]["pathRegex"] = json!("/admin/v2");
    edited["matches"].as_array_mut().unwrap().swap(0, 2);
    assert_eq!(
        headers(&edited),
        [
            ("beta".into(), Some(beta.clone())),
            ("open".into(), None),
            ("admin".into(), Some(admin.clone())),
        ],
        "another path and another order"
    );

    let mut edited = view.clone();
    edited["matches"][0]["name"] = json!("boss");
    edited["matches"].as_array_mut().unwrap().remove(1);
    assert_eq!(
        headers(&edited),
        [("boss".into(), Some(admin)), ("beta".into(), Some(beta))],
        "another name and a match less"
    );
}

#[test]
fn port_survives_every_edit_in_v1alpha3_without_ports() {
    for version in [V1alpha1, V1alpha2, V1alpha4] {
        let inner = json!({"kind": "ServiceAccount", "name": "api", "port": 8080});
        let content = if version == V1alpha1 {
            json!({"destination": inner, "sources": [], "specs": []})
        } else {
            json!({"spec": {"destination": inner, "sources": [], "rules": []}})
        };
        let target = object(SmiKind::TrafficTarget, version, content);
        let kept = stored(&target);
        assert_eq!(kept["spec"]["destination"]["port"], 8080);
        let mut view = to(&kept, V1alpha3);
        assert_eq!(view["spec"]["destination"].get("port"), None);
        view["spec"]["destination"]["name"] = json!("other");
        view["spec"]["rules"] = json!([{"kind": "TCPRoute", "name": "all"}]);
        let after = stored(&view);
        assert_eq!(after["spec"]["destination"]["port"], 8080);
        assert_eq!(to(&after, V1alpha3)["spec"], view["spec"]);
        assert_eq!(to(&after, V1alpha2)["spec"]["destination"]["port"], 8080);
        assert_eq!(to(&after, V1alpha1)["destination"]["port"], 8080);
    }
}

#[test]
fn textual_port_is_stored_numeric_and_returned_textual() {
    let content = json!({"destination": {"kind": "ServiceAccount", "name": "api", "port": "8080"}});
    let target = object(SmiKind::TrafficTarget, V1alpha1, content);
    let kept = stored(&target);
    assert_eq!(kept["spec"]["destination"]["port"], 8080);
    assert_eq!(to(&kept, V1alpha1), target);
}

#[test]
fn route_ports_survive_writes_in_versions_without_ports() {
    let content = json!({"spec": {"matches": {"name": "n", "ports": [8080]}}});
    let route = object(SmiKind::TcpRoute, V1alpha4, content);
    for version in [V1alpha1, V1alpha2, V1alpha3] {
        let mut view = to(&route, version);
        view.as_object_mut().unwrap().remove("spec");
        view["metadata"]["labels"] = json!({"team": "a"});
        assert_eq!(stored(&view)["spec"], route["spec"], "{version}");
    }
}

#[test]
fn headers_are_returned_in_their_written_shape() {
    for headers in [
        json!({"user-agent": ".*Android.*", "cookie": "a"}),
        json!([{"user-agent": ".*Android.*"}, {"cookie": "a"}]),
        json!([]),
        json!({}),
    ] {
        let matches = json!([{"name": "m", "headers": headers}]);
        for version in [V1alpha2, V1alpha3, V1alpha4] {
            let content = if version == V1alpha2 {
                json!({ "matches": matches })
            } else {
                json!({"spec": {"matches": matches}})
            };
            let group = object(SmiKind::HttpRouteGroup, version, content);
            assert_eq!(stored(&group)["spec"]["matches"], matches);
            for other in VERSIONS {
                assert_eq!(to(&to(&group, other), version), group);
            }
        }
    }
}

#[test]
fn oversized_hidden_parts_are_readable_but_not_writable() {
    let long = "x".repeat(1024);
    let matches: Vec<Value> = (0..64)
        .map(|i| {
            let headers: Vec<Value> = (0..8).map(|_| json!({ "h": long })).collect();
            json!({"name": format!("m{i}"), "headers": headers})
        })
        .collect();
    let group = object(
        SmiKind::HttpRouteGroup,
        V1alpha4,
        json!({"spec": {"matches": matches}}),
    );
    let view = to(&group, V1alpha1);
    assert_eq!(view["matches"].as_array().unwrap().len(), 64);
    assert!(annotation(&view).unwrap().len() < 300);
    let written_back = crate::convert::convert(&view, "specs.smi-spec.io/v1alpha4");
    assert_eq!(
        written_back,
        Err(ConversionError::TooLarge { version: V1alpha1 })
    );
    // A client that removes the annotation does so knowingly.
    assert!(
        stored(&without_annotation(view))["spec"]["matches"][0]
            .get("headers")
            .is_none()
    );
}

#[test]
fn tampered_hidden_parts_are_refused_and_not_dropped() {
    let content = json!({"spec": {"matches": {"ports": [8080]}}});
    let route = object(SmiKind::TcpRoute, V1alpha4, content);
    let view = to(&route, V1alpha1);
    let note = annotation(&view).unwrap();
    for (from, into) in [
        ("8080", "80"),
        ("[8080]", "[]"),
        ("v1alpha1", "v1alpha2"),
        (":", ": "),
    ] {
        let changed = note.replace(from, into);
        assert_ne!(changed, note);
        let tampered = with_annotation(view.clone(), &changed);
        let written = crate::convert::convert(&tampered, "specs.smi-spec.io/v1alpha4");
        assert_eq!(
            written,
            Err(ConversionError::Tampered { version: V1alpha1 })
        );
        // The same text put into storage by hand is only text, there and back.
        let by_hand = with_annotation(route.clone(), &changed);
        assert_eq!(stored(&to(&by_hand, V1alpha1)), by_hand);
    }
    // So is a note that belongs to a view.
    let by_hand = with_annotation(route, &note);
    assert_eq!(stored(&to(&by_hand, V1alpha1)), by_hand);
}

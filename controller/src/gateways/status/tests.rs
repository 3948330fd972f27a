//! Conditions stand beside those of others, with the generation that was looked at.

use super::*;

const NOW: &str = "2026-11-30T12:00:00Z";
const LATER: &str = "2026-11-30T13:00:00Z";

fn is(status: bool, reason: &'static str) -> Condition {
    Condition {
        status,
        reason,
        message: String::new(),
    }
}

fn listener(name: &str, is_served: bool) -> ListenerReport {
    ListenerReport {
        name: name.into(),
        supported_kinds: vec![RouteKind::Http, RouteKind::Grpc],
        attached_routes: 1,
        accepted: is(true, "Accepted"),
        resolved_refs: is(is_served, "ResolvedRefs"),
        conflicted: is(false, "NoConflicts"),
        is_served,
    }
}

fn status(listeners: &[ListenerReport], generation: i64, programmed: bool) -> GatewayStatus<'_> {
    GatewayStatus {
        generation,
        accepted: is(true, "Accepted"),
        programmed: is(
            programmed,
            if programmed { "Programmed" } else { "Pending" },
        ),
        listeners,
        ending: &[],
        addresses: Some(vec![Address::Ip("198.18.0.1".to_owned())]),
    }
}

fn live(status: &Value) -> Value {
    json!({"metadata": {"name": "web"}, "status": status})
}

fn condition<'a>(of: &'a Value, kind: &str) -> &'a Value {
    let all = of["conditions"].as_array().unwrap();
    all.iter().find(|one| one["type"] == kind).unwrap()
}

#[test]
fn default_conditions_are_replaced_and_others_stay() {
    let waiting = |kind: &str| json!({"type": kind, "status": "Unknown", "reason": "Pending", "message": "Waiting for controller", "lastTransitionTime": "1970-01-01T00:00:00Z"});
    let theirs = json!({"type": "example.com/Seen", "status": "True", "reason": "Seen"});
    let before = json!({"conditions": [waiting("Accepted"), theirs, waiting("Programmed")]});
    let listeners = [listener("https", true), listener("broken", false)];
    let written = of_gateway(&live(&before), &status(&listeners, 3, true), NOW).unwrap();
    assert_eq!(written["conditions"].as_array().unwrap().len(), 3);
    assert_eq!(condition(&written, "example.com/Seen"), &theirs);
    for kind in ["Accepted", "Programmed"] {
        let one = condition(&written, kind);
        assert_eq!(one["status"], "True");
        assert_eq!(one["observedGeneration"], 3);
        assert_eq!(one["lastTransitionTime"], NOW);
    }
    let address = json!([{"type": "IPAddress", "value": "198.18.0.1"}]);
    assert_eq!(written["addresses"], address);
    let [good, broken] = [&written["listeners"][0], &written["listeners"][1]];
    let kinds =
        json!([{"group": GROUP, "kind": "HTTPRoute"}, {"group": GROUP, "kind": "GRPCRoute"}]);
    assert_eq!(good["supportedKinds"], kinds);
    assert_eq!(good["attachedRoutes"], 1);
    assert_eq!(condition(good, "Programmed")["status"], "True");
    assert_eq!(condition(broken, "Programmed")["reason"], "Invalid");
    assert_eq!(condition(broken, "Programmed")["status"], "False");
}

#[test]
fn generation_is_written_anew_and_times_stay() {
    let listeners = [listener("https", true)];
    let first = of_gateway(&live(&json!({})), &status(&listeners, 1, true), NOW).unwrap();
    let same = of_gateway(&live(&first), &status(&listeners, 1, true), LATER);
    assert_eq!(same, None, "nothing has changed");
    let second = of_gateway(&live(&first), &status(&listeners, 2, true), LATER).unwrap();
    for of in [&second, &second["listeners"][0]] {
        for one in of["conditions"].as_array().unwrap() {
            assert_eq!(one["observedGeneration"], 2, "{one}");
            assert_eq!(one["lastTransitionTime"], NOW, "{one}");
        }
    }
    let third = of_gateway(&live(&first), &status(&listeners, 1, false), LATER).unwrap();
    assert_eq!(condition(&third, "Programmed")["lastTransitionTime"], LATER);
    assert_eq!(condition(&third, "Accepted")["lastTransitionTime"], NOW);
    let pending = condition(&third["listeners"][0], "Programmed");
    assert_eq!(pending["reason"], "Pending");
}

/// One that it refuses would never be written, and the Gateway would not say why.
#[test]
fn status_is_one_that_the_api_server_takes() {
    let theirs = |n: u8| json!({"type": format!("example.com/{n}"), "status": "True"});
    let theirs: Vec<Value> = (0..8).map(theirs).collect();
    let refused = GatewayStatus {
        accepted: Condition {
            message: "é".repeat(40_000),
            ..is(false, "InvalidParameters")
        },
        ..status(&[], 1, false)
    };
    let before = live(&json!({"conditions": theirs}));
    let written = of_gateway(&before, &refused, NOW).unwrap();
    assert_eq!(written["conditions"].as_array().unwrap().len(), 8);
    let accepted = condition(&written, "Accepted");
    let message = accepted["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), LONGEST_MESSAGE + 1);
    assert_eq!(condition(&written, "Programmed")["status"], "False");
    assert_eq!(of_gateway(&live(&written), &refused, LATER), None);
}

/// DNS records are made of them.
#[test]
fn addresses_stay_while_they_are_not_known() {
    let first = of_gateway(&live(&json!({})), &status(&[], 1, true), NOW).unwrap();
    let unknown = GatewayStatus {
        addresses: None,
        ..status(&[], 2, false)
    };
    let second = of_gateway(&live(&first), &unknown, LATER).unwrap();
    assert_eq!(second["addresses"], first["addresses"]);
}

#[test]
fn certificate_that_ends_is_a_condition_until_replaced() {
    let text = ["the certificate in Secret edge/tls ends on 2027-01-14".to_owned()];
    let ending = GatewayStatus {
        ending: &text,
        ..status(&[], 1, true)
    };
    let first = of_gateway(&live(&json!({})), &ending, NOW).unwrap();
    let condition = condition(&first, CERTIFICATE_ENDS);
    assert_eq!(condition["status"], "True");
    assert_eq!(condition["message"], text[0]);
    let second = of_gateway(&live(&first), &status(&[], 1, true), LATER).unwrap();
    assert_eq!(second["conditions"].as_array().unwrap().len(), 2);
}

#[test]
fn addresses_are_those_that_the_service_got() {
    let service = json!({
        "spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"]},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.18.0.1"}, {"hostname": "lb.example"}]}},
    });
    let expected = [
        Address::Ip("198.18.0.1".to_owned()),
        Address::Hostname("lb.example".to_owned()),
    ];
    assert_eq!(addresses(&service), expected);
    assert!(
        addresses(&json!({"spec": {"type": "LoadBalancer", "clusterIPs": ["10.0.0.1"]}}))
            .is_empty()
    );
    let inside = json!({"spec": {"type": "ClusterIP", "clusterIPs": ["10.0.0.1", "fd00::1"]}});
    assert_eq!(addresses(&inside).len(), 2);
}

#[test]
fn class_reports_version_and_features() {
    let accepted = is(true, "Accepted");
    for (installed, expected) in [
        (Some("v1.6.3"), "True"),
        (Some("v1.2.0"), "True"),
        (Some("v1.7.0"), "False"),
        (Some("v1.1.0"), "False"),
        (Some("v0.0.0"), "False"),
        (Some("main"), "False"),
        (None, "False"),
    ] {
        let written = of_class(&live(&json!({})), 1, &accepted, installed, NOW).unwrap();
        let version = condition(&written, "SupportedVersion");
        assert_eq!(version["status"], expected, "{installed:?}");
        assert_eq!(written["supportedFeatures"].as_array().unwrap().len(), 38);
    }
    let mut sorted = FEATURES;
    sorted.sort_unstable();
    assert_eq!(sorted, FEATURES);
    let refused = is(false, "InvalidParameters");
    let written = of_class(&live(&json!({})), 1, &refused, None, NOW).unwrap();
    assert_eq!(written["supportedFeatures"], json!([]));
}

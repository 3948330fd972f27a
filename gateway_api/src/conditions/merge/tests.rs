//! Tests of merging: entries of others stay, ours follow what is reported.

use super::super::{GATEWAY_CONTROLLER, MESH_CONTROLLER};
use super::*;

const BEFORE: &str = "2026-01-01T00:00:00Z";
const NOW: &str = "2026-01-02T00:00:00Z";
const SHOP: Owner<'_> = Owner {
    namespace: "shop",
    generation: 7,
};

/// A `parentRef` as an author writes it.
fn cart() -> Value {
    json!({"group": "", "kind": "Service", "name": "cart", "port": 80})
}

fn accepted(status: &'static str, reason: &str) -> Condition {
    Condition {
        kind: ConditionType::Accepted,
        status,
        reason: reason.to_owned(),
        message: format!("It is {reason}."),
    }
}

fn report(parent: &Value, conditions: Vec<Condition>) -> ParentStatus {
    ParentStatus {
        controller: MESH_CONTROLLER,
        parent: ParentRef::read(parent, "shop").unwrap(),
        conditions,
    }
}

fn foreign(name: &str) -> Value {
    json!({
        "parentRef": cart(), "controllerName": name,
        "conditions": [{"type": "Accepted", "status": "False", "observedGeneration": 99}],
        "more": "of it",
    })
}

/// What is stored after a first report.
fn stored() -> Vec<Value> {
    let ours = [report(&cart(), vec![accepted("True", "Accepted")])];
    merge(&[], SHOP, &ours, 7, BEFORE).unwrap()
}

#[test]
fn first_report_becomes_an_entry_with_every_field() {
    let conditions = json!([{
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "It is Accepted.",
        "observedGeneration": 7, "lastTransitionTime": BEFORE,
    }]);
    let entry = json!({
        "parentRef": cart(), "controllerName": "weft.dev/mesh", "conditions": conditions,
    });
    assert_eq!(stored(), [entry]);
}

#[test]
fn same_report_writes_nothing_after_defaults_were_added() {
    let mut now = stored();
    let ours = [report(&cart(), vec![accepted("True", "Accepted")])];
    assert_eq!(merge(&now, SHOP, &ours, 7, NOW), None);
    now[0]["parentRef"]["namespace"] = json!("shop");
    assert_eq!(merge(&now, SHOP, &ours, 7, NOW), None);
    assert_eq!(merge(&[foreign("a/b")], SHOP, &[], 7, NOW), None);
}

#[test]
fn foreign_entries_keep_content_and_place() {
    let mut now = vec![foreign("a.example/one")];
    now.extend(stored());
    now.extend([foreign("a.example/two"), json!("nonsense"), json!({})]);
    let ours = [
        report(&cart(), vec![accepted("False", "UnsupportedValue")]),
        report(
            &json!({"group": "", "kind": "Service", "name": "till"}),
            Vec::new(),
        ),
    ];
    let next = merge(&now, SHOP, &ours, 7, NOW).unwrap();
    assert_eq!(next.len(), 6);
    for place in [0, 2, 3, 4] {
        assert_eq!(next[place], now[place]);
    }
    assert_eq!(next[1]["conditions"][0]["status"], "False");
    assert_eq!(next[5]["parentRef"]["name"], "till");
}

#[test]
fn transition_time_changes_with_the_status_only() {
    let time = |ours: Condition, seen: i64| {
        let ours = [report(&cart(), vec![ours])];
        let next = merge(&stored(), SHOP, &ours, seen, NOW).unwrap();
        next[0]["conditions"][0]["lastTransitionTime"].clone()
    };
    assert_eq!(time(accepted("True", "PartlyOverridden"), 7), BEFORE);
    assert_eq!(time(accepted("False", "Conflicted"), 7), NOW);
    let owner = Owner {
        generation: 8,
        ..SHOP
    };
    let ours = [report(&cart(), vec![accepted("True", "Accepted")])];
    let next = merge(&stored(), owner, &ours, 8, NOW).unwrap();
    assert_eq!(next[0]["conditions"][0]["observedGeneration"], 8);
    assert_eq!(next[0]["conditions"][0]["lastTransitionTime"], BEFORE);
}

#[test]
fn entries_of_removed_parents_and_repetitions_are_removed() {
    let mut now = stored();
    now.push(now[0].clone());
    now.push(foreign("a.example/one"));
    let mut gateway = now[0].clone();
    gateway["controllerName"] = json!(GATEWAY_CONTROLLER);
    now.push(gateway);
    let ours = [report(&cart(), vec![accepted("True", "Accepted")])];
    let next = merge(&now, SHOP, &ours, 7, NOW).unwrap();
    assert_eq!(next, [now[0].clone(), now[2].clone()]);
    assert_eq!(merge(&now, SHOP, &[], 7, NOW).unwrap(), [now[2].clone()]);
}

#[test]
fn parents_that_differ_by_port_have_entries_each() {
    let mut other = cart();
    other["port"] = json!(81);
    let ours = [
        report(&cart(), vec![accepted("True", "Accepted")]),
        report(&other, vec![accepted("False", "NoMatchingParent")]),
        report(&cart(), vec![accepted("False", "Conflicted")]),
    ];
    let next = merge(&[], SHOP, &ours, 7, NOW).unwrap();
    assert_eq!(next.len(), 2, "one for each parent, whatever is repeated");
    assert_eq!(next[0]["conditions"][0]["status"], "True");
    assert_eq!(next[1]["parentRef"], other);
}

#[test]
fn outdated_condition_goes_and_foreign_types_stay() {
    let mut now = stored();
    let list = now[0]["conditions"].as_array_mut().unwrap();
    list.insert(0, json!({"type": "other.example/Seen", "status": "True"}));
    list.push(json!({"type": "PartiallyInvalid", "status": "True", "observedGeneration": 7}));
    list.push(json!({"type": "weft.dev/Former", "status": "True"}));
    let ours = [report(&cart(), vec![accepted("True", "Accepted")])];
    let next = merge(&now, SHOP, &ours, 7, NOW).unwrap();
    let types: Vec<&str> = next[0]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|condition| condition["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["other.example/Seen", "Accepted"]);
}

#[test]
fn newer_entry_stays_and_an_impossible_one_does_not() {
    let ours = [report(&cart(), vec![accepted("False", "Conflicted")])];
    let about = |generation: i64| {
        let mut now = stored();
        now[0]["conditions"][0]["observedGeneration"] = json!(generation);
        merge(&now, SHOP, &ours, 6, NOW)
    };
    assert_eq!(about(7), None, "another replica has seen more");
    for forged in [8, i64::MAX] {
        let next = about(forged).unwrap();
        assert_eq!(next[0]["conditions"][0]["observedGeneration"], 6);
    }
}

#[test]
fn lists_stay_within_bounds_of_the_api() {
    let now: Vec<Value> = (0..31)
        .map(|i| foreign(&format!("a.example/{i}")))
        .collect();
    let long = Condition {
        message: "x".repeat(50_000),
        ..accepted("True", "Accepted")
    };
    let other = json!({"group": "", "kind": "Service", "name": "till"});
    let ours = [report(&cart(), vec![long]), report(&other, Vec::new())];
    let next = merge(&now, SHOP, &ours, 7, NOW).unwrap();
    assert_eq!(next.len(), 32);
    let message = next[31]["conditions"][0]["message"].as_str().unwrap();
    assert_eq!(message.len(), 32_768);
}

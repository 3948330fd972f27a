//! Schema and judge say the same.
//!
//! Claims: calls-27

use super::*;

#[test]
fn kubectl_explain_shows_every_default() {
    let schema = schema::<TrafficPolicySpec>();
    for (pointer, default) in [
        ("timeouts.request", "0s, no limit,"),
        ("timeouts.backendRequest", "0s, no limit,"),
        ("timeouts.idle", "0s, no limit,"),
        ("timeouts.share", "100"),
        ("retry.attempts", "1"),
        ("retry.codes", "503"),
        ("retry.grpcCodes", "None"),
        ("retry.methods", "GET, HEAD and OPTIONS"),
        ("retry.backoff", "25ms"),
        ("retry.budget.percent", "20"),
        ("retry.budget.interval", "5s"),
        ("retry.budget.minPerSecond", "1"),
        ("ejection.consecutiveFailures", "5"),
        ("ejection.codes", "502, 503 and 504"),
        ("ejection.baseTime", "5s"),
        ("ejection.maxTime", "60s"),
        ("ejection.maxPercent", "34"),
        ("breaker.state", "Auto"),
        ("breaker.failurePercent", "50"),
        ("breaker.interval", "10s"),
        ("breaker.minRequests", "50"),
        ("breaker.openTime", "5s"),
        ("fallback.when", "All of them"),
        ("overload.mode", "Adaptive"),
        ("overload.queueTime", "100ms"),
        ("overload.maxConcurrency", "0, no limit,"),
        ("balance.subset", "0"),
        ("balance.warmup", "10s"),
        ("sticky.scope", "Endpoint"),
        ("sticky.ttl", "0s"),
    ] {
        let path = format!("/properties/{}", pointer.replace('.', "/properties/"));
        let text = schema.pointer(&path).unwrap()["description"]
            .as_str()
            .unwrap();
        let sentence = format!("{default} when left out");
        let lists = format!("{default} when empty or left out");
        assert!(
            text.contains(&sentence) || text.contains(&lists),
            "{pointer}: {text}"
        );
    }
}

/// Schema and judge were written apart, and each reads every field for itself: whatever
/// one refuses at its bounds, the other does too.
#[test]
fn schema_and_judge_agree_at_every_bound() {
    let schema = schema::<TrafficPolicySpec>();
    let mut tried = 0;
    let mut probes: Vec<(String, Value)> = Vec::new();
    each_node(&schema, "", &mut |node, at| {
        let pointer = at.replace("[]", "/0").replace('.', "/");
        for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
            if let Some(bound) = node[bound].as_i64() {
                probes.push((pointer.clone(), json!(bound)));
                probes.push((pointer.clone(), json!(bound + beyond)));
            }
        }
        for known in node["enum"].as_array().into_iter().flatten() {
            probes.push((pointer.clone(), known.clone()));
            let other = known.as_str().map(str::to_lowercase);
            probes.push((pointer.clone(), json!(other)));
        }
        if let Some(most) = node["maxItems"].as_u64() {
            let least = node["minItems"].as_u64().unwrap_or(0);
            for count in [least, most, most + 1] {
                let one = everything().pointer(&format!("{pointer}/0")).cloned();
                let Some(one) = one else { continue };
                let numbered = |n: u64| {
                    let mut one = one.clone();
                    // What identifies the entries of a list.
                    for key in ["name", "service"] {
                        if one.get(key).is_some() {
                            one[key] = json!(format!("n{n}"));
                        }
                    }
                    one
                };
                probes.push((pointer.clone(), (0..count).map(numbered).collect()));
            }
        }
    });
    for (pointer, value) in probes {
        if everything().pointer(&pointer).is_none() {
            continue;
        }
        // Changing a kind alone requires other fields, which CEL checks.
        let kinds = ["/targetRef/kind", "/sticky/type", "/rateLimits/0/key/type"];
        let known = value
            .as_str()
            .is_some_and(|text| text.starts_with(char::is_uppercase));
        if (kinds.contains(&&*pointer) && known) || value == "Group" {
            continue;
        }
        let spec = changed(&pointer, &value);
        let schema_says = violations(&schema, &spec);
        let (_, validation_says) = validated(&spec);
        assert_eq!(
            schema_says.is_empty(),
            refused(&validation_says).is_empty(),
            "{pointer} = {value}: {schema_says:?} and {validation_says:?}"
        );
        tried += 1;
    }
    assert!(tried > 150, "{tried}");
}

//! What the rules of routes refer to.

use super::*;

/// A route over one backend that is changed.
fn over(change: impl FnOnce(&mut Value)) -> Cluster {
    let mut rule = rule_over(&[("v1", 3), ("v2", 1)]);
    change(&mut rule["backendRefs"][0]);
    let there = in_namespace(service("there", "10.96.1.1", &[("http", 80)]), "other");
    let wide = service("wide", "10.96.0.21", &[("http", 80), ("more", 8080)]);
    cluster()
        .with(there)
        .with(wide)
        .with(http_route("web", "api", json!([rule])))
}

fn backends(cluster: &Cluster) -> Vec<(String, u16, u32)> {
    shares(&request(&table(cluster), "/"))
}

#[test]
fn backend_is_called_at_its_own_port() {
    let cluster = over(|backend| {
        backend["name"] = json!("wide");
        backend["port"] = json!(8080);
    });
    let expected = [("wide".to_owned(), 8080, 3), share("v2", 1)];
    assert_eq!(backends(&cluster), expected);
    let (model, _) = cluster.compile();
    let sent = resolved(&model, ("shop", "client"));
    sent.endpoints("endpoints/shop/wide:8080");
    assert!(!sent.names().contains(&"endpoints/shop/wide:80"));
}

#[test]
fn invalid_backend_keeps_its_weight_and_is_reported() {
    for (change, reason, port) in [
        (json!({"name": "gone"}), "BackendNotFound", 80),
        (json!({"port": 81}), "BackendNotFound", 81),
        (
            json!({"group": "example.com", "kind": "Bucket"}),
            "InvalidKind",
            80,
        ),
        (
            json!({"name": "there", "namespace": "other"}),
            "RefNotPermitted",
            80,
        ),
    ] {
        let cluster = over(|backend| {
            for (field, value) in change.as_object().unwrap() {
                backend[field] = value.clone();
            }
        });
        let name = change["name"].as_str().unwrap_or("v1");
        let expected = [(format!("!{name}"), port, 3), share("v2", 1)];
        assert_eq!(backends(&cluster), expected, "{change}");
        let report = parent(&cluster, "HTTPRoute web");
        assert_eq!((report.accepted.status, report.accepted.reason), ACCEPTED);
        let resolved = (report.resolved_refs.status, report.resolved_refs.reason);
        assert_eq!(resolved, (false, reason), "{change}");
        let path = "spec.rules[0].backendRefs[0]";
        assert!(report.resolved_refs.message.starts_with(path), "{report:?}");
    }
}

#[test]
fn grant_permits_backend_of_another_namespace_until_it_goes() {
    let without = over(|backend| {
        backend["name"] = json!("there");
        backend["namespace"] = json!("other");
    });
    let grant = in_namespace(reference_grant("from-shop", "shop"), "other");
    let with = without.clone().with(grant);
    assert_eq!(backends(&with), [share("there", 3), share("v2", 1)]);
    let (model, _) = with.compile();
    resolved(&model, ("shop", "client")).endpoints("endpoints/other/there:80");
    assert_eq!(backends(&without), [share("!there", 3), share("v2", 1)]);
    let elsewhere = without.with(reference_grant("from-shop", "shop"));
    assert_eq!(backends(&elsewhere)[0], share("!there", 3));
}

#[test]
fn rule_without_backends_or_weights_is_refused() {
    let of_rule = |rule: Value| {
        let cluster = cluster().with(http_route("web", "api", json!([rule])));
        request(&table(&cluster), "/")
    };
    let none = of_rule(json!({}));
    assert_eq!(none, Forward::Refuse(reason::Reason::InvalidBackend));
    let no_weight = of_rule(rule_over(&[("v1", 0)]));
    assert_eq!(no_weight, Forward::Refuse(reason::Reason::NoBackend));
    let redirect = of_rule(json!({"filters": [{
        "type": "RequestRedirect", "requestRedirect": {"hostname": "new.example"},
    }]}));
    let Forward::Redirect(redirect) = redirect else {
        panic!("{redirect:?}");
    };
    assert_eq!(redirect.host.as_deref(), Some("new.example"));
}

#[test]
fn edits_of_rule_come_before_those_of_backend() {
    let header = |value: &str| {
        json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{"name": "x-from", "value": value}],
        }}])
    };
    let mut rule = rule_over(&[("v1", 1), ("v2", 1)]);
    rule["filters"] = header("rule");
    rule["backendRefs"][0]["filters"] = header("backend");
    let cluster = cluster().with(http_route("web", "api", json!([rule])));
    let Forward::Split(backends) = request(&table(&cluster), "/") else {
        panic!("it is split");
    };
    let values = backends.iter().map(|backend| {
        let edits = &backend.actions.as_ref().unwrap().edits;
        let values = edits.iter().map(|edits| &edits.request.set[0].1);
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    });
    let values: Vec<Vec<String>> = values.collect();
    assert_eq!(values, [vec!["rule", "backend"], vec!["rule"]]);
}

#[test]
fn mirror_of_rule_is_sent_with_its_endpoints() {
    let mut rule = rule_over(&[("v1", 1)]);
    rule["filters"] = json!([{"type": "RequestMirror", "requestMirror": {
        "backendRef": {"name": "v2", "port": 80}, "percent": 10,
    }}]);
    let cluster = cluster().with(http_route("web", "api", json!([rule])));
    let actions = actions(&request(&table(&cluster), "/"));
    assert_eq!(&*actions.mirrors[0].service.name, "v2");
    assert_eq!(actions.mirrors[0].share.to_string(), "10");
    let (model, _) = cluster.compile();
    resolved(&model, ("shop", "client")).endpoints("endpoints/shop/v2:80");
}

//! A fix for a call that a rule distinguishes by its headers.
//!
//! Claims: observe-24

use crds::observe::Header;

use super::*;

#[test]
fn fix_of_call_with_headers_requires_those_headers() {
    let header = |name: &str, value: &str| Header {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let with = |headers: &[(&str, &str)]| {
        let mut query = spec("Pod/client", "Service/api", "DELETE", "/items/7");
        query.headers = headers
            .iter()
            .map(|(name, value)| header(name, value))
            .collect();
        query
    };
    let query = [
        ("x-debug", "1+1"),
        ("x-tag", "a"),
        ("x-tag", "b"),
        ("cookie", "c=1"),
        ("cookie", "d=2"),
    ];
    let fix = explain(&read_only(), &with(&query)).fix.unwrap();
    let after = applied(read_only(), &fix.objects);
    let verdict = |headers: &[(&str, &str)]| explain(&after, &with(headers)).verdict;
    assert_eq!(verdict(&query), ExplanationVerdict::Allowed, "{fix:?}");
    let mut more = query.to_vec();
    more.push(("x-other", "1"));
    assert_eq!(verdict(&more), ExplanationVerdict::Allowed);
    for left_out in 0..query.len() {
        let mut less = query.to_vec();
        let (name, _) = less.remove(left_out);
        // Of two values of a header that may be either, one is enough.
        let refused = name != "x-tag";
        assert_eq!(
            verdict(&less) == ExplanationVerdict::Refused,
            refused,
            "without {name}"
        );
    }
    for other in [("x-debug", "11"), ("x-tag", "c"), ("cookie", "e=3")] {
        let mut beside = query.to_vec();
        beside.push(other);
        assert_eq!(verdict(&beside), ExplanationVerdict::Refused, "{other:?}");
    }
    let many: Vec<String> = (0..33).map(|at| format!("x-{at}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "1")).collect();
    let fix = explain(&read_only(), &with(&many)).fix.unwrap();
    assert!(
        fix.objects.is_empty() && fix.warnings[0].contains("at most 32 headers"),
        "{fix:?}"
    );
}

/// The host is in every request that a proxy evaluates, whichever client sent the query.
// Claims: observe-25
#[test]
fn host_dependent_verdict_is_unknown_until_host_is_given() {
    let hosts = json!([{"name": "cart", "headers": [{"host": "cart(\\..*)?"}]}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "hosts"}]);
    let with = |from: &str, host: Option<&str>| {
        let mut query = spec(from, "Service/api", "GET", "/items");
        query.headers.extend(host.map(|host| Header {
            name: "Host".to_owned(),
            value: host.to_owned(),
        }));
        query
    };
    let ruled = shop().with(group("hosts", hosts.clone())).with(target(
        "cart",
        "api",
        &["web"],
        rules.clone(),
    ));
    let status = explain(&ruled, &with("Pod/client", None));
    assert_eq!(status.verdict, ExplanationVerdict::Unknown, "{status:?}");
    assert!(status.reason.contains("-H 'host: "), "{status:?}");
    assert_eq!((status.http_status, &status.fix), (None, &None));
    assert_eq!(status.backends[0].verdict, ExplanationVerdict::Unknown);
    let verdict =
        |cluster: &Cluster, host| explain(cluster, &with("Pod/client", Some(host))).verdict;
    assert_eq!(verdict(&ruled, "cart.shop"), ExplanationVerdict::Allowed);
    assert_eq!(verdict(&ruled, "other"), ExplanationVerdict::Refused);
    // A caller that no host would admit is refused at once.
    let status = explain(&ruled, &with("ServiceAccount/other", None));
    assert_eq!(status.verdict, ExplanationVerdict::Refused, "{status:?}");
    // So is a caller that is let in whatever the host is.
    let all = json!([{"kind": "HTTPRouteGroup", "name": "all"}]);
    let both = ruled
        .with(group("all", json!([{"name": "all"}])))
        .with(target("all", "api", &["web"], all));
    let status = explain(&both, &with("Pod/client", None));
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");

    // A split of these hosts leads nowhere.
    let halved = set(split("s", "api", &[("api", 0)]), "/spec/matches", rules);
    let halved = shop().with(group("hosts", hosts)).with(halved);
    let status = explain(&halved, &with("Pod/client", None));
    assert_eq!(
        (status.verdict, &status.fix),
        (ExplanationVerdict::Unknown, &None)
    );
    assert_eq!(verdict(&halved, "cart.shop"), ExplanationVerdict::Refused);
    assert_eq!(verdict(&halved, "other"), ExplanationVerdict::Allowed);
}

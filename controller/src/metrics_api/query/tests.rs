//! Which pods and which time a query means.
//!
//! Claims: observe-13

use super::*;
use crate::aggregated::refusal::Refusal;

fn path(text: &str) -> MetricsPath {
    MetricsPath::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn attributes(text: &str) -> (String, String) {
    let it = path(text).attributes();
    let resource = match it.subresource {
        "" => it.resource.to_owned(),
        sub => format!("{}/{sub}", it.resource),
    };
    (
        format!("{} {resource}", it.verb),
        format!("{}/{}", it.namespace, it.name),
    )
}

#[test]
fn metrics_path_checks_same_permission_as_api_server() {
    for (text, what, scope) in [
        ("v1alpha1/deployments", "list deployments", "/"),
        ("v1alpha2/namespaces", "list namespaces", "/"),
        ("v1alpha1/namespaces/shop", "get namespaces", "shop/shop"),
        ("v1alpha1/namespaces/shop/edges", "list edges", "shop/"),
        ("v1alpha1/namespaces/shop/pods", "list pods", "shop/"),
        ("v1alpha1/namespaces/shop/endless", "", ""),
        ("v1alpha1/namespaces/shop/jobs/x", "get jobs", "shop/x"),
        (
            "v1alpha1/namespaces/shop/jobs/x/edges",
            "get jobs/edges",
            "shop/x",
        ),
        ("v1alpha1/nodes/n1", "get nodes", "/n1"),
        ("v1alpha1/nodes/n1/edges", "get nodes/edges", "/n1"),
    ] {
        if what.is_empty() {
            assert_eq!(MetricsPath::parse(text), Err(Mistake::NotFound), "{text}");
        } else {
            assert_eq!(
                attributes(text),
                (what.to_owned(), scope.to_owned()),
                "{text}"
            );
        }
    }
}

#[test]
fn paths_that_are_none_are_not_guessed() {
    for text in [
        "",
        "v1",
        "v1alpha1",
        "v1alpha3/pods",
        "v1alpha1/cronjobs",
        "v1alpha1/pods/x",
        "v1alpha1/namespaces/shop/nodes/n1",
        "v1alpha1/namespaces/shop/pods/x/log",
        "v1alpha1/namespaces/shop/pods/x/edges/y",
        "v1alpha1//pods",
        "v1alpha1/namespaces//pods",
    ] {
        assert_eq!(MetricsPath::parse(text), Err(Mistake::NotFound), "{text}");
    }
}

fn parameters(query: &str) -> Result<Parameters, Mistake> {
    Parameters::parse(query, &path("v1alpha1/namespaces/shop/pods"))
}

#[test]
fn metrics_window_is_interval_aligned_and_lags_five_seconds() {
    let at = |seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    for (query, window) in [
        ("", 30),
        ("t=", 30),
        ("t=1m", 60),
        ("window=12s", 15),
        ("t=300s", 300),
        ("t=1ms", 5),
    ] {
        let parameters = parameters(query).unwrap();
        assert_eq!(parameters.window.as_secs(), window, "{query}");
        for (now, end) in [(1000, 995), (1004, 995), (1005, 1000)] {
            let (first, last) = parameters.intervals(at(now));
            assert_eq!(
                (last * INTERVAL, (last - first) * INTERVAL),
                (end, window),
                "{query} at {now}"
            );
        }
    }
}

#[test]
fn page_token_continues_only_in_retained_window() {
    let now = interval_of(SystemTime::now());
    let read = |end: u64| parameters(&format!("continue={end}-7"));
    for end in [0, now - 100, now + 10, u64::MAX] {
        let Err(Mistake::Expired(name, why)) = read(end) else {
            panic!("{end} was read");
        };
        assert_eq!(name, "continue");
        // What client-go's pager takes for the sign to begin anew.
        let refusal = Refusal::from(Mistake::Expired(name, why));
        assert_eq!((refusal.code.as_u16(), refusal.reason), (410, "Expired"));
        let why = refusal.message;
        assert!(why.contains("ask again without it"), "{why}");
    }
    for end in [now - 1, now - 50] {
        let from = read(end).unwrap().from;
        assert_eq!(from, Some(Continue { end, seen: 7 }));
    }
}

#[test]
fn page_limit_is_capped_at_unpaged_maximum() {
    for (asked, given) in [(100_000, 20_000), (500, 500), (0, 0)] {
        let read = parameters(&format!("limit={asked}")).unwrap();
        assert_eq!(read.limit, given, "{asked}");
    }
}

#[test]
fn wrong_parameter_is_named_and_not_replaced() {
    for (query, name) in [
        ("t=30", "t"),
        ("t=0s", "t"),
        ("t=301s", "t"),
        ("window=-5s", "window"),
        ("t=1m&window=1m", "window"),
        ("side=middle", "side"),
        ("edge-kind=services", "edge-kind"),
        ("labelSelector=a%3D%3D%3Db", "labelSelector"),
        ("fieldSelector=metadata.name%3Dx", "fieldSelector"),
        ("limit=many", "limit"),
        ("continue=xyz", "continue"),
    ] {
        match parameters(query) {
            Err(Mistake::BadParameter(named, _)) => assert_eq!(named, name, "{query}"),
            other => panic!("{query}: {other:?}"),
        }
    }
    let services = path("v1alpha1/namespaces/shop/services");
    assert!(Parameters::parse("side=server", &services).is_err());
    assert!(Parameters::parse("side=client", &services).is_ok());
}

//! Which lines of the manual an answer names.

use crds::observe::RecentCalls;

use super::places::http_and_https;
use super::*;
use crate::explain::of_seen_calls;

/// The anchors that an answer names.
fn anchors(status: &ExplanationStatus) -> String {
    let anchor = |text: &String| {
        let (_, anchor) = text.split_once("(docs/applications.md#").unwrap();
        anchor.trim_end_matches(')').to_owned()
    };
    let anchors: Vec<String> = texts(status, "see").iter().map(anchor).collect();
    anchors.join(" ")
}

fn bytes(query: ExplanationSpec) -> ExplanationSpec {
    ExplanationSpec {
        tcp: true,
        method: None,
        path: None,
        ..query
    }
}

#[test]
fn call_names_the_manuals_line_that_it_meets() {
    let strict = annotate(namespace("shop"), "weft.dev/mtls", "strict");
    let excepted = annotate(strict.clone(), "weft.dev/permissive-ports", "8080");
    let to_service = spec("Pod/client", "Service/api", "GET", "/");
    let mut to_https = to_service.clone();
    to_https.to.port = Some(80);
    let headless = || shop().with(service("api", "None", &[("http", 80)]));
    for (cluster, query, expected) in [
        (shop(), to_service.clone(), ""),
        (shop(), outside("Service/api"), ""),
        (
            shop(),
            spec("Pod/client", "Pod/api-1", "GET", "/"),
            "pod-address",
        ),
        (headless(), to_service.clone(), "headless-name"),
        // Without a proxy the client sees which address cannot be connected to.
        (headless(), outside("Service/api"), ""),
        (
            shop().with(strict.clone()),
            outside("Service/api"),
            "outside-to-strict",
        ),
        (
            shop().with(excepted),
            outside("Service/api"),
            "outside-to-strict",
        ),
        (shop().with(strict), to_service.clone(), ""),
        (shop(), bytes(to_service.clone()), "foreign-bytes"),
        (http_and_https(), to_https, "http-and-tls"),
    ] {
        let status = explain(&cluster, &query);
        assert_eq!(anchors(&status), expected, "{query:?}: {status:?}");
    }
}

#[test]
fn refused_calls_name_the_line_that_they_met() {
    let seen = |reason: &str| RecentCalls {
        refused: [(reason.to_owned(), 3)].into(),
        ..RecentCalls::default()
    };
    for (reason, end) in [
        ("limit", "(docs/applications.md#below-limit)"),
        ("bad-request", "(docs/applications.md#foreign-bytes)"),
    ] {
        let steps = of_seen_calls(&seen(reason));
        assert!(
            steps.len() == 1 && steps[0].text.ends_with(end),
            "{steps:?}"
        );
    }
    assert_eq!(of_seen_calls(&seen("not-allowed")), []);
}

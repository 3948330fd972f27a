//! No conversion widens what objects allow, whatever the annotation holds.
//!
//! The oracle reads the visible text of each version by its specification and
//! knows nothing of storage or annotations.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{SmiKind, SmiVersion, VERSIONS, annotation, generate, stored, to, with_annotation};
use crate::convert::annotation::Lossless;
use crate::convert::{fragment, hidden, shape};
use SmiVersion::{V1alpha1, V1alpha2, V1alpha3, V1alpha4};

#[derive(Debug)]
struct Request {
    source: (&'static str, &'static str),
    port: u64,
    /// Path, method and the value of `x-a`; none is raw TCP.
    http: Option<(&'static str, &'static str, Option<&'static str>)>,
}

fn requests() -> Vec<Request> {
    let mut all = Vec::new();
    for source in [("shop", "a"), ("shop", "b"), ("other", "a"), ("other", "c")] {
        for port in [80, 8080, 9090] {
            let mut https = vec![None];
            for path in ["/a", "/b"] {
                for method in ["GET", "PUT"] {
                    https.extend([None, Some("1"), Some("2")].map(|h| Some((path, method, h))));
                }
            }
            all.extend(https.into_iter().map(|http| Request { source, port, http }));
        }
    }
    all
}

fn version_of(object: &Value) -> SmiVersion {
    let name = object["apiVersion"].as_str().unwrap();
    *VERSIONS.iter().find(|v| name.ends_with(v.name())).unwrap()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What target, group and route, each in its own version, allow together.
fn allows(target: &Value, group: &Value, route: &Value, request: &Request) -> bool {
    let (spec, rules) = match version_of(target) {
        V1alpha1 => (target, &target["specs"]),
        _ => (&target["spec"], &target["spec"]["rules"]),
    };
    let port_fits = match (version_of(target), &spec["destination"]["port"]) {
        (V1alpha3, _) | (_, Value::Null) => true,
        (_, Value::String(text)) => *text == request.port.to_string(),
        (_, port) => port.as_u64() == Some(request.port),
    };
    let source_fits = items(&spec["sources"]).iter().any(|source| {
        source["kind"] == "ServiceAccount"
            && source["name"] == request.source.1
            && source["namespace"].as_str().unwrap_or("shop") == request.source.0
    });
    let tcp: Vec<bool> = items(rules)
        .iter()
        .filter(|rule| rule["kind"] == "TCPRoute")
        .map(|_| route_fits(route, request.port))
        .collect();
    let http: Vec<bool> = items(rules)
        .iter()
        .filter(|rule| rule["kind"] == "HTTPRouteGroup")
        .map(|rule| group_fits(group, &rule["matches"], request))
        .collect();
    let traffic_fits = match (&request.http, http.is_empty(), tcp.is_empty()) {
        (Some(_), false, _) => http.contains(&true) && (tcp.is_empty() || tcp.contains(&true)),
        (_, _, _) => tcp.contains(&true),
    };
    port_fits && source_fits && traffic_fits
}

fn route_fits(route: &Value, port: u64) -> bool {
    if version_of(route) < V1alpha4 {
        return true;
    }
    let ports = items(&route["spec"]["matches"]["ports"]);
    ports.is_empty() || ports.contains(&json!(port))
}

fn group_fits(group: &Value, names: &Value, request: &Request) -> bool {
    let Some((path, method, header)) = request.http else {
        return false;
    };
    let version = version_of(group);
    let matches = if version < V1alpha3 {
        &group["matches"]
    } else {
        &group["spec"]["matches"]
    };
    items(matches).iter().any(|one| {
        let named = names.is_null() || items(names).contains(&one["name"]);
        let path_fits = one["pathRegex"]
            .as_str()
            .is_none_or(|p| path.starts_with(p));
        let methods = &one["methods"];
        let method_fits =
            methods.is_null() || items(methods).iter().any(|m| m == "*" || m == method);
        let wanted: Vec<(&String, &Value)> = match &one["headers"] {
            _ if version == V1alpha1 => vec![],
            Value::Object(map) => map.iter().collect(),
            list => items(list)
                .iter()
                .flat_map(|e| e.as_object().unwrap())
                .collect(),
        };
        let headers_fit = wanted
            .iter()
            .all(|(name, value)| *name == "x-a" && header.is_some_and(|h| *value == h));
        named && path_fits && method_fits && headers_fit
    })
}

/// Shares of a split in the plain sense: weight by weight, as cross-multiplied ratios.
fn same_shares(a: &[f64], b: &[f64]) -> bool {
    let (sum_a, sum_b): (f64, f64) = (a.iter().sum(), b.iter().sum());
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(x, y)| (x * sum_b - y * sum_a).abs() <= 1e-9 * sum_a * sum_b)
}

fn shares(split: &Value) -> Vec<f64> {
    let backends = items(&split["spec"]["backends"]).iter();
    backends
        .map(|backend| match &backend["weight"] {
            Value::String(text) => match text.as_str() {
                "1" => 1.0,
                "500m" | "0.5" => 0.5,
                "1k" | "1e3" => 1000.0,
                "100m" => 0.1,
                "1500m" => 1.5,
                "100" => 100.0,
                other => panic!("{other}"),
            },
            weight => weight.as_f64().unwrap_or(0.0),
        })
        .collect()
}

fn world(version: SmiVersion) -> impl Strategy<Value = [Value; 3]> {
    (
        generate::written(SmiKind::TrafficTarget, version),
        generate::written(SmiKind::HttpRouteGroup, version),
        generate::written(SmiKind::TcpRoute, version),
    )
        .prop_map(Into::into)
}

fn any_version() -> impl Strategy<Value = SmiVersion> {
    proptest::sample::select(&VERSIONS[..])
}

fn older() -> impl Strategy<Value = SmiVersion> {
    proptest::sample::select(vec![V1alpha1, V1alpha2, V1alpha3])
}

/// A note with any text of its forger, with hashes that fit.
fn forged(kind: SmiKind, view: &Value, other_stored: &Value) -> Option<String> {
    let version = version_of(view);
    let visible = fragment::take_content(&mut view.as_object().unwrap().clone());
    let other = fragment::take_content(&mut other_stored.as_object().unwrap().clone());
    let fragments = shape::to_version(kind, version, &other).fragments;
    let note = Lossless {
        hidden: hidden::hide(kind, version, &visible, fragments, &other, true),
        ..Lossless::default()
    };
    note.text()
}

const KINDS: [SmiKind; 3] = [
    SmiKind::TrafficTarget,
    SmiKind::HttpRouteGroup,
    SmiKind::TcpRoute,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn storage_allows_exactly_what_the_author_wrote(
        written in any_version().prop_flat_map(world)
    ) {
        let kept = written.each_ref().map(stored);
        for request in requests() {
            prop_assert_eq!(
                allows(&kept[0], &kept[1], &kept[2], &request),
                allows(&written[0], &written[1], &written[2], &request),
                "{:?}", request
            );
        }
    }

    #[test]
    fn a_visit_to_an_older_version_changes_no_decision(
        written in any_version().prop_flat_map(world), visited in older()
    ) {
        let before = written.each_ref().map(stored);
        let after = before.each_ref().map(|object| stored(&to(object, visited)));
        for request in requests() {
            prop_assert_eq!(
                allows(&before[0], &before[1], &before[2], &request),
                allows(&after[0], &after[1], &after[2], &request)
            );
        }
    }

    #[test]
    fn forged_or_stale_annotation_never_allows_more(
        (version, visible) in older().prop_flat_map(|v| (Just(v), world(v))),
        other in world(V1alpha4),
        forge in any::<bool>(),
    ) {
        let mut views = visible;
        for (i, kind) in KINDS.into_iter().enumerate() {
            let foreign = stored(&other[i]);
            let note = if forge {
                forged(kind, &views[i], &foreign)
            } else {
                annotation(&to(&foreign, version))
            };
            if let Some(note) = note {
                views[i] = with_annotation(views[i].clone(), &note);
            }
        }
        let kept = views.each_ref().map(stored);
        for request in requests() {
            prop_assert!(
                !allows(&kept[0], &kept[1], &kept[2], &request)
                    || allows(&views[0], &views[1], &views[2], &request),
                "{:?}\n{}\n{}", request, Value::from(views.to_vec()), Value::from(kept.to_vec())
            );
        }
    }

    #[test]
    fn an_added_source_opens_nothing_for_the_others(
        written in world(V1alpha4), visited in older()
    ) {
        let before = written.each_ref().map(stored);
        let mut views = before.each_ref().map(|object| to(object, visited));
        let sources = if visited == V1alpha1 {
            views[0].as_object_mut().unwrap().entry("sources")
        } else {
            views[0]["spec"].as_object_mut().unwrap().entry("sources")
        };
        let sources = sources.or_insert(json!([])).as_array_mut().unwrap();
        sources.insert(0, json!({"kind": "ServiceAccount", "name": "new", "namespace": "shop"}));
        let after = views.each_ref().map(stored);
        for request in requests() {
            prop_assert_eq!(
                allows(&before[0], &before[1], &before[2], &request),
                allows(&after[0], &after[1], &after[2], &request)
            );
        }
    }

    #[test]
    fn every_version_shows_the_same_shares(
        written in any_version().prop_flat_map(|v| generate::written(SmiKind::TrafficSplit, v))
    ) {
        let meant = shares(&written);
        for version in VERSIONS {
            let read = to(&written, version);
            prop_assert!(same_shares(&meant, &shares(&read)), "{} {}", written, read);
        }
    }

    #[test]
    fn whole_weights_are_the_same_numbers_in_every_version(
        weights in proptest::collection::vec(0..=1000i32, 1..5), text in any::<bool>()
    ) {
        let backends: Vec<Value> = weights
            .iter()
            .map(|w: &i32| json!({
                "service": "s",
                "weight": if text { json!(w.to_string()) } else { json!(w) },
            }))
            .collect();
        let content = json!({"spec": {"service": "s", "backends": backends}});
        let split = super::object(SmiKind::TrafficSplit, V1alpha1, content);
        for version in [V1alpha2, V1alpha3, V1alpha4] {
            let read = to(&split, version);
            for (i, weight) in weights.iter().enumerate() {
                prop_assert_eq!(&read["spec"]["backends"][i]["weight"], &json!(weight));
            }
        }
        prop_assert_eq!(to(&stored(&split), V1alpha1), split);
    }
}

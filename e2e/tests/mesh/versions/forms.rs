//! What one object looks like in every version, field by field.

use serde_json::{Value, json};

/// A kind with all its versions.
pub(super) struct KindForms {
    pub(super) group: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    pub(super) forms: Vec<Form>,
}

/// One meaning, as the four versions show it.
pub(super) struct Form {
    pub(super) name: &'static str,
    /// Versions, as numbers, whose text says all of it; others show a part.
    pub(super) written_in: &'static [usize],
    /// What stands beside `metadata`, by version.
    pub(super) views: [Value; 4],
    /// A field that every version shows, by version, and what an update makes of it. A
    /// TCPRoute has none.
    pub(super) change: Option<([&'static str; 4], Value)>,
}

impl Form {
    /// The views after the update.
    pub(super) fn changed(&self) -> [Value; 4] {
        let mut views = self.views.clone();
        if let Some((pointers, value)) = &self.change {
            for (view, pointer) in views.iter_mut().zip(pointers) {
                if let Some(field) = view.pointer_mut(pointer) {
                    field.clone_from(value);
                }
            }
        }
        views
    }
}

pub(super) fn traffic_target() -> KindForms {
    const SOURCE: [&str; 4] = [
        "/sources/0/name",
        "/spec/sources/0/name",
        "/spec/sources/0/name",
        "/spec/sources/0/name",
    ];
    let account = |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": "$NS"});
    let with_port = |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": "$NS", "port": 8080});
    let rules = json!([
        {"kind": "HTTPRouteGroup", "name": "routes", "matches": ["metrics", "health"]},
        {"kind": "TCPRoute", "name": "ports"},
    ]);
    let sources = json!([account("prometheus"), {"kind": "ServiceAccount", "name": "admin"}]);
    let top = |destination: Value| json!({"destination": destination, "sources": sources, "specs": rules});
    let spec = |destination: Value| json!({"spec": {"destination": destination, "sources": sources, "rules": rules}});
    let binding = |group: bool| {
        let mut subject = json!({"kind": "IdentityBinding", "name": "crawlers"});
        if group {
            subject["group"] = "access.smi-spec.io".into();
        }
        subject
    };
    let bound = |group: bool| {
        let destination = with_port("web");
        json!({"destination": destination, "sources": [binding(group)], "rules": rules})
    };
    let mut third = bound(false);
    if let Some(destination) = third["destination"].as_object_mut() {
        destination.remove("port");
    }
    let mut first = bound(false);
    first["specs"] = first["rules"].take();
    if let Some(first) = first.as_object_mut() {
        first.remove("rules");
    }
    KindForms {
        group: "access.smi-spec.io",
        kind: "TrafficTarget",
        plural: "traffictargets",
        forms: vec![
            Form {
                name: "port",
                written_in: &[1, 2, 4],
                views: [
                    top(with_port("web")),
                    spec(with_port("web")),
                    spec(account("web")),
                    spec(with_port("web")),
                ],
                change: Some((SOURCE, "grafana".into())),
            },
            Form {
                name: "plain",
                written_in: &[1, 2, 3, 4],
                views: [
                    top(account("web")),
                    spec(account("web")),
                    spec(account("web")),
                    spec(account("web")),
                ],
                change: Some((SOURCE, "grafana".into())),
            },
            Form {
                name: "group",
                written_in: &[4],
                views: [
                    first,
                    json!({"spec": bound(false)}),
                    json!({"spec": third}),
                    json!({"spec": bound(true)}),
                ],
                change: Some((
                    [
                        "/destination/name",
                        "/spec/destination/name",
                        "/spec/destination/name",
                        "/spec/destination/name",
                    ],
                    "shop".into(),
                )),
            },
        ],
    }
}

pub(super) fn http_route_group() -> KindForms {
    const PATH: [&str; 4] = [
        "/matches/0/pathRegex",
        "/matches/0/pathRegex",
        "/spec/matches/0/pathRegex",
        "/spec/matches/0/pathRegex",
    ];
    let group = |headers: Option<Value>| {
        let mut one = json!({"name": "android", "pathRegex": "/app", "methods": ["GET", "HEAD"]});
        if let Some(headers) = headers {
            one["headers"] = headers;
        }
        json!([one, {"name": "rest", "methods": ["*"]}])
    };
    let views = |headers: Option<Value>| {
        [
            json!({"matches": group(None)}),
            json!({"matches": group(headers.clone())}),
            json!({"spec": {"matches": group(headers.clone())}}),
            json!({"spec": {"matches": group(headers)}}),
        ]
    };
    // Neither in the order of their names, so that a map in between would show.
    let list = json!([{"x-user": "[0-9]+"}, {"user-agent": ".*Android.*"}]);
    let map = json!({"x-user": "[0-9]+", "user-agent": ".*Android.*"});
    let change = || Some((PATH, "/app/v2".into()));
    KindForms {
        group: "specs.smi-spec.io",
        kind: "HTTPRouteGroup",
        plural: "httproutegroups",
        forms: vec![
            Form {
                name: "plain",
                written_in: &[1, 2, 3, 4],
                views: views(None),
                change: change(),
            },
            Form {
                name: "list",
                written_in: &[2, 3, 4],
                views: views(Some(list)),
                change: change(),
            },
            Form {
                name: "map",
                written_in: &[2, 3, 4],
                views: views(Some(map)),
                change: change(),
            },
        ],
    }
}

pub(super) fn tcp_route() -> KindForms {
    let views = |stored: Value| [json!({}), json!({}), json!({"spec": {}}), stored];
    KindForms {
        group: "specs.smi-spec.io",
        kind: "TCPRoute",
        plural: "tcproutes",
        forms: vec![
            Form {
                name: "all",
                written_in: &[1, 2, 3, 4],
                views: views(json!({"spec": {"matches": {"ports": []}}})),
                change: None,
            },
            Form {
                name: "ports",
                written_in: &[4],
                views: views(json!({"spec": {"matches": {"name": "db", "ports": [5432, 8300]}}})),
                change: None,
            },
        ],
    }
}

pub(super) fn traffic_split() -> KindForms {
    const BACKEND: &str = "/spec/backends/0/service";
    let spec = |weights: [Value; 2], matches: Option<Value>| {
        let [one, two] = weights;
        let mut spec = json!({"service": "website", "backends": [
            {"service": "website-v1", "weight": one}, {"service": "website-v2", "weight": two},
        ]});
        if let Some(matches) = matches {
            spec["matches"] = matches;
        }
        json!({"spec": spec})
    };
    let whole = |matches: Option<Value>| spec([json!(90), json!(10)], matches);
    let thousandths = || spec([json!(1000), json!(500)], None);
    let matches = || {
        json!([
            {"apiGroup": "specs.smi-spec.io", "kind": "HTTPRouteGroup", "name": "ab-test"},
            {"kind": "HTTPRouteGroup", "name": "firefox"},
        ])
    };
    let change = || Some(([BACKEND; 4], "website-v3".into()));
    KindForms {
        group: "split.smi-spec.io",
        kind: "TrafficSplit",
        plural: "trafficsplits",
        forms: vec![
            Form {
                name: "whole",
                written_in: &[1, 2, 3, 4],
                views: [whole(None), whole(None), whole(None), whole(None)],
                change: change(),
            },
            Form {
                name: "fractions",
                written_in: &[1],
                views: [
                    spec([json!("1"), json!("500m")], None),
                    thousandths(),
                    thousandths(),
                    thousandths(),
                ],
                change: change(),
            },
            Form {
                name: "matches",
                written_in: &[3, 4],
                views: [
                    whole(None),
                    whole(None),
                    whole(Some(matches())),
                    whole(Some(matches())),
                ],
                change: change(),
            },
        ],
    }
}

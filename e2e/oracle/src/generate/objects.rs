//! Random SMI objects, in every version.

use serde_json::{Map, Value, json};

use super::vocabulary::Vocabulary;
use crate::random::Random;

/// The last of each does not exist.
const GROUPS: [&str; 5] = ["routes", "more", "routes", "more", "gone"];
const TCP_ROUTES: [&str; 5] = ["ports", "all", "ports", "all", "lost"];
const BINDINGS: [&str; 3] = ["front", "friends", "absent"];
const MATCHES: [&str; 4] = ["read", "write", "admin", "none"];

/// What paths are described with; the second half only by mistake.
const PATHS: [&str; 20] = [
    "/api",
    "/api/.*",
    "/api(/.*)?$",
    "/a|/b",
    "^/api$",
    ".*",
    "/(api|web)/[0-9]+",
    "/[a-z]+/v1",
    "(?i)/ADMIN",
    "",
    "/web",
    r"/.*\.html",
    "/admin",
    "/api/v[12]",
    "(",
    "/api)|(/b",
    "[",
    r"/\p{Greek}",
    "(?:(?:a{1000}){1000}){1000}",
    "(?x)/api # all",
];
/// How many of the paths can be used.
const SOUND_PATHS: usize = 14;
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "*", "get", "PATCH"];
const HEADERS: [(&str, &str); 9] = [
    ("x-role", "admin"),
    ("X-Role", "admin|user"),
    ("x-role", ".*"),
    ("cookie", ".*user=a.*"),
    ("host", "api.*"),
    ("x-role", "adm"),
    ("user-agent", ".*Android.*"),
    ("cookie", "user=a; b=c"),
    ("x-many", "a+"),
];

/// An object with its fields where the version has them.
fn object(
    random: &mut Random,
    vocabulary: &Vocabulary,
    kind: &str,
    group: &str,
    names: &[&str],
) -> Value {
    let home = if random.percent(85) {
        vocabulary.namespaces[0]
    } else {
        random.pick(vocabulary.namespaces)
    };
    json!({
        "apiVersion": group,
        "kind": kind,
        "metadata": {
            "name": random.pick(names), "namespace": home, "uid": "u", "generation": 1,
            "creationTimestamp": format!("2026-01-01T00:00:{:02}Z", random.below(3)),
        },
    })
}

fn finish(
    random: &mut Random,
    vocabulary: &Vocabulary,
    mut object: Value,
    version: u32,
    spec: Value,
    at_top: bool,
) -> Value {
    let group = object["apiVersion"].as_str().unwrap_or_default();
    object["apiVersion"] = json!(format!("{group}/v1alpha{version}"));
    let mut content = if at_top {
        spec
    } else {
        json!({ "spec": spec })
    };
    if vocabulary.mistakes && random.percent(5) {
        spoil(random, &mut content);
    }
    if let (Value::Object(object), Value::Object(content)) = (&mut object, content) {
        object.extend(content);
    }
    object
}

/// Puts something odd in the place of one value, or takes it away.
fn spoil(random: &mut Random, content: &mut Value) {
    let mut found = Vec::new();
    pointers("", content, &mut found);
    let at = random.of(&found);
    let odd = random.of(&[
        json!(null),
        json!("text"),
        json!(-1.5),
        json!(70000),
        json!([]),
        json!({}),
        json!({"unknown": [1]}),
        json!(true),
    ]);
    if at.is_empty() {
        content["unknown"] = odd;
    } else if let Some(value) = content.pointer_mut(&at) {
        *value = odd;
    }
}

/// Adds where everything in `value` is, which is at `at` itself: JSON pointers.
pub fn pointers(at: &str, value: &Value, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(key, value)| pointers(&format!("{at}/{key}"), value, found)),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(i, value)| pointers(&format!("{at}/{i}"), value, found)),
        _ => {}
    }
}

fn subject(random: &mut Random, vocabulary: &Vocabulary, source: bool) -> Map<String, Value> {
    let mut subject = Map::new();
    let kind = match random.below(100) {
        0..60 => "ServiceAccount",
        _ if !source && random.percent(80) => "ServiceAccount",
        _ if !source => "IdentityBinding",
        60..78 => "Group",
        78..96 => "IdentityBinding",
        _ if !vocabulary.mistakes => "ServiceAccount",
        _ => "User",
    };
    let kind = if vocabulary.mistakes && !source && random.percent(4) {
        random.pick(&["IdentityBinding", "Group", ""])
    } else {
        kind
    };
    let name = match kind {
        "Group" if vocabulary.mistakes => random.pick(&[
            "system:authenticated",
            "system:unauthenticated",
            "system:authenticated",
            "system:unauthenticated",
            "*",
        ]),
        "Group" => random.pick(&["system:authenticated", "system:unauthenticated"]),
        "IdentityBinding" => random.pick(&BINDINGS),
        _ if vocabulary.mistakes && random.percent(2) => random.pick(&["", "a/b", "*"]),
        _ => random.pick(vocabulary.accounts),
    };
    subject.insert("kind".into(), json!(kind));
    subject.insert("name".into(), json!(name));
    subject
}

pub(super) fn target(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let version = 1 + random.below(4) as u32;
    let names = ["one", "two", "three", "four", "five", "six"];
    let object = object(
        random,
        vocabulary,
        "TrafficTarget",
        "access.smi-spec.io",
        &names,
    );
    let home = object["metadata"]["namespace"].clone();
    let mut destination = subject(random, vocabulary, false);
    match random.below(20) {
        0..3 => drop(destination.insert("namespace".into(), home)),
        3 if vocabulary.mistakes => {
            let other = random.pick(vocabulary.namespaces);
            destination.insert("namespace".into(), json!(other));
        }
        4 => drop(destination.insert("namespace".into(), json!(""))),
        _ => {}
    }
    if version != 3 && random.percent(if version < 3 { 30 } else { 8 }) {
        let mut port = json!(random.of(vocabulary.ports));
        if version == 1 && random.percent(30) {
            port = json!(port.to_string());
        }
        if vocabulary.mistakes && random.percent(5) {
            port = random.of(&[json!(0), json!(70000), json!("http")]);
        }
        destination.insert("port".into(), port);
    }
    let mut sources = Vec::new();
    let most = usize::from(!vocabulary.mistakes || random.percent(95)) * 3;
    for _ in 0..most.min(1 + random.below(3)) {
        let mut source = subject(random, vocabulary, true);
        if random.percent(50) && source["kind"] != "Group" {
            source.insert(
                "namespace".into(),
                json!(random.pick(vocabulary.namespaces)),
            );
        }
        if version < 3 && random.percent(5) {
            source.insert("port".into(), json!(random.of(vocabulary.ports)));
        }
        sources.push(Value::Object(source));
    }
    let mut rules = Vec::new();
    let most = usize::from(!vocabulary.mistakes || random.percent(95)) * 3;
    for _ in 0..most.min(1 + random.below(3)) {
        rules.push(rule(random, vocabulary));
    }
    let field = if version == 1 { "specs" } else { "rules" };
    let spec = json!({"destination": destination, "sources": sources, field: rules});
    finish(random, vocabulary, object, version, spec, version == 1)
}

fn rule(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    match random.below(20) {
        0..11 => {
            let mut rule = json!({"kind": "HTTPRouteGroup", "name": random.pick(&GROUPS)});
            if random.percent(50) {
                let least = usize::from(!vocabulary.mistakes || random.percent(95));
                let names: Vec<&str> = (0..least * (1 + random.below(2)))
                    .map(|_| random.pick(&MATCHES))
                    .collect();
                rule["matches"] = json!(names);
            }
            rule
        }
        11..18 => json!({"kind": "TCPRoute", "name": random.pick(&TCP_ROUTES)}),
        18 if vocabulary.mistakes => json!({"kind": "UDPRoute", "name": "datagrams"}),
        19 if vocabulary.mistakes => json!({"kind": "Pigeon", "name": "routes"}),
        _ => json!({"kind": "TCPRoute", "name": "all"}),
    }
}

pub(super) fn group(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let version = 1 + random.below(4) as u32;
    let object = object(
        random,
        vocabulary,
        "HTTPRouteGroup",
        "specs.smi-spec.io",
        &GROUPS[..2],
    );
    let mut matches: Vec<Value> = Vec::new();
    for _ in 0..1 + random.below(3) {
        let name = random.pick(&MATCHES[..3]);
        if !vocabulary.mistakes && matches.iter().any(|one| one["name"] == name) {
            continue;
        }
        let mut one = json!({ "name": name });
        if random.percent(70) {
            let sound = !vocabulary.mistakes || random.percent(90);
            one["pathRegex"] = json!(if sound {
                random.pick(&PATHS[..SOUND_PATHS])
            } else {
                random.pick(&PATHS)
            });
            if vocabulary.mistakes && random.percent(1) {
                one["pathRegex"] = json!("x".repeat(1025));
            }
        }
        if random.percent(50) {
            let methods: Vec<&str> = (0..random.below(4))
                .map(|_| random.pick(&METHODS))
                .collect();
            one["methods"] = json!(methods);
            if vocabulary.mistakes && random.percent(3) {
                one["methods"] = json!(["GET", random.pick(&["", "G T"])]);
            }
        }
        if version > 1 && random.percent(35) {
            one["headers"] = headers(random, vocabulary);
        }
        matches.push(one);
    }
    let spec = json!({ "matches": matches });
    finish(random, vocabulary, object, version, spec, version < 3)
}

fn headers(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let mut list = Vec::new();
    let mut map = Map::new();
    for _ in 0..1 + random.below(2) {
        let (name, pattern) = random.of(&HEADERS);
        list.push(json!({ name: pattern }));
        map.insert(name.into(), json!(pattern));
    }
    if vocabulary.mistakes && random.percent(6) {
        return random.of(&[
            json!([{"x-role": "a", "x-many": "b"}]),
            json!({"x role": "a"}),
            json!({"x-role": 1}),
            json!("x-role"),
            json!({"x-role": "("}),
            json!([]),
        ]);
    }
    if random.percent(50) {
        json!(map)
    } else {
        json!(list)
    }
}

pub(super) fn tcp_route(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let version = 1 + random.below(4) as u32;
    let object = object(
        random,
        vocabulary,
        "TCPRoute",
        "specs.smi-spec.io",
        &TCP_ROUTES[..2],
    );
    if version < 3 {
        return finish(random, vocabulary, object, version, json!({}), true);
    }
    let mut spec = json!({});
    if version == 4 && random.percent(90) {
        let mut ports: Vec<i64> = (0..random.below(3))
            .map(|_| i64::from(random.of(vocabulary.ports)))
            .collect();
        if vocabulary.mistakes && random.percent(10) {
            ports.push(random.of(&[0, -1, 70000]));
        }
        spec["matches"] = json!({ "ports": ports });
    }
    finish(random, vocabulary, object, version, spec, false)
}

pub(super) fn binding(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let object = object(
        random,
        vocabulary,
        "IdentityBinding",
        "access.smi-spec.io",
        &BINDINGS[..2],
    );
    let mut schemes = json!({});
    match random.below(3) {
        0 => schemes["serviceAccount"] = json!(random.pick(vocabulary.accounts)),
        1 => {
            let mut labels = json!({"tier": random.pick(&["front", "back"])});
            if random.percent(40) {
                labels["app"] = json!(random.pick(vocabulary.accounts));
            }
            schemes["podLabelSelector"] = json!({ "matchLabels": labels });
        }
        _ => {}
    }
    if random.percent(40) || schemes == json!({}) {
        let ids: Vec<String> = (0..1 + random.below(2))
            .map(|_| {
                let scheme = random.pick(&["spiffe://", ""]);
                let domain = random.pick(&["cluster.local", "cluster.local", "other"]);
                let home = random.pick(vocabulary.namespaces);
                format!(
                    "{scheme}{domain}/ns/{home}/sa/{}",
                    random.pick(vocabulary.accounts)
                )
            })
            .collect();
        schemes["spiffeIdentities"] = json!(ids);
    }
    if vocabulary.mistakes && random.percent(5) {
        schemes["serviceAccount"] = json!(random.pick(vocabulary.accounts));
    }
    let spec = json!({ "schemes": schemes });
    finish(random, vocabulary, object, 4, spec, false)
}

pub(super) fn split(random: &mut Random, vocabulary: &Vocabulary) -> Value {
    let version = 1 + random.below(4) as u32;
    let names = ["canary", "blue", "green"];
    let object = object(
        random,
        vocabulary,
        "TrafficSplit",
        "split.smi-spec.io",
        &names,
    );
    let home = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let spelled = |random: &mut Random, name: &str| match random.below(if vocabulary.mistakes {
        12
    } else {
        10
    }) {
        0 => format!("{name}.{home}"),
        1 => format!("{name}.{home}.svc"),
        2 => format!("{name}.{home}.svc.cluster.local."),
        10 => format!("{name}.elsewhere"),
        11 => format!("{name}.{home}.svc.other"),
        _ => name.to_owned(),
    };
    let mut backends = Vec::new();
    for _ in 0..random.below(4) {
        let name = random.pick(vocabulary.services);
        let mut backend = json!({"service": spelled(random, name)});
        backend["weight"] = match (version, random.below(10)) {
            (1, 0..5) => json!(random.pick(&["1", "500m", "1.5", "2k", "0", "250m"])),
            (_, 5) => json!(0),
            (2.., 6) if vocabulary.mistakes && random.percent(20) => {
                random.of(&[json!(-1), json!(1.5), json!("5"), json!(5_000_000_000i64)])
            }
            _ => json!(random.below(100)),
        };
        backends.push(backend);
    }
    let second = vocabulary
        .services
        .get(1)
        .unwrap_or(&vocabulary.services[0]);
    let root = random.pick(&[vocabulary.services[0], vocabulary.services[0], second]);
    let mut spec = json!({"service": spelled(random, root), "backends": backends});
    if version > 2 && random.percent(50) {
        let references: Vec<Value> = (0..1 + random.below(2))
            .map(|_| {
                let group = &GROUPS[..if random.percent(70) { 4 } else { 5 }];
                let mut one = json!({"kind": "HTTPRouteGroup", "name": random.pick(group)});
                if random.percent(30) {
                    one["apiGroup"] = json!("specs.smi-spec.io");
                }
                if vocabulary.mistakes && random.percent(4) {
                    one["kind"] = json!("TCPRoute");
                }
                one
            })
            .collect();
        spec["matches"] = json!(references);
    }
    finish(random, vocabulary, object, version, spec, false)
}

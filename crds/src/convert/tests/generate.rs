//! Random SMI objects, in the fields that each version has.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};
use serde_json::{Map, Value, json};

use super::{SmiKind, SmiVersion, object};
use SmiVersion::{V1alpha1, V1alpha3, V1alpha4};

type Values = BoxedStrategy<Value>;
type Fields = Vec<(&'static str, BoxedStrategy<Option<Value>>)>;

fn always(values: Values) -> BoxedStrategy<Option<Value>> {
    values.prop_map(Some).boxed()
}

fn maybe(values: Values) -> BoxedStrategy<Option<Value>> {
    proptest::option::of(values).boxed()
}

fn fields(fields: Fields) -> Values {
    let (keys, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
    values
        .prop_map(move |values| {
            let pairs = keys.iter().zip(values);
            let present = pairs.filter_map(|(key, value)| Some(((*key).to_owned(), value?)));
            Value::Object(present.collect::<Map<_, _>>())
        })
        .boxed()
}

fn list(of: Values, most: usize) -> Values {
    vec(of, 0..=most).prop_map(Value::Array).boxed()
}

fn one_of(choices: &'static [&'static str]) -> Values {
    select(choices).prop_map(Value::from).boxed()
}

fn name() -> Values {
    one_of(&["a", "b", "c"])
}

fn port() -> Values {
    select(vec![80, 8080, 9090]).prop_map(Value::from).boxed()
}

fn subject(version: SmiVersion) -> Values {
    let mut of = vec![
        (
            "kind",
            always(one_of(&["ServiceAccount", "IdentityBinding"])),
        ),
        ("name", always(name())),
        ("namespace", maybe(one_of(&["shop", "other"]))),
    ];
    if version != V1alpha3 {
        let text = prop_oneof![4 => port(), 1 => Just(json!("8080"))].boxed();
        of.push((
            "port",
            maybe(if version == V1alpha1 { text } else { port() }),
        ));
    }
    if version == V1alpha4 {
        of.push(("group", maybe(one_of(&["", "access.smi-spec.io"]))));
    }
    fields(of)
}

fn target(version: SmiVersion) -> Values {
    let rule = fields(vec![
        ("kind", always(one_of(&["HTTPRouteGroup", "TCPRoute"]))),
        ("name", always(Just(json!("x")).boxed())),
        ("matches", maybe(list(name(), 2))),
    ]);
    let rules = if version == V1alpha1 {
        "specs"
    } else {
        "rules"
    };
    let spec = fields(vec![
        ("destination", always(subject(version))),
        ("sources", maybe(list(subject(version), 3))),
        (rules, maybe(list(rule, 2))),
    ]);
    if version == V1alpha1 {
        spec
    } else {
        in_spec(spec)
    }
}

fn in_spec(spec: Values) -> Values {
    spec.prop_map(|spec| json!({"spec": spec})).boxed()
}

fn headers() -> Values {
    let map = fields(vec![
        ("x-a", maybe(one_of(&["1", "2"]))),
        ("x-b", maybe(one_of(&["1", "2"]))),
    ]);
    let entry = one_of(&["1", "2"]).prop_map(|value| json!({"x-a": value}));
    prop_oneof![map, list(entry.boxed(), 2)].boxed()
}

fn group(version: SmiVersion) -> Values {
    let mut of = vec![
        ("name", always(name())),
        ("pathRegex", maybe(one_of(&["/a", "/b"]))),
        ("methods", maybe(list(one_of(&["GET", "*"]), 2))),
    ];
    if version > V1alpha1 {
        of.push(("headers", maybe(headers())));
    }
    let matches = fields(vec![("matches", maybe(list(fields(of), 3)))]);
    if version < V1alpha3 {
        matches
    } else {
        in_spec(matches)
    }
}

fn ports() -> Values {
    fields(vec![("ports", maybe(list(port(), 2)))])
}

fn route(version: SmiVersion) -> Values {
    match version {
        V1alpha4 => in_spec(fields(vec![("matches", maybe(ports()))])),
        V1alpha3 => prop_oneof![Just(json!({})), Just(json!({"spec": {}}))].boxed(),
        _ => Just(json!({})).boxed(),
    }
}

fn weight(version: SmiVersion) -> Values {
    let number = (0..=100i32).prop_map(Value::from).boxed();
    if version > V1alpha1 {
        return number;
    }
    let texts = one_of(&["1", "500m", "0.5", "1k", "1e3", "100m", "1500m", "100"]);
    prop_oneof![number, texts].boxed()
}

fn split(version: SmiVersion) -> Values {
    let backend = fields(vec![
        ("service", always(name())),
        ("weight", maybe(weight(version))),
    ]);
    let mut of = vec![
        ("service", always(name())),
        ("backends", maybe(list(backend, 3))),
    ];
    if version >= V1alpha3 {
        let reference = fields(vec![
            ("apiGroup", maybe(one_of(&["specs.smi-spec.io"]))),
            ("kind", always(one_of(&["HTTPRouteGroup"]))),
            ("name", always(name())),
        ]);
        of.push(("matches", maybe(list(reference, 2))));
    }
    in_spec(fields(of))
}

fn binding() -> Values {
    let labels = json!({"podLabelSelector": {"matchLabels": {"app": "a"}}});
    let schemes = prop_oneof![
        Just(labels),
        Just(json!({"serviceAccount": "a", "spiffeIdentities": ["spiffe://c/ns/a/sa/b"]})),
    ];
    in_spec(fields(vec![("schemes", maybe(schemes.boxed()))]))
}

/// An object as an author of that version may write it.
pub(super) fn written(kind: SmiKind, version: SmiVersion) -> Values {
    let content = match kind {
        SmiKind::TrafficTarget => target(version),
        SmiKind::IdentityBinding => binding(),
        SmiKind::HttpRouteGroup => group(version),
        SmiKind::TcpRoute | SmiKind::UdpRoute => route(version),
        SmiKind::TrafficSplit => split(version),
    };
    let extras = (
        proptest::option::of(select(vec!["Accepted", "odd"])),
        proptest::option::of(select(vec!["mine", "{}", r#"{"written":{}}"#])),
    );
    (content, extras)
        .prop_map(move |(content, (status, note))| {
            let mut object = object(kind, version, content);
            if let Some(status) = status {
                object["status"] = json!({"summary": status});
            }
            match note {
                Some(note) => super::with_annotation(object, note),
                None => object,
            }
        })
        .boxed()
}

/// The same with one value somewhere replaced by something odd, or removed.
pub(super) fn odd(kind: SmiKind, version: SmiVersion) -> Values {
    let odd = select(vec![
        json!(null),
        json!("text"),
        json!([1, "2"]),
        json!({"spec": {"matches": [{}]}}),
        json!(-1.5),
        json!(70000),
    ]);
    (
        written(kind, version),
        any::<Index>(),
        proptest::option::of(odd),
    )
        .prop_map(|(mut object, index, odd)| {
            let mut pointers = Vec::new();
            for (key, value) in object.as_object().unwrap() {
                if !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()) {
                    oracle::generate::pointers(&format!("/{key}"), value, &mut pointers);
                }
            }
            if !pointers.is_empty() {
                let pointer = &pointers[index.index(pointers.len())];
                let (parent, key) = pointer.rsplit_once('/').unwrap();
                match (odd, object.pointer_mut(parent).unwrap()) {
                    (Some(odd), _) => *object.pointer_mut(pointer).unwrap() = odd,
                    (None, Value::Object(map)) => {
                        map.remove(key);
                    }
                    (None, Value::Array(list)) => {
                        list.remove(key.parse().unwrap());
                    }
                    _ => {}
                }
            }
            object
        })
        .boxed()
}

/// A kind together with one of its versions.
pub(super) fn kinds() -> impl Strategy<Value = (SmiKind, SmiVersion)> {
    let all: Vec<_> = SmiKind::ALL
        .into_iter()
        .flat_map(|kind| kind.versions().iter().map(move |version| (kind, *version)))
        .collect();
    select(all)
}

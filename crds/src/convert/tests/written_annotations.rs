//! Annotations in the words in which they lie in clusters and in clients' files. A field of
//! ours may get another name; what was written before must read as before.

use serde_json::{Value, json};

use super::{SmiKind, SmiVersion, annotation, object, stored, to, with_annotation};
use SmiVersion::{V1alpha1, V1alpha3, V1alpha4};

/// Of a TrafficTarget in v1alpha3, which has no ports.
const PORT: &str = r#"{"hidden":{"from":"v1alpha3","pieces":[{"at":"/spec/destination","keep":{"port":8080},"of":{"kind":"ServiceAccount","name":"api","namespace":"shop"}}],"seen":"cbaf66061e1926d7","sum":"b06792510a3923a4"}}"#;
/// Of an HTTPRouteGroup in v1alpha1, which has no headers.
const HEADERS: &str = r#"{"hidden":{"from":"v1alpha1","pieces":[{"at":"/spec/matches/0","keep":{"headers":{"x-role":"admin"}},"like":"fe3a286f20fa639f","of":{"name":"admin"}}],"seen":"50eab1fa55a3fa0d","sum":"f4aa6bf4ebc60cd6"}}"#;
/// Of a TCPRoute in v1alpha1, which has nothing.
const WHOLE: &str = r#"{"hidden":{"from":"v1alpha1","seen":"cd1e7ae37e9b5db1","sum":"13cfce66d3383a00","whole":{"spec":{"matches":{"ports":[8080]}}}}}"#;
/// Of a TrafficSplit in storage, which has whole numbers.
const WEIGHTS: &str = r#"{"written":{"v1alpha1":{"weights":["1","500m"]}}}"#;

fn target(destination: &Value) -> Value {
    let source = json!({"kind": "ServiceAccount", "name": "web", "namespace": "shop"});
    let rule = json!({"kind": "TCPRoute", "name": "all"});
    json!({"spec": {"destination": destination, "sources": [source], "rules": [rule]}})
}

#[test]
fn hidden_parts_annotation_format_is_stable() {
    let api = json!({"kind": "ServiceAccount", "name": "api", "namespace": "shop"});
    let port = json!({"kind": "ServiceAccount", "name": "api", "namespace": "shop", "port": 8080});
    let admin = json!({"name": "admin", "pathRegex": "/admin"});
    let headers = json!({"x-role": "admin"});
    let headers = json!({"name": "admin", "pathRegex": "/admin", "headers": headers});
    for (text, kind, version, kept, visible) in [
        (
            PORT,
            SmiKind::TrafficTarget,
            V1alpha3,
            target(&port),
            target(&api),
        ),
        (
            HEADERS,
            SmiKind::HttpRouteGroup,
            V1alpha1,
            json!({"spec": {"matches": [headers]}}),
            json!({"matches": [admin]}),
        ),
        (
            WHOLE,
            SmiKind::TcpRoute,
            V1alpha1,
            json!({"spec": {"matches": {"ports": [8080]}}}),
            json!({}),
        ),
    ] {
        let kept = object(kind, V1alpha4, kept);
        let visible = with_annotation(object(kind, version, visible), text);
        assert_eq!(annotation(&to(&kept, version)).as_deref(), Some(text));
        assert_eq!(stored(&visible), kept, "{text}");
    }
}

#[test]
fn textual_weights_annotation_format_is_stable() {
    let split = |version, [one, two]: [Value; 2]| {
        let backends = json!([{"service": "v1", "weight": one}, {"service": "v2", "weight": two}]);
        let content = json!({"spec": {"service": "root", "backends": backends}});
        object(SmiKind::TrafficSplit, version, content)
    };
    let written = split(V1alpha1, [json!("1"), json!("500m")]);
    let kept = with_annotation(split(V1alpha4, [json!(1000), json!(500)]), WEIGHTS);
    assert_eq!(stored(&written), kept);
    assert_eq!(to(&kept, V1alpha1), written);
}

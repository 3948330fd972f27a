//! Changes of namespaces that do not exist, and the API's warnings about them.
//!
//! Claims: observe-43

use std::io::Write as _;

use http::Method;

use super::*;

/// An API server that has namespaces `shop` and `bank`, to which its mode was applied, and one that
/// its user may not see, `vault`.
fn shop() -> Client {
    let api = FakeApi::default();
    api.put(
        "/api/v1/namespaces/shop",
        json!({"metadata": {"name": "shop"}}),
    );
    let closed = json!({"weft.dev/access": "deny"});
    let applied = namespace("bank", &closed).to_string();
    let mut bank = namespace("bank", &closed);
    let last = "kubectl.kubernetes.io/last-applied-configuration";
    bank["metadata"]["annotations"][last] = json!(applied);
    api.put("/api/v1/namespaces/bank", bank);
    api.put(
        "/apis/observe.weft.dev/v1alpha1/scopes/live",
        json!({"namespaces": ["shop"]}),
    );
    let api = api.client();
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                if request.uri().path() == "/api/v1/namespaces/vault" {
                    return Ok(response(403, &json!({"message": "no", "code": 403})));
                }
                if request.method() != Method::POST {
                    return Ok::<_, Infallible>(api.send(request).await.unwrap());
                }
                let body = request.into_body().collect_bytes().await.unwrap();
                let asked: Value = serde_json::from_slice(&body).unwrap();
                Ok(tried(&asked["spec"]))
            }
        }),
        "shop",
    )
}

/// A dry run with the API's response: it refuses modes of namespaces that do not exist, and warns
/// of objects in them.
fn tried(spec: &Value) -> Response<Body> {
    let each = |field: &str| spec[field].as_array().cloned().unwrap_or_default();
    for change in each("access") {
        if change["namespace"] != "shop" {
            let name = change["namespace"].as_str().unwrap();
            let message = format!("spec.access[0].namespace: there is no namespace {name}");
            return response(400, &json!({"message": message, "code": 400}));
        }
    }
    let namespaces = each("objects").into_iter().map(|object| {
        let namespace = object["metadata"]["namespace"].as_str();
        namespace.unwrap().to_owned()
    });
    let new = namespaces.filter(|namespace| namespace != "shop");
    let warnings: Vec<String> = new
        .map(|namespace| {
            format!("there is no namespace {namespace}: what would be put there changes no call")
        })
        .collect();
    response(
        201,
        &json!({"status": {"changed": [], "kept": 3, "warnings": warnings}}),
    )
}

fn response(code: u16, body: &Value) -> Response<Body> {
    let mut body = body.clone();
    if code >= 400 {
        body["kind"] = json!("Status");
        body["status"] = json!("Failure");
    }
    let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    answer
}

fn route(namespace: &str) -> Value {
    json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "TCPRoute",
        "metadata": {"name": "a", "namespace": namespace}, "spec": {"matches": {"ports": [1]}}})
}

fn namespace(name: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "annotations": annotations}})
}

/// How a dry run of these objects ends.
async fn outcome_of(objects: &[Value], more: &str) -> (u8, String, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{}", json!({"kind": "List", "items": objects})).unwrap();
    let line = format!("weft dry-run -f {} {more}", file.path().display());
    run(shop(), &line).await
}

#[tokio::test]
async fn object_needs_existing_namespace_or_one_its_file_creates() {
    let mut of_no_namespace = route("shop");
    of_no_namespace["metadata"] = json!({"name": "a"});
    for (object, more) in [
        (of_no_namespace, "-n shpo"),
        (route("shpo"), "-n shop"),
        (route("shpo"), "-n shop -o json"),
    ] {
        let (code, out, err) = outcome_of(&[object], more).await;
        assert_eq!((code, &*out), (2, ""), "{more}: {err}");
        assert_eq!(
            err, "there is no namespace shpo; you may mean shop\n",
            "{more}"
        );
    }
    let made = [namespace("shpo", &json!({})), route("shpo")];
    let (code, out, err) = outcome_of(&made, "-n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("no call that can be evaluated changes"),
        "{out}"
    );
    assert!(err.contains("warning: there is no namespace shpo"), "{err}");
    // The user may not see this namespace, so no warning says that it does not exist.
    for namespace in ["shop", "vault"] {
        let (code, _, err) = outcome_of(&[route(namespace)], "-n shop").await;
        assert_eq!(code, 0, "{namespace}: {err}");
    }
}

#[tokio::test]
async fn access_mode_of_created_namespace_is_skipped() {
    let closed = namespace("new", &json!({"weft.dev/access": "deny"}));
    let words = "weft.dev/access of Namespace new is not tried: it is yet to be made, and nothing \
                 is called there\n";
    let (code, _, err) = outcome_of(&[closed.clone(), route("new")], "-n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(err.starts_with(words), "{err}");
    let (code, out, err) = outcome_of(&[closed], "-n shop").await;
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("there is nothing to try"), "{err}");
    // What no file makes is a name of nothing.
    let (code, _, err) = outcome_of(&[route("shop")], "-n shpo --access deny").await;
    assert_eq!(code, 2, "{err}");
    assert_eq!(err, "there is no namespace shpo; you may mean shop\n");
}

#[tokio::test]
async fn manifest_that_lost_an_applied_mode_is_no_yes() {
    let bare = |name: &str| namespace(name, &json!({"team": "a"}));
    let (code, _, err) = outcome_of(&[bare("bank"), route("shop")], "-n shop").await;
    assert_eq!(code, 3, "{err}");
    let words = "weft.dev/access of Namespace bank is in none of the files";
    assert!(err.contains(words), "{err}");
    let (code, _, err) = outcome_of(&[bare("vault"), route("shop")], "-n shop").await;
    assert_eq!(code, 3, "{err}");
    assert!(
        err.contains("Namespace vault are taken away is not known"),
        "{err}"
    );
    // Control: nothing was applied to it.
    let (code, _, err) = outcome_of(&[bare("shop"), route("shop")], "-n shop").await;
    assert_eq!(code, 0, "{err}");
}

#[tokio::test]
async fn deletion_of_a_policy_says_what_is_not_judged() {
    let line = "weft dry-run --delete TrafficPolicy/cart -n shop";
    let (_, _, err) = run(shop(), line).await;
    let words = "TrafficPolicy cart: its limits, retries and the like are not evaluated";
    assert!(err.contains(words), "{err}");
}

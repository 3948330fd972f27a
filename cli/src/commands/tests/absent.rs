//! Names that do not exist: every command ends with 2 and the nearest existing name.
//!
//! Claims: observe-43

use super::*;

const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1";

/// Deployment, account and pod `web`, and Service `cart` with ports 80 and 9090, all without a
/// proxy; the API has this verdict for every call.
fn shop(verdict: &str) -> FakeApi {
    let api = FakeApi::default();
    for path in [
        "/api/v1/namespaces/shop",
        "/api/v1/namespaces/shop/pods/web-5d8",
        "/api/v1/namespaces/shop/serviceaccounts/web",
        "/api/v1/namespaces/shop/services/cart",
        "/apis/apps/v1/namespaces/shop/deployments/web",
    ] {
        let name = path.rsplit('/').next();
        let ports = json!([{"name": "http", "port": 80}, {"name": "grpc", "port": 9090}]);
        let metadata = json!({"name": name, "namespace": "shop"});
        let spec = match path.contains("/services/") {
            true => json!({ "ports": ports }),
            false => json!({"containers": []}),
        };
        api.put(path, json!({"metadata": metadata, "spec": spec}));
    }
    api.put(
        &format!("{OBSERVE}/scopes/live"),
        json!({"namespaces": ["bank", "shop"]}),
    );
    for namespace in ["shop", "shpo"] {
        let status = json!({"verdict": verdict, "reason": "as the API says it"});
        api.judge(
            &format!("{OBSERVE}/namespaces/{namespace}/explanations"),
            status,
        );
    }
    api
}

#[tokio::test]
async fn unknown_name_is_usage_error_in_every_command() {
    let api = shop("Unknown");
    let pod = "there is no Pod web-5d9 in namespace shop; you may mean po/web-5d8";
    let deployment = "there is no Deployment wbe in namespace shop; you may mean deploy/web";
    let service = "there is no Service crat in namespace shop; you may mean svc/cart";
    for (line, words) in [
        ("proxy-config web-5d9", pod),
        ("proxy-config web-5d9 --direct", pod),
        ("proxy-config web-5d9 --traffic", pod),
        (
            "proxy-config webb",
            "there is no Pod webb in namespace shop; you may mean po/web-5d8",
        ),
        (
            "explain deploy/web deploy/z1.bank:80",
            "there is no Deployment z1.bank in namespace shop; for one of namespace bank say \
             deploy/z1 with -n bank, or of the end of a call with --from-namespace or \
             --to-namespace",
        ),
        ("log-level web-5d9 info", pod),
        ("identity pod/web-5d9", pod),
        ("identity deploy/wbe", deployment),
        (
            "identity sa/wbe",
            "there is no ServiceAccount wbe in namespace shop; you may mean sa/web",
        ),
        ("explain deploy/wbe svc/cart:80", deployment),
        ("explain deploy/web svc/crat:80", service),
        ("explain deploy/web svc/crat:http", service),
        (
            "explain deploy/web pod/nope:80",
            "there is no Pod nope in namespace shop",
        ),
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert_eq!(err, format!("{words}\n"), "{line}");
    }
    // They are there, and of them nothing is known.
    for line in [
        "identity deploy/web",
        "identity sa/web",
        "identity pod/web-5d8",
        "proxy-config web-5d8",
        "explain deploy/web svc/cart:80",
    ] {
        let (code, _, err) = run(api.client(), &format!("weft {line} -n shop")).await;
        assert_eq!(code, 3, "{line}: {err}");
        assert!(!err.contains("there is no"), "{line}: {err}");
    }
}

#[tokio::test]
async fn misspelt_namespace_is_reported_when_lookup_fails() {
    let api = shop("Unknown");
    for line in [
        "proxies",
        "identity",
        "identity ds",
        "identity deploy/web",
        "identity --ca",
        "proxy-config web-5d8",
        "log-level web-5d8 info",
        "explain deploy/web svc/cart:80",
        "explain web svc/cart:80",
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line} -n shpo")).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert_eq!(
            err, "there is no namespace shpo; you may mean shop\n",
            "{line}"
        );
    }
    let line = "weft explain deploy/web svc/cart:80 -n shop --to-namespace shpo";
    let (code, _, err) = run(api.client(), line).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.ends_with("you may mean shop\n"), "{err}");
}

#[tokio::test]
async fn port_name_resolves_to_service_port_number() {
    let api = shop("Allowed");
    let line = "weft explain deploy/web cart:grpc -n shop -o json";
    let (code, out, err) = run(api.client(), line).await;
    assert_eq!(code, 0, "{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["spec"]["to"]["port"], 9090, "{out}");
    assert_eq!(
        err,
        "cart is taken for svc/cart of namespace shop\n\
         port grpc is taken for 9090 of Service cart\n"
    );
    let has = "it has 80 (http), 9090 (grpc)";
    let unknown = shop("Unknown");
    for (port, words) in [
        (
            "htpp",
            format!("no TCP port htpp; {has}; you may mean http"),
        ),
        ("81", format!("no TCP port 81; {has}")),
        ("99999999", "a number from 1 to 65535".to_owned()),
    ] {
        let line = format!("weft explain deploy/web cart:{port} -n shop");
        let (code, out, err) = run(unknown.client(), &line).await;
        assert_eq!((code, out.as_str()), (2, ""), "{line}: {err}");
        assert!(err.contains(&words), "{line}: {err}");
        assert!(!err.contains("names no kind"), "{line}: {err}");
    }
    let line = "weft explain deploy/web deploy/web:http -n shop";
    let (code, _, err) = run(api.client(), line).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("a number from 1 to 65535"), "{err}");
}

#[tokio::test]
async fn unlikely_account_or_method_gets_warning() {
    let api = shop("Allowed");
    let line = "weft explain sa/wbe svc/cart:80 get / -n shop";
    let (code, out, err) = run(api.client(), line).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("ALLOWED"), "{out}");
    assert_eq!(
        err,
        "METHOD \"get\" is no usual method of HTTP, and methods are compared exactly; GET is one\n\
         there is no ServiceAccount wbe in namespace shop; you may mean sa/web; this is what would \
         become of its calls\n"
    );
    let line = "weft explain sa/web svc/cart:80 GET / -n shop";
    assert_eq!(run(api.client(), line).await.2, "");
}

//! Certificates of proxies that cannot be reached: no port is forwarded here, as for a reader.
//!
//! Claims: observe-51

use super::*;

/// `web-1` of Deployment `web` and `api-1` of StatefulSet `api`, and `vault-1` elsewhere. The proxy
/// of `api-1` is older and does not report when its certificate was issued.
fn town() -> FakeApi {
    let api = FakeApi::default();
    for (namespace, pod, kind, workload) in [
        ("shop", "web-1", "Deployment", "web"),
        ("shop", "api-1", "StatefulSet", "api"),
        ("bank", "vault-1", "Deployment", "vault"),
    ] {
        let metadata = json!({"name": pod, "namespace": namespace});
        api.put(
            &format!("/api/v1/namespaces/{namespace}/pods/{pod}"),
            json!({"metadata": metadata, "spec": {"containers": [], "serviceAccountName": workload,
                "initContainers": [{"name": "weft-proxy"}]}}),
        );
        let mut certificate =
            json!({"serial": "0a:0b", "issuer": "CN=weft", "notAfter": "2026-11-03T08:00:00Z"});
        if pod != "api-1" {
            certificate["issued"] = json!("2026-11-02T08:00:00Z");
        }
        let path = format!("/apis/observe.weft.dev/v1alpha1/namespaces/{namespace}/proxies/{pod}");
        api.put(
            &path,
            json!({"metadata": metadata, "status": {"workload": format!("{kind}/{workload}"),
                "identity": format!("spiffe://x/ns/{namespace}/sa/{workload}"),
                "connected": true, "certificate": certificate}}),
        );
    }
    api
}

#[tokio::test]
async fn identity_uses_controller_data_without_proxy_access() {
    let api = town();
    for (line, pods) in [
        ("identity -n shop", &["api-1", "web-1"][..]),
        ("identity deploy/web -n shop", &["web-1"][..]),
        ("identity sts -n shop", &["api-1"][..]),
        ("identity sa/api -n shop", &["api-1"][..]),
        ("identity pod/web-1 -n shop", &["web-1"][..]),
    ] {
        let (code, out, err) = run(api.client(), &format!("weft {line}")).await;
        assert_eq!(code, 0, "{line}: {err}");
        let rows: Vec<Vec<&str>> = out
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect())
            .collect();
        let names: Vec<&str> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(names, pods, "{line}");
        assert!(rows[0][1].starts_with("spiffe://x/ns/shop/sa/"), "{out}");
        assert_eq!((rows[0][2], rows[0][3]), ("0a:0b", "CN=weft"), "{out}");
        // Sixty percent of its day are over at 22:24, and it is nine.
        for row in &rows {
            let renewal = if row[0] == "api-1" { "-" } else { "13h" };
            assert_eq!((row[4], row[5]), ("23h", renewal), "{out}");
        }
        assert!(!err.contains("renewed"), "{line}: {err}");
        assert!(err.contains("are reported by controllers"), "{line}: {err}");
        let expected = "the identity shown is the one that the proxy has to have: ";
        assert!(err.contains(expected), "{line}: {err}");
    }
    let (code, out, err) = run(api.client(), "weft identity -A").await;
    assert_eq!(code, 0, "{err}");
    let rows = out.lines().skip(1).map(|row| row.split_whitespace());
    let names: Vec<(&str, &str)> = rows
        .filter_map(|mut row| Some((row.next()?, row.next()?)))
        .collect();
    assert_eq!(
        names,
        [("bank", "vault-1"), ("shop", "api-1"), ("shop", "web-1")]
    );
}

#[tokio::test]
async fn unknown_identity_suggests_nearest_name() {
    let api = town();
    for (line, code, words) in [
        (
            "pod/wbe-1",
            2,
            "there is no Pod wbe-1 in namespace shop; you may mean po/web-1",
        ),
        (
            "deploy/wbe",
            2,
            "there is no Deployment wbe in namespace shop; you may mean deploy/web",
        ),
        (
            "deploy/api",
            2,
            "there is no Deployment api in namespace shop; you may mean sts/api",
        ),
        (
            "sa/wbe",
            2,
            "there is no ServiceAccount wbe in namespace shop; you may mean sa/web",
        ),
        ("ds", 3, "no meshed pods of DaemonSet in namespace shop"),
    ] {
        let (status, out, err) = run(api.client(), &format!("weft identity {line} -n shop")).await;
        assert_eq!((status, out.as_str()), (code, ""), "{line}: {err}");
        assert!(err.contains(words), "{line}: {err}");
    }
}

#[tokio::test]
async fn issuer_is_named_where_no_proxy_presents_it() {
    let api = town();
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default();
    let root = root.self_signed(&key).unwrap();
    api.put(
        "/api/v1/namespaces/shop/configmaps/weft-trust-bundle",
        json!({"metadata": {"name": "weft-trust-bundle"}, "data": {"ca.crt": root.pem()}}),
    );
    let (code, out, err) = run(api.client(), "weft identity --ca -n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("signs"), "{out}");
    assert!(
        err.starts_with("of the issuer only the name is known, CN=weft: "),
        "{err}"
    );
}

#[tokio::test]
async fn issuer_is_named_in_namespace_without_meshed_pods() {
    let api = FakeApi::default();
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default();
    let root = root.self_signed(&key).unwrap();
    api.put(
        "/api/v1/namespaces/bare/configmaps/weft-trust-bundle",
        json!({"metadata": {"name": "weft-trust-bundle"}, "data": {"ca.crt": root.pem()}}),
    );
    let status = json!({"issuers": [{"fingerprint": "sha256:1a", "authority": "sha256:1b",
        "notAfter": "2026-12-01T00:00:00Z"}]});
    put_authority(&api, &status);
    let (code, _, err) = run(api.client(), "weft identity --ca -n bare").await;
    assert_eq!(code, 0, "{err}");
    let named = "CertificateAuthority weft names the issuer, sha256:1b until 2026-12-01T00:00:00Z";
    assert!(err.contains(named), "{err}");
}

#[tokio::test]
async fn issuers_that_share_a_name_are_distinguished() {
    let api = town();
    for (namespace, pod, authority) in [("shop", "web-1", "0a"), ("bank", "vault-1", "0b")] {
        let path = format!("/apis/observe.weft.dev/v1alpha1/namespaces/{namespace}/proxies/{pod}");
        let mut proxy = api.read(&path).unwrap();
        proxy["status"]["certificate"]["authority"] = json!(authority.repeat(16));
        api.put(&path, proxy);
    }
    let (code, out, err) = run(api.client(), "weft identity -A -o json").await;
    assert_eq!(code, 0, "{err}");
    let rows: Value = serde_json::from_str(&out).unwrap();
    let signers: Vec<&Value> = (0..3)
        .map(|at| &rows[at]["certificate"]["signer"])
        .collect();
    let older = Value::Null;
    let (vault, web) = (json!("0b".repeat(16)), json!("0a".repeat(16)));
    assert_eq!(signers, [&vault, &older, &web], "{out}");

    let root = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default().self_signed(&root);
    api.put(
        "/api/v1/namespaces/shop/configmaps/weft-trust-bundle",
        json!({"metadata": {"name": "weft-trust-bundle"}, "data": {"ca.crt": root.unwrap().pem()}}),
    );
    let (code, _, err) = run(api.client(), "weft identity --ca -n shop").await;
    assert_eq!(code, 0, "{err}");
    let named = format!("CN=weft and CN=weft ({})", "0a".repeat(16));
    assert!(err.contains(&named), "{err}");
}

// Claims: observe-52
#[tokio::test(start_paused = true)]
async fn silent_proxies_are_awaited_thirty_seconds_in_total() {
    let named = |at: usize| json!({"name": format!("web-{at:02}"), "namespace": "shop"});
    let pods: Vec<Value> = (0..25)
        .map(|at| {
            json!({"metadata": named(at), "spec": {"containers": [],
                "initContainers": [{"name": "weft-proxy"}]}})
        })
        .collect();
    let certificate =
        json!({"serial": "0a:0b", "issuer": "CN=weft", "notAfter": "2999-01-01T00:00:00Z"});
    let proxies: Vec<Value> = (0..25)
        .map(|at| {
            json!({"metadata": named(at), "status": {"workload": "Deployment/web",
                "identity": "spiffe://x/ns/shop/sa/web", "connected": true,
                "certificate": certificate}})
        })
        .collect();
    let list = |kind: &str, items: Vec<Value>| {
        json!({"apiVersion": "v1", "kind": kind, "metadata": {}, "items": items}).to_string()
    };
    let (pods, proxies) = (list("PodList", pods), list("ProxyList", proxies));
    let service = tower::service_fn(move |request: Request<Body>| {
        let answer = match request.uri().path() {
            "/api/v1/namespaces/shop/pods" => Some(pods.clone()),
            "/apis/observe.weft.dev/v1alpha1/namespaces/shop/proxies" => Some(proxies.clone()),
            // No port is forwarded, and no response comes.
            _ => None,
        };
        async move {
            match answer {
                Some(answer) => Ok::<_, Infallible>(Response::new(Body::from(answer.into_bytes()))),
                None => std::future::pending().await,
            }
        }
    });
    let started = tokio::time::Instant::now();
    let line = "weft identity -n shop --request-timeout 2m";
    let (code, out, err) = run(Client::new(service, "shop"), line).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(out.lines().count(), 26, "{out}");
    assert!(
        err.contains("25 of these certificates are reported"),
        "{err}"
    );
    assert!(err.contains("did not answer in time"), "{err}");
    let took = started.elapsed();
    assert!(took < Duration::from_secs(31), "{took:?}");
}

#[tokio::test]
async fn bundle_without_a_root_is_no_table_without_rows() {
    let api = town();
    let path = "/api/v1/namespaces/shop/configmaps/weft-trust-bundle";
    for data in [json!({}), json!({"ca.crt": ""})] {
        api.put(
            path,
            json!({"metadata": {"name": "weft-trust-bundle"}, "data": data}),
        );
        let (code, out, err) = run(api.client(), "weft identity --ca -n shop").await;
        assert_eq!((code, out.as_str()), (3, ""), "{err}");
        assert!(err.contains("ca.crt holds no root"), "{err}");
    }
}

const AUTHORITY: &str = "/apis/weft.dev/v1alpha1/certificateauthorities/weft";

/// The mesh's authority with this status.
fn put_authority(api: &FakeApi, status: &Value) {
    let object = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "CertificateAuthority",
        "metadata": {"name": "weft", "generation": 1}, "spec": {}, "status": status});
    api.put(AUTHORITY, object);
}

#[tokio::test]
async fn rotation_request_is_written_once_for_its_id() {
    let api = FakeApi::default();
    put_authority(&api, &json!({}));
    let line = "weft identity rotate --compromise --id leak-1";
    let (code, out, err) = run(api.client(), line).await;
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(err.contains("leak-1 (Compromise)"), "{err}");
    let written = |api: &FakeApi| api.read(AUTHORITY).unwrap()["spec"]["rotation"].clone();
    let expected = json!({"id": "leak-1", "scope": "Root", "reason": "Compromise"});
    assert_eq!(written(&api), expected);

    let (code, _, err) = run(api.client(), "weft identity rotate --id leak-1").await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("none runs twice"), "{err}");
    assert_eq!(written(&api), expected);

    let (code, _, err) = run(api.client(), "weft identity rotate").await;
    assert_eq!(code, 0, "{err}");
    let expected = json!({"id": "2026-11-02-090000", "scope": "Root", "reason": "Planned"});
    assert_eq!(written(&api), expected);
}

/// Why a line of `weft identity` is refused, before any request.
pub(super) fn usage_error(line: &str) -> String {
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let Command::Identity(command) = cli.command else {
        panic!("{line}");
    };
    match command.must_be_readable(&cli.global) {
        Err(Failure::Usage(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn options_that_do_not_fit_rotations_are_refused() {
    for (line, words) in [
        ("weft identity rotate -n shop", "leave -n shop out"),
        ("weft identity rotate -o json", "leave -o out"),
        ("weft identity --ca --wait 1m", "weft identity rotate"),
    ] {
        let text = usage_error(line);
        assert!(text.contains(words), "{line}: {text}");
    }
}

#[tokio::test]
async fn rotation_without_its_kind_is_not_known() {
    let api = FakeApi::default();
    let (code, _, err) = run(api.client(), "weft identity rotate").await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("CertificateAuthority weft"), "{err}");
}

#[tokio::test]
async fn wait_ends_as_the_rotation_does() {
    for (last, status, reason, generation, code, words) in [
        ("a", "False", "Done", 9, 0, "has ended: all renewed"),
        (
            "b",
            "False",
            "RootIsExternal",
            9,
            1,
            "does not run: all renewed",
        ),
        ("a", "True", "Activating", 9, 3, "has not ended within 0s"),
        // Of what was requested before.
        ("b", "False", "Done", 0, 3, "has not ended within 0s"),
        // It ran long ago, or another request took its place.
        ("b", "False", "Done", 9, 1, "the last rotation is b"),
    ] {
        let api = FakeApi::default();
        let rotating = json!({"type": "Rotating", "status": status, "reason": reason,
            "observedGeneration": generation, "message": "all renewed",
            "lastTransitionTime": "2026-11-02T08:00:00Z"});
        let rotation = json!({"id": last, "trigger": "Request"});
        put_authority(
            &api,
            &json!({"rotation": rotation, "conditions": [rotating]}),
        );
        let line = "weft identity rotate --id a --wait 0s";
        let (found, _, err) = run(api.client(), line).await;
        assert_eq!(found, code, "{reason}: {err}");
        assert!(err.contains(words), "{reason}: {err}");
    }
}

#[tokio::test(start_paused = true)]
async fn wait_ends_although_another_rotation_follows() {
    let running = |id: &str, root: &str| {
        let rotating = json!({"type": "Rotating", "status": "True", "reason": "Activating",
            "observedGeneration": 9, "message": "",
            "lastTransitionTime": "2026-11-02T08:00:00Z"});
        json!({"phase": "Activating", "rotation": {"id": id, "trigger": "Request"},
            "roots": [{"fingerprint": root, "state": "Active"}], "conditions": [rotating]})
    };
    // One that takes the place of the other keeps the root that is to go.
    for (root, code) in [("sha256:2", 0), ("sha256:1", 3)] {
        let api = FakeApi::default();
        put_authority(&api, &running("a", "sha256:1"));
        let later = api.clone();
        let next = running("b", root);
        let follow = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(3)).await;
            put_authority(&later, &next);
        });
        let line = "weft identity rotate --id a --wait 20s";
        let (found, _, err) = run(api.client(), line).await;
        assert_eq!(found, code, "{root}: {err}");
        follow.await.unwrap();
    }
}

#[tokio::test]
async fn authority_is_shown_with_phase_and_faults() {
    let api = town();
    let key = rcgen::KeyPair::generate().unwrap();
    let root = rcgen::CertificateParams::default();
    let root = root.self_signed(&key).unwrap();
    api.put(
        "/api/v1/namespaces/shop/configmaps/weft-trust-bundle",
        json!({"metadata": {"name": "weft-trust-bundle"}, "data": {"ca.crt": root.pem()}}),
    );
    let condition = |kind: &str, status: &str| {
        json!({"type": kind, "status": status, "reason": format!("{kind}Reason"),
            "message": "of a kind", "lastTransitionTime": "2026-11-02T08:00:00Z"})
    };
    let status = json!({"phase": "Activating", "rotation": {"id": "audit"},
        "trusting": "412/412", "renewed": "398/412", "summary": "waits for shop/web-0",
        "issuers": [{"fingerprint": "sha256:1a", "authority": "sha256:1b",
            "notAfter": "2026-12-01T00:00:00Z"}, {"fingerprint": "sha256:2a"}],
        "conditions": [condition("Usable", "False"), condition("Expiring", "False")]});
    put_authority(&api, &status);
    let (code, _, err) = run(api.client(), "weft identity --ca -n shop").await;
    assert_eq!(code, 0, "{err}");
    let phase = "phase Activating of rotation audit, 412/412 proxies trust the first root and \
                 398/412 have renewed: waits for shop/web-0\n";
    assert!(err.contains(phase), "{err}");
    let issuers = "controllers sign with 2 issuers of their own: sha256:1b until \
                   2026-12-01T00:00:00Z, sha256:2a until a time not known\n";
    assert!(err.contains(issuers), "{err}");
    assert!(err.contains("UsableReason: of a kind\n"), "{err}");
    assert!(!err.contains("ExpiringReason"), "{err}");
}

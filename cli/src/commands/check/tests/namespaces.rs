//! The namespace that `-n` names, in which the webhooks are tried, and excluded namespaces.
//!
//! Claims: observe-112, observe-43

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;

use super::*;

#[tokio::test(start_paused = true)]
async fn unknown_namespace_is_usage_error_not_skipped_checks() {
    let lines: [&[&str]; 3] = [&[], &["--wait", "2m"], &["--fail-on", "warning"]];
    for more in lines {
        let started = Instant::now();
        let arguments = [&["-n", "shpo"][..], more].concat();
        let (ended, report, _) = checked(&healthy(), WELL, &arguments).await;
        let Err(Failure::Usage(words)) = ended else {
            panic!("{more:?}: {ended:?}: {report:#}");
        };
        assert_eq!(words, "there is no namespace shpo; you may mean shop");
        assert_eq!(report, Value::Null, "{more:?}");
        assert_eq!(started.elapsed().as_secs(), 0, "{more:?}");
    }
    let (ended, report, _) = checked(&healthy(), WELL, &["-n", "shop"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
}

#[tokio::test]
async fn unchecked_or_unreadable_namespace_is_not_reported_missing() {
    // Before an installation it may be yet to be made.
    let (ended, report, _) = checked(&healthy(), WELL, &["--pre", "-n", "shpo"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let webhooks = Webhooks {
        sees: false,
        ..WELL
    };
    let (ended, ..) = checked(&healthy(), webhooks, &["-n", "shpo"]).await;
    let Err(Failure::Unknown(words)) = ended else {
        panic!("{ended:?}");
    };
    assert!(words.contains("every check of it was skipped"), "{words}");
}

#[tokio::test]
async fn unknown_weft_namespace_is_usage_error_not_mesh_failure() {
    let api = healthy();
    for name in ["weft-system", "mesh"] {
        let path = format!("/api/v1/namespaces/{name}");
        api.put(&path, json!({"metadata": {"name": name}}));
    }
    let misspelt = ["--weft-namespace", "weft-sytem"];
    let (ended, report, _) = checked(&api, WELL, &misspelt).await;
    let Err(Failure::Usage(words)) = ended else {
        panic!("{ended:?}: {report:#}");
    };
    assert_eq!(
        words,
        "there is no namespace weft-sytem; you may mean weft-system"
    );
    // Before an installation it may be yet to be made.
    let (ended, report, _) = checked(&api, WELL, &["--pre", misspelt[0], misspelt[1]]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    // Control: one that is there, without Weft in it.
    let (ended, report, _) = checked(&api, WELL, &["--weft-namespace", "mesh"]).await;
    assert!(!matches!(ended, Err(Failure::Usage(_))), "{ended:?}");
    assert!(
        with(&report, &["error"]).contains(&"controller".to_owned()),
        "{report:#}"
    );
    // The default namespace was not named by the user, and costs no request.
    let api = healthy();
    let (ended, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    assert_eq!(api.reads("/api/v1/namespaces/weft-system"), 0);
}

#[tokio::test]
async fn check_of_one_namespace_leaves_out_faults_of_others() {
    let api = healthy();
    api.put(
        "/api/v1/namespaces/bank",
        json!({"metadata": {"name": "bank", "labels": {"weft.dev/inject": "enabled"}}}),
    );
    let mut bundle = api.read(BUNDLE).unwrap();
    bundle["metadata"]["namespace"] = json!("bank");
    api.put(&BUNDLE.replace("shop", "bank"), bundle);
    let mut bare = pod();
    bare["metadata"]["namespace"] = json!("bank");
    bare["spec"] = json!({});
    api.put(&POD.replace("shop", "bank"), bare);
    let mut lost = proxy();
    lost["metadata"]["namespace"] = json!("bank");
    lost["status"]["connected"] = json!(false);
    api.put(&PROXY.replace("shop", "bank"), lost);
    let mut refused = split("Accepted", "False");
    refused["metadata"]["namespace"] = json!("bank");
    api.put(&SPLIT.replace("shop", "bank"), refused);
    let found = ["pods-without-proxy", "connected", "accepted"];
    for (namespace, expected) in [("shop", &[][..]), ("bank", &found[..])] {
        let (ended, report, _) = checked(&api, WELL, &["-n", namespace]).await;
        assert_eq!(with(&report, &["warning", "error"]), expected, "{report:#}");
        assert_eq!(with(&report, &["skipped"]), [""; 0], "{report:#}");
        let well = if expected.is_empty() {
            Conclusion::Yes
        } else {
            Conclusion::No
        };
        assert_eq!(ended.unwrap(), well);
    }
    let (_, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
}

#[tokio::test]
async fn namespace_in_which_nothing_is_injected_is_left_out() {
    let api = healthy();
    let mut asks = pod();
    asks["metadata"] = json!({"name": "web-1", "namespace": "kube-system",
        "labels": {"weft.dev/inject": "enabled"}, "annotations": {"weft.dev/access": "denied"}});
    asks["spec"] = json!({});
    api.put(&POD.replace("shop", "kube-system"), asks);
    let found = ["pods-without-proxy", "annotations"];
    let (_, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
    let mut webhooks = api.read(MUTATING).unwrap();
    let rule = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn",
        "values": ["kube-system"]});
    webhooks["webhooks"][0]["namespaceSelector"] = json!({"matchExpressions": [rule]});
    api.put(MUTATING, webhooks);
    let (_, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(with(&report, &["warning", "error"]), [""; 0], "{report:#}");
}

/// The API server as it responds to a user who may view namespace `shop` and nothing else.
fn viewer_of_shop() -> Client {
    let well = client(&healthy(), WELL);
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let well = well.clone();
            async move {
                let path = request.uri().path().to_owned();
                if path == "/version" || path.contains("/namespaces/shop") {
                    return Ok::<_, Infallible>(well.send(request).await.unwrap());
                }
                let message = format!(
                    "things is forbidden: User \"eve\" cannot list resource \"{path}\" in API \
                     group \"\" at the cluster scope"
                );
                let status = json!({"kind": "Status", "status": "Failure", "code": 403,
                    "reason": "Forbidden", "message": message});
                let mut refused = Response::new(Body::from(status.to_string().into_bytes()));
                *refused.status_mut() = StatusCode::FORBIDDEN;
                Ok(refused)
            }
        }),
        "default",
    )
}

#[tokio::test]
async fn denied_checks_share_one_line() {
    let (ended, report, table) = checked_by(viewer_of_shop(), &["-n", "shop"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let skipped = with(&report, &["skipped"]);
    assert!(skipped.contains(&"webhooks".to_owned()), "{report:#}");
    for id in ["pods-without-proxy", "connected", "accepted", "labels"] {
        assert!(!skipped.contains(&id.to_owned()), "{id}: {report:#}");
    }
    let lines = table.lines().filter(|line| line.contains("forbidden"));
    let lines: Vec<&str> = lines.collect();
    let [line] = lines.as_slice() else {
        panic!("{table}");
    };
    assert!(
        line.contains("webhooks") && line.contains("-n NAME"),
        "{line}"
    );
}

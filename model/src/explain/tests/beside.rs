//! What a fix means for more than the call that it is for: for callers that it closes out,
//! and for other workloads of the called account and of the caller's.
//!
//! Claims: observe-58, observe-59

use super::*;

const ACCESS: &str = "weft.dev/access";

/// Pod `api-1` refuses its callers by an annotation and `api-2`, of the same account, is open;
/// with these labels.
fn half_closed(closed: &Value, open: &Value) -> Cluster {
    let labelled = |name: &str, ip: &str, labels: &Value| {
        set(pod(name, ip, "api"), "/metadata/labels", labels.clone())
    };
    let api = labelled("api-1", "10.0.0.11", closed);
    shop()
        .with(annotate(api, ACCESS, "deny"))
        .with(labelled("api-2", "10.0.0.12", open))
}

/// The same by a target that names `api-1`, which alone has a label.
fn named_by_a_target() -> Cluster {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let by_pod = set(
        target("closed", "x", &["absent"], rules),
        "/spec/destination",
        json!({"kind": "IdentityBinding", "name": "first"}),
    );
    let first = json!({"first": "yes"});
    let api = pod("api-1", "10.0.0.11", "api");
    shop()
        .with(set(api, "/metadata/labels", first.clone()))
        .with(binding(
            "first",
            json!({"podLabelSelector": {"matchLabels": first}}),
        ))
        .with(tcp_route("ports", &[8080]))
        .with(by_pod)
}

/// What becomes of a call by the account that was seen to call open pods.
fn seen(cluster: &Cluster, pod: &str, method: &str) -> ExplanationVerdict {
    let call = spec("ServiceAccount/seen", pod, method, "/any");
    explain(cluster, &call).verdict
}

/// Verdicts on the call by the account that was seen, before a fix and after it.
fn becomes(worlds: [&Cluster; 2], pod: &str, method: &str) -> [ExplanationVerdict; 2] {
    worlds.map(|world| seen(world, pod, method))
}

// Claims: observability-6
#[test]
fn fix_excludes_no_caller_when_labels_separate_refusing_pods() {
    let all = |app: &str| {
        json!({"app": app, "team": "api", "pod-template-hash": app, "version": app,
            "a-common-one": "api"})
    };
    for (cluster, label) in [
        (named_by_a_target(), json!({"first": "yes"})),
        (
            half_closed(&all("closed"), &all("open")),
            json!({"app": "closed"}),
        ),
        // No label alone does.
        (
            half_closed(
                &json!({"team": "api", "tier": "back"}),
                &json!({"team": "api", "tier": "front"}),
            )
            .with(set(
                pod("other-1", "10.0.0.61", "other"),
                "/metadata/labels",
                json!({"team": "other", "tier": "back"}),
            )),
            json!({"team": "api", "tier": "back"}),
        ),
    ] {
        let query = spec("Pod/client", "Service/api", "GET", "/items");
        let fix = explain(&cluster, &query).fix.unwrap();
        let bindings = fix.objects.iter();
        let mut bindings = bindings.filter(|object| object["kind"] == "IdentityBinding");
        let named = bindings.next().unwrap();
        let selector = &named["spec"]["schemes"]["podLabelSelector"]["matchLabels"];
        assert_eq!(*selector, label, "{fix:?}");
        let [words] = &*fix.warnings else {
            panic!("{fix:?}");
        };
        assert!(words.contains("open now and would be closed"), "{words}");
        let after = applied(cluster.clone(), &fix.objects);
        assert_eq!(explain(&after, &query).verdict, ExplanationVerdict::Allowed);
        for method in ["GET", "PUT"] {
            let becomes = |pod| becomes([&cluster, &after], pod, method);
            let refused = [ExplanationVerdict::Refused; 2];
            assert_eq!(becomes("Pod/api-1"), refused, "{method} {fix:?}");
            let allowed = [ExplanationVerdict::Allowed; 2];
            assert_eq!(becomes("Pod/api-2"), allowed, "{method} {fix:?}");
        }
    }
}

#[test]
fn fix_prefers_common_workload_labels_over_others() {
    for usual in ["app.kubernetes.io/name", "app", "k8s-app"] {
        // The other one is before it in the alphabet.
        let labels = |value: &str| json!({usual: value, "a-shade": value});
        let cluster = half_closed(&labels("closed"), &labels("open"));
        let query = spec("Pod/client", "Service/api", "GET", "/items");
        let fix = explain(&cluster, &query).fix.unwrap();
        let mut objects = fix.objects.iter();
        let named = objects.find(|object| object["kind"] == "IdentityBinding");
        let selector = &named.unwrap()["spec"]["schemes"]["podLabelSelector"]["matchLabels"];
        assert_eq!(*selector, json!({usual: "closed"}), "{fix:?}");
    }
}

// Claims: observability-6
#[test]
fn fix_keeps_closed_pods_closed_and_warns_of_exclusions() {
    let app = |label: &str, value: &str| json!({"app": "api", label: value});
    let telling_apart = |label: &str| half_closed(&app(label, "1"), &app(label, "2"));
    for cluster in [
        half_closed(&json!({}), &json!({})),
        // Two ReplicaSets of one Deployment or Rollout, and two pods of one Job: the label that
        // differs is gone tomorrow.
        telling_apart("pod-template-hash"),
        telling_apart("rollouts-pod-template-hash"),
        telling_apart("batch.kubernetes.io/job-completion-index"),
    ] {
        let query = spec("Pod/client", "Service/api", "GET", "/items");
        let status = explain(&cluster, &query);
        assert_eq!(status.verdict, ExplanationVerdict::Mixed, "{status:?}");
        let fix = status.fix.unwrap();
        let [closes, unknown] = &*fix.warnings else {
            panic!("{fix:?}");
        };
        for words in [
            "1 pod of account shop/api, open now, would be closed",
            "callers that were seen (shop/seen)",
            "a label or a service account of their own",
        ] {
            assert!(closes.contains(words), "no {words:?} in {closes}");
        }
        let start = "2 more callers of 1 pod of account shop/api were seen";
        assert!(unknown.starts_with(start), "{unknown}");
        let after = applied(cluster.clone(), &fix.objects);
        assert_eq!(explain(&after, &query).verdict, ExplanationVerdict::Allowed);
        for method in ["GET", "PUT"] {
            let becomes = |pod| becomes([&cluster, &after], pod, method);
            assert_eq!(
                becomes("Pod/api-1"),
                [ExplanationVerdict::Refused, ExplanationVerdict::Refused],
                "{method}: a caller of an open pod has no say over a closed one"
            );
            assert_eq!(
                becomes("Pod/api-2"),
                [ExplanationVerdict::Allowed, ExplanationVerdict::Refused],
                "{method}: as the warning says"
            );
        }
    }
}

/// The way out that the warning names.
#[test]
fn fix_excludes_no_caller_when_refusing_account_is_separate() {
    let guarded = annotate(pod("api-1", "10.0.0.11", "guarded"), ACCESS, "deny");
    let cluster = shop().with(guarded);
    let query = spec("Pod/client", "Service/api", "GET", "/items");
    let fix = explain(&cluster, &query).fix.unwrap();
    assert!(fix.warnings.is_empty(), "{fix:?}");
    let after = applied(cluster, &fix.objects);
    assert_eq!(explain(&after, &query).verdict, ExplanationVerdict::Allowed);
    assert_eq!(
        ["Pod/api-1", "Pod/api-2"].map(|pod| seen(&after, pod, "PUT")),
        [ExplanationVerdict::Refused, ExplanationVerdict::Allowed],
        "an account whose pods are all open stays so"
    );
}

#[test]
fn fix_warns_how_many_other_called_workloads_it_opens() {
    let call = |to: &str| spec("Pod/client", to, "DELETE", "/items/7");
    let fix = |cluster: &Cluster| explain(cluster, &call("Service/api")).fix.unwrap();
    let ended = pod("nightly-1", "10.0.0.51", "api");
    let none = read_only()
        .with(set(ended, "/status/phase", json!("Succeeded")))
        .with(pod("front-1", "10.0.0.52", "front"))
        .with(namespace("bank"))
        .with(in_namespace(pod("ledger-1", "10.0.0.53", "api"), "bank"));
    assert!(fix(&none).warnings.is_empty(), "{:?}", fix(&none));
    let one =
        none.with(pod("worker-1", "10.0.0.54", "api"))
            .with(pod("worker-2", "10.0.0.55", "api"));
    let two = one.clone().with(pod("mail-1", "10.0.0.56", "api"));
    for (cluster, workloads) in [(&one, "1 other workload"), (&two, "2 other workloads")] {
        let warnings = fix(cluster).warnings;
        let start = format!("the same call is allowed on {workloads} of account shop/api too");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with(&start), "{warnings:?}");
    }
    let worker = call("Pod/worker-1");
    assert_eq!(explain(&one, &worker).verdict, ExplanationVerdict::Refused);
    let after = applied(one.clone(), &fix(&one).objects);
    assert_eq!(
        explain(&after, &worker).verdict,
        ExplanationVerdict::Allowed,
        "it is so"
    );
    // One that is called as well is none beside the call.
    let endpoints = [
        endpoint("api-1", "10.0.0.11"),
        endpoint("worker-1", "10.0.0.54"),
    ];
    let both = one.with(slice("api-x", "api", &[("http", 8080)], &endpoints));
    assert!(fix(&both).warnings.is_empty(), "{:?}", fix(&both));
}

#[test]
fn fix_names_other_caller_workloads_it_also_allows() {
    let call = |from: &str| spec(from, "Service/api", "DELETE", "/items/7");
    let warnings =
        |cluster: &Cluster, from: &str| explain(cluster, &call(from)).fix.unwrap().warnings;
    let ended = pod("nightly-1", "10.0.0.51", "web");
    let alone = read_only()
        .with(set(ended, "/status/phase", json!("Succeeded")))
        .with(plain_pod("old-1", "10.0.0.52", "web"))
        .with(pod("front-1", "10.0.0.53", "front"))
        .with(namespace("bank"))
        .with(in_namespace(pod("ledger-1", "10.0.0.54", "web"), "bank"));
    for from in ["Pod/client", "Deployment/client", "Deployment/front"] {
        let none = warnings(&alone, from);
        assert!(none.is_empty(), "{from}: {none:?}");
    }
    let one =
        alone
            .with(pod("batch-1", "10.0.0.55", "web"))
            .with(pod("batch-2", "10.0.0.56", "web"));
    let two = one.clone().with(pod("mail-1", "10.0.0.57", "web"));
    for (cluster, others) in [
        (
            &one,
            "1 other workload of account shop/web too (Deployment shop/batch)",
        ),
        (
            &two,
            "2 other workloads of account shop/web too (Deployment shop/batch and Deployment \
             shop/mail)",
        ),
    ] {
        let start = format!("the same call is allowed to {others}");
        for from in ["Pod/client", "Deployment/client"] {
            let warnings = warnings(cluster, from);
            assert_eq!(warnings.len(), 1, "{from}: {warnings:?}");
            assert!(warnings[0].starts_with(&start), "{from}: {warnings:?}");
        }
        // A caller with an account of its own lets in itself.
        assert!(warnings(cluster, "Deployment/front").is_empty());
    }
    let batch = call("Pod/batch-1");
    assert_eq!(explain(&one, &batch).verdict, ExplanationVerdict::Refused);
    let fix = explain(&one, &call("Pod/client")).fix.unwrap();
    let after = applied(one, &fix.objects);
    assert_eq!(
        explain(&after, &batch).verdict,
        ExplanationVerdict::Allowed,
        "it is so"
    );
    assert_eq!(
        explain(&after, &call("Pod/front-1")).verdict,
        ExplanationVerdict::Refused
    );
}

#[test]
fn account_only_view_hides_workloads_sharing_callers_account() {
    let cluster = read_only().with(pod("batch-1", "10.0.0.55", "web"));
    let query = spec("ServiceAccount/web", "Service/api", "DELETE", "/items/7");
    let model = cluster.compile_with(&Defaults::default()).0;
    let seen = |_: &BTreeSet<PodId>| SeenCallers::default();
    for view in [CallerView::AccountOnly, CallerView::Known] {
        let status = model.explain(&query, view, &owner, &seen).unwrap().status;
        let fix = status.fix.unwrap();
        assert!(!fix.objects.is_empty(), "{view:?}: {fix:?}");
        assert!(fix.warnings.is_empty(), "{view:?}: {fix:?}");
    }
    // Control: a client that may know of the workload gets its name.
    let known = spec("Deployment/client", "Service/api", "DELETE", "/items/7");
    let fix = explain(&cluster, &known).fix.unwrap();
    assert!(fix.warnings[0].contains("Deployment shop/batch"), "{fix:?}");
}

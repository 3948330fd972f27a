//! Waits of `weft check`: for passing failures it waits, others it reports at once.
//!
//! Claims: observe-151, observe-64

use super::*;

#[tokio::test]
async fn unacknowledged_version_is_fault_only_after_one_minute() {
    let (none, late): (&[&str], &[&str]) = (&[], &["acknowledged"]);
    for (seconds, found) in [(0, none), (60, none), (61, late)] {
        let api = healthy();
        let mut proxy = proxy();
        proxy["status"]["acknowledged"] = json!(3);
        proxy["status"]["behindSeconds"] = json!(seconds);
        api.put(PROXY, proxy);
        let (_, report, table) = checked(&api, WELL, &["--fail-on", "warning"]).await;
        assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
        assert!(table.contains("shop/web-1"), "{table}");
    }
}

#[tokio::test]
async fn disconnected_proxy_of_revoked_pod_is_no_fault() {
    let api = healthy();
    let mut proxy = proxy();
    proxy["status"]["connected"] = json!(false);
    proxy["status"]["revokedBy"] = json!("leak");
    api.put(PROXY, proxy);
    let (ended, report, table) = checked(&api, WELL, &["--fail-on", "warning"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let named = "1 proxies are revoked for good: shop/web-1";
    assert!(table.contains(named), "{table}");
}

#[tokio::test]
async fn only_accepted_revocations_are_in_force() {
    let api = healthy();
    let made = k8s_openapi::jiff::Timestamp::now().to_string();
    for (name, status) in [("refused", "False"), ("taken", "True")] {
        let accepted = json!({"type": "Accepted", "status": status, "reason": "Because"});
        api.put(
            &format!("/apis/weft.dev/v1alpha1/revocations/{name}"),
            json!({"metadata": {"name": name, "creationTimestamp": made},
                "status": {"conditions": [accepted]}}),
        );
    }
    let (_, _, table) = checked(&api, WELL, &[]).await;
    assert!(table.contains("1 in force"), "{table}");
}

#[tokio::test(start_paused = true)]
async fn unauthenticated_user_ends_check_without_waiting() {
    let api = healthy();
    let webhooks_answering = |version: u16| Webhooks { version, ..WELL };
    let started = Instant::now();
    let (ended, ..) = checked(&api, webhooks_answering(401), &["--wait", "2m"]).await;
    let Err(Failure::Denied(words)) = ended else {
        panic!("{ended:?}");
    };
    assert!(words.contains("does not know these credentials"), "{words}");
    assert_eq!(started.elapsed().as_secs(), 0);
    // A user without the right to see the version has all other checks.
    let (ended, report, _) = checked(&api, webhooks_answering(403), &["--wait", "2m"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let skipped = with(&report, &["skipped"]);
    assert_eq!(skipped, ["kubernetes-version", "clocks"], "{report:#}");
    assert_eq!(started.elapsed().as_secs(), 0);
    // What passes is waited for.
    let (ended, ..) = checked(&api, webhooks_answering(503), &["--wait", "30s"]).await;
    assert!(matches!(ended, Err(Failure::Unknown(_))), "{ended:?}");
    let took = started.elapsed();
    assert!((20..45).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn wait_continues_while_api_server_is_unreachable() {
    let api = healthy();
    api.vanish(true);
    let mending = api.clone();
    let mend = tokio::spawn(async move {
        sleep(Duration::from_secs(31)).await;
        mending.vanish(false);
    });
    let started = Instant::now();
    let (ended, ..) = checked(&api, WELL, &["--wait", "2m"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes);
    let took = started.elapsed();
    assert!((31..50).contains(&took.as_secs()), "{took:?}");
    mend.await.unwrap();

    api.vanish(true);
    let started = Instant::now();
    let (ended, ..) = checked(&api, WELL, &["--wait", "30s"]).await;
    assert!(matches!(ended, Err(Failure::Unknown(_))), "{ended:?}");
    let took = started.elapsed();
    assert!((20..45).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn silent_or_slow_api_skips_only_dependent_checks() {
    let api = healthy();
    // Four pages.
    for number in 0..1_600 {
        let name = format!("other-{number:04}");
        let other = json!({"metadata": {"name": name, "namespace": "shop"}});
        api.put(&format!("/api/v1/namespaces/shop/pods/{name}"), other);
    }
    let (patient, usual): (&[&str], &[&str]) = (&["--request-timeout", "5m"], &[]);
    // A silent server is waited for as long as one response may take, a slow one to the end of all.
    for (pods_take, arguments, within) in [(3_600, patient, 12), (9, usual, 28)] {
        let webhooks = Webhooks { pods_take, ..WELL };
        let started = Instant::now();
        let (ended, report, _) = checked(&api, webhooks, arguments).await;
        assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
        // The command runs twice here, as JSON and as a table.
        let took = started.elapsed().as_secs();
        assert_eq!(took, 2 * within, "{pods_take}");
        let skipped = with(&report, &["skipped"]);
        assert!(
            skipped.contains(&"pods-without-proxy".to_owned()),
            "{skipped:?}"
        );
        for id in ["controller", "lease", "connected"] {
            let well = with(&report, &["ok"]);
            assert!(well.contains(&id.to_owned()), "{id}: {report:#}");
        }
    }
    let quick = Webhooks {
        pods_take: 1,
        ..WELL
    };
    let (ended, report, _) = checked(&api, quick, usual).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let skipped = with(&report, &["skipped"]);
    assert_eq!(skipped, [] as [String; 0], "{report:#}");
}

#[tokio::test(start_paused = true)]
async fn namespace_lookup_runs_in_parallel_with_checks() {
    let arguments = ["-n", "shop", "--request-timeout", "5m"];
    for (pods_take, namespace_takes, within) in [(0, 3_600, 12), (11, 11, 11), (0, 0, 0)] {
        let webhooks = Webhooks {
            pods_take,
            namespace_takes,
            ..WELL
        };
        let started = Instant::now();
        let (ended, report, _) = checked(&healthy(), webhooks, &arguments).await;
        assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
        // The command runs twice here, as JSON and as a table.
        let took = started.elapsed().as_secs();
        assert_eq!(took, 2 * within, "{pods_take}, {namespace_takes}");
    }
}

// Claims: observe-112
#[tokio::test]
async fn proxy_of_starting_or_ending_pod_is_no_fault() {
    let now = k8s_openapi::jiff::Timestamp::now();
    let ago = |seconds: i64| {
        let then = k8s_openapi::jiff::Timestamp::from_second(now.as_second() - seconds);
        then.unwrap().to_string()
    };
    let started = |seconds: i64, restarts: u64| {
        json!([{"name": "weft-proxy", "restartCount": restarts,
            "state": {"running": {"startedAt": ago(seconds)}}}])
    };
    let of = |created: i64, statuses: Value| {
        let mut pod = pod();
        pod["metadata"]["creationTimestamp"] = json!(ago(created));
        pod["status"]["initContainerStatuses"] = statuses;
        pod
    };
    let gateway = |seconds: i64| {
        let mut pod = of(900, json!([]));
        let mut statuses = started(seconds, 0);
        statuses[0]["name"] = json!("weft-gateway");
        pod["status"]["containerStatuses"] = statuses;
        pod
    };
    let mut ends = of(900, started(890, 0));
    ends["metadata"]["deletionTimestamp"] = json!(ago(1));
    let mut over = of(900, started(890, 0));
    over["status"]["phase"] = json!("Failed");
    let (well, lost): (&[&str], &[&str]) = (&[], &["connected"]);
    for (pod, found) in [
        (Some(of(900, started(890, 0))), lost),
        (Some(of(10, started(5, 0))), well),
        // Its image took long.
        (Some(of(900, started(5, 0))), well),
        // The same of a Gateway's pod.
        (Some(gateway(5)), well),
        (Some(gateway(890)), lost),
        // Its proxy ends again and again.
        (Some(of(900, started(5, 7))), lost),
        (Some(ends), well),
        (Some(over), well),
        (None, well),
    ] {
        let api = healthy();
        plant_proxy(&api, "connected", json!(false));
        match &pod {
            Some(pod) => api.put(POD, pod.clone()),
            None => api.remove(POD),
        }
        let (_, report, _) = checked(&api, WELL, &["--fail-on", "warning"]).await;
        let faults = with(&report, &["warning", "error"]);
        assert_eq!(faults, found, "{pod:?}: {report:#}");
    }
}

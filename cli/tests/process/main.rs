//! The program itself: a static file that resolves a host name, runs the kubeconfig's
//! exec plugin, speaks TLS with an API server, and ends with the right status.
//!
//! Claims: observe-41, observe-43

#![allow(clippy::unwrap_used, reason = "a test that fails, fails")]

mod completion;
mod examples;
mod forward;
mod hostile;
mod latency;
mod plugin;
mod server;
mod silent;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use server::Server;

const WEFT: &str = env!("CARGO_BIN_EXE_weft");

/// Runs it, for a minute at most.
async fn run(command: &str, arguments: &[&str], kubeconfig: &Path) -> (i32, String, String) {
    let running = tokio::process::Command::new(command)
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env(
            "PATH",
            format!("{}:/usr/bin:/bin", kubeconfig.parent().unwrap().display()),
        )
        .current_dir(kubeconfig.parent().unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .unwrap()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn graph() -> Value {
    json!({
        "apiVersion": "observe.weft.dev/v1alpha1", "kind": "Graph",
        "metadata": {"end": "2026-11-02T09:00:00Z", "windowSeconds": 60, "complete": true},
        "nodes": [
            {"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop", "name": "web", "pods": 2, "meshed": 2},
            {"id": "shop/Deployment/cart", "kind": "Deployment", "namespace": "shop", "name": "cart", "pods": 2, "meshed": 1},
        ],
        "edges": [{"id": "1", "from": "shop/Deployment/web", "to": "shop/Deployment/cart", "service": "shop/cart", "port": 80,
            "backend": "shop/cart", "protocol": "http1", "requests": 600, "success": 597, "failure": 3, "refused": {"not-allowed": 3},
            "mtls": 1.0, "ms": {"p50": 1.9, "p95": 4.1, "p99": 9.0}, "firstSeen": "", "lastSeen": ""}],
    })
}

// Claims: observability-18
#[tokio::test]
async fn version_works_with_host_name_plugin_and_tls() {
    let server = Server::start().await;
    server.api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
    );
    let (code, out, err) = run(WEFT, &["version"], &server.well()).await;
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("v1.33.2"), "{out}");
    assert!(
        err.contains("weft-controller"),
        "what is missing is reported: {err}"
    );

    let wrong = server.kubeconfig("echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", \"status\": {\"token\": \"x\"}}'");
    let (code, out, err) = run(WEFT, &["version", "-o", "json"], &wrong).await;
    assert_eq!(code, 3, "{err}");
    let own = json!({"client": env!("CARGO_PKG_VERSION")});
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), own, "{out}");
    assert!(err.contains("does not know these credentials"), "{err}");

    // Of an authority that has not signed the certificate, and by a name that is not in it.
    let read =
        |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let other = read(&Server::start().await.well());
    let authority = other["clusters"][0]["cluster"]["certificate-authority-data"].clone();
    let address = json!(format!("https://127.0.0.1:{}", server.port));
    for (field, value) in [
        ("certificate-authority-data", authority),
        ("server", address),
    ] {
        let kubeconfig = server.well();
        let mut config = read(&kubeconfig);
        config["clusters"][0]["cluster"][field] = value;
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        let (code, out, err) = run(WEFT, &["version"], &kubeconfig).await;
        assert_eq!(code, 3, "{field}: {out}{err}");
        assert!(!out.contains("v1.33.2"), "{field}: {out}");
        assert!(err.contains("certificate"), "{field}: {err}");
    }
}

#[tokio::test]
async fn slow_plugin_and_unreachable_server_exit_three_in_time() {
    let server = Server::start().await;
    let started = Instant::now();
    let slow = server.kubeconfig("exec sleep 30");
    let (code, _, err) = run(WEFT, &["version", "--request-timeout", "1s"], &slow).await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("plugin"), "{err}");
    assert!(err.contains("within 1 s; --request-timeout"), "{err}");
    let hasty = ["version", "--request-timeout", "200ms"];
    let (_, _, err) = run(WEFT, &hasty, &slow).await;
    assert!(err.contains("within 0.2 s"), "{err}");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut away = Server::start().await;
    away.port = listener.local_addr().unwrap().port();
    drop(listener);
    let (code, out, err) = run(WEFT, &["version"], &away.well()).await;
    assert_eq!(code, 3, "{err}");
    let own = format!("weft         {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(out, own, "its own version needs no cluster: {err}");
    let kubeconfig = away.well();
    let bundle = kubeconfig.with_file_name("weft.tgz");
    std::fs::write(&bundle, "the one before").unwrap();
    let words = ["diagnostics", "-o", bundle.to_str().unwrap()];
    let (code, _, err) = run(WEFT, &words, &kubeconfig).await;
    assert_eq!(code, 3, "{err}");
    assert_eq!(std::fs::read(&bundle).unwrap(), b"the one before");
    let (code, _, err) = run(WEFT, &["version", "--kubeconfig", "/nowhere"], &away.well()).await;
    assert_eq!(code, 2, "{err}");
}

#[tokio::test]
async fn tables_use_graph_and_missing_permission_is_named() {
    let server = Server::start().await;
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";
    server.api.put(path, graph());
    let kubeconfig = server.well();
    let (code, out, err) = run(WEFT, &["stat", "deploy"], &kubeconfig).await;
    assert_eq!(code, 0, "{err}");
    let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        [
            "cart", "1/2", "99.50%", "10.0", "1.9ms", "4.1ms", "9.0ms", "0", "3", "0"
        ],
        "{out}"
    );
    assert!(!out.contains('\x1b'), "no colours in a pipe");
    let (_, out, _) = run(WEFT, &["edges", "--refused"], &kubeconfig).await;
    assert!(
        out.contains("deploy/web   deploy/cart   80     http1   mtls"),
        "{out}"
    );
    let hour = ["edges", "--refused", "--since", "1h"];
    let (code, out, err) = run(WEFT, &hour, &kubeconfig).await;
    assert_eq!((code, &*out), (2, ""), "{err}");
    assert!(err.contains("10s to 5m"), "{err}");
    let (_, out, _) = run(WEFT, &["edges", "-o", "json"], &kubeconfig).await;
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap()["edges"][0]["requests"],
        600
    );
    let (_, out, _) = run(
        WEFT,
        &["stat", "deploy", "--to", "deploy/cart"],
        &kubeconfig,
    )
    .await;
    assert!(out.lines().nth(1).unwrap().starts_with("web "), "{out}");

    let other = ["edges", "-n", "other"];
    let (code, _, err) = run(WEFT, &other, &kubeconfig).await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("observe.enabled"), "{err}");
    let (code, _, err) = run(WEFT, &["stat", "secrets"], &kubeconfig).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("deploy, sts"), "{err}");
}

#[tokio::test]
async fn unknown_name_in_tap_and_top_suggests_nearest() {
    let server = Server::start().await;
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";
    server.api.put(path, graph());
    let kubeconfig = server.well();
    let message = "weft: there is no Deployment wbe in namespace shop; you may mean deploy/web\n";
    for line in [
        "edges deploy/wbe",
        "tap deploy/wbe",
        "tap deploy/cart --from deploy/wbe",
        "top deploy/wbe --paths -t 1s",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let (code, out, err) = run(WEFT, &words, &kubeconfig).await;
        assert_eq!((code, &*out, &*err), (2, "", message), "{line}");
    }
    // It exists, so the tap itself reports why it does not watch.
    let (code, _, err) = run(WEFT, &["tap", "deploy/web"], &kubeconfig).await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("taps of shop"), "{err}");
}

#[tokio::test]
async fn dashboard_of_unknown_namespace_is_not_served() {
    let server = Server::start().await;
    server.api.put(
        "/api/v1/namespaces/shop",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
    );
    server.api.put(
        "/apis/observe.weft.dev/v1alpha1/scopes/live",
        json!({"cluster": true, "namespaces": ["bank", "shop"]}),
    );
    let kubeconfig = server.well();
    let (code, out, err) = run(WEFT, &["dashboard", "-n", "shpo"], &kubeconfig).await;
    let line = "weft: there is no namespace shpo; you may mean shop\n";
    assert_eq!((code, &*out, &*err), (2, "", line));
    // One that is there.
    let mut served = tokio::process::Command::new(WEFT)
        .args(["dashboard", "-n", "shop"])
        .env("KUBECONFIG", &kubeconfig)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(served.stdout.take().unwrap()).lines();
    let first = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    let address = first.unwrap().unwrap().unwrap();
    assert!(address.starts_with("http://127.0.0.1:"), "{address}");
}

#[tokio::test]
async fn misspelt_weft_namespace_suggests_nearest_without_writing_bundle() {
    let server = Server::start().await;
    server.api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
    );
    server.api.put(
        "/api/v1/namespaces/weft-system",
        json!({"metadata": {"name": "weft-system"}}),
    );
    let kubeconfig = server.well();
    let line = "weft: there is no namespace weft-sytem; you may mean weft-system\n";
    for words in [&["version"][..], &["diagnostics", "-o", "weft.tgz"]] {
        let words = [words, &["--weft-namespace", "weft-sytem"]].concat();
        let (code, out, err) = run(WEFT, &words, &kubeconfig).await;
        assert_eq!((code, &*err), (2, line), "{words:?}: {out}");
    }
    assert!(!kubeconfig.with_file_name("weft.tgz").exists());
    // Control: the default one was not named by the user, whether Weft is installed or not.
    let words = ["version", "--weft-namespace", "weft-system"];
    let (code, _, err) = run(WEFT, &words, &kubeconfig).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(server.api.reads("/api/v1/namespaces/weft-system"), 0);
}

#[tokio::test]
async fn output_format_is_refused_for_one_line_results() {
    let server = Server::start().await;
    let line = ["log-level", "web-1", "info", "-o", "json"];
    let (code, out, err) = run(WEFT, &line, &server.well()).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("leave -o out"), "{err}");
}

#[tokio::test]
async fn missing_kubeconfig_files_are_skipped_unlike_broken_ones() {
    let server = Server::start().await;
    server.api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
    );
    let kubeconfig = server.well();
    let folder = kubeconfig.parent().unwrap();
    let broken = folder.join("broken");
    std::fs::write(&broken, "clusters: [\n").unwrap();
    let with = async |list: String| {
        let list = format!("KUBECONFIG={list}");
        // A pod's own account would be taken silently: this is how a pod looks.
        let pod = "KUBERNETES_SERVICE_HOST=127.0.0.1";
        let command = [
            list.as_str(),
            pod,
            "KUBERNETES_SERVICE_PORT=1",
            WEFT,
            "version",
        ];
        run("/usr/bin/env", &command, &kubeconfig).await
    };
    let well = kubeconfig.display();
    for list in [
        format!("/nowhere/config:{well}"),
        format!("{well}:/nowhere/config"),
        format!(":{well}:"),
    ] {
        let (code, out, err) = with(list.clone()).await;
        assert_eq!(code, 0, "{list}: {err}");
        assert!(out.contains("v1.33.2"), "{list}: {out}");
    }
    let (code, _, err) = with("/nowhere/config".to_owned()).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("/nowhere/config"), "{err}");
    let (code, _, err) = with(format!("{}:{well}", broken.display())).await;
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("kubeconfig"), "{err}");
}

#[tokio::test]
async fn unknown_context_suggests_nearest_context() {
    let server = Server::start().await;
    let kubeconfig = server.well();
    let message = |context: &'static str| {
        let kubeconfig = kubeconfig.clone();
        async move { run(WEFT, &["proxies", "--context", context], &kubeconfig).await }
    };
    let (code, out, err) = message("tset").await;
    let line = "weft: kubeconfig: there is no context \"tset\"; you may mean test\n";
    assert_eq!((code, out.as_str(), err.as_str()), (2, "", line));
    let (_, _, err) = message("test").await;
    assert!(!err.contains("context"), "{err}");
}

#[tokio::test]
async fn namespace_stat_reads_named_namespace_or_all_namespaces() {
    let server = Server::start().await;
    let moved = |namespace: &str, calls: u64| {
        let text = graph()
            .to_string()
            .replace("shop/", &format!("{namespace}/"));
        let text = text.replace("\"shop\"", &format!("\"{namespace}\""));
        let mut graph: Value = serde_json::from_str(&text).unwrap();
        graph["edges"][0]["requests"] = json!(calls);
        graph["edges"][0]["id"] = json!(namespace);
        graph
    };
    let (shop, bank) = (moved("shop", 600), moved("bank", 1200));
    let both = |part: &str| {
        let parts = [&shop, &bank].map(|graph| graph[part].as_array().unwrap().clone());
        json!(parts.concat())
    };
    let mut all = shop.clone();
    (all["nodes"], all["edges"]) = (both("nodes"), both("edges"));
    let at = "/apis/observe.weft.dev/v1alpha1";
    for (path, graph) in [
        (format!("{at}/namespaces/shop/graphs/live"), shop),
        (format!("{at}/namespaces/bank/graphs/live"), bank),
        (format!("{at}/graphs/live"), all),
    ] {
        server.api.put(&path, graph);
    }
    let kubeconfig = server.well();
    for (line, expected) in [
        (&["stat", "ns/bank"][..], &[("bank", "20.0")][..]),
        (&["stat", "ns/shop"][..], &[("shop", "10.0")][..]),
        (
            &["stat", "ns"][..],
            &[("bank", "20.0"), ("shop", "10.0")][..],
        ),
    ] {
        let (code, out, err) = run(WEFT, line, &kubeconfig).await;
        assert_eq!(code, 0, "{line:?}: {err}");
        let rows = out.lines().skip(1).map(|row| {
            let cells: Vec<&str> = row.split_whitespace().collect();
            (cells[0], cells[3])
        });
        assert_eq!(rows.collect::<Vec<_>>(), expected, "{line:?}: {out}{err}");
    }
}

// Claims: observability-8
#[tokio::test]
async fn manual_sidecar_matches_injection_by_cluster_webhook() {
    let server = Server::start().await;
    let environment = [
        ("WEFT_PROXY_IMAGE", "registry.example/weft/proxy:1"),
        ("WEFT_TRUST_DOMAIN", "example.org"),
    ];
    let environment = environment.map(|(name, value)| json!({"name": name, "value": value}));
    server.api.put(
        "/apis/apps/v1/namespaces/weft-system/deployments/weft-injector",
        json!({"metadata": {"name": "weft-injector"}, "spec": {"selector": {}, "template": {
            "spec": {"containers": [{"name": "injector", "env": environment}]}}}}),
    );
    let annotations =
        json!({"weft.dev/skip-outbound-ports": "443", "weft.dev/proxy-cpu-request": "77m"});
    server.api.put(
        "/api/v1/namespaces/bank",
        json!({"metadata": {"name": "bank", "annotations": annotations}}),
    );
    let kubeconfig = server.well();
    let manifest = kubeconfig.parent().unwrap().join("pod.yaml");
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: bank}\nspec:\n  containers:\n  - name: a\n    image: b\n";
    std::fs::write(&manifest, text).unwrap();
    let manifest = manifest.to_str().unwrap();
    let (code, out, err) = run(WEFT, &["inject", "--manual", manifest], &kubeconfig).await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("--skip-outbound-ports=443"), "{out}");
    assert!(out.contains("77m"), "{out}");
    // The manifest's value counts; another value of the command line is rejected.
    let other = ["inject", "--manual", "-n", "shop", manifest];
    let (code, out, err) = run(WEFT, &other, &kubeconfig).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("bank") && err.contains("shop"), "{err}");
    // No request is sent, and the output says so.
    let alone = ["inject", "--manual", "--proxy-image", "i", manifest];
    let (code, out, err) = run(WEFT, &alone, &kubeconfig).await;
    assert_eq!(code, 0, "{err}");
    assert!(!out.contains("--skip-outbound-ports"), "{out}");
    assert!(err.contains("annotations of namespace bank"), "{err}");
}

#[tokio::test]
async fn suggestions_as_json_leave_nothing_out_in_silence() {
    let server = Server::start().await;
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";
    server.api.put(path, graph());
    let (code, out, err) = run(WEFT, &["suggest", "-o", "json"], &server.well()).await;
    assert_eq!(code, 0, "{err}");
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(list["items"], json!([]));
    assert!(
        err.contains("left out: deploy/web to deploy/cart port 80"),
        "{err}"
    );
}

// Claims: observe-64
#[tokio::test]
async fn output_that_finds_no_room_is_no_success() {
    let server = Server::start().await;
    let kubeconfig = server.well();
    let folder = kubeconfig.parent().unwrap();
    // In one line, without its end, which is written last.
    let text = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []},
        "metadata": {"name": "a", "labels": {"weft.dev/inject": "enabled"}}});
    let text = text.to_string();
    std::fs::write(folder.join("pod.json"), &text).unwrap();
    for (to, expected) in [("/dev/full", 3), ("printed.json", 0)] {
        let shell = format!("{WEFT} inject pod.json > {to}");
        let (code, _, err) = run("/bin/bash", &["-c", &shell], &kubeconfig).await;
        assert_eq!(code, expected, "{to}: {err}");
        assert_eq!(err.contains("could not be written"), code == 3, "{err}");
    }
    let printed = std::fs::read_to_string(folder.join("printed.json"));
    assert_eq!(printed.unwrap(), text);
}

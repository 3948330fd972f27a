//! What the help of each command and the README show, tried as a shell runs it.
//!
//! Claims: observe-41

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fake_api::FakeApi;
use serde_json::json;

use crate::server::Server;
use crate::{WEFT, graph, run};

const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1";

/// What the output of these commands has, because they query the mesh for it.
const ASKING: [(&str, &str); 8] = [
    ("explain", "ALLOWED"),
    ("tap", "/items/7"),
    ("dry-run", "no call that can be evaluated changes"),
    ("release", "shop/web  Idle"),
    ("fault", "payments-slow run 1  Tolerated"),
    ("proxies", "web-5d8"),
    ("proxy-config", "shop/cart-read"),
    ("identity", "spiffe://cluster.local/ns/shop/sa/web"),
];

/// A mesh with a result for everything that the examples query.
fn mesh(api: &FakeApi) {
    api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
    );
    api.put(
        "/api/v1/namespaces/shop",
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
    );
    let shop = format!("{OBSERVE}/namespaces/shop");
    api.put(&format!("{shop}/graphs/live"), graph());
    let proxy = json!({"workload": "Deployment/web", "version": "0.1.0", "connected": true,
        "acknowledged": 4, "needed": 4});
    api.put(
        &format!("{shop}/proxies/web-5d8"),
        json!({"metadata": {"namespace": "shop", "name": "web-5d8"}, "status": proxy}),
    );
    let path = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/web";
    api.put(
        path,
        json!({"metadata": {"namespace": "shop", "name": "web"}, "status": {"phase": "Idle"}}),
    );
    let path = "/apis/weft.dev/v1alpha1/namespaces/shop/faultexperiments/payments-slow";
    api.put(
        path,
        json!({"metadata": {"namespace": "shop", "name": "payments-slow"},
            "status": {"history": [{"number": 1, "verdict": "Tolerated"}]}}),
    );
    let containers = json!({"containers": [{"name": "web"}],
        "initContainers": [{"name": "weft-proxy"}]});
    api.put(
        "/api/v1/namespaces/shop/pods/web-5d8",
        json!({"metadata": {"name": "web-5d8", "namespace": "shop"}, "spec": containers}),
    );
    let allowed = json!({"verdict": "Allowed", "owner": "shop",
        "steps": [{"step": "who", "text": "shop/web, 3 pods, meshed"}]});
    api.judge(&format!("{shop}/explanations"), allowed);
    api.judge(
        &format!("{shop}/dryruns"),
        json!({"changed": [], "kept": 3}),
    );
    let request = json!({"request": {"time": "2026-11-02T09:00:00.123Z", "direction": "outbound",
        "pod": "shop/web-5d8", "peer": "shop/cart-77c", "port": 8080, "mtls": true,
        "protocol": "http1", "method": "GET", "host": "cart", "path": "/items/7", "status": 503}});
    let last = json!({"metadata": {"proxies": 1, "takingPart": 1, "matched": 2, "shown": 2,
        "last": true}});
    let lines = [request.clone(), request, last];
    api.put_lines(&format!("{shop}/taps/live"), &lines);
}

/// The mesh, and a kubeconfig beside files and a kubectl that takes everything.
fn prepared(server: &Server) -> PathBuf {
    mesh(&server.api);
    let kubeconfig = server.well();
    let folder = kubeconfig.parent().unwrap();
    std::fs::write(
        folder.join("deployment.yaml"),
        "kind: Deployment\nspec:\n  template:\n    spec: {}\n",
    )
    .unwrap();
    std::fs::write(folder.join("policy.yaml"), "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\nmetadata: {name: a}\nspec: {matches: {ports: [1]}}\n").unwrap();
    std::fs::write(folder.join("kubectl"), "#!/bin/sh\nexec cat >/dev/null\n").unwrap();
    std::fs::set_permissions(
        folder.join("kubectl"),
        std::fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    std::os::unix::fs::symlink(WEFT, folder.join("weft")).unwrap();
    kubeconfig
}

/// The same line for bash, where it ends by itself and soon, within the folder of files.
fn as_run_here(line: &str) -> String {
    let line = line
        .replace("/etc/bash_completion.d/", "")
        .replace("> weft", "> completion");
    // What serves until it is stopped is stopped.
    let line = line.replace(
        "weft dashboard",
        "timeout --preserve-status -s INT 3 weft dashboard",
    );
    // A wait of minutes is for clusters that become well.
    let line = line.replace("--wait 2m", "--wait 1s");
    // What is found in this graph is no policy that others could try.
    let line = line.replace("> policy.yaml", "> suggested.yaml");
    // Requests are shown until the output is closed.
    let line = match line.starts_with("weft tap ") {
        true => line + " | head -1",
        false => line,
    };
    format!("set -o pipefail 2>/dev/null; {line}")
}

#[tokio::test]
async fn example_of_every_help_runs() {
    let server = Server::start().await;
    let kubeconfig = prepared(&server);
    let mut command = weft_cli::command();
    command.build();
    for command in command.get_subcommands() {
        let example = weft_cli::reference::example(command).unwrap();
        let line = as_run_here(&example);
        let (code, out, err) = run("/bin/bash", &["-c", &line], &kubeconfig).await;
        // A cluster that holds no more than this is not well, and a pod in it has a proxy.
        let most = i32::from(["check", "uninstall"].contains(&command.get_name()));
        assert!((0..=most).contains(&code), "{example}: {code} {err}");
        for (name, expected) in ASKING {
            let other = command.get_name() != name;
            assert!(
                other || out.contains(expected),
                "{example}: no {expected:?} in {out}"
            );
        }
    }
}

/// A user with nothing but the README, and the kubeconfig of the demo, which names no namespace.
#[tokio::test]
async fn every_line_of_the_readme_runs() {
    let server = Server::start().await;
    let kubeconfig = prepared(&server);
    let config = std::fs::read_to_string(&kubeconfig).unwrap();
    let elsewhere = config.replace("\"namespace\":\"shop\"", "\"namespace\":\"default\"");
    assert_ne!(config, elsewhere);
    std::fs::write(&kubeconfig, elsewhere).unwrap();
    let ended = async |line: &str| {
        let line = as_run_here(line);
        run("/bin/bash", &["-c", &line], &kubeconfig).await
    };
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let lines = readme.lines().filter_map(|line| line.strip_prefix("    "));
    let lines = lines.filter(|line| line.starts_with("weft "));
    let lines: Vec<&str> = lines.filter_map(|line| line.split(" # ").next()).collect();
    assert!(lines.len() > 9, "{lines:?}");
    for line in lines {
        let (code, _, err) = ended(line.trim_end()).await;
        // A cluster that holds no more than this is not well, and that is found.
        let most = i32::from(line.starts_with("weft check"));
        assert!((0..=most).contains(&code), "{line}: {code} {err}");
    }
    // The namespace of its objects must be given.
    let (code, out, _) = ended("weft edges svc/cart -o mermaid").await;
    assert!(code > 1, "{code} {out}");
}

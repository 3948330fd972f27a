//! Whatever a response holds, no terminal acts upon what is printed of it, and none of it is a line
//! of its own.
//!
//! Claims: observe-28

use fake_api::FakeApi;
use serde_json::{Value, json};

use crate::server::Server;
use crate::{WEFT, graph, run};

/// Moves the cursor, turns the direction of writing, hides letters, and writes a line.
const EVIL: &str = "a\u{1b}[2J\u{9b}31m\u{202e}\u{2066}\u{200b}\u{feff}\u{7}\r\t\u{85}\u{2028}\
                    \u{61c}\u{ad}\u{e0041}\nFORGED";
const OBSERVE: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop";
const POLICY: &str = "apiVersion: specs.smi-spec.io/v1alpha4\nkind: TCPRoute\n\
                      metadata: {name: a}\nspec: {matches: {ports: [1]}}\n";

/// `web` calls `cart` and what is evil, and is called by it.
fn evil_graph() -> Value {
    let mut graph = graph();
    let key = format!("shop/{EVIL}");
    let account = format!("spiffe://cluster.local/ns/shop/sa/{EVIL}");
    graph["metadata"]["complete"] = json!(false);
    graph["metadata"]["incomplete"] = json!(EVIL);
    let node = json!({"id": EVIL, "kind": "Deployment", "namespace": "shop", "name": EVIL,
        "accounts": [EVIL, account], "services": ["shop/cart", key], "access": EVIL, "mtls": EVIL,
        "pods": 1, "meshed": 1, "routes": [{"route": EVIL, "requests": 3}]});
    let outside = json!({"id": "external", "kind": "External", "name": EVIL});
    graph["nodes"]
        .as_array_mut()
        .unwrap()
        .extend([node, outside]);
    let edge = |from: &str, to: &str| {
        json!({"id": format!("{from}{to}"), "from": from, "to": to, "service": key, "port": 80,
            "backend": key, "split": key, "rule": EVIL, "protocol": EVIL, "requests": 9, "success": 6,
            "failure": 3, "refused": {EVIL: 3}, "mtls": 1.0, "identities": [account],
            "allowedBy": [EVIL], "firstSeen": EVIL, "lastSeen": EVIL})
    };
    let (web, cart) = ("shop/Deployment/web", "shop/Deployment/cart");
    let edges = [edge(web, EVIL), edge(EVIL, cart), edge(web, "external")];
    graph["edges"].as_array_mut().unwrap().extend(edges);
    graph
}

fn proxy() -> Value {
    json!({"metadata": {"namespace": "shop", "name": EVIL, "uid": EVIL}, "status": {
        "workload": format!("Deployment/{EVIL}"), "identity": EVIL, "version": EVIL,
        "connected": true, "acknowledged": 3, "needed": 4,
        "nacks": [{"object": EVIL, "reason": EVIL}], "tooOldFor": [EVIL], "lacks": [EVIL],
        "certificate": {"serial": EVIL, "notAfter": "2999-01-01T00:00:00Z", "issuer": EVIL},
        "config": {"identity": EVIL, "targets": {EVIL: EVIL}, EVIL: EVIL}}})
}

fn explanation() -> Value {
    json!({"verdict": "Refused", "reason": EVIL, "httpStatus": 403, "owner": EVIL,
        "refusedBy": [EVIL],
        "steps": [{"step": EVIL, "text": EVIL, "objects": [EVIL]}, {"step": "rule", "text": EVIL}],
        "backends": [{"service": EVIL, "share": 0.5, "verdict": "Refused", "reason": EVIL, "pods": [EVIL]},
            {"service": EVIL, "share": 0.5, "verdict": "Allowed"}],
        "rule": {"object": EVIL, "rule": 1, "name": EVIL, "audience": EVIL, "earlier": [
            {"object": EVIL, "rule": 0, "name": EVIL, "wants": EVIL, "fails": EVIL}]},
        "seen": {"windowSeconds": 300, "requests": 3, "refused": {EVIL: 3}, "last": EVIL},
        "programmed": {"proxies": 1, "of": 2, "nacks": [EVIL]},
        "fix": {"objects": [{"kind": EVIL, "metadata": {"name": EVIL}}], "commands": [EVIL],
            "warnings": [EVIL]}})
}

fn route_table() -> Value {
    let rule = json!({"object": EVIL, "rule": 0, "name": EVIL, "matches": EVIL, "edits": [EVIL],
        "backends": [{"service": EVIL, "port": 80, "share": 1.0}]});
    let answer = json!({"object": EVIL, "matches": EVIL, "answer": EVIL});
    json!({"metadata": {"namespace": "shop", "name": EVIL}, "tables": [{"service": EVIL, "port": 80,
        "audience": EVIL, "rules": [rule, answer], "otherwise": EVIL}]})
}

fn dry_run() -> Value {
    let edge = |change: &str| {
        json!({"change": change, "from": EVIL, "to": EVIL, "service": EVIL, "port": 80,
            "protocol": EVIL, "reason": EVIL, "lastSeen": EVIL,
            "before": [{"service": EVIL, "share": 1.0}], "after": [{"service": EVIL, "share": 1.0}]})
    };
    json!({"changed": [edge("refused"), edge("depends"), edge("unknown"), edge("rerouted")],
        "kept": 1, "opened": [EVIL, format!("shop/{EVIL}/{EVIL}")], "warnings": [EVIL]})
}

fn mesh(api: &FakeApi) {
    api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": EVIL}),
    );
    api.put(&format!("{OBSERVE}/graphs/live"), evil_graph());
    api.put(&format!("{OBSERVE}/proxies/web-5d8"), proxy());
    api.judge(&format!("{OBSERVE}/explanations"), explanation());
    api.judge(&format!("{OBSERVE}/dryruns"), dry_run());
    api.put(&format!("{OBSERVE}/routetables/cart"), route_table());
    let request = json!({"request": {"time": EVIL, "direction": "outbound", "pod": EVIL,
        "peer": EVIL, "service": EVIL, "port": 80, "protocol": EVIL, "method": EVIL, "host": EVIL,
        "path": EVIL, "route": EVIL, "status": 503, "reason": EVIL, "identity": EVIL,
        "backend": EVIL, "trace": EVIL, "headers": [{"name": EVIL, "value": EVIL}]}});
    let last = json!({"metadata": {"proxies": 1, "takingPart": 1, "matched": 1, "shown": 1,
        "last": true}});
    api.put_lines(&format!("{OBSERVE}/taps/live"), &[request, last]);
    let containers = json!({"containers": [{"name": EVIL}], "serviceAccountName": EVIL,
        "initContainers": [{"name": "weft-proxy"}]});
    let annotations = json!({"weft.dev/proxy-version": EVIL, "weft.dev/access": EVIL});
    api.put(
        "/api/v1/namespaces/shop/pods/web-5d8",
        json!({"metadata": {"name": EVIL, "namespace": "shop", "annotations": annotations},
            "spec": containers}),
    );
    let split = json!({"metadata": {"name": EVIL, "namespace": "shop"},
        "spec": {"service": EVIL, "backends": [{"service": EVIL, "weight": 1}]},
        "status": {"conditions": [{"type": "Accepted", "status": "False", "reason": EVIL}]}});
    let splits = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits";
    api.put(&format!("{splits}/cart"), split);
    let metric = json!({"resource": {"kind": "Pod", "namespace": "shop", "name": EVIL},
        "window": EVIL, "metrics": [{"name": "success_count", "value": "3"}]});
    let metrics = "/apis/metrics.smi-spec.io/v1alpha2/namespaces/shop/pods";
    api.put(metrics, json!({"items": [metric]}));
}

/// Control characters but ends of lines, and those that turn the direction of writing or take
/// no place.
fn acts(letter: char) -> bool {
    (letter.is_control() && letter != '\n')
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(
            letter,
            '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{ad}'
        )
        || matches!(letter, '\u{e0000}'..='\u{e0fff}')
}

/// Commands, each with its formats beside the first one, and whether its output shows the hostile
/// text in the first one.
const COMMANDS: [(&str, &[&str], bool); 23] = [
    ("stat deploy", &["wide", "json", "yaml"], true),
    ("stat svc", &["wide"], true),
    ("stat ts", &["wide"], true),
    ("stat pod", &["wide", "json"], true),
    ("stat deploy --to deploy/cart", &["wide"], true),
    ("edges", &["wide", "json", "yaml", "dot", "mermaid"], true),
    ("edges --since 5m --refused", &["wide"], true),
    ("routes svc/cart", &["json", "yaml"], true),
    ("routes svc/cart --rules", &["wide", "json", "yaml"], false),
    ("convert --from-cluster", &["json", "yaml"], false),
    ("top", &[], true),
    ("top deploy/web --paths -t 1s", &[], true),
    ("tap deploy/web | head -1", &[], true),
    ("tap deploy/web -o json | head -1", &[], true),
    (
        "explain deploy/web svc/cart GET /",
        &["wide", "json", "yaml", "fix"],
        true,
    ),
    ("suggest", &["json", "yaml"], true),
    ("dry-run -f policy.yaml", &["json", "yaml"], true),
    ("proxies", &["wide", "json", "yaml"], true),
    ("proxy-config web-5d8", &["json", "yaml"], true),
    ("identity deploy", &["json", "yaml"], true),
    ("identity --ca", &[], false),
    ("check", &["json", "yaml"], true),
    ("version", &["json", "yaml"], true),
];

#[tokio::test]
async fn no_command_prints_what_a_terminal_acts_upon() {
    let server = Server::start().await;
    mesh(&server.api);
    let kubeconfig = server.well();
    let folder = kubeconfig.parent().unwrap();
    std::fs::write(folder.join("policy.yaml"), POLICY).unwrap();
    std::os::unix::fs::symlink(WEFT, folder.join("weft")).unwrap();
    for (command, formats, prints_names) in COMMANDS {
        let others = formats
            .iter()
            .map(|format| format!("{command} -o {format}"));
        for (at, line) in std::iter::once(command.to_owned())
            .chain(others)
            .enumerate()
        {
            let shell = format!("weft {line}");
            let (code, out, err) = run("/bin/bash", &["-c", &shell], &kubeconfig).await;
            assert!((0..=3).contains(&code), "{line}: {code} {err}");
            for text in [&out, &err] {
                let acting: Vec<char> = text.chars().filter(|letter| acts(*letter)).collect();
                assert!(acting.is_empty(), "{line}: {acting:?} in {text:?}");
                let forged = text.lines().find(|line| line.starts_with("FORGED"));
                assert_eq!(forged, None, "{line}: {text}");
            }
            let printed = out.contains("FORGED") || err.contains("FORGED");
            assert!(
                printed || !prints_names || at > 0,
                "{line} shows nothing: {out}{err}"
            );
        }
    }
}

//! Completion as shells do it, by the scripts that the program prints.
//!
//! Claims: observe-42

use std::path::Path;
use std::time::{Duration, Instant};

use fake_api::FakeApi;
use serde_json::json;

use crate::server::Server;
use crate::{WEFT, run};

/// Types a line at a prompt of zsh, presses Tab and Enter, and prints what was run. `weft` is a
/// function there that responds to queries for names as the program does, and runs nothing else.
const AT_A_PROMPT: &str = r#"
zmodload zsh/zpty
zpty typed "HOME=$PWD TERM=dumb exec zsh -f -i"
zpty -w typed 'autoload -U compinit; compinit -D -u; bindkey "^I" menu-complete; source ./completion'
zpty -w typed 'weft() { if [[ $1 == complete-names ]]; then command weft "$@"; else print -r -- "$@" >ran; fi }'
zpty -w -n typed "$1"$'\t\n'
zpty -w typed exit
while zpty -r typed line; do :; done
cat ran
"#;

/// Of the shop and the bank what can be named.
fn put_objects(api: &FakeApi) {
    for (collection, name) in [
        ("/apis/apps/v1/namespaces/shop/deployments", "web"),
        ("/apis/apps/v1/namespaces/shop/deployments", "worker"),
        ("/apis/apps/v1/namespaces/shop/deployments", "cart"),
        ("/apis/apps/v1/namespaces/bank/deployments", "teller"),
        ("/api/v1/namespaces/shop/services", "cart"),
        ("/api/v1/namespaces/shop/pods", "web-5d8"),
    ] {
        let object = json!({"metadata": {"name": name}});
        api.put(&format!("{collection}/{name}"), object);
    }
}

/// Puts a shell's script beside the kubeconfig, as `completion`, and the program as `weft`.
async fn install(shell: &str, kubeconfig: &Path) {
    let program = format!("/usr/bin/{shell}");
    assert!(
        Path::new(&program).exists(),
        "{program} is missing (Debian: apt-get install {shell}); as root e2e/run installs it"
    );
    let folder = kubeconfig.parent().unwrap();
    let (code, script, err) = run(WEFT, &["completion", shell], kubeconfig).await;
    assert_eq!(code, 0, "{err}");
    std::fs::write(folder.join("completion"), script).unwrap();
    std::os::unix::fs::symlink(WEFT, folder.join("weft")).unwrap();
}

/// What bash offers at the end of a line: a word each.
async fn offered(words: &[&str], kubeconfig: &Path) -> Vec<String> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let last = quoted.last().unwrap();
    let before = words.len().checked_sub(2).map_or("weft", |at| words[at]);
    let line = format!(
        "source ./completion; COMP_WORDS=(weft {}); COMP_CWORD={}; \
         _weft weft {last} '{before}'; printf '%s\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" "),
        words.len()
    );
    let (code, out, err) = run("/bin/bash", &["-c", &line], kubeconfig).await;
    assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
    out.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_object_names_from_cluster_of_line() {
    let server = Server::start().await;
    let kubeconfig = server.well();
    put_objects(&server.api);
    install("bash", &kubeconfig).await;
    for (words, expected) in [
        (
            &["tap", "deploy/w"][..],
            &["deploy/web", "deploy/worker"][..],
        ),
        (
            &["tap", "deploy/web", "--to", "svc/"][..],
            &["svc/cart"][..],
        ),
        // bash takes `--to=svc/` apart.
        (&["tap", "cart", "--to", "=", "svc/"][..], &["svc/cart"][..]),
        (
            &["-n", "bank", "stat", "deploy/"][..],
            &["deploy/teller"][..],
        ),
        (&["log-level", "w"][..], &["web-5d8"][..]),
        (&["stat", "dep"][..], &["deploy/"][..]),
        // What the script knows by itself.
        (&["sta"][..], &["stat"][..]),
        (&["stat", "--wat"][..], &["--watch"][..]),
    ] {
        assert_eq!(offered(words, &kubeconfig).await, expected, "{words:?}");
    }
}

#[tokio::test]
async fn zsh_completes_object_names_from_cluster_of_line() {
    let server = Server::start().await;
    let kubeconfig = server.well();
    put_objects(&server.api);
    install("zsh", &kubeconfig).await;
    for (typed, expected) in [
        ("weft tap deploy/wo", "tap deploy/worker"),
        (
            "weft tap deploy/web --to svc/",
            "tap deploy/web --to svc/cart",
        ),
        ("weft tap cart --to=svc/", "tap cart --to=svc/cart"),
        ("weft -n bank stat deploy/", "-n bank stat deploy/teller"),
        ("weft log-level w", "log-level web-5d8"),
        // Behind a kind comes a name, and no blank.
        ("weft stat dep\twor", "stat deploy/worker"),
        // What the script knows by itself.
        ("weft sta", "stat"),
        ("weft stat --wat", "stat --watch"),
        // Control: nothing begins so.
        ("weft tap deploy/x", "tap deploy/x"),
    ] {
        let arguments = ["-f", "-c", AT_A_PROMPT, "zsh", typed];
        let (code, out, err) = run("/usr/bin/zsh", &arguments, &kubeconfig).await;
        assert_eq!((code, err.as_str()), (0, ""), "{typed}: {out}");
        assert_eq!(out, format!("{expected}\n"), "{typed}");
    }
}

#[tokio::test]
async fn fish_completes_object_names_from_cluster_of_line() {
    let server = Server::start().await;
    let kubeconfig = server.well();
    put_objects(&server.api);
    install("fish", &kubeconfig).await;
    // The folder of its history.
    let home = format!("HOME={}", kubeconfig.parent().unwrap().display());
    let ask = "source ./completion; complete -C $argv[1]";
    for (line, expected) in [
        ("weft tap deploy/w", &["deploy/web", "deploy/worker"][..]),
        ("weft tap deploy/web --to svc/", &["svc/cart"][..]),
        ("weft tap cart --to=svc/", &["--to=svc/cart"][..]),
        ("weft -n bank stat deploy/", &["deploy/teller"][..]),
        ("weft log-level w", &["web-5d8"][..]),
        ("weft stat dep", &["deploy/"][..]),
        // What the script knows by itself.
        ("weft sta", &["stat"][..]),
        ("weft stat --wat", &["--watch"][..]),
        // Control: nothing begins so.
        ("weft tap deploy/x", &[][..]),
    ] {
        let arguments = [&*home, "/usr/bin/fish", "--no-config", "-c", ask, line];
        let (code, out, err) = run("/usr/bin/env", &arguments, &kubeconfig).await;
        assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
        // Behind a tab stands what it is.
        let words = out.lines().filter_map(|word| word.split('\t').next());
        assert_eq!(words.collect::<Vec<&str>>(), expected, "{line}");
    }
}

#[tokio::test]
async fn completion_is_silent_when_cluster_does_not_respond() {
    let server = Server::start().await;
    let ask = ["complete-names", "tap", "deploy/"];
    let started = Instant::now();
    let slow = server.kubeconfig("exec sleep 30");
    assert_eq!(run(WEFT, &ask, &slow).await, silent());
    let strange = server.kubeconfig("echo nothing");
    assert_eq!(run(WEFT, &ask, &strange).await, silent());
    server.api.vanish(true);
    let hung = server.well();
    assert_eq!(run(WEFT, &ask, &hung).await, silent());
    let nowhere = [
        "complete-names",
        "--kubeconfig",
        "/nowhere",
        "tap",
        "deploy/",
    ];
    assert_eq!(run(WEFT, &nowhere, &hung).await, silent());
    assert_eq!(run(WEFT, &["complete-names"], &hung).await, silent());
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn exec_plugin_in_completion_runs_non_interactively() {
    let server = Server::start().await;
    let kubeconfig = server.well();
    let folder = kubeconfig.parent().unwrap();
    let pod = json!({"metadata": {"name": "web-5d8"}});
    server.api.put("/api/v1/namespaces/shop/pods/web-5d8", pod);
    // A plugin that may prompt, and would.
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let text = text.replace("\"Never\"", "\"IfAvailable\"");
    std::fs::write(&kubeconfig, text).unwrap();
    let plugin = folder.join("plugin");
    let script = std::fs::read_to_string(&plugin).unwrap();
    let querying = "\necho \"$KUBERNETES_EXEC_INFO\" >output\necho 'log in, please' >&2\n";
    std::fs::write(&plugin, script.replacen('\n', querying, 1)).unwrap();
    let script_output = || std::fs::read_to_string(folder.join("output")).unwrap();
    let names = ["complete-names", "log-level", "web"];
    let (code, out, err) = run(WEFT, &names, &kubeconfig).await;
    assert_eq!((code, out.as_str(), err.as_str()), (0, "web-5d8\n", ""));
    assert!(
        script_output().contains("\"interactive\":false"),
        "{}",
        script_output()
    );
    // The user of a command can be prompted.
    let (_, _, err) = run(WEFT, &["stat", "deploy"], &kubeconfig).await;
    assert!(
        script_output().contains("\"interactive\":true"),
        "{}",
        script_output()
    );
    assert!(err.contains("log in, please"), "{err}");
}

/// Status, output and messages.
fn silent() -> (i32, String, String) {
    (0, String::new(), String::new())
}

//! The program as a plugin of kubectl, which runs it under the name `kubectl-weft`.

use serde_json::json;

use crate::server::Server;
use crate::{WEFT, run};

#[tokio::test]
async fn kubectl_plugin_responds_like_weft_with_own_help_name() {
    let server = Server::start().await;
    server.api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
    );
    let kubeconfig = server.well();
    let link = kubeconfig.with_file_name("kubectl-weft");
    std::os::unix::fs::symlink(WEFT, &link).unwrap();
    let plugin = link.to_str().unwrap();
    for (words, ends_with) in [
        (&["version"][..], 0),
        (&["version", "-o", "json"], 0),
        (&["stat", "secrets"], 2),
    ] {
        let answer = run(WEFT, words, &kubeconfig).await;
        assert_eq!(answer.0, ends_with, "{words:?}: {answer:?}");
        assert_eq!(run(plugin, words, &kubeconfig).await, answer, "{words:?}");
    }
    for (command, usage) in [(plugin, "Usage: kubectl-weft "), (WEFT, "Usage: weft ")] {
        let (code, out, err) = run(command, &["--help"], &kubeconfig).await;
        assert_eq!(code, 0, "{command}: {err}");
        assert!(out.contains(usage), "{command}: {out}");
    }
}

//! `weft dry-run`, from a file and from the command line.

use super::super::dry_runs;
use super::*;

#[tokio::test]
async fn command_line_tells_which_calls_a_change_would_refuse() {
    let town = Town::before(dry_runs::bench().await).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let other = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    let list =
        json!({"apiVersion": "v1", "kind": "List", "items": [other, dry_runs::for_others()]});
    write!(file, "{list}").unwrap();
    let line = format!("dry-run -f {} -n shop", file.path().display());
    let (code, out, err) = town.weft("editor", &line).await;
    assert_eq!(code, 1, "{out}{err}");
    let rows = super::rows(&out);
    let [row] = rows.as_slice() else {
        panic!("{out}")
    };
    assert_eq!(
        row[..5],
        [
            "refused",
            "shop/Pod/client",
            "shop/Deployment/api",
            "shop/api",
            "80"
        ]
    );
    assert_eq!(row.last(), Some(&"not-allowed"), "{out}");
    assert!(err.contains("ConfigMap x is not tried"), "{err}");

    let mut file = tempfile::NamedTempFile::new().unwrap();
    let closed = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "annotations": {"weft.dev/access": "deny"}}});
    let gone = "--delete TrafficTarget/read -n shop";
    write!(file, "{closed}").unwrap();
    let line = format!("dry-run -f {} {gone}", file.path().display());
    let (code, out, err) = town.weft("editor", &line).await;
    assert_eq!(code, 1, "{out}{err}");
    assert_eq!(super::rows(&out)[0][..2], ["refused", "shop/Pod/client"]);

    let line = "dry-run --delete traffictargets/read -n shop";
    let (code, out, err) = town.weft("editor", line).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(super::rows(&out)[0][..2], ["allowed", "shop/Pod/client"]);
    for (line, word) in [
        ("dry-run -n shop", "nothing to try"),
        ("dry-run --access shut -n shop", "spec.access[0].mode"),
        ("dry-run --delete Secret/x -n shop", "KIND/NAME"),
        ("dry-run --access deny -A", "-n NAME"),
    ] {
        let (code, _, err) = town.weft("editor", line).await;
        assert!(code == 2 && err.contains(word), "{line}: {code} {err}");
    }
    let (code, _, err) = town.weft("viewer", "dry-run --access deny -n shop").await;
    assert!(code == 3 && err.contains("ClusterRole edit"), "{err}");
}

#[tokio::test]
async fn command_line_does_not_say_yes_where_no_call_is_remembered() {
    let town = Town::before(Bench::new()).await;
    let line = "dry-run --delete TrafficTarget/read -n shop";
    let (code, out, err) = town.weft("editor", line).await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("remembers no call"), "{err}");
}

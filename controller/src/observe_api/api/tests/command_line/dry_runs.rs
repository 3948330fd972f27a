//! `weft dry-run`, from a file and from the command line.
//!
//! Claims: observe-109, observe-110, observe-117, observe-124

use super::super::{dry_runs, live_dry_runs, taps};
use super::*;

#[tokio::test]
async fn command_line_shows_calls_a_change_would_refuse() {
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
    assert_eq!(code, 1, "{err}");
    let opened = "opens Deployment api to every caller in namespace shop";
    let (first, table) = out.split_once('\n').unwrap();
    assert!(first.starts_with(opened), "{out}");
    let rows = super::rows(table);
    let allowed = ["allowed", "shop/Pod/client"];
    assert!(rows.iter().any(|row| row.starts_with(&allowed)), "{out}");
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
async fn watched_dry_run_fails_on_refused_live_call() {
    let town = Town::before(Bench::new()).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{}", dry_runs::for_others()).unwrap();
    let line = format!("dry-run -f {} -n shop --watch 2s", file.path().display());
    let mut proxies = ["uid-api-1", "uid-api-2"].map(|uid| taps::Proxy::of(&town.bench, uid));
    // The second one serves no call, and may not take part.
    let mut watched = async |line: &str, refused: u64, all: bool| {
        let telling = async {
            let (id, trial) = live_dry_runs::next_query(&mut proxies[0]).await;
            let rows = vec![live_dry_runs::refused("api/read", refused)];
            proxies[0].answer_with(id, live_dry_runs::example());
            proxies[0].answer_with(id, live_dry_runs::counts(rows, 0));
            if all {
                let (id, _) = live_dry_runs::next_query(&mut proxies[1]).await;
                proxies[1].answer_with(id, live_dry_runs::counts(Vec::new(), 0));
            }
            trial
        };
        let (ended, trial) = tokio::join!(town.weft("owner", line), telling);
        assert_eq!(trial.examples, 20);
        // Each stream ends with its reader.
        for proxy in &mut proxies {
            while proxy.orders.try_recv().is_ok() {}
        }
        ended
    };
    let (code, out, err) = watched(&line, 2, false).await;
    assert_eq!(code, 1, "{out}{err}");
    let row = out.lines().find(|line| line.starts_with("refused "));
    let row: Vec<&str> = row.unwrap_or_default().split_whitespace().collect();
    let expected = [
        "refused",
        "shop/Deployment/web",
        "shop/Deployment/api",
        "8080",
    ];
    assert_eq!(row[..4], expected, "{out}");
    assert_eq!(row[4..], ["api/read", "2", "0", "1"], "{out}");
    let example = "09:00:00Z refused GET /items/7 shop/Deployment/web -> shop/Deployment/api:8080";
    assert!(out.contains(example), "{out}");
    assert!(err.contains("1 of 2 take part"), "{err}");
    assert!(err.contains("3 live calls were evaluated"), "{err}");

    // Where all of them would pass, it is yes if all took part.
    let (code, _, err) = watched(&line, 0, false).await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("only 1 of 2 proxies evaluated"), "{err}");
    // The output is the API's own response.
    let (code, out, err) = watched(&format!("{line} -o json"), 0, true).await;
    assert_eq!(code, 0, "{out}{err}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let trial = &answer["status"]["trial"];
    assert_eq!(
        (&trial["judged"], &trial["refused"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(trial["edges"][0]["kept"], 1, "{trial}");
}

#[tokio::test]
async fn watched_dry_run_reports_what_it_cannot_determine() {
    let town = Town::before(Bench::new()).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{}", dry_runs::for_others()).unwrap();
    let line = format!("dry-run -f {} -n shop --watch", file.path().display());
    // No proxy streams from this controller.
    let (code, _, err) = town.weft("editor", &format!("{line} 1s")).await;
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("none of 2 proxies evaluated"), "{err}");
    let (code, _, err) = town.weft("editor", &format!("{line} 0s")).await;
    assert!(code == 2 && err.contains("--watch"), "{code} {err}");
    // What admission refuses is refused with its message, and nothing is watched.
    let bad = json!({"apiVersion": "access.smi-spec.io/v1alpha4", "kind": "TrafficTarget",
        "metadata": {"namespace": "shop", "name": "read"}, "spec": {"destination": 7}});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "{bad}").unwrap();
    let line = format!("dry-run -f {} -n shop --watch 60s", file.path().display());
    let (code, out, err) = town.weft("editor", &line).await;
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("would be refused"), "{err}");
}

#[tokio::test]
async fn dry_run_gives_no_approval_without_known_calls() {
    let town = Town::before(Bench::new()).await;
    let line = "dry-run --access deny -n shop";
    let (code, out, err) = town.weft("editor", line).await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("has recorded no call"), "{err}");
    // What is opened is known without any call.
    let line = "dry-run --delete TrafficTarget/read -n shop";
    let (code, out, err) = town.weft("editor", line).await;
    assert_eq!(code, 1, "{err}");
    assert!(
        out.starts_with("opens Deployment api to every caller"),
        "{out}"
    );
}

// Claims: observe-115
#[tokio::test]
async fn dry_run_does_not_approve_partially_evaluated_file() {
    let town = Town::before(dry_runs::bench().await).await;
    let namespace = |key: &str, value: &str| {
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": "shop", "annotations": {}}});
        object["metadata"]["annotations"][key] = json!(value);
        object
    };
    let deployment = |key: &str, value: &str| {
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "annotations": {"weft.dev/mtls": "strict"}},
            "spec": {"template": {"metadata": {"annotations": {}}}}});
        object["spec"]["template"]["metadata"]["annotations"][key] = json!(value);
        object
    };
    let closed = "--access deny -n shop";
    for (object, besides, expected, word) in [
        (
            namespace("weft.dev/mtls", "strict"),
            closed,
            3,
            "weft.dev/mtls of Namespace shop is not tried",
        ),
        (
            deployment("weft.dev/opaque-ports", "80"),
            closed,
            3,
            "weft.dev/opaque-ports of Deployment web is not tried",
        ),
        // By that nothing becomes of a call, nor by an annotation of what owns pods.
        (
            deployment("weft.dev/log-level", "debug"),
            closed,
            0,
            "weft.dev/log-level of Deployment web is not tried",
        ),
        (
            namespace("weft.dev/mtls", "strict"),
            "-n shop",
            3,
            "1 labels",
        ),
        // What is refused is refused all the same.
        (
            namespace("weft.dev/mtls", "strict"),
            "--access deny --delete TrafficTarget/read -n shop",
            1,
            "weft.dev/mtls",
        ),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{object}").unwrap();
        let line = format!("dry-run -f {} {besides}", file.path().display());
        let (code, out, err) = town.weft("editor", &line).await;
        assert_eq!(code, expected, "{line}: {out}{err}");
        assert!(err.contains(word), "{word}: {err}");
    }
}

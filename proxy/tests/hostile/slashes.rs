//! Slashes that applications read in several ways, `%2F` and `//`: the path arrives as it was sent
//! where no rule depends on the reading, and bypasses no other rule.
//!
//! Claims: attack-9

use wire::v1::Protocol;

use super::two_pods::{SPEAKERS, TwoPods, status};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n")
}

/// Every sender's request of this path is answered 400, and none arrives.
async fn is_refused(pods: &TwoPods, path: &str, way_out: &str) {
    for from in SPEAKERS {
        let answer = pods.send(from, get(path)).await;
        assert_eq!(status(&answer), 400, "{path}, {from:?}: {answer}");
        assert!(answer.contains(way_out), "{path}, {from:?}: {answer}");
        let got = pods.recorded(path);
        assert!(got.is_empty(), "{path}, {from:?}: {got:?}");
    }
}

/// Every sender's request of the one path arrives as that of the other.
async fn arrives(pods: &TwoPods, path: &str, as_path: &str) {
    for from in SPEAKERS {
        let answer = pods.send(from, get(path)).await;
        assert_eq!(status(&answer), 200, "{path}, {from:?}: {answer}");
        let got = pods.recorded(path);
        assert_eq!(got[0].line(), format!("GET {as_path} HTTP/1.1"), "{from:?}");
    }
}

#[tokio::test]
async fn rules_of_paths_let_no_other_reading_in() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/public/", "^/[^/]*$"]);
    for path in ["/private%2Fx", "/private%2fx", "/%2Fprivate"] {
        is_refused(&pods, path, "pathRegex").await;
    }
    for path in [
        "/public%2F..%2Fprivate",
        "/public/..%2Fprivate",
        "/public/%2e%2e%2Fprivate",
        "/public/a%5C..%5Cprivate",
        "/public/a%2F%00",
        "/public/a//%c0%ae%c0%ae/x",
        "/public/a//..;/private",
    ] {
        is_refused(&pods, path, "spelling").await;
    }
    // One reading is allowed and not the other.
    arrives(&pods, "//public/x", "/public/x").await;
    // Each reading is allowed, by one match or the other.
    arrives(&pods, "/public%2fx", "/public%2fx").await;
    arrives(&pods, "/public/a%2F%2F//b", "/public/a%2F%2F//b").await;
    pods.works_at("/public/", "slashes").await;
}

#[tokio::test]
async fn slashes_arrive_as_sent_where_the_path_decides_nothing() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/only", ".*"]);
    for path in [
        "/api/queues/%2F/x",
        "/@scope%2fname",
        "/bucket//key/",
        "//x",
        "/a%2F%2Fb?x=%2F..//",
    ] {
        arrives(&pods, path, path).await;
    }
    for path in ["/a%2F..%2Fb", "/a%5Cb", "/a//%00", "/..;/a%2Fb"] {
        is_refused(&pods, path, "spelling").await;
    }
    arrives(&pods, "/a//../b", "/b").await;
}

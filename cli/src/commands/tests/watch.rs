//! A watch, while controllers are replaced.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;

use super::*;

/// Which questions find no controller.
const AWAY: std::ops::Range<usize> = 1..3;

/// The graph of `web` and `cart`, but for those questions.
fn replaced() -> Client {
    let node = |name: &str| {
        json!({"id": name, "kind": "Deployment", "namespace": "shop", "name": name, "pods": 1,
            "meshed": 1})
    };
    let graph = json!({"metadata": {"windowSeconds": 60, "complete": true},
        "nodes": [node("web"), node("cart")],
        "edges": [{"id": "1", "from": "web", "to": "cart", "port": 80, "protocol": "http1",
            "requests": 60, "success": 60}]});
    let away = json!({"kind": "Status", "status": "Failure", "code": 503,
        "message": "no endpoints available for service \"weft-controller\""});
    let asked = AtomicUsize::new(0);
    Client::new(
        tower::service_fn(move |_: Request<Body>| {
            let (code, body) = match AWAY.contains(&asked.fetch_add(1, Ordering::Relaxed)) {
                true => (503, &away),
                false => (200, &graph),
            };
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_where_nobody_answers_for_a_moment() {
    let cli = Cli::try_parse_from(["weft", "stat", "deploy", "-w", "-n", "shop"]).unwrap();
    let Command::Stat(stat) = cli.command else {
        panic!("another command");
    };
    let cluster = Cluster::of(replaced(), &cli.global);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console {
        input: &mut std::io::empty(),
        out: &mut out,
        err: &mut err,
        color: false,
    };
    // Looks at once and after 5, 10 and 15 s.
    let following = stat.follow(&cluster, Format::Table, &mut console);
    let ended = timeout(Duration::from_secs(17), following).await;
    assert!(ended.is_err(), "{ended:?}");
    let (out, err) = (
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    );
    assert_eq!(out.matches("cart").count(), 2, "{out}");
    assert_eq!(
        err.matches("no controller of Weft answers").count(),
        2,
        "{err}"
    );
}

#[tokio::test]
async fn a_watch_that_never_began_ends_with_the_reason() {
    let api = FakeApi::default();
    let (code, out, err) = run(api.client(), "weft stat deploy -w -n shop").await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
}

//! The balancer detects a slow instance, and sends it fewer requests.

use e2e::{
    echo::load::Summary,
    harness::{App, Namespace, Outcome, app},
};
use serde_json::json;

use super::url;

const SLOW: &str = "slow";
const OTHERS: [&str; 2] = ["quick", "brisk"];
/// Of all requests, for the slow one of three.
const SHARE: f64 = 0.05;
/// And for each of the others, in one of so many windows: a response that takes a second because
/// the machine stalled keeps its instance out for some seconds.
const FAIR: f64 = 0.25;
const WINDOWS: usize = 4;

// Claims: mesh-7b
#[test]
fn instance_slowed_by_200_ms_gets_under_5_percent() -> Outcome {
    let ns = Namespace::meshed("latency")?;
    ns.apply_all(&[app::service("pool", &json!({"part": "pool"}))])?;
    for name in [OTHERS[0], OTHERS[1], SLOW] {
        let mut app = App::new(name).label("part", "pool");
        if name == SLOW {
            app = app.env("DELAY", "200ms");
        }
        ns.apply_all(&app.objects())?;
    }
    ns.apply_all(&App::new("client").objects())?;
    ns.ready(&[OTHERS[0], OTHERS[1], SLOW, "client"])?;
    let client = ns.pod("client")?;
    let load = |seconds: &str| {
        client.get(
            &url("pool", 8080, "/"),
            &["--rate", "200", "--duration", seconds, "-c", "20"],
        )
    };
    // An unmeasured instance counts as the cheapest, so all three get requests at
    // first; later the slow one may get none.
    let warm_up = load("5s")?;
    assert_eq!(
        warm_up.by_version.len(),
        3,
        "not all were tried: {warm_up:?}"
    );
    let mut parts = Vec::new();
    for _ in 0..WINDOWS {
        // 3000 requests: a share of 5 % would be 150 of them.
        let seen = load("15s")?;
        let share = share_of(SLOW, &seen);
        println!(
            "{:.2} % of {} requests to the slow one, all: {:?}, latency {:?}",
            share * 100.0,
            seen.answered,
            seen.by_version,
            seen.latency_ms
        );
        assert!(
            seen.by_status.get("200") == Some(&seen.planned),
            "not all were answered with 200: {seen:?}"
        );
        assert!(share < SHARE, "the slow one got too much: {seen:?}");
        if OTHERS.iter().all(|other| share_of(other, &seen) > FAIR) {
            return Ok(());
        }
        parts.push(seen.by_version);
    }
    panic!("in none of {WINDOWS} windows both others got enough: {parts:?}");
}

fn share_of(version: &str, seen: &Summary) -> f64 {
    let got = seen.by_version.get(version).copied().unwrap_or_default();
    got as f64 / seen.answered as f64
}

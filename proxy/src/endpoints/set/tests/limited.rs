//! Endpoints that answer by limits of their own.

use super::*;

#[tokio::test(start_paused = true)]
async fn endpoint_at_its_own_limit_is_drawn_behind_others() {
    let registry = Registry::default();
    let set = set(&registry, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]);
    for endpoint in &set.endpoints {
        let latency = Latency::Head(Duration::from_millis(1));
        endpoint.begin().learn(latency);
    }
    let limited = &set.endpoints[0];
    let drawn = || {
        let picks = (0..3000).map(|_| addr(set.pick(&Draw::DEFAULT)));
        picks.filter(|picked| *picked == limited.addr).count()
    };
    limited.limited(Some(Duration::from_secs(5)));
    let there = drawn();
    assert!((1..500).contains(&there), "{there} of 3000");
    assert!(!limited.is_ejected());
    tokio::time::advance(Duration::from_secs(5)).await;
    let there = drawn();
    assert!(there > 800, "{there} of 3000");
}

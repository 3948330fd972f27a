//! What passes by itself is waited for, and what does not pass is told.

use super::*;

#[tokio::test]
async fn what_is_on_its_way_to_a_proxy_is_no_fault_before_a_minute_is_over() {
    let (none, late): (&[&str], &[&str]) = (&[], &["acknowledged"]);
    for (seconds, found) in [(0, none), (60, none), (61, late)] {
        let api = healthy();
        let mut proxy = proxy();
        proxy["status"]["acknowledged"] = json!(3);
        proxy["status"]["behindSeconds"] = json!(seconds);
        api.put(PROXY, proxy);
        let (_, report, table) = checked(&api, WELL, &["--fail-on", "warning"]).await;
        assert_eq!(with(&report, &["warning", "error"]), found, "{report:#}");
        assert!(table.contains("shop/web-1"), "{table}");
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_goes_on_while_the_api_server_does_not_answer() {
    let api = healthy();
    api.vanish(true);
    let mending = api.clone();
    let mend = tokio::spawn(async move {
        sleep(Duration::from_secs(31)).await;
        mending.vanish(false);
    });
    let begun = Instant::now();
    let (ended, ..) = checked(&api, WELL, &["--wait", "2m"]).await;
    assert_eq!(ended.unwrap(), Verdict::Yes);
    let took = begun.elapsed();
    assert!((31..50).contains(&took.as_secs()), "{took:?}");
    mend.await.unwrap();

    api.vanish(true);
    let begun = Instant::now();
    let (ended, ..) = checked(&api, WELL, &["--wait", "30s"]).await;
    assert!(matches!(ended, Err(Failure::Unknown(_))), "{ended:?}");
    let took = begun.elapsed();
    assert!((20..45).contains(&took.as_secs()), "{took:?}");
}

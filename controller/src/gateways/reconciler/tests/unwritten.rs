//! A Gateway whose objects cannot be written says why, for people.

use http::StatusCode;

use super::*;

#[tokio::test(start_paused = true)]
async fn name_that_no_service_can_have_is_refused() {
    let long = "a".repeat(60);
    for (name, expected) in [
        (long.as_str(), "shorter name"),
        ("my.gw", "my.gw-weft"),
        ("1shop", "begin with a letter"),
    ] {
        let mut gateway = gateway(1, &json!({}));
        gateway["metadata"]["name"] = json!(name);
        let mut bench = Bench::of(&gateway);
        let path = format!("{API}/namespaces/edge/gateways/{name}");
        bench.api.put(&path, gateway);
        bench.write_events();
        tokio::spawn(bench.reconciler.clone().keep());
        sleep(3 * SOON).await;
        let conditions = bench.read(&path)["status"]["conditions"].clone();
        for (place, kind) in [(0, "Accepted"), (1, "Programmed")] {
            let one = &conditions[place];
            assert_eq!(
                (&one["type"], &one["status"]),
                (&json!(kind), &json!("False"))
            );
            assert_eq!(one["reason"], "Invalid");
            let message = one["message"].as_str().unwrap();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(bench.notes("Invalid").len(), 1, "{name}");
        let mut writes = bench.writes().into_iter();
        assert!(writes.all(|(_, at)| at == path || at == CLASS || at == EVENTS));
    }
}

#[tokio::test(start_paused = true)]
async fn refusal_of_api_server_is_quoted_in_event() {
    let mut bench = Bench::of(&gateway(1, &json!({})));
    bench.write_events();
    let services = "/api/v1/namespaces/edge/services";
    bench.api.refuse_creation(services, StatusCode::FORBIDDEN);
    tokio::spawn(bench.reconciler.clone().keep());
    sleep(2 * EVERY).await;
    let expected = "Service web-weft cannot be written: Forbidden";
    assert_eq!(bench.condition("Programmed").2, expected);
    assert_eq!(bench.notes("NotWritten"), [expected]);
}

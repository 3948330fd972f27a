//! `weft tap`, which runs until it is interrupted, and `weft top --paths` out of one.
//!
//! Claims: observe-136

use tokio::time::{sleep, timeout};

use super::super::taps;
use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn command_line_names_the_role_that_lets_tap() {
    let town = Town::start().await;
    let refused = town.weft("viewer", "tap pod/client -n shop");
    let (code, out, err) = timeout(PATIENCE, refused).await.expect("it goes on");
    assert_eq!((code, out.as_str()), (3, ""));
    assert!(
        err.contains("cannot create resource \"taps\"") && err.contains("ClusterRole weft-tap"),
        "{err}"
    );
    for (line, word) in [
        ("svc/api:80 -n shop", "port"),
        ("pod/client -A", "-n NAME"),
        (
            "svc/api --route routes/raed -n shop",
            "you may mean routes/read",
        ),
    ] {
        let line = format!("tap {line}");
        let (code, _, err) = timeout(PATIENCE, town.weft("tapper", &line))
            .await
            .expect("it goes on");
        assert!(code == 2 && err.contains(word), "{line}: {err}");
    }
}

/// What a command that goes on has written so far.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn cli_tap_survives_temporary_controller_outage() {
    let town = Town::start().await;
    let mut proxy = taps::Proxy::of(&town.bench, "uid-client");
    let mut err = Written::default();
    let words = err.clone();
    let mut console = Console {
        input: &mut std::io::empty(),
        out: &mut std::io::sink(),
        err: &mut err,
        color: false,
    };
    let arguments = town.arguments("tapper", "tap pod/client -n shop");
    let watching = weft_cli::run(arguments, &mut console);
    let telling = async {
        proxy.next_query().await;
        // Its stream ends, and the next finds a controller that is starting up.
        let models = &town.bench.models;
        let known = models.send_replace(None);
        drop(proxy);
        while !words
            .text()
            .contains("not every kind of object has been listed yet")
        {
            sleep(Duration::from_millis(10)).await;
        }
        models.send_replace(known);
        let mut again = taps::Proxy::of(&town.bench, "uid-client");
        again.next_query().await;
    };
    tokio::select! {
        ended = watching => panic!("{ended:?}: {}", words.text()),
        output = timeout(PATIENCE, telling) => output.expect("it asks no more"),
    }
}

#[tokio::test]
async fn command_line_shows_requests_as_they_end() {
    let town = Town::start().await;
    let mut proxy = taps::Proxy::of(&town.bench, "uid-client");
    let (mut out, mut err) = (Written::default(), Written::default());
    let (shown, words) = (out.clone(), err.clone());
    let mut console = Console {
        input: &mut std::io::empty(),
        out: &mut out,
        err: &mut err,
        color: false,
    };
    let line = "tap pod/client --to svc/api -n shop";
    let watching = weft_cli::run(town.arguments("tapper", line), &mut console);
    let telling = async {
        let (id, ask) = proxy.next_query().await;
        assert_eq!(&*ask.to_services[0], "shop/api");
        let record = v1::answered::What::Record(taps::record());
        proxy.answer_with(id, record);
        let summary = v1::TapSummary {
            matched: 1,
            shown: 1,
            dropped: 0,
        };
        proxy.answer_with(id, v1::answered::What::Summary(summary));
        while shown.text().is_empty() || words.text().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        id
    };
    let output = timeout(PATIENCE, telling);
    let id = tokio::select! {
        ended = watching => panic!("{ended:?}"),
        id = output => id.expect("nothing is shown"),
    };
    assert_eq!(
        shown.text(),
        "09:00:00.000Z out shop/client -> shop/api-1:80 http1 GET /items 503 1.5ms 0B mtls \
         reason=overload service=shop/api route=api/read\n"
    );
    assert_eq!(words.text(), "1 of 1 take part\n");
    // Interrupted, it watches no pod any longer.
    let ended = timeout(PATIENCE, proxy.orders.recv()).await;
    assert_eq!(ended.unwrap(), Some(v1::to_proxy::Message::EndAsk(id)));
}

// Claims: observe-130
#[tokio::test]
async fn cli_sums_requests_by_method_path_and_route() {
    let town = Town::start().await;
    let mut proxy = taps::Proxy::of(&town.bench, "uid-client");
    let telling = async {
        let (id, ask) = proxy.next_query().await;
        assert_eq!(ask.max_per_second, 100);
        proxy.answer_with(id, v1::answered::What::Record(taps::record()));
        for latency in [1_000, 2_000, 3_000] {
            let served = v1::TapRecord {
                status: 200,
                reason: String::new(),
                latency,
                ..taps::record()
            };
            proxy.answer_with(id, v1::answered::What::Record(served));
        }
        // Of forty it showed four.
        let summary = v1::TapSummary {
            matched: 40,
            shown: 4,
            dropped: 1,
        };
        proxy.answer_with(id, v1::answered::What::Summary(summary));
    };
    let line = "top pod/client --paths -t 3s -o table -n shop";
    let querying = timeout(PATIENCE, town.weft("tapper", line));
    let (output, ()) = tokio::join!(querying, telling);
    let (code, out, err) = output.expect("it goes on");
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        rows(&out),
        [[
            "out", "GET", "75.00%", "13.3", "1.5ms", "3.0ms", "3.0ms", "api/read", "/items"
        ]],
        "{out}"
    );
    assert!(
        err.contains("4 of 40 requests in 3 s were shown, 1 found no room; rates are scaled"),
        "{err}"
    );
    assert!(err.contains("1 of 1 proxies take part"), "{err}");
    // It watches no pod any longer.
    let ended = timeout(PATIENCE, proxy.orders.recv()).await;
    assert!(matches!(ended, Ok(Some(v1::to_proxy::Message::EndAsk(_)))));
}

// Claims: observe-131
#[tokio::test]
async fn cli_summary_counts_only_requests_passing_its_filters() {
    let town = Town::start().await;
    let mut proxy = taps::Proxy::of(&town.bench, "uid-api-1");
    let line = "top pod/api-1 --paths -t 1s --to svc/api --method GET --path /items --route \
                routes/read --status 5xx --slower 200ms --max-rps 7 -o table -n shop";
    let querying = timeout(PATIENCE, town.weft("tapper", line));
    let (output, (_, ask)) = tokio::join!(querying, proxy.next_query());
    let (code, _, err) = output.expect("it goes on");
    assert_eq!(code, 0, "{err}");
    assert_eq!(ask.to_services, ["shop/api"]);
    assert_eq!(
        (&*ask.method, &*ask.path_prefix, &*ask.route),
        ("GET", "/items", "routes/read")
    );
    assert_eq!((ask.status_first, ask.status_last), (500, 599));
    assert_eq!((ask.slower, ask.max_per_second), (200_000, 7));
}

// Claims: observe-133
#[tokio::test]
async fn cli_top_needs_tap_permission_only_for_paths() {
    let town = Town::start().await;
    for (user, line, code, word) in [
        (
            "viewer",
            "pod/client --paths -n shop",
            3,
            "ClusterRole weft-tap",
        ),
        ("viewer", "pod/client -o table -n shop", 0, ""),
        ("tapper", "--paths -n shop", 2, "RES"),
        ("tapper", "pod/client -t 10s -n shop", 2, "--paths"),
        ("tapper", "pod/client --status 5xx -n shop", 2, "--paths"),
        (
            "tapper",
            "pod/client --paths --status 6 -n shop",
            2,
            "status",
        ),
        ("tapper", "pod/client --paths -A", 2, "-n NAME"),
        (
            "tapper",
            "pod/client --paths -t 2m -n shop",
            2,
            "from 1s to 1m",
        ),
        ("tapper", "svc/api:80 --paths -n shop", 2, "port"),
        (
            "tapper",
            "pod/client --paths -o json -n shop",
            2,
            "prints table",
        ),
    ] {
        let line = format!("top {line}");
        let ended = timeout(PATIENCE, town.weft(user, &line)).await;
        let (ended, _, err) = ended.expect("it goes on");
        assert!(ended == code && err.contains(word), "{line}: {ended} {err}");
    }
}

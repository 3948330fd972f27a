//! `weft tap`, which goes on until somebody interrupts it.

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
    for (line, word) in [("svc/api:80 -n shop", "port"), ("pod/client -A", "-n NAME")] {
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
async fn command_line_goes_on_while_nobody_can_answer_for_a_moment() {
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
        proxy.asked().await;
        // Its stream ends, and the next finds a controller that has just begun.
        let models = &town.bench.models;
        let known = models.send_replace(None);
        drop(proxy);
        while !words.text().contains("no controller of Weft answers") {
            sleep(Duration::from_millis(10)).await;
        }
        models.send_replace(known);
        let mut again = taps::Proxy::of(&town.bench, "uid-client");
        again.asked().await;
    };
    tokio::select! {
        ended = watching => panic!("{ended:?}: {}", words.text()),
        told = timeout(PATIENCE, telling) => told.expect("it asks no more"),
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
    let line = "tap pod/client --to svc/api --route api/read -n shop";
    let watching = weft_cli::run(town.arguments("tapper", line), &mut console);
    let telling = async {
        let (id, asked) = proxy.asked().await;
        assert_eq!(
            (&*asked.to_services[0], &*asked.route),
            ("shop/api", "api/read")
        );
        let record = v1::answered::What::Record(taps::record());
        proxy.says(id, record);
        let summary = v1::TapSummary {
            matched: 1,
            shown: 1,
            dropped: 0,
        };
        proxy.says(id, v1::answered::What::Summary(summary));
        while shown.text().is_empty() || words.text().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
        id
    };
    let told = timeout(PATIENCE, telling);
    let id = tokio::select! {
        ended = watching => panic!("{ended:?}"),
        id = told => id.expect("nothing is shown"),
    };
    assert_eq!(
        shown.text(),
        "09:00:00Z out shop/client -> shop/api-1:80 http1 GET /items 503 1.5ms 0B mtls \
         reason=overload service=shop/api route=api/read\n"
    );
    assert_eq!(words.text(), "1 of 1 take part\n");
    // Interrupted, it watches nobody any longer.
    let ended = timeout(PATIENCE, proxy.orders.recv()).await;
    assert_eq!(ended.unwrap(), Some(v1::to_proxy::Message::EndAsk(id)));
}

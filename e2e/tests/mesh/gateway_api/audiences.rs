//! Whose calls a route decides: a producer's everybody's, a consumer's those of its namespace.

use anyhow::ensure;
use e2e::{
    echo::call::ProxyResponse,
    harness::{Namespace, Outcome, Pod, eventually},
};
use serde_json::json;

use super::{super::SOON, UNARY, await_condition, backends, prefix, route, shop, with_parent};

/// Paths that the consumer's route lists, and how each is requested.
const LISTED: [(&str, &[&str]); 3] = [
    ("/only/a", &[]),
    ("/only/a", &["--http2"]),
    (UNARY, &["--grpc"]),
];
/// The same of paths that it does not.
const OTHERS: [(&str, &[&str]); 2] = [("/onlya", &[]), ("/onlya", &["--http2"])];

// Claims: routes-3
#[test]
fn consumer_route_replaces_producer_route_for_its_namespace() -> Outcome {
    let producer = shop("producer")?;
    let consumer = Namespace::meshed("consumer")?;
    consumer.run(&["client"])?;
    let (own, other) = (producer.pod("client")?, consumer.pod("client")?);
    let root = format!("http://shop.{}:8080", producer.name);

    let rules = json!([{"backendRefs": backends(8080, &[("canary", 1)])}]);
    producer.apply_all(&[route("HTTPRoute", &rules)])?;
    await_condition(&producer, "httproutes", "Accepted", "True")?;
    for client in [&own, &other] {
        all_answered_by(client, &root, "canary", None)?;
    }

    let mut stable = backends(8080, &[("stable", 1)]);
    stable[0]["namespace"] = json!(producer.name);
    let filters = json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier":
        {"set": [{"name": "x-route", "value": "consumer"}]}}]);
    let rule =
        |path: &str| json!({"matches": prefix(path), "filters": filters, "backendRefs": stable});
    let parent = json!({"namespace": producer.name});
    let listed = json!([rule("/only"), rule("/weft.echo.Echo"), rule("/ws")]);
    consumer.apply_all(&[with_parent("HTTPRoute", &parent, &listed)])?;
    await_condition(&consumer, "httproutes", "Accepted", "True")?;
    all_answered_by(&other, &root, "stable", Some("consumer"))?;
    // Its own route decides all of them: what it does not list is never the producer's.
    for (path, args) in OTHERS {
        other.refused(&format!("{root}{path}"), args, 404, "no-route")?;
    }
    let unlisted = other.get(&format!("{root}/other.Service/Call"), &["--grpc"])?;
    assert_eq!(unlisted.by_grpc_status.get("12"), Some(&1), "{unlisted:?}");
    let websocket = format!("ws://shop.{}:8080/ws", producer.name);
    assert_eq!(other.exec(&["ws", &websocket, "-n", "3"])?.trim(), "3");
    all_answered_by(&own, &root, "canary", None)?;

    let without = json!([rule("/only"), rule("/weft.echo.Echo")]);
    consumer.apply_all(&[with_parent("HTTPRoute", &parent, &without)])?;
    eventually(SOON, "a websocket that no rule lists is refused", || {
        let refused = other.exec(&["ws", &websocket, "-n", "1"]).is_err();
        ensure!(refused, "it was upgraded");
        Ok(())
    })?;
    assert_eq!(own.exec(&["ws", &websocket, "-n", "3"])?.trim(), "3");

    consumer.kubectl(&["delete", &super::object("httproutes")])?;
    all_answered_by(&other, &root, "canary", None)?;
    Ok(())
}

/// Waits until what the consumer's route lists is answered by this version, by each protocol,
/// with this response header of a route.
fn all_answered_by(
    client: &Pod,
    root: &str,
    version: &str,
    header: Option<&str>,
) -> anyhow::Result<()> {
    let what = format!("{} calls {version}", client.namespace);
    for (path, args) in LISTED {
        eventually(SOON, &what, || {
            let last = client.get(&format!("{root}{path}"), args)?.last;
            let is = |name: &str| value(&last, name);
            ensure!(
                last.status == 200
                    && is("echo-version") == Some(version)
                    && is("x-route") == header,
                "{path} {args:?}: {last:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

fn value<'a>(response: &'a ProxyResponse, name: &str) -> Option<&'a str> {
    response.headers.get(name).map(String::as_str)
}

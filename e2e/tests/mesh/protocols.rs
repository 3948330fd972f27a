//! Whatever the application speaks goes through as it was.
//!
//! Claims: mesh-7a

use std::{thread, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::request_log::{LogSnapshot, PATH},
    harness::{Api, Namespace, Outcome, Pod, UNTIL_ENDED, eventually, mesh},
};
use http::Method;

use super::url;

/// Port of the application's log of requests.
const LOG: u16 = 9091;

fn pair(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    ns.run(&["client", "server"])?;
    Ok(ns)
}

#[test]
fn grpc_streams_both_ways_with_trailers() -> Outcome {
    let ns = pair("grpc")?;
    let client = ns.pod("client")?;
    for args in [
        &["server:8080"][..],
        &["server:8080", "--duration", "5s", "--rate", "50"],
    ] {
        let seen = client.grpc(args)?;
        assert!(
            seen.sent == seen.received && seen.trailers,
            "{args:?}: {seen:?}"
        );
        assert_eq!(seen.grpc_status.as_deref(), Some("0"), "{args:?}: {seen:?}");
    }
    Ok(())
}

/// A stream that breaks off without trailers is an error in the server's program to libraries
/// of gRPC (13), and fails here as such.
// Claims: R9, attack-31
#[test]
fn grpc_streams_end_unavailable_with_pod_but_calls_continue() -> Outcome {
    const STREAMS: usize = 10;
    /// Longer than the pod lives.
    const STREAM: [&str; 5] = ["server:8080", "--duration", "120s", "--rate", "5"];
    /// Until all of them are open.
    const OPENED: Duration = Duration::from_secs(30);
    let ns = pair("grpc-ends")?;
    let (client, server) = (ns.pod("client")?, ns.pod("server")?);
    let api = Api::open(&ns.cluster)?;
    let (ends, calls) = thread::scope(|scope| {
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| scope.spawn(|| client.grpc(&STREAM)))
            .collect();
        // One that began later might be at the other pod.
        eventually(OPENED, "all streams are open", || {
            let open = streams_at(&api, &server)?;
            ensure!(open >= STREAMS, "{open} of {STREAMS}");
            Ok(())
        })?;
        ns.kubectl(&["scale", "deployment/server", "--replicas=2"])?;
        ns.ready(&["server"])?;
        let calls = client.start_load(
            &url("server", 8080, "/weft.echo.Echo/Unary"),
            &["--grpc", "--rate", "20", "--duration", UNTIL_ENDED],
        )?;
        ns.kubectl(&["delete", "pod", &server.name, "--grace-period=5"])?;
        let ended = streams.into_iter().map(|stream| {
            let ended = stream.join();
            ended
                .map_err(|_| anyhow::anyhow!("panicked"))
                .and_then(|end| end)
        });
        let ended: Vec<_> = ended.collect();
        anyhow::Ok((ended, calls.end()?))
    })?;
    for end in ends {
        let seen = end.context("not an end of gRPC")?;
        let status = seen.grpc_status.as_deref();
        // Or its server ended it in good order.
        assert!(matches!(status, Some("14" | "0")), "{seen:?}");
        assert!(seen.received > 0 && seen.received < seen.sent, "{seen:?}");
        assert_eq!(seen.pod.as_deref(), Some(&*server.name), "{seen:?}");
    }
    let served = calls.by_grpc_status.get("0");
    assert!(
        served == Some(&calls.planned) && calls.planned == calls.sent,
        "{calls:?}"
    );
    Ok(())
}

/// Streams that have come to the application of a pod, by its own log.
fn streams_at(api: &Api, pod: &Pod) -> anyhow::Result<usize> {
    let path = format!("{PATH}?only=/weft.echo.Echo/Stream");
    let (status, text) = api.ask_pod(pod, LOG, &Method::GET, &path, "")?;
    ensure!(status == 200, "{path} answered {status}: {text}");
    let log: LogSnapshot = serde_json::from_str(&text)?;
    Ok(log.records.len())
}

#[test]
fn websocket_is_upgraded_and_stays_open() -> Outcome {
    let ns = pair("websocket")?;
    let back =
        ns.pod("client")?
            .exec(&["ws", "ws://server:8080/ws", "-n", "10", "--pause", "300ms"])?;
    assert_eq!(back.trim_end(), "10");
    Ok(())
}

// Claims: mesh-10e
#[test]
fn tcp_echo_returns_and_undeclared_banner_arrives_promptly() -> Outcome {
    let ns = pair("bytes")?;
    let client = ns.pod("client")?;
    assert_eq!(
        client.exec(&["tcp", "server:9000", "good day"])?.trim_end(),
        "good day"
    );
    let answer = client.exec(&["banner", "server:9001"])?;
    let (line, millis) = answer.trim_end().split_once('\n').unwrap_or_default();
    assert!(line.starts_with("220 server-"), "{answer}");
    assert!(
        millis.parse::<u64>()? <= 1500,
        "the banner took {millis} ms"
    );
    Ok(())
}

/// Its port is named `grpc-tls`: as gRPC in cleartext it would answer no client.
// Claims: R6, mesh-17
#[test]
fn tls_to_controller_port_gets_its_certificate() -> Outcome {
    let ns = Namespace::meshed("controller-port")?;
    ns.run(&["client"])?;
    let address = format!("weft-controller.{}.svc:8443", mesh::NAMESPACE);
    let client = ns.pod("client")?;
    let shown = client.exec(&["certificate", &address, "weft-controller"])?;
    let own = format!(
        "spiffe://cluster.local/ns/{}/sa/weft-controller",
        mesh::NAMESPACE
    );
    assert!(shown.contains(&own), "{shown}");
    Ok(())
}

#[test]
fn large_bodies_pass_both_ways() -> Outcome {
    const SIZE: u64 = 50_000_000;
    let ns = pair("bodies")?;
    let client = ns.pod("client")?;
    let down = client.get(&url("server", 8080, &format!("/?size={SIZE}")), &[])?;
    assert_eq!(
        down.last.headers.get("content-length"),
        Some(&SIZE.to_string()),
        "{down:?}"
    );
    assert!(
        down.errors.is_empty() && down.by_status.contains_key("200"),
        "{down:?}"
    );
    let up = client.report(
        &url("server", 8080, "/"),
        &["-X", "POST", "--body-size", &SIZE.to_string()],
    )?;
    assert_eq!(up.body_bytes, SIZE);
    Ok(())
}

#[test]
fn statuses_and_headers_of_the_application_are_its_own() -> Outcome {
    let ns = pair("statuses")?;
    let client = ns.pod("client")?;
    for status in [204_u16, 301, 404, 429, 500, 503] {
        let path = format!("/?status={status}&header=x-mine:yes&header=weft-reason:forged");
        let last = client.get(&url("server", 8080, &path), &[])?.last;
        assert_eq!(last.status, status, "{last:?}");
        assert_eq!(
            last.headers.get("x-mine").map(String::as_str),
            Some("yes"),
            "{last:?}"
        );
        assert!(
            !last.headers.contains_key("weft-reason"),
            "a forged reason came through: {last:?}"
        );
    }
    Ok(())
}

#[test]
fn five_hundred_idle_connections_are_usable_later() -> Outcome {
    let ns = pair("idle")?;
    let alive = ns.pod("client")?.exec(&[
        "hold",
        "http://server:8080/",
        "-c",
        "500",
        "--duration",
        "5s",
    ])?;
    assert_eq!(alive.trim_end(), "500");
    Ok(())
}

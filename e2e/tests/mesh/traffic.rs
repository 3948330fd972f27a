//! Long and large transfers go through, and the proxies' memory stays small.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Api, Namespace, Outcome, Pod, eventually};

use super::url;

/// One body, each way.
const BODY: u64 = 200_000_000;
/// A proxy that keeps a part of the body needs a multiple of this.
const GROWTH: f64 = 40.0 * MIB;
const IDLE_CONNECTIONS: f64 = 1000.0;
/// Both ends of a connection, in one proxy.
const PER_IDLE_CONNECTION: f64 = 64.0 * 1024.0;
const MIB: f64 = 1024.0 * 1024.0;
/// Between two looks at the memory while a body passes.
const SAMPLE: Duration = Duration::from_millis(100);

/// All of it at the same time, each in a pair of pods of its own, so that every
/// proxy's memory has one cause.
// Claims: mesh-7a
#[test]
fn streams_bodies_and_1000_idle_connections_need_little_memory() -> Outcome {
    let ns = Namespace::meshed("traffic")?;
    let apps = [
        "talker",
        "listener",
        "bulk-client",
        "bulk-server",
        "idle-client",
        "idle-server",
    ];
    ns.run(&apps)?;
    let talker = &ns.pod("talker")?;
    let (bulk_client, bulk_server) = (&ns.pod("bulk-client")?, &ns.pod("bulk-server")?);
    let (idle_client, idle_server) = (&ns.pod("idle-client")?, &ns.pod("idle-server")?);
    let api = Api::open(&ns.cluster)?;
    // What a proxy needs once, such as connections to its peer, is not growth.
    bulk_client.report(&url("bulk-server", 8080, "/"), &[])?;
    idle_client.report(&url("idle-server", 8080, "/"), &[])?;

    thread::scope(|scope| {
        let grpc = scope.spawn(|| grpc_streams_for_a_minute(talker));
        let websocket = scope.spawn(|| websocket_stays_open_for_a_minute(talker));
        let idle = scope.spawn(|| idle_connections(&api, idle_client, idle_server));
        let bodies = scope.spawn(|| bodies_both_ways(&api, bulk_client, bulk_server));
        [
            ("gRPC", grpc),
            ("websocket", websocket),
            ("idle connections", idle),
            ("bodies", bodies),
        ]
        .into_iter()
        .try_for_each(|(what, thread)| {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("panicked"))
                .and_then(|outcome| outcome)
                .context(what)
        })
    })?;
    for app in apps {
        assert_eq!(ns.pod(app)?.restarts(), 0, "{app} was restarted");
    }
    Ok(())
}

fn grpc_streams_for_a_minute(client: &Pod) -> anyhow::Result<()> {
    let seen = client.grpc(&["listener:8080", "--duration", "60s", "--rate", "50"])?;
    println!(
        "gRPC: {} messages each way in {:.0} s",
        seen.received, seen.seconds
    );
    ensure!(
        seen.sent == 3000 && seen.received == seen.sent && seen.trailers,
        "{seen:?}"
    );
    ensure!(seen.grpc_status.as_deref() == Some("0"), "{seen:?}");
    Ok(())
}

fn websocket_stays_open_for_a_minute(client: &Pod) -> anyhow::Result<()> {
    let back = client.exec(&["ws", "ws://listener:8080/ws", "-n", "60", "--pause", "1s"])?;
    println!("websocket: {} texts came back", back.trim_end());
    ensure!(back.trim_end() == "60", "{back} of 60 came back");
    Ok(())
}

fn bodies_both_ways(api: &Api, client: &Pod, server: &Pod) -> anyhow::Result<()> {
    let before = [resident(api, client)?, resident(api, server)?];
    let size = BODY.to_string();
    let done = AtomicBool::new(false);
    let peak = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                for (peak, pod) in peak.iter_mut().zip([client, server]) {
                    *peak = peak.max(resident(api, pod)?);
                }
                thread::sleep(SAMPLE);
            }
            anyhow::Ok(peak)
        });
        let transfer = || {
            let down = client.get(&url("bulk-server", 8080, &format!("/?size={size}")), &[])?;
            ensure!(
                down.errors.is_empty() && down.by_status.contains_key("200"),
                "{down:?}"
            );
            ensure!(
                down.last.headers.get("content-length") == Some(&size),
                "{down:?}"
            );
            let up = client.report(
                &url("bulk-server", 8080, "/"),
                &["-X", "POST", "--body-size", &size],
            )?;
            ensure!(up.body_bytes == BODY, "{up:?}");
            Ok(down.seconds)
        };
        let moved = transfer();
        done.store(true, Ordering::Relaxed);
        let peak = watcher
            .join()
            .map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        println!("bodies: {BODY} bytes down in {:.1} s, and up", moved?);
        anyhow::Ok(peak)
    })?;
    for (at, side) in ["client", "server"].into_iter().enumerate() {
        let after = resident(api, [client, server][at])?;
        println!(
            "bodies: {side}'s proxy {:.1} MiB before, {:.1} at most, {:.1} after",
            before[at] / MIB,
            peak[at] / MIB,
            after / MIB
        );
        ensure!(
            peak[at] - before[at] < GROWTH,
            "the {side}'s proxy grew by {:.1} MiB",
            (peak[at] - before[at]) / MIB
        );
    }
    Ok(())
}

fn idle_connections(api: &Api, client: &Pod, server: &Pod) -> anyhow::Result<()> {
    let before = [resident(api, client)?, resident(api, server)?];
    let during = thread::scope(|scope| {
        let count = format!("{IDLE_CONNECTIONS}");
        let holder = scope.spawn(move || {
            client.exec(&[
                "hold",
                "http://idle-server:8080/",
                "-c",
                &count,
                "--duration",
                "30s",
            ])
        });
        let seen = eventually(Duration::from_secs(30), "all connections are open", || {
            let open = api.proxy_metrics(client)?.sum("weft_open_connections", &[]);
            ensure!(open >= IDLE_CONNECTIONS, "{open} are open");
            Ok([resident(api, client)?, resident(api, server)?])
        });
        let alive = holder
            .join()
            .map_err(|_| anyhow::anyhow!("the holder panicked"))??;
        ensure!(
            alive.trim_end() == format!("{IDLE_CONNECTIONS}"),
            "{alive} of {IDLE_CONNECTIONS} connections served again"
        );
        seen
    })?;
    for (at, side) in ["client", "server"].into_iter().enumerate() {
        let each = (during[at] - before[at]) / IDLE_CONNECTIONS;
        println!(
            "idle connections: {side}'s proxy {:.1} MiB before, {:.1} with {IDLE_CONNECTIONS}, {:.1} KiB each",
            before[at] / MIB,
            during[at] / MIB,
            each / 1024.0
        );
        ensure!(
            each < PER_IDLE_CONNECTION,
            "an idle connection costs the {side}'s proxy {each:.0} bytes"
        );
    }
    Ok(())
}

/// Bytes of memory that the pod's proxy holds now.
fn resident(api: &Api, pod: &Pod) -> anyhow::Result<f64> {
    let bytes = api
        .proxy_metrics(pod)?
        .sum("process_resident_memory_bytes", &[]);
    ensure!(bytes > 0.0, "{}'s proxy does not tell its memory", pod.name);
    Ok(bytes)
}

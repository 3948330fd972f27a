//! What an eavesdropper between two nodes sees.

use std::{net::Ipv4Addr, thread, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Cluster, Namespace, Outcome, Pod};
use serde_json::json;

use super::{
    sniffer::{self, Packet, Sniffer},
    url,
};

/// The port that proxies call each other on.
const MESH_PORT: u16 = 15108;
const APP_PORT: u16 = 8080;
const REQUESTS: &str = "20";

/// What no eavesdropper may see, one per place of a request. HPACK may write
/// path and headers in a code of its own; a body is always as it is.
struct Markers {
    path: String,
    header: String,
    body: String,
}

impl Markers {
    fn new() -> Self {
        let one = || format!("{:032x}", rand::random::<u128>());
        Self {
            path: one(),
            header: one(),
            body: one(),
        }
    }

    /// Packets that hold path, header and body.
    fn found(&self, packets: &[Packet]) -> [usize; 3] {
        [&self.path, &self.header, &self.body].map(|marker| {
            let holds = |packet: &&Packet| sniffer::holds(&packet.payload, marker.as_bytes());
            packets.iter().filter(holds).count()
        })
    }
}

// Claims: mesh-3a
#[test]
fn packets_between_nodes_contain_no_meshed_plaintext() -> Outcome {
    let ns = Namespace::meshed("wire")?;
    let [first, second] = two_nodes(&ns.cluster)?;
    for mode in ["enabled", "disabled"] {
        for (side, node) in [("client", &first), ("server", &second)] {
            ns.apply_all(&placed(&format!("{side}-{mode}"), mode, node))?;
        }
    }
    let all = [
        "client-enabled",
        "server-enabled",
        "client-disabled",
        "server-disabled",
    ];
    ns.ready(&all)?;

    // The control run: the same search must find what is there to be found.
    let markers = Markers::new();
    let packets = listen_to_calls(&ns, "disabled", &markers)?;
    let found = markers.found(&packets);
    println!(
        "unmeshed: {} packets, of which {found:?} hold path, header, body",
        packets.len()
    );
    assert!(
        found.iter().all(|found| *found > 0),
        "the control run must find path, header and body: {found:?} of {} packets",
        packets.len()
    );

    let markers = Markers::new();
    let packets = listen_to_calls(&ns, "enabled", &markers)?;
    let found = markers.found(&packets);
    let records: usize = packets
        .iter()
        .filter(|packet| packet.to_port == MESH_PORT)
        .map(|packet| sniffer::application_records(&packet.payload))
        .sum();
    println!(
        "meshed: {} packets, {found:?} hold path, header, body; {records} TLS application records to port {MESH_PORT}",
        packets.len()
    );
    assert_eq!(found, [0; 3], "plaintext is on the wire");
    assert!(records > 0, "no TLS record was captured");
    let elsewhere: Vec<u16> = packets
        .iter()
        .filter(|packet| ![packet.to_port, packet.from_port].contains(&MESH_PORT))
        .map(|packet| packet.to_port)
        .collect();
    assert!(
        elsewhere.is_empty(),
        "packets went beside the mesh port: {elsewhere:?}"
    );
    Ok(())
}

/// Packets between the pods of a pair while one calls the other.
fn listen_to_calls(ns: &Namespace, mode: &str, markers: &Markers) -> anyhow::Result<Vec<Packet>> {
    let server_name = format!("server-{mode}");
    let (client, server) = (ns.pod(&format!("client-{mode}"))?, ns.pod(&server_name)?);
    ensure!(
        client.object["spec"]["nodeName"] != server.object["spec"]["nodeName"],
        "both pods are on one node"
    );
    let sniffer = Sniffer::start([address(&client)?, address(&server)?])?;
    let seen = client.get(
        &url(&server_name, APP_PORT, &format!("/{}", markers.path)),
        &[
            "-X",
            "POST",
            "-H",
            &format!("x-marker:{}", markers.header),
            "--body",
            &markers.body,
            "-n",
            REQUESTS,
        ],
    )?;
    // The last packets are on their way through the socket.
    thread::sleep(Duration::from_millis(300));
    let packets = sniffer.stop()?;
    ensure!(
        seen.by_status.get("200") == Some(&seen.planned),
        "the calls failed: {seen:?}"
    );
    ensure!(
        seen.last.body.contains(&markers.path),
        "another request was answered: {seen:?}"
    );
    Ok(packets)
}

fn address(pod: &Pod) -> anyhow::Result<Ipv4Addr> {
    pod.ip
        .parse()
        .with_context(|| format!("{} has address {}", pod.name, pod.ip))
}

fn two_nodes(cluster: &Cluster) -> anyhow::Result<[String; 2]> {
    let names = cluster.kubectl(&["get", "nodes", "-o", "name"])?;
    let mut names = names
        .lines()
        .filter_map(|line| line.strip_prefix("node/"))
        .map(str::to_owned);
    match (names.next(), names.next()) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => anyhow::bail!("the cluster has fewer than two nodes"),
    }
}

/// The objects of an app on one node, with or without a proxy.
fn placed(name: &str, inject: &str, node: &str) -> Vec<serde_json::Value> {
    let mut objects = App::new(name).label("weft.dev/inject", inject).objects();
    for object in &mut objects {
        if object["kind"] == "Deployment" {
            object["spec"]["template"]["spec"]["nodeSelector"] =
                json!({"kubernetes.io/hostname": node});
        }
    }
    objects
}

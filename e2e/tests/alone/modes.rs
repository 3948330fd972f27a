//! Mode switches on a running namespace: in time, without a restart, and without an error
//! that the new mode does not require.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use e2e::{
    echo::load::Summary,
    harness::{App, Namespace, Outcome, Pod, UNTIL_ENDED, eventually},
};

use super::{grant::grant, url, websocket::OpenWebSocket};

/// The promise, from the moment kubectl says that it is written.
const PROMISED: Duration = Duration::from_secs(2);
/// Until what the promise before has left is over; no bound of this one.
const OPENED: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);
const ACCESS: &str = "weft.dev/access";
const MTLS: &str = "weft.dev/mtls";

/// One shop serves all three promises: what one of them has written is written anew by the
/// next one.
// Claims: mesh-4a, mesh-4b, mesh-4c
#[test]
fn modes_of_running_namespace_apply_within_2_s() -> Outcome {
    let ns = shop("modes")?;
    strict_takes_effect_within_2_s_and_ends_plaintext_only(&ns)?;
    tightened_access_closes_open_connections_that_are_not_allowed_and_no_others(&ns)?;
    access_modes_take_effect_within_2_s_and_cut_nothing_else(&ns)?;
    Ok(())
}

// Claims: mesh-4b
fn strict_takes_effect_within_2_s_and_ends_plaintext_only(ns: &Namespace) -> anyhow::Result<()> {
    let (client, outsider) = (ns.pod("client")?, ns.pod("outsider")?);
    let target = url("server", 8080, "/");
    let open = |pod, target, messages| OpenWebSocket::open(ns, pod, target, messages);
    let loads = [
        load(&client, &target, "50")?,
        load(&outsider, &target, "50")?,
    ];
    let mut bytes = open(&outsider, "opaque:8080", 600)?;
    let mut socket = open(&outsider, "server:8080", 600)?;
    let mut members_bytes = open(&client, "opaque:8080", 100)?;
    let mut members_socket = open(&client, "server:8080", 100)?;
    OpenWebSocket::all_open(&mut [
        &mut bytes,
        &mut socket,
        &mut members_bytes,
        &mut members_socket,
    ])?;

    ns.annotate(MTLS, Some("strict"))?;
    let start = Instant::now();
    for (what, connection) in [("bytes", &mut bytes), ("websocket", &mut socket)] {
        let took = connection.closed(start, PROMISED)?;
        println!("plaintext {what}: closed {took:?} after strict was written");
    }
    in_time("strict", start, || {
        outsider.refused(&target, &[], 403, "no-identity")
    })?;
    all(&outsider, &target, "403")?;
    switch(ns, MTLS, "permissive", || {
        outsider.report(&target, &[]).map(drop)
    })?;
    all(&outsider, &target, "200")?;
    switch(ns, MTLS, "strict", || {
        outsider.refused(&target, &[], 403, "no-identity")
    })?;
    switch(ns, MTLS, "permissive", || {
        outsider.report(&target, &[]).map(drop)
    })?;
    members_bytes.finish()?;
    members_socket.finish()?;
    let [members, outsiders] = loads.map(|load| load.end());
    let (members, outsiders) = (members?, outsiders?);
    println!(
        "member {:?}, outsider {:?}",
        members.by_status, outsiders.by_status
    );
    assert_eq!(
        members.by_status.get("200"),
        Some(&members.planned),
        "a meshed caller noticed: {members:?}"
    );
    only(&outsiders, &["200", "403"], &["no-identity"])?;
    assert_eq!(outsiders.by_status.len(), 2, "{outsiders:?}");
    assert_eq!(outsiders.planned, outsiders.answered, "{outsiders:?}");
    Ok(())
}

// Claims: mesh-4c
fn tightened_access_closes_open_connections_that_are_not_allowed_and_no_others(
    ns: &Namespace,
) -> anyhow::Result<()> {
    ns.annotate(ACCESS, Some("open"))?;
    grant(ns, "friend")?;
    let (client, friend) = (ns.pod("client")?, ns.pod("friend")?);
    let open = |pod, target, messages| OpenWebSocket::open(ns, pod, target, messages);
    let mut bytes = open(&client, "opaque:8080", 600)?;
    let mut socket = open(&client, "server:8080", 600)?;
    let mut friends_bytes = open(&friend, "opaque:8080", 150)?;
    let mut friends_socket = open(&friend, "server:8080", 150)?;
    OpenWebSocket::all_open(&mut [
        &mut bytes,
        &mut socket,
        &mut friends_bytes,
        &mut friends_socket,
    ])?;
    ns.annotate(ACCESS, Some("audit"))?;
    thread::sleep(PROMISED);
    bytes.is_open()?;
    socket.is_open()?;

    ns.annotate(ACCESS, Some("deny"))?;
    let start = Instant::now();
    for (what, connection) in [("bytes", &mut bytes), ("websocket", &mut socket)] {
        let took = connection.closed(start, PROMISED)?;
        println!("{what}: closed {took:?} after deny was written");
    }
    friends_bytes.finish()?;
    friends_socket.finish()?;
    Ok(())
}

// Claims: mesh-4a
fn access_modes_take_effect_within_2_s_and_cut_nothing_else(ns: &Namespace) -> anyhow::Result<()> {
    ns.annotate(ACCESS, Some("open"))?;
    grant(ns, "friend")?;
    let (client, friend) = (ns.pod("client")?, ns.pod("friend")?);
    let server = ns.pod("server")?;
    let restarts_before = server.restarts();
    let target = url("server", 8080, "/");
    let passes = || client.report(&target, &[]).map(drop);
    let refused = || client.refused(&target, &[], 403, "not-allowed");
    eventually(OPENED, "no caller is refused", passes)?;
    let audited_before = audited(&server)?;
    let loads = [load(&client, &target, "50")?, load(&friend, &target, "50")?];
    all(&client, &target, "200")?;

    for (mode, status) in [
        ("auto", "403"),
        ("audit", "200"),
        ("deny", "403"),
        ("open", "200"),
        ("deny", "403"),
        ("auto", "403"),
        ("open", "200"),
    ] {
        switch(ns, ACCESS, mode, || {
            if status == "200" { passes() } else { refused() }
        })?;
        all(&client, &target, status)?;
        if mode == "audit" {
            let count = audited(&server)?;
            assert!(count > audited_before, "audit counted nothing: {count}");
        }
    }
    // In deny, what holds is the targets: they change as quickly.
    switch(ns, ACCESS, "deny", refused)?;
    let start = Instant::now();
    ns.kubectl(&["delete", "traffictarget", "server"])?;
    in_time("the target is gone", Instant::now(), || {
        friend.refused(&target, &[], 403, "not-allowed")
    })?;
    let [client_saw, friend_saw] = loads.map(|load| load.end());
    let after_delete = start.elapsed().as_secs_f64();
    let (client_saw, friend_saw) = (client_saw?, friend_saw?);
    println!(
        "client {:?}, friend {:?}",
        client_saw.by_status, friend_saw.by_status
    );
    for seen in [&client_saw, &friend_saw] {
        assert_eq!(seen.planned, seen.answered, "requests were lost: {seen:?}");
        only(seen, &["200", "403"], &["not-allowed"])?;
    }
    // The friend is refused only after its target is gone, at the very end.
    assert!(friend_saw.by_status.contains_key("200"), "{friend_saw:?}");
    let refused_in = friend_saw.by_status.get("403").copied().unwrap_or(0) as f64 / 50.0;
    assert!(
        refused_in <= after_delete + 1.0,
        "the friend was refused for {refused_in} s, its target was gone for {after_delete} s"
    );
    assert_eq!(ns.pod("server")?.restarts(), restarts_before);
    Ok(())
}

/// Requests of which the proxy of this pod said only that they would be refused.
fn audited(pod: &Pod) -> anyhow::Result<f64> {
    let samples = pod.proxy_metrics()?;
    Ok(samples.sum("weft_audit_refusals_total", &[]))
}

/// Two servers, one of them opaque, and three callers.
fn shop(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    let apps = [
        App::new("server"),
        App::new("opaque").annotation("weft.dev/opaque-ports", "8080"),
        App::new("client"),
        App::new("friend"),
        App::new("outsider").label("weft.dev/inject", "disabled"),
    ];
    let objects: Vec<_> = apps.iter().flat_map(App::objects).collect();
    ns.apply_all(&objects)?;
    ns.ready(&["server", "opaque", "client", "friend", "outsider"])?;
    for pod in ["client", "friend"] {
        ns.pod(pod)?.report(&url("server", 8080, "/"), &[])?;
    }
    Ok(ns)
}

fn load(pod: &Pod, target: &str, rate: &str) -> anyhow::Result<e2e::harness::Load> {
    pod.start_load(
        target,
        &["--rate", rate, "--duration", UNTIL_ENDED, "-c", "4"],
    )
}

/// Writes a mode, and waits until it holds.
fn switch(
    ns: &Namespace,
    key: &str,
    mode: &str,
    look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    ns.annotate(key, Some(mode))?;
    in_time(mode, Instant::now(), look)
}

/// Looks until it holds. The promise is about calls that begin later than that, so when a look
/// began is what counts: how long kubectl takes to end is not the mesh's.
pub(crate) fn in_time(
    what: &str,
    start: Instant,
    mut look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        let asked = start.elapsed();
        match look() {
            Ok(()) => {
                println!("{what}: seen by a call that began {asked:?} after it was written");
                return Ok(());
            }
            Err(error) if asked >= PROMISED => {
                return Err(error.context(format!(
                    "{what}: not seen by a call that began {asked:?} after it was written"
                )));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Once a mode holds, it holds for every request.
fn all(pod: &Pod, target: &str, status: &str) -> anyhow::Result<()> {
    let seen = pod.get(target, &["-n", "50", "--rate", "100", "-c", "4"])?;
    ensure!(
        seen.by_status.get(status) == Some(&50),
        "not every answer is {status}: {seen:?}"
    );
    Ok(())
}

fn only(seen: &Summary, statuses: &[&str], reasons: &[&str]) -> anyhow::Result<()> {
    let foreign = |found: &std::collections::BTreeMap<String, u64>, known: &[&str]| {
        found.keys().any(|key| !known.contains(&key.as_str()))
    };
    ensure!(seen.errors.is_empty(), "requests were lost: {seen:?}");
    ensure!(
        !foreign(&seen.by_status, statuses),
        "other answers: {seen:?}"
    );
    ensure!(
        !foreign(&seen.by_reason, reasons),
        "other reasons: {seen:?}"
    );
    Ok(())
}

//! `metrics.smi-spec.io`: what kubectl and clients of SMI read of the traffic.
//!
//! Claims: smi-9

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::conformance::Record;
use e2e::echo::load::Summary;
use e2e::harness::{Namespace, Outcome, Pod, eventually};
use policy::latency::bucket;
use serde_json::{Value, json};

use super::{SOON, split, url};

mod direct;

/// Where everything below stands.
const ROOT: &str = "/apis/metrics.smi-spec.io/v1alpha1";
/// An interval of 5 s, 5 s until it can be queried, and what a busy machine adds.
const REPORTED: Duration = Duration::from_secs(60);
/// Of a test that is held up no call leaves it.
const WINDOW: &str = "t=3m";

/// Servers `slow` and `shaky`, and a client.
fn town(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    ns.run(&["slow", "shaky", "client"])?;
    Ok(ns)
}

fn read(ns: &Namespace, path: &str) -> anyhow::Result<Value> {
    let text = ns.cluster.kubectl(&["get", "--raw", path])?;
    serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
}

/// Below this namespace.
fn inside(ns: &Namespace, path: &str) -> String {
    format!("{ROOT}/namespaces/{}/{path}?{WINDOW}", ns.name)
}

fn metric(item: &Value, name: &str) -> anyhow::Result<f64> {
    let metrics = item["metrics"].as_array().context("no metrics")?;
    let metric = metrics.iter().find(|metric| metric["name"] == name);
    let value = metric.with_context(|| format!("no {name} in {item}"))?["value"]
        .as_str()
        .context("a value that is no quantity")?;
    match value.strip_suffix('m') {
        Some(thousandths) => Ok(thousandths.parse::<f64>()? / 1000.0),
        None => Ok(value.parse()?),
    }
}

fn counts(item: &Value) -> anyhow::Result<(f64, f64)> {
    Ok((
        metric(item, "success_count")?,
        metric(item, "failure_count")?,
    ))
}

/// Within 2 % of what the load generator saw.
fn near(reported: f64, seen: u64) -> anyhow::Result<()> {
    let seen = seen as f64;
    ensure!(
        (reported - seen).abs() <= seen * 0.02,
        "{reported} were reported and {seen} seen"
    );
    Ok(())
}

fn items(list: &Value) -> Vec<&Value> {
    list["items"].as_array().into_iter().flatten().collect()
}

/// The edges in one direction to objects of this name.
fn edges<'a>(list: &'a Value, direction: &str, other: &str) -> Vec<&'a Value> {
    let fits = |item: &&Value| {
        item["edge"]["direction"] == direction && item["edge"]["resource"]["name"] == other
    };
    items(list).into_iter().filter(fits).collect()
}

/// Percentiles at the client, whose view is nearest to the load generator's, of
/// 320 quick calls and 80 slow ones. Each percentile lies inside one of the two
/// groups, far from where they meet: what a busy machine adds to a few calls (a
/// connection that opens, a turn of the scheduler) moves none to another bucket, while
/// a percentile taken for another one is wrong by a factor of 13.
fn latencies_agree(
    row: &mut Record,
    ns: &Namespace,
    quick: &Summary,
    slow: &Summary,
) -> anyhow::Result<()> {
    let path = format!("{}&side=client", inside(ns, "deployments/slow"));
    // The called side has reported so far, and that to one of the replicas.
    let api = eventually(REPORTED, "the client has reported all calls", || {
        let api = read(ns, &path)?;
        near(counts(&api)?.0, 400)?;
        Ok(api)
    })?;
    for (name, seen) in [
        ("p50_response_latency", quick.latency_ms.p50),
        ("p90_response_latency", slow.latency_ms.p50),
        ("p99_response_latency", slow.latency_ms.p90),
    ] {
        let reported = metric(&api, name)?;
        println!("{name}: {reported} ms reported, {seen} ms seen");
        row.saw(
            format!("400 x GET through slow, {name} of deployments/slow"),
            format!("{reported} ms reported, {seen} ms seen by the load generator"),
        );
        let apart = bucket(reported / 1e3).abs_diff(bucket(seen / 1e3));
        assert!(apart <= 1, "{name}: {reported} ms reported, {seen} ms seen");
    }
    Ok(())
}

/// Both ends of the calls of the town, each in its own direction, and nothing merged: the
/// queries and their results.
fn both_ends_show_the_calls(ns: &Namespace) -> anyhow::Result<Vec<(String, String)>> {
    let out = read(ns, &inside(ns, "deployments/client/edges"))?;
    ensure!(items(&out).len() == 2, "{out}");
    let mut shown = Vec::new();
    for (other, success, failure) in [("slow", 400, 0), ("shaky", 300, 200)] {
        let to = edges(&out, "to", other);
        ensure!(to.len() == 1, "{out}");
        ensure!(to[0]["edge"]["side"] == "client", "{out}");
        let (good, bad) = counts(to[0])?;
        near(good, success)?;
        near(bad, failure)?;
        let into = read(ns, &inside(ns, &format!("deployments/{other}/edges")))?;
        let from = edges(&into, "from", "client");
        ensure!(from.len() == 1 && items(&into).len() == 1, "{into}");
        ensure!(from[0]["edge"]["side"] == "server", "{into}");
        near(counts(from[0])?.0, success)?;
        shown.push((
            format!("GET deployments/client/edges and deployments/{other}/edges after {success} good and {failure} bad calls"),
            format!("to {other}: {good} and {bad}; from client: {:?}", counts(from[0])?),
        ));
    }
    Ok(shown)
}

/// The calls of the town, for every kind that the pods of `slow` belong to.
fn every_kind_shows_the_calls(ns: &Namespace) -> anyhow::Result<()> {
    let pod = ns.pod("slow")?;
    let owner = pod.object["metadata"]["ownerReferences"][0]["name"].as_str();
    let set = owner.context("a pod without ReplicaSet")?;
    for path in [
        format!("pods/{}", pod.name),
        format!("replicasets/{set}"),
        "services/slow".to_owned(),
    ] {
        near(counts(&read(ns, &inside(ns, &path))?)?.0, 400).with_context(|| path)?;
    }
    let all = read(ns, &format!("{ROOT}/namespaces/{}?{WINDOW}", ns.name))?;
    assert_eq!(all["resource"]["kind"], "Namespace");
    near(counts(&all)?.0, 700)?;
    let node = pod.object["spec"]["nodeName"]
        .as_str()
        .context("a pod without node")?;
    let busy = counts(&read(ns, &format!("{ROOT}/nodes/{node}?{WINDOW}"))?)?.0;
    ensure!(busy >= 392.0, "node {node} has {busy}");
    Ok(())
}

#[test]
fn metrics_counts_latencies_and_edges_match_load_generator() -> Outcome {
    let mut row = Record::part("E20", "counts")?;
    let ns = town("traffic")?;
    let client = ns.pod("client")?;
    let quick = client.get(
        &url("slow", 8080, "/?delay=75ms"),
        &["-n", "320", "-c", "8"],
    )?;
    let slow = client.get(&url("slow", 8080, "/?delay=1s"), &["-n", "80", "-c", "8"])?;
    let good = client.get(&url("shaky", 8080, "/"), &["-n", "300", "-c", "4"])?;
    let bad = client.get(
        &url("shaky", 8080, "/?status=503"),
        &["-n", "200", "-c", "4"],
    )?;
    assert_eq!(
        (
            quick.by_status.get("200"),
            slow.by_status.get("200"),
            good.by_status.get("200"),
            bad.by_status.get("503")
        ),
        (Some(&320), Some(&80), Some(&300), Some(&200)),
        "{quick:?} {slow:?} {good:?} {bad:?}"
    );
    eventually(REPORTED, "all calls are reported", || {
        let (success, failure) = counts(&read(&ns, &inside(&ns, "deployments/shaky"))?)?;
        near(success, 300)?;
        near(failure, 200)?;
        let (success, failure) = counts(&read(&ns, &inside(&ns, "deployments/slow"))?)?;
        near(success, 400)?;
        near(failure, 0)
    })?;

    latencies_agree(&mut row, &ns, &quick, &slow)?;

    // Any replica answers, and the other one may learn of these calls a moment later.
    let shown = eventually(REPORTED, "both ends show the calls", || {
        both_ends_show_the_calls(&ns)
    })?;
    for (queried, shown) in shown {
        row.saw(queried, shown);
    }
    eventually(REPORTED, "every kind shows the calls", || {
        every_kind_shows_the_calls(&ns)
    })?;

    // Nothing calls the client: zeros, and no error.
    let idle = read(&ns, &inside(&ns, "deployments/client"))?;
    assert_eq!(counts(&idle)?, (0.0, 0.0));
    assert_eq!(metric(&idle, "p99_response_latency")?, 0.0);
    let missing = read(&ns, &inside(&ns, "deployments/missing")).unwrap_err();
    assert!(format!("{missing:#}").contains("not found"), "{missing:#}");
    row.saw(
        "GET deployments/client, which has no callers",
        "zeros, no NaN, no error",
    );
    row.passed()?;
    Ok(())
}

#[test]
fn split_metrics_show_received_calls_of_every_backend() -> Outcome {
    let mut row = Record::part("E20", "split")?;
    let ns = split::shop("split-metrics")?;
    // What is called before a split is in force counts at none of its backends.
    split::all_to(&ns, "stable")?;
    split::weigh(&ns, &[("stable", 70), ("canary", 30), ("absent", 0)])?;
    split::in_force(&ns, |seen| split::of(seen, "canary") > 5)?;
    let seen = ns
        .pod("client")?
        .get(&url("shop", 8080, "/"), &["-n", "1000", "-c", "8"])?;
    assert_eq!(seen.by_status.get("200"), Some(&1000), "{seen:?}");
    let list = eventually(REPORTED, "every backend has its calls", || {
        let list = read(&ns, &inside(&ns, "trafficsplits/shop"))?;
        let found: Vec<_> = items(&list)
            .iter()
            .map(|item| (item["backend"].clone(), counts(item)))
            .collect();
        ensure!(found.len() == 3, "{list}");
        for ((backend, counted), (name, weight)) in
            found
                .into_iter()
                .zip([("stable", 70), ("canary", 30), ("absent", 0)])
        {
            ensure!(
                backend == json!({"apex": "shop", "name": name, "weight": weight}),
                "{backend}"
            );
            let (success, failure) = counted?;
            // The short loads that waited for the weights are in it as well.
            let least = split::of(&seen, name) as f64;
            ensure!(
                success >= least && failure == 0.0,
                "{name}: {success} of {least}"
            );
        }
        Ok(list)
    })?;
    assert_eq!(
        list["items"][0]["edge"],
        json!({"direction": "from", "side": "client", "resource": {}})
    );
    row.saw(
        "1000 x GET through a split of 70, 30 and 0, GET trafficsplits/shop",
        format!("three backends with at least {:?}", seen.by_version),
    );
    row.passed()?;
    Ok(())
}

#[test]
fn metrics_require_read_permission_on_the_object() -> Outcome {
    let ns = Namespace::meshed("denied")?;
    ns.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: reader}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader}\nrules:\n\
         - {apiGroups: [metrics.smi-spec.io], resources: [pods], verbs: [list]}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: reader}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}\n\
         subjects: [{kind: ServiceAccount, name: reader, namespace: $NS}]\n",
    )?;
    let user = format!("--as=system:serviceaccount:{}:reader", ns.name);
    let ask = |resource: &str| {
        let path = format!("{ROOT}/namespaces/{}/{resource}", ns.name);
        ns.cluster.kubectl(&["get", "--raw", &path, &user])
    };
    eventually(SOON, "the role holds", || ask("pods"))?;
    let refused = format!("{:#}", ask("deployments").unwrap_err());
    assert!(refused.contains("Forbidden"), "{refused}");
    Ok(())
}

#[test]
fn kubectl_lists_metrics_as_a_table_and_explains_them() -> Outcome {
    let ns = town("table")?;
    // The API server looks only now and then at what an API has to offer.
    let table = eventually(Duration::from_secs(90), "kubectl knows the API", || {
        let table = ns.kubectl(&["get", "deployments.metrics.smi-spec.io"])?;
        ensure!(!table.is_empty(), "an empty table");
        Ok(table)
    })?;
    let head = table.lines().next().unwrap_or_default();
    for column in ["NAME", "SUCCESS", "FAILURE", "P50", "P99"] {
        assert!(head.contains(column), "{table}");
    }
    let rows: Vec<&str> = table
        .lines()
        .skip(1)
        .filter_map(|row| row.split_whitespace().next())
        .collect();
    assert_eq!(rows, ["client", "shaky", "slow"], "{table}");
    let one = ns.json(&["get", "deployments.metrics.smi-spec.io", "slow"])?;
    assert_eq!(one["resource"]["name"], "slow");
    // Deployments without a group stay those of Kubernetes.
    let plain = ns.json(&["get", "deployments", "slow"])?;
    assert_eq!(plain["apiVersion"], "apps/v1");
    let labelled = ns.kubectl(&["get", "pods.metrics.smi-spec.io", "-l", "app=slow"])?;
    assert_eq!(labelled.lines().count(), 2, "{labelled}");
    let explained = ns.kubectl(&[
        "explain",
        "deployments.edge",
        "--api-version=metrics.smi-spec.io/v1alpha2",
    ])?;
    assert!(
        explained.contains("calls that the object receives"),
        "{explained}"
    );
    Ok(())
}

#[test]
fn namespace_goes_while_the_api_is_served() -> Outcome {
    let ns = town("goes")?;
    // Fails when it takes longer, with what the API server waits for.
    ns.cluster
        .kubectl(&["delete", "namespace", &ns.name, "--wait", "--timeout=180s"])?;
    Ok(())
}

#[test]
fn metrics_replicas_agree_and_serve_only_api_server() -> Outcome {
    let ns = town("same")?;
    let client = ns.pod("client")?;
    client.get(&url("slow", 8080, "/"), &["-n", "500", "-c", "8"])?;
    let path = inside(&ns, "deployments/client/edges");
    eventually(REPORTED, "the calls are reported", || {
        let (success, _) = counts(&read(&ns, &path)?["items"][0])?;
        near(success, 500)
    })?;
    let list = ns.cluster.json(&[
        "-n",
        "weft-system",
        "get",
        "pods",
        "-l",
        "app.kubernetes.io/component=controller",
    ])?;
    let pods: Vec<Pod> = items(&list)
        .into_iter()
        .map(|pod| Pod::listed(&ns.cluster, "weft-system", pod))
        .collect();
    assert!(pods.len() >= 2, "{list}");
    let mut caller = direct::Caller::new(&ns.cluster)?;
    // The window moves on every five seconds, perhaps between two queries, and a report to one
    // replica reaches the others a moment later.
    eventually(REPORTED, "all replicas report the same calls", || {
        let mut answers = Vec::new();
        for pod in &pods {
            answers.push(caller.ask(pod, &path, direct::As::ApiServer)?);
        }
        let ends: Vec<&Value> = answers
            .iter()
            .map(|(_, body)| &body["items"][0]["timestamp"])
            .collect();
        ensure!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{ends:?}");
        for (status, body) in &answers {
            ensure!(*status == 200 && *body == answers[0].1, "{answers:?}");
        }
        near(counts(&answers[0].1["items"][0])?.0, 500)
    })?;

    for who in [direct::As::Anonymous, direct::As::Administrator] {
        let (status, body) = caller.ask(&pods[0], &path, who)?;
        assert_eq!(
            (status, &body["kind"]),
            (401, &json!("Status")),
            "{who:?}: {body}"
        );
    }
    Ok(())
}

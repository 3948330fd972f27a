//! IdentityBindings: callers by account, by SPIFFE id and by label, at the proxy that
//! is called, with real certificates.
//!
//! Claims: smi-5

use anyhow::{anyhow, bail, ensure};
use e2e::harness::{Namespace, Outcome, Pod, eventually};

use super::{SOON, url};

/// Every workload that binding `callers` matches may call `server`, by HTTP and by TCP.
const TARGET: &str = r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: all}
spec: {}
---
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: callers}
spec:
  destination: {kind: ServiceAccount, name: server}
  rules: [{kind: TCPRoute, name: all}]
  sources: [{kind: IdentityBinding, name: callers}]
";

fn binding(name: &str, schemes: &str) -> String {
    format!(
        "apiVersion: access.smi-spec.io/v1alpha4\nkind: IdentityBinding\nmetadata: \
         {{name: {name}}}\nspec: {{schemes: {schemes}}}\n"
    )
}

fn scene(claim: &str, apps: &[&str]) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    ns.run(apps)?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    Ok(ns)
}

fn passes(pod: &Pod) -> anyhow::Result<()> {
    let name = format!("{} may call", pod.name);
    eventually(SOON, &name, || pod.report(&url("server", 8080, "/"), &[])).map(drop)
}

fn is_refused(pod: &Pod) -> anyhow::Result<()> {
    let name = format!("{} is refused", pod.name);
    eventually(SOON, &name, || {
        pod.refused(&url("server", 8080, "/"), &[], 403, "not-allowed")
    })
}

#[test]
fn binding_by_account_or_spiffe_id_admits_exactly_those() -> Outcome {
    let ns = scene("ib-account", &["server", "one", "two"])?;
    let (one, two) = (ns.pod("one")?, ns.pod("two")?);
    ns.apply(TARGET)?;
    is_refused(&one)?;
    // The binding comes after the target that names it.
    ns.apply(&binding("callers", "{serviceAccount: one}"))?;
    passes(&one)?;
    is_refused(&two)?;
    let ids = "{spiffeIdentities: [cluster.local/ns/$NS/sa/two]}";
    ns.apply(&binding("callers", ids))?;
    passes(&two)?;
    is_refused(&one)?;
    let both = "{serviceAccount: one, spiffeIdentities: ['spiffe://cluster.local/ns/$NS/sa/two']}";
    ns.apply(&binding("callers", both))?;
    passes(&one)?;
    passes(&two)?;
    let condition = "jsonpath={.status.conditions[?(@.type=='Accepted')].status}";
    eventually(SOON, "the binding says that it took effect", || {
        let shown = ns.kubectl(&["get", "identitybinding", "callers", "-o", condition])?;
        ensure!(shown == "True", "Accepted is {shown:?}");
        Ok(())
    })?;
    ns.kubectl(&["delete", "identitybinding", "callers"])?;
    is_refused(&one)?;
    is_refused(&two)?;
    Ok(())
}

/// Two pods of one account, of which one has the label.
#[test]
fn binding_by_label_follows_label_not_account() -> Outcome {
    Ok(by_label()?)
}

fn by_label() -> anyhow::Result<()> {
    let ns = scene("ib-label", &["server", "client"])?;
    ns.kubectl(&["scale", "deployment/client", "--replicas=2"])?;
    ns.ready(&["client"])?;
    let [chosen, other] = &ns.pods("client")?[..] else {
        bail!("there should be two clients");
    };
    ns.apply(TARGET)?;
    ns.apply(&binding(
        "callers",
        "{podLabelSelector: {matchLabels: {role: caller}}}",
    ))?;
    is_refused(chosen)?;
    is_refused(other)?;
    ns.kubectl(&["label", "pod", &chosen.name, "role=caller"])?;
    passes(chosen)?;
    is_refused(other)?;

    // What is open when the label goes: a websocket is closed, and a connection that is
    // kept alive gets 403 for its next request.
    let talking = {
        let chosen = chosen.clone();
        std::thread::spawn(move || {
            let url = "ws://server:8080/ws";
            let started = std::time::Instant::now();
            let talk = chosen.exec(&["ws", url, "-n", "60", "--pause", "250ms"]);
            (talk, started.elapsed())
        })
    };
    let limits = ["-c", "2", "--rate", "50", "--duration", "8s"];
    let load = chosen.start_load(&url("server", 8080, "/"), &limits)?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    ns.kubectl(&["label", "pod", &chosen.name, "role-"])?;
    is_refused(chosen)?;
    let seen = load.finish()?;
    let refused = seen.by_reason.get("not-allowed").copied().unwrap_or(0);
    let passed = seen.by_status.get("200").copied().unwrap_or(0);
    ensure!(refused > 0 && passed > 0, "{seen:?}");
    let (talk, lasted) = talking.join().map_err(|_| anyhow!("the talk panicked"))?;
    ensure!(talk.is_err(), "the websocket went on: {talk:?}");
    // Sixty texts would take fifteen seconds; the label went after about three.
    ensure!(
        (2.0..12.0).contains(&lasted.as_secs_f64()),
        "{lasted:?}: {talk:?}"
    );
    Ok(())
}

//! Rights of readers: a user with rights in one namespace sees that one, and of others only
//! the parts that are open.

use anyhow::ensure;
use e2e::harness::{CommandOutput, Namespace, Outcome, eventually};

use super::super::url;
use super::{PATIENT, SHOWN, edges};

/// A reader with role `view` in this namespace only, as a user name.
pub(super) fn reader(ns: &Namespace) -> anyhow::Result<String> {
    ns.apply(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: reader}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: reader}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}\n\
         subjects: [{kind: ServiceAccount, name: reader, namespace: $NS}]\n",
    )?;
    Ok(format!("system:serviceaccount:{}:reader", ns.name))
}

/// The output of `weft` for this user.
pub(super) fn ask(ns: &Namespace, user: &str, args: &[&str]) -> anyhow::Result<CommandOutput> {
    ns.cluster.weft(&[args, &["--as", user], &PATIENT].concat())
}

/// `web` of the first namespace calls `cart` of the second.
pub(super) fn two(claim: &str) -> anyhow::Result<(Namespace, Namespace)> {
    let (shop, bank) = (Namespace::meshed(claim)?, Namespace::meshed(claim)?);
    shop.run(&["web"])?;
    bank.run(&["cart", "vault"])?;
    let host = format!("cart.{}", bank.name);
    shop.pod("web")?.report(&url(&host, 8080, "/"), &[])?;
    bank.pod("cart")?.report(&url("vault", 8080, "/"), &[])?;
    Ok((shop, bank))
}

// Claims: observability-10
#[test]
fn namespace_reader_sees_own_graph_and_foreign_names_only() -> Outcome {
    let (shop, bank) = two("eyes-rights")?;
    let user = reader(&shop)?;
    // The whole list: `stat` omits calls to other namespaces.
    let own = ["edges", "--since", "24h", "-o", "json", "-n", &shop.name];
    let own = eventually(SHOWN, "the reader sees the call", || {
        let output = ask(&shop, &user, &own)?;
        let graph = output.with_status(0)?.json()?;
        let all = graph["edges"].as_array().cloned().unwrap_or_default();
        let to = format!("{}/Deployment/cart", bank.name);
        ensure!(all.iter().any(|edge| edge["to"] == to), "{graph:#}");
        Ok(graph)
    })?;
    let nodes = own["nodes"].as_array().cloned().unwrap_or_default();
    let foreign = nodes
        .iter()
        .find(|node| node["namespace"] == bank.name.as_str());
    let foreign = foreign.map(|node| (node["pods"].is_null(), node["access"].is_null()));
    assert_eq!(foreign, Some((true, true)), "{own:#}");
    // What happens within the other one is none of theirs.
    assert!(edges(&bank, &own, "cart", "vault").is_empty(), "{own:#}");

    for args in [
        &["edges", "-n", &bank.name][..],
        &["stat", "deploy", "-n", &bank.name],
        &["proxies", "-n", &bank.name],
        &["edges", "-A"],
    ] {
        let output = ask(&shop, &user, args)?.with_status(3)?;
        assert!(output.out.is_empty(), "{args:?}: {output:?}");
        // The missing right is named with the role that grants it.
        assert!(output.err.contains("view"), "{args:?}: {output:?}");
    }
    let stat = ask(&shop, &user, &["proxies", "-n", &shop.name])?;
    assert!(stat.out.contains("web-"), "{stat:?}");
    Ok(())
}

// Claims: observability-10
#[test]
fn scopes_name_the_namespaces_that_a_reader_may_read() -> Outcome {
    let shop = Namespace::meshed("eyes-scopes")?;
    let user = reader(&shop)?;
    let path = "/apis/observe.weft.dev/v1alpha1/scopes/live";
    eventually(SHOWN, "the scope is reported", || {
        let raw = ["get", "--raw", path, "--as", &user];
        let scope: serde_json::Value = serde_json::from_str(&shop.cluster.kubectl(&raw)?)?;
        ensure!(scope["cluster"] == false, "{scope}");
        ensure!(
            scope["namespaces"] == serde_json::json!([shop.name]),
            "{scope}"
        );
        Ok(())
    })?;
    Ok(())
}

// Claims: observability-10
#[test]
fn explanation_shows_only_what_permitted_end_may_know() -> Outcome {
    let (shop, bank) = two("eyes-asks")?;
    bank.annotate("weft.dev/access", Some("deny"))?;
    let user = reader(&shop)?;
    let (from, to) = (&shop.name, &bank.name);
    let question = [
        "explain",
        "deploy/web",
        "svc/cart:8080",
        "GET",
        "/",
        "-n",
        from,
        "--to-namespace",
        to,
    ];
    let output = eventually(SHOWN, "the refusal is explained", || {
        ask(&shop, &user, &question)?.with_status(1)
    })?;
    assert!(output.out.starts_with("REFUSED"), "{output:?}");
    assert!(output.out.contains(to.as_str()), "whose it is: {output:?}");
    assert!(
        !output.out.contains("access "),
        "no step of the other side: {output:?}"
    );
    // The other side's.
    let owner = reader(&bank)?;
    let question = [
        "explain",
        "sa/web",
        "svc/cart:8080",
        "GET",
        "/",
        "-n",
        to,
        "--from-namespace",
        from,
    ];
    eventually(SHOWN, "its own reader sees the steps", || {
        let output = ask(&bank, &owner, &question)?.with_status(1)?;
        ensure!(output.out.contains(" access "), "{output:?}");
        Ok(())
    })?;
    Ok(())
}

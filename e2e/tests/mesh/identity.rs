//! The caller's identity: verified between meshed pods, unknown from outside.

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Namespace, Outcome, eventually};
use serde_json::json;

use super::{SOON, url};

#[test]
fn call_between_meshed_pods_arrives_with_the_callers_identity() -> Outcome {
    let ns = Namespace::meshed("identity")?;
    ns.run(&["client", "server"])?;
    let client = ns.pod("client")?;
    let expected = format!("spiffe://cluster.local/ns/{}/sa/client", ns.name);
    for args in [
        &[][..],
        &["--http2"],
        &[
            "-H",
            "weft-client-id: spiffe://cluster.local/ns/x/sa/forged",
        ],
    ] {
        let report = client.report(&url("server", 8080, "/whoami"), args)?;
        assert_eq!(
            report.client_id.as_deref(),
            Some(expected.as_str()),
            "{args:?}: {report:?}"
        );
        assert_eq!(report.path, "/whoami");
        let protocol = if args == ["--http2"] {
            "HTTP/2.0"
        } else {
            "HTTP/1.1"
        };
        assert_eq!(report.protocol, protocol, "{args:?}: {report:?}");
    }
    eventually(SOON, "the client's proxy counts requests over mTLS", || {
        let samples = client.proxy_metrics()?;
        let count = samples.sum(
            "weft_requests_total",
            &[
                ("direction", "outbound"),
                ("security", "mtls"),
                ("status", "200"),
            ],
        );
        ensure!(
            count >= 3.0,
            "it counts {count}; there is {:?}",
            samples.names()
        );
        Ok(())
    })?;
    Ok(())
}

#[test]
fn unmeshed_caller_has_no_identity_and_cannot_forge_one() -> Outcome {
    let ns = Namespace::meshed("outsider")?;
    ns.apply_all(&App::new("server").objects())?;
    ns.apply_all(
        &App::new("outsider")
            .label("weft.dev/inject", "disabled")
            .objects(),
    )?;
    ns.ready(&["server", "outsider"])?;
    let forged = [
        "-H",
        "weft-client-id: spiffe://cluster.local/ns/x/sa/forged",
        "-H",
        "weft-port: 1",
    ];
    let report = ns
        .pod("outsider")?
        .report(&url("server", 8080, "/"), &forged)?;
    assert_eq!(report.client_id, None, "{report:?}");
    let kept: Vec<_> = report
        .headers
        .keys()
        .filter(|name| name.starts_with("weft-"))
        .collect();
    assert!(
        kept.is_empty(),
        "headers of the mesh came through from outside: {report:?}"
    );
    Ok(())
}

// Claims: mesh-10f
#[test]
fn meshed_caller_reaches_unmeshed_server_and_api_server() -> Outcome {
    let ns = Namespace::meshed("leaving")?;
    ns.apply_all(&App::new("client").objects())?;
    ns.apply_all(
        &App::new("plain")
            .label("weft.dev/inject", "disabled")
            .objects(),
    )?;
    ns.ready(&["client", "plain"])?;
    let (client, plain) = (ns.pod("client")?, ns.pod("plain")?);
    for url in [
        url("plain", 8080, "/x"),
        format!("http://{}:8080/x", plain.ip),
    ] {
        let report = client.report(&url, &[])?;
        assert_eq!(
            (report.client_id, report.path.as_str()),
            (None, "/x"),
            "{url}"
        );
    }
    // Plain HTTP on a TLS port: the API server itself explains that with 400, and
    // it must be the one that says so, with and without a mesh.
    let api = "http://kubernetes.default.svc:443/";
    let (meshed, unmeshed) = (client.get(api, &[])?.last, plain.get(api, &[])?.last);
    assert_eq!(
        (meshed.status, &meshed.body),
        (unmeshed.status, &unmeshed.body)
    );
    assert_eq!(meshed.status, 400, "{meshed:?}");
    Ok(())
}

/// What is wrong with the authority's object is refused by the API server's own rules.
#[test]
fn authority_has_one_object_that_users_see() -> Outcome {
    let ns = Namespace::meshed("authority")?;
    for (name, rotation, words) in [
        ("other", json!({"id": "a"}), "must be named weft"),
        (
            "weft",
            json!({"id": "a", "scope": "Issuer", "reason": "Compromise"}),
            "a compromise needs scope Root",
        ),
    ] {
        let object = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "CertificateAuthority",
            "metadata": {"name": name}, "spec": {"rotation": rotation}});
        let flags = ["--dry-run=server"];
        let taken = ns
            .cluster
            .apply_with("default", &flags, &object.to_string());
        let error = taken.err().context("it was taken")?;
        assert!(format!("{error:#}").contains(words), "{name}: {error:#}");
    }
    eventually(SOON, "the controller reports its authority", || {
        let found = ns.cluster.json(&["get", "wca", "weft"])?;
        let status = &found["status"];
        ensure!(status["roots"][0]["state"] == "Active", "{status:#}");
        ensure!(status["rootEnds"].is_string(), "{status:#}");
        Ok(())
    })?;
    Ok(())
}

//! Certificates depend on tokens alone, and on no other field of a request.
//!
//! Claims: mesh-11

mod client;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use e2e::harness::{Namespace, Outcome, Pod, cluster};
use identity::LeafKey;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, SanType};
use serde_json::{Value, json};
use tonic::Code;

use client::Controller;

/// What proxies ask tokens for.
const AUDIENCE: &str = "weft.dev";
/// Seconds; a token's life as projected.
const HOUR: i64 = 3600;

/// The same two pods serve all three promises; one of them goes in the last.
#[test]
fn certificates_require_valid_tokens_of_running_pods() -> Outcome {
    let ns = Namespace::meshed("tokens")?;
    ns.run(&["member", "other"])?;
    let (pod, controller) = (ns.pod("member")?, Controller::any(&ns.cluster, &ns.name)?);
    token_of_a_pod_gives_a_certificate_for_that_pod_whatever_the_request_asks(
        &ns,
        &pod,
        &controller,
    )?;
    wrong_tokens_are_refused_with_a_reason_and_counted(&ns, &pod, &controller)?;
    token_of_a_deleted_pod_is_refused_also_when_it_was_good_a_moment_ago(&ns, &pod, &controller)?;
    Ok(())
}

fn token_of_a_pod_gives_a_certificate_for_that_pod_whatever_the_request_asks(
    ns: &Namespace,
    pod: &Pod,
    controller: &Controller,
) -> anyhow::Result<()> {
    let token = ns.kubectl(&bound(pod, "member", AUDIENCE))?;
    let key = KeyPair::generate()?;

    for (claim, wish) in [
        ("nothing", CertificateParams::default()),
        ("to be an authority", authority()),
        ("another identity", named_controller()?),
    ] {
        let csr = wish.serialize_request(&key)?.der().to_vec();
        let leaf = controller
            .certify(token.trim(), csr)?
            .with_context(|| format!("a request that asks for {claim}"))?;
        let expected = format!("spiffe://cluster.local/ns/{}/sa/member", ns.name);
        assert_eq!(leaf.identity.spiffe.as_str(), expected, "asked for {claim}");
        assert_eq!(
            leaf.identity.pod_uid(),
            pod.object["metadata"]["uid"].as_str(),
            "asked for {claim}"
        );
        assert!(!leaf.is_ca, "asked for {claim}");
        assert_eq!(leaf.public_key, spki(&key)?, "asked for {claim}");
    }
    let token = ns.kubectl(&bound(&ns.pod("other")?, "other", AUDIENCE))?;
    let leaf = controller
        .certify(token.trim(), named_request()?)?
        .context("the token of another account is good for itself")?;
    let expected = format!("spiffe://cluster.local/ns/{}/sa/other", ns.name);
    assert_eq!(leaf.identity.spiffe.as_str(), expected);

    let status = controller
        .stream()?
        .context("a stream without a certificate was served")?;
    println!("{:?}: {}", status.code(), status.message());
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    Ok(())
}

fn wrong_tokens_are_refused_with_a_reason_and_counted(
    ns: &Namespace,
    pod: &Pod,
    controller: &Controller,
) -> anyhow::Result<()> {
    let in_time = forged(ns, pod, "member", HOUR)?;
    let before = controller.counted("issued")?;
    controller
        .certify(&in_time, plain_request()?)?
        .context("the forged token is good until it expires")?;
    assert!(
        controller.counted("issued")? > before,
        "an issued certificate is not counted"
    );

    let refused = |what: &str, token: &str, outcome: &str, code: Code, says: &str| {
        let before = controller.counted(outcome)?;
        let status = match controller.certify(token.trim(), named_request()?)? {
            Ok(leaf) => anyhow::bail!("{what} got {leaf:?}"),
            Err(status) => status,
        };
        println!("{what}: {:?}: {}", status.code(), status.message());
        ensure!(status.code() == code, "{what}: {status:?}");
        ensure!(status.message().contains(says), "{what}: {status:?}");
        let counted = controller.counted(outcome)? - before;
        ensure!(counted == 1.0, "{what}: {counted} more of {outcome}");
        Ok(())
    };
    let foreign = ns.kubectl(&bound(pod, "member", "https://elsewhere.example"))?;
    refused(
        "a token for another audience",
        &foreign,
        "wrong-audience",
        Code::Unauthenticated,
        "audience",
    )?;
    // The account that every pod of the namespace may have, without a pod.
    let loose = ns.kubectl(&["create", "token", "other", "--audience", AUDIENCE])?;
    refused(
        "another account's token without a pod",
        &loose,
        "not-bound",
        Code::PermissionDenied,
        "not bound to a pod",
    )?;
    refused(
        "an expired token",
        &forged(ns, pod, "member", -60)?,
        "not-authenticated",
        Code::Unauthenticated,
        "expired",
    )?;
    let mut broken = in_time.clone();
    broken.truncate(in_time.len() - 8);
    refused(
        "a token with half a signature",
        &broken,
        "not-authenticated",
        Code::Unauthenticated,
        "token",
    )?;
    refused(
        "no token",
        "",
        "bad-request",
        Code::InvalidArgument,
        "no token",
    )?;
    Ok(())
}

fn token_of_a_deleted_pod_is_refused_also_when_it_was_good_a_moment_ago(
    ns: &Namespace,
    pod: &Pod,
    controller: &Controller,
) -> anyhow::Result<()> {
    let tokens = [0, 1].map(|_| ns.kubectl(&bound(pod, "member", AUDIENCE)));
    let [used, unused] = tokens;
    let (used, unused) = (used?, unused?);
    // The API server remembers a good token for some seconds.
    controller
        .certify(used.trim(), plain_request()?)?
        .context("the pod still runs")?;
    ns.kubectl(&["delete", "pod", &pod.name, "--grace-period=1", "--wait"])?;
    for (what, token) in [("used before", &used), ("never used", &unused)] {
        let before = counted_as_gone(controller)?;
        let Err(status) = controller.certify(token.trim(), plain_request()?)? else {
            bail!("a token {what} of a deleted pod got a certificate")
        };
        println!("{what}: {:?}: {}", status.code(), status.message());
        assert!(
            matches!(
                status.code(),
                Code::Unauthenticated | Code::PermissionDenied
            ),
            "{what}: {status:?}"
        );
        assert_eq!(counted_as_gone(controller)?, before + 1.0, "{what}");
    }
    Ok(())
}

/// Either the API server says so, or the controller that looked for the pod.
fn counted_as_gone(controller: &Controller) -> anyhow::Result<f64> {
    Ok(controller.counted("not-authenticated")? + controller.counted("pod-gone")?)
}

/// `kubectl create token` as the kubelet asks for it, and for any audience.
fn bound<'a>(pod: &'a Pod, account: &'a str, audience: &'a str) -> [&'a str; 10] {
    [
        "create",
        "token",
        account,
        "--audience",
        audience,
        "--bound-object-kind",
        "Pod",
        "--bound-object-name",
        &pod.name,
        "--duration=1h",
    ]
}

fn plain_request() -> anyhow::Result<Vec<u8>> {
    Ok(LeafKey::generate()?.csr()?)
}

/// Asks for the controller's name, which would open every proxy.
fn named_request() -> anyhow::Result<Vec<u8>> {
    let key = KeyPair::generate()?;
    Ok(named_controller()?.serialize_request(&key)?.der().to_vec())
}

fn named_controller() -> anyhow::Result<CertificateParams> {
    let mut wish = CertificateParams::default();
    let name = "spiffe://cluster.local/ns/weft-system/sa/weft-controller";
    wish.subject_alt_names = vec![
        SanType::URI(name.try_into()?),
        SanType::DnsName("00000000-0000-0000-0000-000000000000.pod.weft".try_into()?),
    ];
    Ok(wish)
}

fn authority() -> CertificateParams {
    let mut wish = CertificateParams::default();
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wish
}

fn spki(key: &KeyPair) -> anyhow::Result<Vec<u8>> {
    use rcgen::PublicKeyData as _;
    Ok(key.subject_public_key_info())
}

/// A pod's token with any end (seconds from now), signed with the local
/// cluster's key as its API server does.
fn forged(ns: &Namespace, pod: &Pod, account: &str, end: i64) -> anyhow::Result<String> {
    let key = cluster::root().join("target/cluster/pki/sa.key");
    ensure!(
        key.exists(),
        "{} must be there: only the local cluster's key can be used to sign",
        key.display()
    );
    // A real one says issuer, uids and key id.
    let real = ns.kubectl(&bound(pod, account, AUDIENCE))?;
    let mut parts = real.trim().split('.');
    let mut part = || -> anyhow::Result<Value> {
        let part = parts.next().context("a token has three parts")?;
        Ok(serde_json::from_slice(
            &BASE64_URL_SAFE_NO_PAD.decode(part)?,
        )?)
    };
    let (header, mut claims) = (part()?, part()?);
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    claims["exp"] = json!(now + end);
    for begin in ["iat", "nbf"] {
        claims[begin] = json!(now + end - HOUR);
    }
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let signature = sign(&key, signed.as_bytes())?;
    Ok(format!("{signed}.{}", encode(&signature)))
}

/// RS256, by the program that made the key.
fn sign(key: &Path, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("start openssl")?;
    child
        .stdin
        .take()
        .context("openssl must have an input")?
        .write_all(content)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "openssl: {}", output.status);
    Ok(output.stdout)
}

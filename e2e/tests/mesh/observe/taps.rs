//! Taps: requests as they end, through the API server and by every kubeconfig.
//!
//! Claims: observe-128

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use e2e::harness::{Namespace, Outcome, eventually, weft::program};

use super::super::url;
use super::{PATIENT, SHOWN};

/// From a request to its line: nothing waits for a slot.
const LINE: Duration = Duration::from_secs(2);

/// Until then a tap that is refused has ended by itself: more than its own time limit.
const REFUSED: Duration = Duration::from_secs(60);

/// `weft tap`, until this is dropped.
struct Tap {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Tap {
    fn start(ns: &Namespace, args: &[&str]) -> anyhow::Result<Self> {
        let program = program()?;
        let mut child = ns
            .cluster
            .command(&program.to_string_lossy(), args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().context("no output")?;
        let (sender, lines) = mpsc::sync_channel(1024);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// With what it ended, and what it said of that, if it has.
    fn ended(&mut self) -> anyhow::Result<Option<String>> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(None);
        };
        let mut words = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            err.read_to_string(&mut words)?;
        }
        Ok(Some(format!("{status}: {words}")))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a tap says that is refused. One that is granted follows without end, and is stopped.
fn refused(ns: &Namespace, args: &[&str]) -> anyhow::Result<String> {
    let mut tap = Tap::start(ns, args)?;
    let ended = eventually(REFUSED, "the tap ends by itself", || {
        tap.ended()?.context("it follows")
    })?;
    ensure!(ended.starts_with("exit status: 3: "), "{ended}");
    if let Ok(line) = tap.lines.recv_timeout(LINE) {
        bail!("it printed {line}, and ended with {ended}");
    }
    Ok(ended)
}

/// A reader who may see the graph of the namespace.
fn reader(ns: &Namespace, role: &str) -> anyhow::Result<()> {
    ns.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: reader}}\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: {role}}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}\n\
         subjects: [{{kind: ServiceAccount, name: reader, namespace: $NS}}]\n",
    ))
    .map(drop)
}

/// To the API server a tap is a `get`, which an auditor of everything may; the controller
/// requires a right that no `*` of readers grants.
fn refused_who_may_get_everything(ns: &Namespace, user: &str, tap: &[&str]) -> anyhow::Result<()> {
    ns.apply(
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: everything}\n\
         rules: [{apiGroups: ['*'], resources: ['*'], verbs: [get, list, watch]}]\n---\n\
         apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: everything}\n\
         roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: everything}\n\
         subjects: [{kind: ServiceAccount, name: reader, namespace: $NS}]\n",
    )?;
    eventually(
        SHOWN,
        "the controller refuses what the API server does not",
        || {
            let refused = refused(ns, tap)?;
            for words in [
                "cannot create resource \"taps\" in API group \"observe.weft.dev\"",
                "ClusterRole weft-tap grants this",
            ] {
                ensure!(refused.contains(words), "no {words}: {refused}");
            }
            Ok(())
        },
    )?;
    let path = format!(
        "/apis/observe.weft.dev/v1alpha1/namespaces/{}/taps/live?watch=true&of=Deployment/web",
        ns.name
    );
    let raw = ns.cluster.kubectl(&["get", "--raw", &path, "--as", user]);
    let words = format!("{:#}", raw.err().context("a tap of who may only get")?);
    ensure!(words.contains("(Forbidden)"), "{words}");
    Ok(())
}

// Claims: observability-10
#[test]
fn tap_streams_requests_only_with_permission_and_names_user() -> Outcome {
    let ns = Namespace::meshed("eyes-tap")?;
    ns.run(&["web", "cart"])?;
    let web = ns.pod("web")?;
    let user = format!("system:serviceaccount:{}:reader", ns.name);
    let to = ["tap", "deploy/web", "--to", "svc/cart", "-n", &ns.name];
    let args = [&to[..], &["--as", &user], &PATIENT].concat();
    reader(&ns, "view")?;
    let refused = refused(&ns, &args)?;
    assert!(refused.contains("weft-tap"), "{refused}");
    refused_who_may_get_everything(&ns, &user, &args)?;

    reader(&ns, "weft-tap")?;
    let line = eventually(SHOWN, "a request is shown", || {
        let mut tap = Tap::start(&ns, &args)?;
        let mut line = Err(mpsc::RecvTimeoutError::Timeout);
        for _ in 0..5 {
            web.report(&url("cart", 8080, "/items?token=s3cret"), &[])?;
            line = tap.lines.recv_timeout(LINE);
            if line.is_ok() {
                break;
            }
        }
        line.with_context(|| format!("the tap ended: {:?}", tap.ended()))
    })?;
    for word in [" out ", " GET ", "/items ", " 200 ", " mtls "] {
        assert!(line.contains(word), "{word:?}: {line}");
    }
    assert!(!line.contains("s3cret"), "{line}");
    eventually(SHOWN, "an Event names who taps", || {
        let events = ns.kubectl(&["get", "events"])?;
        ensure!(events.contains("TapStarted"), "{events}");
        ensure!(events.contains(&user), "{events}");
        Ok(())
    })?;

    // Also who watches all of it, to those who live there.
    let whole = format!("ns/{}", ns.name);
    let args = ["tap", &whole, "-n", &ns.name, "--as", &user];
    let args = [&args[..], &PATIENT].concat();
    let mut all = Tap::start(&ns, &args)?;
    eventually(SHOWN, "an Event names who taps a namespace", || {
        // A tap that is refused at its start ends. It may reach the other replica, which caches
        // for 5 s that it refused this user above.
        if let Some(ended) = all.ended()? {
            all = Tap::start(&ns, &args)?;
            bail!("the tap of all ended with {ended}");
        }
        let events = ns.kubectl(&["get", "events"])?;
        ensure!(events.contains("requests of Namespace "), "{events}");
        Ok(())
    })?;
    Ok(())
}
